"""Comparisons of series over all lengths of a task, and what makes them unfair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations, groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memrl.results import stats
from memrl.results.runs import MAIN_KEYS, Run, varying
from memrl.results.scores import Cell
from memrl.results.stats import Estimate
from memrl.run.identity import ABSENT, canonical, changes, identity
from memrl.run.outcome import show

COMPARED = 6  # series whose pairs are compared: of more, the best
LOOKED_AT = 24  # values of a key whose runs' defaults are composed, which takes 20 ms each
MANY = 12  # lengths, beyond which a text does not list them


class Aggregate(NamedTuple):
    """Estimates over all lengths of a task, by the labels of the series."""

    task: str
    metric: str  # a column of eval.csv
    cells: list[Cell]  # those that it is over
    lengths: list[float | None]  # those at which every series here has a run that counts
    overall: dict[str, Estimate]  # the statistic; each length is a stratum
    # The probability that a run of the first beats one of the second; None if all runs of a length
    # have the same score.
    better: dict[tuple[str, str], Estimate | None]
    more_pairs: int  # those that are not in ``better``
    profile: dict[str, Estimate]  # the share of runs above each of the levels
    levels: npt.NDArray[np.float64]  # (L,)
    left_out: dict[str, list[float | None]]  # series that are not compared, and their lengths


def aggregates(cells: Sequence[Cell]) -> list[Aggregate]:
    """Return one aggregate for each task, over the lengths that its series have in common."""
    return _aggregates(tuple(cells))


@lru_cache(1)  # the table, and the figure in each format, need the same
def _aggregates(cells: tuple[Cell, ...]) -> list[Aggregate]:
    return [_aggregate(own) for _, own in _counted_by_task(cells)]


def _counted_by_task(cells: Sequence[Cell]) -> list[tuple[str, list[Cell]]]:
    """Return the cells of each task that have a run that counts; cells are sorted by task."""
    counted = [cell for cell in cells if cell.counted]
    return [(task, [*own]) for task, own in groupby(counted, lambda cell: cell.task)]


def _aggregate(cells_of_task: Sequence[Cell]) -> Aggregate:
    by_label: dict[str, dict[float | None, Cell]] = {}
    for cell in cells_of_task:
        by_label.setdefault(cell.label, {})[cell.length] = cell
    lengths, labels = _common_lengths(by_label)
    strata = {label: [by_label[label][n].scores for n in lengths] for label in labels}
    first = cells_of_task[0]
    scores = np.concatenate([s for arrays in strata.values() for s in arrays] or [np.zeros(1)])
    if first.in_unit_interval:
        scores = np.append(scores, [0.0, 1.0])
    margin = 0.05 if first.in_unit_interval else 0.05 * np.ptp(scores) or 0.05
    levels = np.linspace(scores.min() - margin, scores.max() + margin, 201)
    cells = [by_label[label][length] for length in lengths for label in labels]
    overall = {
        label: stats.estimate(arrays, first.protocol.statistic) for label, arrays in strata.items()
    }
    best = [*strata]
    if len(best) > COMPARED:
        best = sorted(strata, key=lambda label: -overall[label].value)[:COMPARED]
    better = {(a, b): _chance(strata[a], strata[b]) for a, b in combinations(best, 2)}
    return Aggregate(
        first.task,
        first.metric,
        cells,
        lengths,
        overall,
        better,
        math.comb(len(strata), 2) - len(better),
        {label: stats.profile(arrays, levels) for label, arrays in strata.items()},
        levels,
        {label: [*own] for label, own in by_label.items() if label not in labels},
    )


def _chance(first: Sequence[stats.Scores], second: Sequence[stats.Scores]) -> Estimate | None:
    if all(len({*a, *b}) == 1 for a, b in zip(first, second, strict=True)):
        return None
    return stats.estimate([*first, *second], stats.improvement, stats.FEWER_RESAMPLES)


def _common_lengths(
    by_label: Mapping[str, Mapping[float | None, Cell]],
) -> tuple[list[float | None], list[str]]:
    """Return the lengths that the largest group of series has in common, and these series.

    Groups with a length that is a number go first: lists of lengths stand apart.
    """
    at: dict[float | None, list[str]] = {}
    for label, own in by_label.items():
        for length in own:
            at.setdefault(length, []).append(label)
    labels = at[max(at, key=lambda n: (len(at[n]) > 1, n is not None, len(at[n])))]
    if len(labels) == 1 < len(by_label):
        return [], []
    return [length for length, present in at.items() if {*labels} <= {*present}], labels


# --- what differs --------------------------------------------------------------------------------


def differences(cells: Sequence[Cell]) -> dict[str, dict[str, str]]:
    """Return what differs between the compared runs of a task although no label says so.

    A key may differ between lengths or models because the defaults of the named budget do: a paper
    budget has more episodes at some lengths. Here are the others: by task and key, the values and
    where they are.
    """
    return _differences(tuple(cells))


@lru_cache(2)
def _differences(cells: tuple[Cell, ...]) -> dict[str, dict[str, str]]:
    by_task = {task: _differences_in(own) for task, own in _counted_by_task(cells)}
    return {task: values for task, values in by_task.items() if values}


def _differences_in(cells: Sequence[Cell]) -> dict[str, str]:
    labelled = varying([member.run for cell in cells for member in cell.members])
    # Labels tell apart what differs within a cell: of each, one run stands for all.
    runs = [cell.counted[0].run for cell in cells]
    keys = {key for run in runs for key in identity(run.config)} - {*MAIN_KEYS, *labelled}
    by_key = {key: [run.flat.get(key, ABSENT) for run in runs] for key in sorted(keys)}
    return {
        key: _places(cells, values)
        for key, values in by_key.items()
        if _differs_by_choice(key, values, runs)
    }


def _differs_by_choice(key: str, values: Sequence[object], runs: Sequence[Run]) -> bool:
    """Whether a key has several values, and not only because the defaults have them."""
    by_value: dict[str, list[Run]] = {}
    for run, value in zip(runs, values, strict=True):
        if value is not ABSENT or key == "budget.name":  # a budget need not have a name
            by_value.setdefault(canonical(value), []).append(run)
    section, _, last = key.rpartition(".")
    if last == "_target_":  # a class that goes with its name is no choice
        names = [canonical(run.flat.get(f"{section}.name")) for run in runs]
        if len({*zip(names, map(canonical, values), strict=True)}) == len({*names}):
            return False
    rarest = sorted(by_value.values(), key=len)[:LOOKED_AT]
    return len(by_value) > 1 and any(_is_changed(group[0], key) for group in rarest)


def _is_changed(run: Run, key: str) -> bool:
    """Whether a key is not at the default of the run's task, length, model and named budget."""
    from memrl.experiment import default_config  # which imports Hydra

    if key == "budget.name":
        return True
    default = default_config(run.config)
    if default is None:  # of a task or a model that is not in conf/
        return key.startswith("budget.")
    return key in changes(default, run.config)


def _places(cells: Sequence[Cell], values: Sequence[object]) -> str:
    places: dict[str, list[Cell]] = {}
    for cell, value in zip(cells, values, strict=True):
        places.setdefault("none" if value is ABSENT else show(value), []).append(cell)
    return ", ".join(f"{value} {_place(own, cells)}" for value, own in places.items())


def _place(own: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """Name some of the cells: by length if that is enough, else by series."""
    lengths = list(dict.fromkeys(cell.length for cell in own))
    labels = list(dict.fromkeys(cell.label for cell in own))
    if len(own) == sum(cell.length in lengths for cell in cells):
        return f"at {name_lengths(lengths)}"
    if len(own) == sum(cell.label in labels for cell in cells):
        return f"for {'; '.join(labels)}"
    return f"for {'; '.join(labels)} at {name_lengths(lengths)}"


def name_lengths(lengths: Sequence[float | None]) -> str:
    """Name lengths, as in ``lengths 5, 10``; of many, how many they are and from where to where."""
    if len(lengths) > MANY:
        return list_lengths(lengths)
    return f"length{'s' * (len(lengths) > 1)} {list_lengths(lengths)}"


def list_lengths(lengths: Sequence[float | None]) -> str:
    """List lengths, as in ``5, 10``; of many, how many they are and from where to where."""
    if len(lengths) > MANY:
        return f"{len(lengths):,} lengths from {lengths[0]} to {lengths[-1]}"
    return ", ".join("none" if length is None else str(length) for length in lengths)
