"""Issues a sweep: finds out what is missing, writes it down, and starts it where it is to run."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from memrl import session
from memrl.checkpoint import CannotContinue
from memrl.cli import FAILED, attempt
from memrl.experiment import OUTPUTS, work
from memrl.interrupt import Signals, Stopped
from memrl.lock import BUSY, Busy, locked
from memrl.run_folder import below_cwd, note_failure
from memrl.schema import ConfigError
from memrl.sweep import display, records, snapshot
from memrl.sweep.compose import Run
from memrl.sweep.pool import Pool, visible_gpus
from memrl.sweep.states import ONGOING, State, Sweep, is_due, look
from memrl.tables import align

POLL_S = 15.0  # between questions to squeue, which all users of a cluster share

Settings = Mapping[str, Any]  # the keys under hydra.launcher


def issue(runs: Sequence[Run], launcher: str, settings: Settings) -> int:
    """Start what is missing of a sweep; return the exit status of the command.

    Args:
        runs: all that the sweep asks for, of one sweep's folder.
        launcher: basic, local or slurm.
        settings: the keys under ``hydra.launcher``.

    Raises:
        ConfigError: a folder holds a run with another config; nothing was started.
        Stopped: a signal was obeyed here, where runs go on in this process or below it.
    """
    folder = runs[0].folder.parent
    for run in runs:
        session.refuse_other_config(run.folder, run.config)
    if launcher == "slurm":
        _need_submitit()
    if settings["dry_run"]:
        _dry_run(look(folder, runs), launcher, settings)
        return 0
    well = True
    try:
        if launcher == "slurm":
            _need_sbatch()
            (folder / records.FOLDER).mkdir(parents=True, exist_ok=True)
            with locked(folder / records.FOLDER):  # two at once would submit the same twice
                due = _due(look(folder, runs), settings)
                code = _submit(due, settings)
            if code:
                return code
            if due or any(row.state in ONGOING for row in look(folder, runs).rows):
                if not settings["wait"]:
                    print(f"state: {display.status_command(folder)}")
                    return 0
                _wait(folder, runs)
        else:
            due = _due(look(folder, runs), settings)
            start = _one_by_one if launcher == "basic" else _several
            well = not due or start(due, settings)
    except Busy:
        print(f"error: another command is submitting {folder}", file=sys.stderr)
        return BUSY
    code = display.finish(look(folder, runs, others=True), runs)
    return code if well else FAILED


def _due(sweep: Sweep, settings: Settings) -> list[Run]:
    """Return the runs to be started now, and say what becomes of the others.

    Raises:
        CannotContinue: nobody knows what was submitted before.
    """
    if sweep.torn:
        raise CannotContinue(sweep.torn[0])
    if not sweep.queue_known:
        until = "try again later"
        if shutil.which("squeue") is None:
            known = sweep.folder / records.FOLDER
            until = f"there is none here. If no job of this sweep is left anywhere, delete {known}"
        sys.exit(f"error: squeue does not answer, so nobody knows what is queued; {until}")
    due = [row.run for row in sweep.rows if is_due(row.state, settings["retry_failed"])]
    print(f"{sweep.folder}: {display.counts(sweep)}; to start: {len(due)}", flush=True)
    failed = sum(row.state == State.FAILED for row in sweep.rows)
    if failed and not settings["retry_failed"]:
        print(f"to start the {failed} failed as well: hydra.launcher.retry_failed=true", flush=True)
    return due


def _code(settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """Return what is to be recorded of the code, and the folders that runs import from."""
    code, tree = snapshot.describe(), snapshot.ROOT
    if settings.get("snapshot"):
        tree = snapshot.take()
        code["snapshot"] = tree.name
    given = (os.environ.get("PYTHONPATH") or "").split(os.pathsep)
    return code, [str(tree), *(str(Path(part).absolute()) for part in given if part)]


# --- here ----------------------------------------------------------------------------------------


def _one_by_one(due: Sequence[Run], settings: Settings) -> bool:
    """Return True if none failed."""
    code, paths = _code(settings)
    record = records.draft(due, "basic", settings, code, paths)
    record.write()
    os.environ["MEMRL_CODE"] = snapshot.label(code)
    well = True
    with record.driven():
        for n, run in enumerate(due):
            if n in record.cancelled:
                continue
            print(f"run {n + 1} of {len(due)}", flush=True)
            failure = attempt(lambda run=run: work(run.config, run.folder))  # type: ignore[misc]
            if failure:
                line, status = failure
                print(f"error: {line}", file=sys.stderr, flush=True)
                if status != BUSY:
                    well = False
                    note_failure(run.folder, line)
    return well


def _several(due: Sequence[Run], settings: Settings) -> bool:
    """Return True if none failed or was killed."""
    code, paths = _code(settings)
    record = records.draft(due, "local", settings, code, paths)
    record.write()
    environment = {"MEMRL_CODE": snapshot.label(code)}
    pool = Pool(record, range(len(due)), settings["n_jobs"], visible_gpus(), environment)
    print(f"{settings['n_jobs']} at a time; output: {below_cwd(record.folder / 'log')}")
    print(f"state: {display.status_command(record.sweep_folder)}", flush=True)
    folder = due[0].folder.parent
    with Signals() as signals, display.Bar() as bar, record.driven():
        pool.report = bar.write
        try:
            pool.run(signals, lambda: bar.show(look(folder, due)) if bar.due() else None)
        except Stopped as error:
            stopped = error
        else:
            return not (pool.failed or pool.killed)
    print(f"{stopped}; the same command continues this sweep", file=sys.stderr)
    stopped.leave()


# --- on a cluster --------------------------------------------------------------------------------


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


def _submit(due: Sequence[Run], settings: Settings) -> int:
    from memrl.sweep import slurm

    if not due:
        return 0
    parts, parallel = _arrays(due, settings)
    code, paths = _code(settings)
    submitted = 0
    for part in tqdm(parts, "submitting", unit="array", leave=False, disable=None):
        record = records.draft(part, "slurm", settings, code, paths, settings["runs_per_job"])
        record.write()
        with contextlib.suppress(OSError):  # on another host the lock counts by its age
            os.utime(record.folder.parent / "lock")
        try:
            record = slurm.start(record, slurm.executor(record, parallel))
        except slurm.SbatchError as error:
            print(f"error: sbatch: {error}", file=sys.stderr)
            if submitted:
                rest = len(due) - submitted
                print(f"{rest} runs are left; the same command submits them, later")
            return FAILED
        submitted += len(part)
        jobs = f"{record.jobs} job{'s' * (record.jobs > 1)}"
        print(f"submitted {len(part)} runs as {jobs}: {record.job_id} ({record.name})", flush=True)
    return 0


def _arrays(due: Sequence[Run], settings: Settings) -> tuple[list[Sequence[Run]], int]:
    """Split runs into arrays that the cluster accepts; return also each one's jobs at a time."""
    from memrl.sweep import slurm

    size = slurm.max_array_size() * int(settings["runs_per_job"])
    parts = [due[begin : begin + size] for begin in range(0, len(due), size)]
    return parts, max(int(settings["array_parallelism"]) // len(parts), 1)


def _wait(folder: Path, runs: Sequence[Run]) -> None:
    print("waiting until all have ended; Ctrl-C ends the waiting, not the jobs", flush=True)
    with display.Bar() as bar, _ctrl_c_ends_the_waiting(folder):
        while True:
            sweep = look(folder, runs)
            bar.show(sweep)
            if not any(row.state in ONGOING for row in sweep.rows):
                return
            time.sleep(POLL_S)


@contextlib.contextmanager
def _ctrl_c_ends_the_waiting(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(f"the jobs go on; state: {display.status_command(folder)}", file=sys.stderr)
        raise


# --- nowhere -------------------------------------------------------------------------------------


def _dry_run(sweep: Sweep, launcher: str, settings: Settings) -> None:
    due = []
    cells = [["#", "run", "state", "now"]]
    for n, row in enumerate(sweep.rows):
        starts = is_due(row.state, settings["retry_failed"])
        due += [row.run] if starts else []
        cells.append([str(n), row.name, row.state.value, "start" if starts else "leave"])
    print(align(cells))
    print(f"{sweep.folder}: {display.counts(sweep)}; to start: {len(due)}")
    if launcher == "slurm" and due:
        from memrl.sweep import slurm

        (first, *others), parallel = _arrays(due, settings)
        tree = Path(OUTPUTS, snapshot.FOLDER, "<hash>") if settings["snapshot"] else snapshot.ROOT
        paths, per_job = [str(tree.absolute())], settings["runs_per_job"]
        record = records.draft(first, "slurm", settings, {}, paths, per_job)
        if others:
            print(f"in {1 + len(others)} arrays; the script of the first:")
        print("\n" + slurm.executor(record, parallel).script(record.jobs))
    print("dry run: nothing was started, nothing written")
