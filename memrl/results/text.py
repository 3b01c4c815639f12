"""Scores as text: tables, comparisons over lengths, which runs count and why others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from memrl.results import stats
from memrl.results.comparison import (
    Aggregate,
    aggregates,
    differences,
    list_lengths,
    name_lengths,
)
from memrl.results.runs import Run
from memrl.results.scores import GOALS, Cell
from memrl.run.outcome import show
from memrl.run.tables import align
from memrl.sweep.progress import SHOWN


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
    thresholds = sorted({c.facts.solved_at for c in cells if c.facts.solved_at is not None})
    columns |= {f"solved (>= {show(least)})": "" for least in thresholds}
    table = TextTable(columns, [])
    for cell in cells:
        row: list[Any] = [cell.task, cell.length, cell.label, cell.metric.removeprefix("eval/")]
        row.append(cell.estimate)
        if name != "mean":
            row.append(stats.estimate([cell.scores], stats.mean))
        row += [len(cell.counted), len(cell.members)]
        row += [cell.solved if cell.facts.solved_at == least else None for least in thresholds]
        table.values.append(row)
    return table


def as_text(cells: Sequence[Cell]) -> str:
    """Return the table of scores, and the comparisons over lengths."""
    if not cells:
        return "no run whose config is known"
    table = score_table(cells)
    lines = [align([[*table.columns], *table.rows])]
    lines.append(f"score: {cells[0].protocol.text}; {name_intervals(cells)}")
    lines += unequal(cells)
    for place, comparisons in compare(cells).items():
        lines += [f"{place}: {line}" for line in comparisons]
    return "\n".join(lines)


def name_intervals(cells: Sequence[Cell]) -> str:
    """Name the kind of intervals, and if any is missing, say why."""
    missing = any(cell.estimate.n and np.isnan(cell.estimate.low) for cell in cells)
    none = " (none for a single run, or where both ends coincide)" if missing else ""
    return f"95 % bootstrap intervals over runs{none}"


def unequal(cells: Sequence[Cell]) -> list[str]:
    """Return a line for each task whose compared runs differ in more than the labels say."""
    lines = []
    for task, values in differences(cells).items():
        shown = [f"{key}: {where}" for key, where in list(values.items())[:SHOWN]]
        shown += [f"and {len(values) - SHOWN} more"] * (len(values) > SHOWN)
        lines.append(f"{task}, not the same in all runs: {'; '.join(shown)}")
    return lines


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
        if chance is None:
            where = " at each length" * (len(aggregate.lengths) > 1)
            lines.append(f"all runs of {a} and {b} have the same score{where} ({n})")
        else:
            lines.append(f"probability that a run of {a} {beats} one of {b}: {chance} ({n})")
    if aggregate.more_pairs:
        lines.append(f"and {aggregate.more_pairs:,} more pairs of series")
    for label, lengths in aggregate.left_out.items():
        why = f"it has no length in common with all others (only {list_lengths(lengths)})"
        if lengths == [None]:  # trained at a list of lengths
            why = "its runs have no single length"
        lines.append(f"{label} is not compared: {why}")
    return lines


def lengths_of(aggregate: Aggregate) -> str:
    """Name the lengths that an aggregate is over."""
    lengths = aggregate.lengths
    if not lengths:
        return "no length in common"
    if lengths == [None]:
        return "all runs"
    return name_lengths(lengths)


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
