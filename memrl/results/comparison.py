"""Comparisons of series over all lengths of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations, groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memrl.results import stats
from memrl.results.scores import Cell
from memrl.results.stats import Estimate


class Aggregate(NamedTuple):
    """Estimates over all lengths of a task, by the labels of the series."""

    task: str
    metric: str  # a column of eval.csv
    cells: list[Cell]  # those that it is over
    lengths: list[float | None]  # those at which every series here has a run that counts
    overall: dict[str, Estimate]  # the statistic; each length is a stratum
    better: dict[tuple[str, str], Estimate]  # probability that a run of the first beats the second
    profile: dict[str, Estimate]  # the share of runs above each of the levels
    levels: npt.NDArray[np.float64]  # (L,)
    left_out: dict[str, list[float | None]]  # series that are not compared, and their lengths


def aggregates(cells: Sequence[Cell]) -> list[Aggregate]:
    """Return one aggregate for each task, over the lengths that its series have in common."""
    return _aggregates(tuple(cells))


@lru_cache(1)  # the table, and the figure in each format, need the same
def _aggregates(cells: tuple[Cell, ...]) -> list[Aggregate]:
    counted = sorted((cell for cell in cells if cell.counted), key=lambda cell: cell.task)
    return [_aggregate([*own]) for _, own in groupby(counted, lambda cell: cell.task)]


def _aggregate(cells_of_task: Sequence[Cell]) -> Aggregate:
    by_label: dict[str, dict[float | None, Cell]] = {}
    for cell in cells_of_task:
        by_label.setdefault(cell.label, {})[cell.length] = cell
    lengths, labels = _common_lengths(by_label)
    strata = {label: [by_label[label][n].scores for n in lengths] for label in labels}
    scores = np.concatenate([[0.0, 1.0], *(s for arrays in strata.values() for s in arrays)])
    levels = np.linspace(scores.min() - 0.05, scores.max() + 0.05, 201)
    cells = [by_label[label][length] for length in lengths for label in labels]
    first, fewer = cells_of_task[0], stats.FEWER_RESAMPLES
    return Aggregate(
        first.task,
        first.metric,
        cells,
        lengths,
        {
            label: stats.estimate(arrays, first.protocol.statistic)
            for label, arrays in strata.items()
        },
        {
            (a, b): stats.estimate([*strata[a], *strata[b]], stats.improvement, fewer)
            for a, b in combinations(strata, 2)
        },
        {label: stats.profile(arrays, levels) for label, arrays in strata.items()},
        levels,
        {label: [*own] for label, own in by_label.items() if label not in labels},
    )


def _common_lengths(
    by_label: Mapping[str, Mapping[float | None, Cell]],
) -> tuple[list[float | None], list[str]]:
    """Return the lengths that the largest group of series has in common, and these series."""
    at: dict[float | None, list[str]] = {}
    for label, own in by_label.items():
        for length in own:
            at.setdefault(length, []).append(label)
    labels = max(at.values(), key=len)
    if len(labels) == 1 < len(by_label):
        return [], []
    return [length for length, present in at.items() if {*labels} <= {*present}], labels
