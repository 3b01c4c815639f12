"""What a person sees of a sweep: its table, a bar, and how it ended."""

from __future__ import annotations

import csv
import io
import shlex
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from memrl.checkpoint import write_whole
from memrl.lock import BUSY
from memrl.run_folder import below_cwd, flatten, in_one_line, number
from memrl.sweep import snapshot
from memrl.sweep.compose import Run
from memrl.sweep.states import ONGOING, Row, State, Sweep
from memrl.tables import align

SHOWN = 10  # runs that are named where there may be hundreds
EVERY_S = 1.0  # between looks at the files of runs


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


def counts(sweep: Sweep) -> str:
    """Return how many runs are in which state, in one line."""
    parts = ", ".join(f"{n} {state}" for state, n in sweep.count().items())
    states = f" ({parts})" if parts else ""
    return f"{len(sweep.rows)} run{'s' * (len(sweep.rows) != 1)}{states}"


def code_of(row: Row) -> str | None:
    """Return the label of the code that a run was started from, or None if nobody knows."""
    versions = row.status.get("versions")
    begun = versions.get("code") if isinstance(versions, dict) else None
    return (
        str(begun) if begun else (snapshot.label(row.submission.code) if row.submission else None)
    )


def code_note(sweep: Sweep) -> str | None:
    """Say so if a sweep's runs were started from different code."""
    codes = Counter(filter(None, map(code_of, sweep.rows)))
    if len(codes) < 2:
        return None
    parts = ", ".join(f"{code} ({n} runs)" for code, n in codes.most_common())
    return f"runs of this sweep were started from different code: {parts}"


def status_command(folder: Path) -> str:
    """Return the command that shows a sweep's state, to be given where we are."""
    return f"python -m memrl.sweep status {shlex.quote(below_cwd(folder))}"


class Bar:
    """A sweep's progress on a terminal, all runs together; nothing elsewhere."""

    def __init__(self) -> None:
        form = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        self.bar = tqdm(total=100, bar_format=form, leave=False, disable=None)
        self.next = 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def due(self) -> bool:
        """Tell whether it is time to look again; on no terminal it never is."""
        if self.bar.disable or time.monotonic() < self.next:
            return False
        self.next = time.monotonic() + EVERY_S
        return True

    def show(self, sweep: Sweep) -> None:
        """Show where the sweep is."""
        self.bar.n = round(100 * sweep.progress())
        self.bar.set_postfix_str(", ".join(f"{n} {s}" for s, n in sweep.count().items()))

    def write(self, text: str) -> None:
        """Print lines above the bar."""
        self.bar.write(text, file=sys.stderr)


def write_table(sweep: Sweep) -> Path:
    """Write ``runs.csv``, a line for each run, into the sweep's folder."""
    keys = ["progress", "env_steps", "episodes", "updates", "last_return", "job_id", "host"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    groups = ["env", "algo", "seq_model"]
    writer.writerow(["run", "state", "cause", *groups, "length", "seed", *keys])
    for row in sweep.rows:
        config = flatten(row.run.config)
        chosen = [config.get(f"{group}.name") for group in groups]
        chosen += [config.get("env.length"), config.get("seed")]
        values = [row.status.get(key) for key in keys]
        writer.writerow([row.name, row.state, row.cause, *chosen, *values])
    path = sweep.folder / "runs.csv"
    write_whole(path, text.getvalue().encode())
    return path


def finish(sweep: Sweep, asked: Collection[Run]) -> int:
    """Say how a command's runs ended, write the whole sweep's table and figure.

    Returns:
        The exit status: 1 if one has ended without being done, 3 if one is going on elsewhere.
    """
    from memrl.plot import conclude

    names = {run.folder.name for run in asked}
    mine = replace(sweep, rows=[row for row in sweep.rows if row.name in names])
    print(f"{below_cwd(sweep.folder)}: {counts(mine)}")
    written = [write_table(sweep)]
    try:
        written += conclude(sweep.folder)
    except Exception as error:  # the runs are what counts
        print(f"no figure: {in_one_line(error)}", file=sys.stderr)
    print(f"see {', '.join(map(below_cwd, written))}")
    print(f"a report: python -m memrl.report {shlex.quote(below_cwd(sweep.folder))}", flush=True)
    if note := code_note(sweep):
        print(note, flush=True)
    bad = [row for row in mine.rows if row.state not in (State.DONE, *ONGOING)]
    if bad:
        print(f"{len(bad)} of {len(mine.rows)} runs are not done:", file=sys.stderr)
        for row in bad[:SHOWN]:
            print(f"  {row.name}: {row.state}: {row.cause}", file=sys.stderr)
        if len(bad) > SHOWN:
            print(f"  and {len(bad) - SHOWN} more: {status_command(sweep.folder)}", file=sys.stderr)
    if bad:
        return 1
    return BUSY if any(row.state in ONGOING for row in mine.rows) else 0
