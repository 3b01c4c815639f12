"""Start a sweep, which is what ``python run.py -m`` does, and conclude it if it ends here.

The runs are started by memrl itself, or by a launcher of another Hydra plugin; who proposes them is
memrl's sweeper, or that of another plugin.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGUSR2
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from memrl.experiment import folder_of, resolve, train
from memrl.results.scores import objective
from memrl.run.console import print_optionally, printable
from memrl.run.files import write_whole
from memrl.run.identity import NAMED, Config, flatten
from memrl.run.import_path import extend_import_path, import_path
from memrl.run.lock import holder, this_process
from memrl.run.outcome import (
    BUSY,
    FAILED,
    Busy,
    Failure,
    below_cwd,
    in_one_line,
    log_to_console,
)
from memrl.run.signals import Stopped
from memrl.run.status import execute, is_done, read_status
from memrl.run.tables import spreadsheet_cell
from memrl.sweep.compose import Composer, compose_runs
from memrl.sweep.launch import NoObjective, hand_over, launch
from memrl.sweep.launchers import Launcher, Slurm
from memrl.sweep.progress import SHOWN, code_note, counts, status_command
from memrl.sweep.states import ONGOING, State, Sweep, read_sweep
from memrl.sweep.submissions import Run, load

POLL_S = 1.0  # between looks at a run that another process is working on
TABLE_LINES = 40  # a longer table of scores is not printed at the end of a sweep


def start(runs: Sequence[Run], launcher: Launcher) -> int:
    """Start the missing runs of a sweep; conclude it if it ends here; return the exit status."""
    print_optionally()
    failed = launch(runs, launcher)
    return 0 if failed is None else _conclude(runs, failed)


def start_elsewhere(
    runs: Sequence[Run],
    launcher: str,
    start_jobs: Callable[[Sequence[Sequence[str]], Path], Iterable[JobReturn] | None],
) -> int:
    """Let another package's launcher start the missing runs; return the exit status."""
    print_optionally()
    return _conclude(runs, hand_over(runs, launcher, start_jobs))


def _conclude(runs: Sequence[Run], failed: int) -> int:
    status = conclude(read_sweep(runs[0].folder.parent, runs, others=True), runs)
    return FAILED if failed else status  # also of a run whose failure could not be recorded


def launch_and_wait(
    composer: Composer, job_overrides: Sequence[Sequence[str]], launcher: Launcher
) -> list[JobReturn]:
    """Start what is missing of these runs, and wait; return the objective of each, in order.

    Raises:
        ConfigError: the config of one of them; none was started.
    """
    print_optionally()
    runs = compose_runs(composer, job_overrides)
    distinct = list({run.folder: run for run in runs}.values())
    launch(distinct, replace(launcher, wait=True) if isinstance(launcher, Slurm) else launcher)
    ended = {run.folder: run for run in read_sweep(runs[0].folder.parent, distinct).runs}
    results = []
    for run, overrides in zip(runs, job_overrides, strict=True):
        result = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
        state, cause = ended[run.folder].state, ended[run.folder].cause
        try:
            if state != State.DONE:
                raise NoObjective(f"{run.folder}: {state}{f': {cause}' if cause else ''}")
            result.return_value = _print_objective(run.config, run.folder)
        except NoObjective as error:
            result.status, result.return_value = JobStatus.FAILED, error
        results.append(result)
    return results


def _print_objective(config: Config, folder: Path) -> float:
    try:
        value = objective(config, folder)
    except Failure as error:
        raise NoObjective(str(error)) from None
    print(printable(f"{folder.name}: objective {value:.4g}"), flush=True)
    return value


@dataclass
class Job:
    """What a launcher of another package executes for each run, perhaps in another process.

    It ends the process only if that is the sweep's own, or if submitit requeues the job: a worker
    may have other runs to do.

    Args:
        record: folder of the submission that it is part of; None if a sweeper of another package
            wants its objective.
        driver: the process that started the sweep.
        import_path: folders of a user's own packages.
    """

    record: Path | None = None
    driver: dict[str, Any] = field(default_factory=this_process)
    import_path: list[str] = field(default_factory=import_path)

    def __call__(self, cfg: DictConfig) -> float | None:
        """Train the run of a composed config; return its objective, if a sweeper wants it.

        Raises:
            NoObjective: the run failed, or was stopped or cancelled, as its status says.
        """
        extend_import_path(self.import_path)
        if self._is_in_driver():
            return self._train(cfg)
        with contextlib.ExitStack() as stack:
            if sys.stdout.isatty():  # the progress lines of several runs would overwrite each other
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            log_to_console()
            return self._train(cfg)

    def _is_in_driver(self) -> bool:
        return this_process() == self.driver

    def _train(self, cfg: DictConfig) -> float | None:
        print_optionally()
        config = resolve(cfg)
        folder = folder_of(config)
        if self.record and folder.name in _cancelled(self.record):
            raise NoObjective(f"{folder}: cancelled before it started")

        def train_or_wait() -> None:
            try:
                train(config, folder)
            except Stopped as error:
                # submitit's handler requeues the job
                requeues = error.signum == SIGUSR2 and callable(error.previous)
                if requeues or self._is_in_driver():
                    raise  # which ends the process
            except Busy:
                if self.record:
                    raise
                while holder(folder):  # an equal trial of the same batch
                    time.sleep(POLL_S)

        status = execute(train_or_wait, folder)
        if status or not is_done(folder):
            raise NoObjective(f"{folder}: {read_status(folder).get('cause') or 'not done'}")
        return None if self.record else _print_objective(config, folder)


def _cancelled(record: Path) -> set[str]:
    try:
        submission = load(record)
    except FileNotFoundError:  # the launcher gave up, but not the job
        return set()
    return {submission.runs[index].name for index in submission.cancelled}


def conclude_study(folder: Path, began: float, failure: NoObjective | None) -> int:
    """Conclude the sweep that a sweeper of another package has made; return the exit status.

    That is 1 if the sweeper gave up. Otherwise it is 0, as it may have allowed for failed runs.

    Args:
        began: when it was started, UTC seconds.
        failure: why the sweeper gave up, if it did.
    """
    if failure:
        print(printable(f"error: {failure}"), file=sys.stderr)
    sweep = read_sweep(folder)
    if sweep.runs:
        conclude(sweep, sweep.runs)
    best = folder / "optimization_results.yaml"  # of Optuna, Ax and Nevergrad
    if best.exists() and best.stat().st_mtime >= began:
        print(printable(f"{below_cwd(best)}:\n{best.read_text().rstrip()}"), flush=True)
    return FAILED if failure else 0


def conclude(sweep: Sweep, requested: Collection[Run]) -> int:
    """Print how a command's runs ended, and write the table and figure of the whole sweep.

    Returns:
        The exit status: 1 if a run ended but is not done, 3 if another process is working on a run.
    """
    names = {run.name for run in requested}
    ours = replace(sweep, runs=[run for run in sweep.runs if run.name in names])
    print(f"{below_cwd(sweep.folder)}: {counts(ours)}")
    written = [write_table(sweep)]
    try:
        written += draw_scores(sweep.folder)
    except Exception as error:  # a missing figure must not fail the sweep
        print(f"no figure: {in_one_line(error)}", file=sys.stderr)
    print(f"see {', '.join(map(below_cwd, written))}")
    print(f"a report: python -m memrl report {shlex.quote(below_cwd(sweep.folder))}", flush=True)
    if note := code_note(sweep):
        print(note, flush=True)
    bad = [run for run in ours.runs if run.state not in (State.DONE, *ONGOING)]
    if bad:
        print(f"{len(bad)} of {len(ours.runs)} runs are not done:", file=sys.stderr)
        for run in bad[:SHOWN]:
            print(printable(f"  {run.name}: {run.state}: {run.cause}"), file=sys.stderr)
        if len(bad) > SHOWN:
            print(f"  and {len(bad) - SHOWN} more: {status_command(sweep.folder)}", file=sys.stderr)
        return FAILED
    if busy := sum(run.state in ONGOING for run in ours.runs):
        active = f"queued or running elsewhere: {busy} of {len(ours.runs)} runs"
        print(f"{active}; {status_command(sweep.folder)}", flush=True)
        return BUSY
    return 0


def draw_scores(folder: Path) -> list[Path]:
    """Print a sweep's scores and draw them, or curves if it has no length; return the paths."""
    from memrl.results.figures import write
    from memrl.results.runs import load
    from memrl.results.scores import PROTOCOLS, score
    from memrl.results.text import as_text

    cells = score(load(folder), PROTOCOLS["last"])
    if len(cells) <= TABLE_LINES:
        print(printable(as_text(cells)))
    return write(cells, folder, ["lengths"], ["png"]) or write(cells, folder, ["curves"], ["png"])


def write_table(sweep: Sweep) -> Path:
    """Write ``runs.csv``, one line per run, into the sweep's folder."""
    names = ["env", "algo", "seq_model", "length", "seed"]  # of the keys in NAMED
    fields = ["progress", "env_steps", "episodes", "updates", "last_return", "job_id", "host"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "state", "cause", *names, *fields])
    for run in sweep.runs:
        values = [*map(flatten(run.config).get, NAMED), *map(run.status.get, fields)]
        writer.writerow(map(spreadsheet_cell, [run.name, run.state, run.cause, *values]))
    path = sweep.folder / "runs.csv"
    write_whole(path, text.getvalue().encode(errors="backslashreplace"))
    return path
