"""Scores as text: tables, comparisons over lengths, which runs count and why others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from memrl.results import stats
from memrl.results.comparison import Aggregate, aggregates
from memrl.results.runs import Run
from memrl.results.scores import GOALS, SOLVED, Cell
from memrl.run.tables import align


class TextTable(NamedTuple):
    """A table to be shown."""

    columns: dict[str, str | None]  # the format of each one's numbers; None: a column of text
    values: list[list[Any]]  # one list per row; None or NaN where there is no value

    @property
    def rows(self) -> list[list[str]]:
        """The values as text, a dash where there is none."""
        formats = [form or "" for form in self.columns.values()]
        return [
            [
                "-" if v is None or v != v else format(v, form)
                for v, form in zip(row, formats, strict=True)
            ]
            for row in self.values
        ]


def score_table(cells: Sequence[Cell]) -> TextTable:
    """Return the scores of tasks, lengths and series."""
    name = cells[0].protocol.name
    columns = {"task": None, "length": "", "series": None, "metric": None}
    columns |= dict.fromkeys([f"{name} [95 %]", "mean [95 %]", "n", "requested"], "")
    table = TextTable(columns | {f"solved (>= {SOLVED})": ""}, [])
    for cell in cells:
        row: list[Any] = [cell.task, cell.length, cell.label, cell.metric.removeprefix("eval/")]
        row.append(cell.estimate)
        if name != "mean":
            row.append(stats.estimate([cell.scores], stats.mean))
        table.values.append([*row, len(cell.counted), len(cell.members), cell.solved])
    return table


def as_text(cells: Sequence[Cell]) -> str:
    """Return the table of scores, and the comparisons over lengths."""
    if not cells:
        return "no run whose config is known"
    table = score_table(cells)
    lines = [align([[*table.columns], *table.rows])]
    lines.append(f"score: {cells[0].protocol.text}; intervals: bootstrap over runs")
    for place, comparisons in compare(cells).items():
        lines += [f"{place}: {line}" for line in comparisons]
    return "\n".join(lines)


def compare(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Return lines on each task's aggregate, by the task and the lengths that it is over.

    They name the statistic of each series, which series is better, and which ones are left out.
    """
    name = cells[0].protocol.name
    return {f"{a.task}, {lengths_of(a)}": _comparisons(a, name) for a in aggregates(cells)}


def _comparisons(aggregate: Aggregate, name: str) -> list[str]:
    lines, metric = [], aggregate.metric
    beats = "beats" if metric in GOALS else f"has a higher {metric} than"
    if len(aggregate.lengths) > 1:  # else the table has the same numbers
        lines += [f"{name} of {label}: {e} (n = {e.n})" for label, e in aggregate.overall.items()]
    for (a, b), chance in aggregate.better.items():
        n = f"n = {aggregate.overall[a].n} and {aggregate.overall[b].n}"
        lines.append(f"probability that a run of {a} {beats} one of {b}: {chance} ({n})")
    for label, lengths in aggregate.left_out.items():
        has = ", ".join("none" if length is None else str(length) for length in lengths)
        lines.append(
            f"{label} is not compared: it has no length in common with all others (only {has})"
        )
    return lines


def lengths_of(aggregate: Aggregate) -> str:
    """Name the lengths that an aggregate is over."""
    lengths = aggregate.lengths
    if not lengths:
        return "no length in common"
    if lengths == [None]:
        return "all runs"
    return f"length{'s' * (len(lengths) > 1)} {', '.join(map(str, lengths))}"


def how_many(cells: Sequence[Cell]) -> str:
    """Return how many runs count, and why others do not."""
    members = [member for cell in cells for member in cell.members]
    reasons = Counter(member.kind for member in members if member.excluded)
    count = f"{len(members) - reasons.total()} of {len(members)} runs counted"
    kinds = ", ".join(f"{n} {kind}" for kind, n in reasons.most_common())
    return f"{count} ({kinds})." if reasons else f"{count}."


def left_out(cells: Sequence[Cell], runs: Sequence[Run]) -> list[str]:
    """Return a line for each run or folder that does not count, with the reason."""
    members = [member for cell in cells for member in cell.members if member.excluded]
    lines = [f"{member.run.name}: {member.excluded}" for member in members]
    return lines + [f"{run.name}: {run.state}: {run.cause}" for run in runs if not run.config]
