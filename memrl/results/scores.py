"""From runs to numbers: a run's score, and estimates over the runs of a task, length and series.

A run counts once it is done. Runs that do not count are listed with the reason, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from memrl.results import stats
from memrl.results.paper import ALIGNMENTS, FIGURE_ENDS, LEAST_SHARE, Alignment
from memrl.results.runs import DUPLICATE, Run, labels, order
from memrl.results.stats import Estimate
from memrl.run.facts import Facts, facts_of
from memrl.run.identity import Config
from memrl.run.outcome import ConfigError, Failure
from memrl.run.tables import Column, read_table

LAST = 10  # evaluations of a trailing average
GOALS = ("eval/return", "eval/success")  # the metrics that tasks are solved by

# --- one run -------------------------------------------------------------------------------------


def evaluations(run: Run, metric: str) -> tuple[Column, Column]:
    """Return the environment steps of a run's evaluations and its metric, where it has both."""
    missing = np.full(max(map(len, run.eval.values()), default=0), np.nan)
    values, steps = run.eval.get(metric, missing), run.eval.get("env_steps", missing)
    valid = ~np.isnan(values) & np.isfinite(steps)
    return steps[valid], values[valid]


def curve(run: Run, metric: str) -> tuple[Column, Column]:
    """Return a run's environment steps and its metric, a trailing average of 10 evaluations.

    The first nine are averages of fewer.
    """
    steps, values = evaluations(run, metric)
    if not len(values):
        return steps, values
    # Window by window: an infinite or a huge value would stay in a running sum.
    padded = np.pad(values, (LAST - 1, 0), constant_values=np.nan)
    with np.errstate(invalid="ignore"):  # inf - inf
        return steps, np.nanmean(sliding_window_view(padded, LAST), axis=-1)


def curve_to_its_stop(run: Run, metric: str) -> tuple[Column, Column]:
    """Return ``curve``; if an evaluation stopped a done run early, it is not averaged.

    The nine evaluations before it are of policies that had not solved the task.
    """
    steps, averages = curve(run, metric)
    thresholds = stops(run)
    if len(averages) and run.state == "done" and thresholds:
        last = {goal: column[-1] for goal, column in run.eval.items()}
        if all(last.get(goal, np.nan) >= least for goal, least in thresholds.items()):
            averages[-1] = evaluations(run, metric)[1][-1]
    return steps, averages


def stops(run: Run) -> dict[str, float]:
    """Return the thresholds that end a run early, by metric, from ``budget.stop_at_...``."""
    thresholds = {goal: run.flat.get(f"budget.stop_at_{goal[5:]}") for goal in GOALS}
    return {goal: least for goal, least in thresholds.items() if isinstance(least, int | float)}


def facts(run: Run, metric: str) -> Facts:
    """Return what is known of a metric of a run's task."""
    return facts_of(run.config.get("env", {}), metric, metric_of([run]))


class Protocol(NamedTuple):
    """How runs become numbers.

    The functions take a run and a metric; ``score`` and ``curve`` need at least one value of it.
    """

    score: Callable[[Run, str], float]
    excluded: Callable[[Run, str], str | None]  # why a run does not count
    statistic: Callable[..., Any]  # over several runs
    name: str  # of the statistic
    text: str  # the score, in words
    curve: Callable[[Run, str], tuple[Column, Column]]  # env steps and values
    curve_text: str  # a curve, in words
    from_zero: bool  # curves begin at step 0 with their first value


def _last(run: Run, metric: str) -> float:
    return float(curve_to_its_stop(run, metric)[1][-1])


def _not_done(run: Run, metric: str) -> str | None:
    if run.problem:
        return run.problem
    return None if run.state == "done" else f"{run.state}{f': {run.cause}' if run.cause else ''}"


def _paper_end(run: Run) -> float | None:
    """Return where the paper's figure ends for this run; a shorter run ends where it ends."""
    total = run.total_env_steps
    return total and min(total, FIGURE_ENDS.get((run.task, run.length), total))


def _alignment(run: Run) -> Alignment:
    return ALIGNMENTS.get(run.task, Alignment())


def _filled_curve(run: Run, metric: str) -> tuple[Column, Column]:
    """Return ``curve``, continued to the figure's end where the paper's figures do so."""
    steps, values = curve(run, metric)
    end = _paper_end(run)
    if _alignment(run).filled and end and LEAST_SHARE * end <= steps[-1] < end:
        return np.append(steps, end), np.append(values, values[-1])
    return steps, values


def _last_of_aligned(run: Run, metric: str) -> float:
    steps, values = _filled_curve(run, metric)
    points, scored, _ = _alignment(run)
    at = np.linspace(0, _paper_end(run) or steps[-1], points).astype(int)
    return float(np.interp(at, steps, values)[at <= steps[-1]][-scored:].mean())


def _too_short(run: Run, metric: str) -> str | None:
    end = _paper_end(run)
    if run.problem or run.state == DUPLICATE or not end:
        return _not_done(run, metric) or "no evaluation"
    if thresholds := stops(run):  # a run that ends early would be scored by earlier policies
        return f"budget.stop_at_{next(iter(thresholds))[5:]}: the paper stops nothing early"
    last = max(evaluations(run, metric)[0][-1:], default=0.0)  # later rows may lack the metric
    if last >= LEAST_SHARE * end:
        return None
    return f"{run.state}: {last:,.0f} of {end:,.0f} env steps, fewer than 90 %"


PROTOCOLS = {
    "last": Protocol(
        _last,
        _not_done,
        stats.iqm,
        "IQM",
        f"mean of a run's last {LAST} evaluations, of all if it has fewer, or the evaluation that "
        "stopped it early",
        curve_to_its_stop,
        f"Trailing averages of up to {LAST} evaluations; one that stopped its run is not averaged.",
        False,
    ),
    "paper": Protocol(
        _last_of_aligned,
        _too_short,
        stats.mean,
        "mean",
        f"trailing average of up to {LAST} evaluations, mean over the last 5 % of a run",
        _filled_curve,
        f"Trailing averages of up to {LAST} evaluations.",
        True,
    ),
}

# --- several runs --------------------------------------------------------------------------------


class Member(NamedTuple):
    """A run, its score (NaN if it has no finite one), and why it does not count, or None."""

    run: Run
    score: float
    excluded: str | None

    @property
    def kind(self) -> str:
        """Why it does not count, as one of a few kinds."""
        if self.run.problem:
            return "torn"
        if self.run.state != "done":
            return str(self.run.state)
        reason = self.excluded or ""
        return "fewer than 90 % of its steps" if reason.startswith("done: ") else reason


@dataclass(frozen=True, eq=False)
class Cell:
    """The runs of one task, length and series: a cell of the table, a point of the figure."""

    task: str
    length: float | None  # None if the task has none that is a number
    label: str  # of the series
    metric: str  # a column of eval.csv
    members: list[Member]  # all runs, by seed
    protocol: Protocol

    @cached_property
    def counted(self) -> list[Member]:
        """The members that count."""
        return [member for member in self.members if member.excluded is None]

    @property
    def uncounted(self) -> list[Member]:
        """The members that have a score and do not count."""
        return [m for m in self.members if m.excluded and not np.isnan(m.score)]

    @property
    def has_score(self) -> bool:
        """Whether any member has one, counted or not."""
        return bool(self.counted or self.uncounted)

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """The scores that count, (n,)."""
        return np.array([member.score for member in self.counted])

    @cached_property
    def estimate(self) -> Estimate:
        """The protocol's statistic."""
        return stats.estimate([self.scores], self.protocol.statistic)

    @cached_property
    def facts(self) -> Facts:
        """What is known of its metric: those runs that say something must say the same."""
        known = [facts(member.run, self.metric) for member in self.members]
        stated = [each for each in known if each != Facts()]
        return stated[0] if stated and all(each == stated[0] for each in stated) else Facts()

    @property
    def n_filled(self) -> int:
        """How many curves that count go on after their last evaluation, with its value."""
        ends = [
            [of(member.run, self.metric)[0][-1] for of in (evaluations, self.protocol.curve)]
            for member in self.counted
        ]
        return sum(end > last for last, end in ends)

    @property
    def solved(self) -> int | None:
        """How many runs scored at least what counts as solved; None if the task does not say."""
        if not self.counted or self.facts.solved_at is None:
            return None
        return int((self.scores >= self.facts.solved_at).sum())

    @property
    def in_unit_interval(self) -> bool:
        """Whether axes show all of [0, 1]: for success, and where the threshold lies in (0, 1]."""
        solved_at = self.facts.solved_at
        return self.metric == "eval/success" or (solved_at is not None and 0 < solved_at <= 1)

    @cached_property
    def band(self) -> tuple[Column, Estimate] | None:
        """Steps and the statistic over curves, (100,) each.

        The last value of a run that is done is carried forward to the end of the longest run. An
        unfinished run has no last value yet: there, the band ends.
        """
        curves = [self.protocol.curve(member.run, self.metric) for member in self.counted]
        if not curves:
            return None
        start = 0 if self.protocol.from_zero else max(steps[0] for steps, _ in curves)
        ends = [
            (m.run.state == "done", c[0][-1]) for m, c in zip(self.counted, curves, strict=True)
        ]
        longest = max(end for _, end in ends)
        end = min((end for done, end in ends if not done), default=longest)
        if end <= start:
            return None
        at = np.linspace(start, end, 100)
        # To the right of its last step a curve has its last value.
        values = np.stack([np.interp(at, *each) for each in curves], axis=-1)  # (100, n)
        return at, stats.estimate([values], self.protocol.statistic, stats.FEWER_RESAMPLES)


def metric_of(runs: Sequence[Run]) -> str:
    """Return the metric of a task: its success, if it reports any, else its return."""
    success = (run.eval.get("eval/success", np.empty(0)) for run in runs)
    return "eval/success" if any(np.isfinite(s).any() for s in success) else "eval/return"


def score(runs: Sequence[Run], protocol: Protocol, metric: str | None = None) -> list[Cell]:
    """Group runs by task, length and series, in this order; those without a config are left out.

    Without a ``metric``, a column of ``eval.csv``, it is that of each task.

    Raises:
        ConfigError: there are evaluations, and none has this column.
    """
    metrics = sorted({name for run in runs for name in run.eval if name.startswith("eval/")})
    if metric is not None and metrics and metric not in metrics:
        raise ConfigError(f"metric must be one of {', '.join(metrics)}, got {metric}")
    tasks: dict[str, list[Run]] = {}
    groups: dict[tuple[str, float | None, str], list[Run]] = {}
    for run, label in zip(runs, labels(runs), strict=True):
        if run.config:
            tasks.setdefault(run.task, []).append(run)
            groups.setdefault((run.task, run.length, label), []).append(run)
    metric_by_task = {task: metric or metric_of(group) for task, group in tasks.items()}
    cells = []
    for key in sorted(groups, key=lambda key: (key[0], order(key[1]), key[2])):
        own = metric_by_task[key[0]]
        ordered = sorted(groups[key], key=lambda r: (order(r.flat.get("seed")), r.flat["sweep"]))
        members = [_member(run, protocol, own) for run in ordered]
        cells.append(Cell(*key, own, members, protocol))
    return cells


def _member(run: Run, protocol: Protocol, metric: str) -> Member:
    excluded = protocol.excluded(run, metric)
    if not len(evaluations(run, metric)[0]):
        return Member(run, np.nan, excluded or f"no {metric}")
    value = protocol.score(run, metric)
    if not np.isfinite(value):
        return Member(run, np.nan, excluded or f"its score is {value}")
    return Member(run, value, excluded)


def objective(config: Config, folder: Path) -> float:
    """Return what a sweeper optimizes: the score of a run that is done, by the protocol ``last``.

    Its metric is the config's ``objective``, or else that of the task.

    Raises:
        Failure: the run has no such score.
    """
    run = Run(config, folder, state="done", eval=read_table(folder / "eval.csv"))
    metric = config.get("objective") or metric_of([run])
    member = _member(run, PROTOCOLS["last"], metric)
    if member.excluded:
        raise Failure(f"objective={metric}: {member.excluded} in {folder}")
    return float(member.score)
