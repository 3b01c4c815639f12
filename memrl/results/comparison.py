"""What the lengths of a task tell together, and which series is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memrl.results import stats
from memrl.results.scores import Cell
from memrl.results.stats import Estimate


class Aggregate(NamedTuple):
    """All lengths of a task together.

    Attributes:
        task: ``env.name``.
        metric: a column of ``eval.csv``.
        lengths: those at which every series here has a run that counts.
        overall: the statistic of each series, by label; lengths are resampled apart.
        better: for pairs of series, the probability that a run of the first beats one of the other.
        profile: for each series the share of runs above each of the levels.
        levels: (L,)
        apart: series that are left out, as they share no length with all others; and their lengths.
    """

    task: str
    metric: str
    lengths: list[float | None]
    overall: dict[str, Estimate]
    better: dict[tuple[str, str], Estimate]
    profile: dict[str, Estimate]
    levels: npt.NDArray[np.float64]
    apart: dict[str, list[float | None]]


def aggregates(found: Sequence[Cell]) -> list[Aggregate]:
    """Return what the lengths of each task tell together, of those that all series have."""
    return _aggregates(tuple(found))


@lru_cache(1)  # the table, and the figure in each format, ask for the same
def _aggregates(found: tuple[Cell, ...]) -> list[Aggregate]:
    together = []
    for task in dict.fromkeys(cell.task for cell in found):
        by_label: dict[str, dict[float | None, Cell]] = {}
        for cell in found:
            if cell.task == task and cell.counted:
                by_label.setdefault(cell.label, {})[cell.length] = cell
        if not by_label:
            continue
        lengths, kept = _in_common(by_label)
        strata = {label: [by_label[label][n].scores for n in lengths] for label in kept}
        every = np.concatenate([[0.0], *(scores for each in strata.values() for scores in each)])
        levels = np.linspace(min(every.min(), 0.0) - 0.05, max(every.max(), 1.0) + 0.05, 201)
        statistic = found[0].protocol.statistic
        together.append(
            Aggregate(
                task,
                next(cell.metric for cell in found if cell.task == task),
                lengths,
                {label: stats.estimate(each, statistic) for label, each in strata.items()},
                {
                    (a, b): stats.estimate(
                        [*strata[a], *strata[b]], stats.improvement, stats.FEWER_RESAMPLES
                    )
                    for a, b in combinations(strata, 2)
                },
                {label: stats.profile(each, levels) for label, each in strata.items()},
                levels,
                {label: [*has] for label, has in by_label.items() if label not in kept},
            )
        )
    return together


def _in_common(
    by_label: Mapping[str, Mapping[float | None, Cell]],
) -> tuple[list[float | None], list[str]]:
    """Return lengths that series have in common, and these: all, or most if there is none else."""
    kept = list(by_label)
    while True:
        first, *others = (by_label[label] for label in kept)
        lengths = [length for length in first if all(length in other for other in others)]
        if lengths:
            return lengths, kept
        # How often others have its lengths; the last of those that have the fewest goes.
        shared = {a: sum(n in by_label[b] for n in by_label[a] for b in kept) for a in kept}
        shared = {label: n - len(by_label[label]) for label, n in shared.items()}
        kept.remove(min(reversed(kept), key=lambda label: shared[label]))
        if len(kept) == 1:
            return [], []
