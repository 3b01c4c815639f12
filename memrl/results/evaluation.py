"""Evaluations of trained agents on many episodes: how they are played, written down and drawn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
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
    draw_levels,
    encode,
    in_style,
    series_styles,
)
from memrl.results.runs import Run, labels
from memrl.results.scores import facts
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
BATCH_STEPS = 2**17  # rows x steps that are played at a time: the same on every machine


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
    batches = math.ceil(episodes * horizon / BATCH_STEPS)
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


# --- draw ----------------------------------------------------------------------------------------


def figure(evaluations: Sequence[tuple[Run, Evaluation]]) -> bytes | None:
    """Return a PNG of success, or return, over evaluation length; None with a single length.

    There is a panel for each task. Dotted lines mark the lengths of training.
    """
    tasks: dict[str, list[tuple[Run, str, Evaluation]]] = {}
    names = labels([run for run, _ in evaluations])
    for (run, evaluation), name in zip(evaluations, names, strict=True):
        if evaluation.length is not None:
            tasks.setdefault(run.task, []).append((run, name, evaluation))
    tasks = {k: v for k, v in tasks.items() if len({e.length for _, _, e in v}) > 1}
    if not tasks:
        return None
    with in_style(DEFAULTS):
        from matplotlib.figure import Figure

        size = (DEFAULTS.width, 3.2 * len(tasks) + 0.5)
        image = Figure(figsize=size, layout="constrained")
        handles: dict[str, Any] = {}
        for axes, (task, points) in zip(
            image.subplots(len(tasks), squeeze=False)[:, 0], tasks.items(), strict=True
        ):
            axes.set_title(task.replace("_", " "))
            handles |= _draw_task(axes, points)
        image.legend(
            handles.values(), handles, loc="outside upper center", ncols=min(3, len(handles))
        )
        first = evaluations[0][1]
        n = plural(len(first.returns), "greedy episode")
        caption = f"{n} each, seed {first.seed}, with 95 % intervals over episodes."
        image.supxlabel(caption, x=0.01, ha="left", fontsize="small", color="0.3")
        return encode(image, "png", DEFAULTS)


def _draw_task(axes: Any, points: Sequence[tuple[Run, str, Evaluation]]) -> dict[str, Any]:
    """Draw a task's evaluations; return legend handles."""
    runs = [run for run, _, _ in points]
    trained = {length for run in runs for length in run.lengths}
    lengths = sorted({e.length for _, _, e in points if e.length is not None} | trained)
    metric = "success" if all(e.successes is not None for _, _, e in points) else "return"
    axes.set_xlabel("evaluation length")
    axes.set_ylabel(metric)
    axes.set_xticks(range(len(lengths)), [f"{length:g}" for length in lengths])
    handles: dict[str, Any] = {}
    styles = series_styles(sorted({name for name, _ in _series(points)})[:SERIES])
    for name, series in _series(points):
        if name in styles:
            estimates = [(metric == "success" and e.success) or e.mean_return for e in series]
            x = [lengths.index(e.length) for e in series if e.length is not None]
            y = np.array([(e.value, e.low, e.high) for e in estimates])
            errors = np.nan_to_num(np.abs(y[:, 1:] - y[:, :1])).T
            handles[name] = axes.errorbar(x, y[:, 0], errors, capsize=2, **styles[name])
    handles |= draw_levels(axes, [facts(run, f"eval/{metric}").reference for run in runs])
    for length in sorted(trained):
        handles["training length"] = axes.axvline(
            lengths.index(length), color="0.45", linestyle=":", zorder=1
        )
    axes.margins(y=0.1)
    return handles


def _series(
    points: Sequence[tuple[Run, str, Evaluation]],
) -> Iterator[tuple[str, list[Evaluation]]]:
    """Yield the name and the evaluations, by length, of each line: a run, other changes apart."""
    lines: dict[tuple[Path, str], list[Evaluation]] = {}
    for run, name, evaluation in points:
        others = {k: v for k, v in evaluation.changes.items() if k != "env.length"}
        text = "".join(f", {key[4:]}={show(value)}" for key, value in others.items())
        lines.setdefault((run.folder, name + text), []).append(evaluation)
    for (_, name), evaluations in lines.items():
        yield name, sorted(evaluations, key=lambda e: e.length or 0)
