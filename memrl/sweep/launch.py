"""Starts a sweep: determines which runs are missing, records a submission, and starts them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from tqdm import tqdm

from memrl.experiment import train
from memrl.run import session
from memrl.run.config import explain
from memrl.run.console import printable
from memrl.run.import_path import python_path
from memrl.run.lock import holder, locked
from memrl.run.outcome import (
    BUSY,
    FAILED,
    Busy,
    CannotContinue,
    ConfigError,
    Failure,
    below_cwd,
    in_one_line,
    plural,
)
from memrl.run.signals import Signals, Stopped
from memrl.run.status import execute, get_number, heartbeat, note_failure, read_status
from memrl.run.tables import align
from memrl.sweep import snapshot, submissions
from memrl.sweep.launchers import Launcher, Local, Slurm
from memrl.sweep.pool import Pool, visible_gpus
from memrl.sweep.progress import Bar, counts, status_command
from memrl.sweep.states import State, Sweep, is_due, read_sweep
from memrl.sweep.submissions import Run, Submission

POLL_S = 15.0  # between calls of squeue, which is a load on the whole cluster


class NoObjective(Failure):
    """A run has no objective: it is not done, as its status says, or it has no finite score."""


def launch(runs: Sequence[Run], launcher: Launcher) -> int | None:
    """Start the missing runs of a sweep; return how many failed here, or None if jobs continue.

    Raises:
        ConfigError: a folder holds a run with another config, or the code is too large to be
            copied; nothing was started.
        Busy: another command is submitting this sweep.
        Failure: the cluster refused it, or the queue is unknown.
        Stopped: a signal stopped the runs of this process, or its child processes.
    """
    folder = runs[0].folder.parent
    for run in runs:
        session.refuse_other_config(run.folder, run.config)
    if isinstance(launcher, Slurm):
        _require_slurm(launcher, folder)
        launcher = _with_defaults_for_sbatch(launcher)
    if isinstance(launcher, Local | Slurm) and launcher.snapshot:
        snapshot.own_files(folder.parent)  # before anything is created
    if launcher.dry_run:
        _dry_run(read_sweep(folder, runs), launcher)
        return None
    if isinstance(launcher, Slurm):
        return _on_slurm(folder, runs, launcher)
    due = _due(_read_known(folder, runs), launcher.retry_failed)
    return _on_this_machine(due, launcher) if due else 0


def hand_over(
    runs: Sequence[Run],
    launcher: str,
    start: Callable[[Sequence[Sequence[str]], Path], Iterable[JobReturn] | None],
) -> int:
    """Let a launcher of another package start the missing runs, and those that failed.

    Args:
        launcher: its name.
        start: takes the overrides of each run and the folder of the submission's record, and
            returns once all runs have ended, with a result for each.

    Returns:
        1 if the launcher failed, or a run that could not say so itself, else 0; how the runs ended
        is in their folders.

    Raises:
        ConfigError: a folder holds a run with another config, or a key of the launcher is refused;
            nothing was started.
        Failure: the launcher failed before any run began.
    """
    for run in runs:
        session.refuse_other_config(run.folder, run.config)
    folder = runs[0].folder.parent
    due = _due(_read_known(folder, runs), retry_failed=True)
    if not due:
        return 0
    code, paths = _code(None, folder.parent)
    record = submissions.draft(due, launcher, {}, code, paths)
    record.write()
    os.environ["MEMRL_CODE"] = snapshot.label(code)
    try:
        with heartbeat(lambda: os.utime(record.folder / "submission.json")):
            results = start([run.overrides for run in due], record.folder)
    except Exception as error:  # a worker that was killed, say
        reason = f"hydra/launcher={launcher}: {explain(error, [], None)}"
        record.end()
        if not any(_has_begun(run, record) for run in due):
            shutil.rmtree(record.folder)
            _remove_if_empty(record.folder.parent, folder)
            kind = ConfigError if isinstance(error, HydraException) else Failure
            raise kind(reason) from None
        print(printable(f"error: {reason}"), file=sys.stderr)
        return FAILED
    record.end()
    return FAILED if _note_failures(due, results or ()) else 0


def _has_begun(run: Run, record: Submission) -> bool:
    updated = get_number(read_status(run.folder), "updated") or 0
    return updated >= record.created or holder(run.folder) is not None


def _note_failures(due: Sequence[Run], results: Iterable[JobReturn]) -> int:
    """Print and record why runs failed that could not do so themselves; return how many did."""
    count = 0
    for run, result in zip(due, results, strict=False):
        # The public property prints a line of Hydra's own.
        error = result._return_value
        if result.status != JobStatus.FAILED or isinstance(error, NoObjective):
            continue
        cause = in_one_line(error)
        print(printable(f"error: {run.name}: {cause}"), file=sys.stderr)
        note_failure(run.folder, cause)
        count += 1
    return count


def _remove_if_empty(*folders: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: the sweep has runs
        for folder in folders:
            folder.rmdir()


def _read_known(folder: Path, runs: Sequence[Run]) -> Sweep:
    """Return the state of these runs; raise CannotContinue if some may be queued unnoticed."""
    sweep = read_sweep(folder, runs)
    _refuse_torn(sweep)
    if not sweep.queue_known:
        advice = f"try again later; if no job is left, delete {folder / submissions.FOLDER}"
        raise CannotContinue(f"squeue does not answer, so it is unknown what is queued; {advice}")
    return sweep


def _refuse_torn(sweep: Sweep) -> None:
    if sweep.torn:
        raise CannotContinue(sweep.torn[0])


def _due(sweep: Sweep, retry_failed: bool) -> list[Run]:
    """Return the runs to be started now, and print how many are in which state."""
    due = [run for run in sweep.runs if is_due(run.state, retry_failed)]
    print(f"{sweep.folder}: {counts(sweep)}; to start: {len(due)}", flush=True)
    failed = sum(run.state == State.FAILED for run in sweep.runs)
    if failed and not retry_failed:
        runs = plural(failed, "failed run")
        print(f"to start {runs} as well: hydra.launcher.retry_failed=true", flush=True)
    return due


def _code(launcher: Launcher | None, outputs: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the code's description for the record, and the folders that runs import from."""
    code = snapshot.describe(outputs)
    copies = isinstance(launcher, Local | Slurm) and launcher.snapshot
    tree, packages = snapshot.take(outputs, copies), None
    # Where nothing is copied, the names still identify the code, unless the packages are too large.
    with contextlib.suppress(*[] if copies else [ConfigError]):
        packages = snapshot.take_packages(outputs, copies)
    code |= {"snapshot": tree.name, "packages_snapshot": packages.name if packages else None}
    folders = [tree, *([packages] if packages else [])] if copies else [snapshot.ROOT]
    return code, [*map(str, folders), *python_path()]


# --- on this machine ------------------------------------------------------------------------------


def _on_this_machine(due: Sequence[Run], launcher: Launcher) -> int:
    """Train these runs; return how many failed, or were killed."""
    code = _code(launcher, due[0].folder.parents[1])
    record = submissions.draft(due, launcher.option, asdict(launcher), *code)
    record.write()
    with heartbeat(lambda: os.utime(record.folder / "submission.json")):
        if isinstance(launcher, Local):
            return _in_processes(record, launcher.n_jobs)
        return _one_by_one(record)


def _one_by_one(record: Submission) -> int:
    failed = 0
    os.environ["MEMRL_CODE"] = snapshot.label(record.code)
    for n, run in enumerate(record.runs):
        if n in record.cancelled:
            continue
        print(f"run {n + 1} of {len(record.runs)}", flush=True)
        code = execute(partial(train, run.config, run.folder), run.folder)
        failed += code not in (0, BUSY)
    return failed


def _in_processes(record: Submission, n_jobs: int) -> int:
    runs, folder = record.runs, record.runs[0].folder.parent
    print(f"{n_jobs} at a time; output: {below_cwd(record.folder / 'log')}")
    print(f"state: {status_command(folder)}", flush=True)
    pool = Pool(record, range(len(runs)), n_jobs, visible_gpus())
    try:
        with Signals() as signals, Bar() as bar:
            pool.run(signals, lambda: bar.show(read_sweep(folder, runs)) if bar.due() else None)
    except Stopped as stopped:
        print(f"{stopped}; the same command continues this sweep", file=sys.stderr)
        stopped.leave()
    return len(pool.failed)


# --- on a cluster --------------------------------------------------------------------------------


def _on_slurm(folder: Path, runs: Sequence[Run], launcher: Slurm) -> int | None:
    """Submit the missing runs; return None if some are queued or running afterwards, else 0."""
    records = folder / submissions.FOLDER
    records.mkdir(parents=True, exist_ok=True)
    try:
        # Two commands would submit each run twice; other hosts judge the lock by its age.
        with locked(records) as lock, heartbeat(lock.renew):
            sweep = _read_known(folder, runs)
            if due := _due(sweep, launcher.retry_failed):
                lock.require_held()  # squeue may have taken long
                _submit(due, launcher)
    except Busy:
        raise Busy(f"another command is submitting {folder}") from None
    except Failure:
        _remove_if_empty(records, folder)
        raise
    if not due and not sweep.is_active:
        return 0
    if launcher.wait:
        _wait(folder, runs)
        return 0
    print(f"state: {status_command(folder)}")
    return None


def _require_slurm(launcher: Slurm, folder: Path) -> None:
    """Raise ConfigError unless jobs can be submitted from here, or, in a dry run, described."""
    for path, key in ((folder.name, "sweep="), (folder.parent.absolute(), "outputs=")):
        if {"%", "\\"} & {*str(path)}:
            reason = "with hydra/launcher=slurm it must have no % and no \\, which SLURM replaces"
            raise ConfigError(f"{key}{path}: {reason} in the names of log files")
    if not launcher.dry_run and shutil.which("sbatch") is None:
        raise ConfigError("hydra/launcher=slurm: there is no sbatch here; local and serial work")


def _with_defaults_for_sbatch(launcher: Slurm) -> Slurm:
    """Fill in what the environment says for ``sbatch``: where jobs run, and on whose account.

    All else in ``SBATCH_*`` would override what memrl tells SLURM, and is ignored.
    """
    own: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for key in ("partition", "account", "qos", "constraint", "reservation", "wckey"):
        if value := os.environ.get(f"SBATCH_{key.upper()}"):
            if not hasattr(launcher, key):
                others[key] = value
            elif getattr(launcher, key) is None:
                own[key] = value
    others |= launcher.additional_parameters
    return replace(launcher, **own | {"additional_parameters": others})


def _submit(due: Sequence[Run], launcher: Slurm) -> None:
    """Submit runs as one array, or as several if the cluster limits the size of an array.

    Raises:
        Failure: the cluster refused an array; the arrays before it are submitted.
    """
    from memrl.sweep import slurm

    records, parallel = _arrays(due, launcher, *_code(launcher, due[0].folder.parents[1]))
    for record in tqdm(records, "submitting", unit="array", leave=False, disable=None):
        record.write()
        try:
            job_id = slurm.start(record, slurm.executor(record, parallel))
        except Failure as error:
            if record is records[0]:
                raise
            raise Failure(f"{error}; the same command submits the other runs later") from None
        size = f"{plural(len(record.runs), 'run')} as {plural(record.jobs, 'job')}"
        print(f"submitted {size}: {job_id} ({record.name})", flush=True)


def _arrays(
    due: Sequence[Run], launcher: Slurm, code: dict[str, Any], paths: list[str]
) -> tuple[list[Submission], int]:
    """Draft arrays that the cluster accepts; also return how many jobs each may run."""
    from memrl.sweep import slurm

    settings, per_job = asdict(launcher), launcher.runs_per_job
    size = slurm.max_array_size() * per_job
    parts = [due[begin : begin + size] for begin in range(0, len(due), size)]
    records = [submissions.draft(p, launcher.option, settings, code, paths, per_job) for p in parts]
    return records, max(launcher.array_parallelism // len(parts), 1)


def _wait(folder: Path, runs: Sequence[Run]) -> None:
    print("waiting for all runs to end; Ctrl-C stops waiting, the jobs continue", flush=True)
    try:
        with Bar() as bar:
            while (sweep := read_sweep(folder, runs)).is_active:
                bar.show(sweep)
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        print(f"the jobs continue; state: {status_command(folder)}", file=sys.stderr)
        raise


# --- dry run -------------------------------------------------------------------------------------


def _dry_run(sweep: Sweep, launcher: Launcher) -> None:
    _refuse_torn(sweep)
    rows = [["#", "run", "state", "now"]]
    for n, run in enumerate(sweep.runs):
        now = "start" if is_due(run.state, launcher.retry_failed) else "leave"
        rows.append([str(n), run.name, run.state, now])
    print(align(rows))
    due = _due(sweep, launcher.retry_failed)
    if isinstance(launcher, Slurm) and due:
        from memrl.sweep import slurm

        tree = sweep.folder.parent / snapshot.FOLDER / "<hash>"
        tree = tree if launcher.snapshot else snapshot.ROOT
        (record, *others), parallel = _arrays(due, launcher, {}, [str(tree.absolute())])
        if others:
            print(f"in {1 + len(others)} arrays; the script of the first:")
        print("\n" + slurm.executor(record, parallel).script(record.jobs))
    print("dry run: nothing was started, nothing written")
