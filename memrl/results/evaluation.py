"""Evaluations of trained agents on many episodes: how they are played, written down and drawn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from tqdm import tqdm

from memrl.experiment import closing, enough_memory, make_env
from memrl.interfaces import Agent
from memrl.results import stats
from memrl.results.drawing import (
    DEFAULTS,
    SERIES,
    Panel,
    draw_panels,
    encode,
    in_style,
    series_styles,
)
from memrl.results.figures import count_runs, draw_over_lengths, length_panels
from memrl.results.runs import Run, labels, order
from memrl.results.scores import PROTOCOLS, Cell, Member
from memrl.results.stats import Estimate
from memrl.run.config import explain
from memrl.run.files import TABLE, read_bytes, write_whole
from memrl.run.identity import Config
from memrl.run.outcome import ConfigError, Failure, plural, show

TABLE_FILE, FIGURE_FILE = "evaluation.csv", "evaluation.png"
KEY = ("overrides", "seed", "episodes")  # the columns that say what was evaluated
COLUMNS = (
    *("overrides", "env.length", "seed", "episodes", "weights"),
    *("return", "return_low", "return_high", "success", "success_low", "success_high", "length"),
)
# How many rows x steps are played at a time, the same on every machine; fewer rows take as long.
BATCH_STEPS, FEWEST_ROWS = 2**17, 32
PROTOCOL = PROTOCOLS["last"]  # whose statistic combines runs


class Evaluation(NamedTuple):
    """Greedy episodes of one agent, played from one seed."""

    changes: dict[str, Any]  # the keys of the task that differ from the run's own
    length: float | None  # ``env.length``, if it is a number
    seed: int
    weights: str  # the file that holds the agent, and its step if the run is not done
    returns: npt.NDArray[np.float64]  # (episodes,)
    successes: npt.NDArray[np.float64] | None  # (episodes,) 0 or 1; None if the task reports none
    steps: npt.NDArray[np.float64]  # (episodes,)

    @property
    def overrides(self) -> str:
        """The changes as on the command line."""
        return " ".join(f"{key}={show(value)}" for key, value in self.changes.items())

    @property
    def mean_return(self) -> Estimate:
        """Its interval is a bootstrap interval over episodes."""
        return stats.estimate([self.returns], stats.mean, stats.FEWER_RESAMPLES)

    @property
    def success(self) -> Estimate | None:
        """Its interval is Wilson's."""
        return None if self.successes is None else stats.share(self.successes)

    def score(self, metric: str) -> Estimate:
        """Return its mean over episodes of a metric, "eval/return" or "eval/success"."""
        return self.success if metric == "eval/success" and self.success else self.mean_return

    def row(self) -> dict[str, Any]:
        """Return its row of ``evaluation.csv``."""
        values: list[Any] = [self.overrides, self.length, self.seed, len(self.returns)]
        values += [self.weights, *self.mean_return[:3]]
        values += [*(self.success or 3 * [None])][:3]
        values.append(self.steps.mean())
        # Plain numbers, as ``str`` writes them; an empty cell where there is none.
        texts = [v.item() if isinstance(v, np.generic) else v for v in values]
        cells = ["" if v is None or v != v else str(v) for v in texts]
        return dict(zip(COLUMNS, cells, strict=True))


# --- play ----------------------------------------------------------------------------------------


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each evaluation: all combinations of their values.

    Raises:
        ConfigError: one that cannot be parsed.
    """
    try:
        (combinations,) = BasicSweeper.split_arguments(
            OverridesParser.create().parse_overrides([*overrides]), None
        )
    except HydraException as error:
        raise ConfigError(explain(error, overrides, None)) from None
    return combinations


def play(
    config: Config, agent: Agent, episodes: int, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None, npt.NDArray[np.float64]]:
    """Play greedy episodes of the config's task, as evaluations during training are played.

    Returns:
        Returns (episodes,), successes (episodes,) or None, and numbers of steps (episodes,).
    """
    from memrl.rollout import rollout

    device = next(agent.memory.parameters()).device
    with closing(make_env(config, 1)) as env:
        horizon = env.horizon
    batches = math.ceil(episodes / max(BATCH_STEPS // horizon, FEWEST_ROWS))
    rows = math.ceil(episodes / batches)
    columns: list[list[Any]] = [[], [], []]
    with enough_memory(config), closing(make_env(config, rows)) as env:
        env.reset(seed=seed)
        for _ in tqdm(range(batches), "playing", unit="batch", leave=False, disable=None):
            played, success = rollout(env, agent, False, device, horizon)
            columns[0].append((played.reward * played.mask).sum(0).double().numpy())
            columns[1].append(success)
            columns[2].append(played.mask.sum(0).double().numpy())
    has_success = all(success is not None for success in columns[1])
    returns, successes, steps = (
        np.concatenate(column)[:episodes] if column is not columns[1] or has_success else None
        for column in columns
    )
    assert returns is not None and steps is not None
    return returns, successes, steps


# --- evaluation.csv ------------------------------------------------------------------------------


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a run's ``evaluation.csv``, as text; none if there is no such file.

    Raises:
        Failure: it has other columns, or cannot be read.
    """
    path = folder / TABLE_FILE
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(path, TABLE).decode(), newline=""))
        rows = list(reader)
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        raise Failure(f"{path}: no csv file ({error}); move it away") from None
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise Failure(f"{path}: its columns are not those of memrl evaluate; move it away")
    return rows


def write_row(folder: Path, evaluation: Evaluation) -> None:
    """Write a row into a run's ``evaluation.csv``, in the place of one of the same evaluation."""
    row = evaluation.row()
    others = [old for old in read_rows(folder) if any(old[key] != row[key] for key in KEY)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*others, row])
    write_whole(folder / TABLE_FILE, text.getvalue().encode())


# --- compare -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EvaluationCell(Cell):
    """Evaluations, at one length, of runs that differ in nothing but their seeds."""

    evaluations: list[Evaluation]  # of the members, in their order

    @cached_property
    def estimate(self) -> Estimate:
        """The protocol's statistic over runs; of a single run, its mean over episodes."""
        if len(self.evaluations) > 1:
            return super().estimate
        return self.evaluations[0].score(self.metric)


def group(evaluations: Sequence[tuple[Run, Evaluation]]) -> list[EvaluationCell]:
    """Group evaluations by task, series and length, in this order.

    Runs that differ in nothing but their seeds are one series. The metric of a task is success, if
    all evaluations of it have one, else the return.
    """
    series: dict[tuple[str, str], list[tuple[Run, Evaluation]]] = {}
    names = labels([run for run, _ in evaluations])
    for (run, evaluation), name in zip(evaluations, names, strict=True):
        others = {k: v for k, v in evaluation.changes.items() if k != "env.length"}
        label = name + "".join(f", {key[4:]}={show(value)}" for key, value in others.items())
        series.setdefault((run.task, label), []).append((run, evaluation))
    cells: dict[tuple[str, str, float | None], dict[Path, tuple[Run, Evaluation]]] = {}
    for (task, label), pairs in series.items():
        several = len({run.length for run, _ in pairs}) > 1
        for run, evaluation in pairs:
            full = f"{label}, trained at {show(run.length)}" if several else label
            cells.setdefault((task, full, evaluation.length), {})[run.folder] = run, evaluation
    without_success = {run.task for run, e in evaluations if e.successes is None}
    grouped = []
    for task, label, length in sorted(cells, key=lambda key: (*key[:2], order(key[2]))):
        pairs = sorted(cells[task, label, length].values(), key=lambda pair: _seed(pair[0]))
        metric = "eval/return" if task in without_success else "eval/success"
        members = [Member(run, float(e.score(metric).value), None) for run, e in pairs]
        own = [evaluation for _, evaluation in pairs]
        grouped.append(EvaluationCell(task, length, label, metric, members, PROTOCOL, own))
    return grouped


def _seed(run: Run) -> tuple[Any, str]:
    return order(run.flat.get("seed")), str(run.folder)


def longest_solved(cells: Sequence[EvaluationCell]) -> list[str]:
    """Return the longest length that each run solved, a line for each series, by seed.

    Tasks of which it is not known what counts as solved, or that were played at one length, are
    left out.
    """
    lines = []
    for task, own in _with_lengths(cells).items():
        metric, solved_at = own[0].metric.removeprefix("eval/"), own[0].facts.solved_at
        if solved_at is None:
            continue
        lines.append(
            f"{task}, longest length with a {metric} of at least {show(solved_at)}, by seed"
        )
        last = max(cell.length for cell in own)
        for label, series in groupby(own, lambda cell: cell.label):
            longest: dict[Path, str] = {}
            for cell in series:
                for run, score, _ in cell.members:
                    text = f"{cell.length:g}" if cell.length < last else f">= {cell.length:g}"
                    longest.setdefault(run.folder, "-")
                    if score >= solved_at:
                        longest[run.folder] = text
            lines.append(f"  {label}: {', '.join(longest.values())}")
    return lines


def _with_lengths(cells: Sequence[EvaluationCell]) -> dict[str, list[Any]]:
    """Return the cells with a length of each task that was played at several."""
    tasks = {
        task: [cell for cell in own if cell.length is not None]
        for task, own in groupby(cells, lambda cell: cell.task)
    }
    return {task: own for task, own in tasks.items() if len({cell.length for cell in own}) > 1}


def figure(cells: Sequence[EvaluationCell]) -> bytes | None:
    """Return a PNG of scores over evaluation length; None with a single length.

    There is a panel for each task. Dotted lines mark the lengths of training.
    """
    shown = [cell for own in _with_lengths(cells).values() for cell in own]
    if not shown:
        return None
    names = sorted({cell.label for cell in shown})
    styles = series_styles(names[:SERIES])
    panels = length_panels([cell for cell in shown if cell.label in styles])

    def draw_series(axes: Any, panel: Panel) -> dict[str, Any]:
        runs = [member.run for cell in panel.cells for member in cell.members]
        trained = {length for run in runs for length in run.lengths}
        axes.set_xlabel("evaluation length (evenly spaced)")
        return draw_over_lengths(axes, panel, styles, DEFAULTS.scale, trained)

    caption = _caption(shown)
    if len(names) > SERIES:
        caption += f" The first {SERIES} of {len(names)} series are shown."
    with in_style(DEFAULTS):
        counts = count_runs(panels)
        return encode(
            draw_panels(panels, counts, draw_series, (2.9, 1), caption, DEFAULTS), "png", DEFAULTS
        )


def _caption(cells: Sequence[EvaluationCell]) -> str:
    first = cells[0].evaluations[0]
    score = f"mean of {plural(len(first.returns), 'greedy episode')}, seed {first.seed}"
    missing = any(np.isnan(cell.estimate.low) for cell in cells)
    none = " (none where both ends coincide)" if missing else ""
    sizes = {len(cell.members) > 1 for cell in cells}
    if sizes == {False}:
        return f"Score: {score}, with 95 % intervals over episodes{none}."
    single = ", of a single run over its episodes" if False in sizes else ""
    intervals = f"95 % bootstrap intervals over runs{single}{none}"
    return (
        f"Score of a run: {score}. Large marks: {PROTOCOL.name} with {intervals}. "
        "Small marks: single runs."
    )
