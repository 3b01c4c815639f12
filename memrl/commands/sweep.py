"""Look after the runs of a sweep."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from memrl.run.identity import OUTPUTS
from memrl.run.lock import is_alive, this_process
from memrl.run.outcome import CannotContinue, ConfigError, below_cwd
from memrl.run.status import number
from memrl.run.tables import align
from memrl.sweep.launchers import LAUNCHERS
from memrl.sweep.progress import code_note, code_of, counts
from memrl.sweep.states import ONGOING, Row, State, Sweep, look

SHOWN = 10  # runs that are named where there may be hundreds
WATCH_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("folder", help="outputs/<sweep>")
        added.set_defaults(do=do)
        return added

    status = command("status", show, "what every run is doing")
    status.add_argument("--watch", action="store_true", help="again every few seconds")
    status.add_argument("--json", action="store_true", help="for programs")
    command("retry", retry, "start again what failed, and all that is missing")
    what = "RUN is the number in the table of status, or a part of the name"
    cancelling = command("cancel", cancel, f"cancel runs, which can be continued. {what}")
    cancelling.add_argument("run", nargs="*", metavar="RUN", help="default: all")
    logs = command("logs", show_log, f"what a run printed. {what}")
    logs.add_argument("run", metavar="RUN")
    logs.add_argument("--lines", type=_positive, default=40, metavar="N", help="default: 40")
    logs.add_argument("--follow", action="store_true", help="go on as it grows")


def run(given: argparse.Namespace) -> int:
    """Carry out a subcommand where the sweep was started; return the exit status.

    Raises:
        ConfigError: there is no such sweep, or what was requested cannot be done.
        Failure: what is known of the sweep cannot be read, or SLURM refused.
    """
    folder = Path(given.folder).absolute()
    if folder.parent.name != str(OUTPUTS) or not folder.is_dir():
        raise ConfigError(f"{given.folder}: no sweep's folder, {OUTPUTS}/<sweep>")
    os.chdir(folder.parents[1])
    return int(given.do(OUTPUTS / folder.name, given))


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def _find(sweep: Sweep, text: str) -> list[Row]:
    """Return the run with this number, or all those with this in their names."""
    if text.isdecimal() and int(text) < len(sweep.rows):
        return [sweep.rows[int(text)]]
    found = [row for row in sweep.rows if row.name == text]
    found = found or [row for row in sweep.rows if text in row.name]
    if not found:
        raise ConfigError(f"{text}: no run of {sweep.folder} has this number or name")
    return found


# --- status --------------------------------------------------------------------------------------


def table(rows: Collection[Row]) -> str:
    """Return a line for each run: state, progress, speed, where it runs, why it ended."""
    header = ["#", "run", "state", "progress", "return", "steps/s", "ETA", "job", "node", "cause"]
    return align([header] + [[str(n), *_cells(row)] for n, row in enumerate(rows)])


def _cells(row: Row) -> list[str]:
    status, running = row.status, row.state == State.RUNNING
    last, speed, eta = (number(status, key) for key in ("last_return", "env_steps_per_s", "eta_s"))
    return [
        row.name,
        row.state.value,
        f"{number(status, 'progress') or 0:.0%}",
        "-" if last is None else f"{last:.2f}",
        f"{speed:,.0f}" if running and speed is not None else "-",
        _eta(eta, status) if running and eta is not None else "-",
        row.job_id or "-",
        row.node or "-",
        row.cause or "-",
    ]


def _eta(eta_s: float, status: Mapping[str, Any]) -> str:
    left = max(eta_s - (time.time() - (number(status, "updated") or time.time())), 0)
    minutes = round(left / 60)
    hours = f"{minutes // 60} h " if minutes >= 60 else ""
    return f"{hours}{minutes % 60} min" if minutes else "<1 min"


def show(folder: Path, given: argparse.Namespace) -> int:
    """Print the table of runs."""
    while True:
        sweep = look(folder)
        text = json.dumps(_as_json(sweep), indent=1) if given.json else _as_text(sweep)
        if given.watch and sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        print(text, flush=True)
        if not given.watch or not any(row.state in ONGOING for row in sweep.rows):
            return 0
        time.sleep(WATCH_S)


def _as_text(sweep: Sweep) -> str:
    lines = [table(sweep.rows), f"{sweep.folder}: {counts(sweep)}"]
    if not sweep.queue_known:
        lines.append("squeue does not answer: what is queued may be lost, or already running")
    lines += sweep.torn
    if note := code_note(sweep):
        lines.append(note)
    return "\n".join(lines)


def _as_json(sweep: Sweep) -> dict[str, Any]:
    runs = [
        {
            "run": row.name,
            "state": row.state,
            "cause": row.cause,
            "job_id": row.job_id or None,
            "node": row.node or None,
            "code": code_of(row),
            "submission": row.submission.name if row.submission else None,
            "log": str(row.submission.log(row.index)) if row.submission else None,
            "status": row.status,
        }
        for row in sweep.rows
    ]
    return {
        "sweep": str(sweep.folder),
        "counts": {str(state): n for state, n in sweep.count().items()},
        "squeue": sweep.queue_known,
        "runs": runs,
    }


# --- retry ---------------------------------------------------------------------------------------


def retry(folder: Path, given: argparse.Namespace) -> int:
    """Start the sweep again as it was started last, the failed runs included."""
    from memrl.commands.train import start

    sweep = look(folder)
    runs = [row.run for row in sweep.rows if row.submission]
    if not runs:
        raise ConfigError(f"{folder}: no sweep was started here; give the run's own command again")
    if sweep.torn:
        raise CannotContinue(sweep.torn[0])
    last = sweep.submissions[-1]
    _import_from(last.python_path[1:])
    settings = last.settings | {"retry_failed": True, "dry_run": False}
    try:
        launcher = LAUNCHERS[last.launcher](**settings)
    except (KeyError, TypeError):
        known = last.folder / "submission.json"
        raise CannotContinue(
            f"{known}: written by another version; give the sweep's own command again"
        ) from None
    return start(runs, launcher)


def _import_from(folders: Sequence[str]) -> None:
    """Add folders to where we, and the processes we start, import from."""
    given = (os.environ.get("PYTHONPATH") or "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, [*given, *folders])))
    sys.path += [folder for folder in folders if folder not in sys.path]


# --- cancel --------------------------------------------------------------------------------------


def cancel(folder: Path, given: argparse.Namespace) -> int:
    """Cancel runs that are queued or running."""
    sweep = look(folder)
    asked = [row for text in given.run for row in _find(sweep, text)] if given.run else sweep.rows
    chosen = {row.name: row for row in asked if row.state in ONGOING}
    # A job that does others as well goes on: it looks for what was cancelled now and then.
    shared = {r.job.id for r in sweep.rows if r.job and r.state in ONGOING and r.name not in chosen}
    jobs = sorted({row.job.id for row in chosen.values() if row.job} - shared)
    here = [row for row in chosen.values() if not row.job]
    if jobs:
        from memrl.sweep import slurm

        slurm.cancel(jobs)
    by_submission: dict[str, list[Row]] = {}
    for row in chosen.values():
        by_submission.setdefault(row.submission.name if row.submission else "", []).append(row)
    for rows in by_submission.values():
        if submission := rows[0].submission:  # so that nothing starts them meanwhile
            submission.cancel([row.index for row in rows])
    elsewhere = [text for row in here if (text := _stop_here(row))]
    if elsewhere:
        raise ConfigError("; ".join(elsewhere))
    print(f"cancelled {len(chosen)} runs; the sweep's own command continues them")
    return 0


def _stop_here(row: Row) -> str | None:
    """Tell a run's process to save and end; say so if nobody on this machine can."""
    try:
        owner = json.loads((row.run.folder / "lock").read_text())
        if is_alive(owner, False):
            os.kill(owner["pid"], signal.SIGTERM)
            return None
    except (OSError, ValueError, KeyError):
        return None  # it has not begun, or it has just ended
    submission = row.submission
    if submission and submission.launcher == "local" and submission.driver_alive():
        return None  # which looks for what was cancelled now and then
    if owner["host"] == this_process()["host"]:
        return None
    return f"{row.name} runs on host {owner['host']}; cancel it there"


# --- logs ----------------------------------------------------------------------------------------


def show_log(folder: Path, given: argparse.Namespace) -> int:
    """Print where the logs of a run are, and the end of what it printed last."""
    found = _find(look(folder), given.run)
    if len(found) > 1:
        names = "\n  ".join(row.name for row in found[:SHOWN])
        raise ConfigError(f"{given.run}: {len(found)} runs have this in their names:\n  {names}")
    (row,) = found
    paths = [path for path in _logs(row) if path.exists()]
    print(f"{row.name}: {row.state}{f': {row.cause}' if row.cause else ''}")
    if not paths:
        print("it has printed nothing yet")
        return 0
    print(*(below_cwd(path) for path in paths), sep="\n", flush=True)
    if given.follow:
        command = ["tail", "-n", str(given.lines), "-F", str(paths[-1])]
        os.execvp(command[0], command)
    for path in paths[-1:] if row.state != State.LOST else paths:
        lines = path.read_text(errors="replace").splitlines()
        print(f"--- {below_cwd(path)}", *lines[-given.lines :], sep="\n")
    return 0


def _logs(row: Row) -> list[Path]:
    """Return the files that may tell of a run, what it printed itself last."""
    paths = [row.run.folder / "run.log"]
    if row.submission:
        job = row.index // row.submission.per_job
        pattern = f"*_{job}/*_log.out" if row.submission.jobs > 1 else "*/*_log.out"
        paths += sorted(row.submission.folder.glob(pattern))
        if row.submission.launcher != "basic":
            paths.append(row.submission.log(row.index))
    return paths
