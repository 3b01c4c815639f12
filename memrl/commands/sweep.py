"""Manage the runs of a sweep: status, logs, retry, cancel."""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from memrl.run.console import clear_screen
from memrl.run.files import TABLE, parse_json, read_bytes
from memrl.run.identity import default_outputs
from memrl.run.import_path import extend_import_path, python_path
from memrl.run.lock import is_alive, is_visible
from memrl.run.outcome import INTERRUPTED, CannotContinue, ConfigError, below_cwd, plural
from memrl.run.progress import clock
from memrl.run.schema import check_origin, check_types
from memrl.run.tables import align
from memrl.sweep import snapshot
from memrl.sweep.launchers import LAUNCHERS
from memrl.sweep.progress import SHOWN, code_note, code_of, counts, state_counts
from memrl.sweep.queue import list_jobs
from memrl.sweep.states import ONGOING, State, Sweep, read_sweep
from memrl.sweep.submissions import Run

WATCH_S = 5.0
NO_SWEEP = "not a sweep's folder, outputs/<sweep>"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: Any, text: str, **optional: Any) -> argparse.ArgumentParser:
        sentence = f"{text[0].upper()}{text[1:]}."
        added = commands.add_parser(name, help=text, description=sentence)
        help_text = "outputs/<sweep>" + "; default: all sweeps, a line each" * bool(optional)
        added.add_argument("folder", help=help_text, **optional)
        added.set_defaults(do=do)
        return added

    text = "show what each run is doing"
    status = command("status", show, text, nargs="?", default=default_outputs())
    status.add_argument("--watch", action="store_true", help="refresh every few seconds")
    status.add_argument("--json", action="store_true", help="print JSON, for scripts")
    setup = "; with the word setup, the shell lines of hydra.launcher.setup are run too"
    add_trust(command("retry", retry, "start failed and missing runs"), setup)
    what = "RUN is a run's number in the status table, or a part of its name"
    cancelling = command("cancel", cancel, f"cancel runs; they can be continued later. {what}")
    cancelling.add_argument("run", nargs="*", metavar="RUN", help="default: all runs")
    logs = command("logs", show_log, f"show what a run printed. {what}")
    logs.add_argument("run", metavar="RUN")
    lines = "lines to show (default: %(default)s)"
    logs.add_argument("--lines", type=int, default=40, metavar="N", help=lines)
    logs.add_argument("--follow", action="store_true", help="keep printing as the log grows")


def add_trust(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add the argument that says whose classes a config in a run's folder may name."""
    parser.add_argument(
        "--trust",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="PACKAGE[,PACKAGE]",
        help="packages whose classes the run's config may name, besides memrl and those in the "
        f"current folder: their code is run{more}",
    )


def run(args: argparse.Namespace) -> int:
    """Run a subcommand; return the exit status.

    Raises:
        ConfigError: there is no such sweep, or the request cannot be carried out.
        Failure: the sweep's records cannot be read, or SLURM refused.
        OSError: the folder is closed to us.
    """
    folder = Path(os.path.normpath(_current_folder() / os.path.expanduser(args.folder)))
    if not (args.folder and folder.is_dir()):
        by_default = args.folder == default_outputs()
        reason = "no such folder; give a sweep's, or set MEMRL_OUTPUTS" if by_default else NO_SWEEP
        raise ConfigError(f"{args.folder or repr('')}: {reason}")
    os.listdir(folder)  # one that is closed to us is not empty
    return int(args.do(_from_here(folder), args))


def _from_here(folder: Path) -> Path:
    """Return a folder's path with the name that it has, relative if it is below the current one."""
    shown = Path(below_cwd(folder))
    return shown if shown.name else folder


def _current_folder() -> Path:
    """Return the current folder as a shell names it, in which links are not resolved."""
    typed = Path(os.environ.get("PWD", ""))
    same = typed.is_absolute() and typed.exists() and typed.samefile(".")
    return typed if same else Path.cwd()


def _read(folder: Path) -> Sweep:
    sweep = read_sweep(folder)
    if not sweep.runs and not sweep.torn:
        raise ConfigError(f"{folder}: no run")
    return sweep


def _find(sweep: Sweep, text: str) -> list[Run]:
    """Return the run with this number, or all runs whose names contain this text."""
    if text.isdecimal() and int(text) < len(sweep.runs):
        return [sweep.runs[int(text)]]
    exact = [run for run in sweep.runs if run.name == text]
    matches = exact or [run for run in sweep.runs if text in run.name]
    if not matches:
        raise ConfigError(f"{text}: no run of {sweep.folder} has this number or name")
    return matches


# --- status --------------------------------------------------------------------------------------


def _table(runs: Sequence[Run]) -> str:
    rows = ["# run state progress return updates/s hours ETA job node cause".split()]
    for n, run in enumerate(runs):
        last, eta, updates, seconds = map(
            run.number, ("last_return", "eta_s", "updates", "seconds")
        )
        if run.state != State.RUNNING:
            eta = None
        cells = [
            str(n),
            run.name,
            run.state,
            f"{run.number('progress') or 0:.0%}",
            "" if last is None else f"{last:.2f}",
            f"{updates / seconds:,.1f}" if updates and seconds else "",
            _hours(seconds),
            "" if eta is None else clock(eta),
            run.job_id,
            run.node,
            run.cause,
        ]
        rows.append([cell or "-" for cell in cells])
    return align(rows)


def _hours(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / 3600:,.2f}"


def show(folder: Path, args: argparse.Namespace) -> int:
    """Print the table of runs, or of all sweeps in a folder that holds sweeps.

    With ``--watch`` it is printed until no run is active, or Ctrl-C.
    """
    try:
        while True:
            sweep = read_sweep(folder)
            if sweep.runs or sweep.torn:
                sweeps, as_text, as_json = [sweep], _as_text(sweep), _as_json(sweep)
            elif sweeps := _sweeps_in(folder):
                as_text, as_json = _list(sweeps), {"sweeps": [*map(_summary, sweeps)]}
            else:
                raise ConfigError(f"{folder}: no run")
            if args.watch and sys.stdout.isatty():
                clear_screen()
            print(json.dumps(as_json, indent=1) if args.json else as_text, flush=True)
            if not args.watch or not any(sweep.is_active for sweep in sweeps):
                return 0
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        if not args.watch:
            raise
        return INTERRUPTED


def _as_text(sweep: Sweep) -> str:
    eta = sweep.eta_s()
    total = f"{_hours(sweep.seconds())} hours, ETA {'-' if eta is None else clock(eta)}"
    lines = [_table(sweep.runs), f"{sweep.folder}: {counts(sweep)}, {total}", *_doubts([sweep])]
    if note := code_note(sweep):
        lines.append(note)
    return "\n".join(lines)


def _doubts(sweeps: Sequence[Sweep]) -> list[str]:
    """Return a line for each thing that could not be read."""
    unknown = not all(sweep.queue_known for sweep in sweeps)
    lines = ["squeue does not answer: queued runs may be lost, or already running"] * unknown
    return lines + [line for sweep in sweeps for line in sweep.torn]


def _sweeps_in(folder: Path) -> list[Sweep]:
    """Read all sweeps in a folder, the one with the latest activity first."""
    jobs = functools.cache(list_jobs)  # one call of squeue for all
    names = [path for path in folder.iterdir() if path.name[0] != "." and os.access(path, os.X_OK)]
    sweeps = [read_sweep(path, jobs=jobs) for path in sorted(names) if path.is_dir()]
    sweeps = [sweep for sweep in sweeps if sweep.runs or sweep.torn]
    return sorted(sweeps, key=lambda sweep: sweep.last_activity() or 0, reverse=True)


def _list(sweeps: Sequence[Sweep]) -> str:
    rows = [["sweep", "runs", "progress", "hours", "last activity", "states"]]
    for sweep in sweeps:
        last = sweep.last_activity()
        cells = [
            str(sweep.folder),
            str(len(sweep.runs)),
            f"{sweep.progress():.0%}",
            _hours(sweep.seconds()),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(last)) if last else "",
            state_counts(sweep),
        ]
        rows.append([cell or "-" for cell in cells])
    return "\n".join([align(rows), *_doubts(sweeps)])


def _summary(sweep: Sweep) -> dict[str, Any]:
    return {
        "sweep": str(sweep.folder),
        "counts": sweep.count(),
        "progress": sweep.progress(),
        "seconds": sweep.seconds(),
        "eta_s": sweep.eta_s(),
        "last_activity": sweep.last_activity(),
        "squeue": sweep.queue_known,
        "torn": sweep.torn,
    }


def _as_json(sweep: Sweep) -> dict[str, Any]:
    runs = [
        {
            "run": run.name,
            "state": run.state,
            "cause": run.cause,
            "job_id": run.job_id or None,
            "node": run.node or None,
            "code": code_of(run),
            "submission": run.submission.name if run.submission else None,
            "log": str(run.submission.log(run.index)) if run.submission else None,
            "status": run.status,
        }
        for run in sweep.runs
    ]
    return _summary(sweep) | {"runs": runs}


# --- retry ---------------------------------------------------------------------------------------


def retry(folder: Path, args: argparse.Namespace) -> int:
    """Start the sweep again as and where it was last started, including failed runs."""
    from memrl.commands.start import start

    sweep = read_sweep(folder)
    if sweep.torn:
        raise CannotContinue(sweep.torn[0])
    runs = [run for run in sweep.runs if run.submission]
    if not runs:
        raise ConfigError(f"{folder}: no sweep was started here; give the run's own command again")
    last = sweep.submissions[-1]
    # What is started from here can import, and of what the sweep's own command could, what is below
    # here or trusted: another folder that somebody else recorded could hold another numpy.
    here = Path.cwd()

    def allowed(path: str) -> bool:
        if Path(path).parent.name == snapshot.FOLDER:  # a new one is taken
            return False
        below = Path(path).resolve().is_relative_to(here)
        return below or any(PathFinder.find_spec(package, [path]) for package in args.trust)

    extend_import_path([path for path in last.import_path if allowed(path)])
    recorded = [path for path in last.python_path[1:] if allowed(path)]
    paths = dict.fromkeys([*python_path(), *recorded])
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    sys.path += [path for path in paths if path not in sys.path]
    settings = last.settings | {"retry_failed": True, "dry_run": False}
    again = "give the sweep's own command again"
    if last.launcher not in LAUNCHERS:
        reason = f"hydra/launcher={last.launcher} started it, which needs the command"
        raise ConfigError(f"{folder}: {reason}; {again}: it starts failed runs too")
    if settings.get("setup") and "setup" not in args.trust:
        reason = "hydra.launcher.setup runs shell lines; if you trust them, add --trust setup"
        raise ConfigError(f"{last.folder / 'submission.json'}: {reason}")
    try:
        launcher = LAUNCHERS[last.launcher](**settings)
    except TypeError:
        advice = f"written by another version; {again}"
        raise CannotContinue(f"{last.folder / 'submission.json'}: {advice}") from None
    except ValueError as error:
        raise ConfigError(f"hydra.launcher.{error}; {again}") from None
    for run in runs:  # their configs may name classes that have moved since
        check_origin(run.config, args.trust, here)
        try:
            run.config = check_types(run.config)
        except ConfigError as error:
            raise ConfigError(f"{run.name}: {error}; {again}") from None
    # Where the sweep's own command was given, on which relative paths depend.
    folder = _current_folder() / folder
    os.chdir(last.cwd)
    return start([replace(run, folder=_from_here(folder) / run.name) for run in runs], launcher)


# --- cancel --------------------------------------------------------------------------------------


def cancel(folder: Path, args: argparse.Namespace) -> int:
    """Cancel runs that are queued or running."""
    sweep = _read(folder)
    named = [run for text in args.run for run in _find(sweep, text)] if args.run else sweep.runs
    chosen = {run.name: run for run in named if run.state in ONGOING}
    # A job with other runs continues: it checks every two seconds which runs were cancelled.
    shared = {r.job.id for r in sweep.runs if r.job and r.state in ONGOING and r.name not in chosen}
    jobs = sorted({run.job.id for run in chosen.values() if run.job} - shared)
    if jobs:
        from memrl.sweep import slurm

        slurm.cancel(jobs)
    for submission in sweep.submissions:  # so that nothing starts them in the meantime
        if indices := [run.index for run in chosen.values() if run.submission is submission]:
            submission.cancel(indices)
    here = [run for run in chosen.values() if not run.job]
    if elsewhere := [text for run in here if (text := _stop_here(run))]:
        raise ConfigError("; ".join(elsewhere))
    if chosen:
        number = plural(len(chosen), "run")
        print(f"cancelled {number}; run the sweep's own command again to continue")
    elif args.run or not sweep.torn:
        print("nothing to cancel: none of these runs is queued or running")
    if sweep.torn and not args.run:
        raise CannotContinue(f"{sweep.torn[0]}; its runs were not cancelled")
    return 0


def _stop_here(run: Run) -> str | None:
    """Tell a run's process to save and end; return why, if that is impossible from here."""
    try:
        owner = parse_json(read_bytes(run.folder / "lock"))
        if is_visible(owner):
            if is_alive(owner, False):
                os.kill(owner["pid"], signal.SIGTERM)
            return None
        where = f"process {owner['pid']} on host {owner['host']}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # it has not begun, or it has just ended
    submission = run.submission
    if submission and submission.launcher == "local" and submission.driver_alive():
        return None  # it checks every two seconds which runs were cancelled
    return f"{run.name} is {where}, which cannot be seen from here; cancel it there"


# --- logs ----------------------------------------------------------------------------------------


def show_log(folder: Path, args: argparse.Namespace) -> int:
    """Print the paths of a run's logs, and the end of the last one."""
    if args.lines < 1:
        raise ConfigError(f"--lines must be at least 1, got {args.lines}")
    run, *others = matches = _find(_read(folder), args.run)
    if others:
        names = "\n  ".join(run.name for run in matches[:SHOWN])
        raise ConfigError(f"{args.run}: {len(matches)} runs have this in their names:\n  {names}")
    paths = [path for path in _logs(run) if path.exists()]
    print(f"{run.name}: {run.state}{f': {run.cause}' if run.cause else ''}")
    if not paths:
        print("it has printed nothing yet")
        return 0
    print(*(below_cwd(path) for path in paths), sep="\n", flush=True)
    if args.follow:
        command = ["tail", "-n", str(args.lines), "-F", str(paths[-1])]
        _print_lines(command)
    for path in paths[-1:] if run.state != State.LOST else paths:
        lines = read_bytes(path, TABLE).decode(errors="replace").splitlines()
        print(f"--- {below_cwd(path)}", *lines[-args.lines :], sep="\n")
    return 0


def _print_lines(command: Sequence[str]) -> None:
    """Print what a command prints, until it ends or the reader leaves."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, errors="replace")
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
    finally:
        process.kill()
        process.wait()


def _logs(run: Run) -> list[Path]:
    """Return the log files of a run, its own output last."""
    paths = [run.folder / "run.log"]
    if run.submission:
        paths += run.submission.job_logs(run.index)
        if run.submission.launcher != "serial":
            paths.append(run.submission.log(run.index))
    return paths
