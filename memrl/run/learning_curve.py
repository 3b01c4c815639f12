"""The picture of one run: its evaluations over environment steps."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memrl.run.backend import import_matplotlib
from memrl.run.facts import Facts, facts_of
from memrl.run.files import write_whole
from memrl.run.tables import Table

LEARNING_CURVE = "learning_curve.png"  # in the run's folder
LINES = ("--", ":", "-.")  # of levels to compare with


def learning_curve(
    table: Table, random: Mapping[str, float], title: str, env: Mapping[str, Any], path: Path
) -> None:
    """Plot the evaluations in ``eval.csv``, unsmoothed, as a PNG.

    Lines show the levels that are known of the task and the mean of the run's random episodes, and
    the upper axis the training episodes.

    Args:
        table: what ``eval.csv`` holds.
        random: the row of ``train.csv`` about random episodes, or nothing.
        title: of the picture.
        env: the section of the config.
        path: of the picture.
    """
    import_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    shown = [name for name in ("eval/return", "eval/success") if not math.isnan(table[name][-1])]
    figure = Figure(figsize=(6, 1 + 2.5 * len(shown)), layout="constrained")
    for axes, name in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True):
        axes.plot(table["env_steps"], table[name], marker=".", linewidth=1)
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k
        axes.set_ylabel(f"{name.removeprefix('eval/')}, mean of an evaluation")
        axes.grid(alpha=0.3)
        if name == "eval/success":
            axes.set_ylim(-0.03, 1.03)
        levels = _levels(facts_of(env, name, shown[-1]))
        chance = random.get(name.replace("eval/", "train/"), math.nan)
        if math.isfinite(chance):
            levels[f"random actions: {chance:.3g} (mean of {random['episodes']:.0f})"] = chance
        _draw(axes, levels)
        _add_episodes(axes, table)
    figure.suptitle(title, fontsize="small", wrap=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def random_episodes(train: Table, warmup_episodes: int | None, num_envs: int) -> dict[str, float]:
    """Return the first row of ``train.csv`` if it is about the random episodes of the warm-up.

    They have no row if they owed no update; then the first one is of the episodes after them. A
    warm-up in steps always owes one.
    """
    row = {name: float(column[0]) for name, column in train.items() if len(column)}
    limit = math.inf if warmup_episodes is None else max(1, warmup_episodes) + num_envs
    return row if row.get("episodes", math.inf) < limit else {}


def _levels(facts: Facts) -> dict[str, float]:
    levels = {} if facts.solved_at is None else {f"solved: {facts.solved_at:g}": facts.solved_at}
    return levels | {f"{text}: {level:.3g}": level for text, level in facts.reference.items()}


def _draw(axes: Any, levels: Mapping[str, float]) -> None:
    for (text, level), line in zip(levels.items(), itertools.cycle(LINES)):
        axes.axhline(level, color="black", linewidth=1, linestyle=line, label=text)
    if levels:
        axes.legend(fontsize="x-small", loc="best")


def _add_episodes(axes: Any, table: Table) -> None:
    """Add an axis of episodes above; their lengths may vary, so it need not be linear."""
    steps, episodes = np.asarray(table["env_steps"]), np.asarray(table["episodes"])
    if len(steps) < 2 or (np.diff(steps) <= 0).any() or (np.diff(episodes) <= 0).any():
        return
    # Past the ends, where a margin is, it goes on as on average.
    per_step = (episodes[-1] - episodes[0]) / (steps[-1] - steps[0])
    reach = steps[-1] - steps[0]
    steps = np.concatenate([[steps[0] - reach], steps, [steps[-1] + reach]])
    outer = reach * per_step
    episodes = np.concatenate([[episodes[0] - outer], episodes, [episodes[-1] + outer]])
    axes.secondary_xaxis(
        "top",
        functions=(
            lambda x: np.interp(x, steps, episodes),
            lambda x: np.interp(x, episodes, steps),
        ),
    ).set_xlabel("training episodes", fontsize="small")
