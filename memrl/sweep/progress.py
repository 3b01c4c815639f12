"""How far a sweep is, in a line or as a bar on the terminal."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from memrl.run.outcome import below_cwd, plural
from memrl.sweep import snapshot
from memrl.sweep.states import Sweep
from memrl.sweep.submissions import Run

SHOWN = 10  # how many runs a message names, of possibly hundreds
EVERY_S = 1.0  # between readings of the runs' files


def counts(sweep: Sweep) -> str:
    """Return how many runs there are, and in which state, in one line."""
    states = state_counts(sweep)
    return plural(len(sweep.runs), "run") + (f" ({states})" if states else "")


def state_counts(sweep: Sweep) -> str:
    """Return how many runs are in which state."""
    return ", ".join(f"{n} {state}" for state, n in sweep.count().items())


def status_command(folder: Path) -> str:
    """Return the command that shows a sweep's state, for the current folder."""
    return f"python -m memrl sweep status {shlex.quote(below_cwd(folder))}"


def code_of(run: Run) -> str | None:
    """Return the label of the code that a run was started from, or None if it is unknown."""
    if code := run.versions.get("code"):
        return str(code)
    return snapshot.label(run.submission.code) if run.submission else None


def code_note(sweep: Sweep) -> str | None:
    """Return a line if a sweep's runs were started from different code, else None."""
    codes = Counter(filter(None, map(code_of, sweep.runs)))
    if len(codes) < 2:
        return None
    parts = ", ".join(f"{code} ({plural(n, 'run')})" for code, n in codes.most_common())
    return f"runs of this sweep were started from different code: {parts}"


class Bar(tqdm):  # type: ignore[type-arg]
    """A bar of the progress of all runs, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        form = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        super().__init__(total=100, bar_format=form, leave=False, disable=None)
        self.next = 0.0

    def due(self) -> bool:
        """Tell whether it is time to read the sweep again; without a terminal it never is."""
        if self.disable or time.monotonic() < self.next:
            return False
        self.next = time.monotonic() + EVERY_S
        return True

    def show(self, sweep: Sweep) -> None:
        """Show where the sweep is."""
        self.n = round(100 * sweep.progress())
        self.set_postfix_str(state_counts(sweep))
