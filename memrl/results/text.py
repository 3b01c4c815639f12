"""Scores as text: tables, aggregates over lengths, which runs count and why others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from memrl.results.comparison import Aggregate, aggregates
from memrl.results.runs import Run
from memrl.results.scores import GOALS, SOLVED, Cell
from memrl.run.tables import align


def how_many(found: Sequence[Cell]) -> str:
    """Return how many runs count, and why others do not."""
    members = [member for cell in found for member in cell.members]
    left_out = Counter(member.kind for member in members if member.excluded)
    count = f"{len(members) - left_out.total()} of {len(members)} runs counted"
    states = ", ".join(f"{n} {state}" for state, n in left_out.most_common())
    return f"{count} ({states})." if left_out else f"{count}."


def as_text(found: Sequence[Cell]) -> str:
    """Return the table of tasks, lengths and series, and the aggregates over lengths."""
    if not found:
        return "no run whose config is known"
    name, text = found[0].protocol.name, found[0].protocol.text
    header = ["task", "length", "series", "metric", f"{name} [95 %]", "mean [95 %]"]
    rows = [[*header, "n", f"solved (>= {SOLVED})"]]
    for cell in found:
        length = "-" if cell.length is None else str(cell.length)
        metric = cell.metric.removeprefix("eval/")
        n = f"{len(cell.counted)} of {len(cell.members)}"
        solved = "-" if cell.solved is None else str(cell.solved)
        estimates = str(cell.estimate), str(cell.mean)
        rows.append([cell.task, length, cell.label, metric, *estimates, n, solved])
    if name == "mean":  # the same column twice
        rows = [row[:5] + row[6:] for row in rows]
    lines = [align(rows), f"score: {text}; intervals: bootstrap over runs"]
    for one in aggregates(found):
        lines += [f"{one.task}, {lengths_of(one)}: {line}" for line in together(one, name)]
    return "\n".join(lines)


def lengths_of(one: Aggregate) -> str:
    """Name the lengths that an aggregate is over."""
    if not one.lengths:
        return "no length in common"
    if one.lengths == [None]:
        return "all runs"
    return f"length{'s' * (len(one.lengths) > 1)} {', '.join(map(str, one.lengths))}"


def together(one: Aggregate, name: str) -> list[str]:
    """Return lines on an aggregate: each series, which is better, which is left out."""
    lines = []
    if len(one.lengths) > 1:  # else the table has the same numbers
        lines += [f"{name} of {label}: {e} (n = {e.n})" for label, e in one.overall.items()]
    for (a, b), chance in one.better.items():
        n = f"n = {one.overall[a].n} and {one.overall[b].n}"
        beats = "beats" if one.metric in GOALS else f"has a higher {one.metric} than"
        lines.append(f"probability that a run of {a} {beats} one of {b}: {chance} ({n})")
    for label, lengths in one.left_out.items():
        has = ", ".join("none" if length is None else str(length) for length in lengths)
        lines.append(
            f"{label} is not compared: it has no length in common with all others (only {has})"
        )
    return lines


def left_out(found: Sequence[Cell], runs: Sequence[Run]) -> list[str]:
    """Return a line for each run or folder that does not count, with the reason."""
    lines = [
        f"{member.run.folder.name}: {member.excluded}"
        for cell in found
        for member in cell.members
        if member.excluded
    ]
    lines += [f"{run.name}: {run.state}: {run.cause}" for run in runs if not run.config]
    return lines
