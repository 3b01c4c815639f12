"""Start a sweep, which is what ``python run.py -m`` does, and conclude it if it ends here."""

from __future__ import annotations

import csv
import io
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from memrl.run.console import print_optionally, printable
from memrl.run.files import write_whole
from memrl.run.identity import NAMED, flatten
from memrl.run.outcome import BUSY, FAILED, below_cwd, in_one_line
from memrl.run.tables import spreadsheet_cell
from memrl.sweep.launch import launch
from memrl.sweep.launchers import Launcher
from memrl.sweep.progress import SHOWN, code_note, counts, status_command
from memrl.sweep.states import ONGOING, State, Sweep, read_sweep
from memrl.sweep.submissions import Run

TABLE_LINES = 40  # a longer table of scores is not printed at the end of a sweep


def start(runs: Sequence[Run], launcher: Launcher) -> int:
    """Start the missing runs of a sweep; conclude it if it ends here; return the exit status."""
    print_optionally()
    failed = launch(runs, launcher)
    if failed is None:
        return 0
    status = conclude(read_sweep(runs[0].folder.parent, runs, others=True), runs)
    return FAILED if failed else status  # also of a run whose failure could not be recorded


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
