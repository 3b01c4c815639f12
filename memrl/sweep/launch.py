"""Starts a sweep: determines which runs are missing, records a submission, and starts them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from memrl.experiment import train
from memrl.run import session
from memrl.run.identity import OUTPUTS
from memrl.run.lock import locked
from memrl.run.outcome import BUSY, Busy, CannotContinue, ConfigError, attempt, below_cwd
from memrl.run.signals import Signals, Stopped
from memrl.run.status import note_failure
from memrl.run.tables import align
from memrl.sweep import snapshot, submissions
from memrl.sweep.launchers import Launcher, Local, Slurm
from memrl.sweep.pool import Pool, visible_gpus
from memrl.sweep.progress import Bar, counts, status_command
from memrl.sweep.states import State, Sweep, is_due, look
from memrl.sweep.submissions import Run

POLL_S = 15.0  # between calls of squeue, which is a load on the whole cluster


def launch(runs: Sequence[Run], launcher: Launcher) -> bool:
    """Start the missing runs of a sweep; return True once all have ended, False if jobs continue.

    Args:
        runs: all runs of the sweep, in one sweep's folder.
        launcher: where they run.

    Raises:
        ConfigError: a folder holds a run with another config; nothing was started.
        Busy: another command is submitting this sweep.
        Failure: the cluster refused it, or the queue is unknown.
        Stopped: a signal stopped the runs of this process, or its child processes.
    """
    folder = runs[0].folder.parent
    for run in runs:
        session.refuse_other_config(run.folder, run.config)
    if isinstance(launcher, Slurm):
        _need_submitit()
    if launcher.dry_run:
        _dry_run(look(folder, runs), launcher)
        return False
    if isinstance(launcher, Slurm):
        _need_sbatch()
        return _on_slurm(folder, runs, launcher)
    if due := _due(look(folder, runs), launcher):
        if isinstance(launcher, Local):
            _run_in_pool(due, launcher)
        else:
            _run_one_by_one(due, launcher)
    return True


def _due(sweep: Sweep, launcher: Launcher) -> list[Run]:
    """Return the runs to be started now, and print how many are in which state.

    Raises:
        CannotContinue: it is unknown what was submitted before.
    """
    if sweep.torn:
        raise CannotContinue(sweep.torn[0])
    if not sweep.queue_known:
        advice = "try again later"
        if shutil.which("squeue") is None:
            records = sweep.folder / submissions.FOLDER
            advice = (
                f"there is none here. If this sweep has no jobs left anywhere, delete {records}"
            )
        raise CannotContinue(f"squeue does not answer, so it is unknown what is queued; {advice}")
    due = [run for run in sweep.runs if is_due(run.state, launcher.retry_failed)]
    print(f"{sweep.folder}: {counts(sweep)}; to start: {len(due)}", flush=True)
    failed = sum(run.state == State.FAILED for run in sweep.runs)
    if failed and not launcher.retry_failed:
        print(
            f"to start the {failed} failed runs as well: hydra.launcher.retry_failed=true",
            flush=True,
        )
    return due


def _draft(
    due: Sequence[Run], launcher: Launcher, code: dict[str, Any], paths: Sequence[str]
) -> submissions.Submission:
    per_job = launcher.runs_per_job if isinstance(launcher, Slurm) else 1
    return submissions.draft(due, launcher.name, asdict(launcher), code, paths, per_job)


def _code(launcher: Launcher) -> tuple[dict[str, Any], list[str]]:
    """Return the code's description for the record, and the folders that runs import from."""
    code, tree = snapshot.describe(), snapshot.ROOT
    if isinstance(launcher, Local | Slurm) and launcher.snapshot:
        tree = snapshot.take()
        code["snapshot"] = tree.name
    python_path = (os.environ.get("PYTHONPATH") or "").split(os.pathsep)
    return code, [str(tree), *(str(Path(part).absolute()) for part in python_path if part)]


# --- on this machine ------------------------------------------------------------------------------


def _run_one_by_one(due: Sequence[Run], launcher: Launcher) -> None:
    code, paths = _code(launcher)
    record = _draft(due, launcher, code, paths)
    record.write()
    os.environ["MEMRL_CODE"] = snapshot.label(code)
    with record.driven():
        for n, run in enumerate(due):
            if n in record.cancelled:
                continue
            print(f"run {n + 1} of {len(due)}", flush=True)
            failure = attempt(lambda run=run: train(run.config, run.folder))  # type: ignore[misc]
            if failure:
                line, status = failure
                print(f"error: {line}", file=sys.stderr, flush=True)
                if status != BUSY:
                    note_failure(run.folder, line)


def _run_in_pool(due: Sequence[Run], launcher: Local) -> None:
    code, paths = _code(launcher)
    record = _draft(due, launcher, code, paths)
    record.write()
    environment = {"MEMRL_CODE": snapshot.label(code)}
    pool = Pool(record, range(len(due)), launcher.n_jobs, visible_gpus(), environment)
    print(f"{launcher.n_jobs} at a time; output: {below_cwd(record.folder / 'log')}")
    print(f"state: {status_command(record.sweep_folder)}", flush=True)
    folder = due[0].folder.parent
    with Signals() as signals, Bar() as bar, record.driven():
        pool.report = bar.write
        try:
            pool.run(signals, lambda: bar.show(look(folder, due)) if bar.due() else None)
            return
        except Stopped as error:
            stopped = error
    print(f"{stopped}; the same command continues this sweep", file=sys.stderr)
    stopped.leave()


# --- on a cluster --------------------------------------------------------------------------------


def _on_slurm(folder: Path, runs: Sequence[Run], launcher: Slurm) -> bool:
    """Submit the missing runs; return True if none is queued or running afterwards."""
    (folder / submissions.FOLDER).mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / submissions.FOLDER):  # two commands would submit each run twice
            sweep = look(folder, runs)
            due = _due(sweep, launcher)
            if due:
                _submit(due, launcher)
    except Busy:
        raise Busy(f"another command is submitting {folder}") from None
    if not due and not sweep.goes_on:
        return True
    if not launcher.wait:
        print(f"state: {status_command(folder)}")
        return False
    _wait(folder, runs)
    return True


def _need_submitit() -> None:
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        install = "pip install -c constraints.txt -e '.[slurm]'"
        raise ConfigError(f"hydra/launcher=slurm: {error}; {install}") from None


def _need_sbatch() -> None:
    from memrl.sweep import slurm

    if not slurm.available():
        raise ConfigError("hydra/launcher=slurm: there is no sbatch here; local and basic work")


def _submit(due: Sequence[Run], launcher: Slurm) -> None:
    """Submit runs as one array, or as several if the cluster limits the size of an array.

    Raises:
        slurm.SbatchError: the cluster refused an array; the arrays before it are submitted.
    """
    from memrl.sweep import slurm

    parts, parallel = _arrays(due, launcher)
    code, paths = _code(launcher)
    submitted = 0
    for part in tqdm(parts, "submitting", unit="array", leave=False, disable=None):
        record = _draft(part, launcher, code, paths)
        record.write()
        with contextlib.suppress(OSError):  # other hosts judge the lock by its age
            os.utime(record.folder.parent / "lock")
        try:
            record = slurm.start(record, slurm.executor(record, parallel))
        except slurm.SbatchError as error:
            rest = f"; the same command submits the {len(due) - submitted} other runs later"
            raise slurm.SbatchError(f"sbatch: {error}{rest if submitted else ''}") from None
        submitted += len(part)
        jobs = f"{record.jobs} job{'s' * (record.jobs > 1)}"
        print(f"submitted {len(part)} runs as {jobs}: {record.job_id} ({record.name})", flush=True)


def _arrays(due: Sequence[Run], launcher: Slurm) -> tuple[list[Sequence[Run]], int]:
    """Split runs into arrays that the cluster accepts; also return how many jobs each may run."""
    from memrl.sweep import slurm

    size = slurm.max_array_size() * launcher.runs_per_job
    parts = [due[begin : begin + size] for begin in range(0, len(due), size)]
    return parts, max(launcher.array_parallelism // len(parts), 1)


def _wait(folder: Path, runs: Sequence[Run]) -> None:
    print("waiting until all have ended; Ctrl-C ends the waiting, not the jobs", flush=True)
    with Bar() as bar, _report_interrupt(folder):
        while True:
            sweep = look(folder, runs)
            bar.show(sweep)
            if not sweep.goes_on:
                return
            time.sleep(POLL_S)


@contextlib.contextmanager
def _report_interrupt(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(f"the jobs continue; state: {status_command(folder)}", file=sys.stderr)
        raise


# --- dry run -------------------------------------------------------------------------------------


def _dry_run(sweep: Sweep, launcher: Launcher) -> None:
    due = []
    cells = [["#", "run", "state", "now"]]
    for n, run in enumerate(sweep.runs):
        starts = is_due(run.state, launcher.retry_failed)
        due += [run] if starts else []
        cells.append([str(n), run.name, run.state, "start" if starts else "leave"])
    print(align(cells))
    print(f"{sweep.folder}: {counts(sweep)}; to start: {len(due)}")
    if isinstance(launcher, Slurm) and due:
        from memrl.sweep import slurm

        (first, *others), parallel = _arrays(due, launcher)
        tree = Path(OUTPUTS, snapshot.FOLDER, "<hash>") if launcher.snapshot else snapshot.ROOT
        record = _draft(first, launcher, {}, [str(tree.absolute())])
        if others:
            print(f"in {1 + len(others)} arrays; the script of the first:")
        print("\n" + slurm.executor(record, parallel).script(record.jobs))
    print("dry run: nothing was started, nothing written")
