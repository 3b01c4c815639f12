"""What ``sweeps/paper_small.yaml`` solved, and after how many steps, by task and length.

    python -m memrl export outputs/paper_small --last --output paper_small.csv
    python benchmarks/paper_small.py [FILE]    # default: docs/results/paper_small.csv

A run ends with the first evaluation, of 100 episodes, that solves the task. The steps until then
are compared between the models by an exact permutation test of the difference in mean ranks,
two-sided; a run that never solved its task ranks behind all others. The figure has the median with
a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from common import table
from fidelity import SOLVED, p_value, steps_text

from memrl.commands.arguments import file_ending
from memrl.results.drawing import DEFAULTS, encode, in_style, series_styles
from memrl.results.stats import estimate

FILE = Path(__file__).resolve().parents[1] / "docs" / "results" / "paper_small.csv"
MODELS = ("lstm", "gpt")


def steps_of(runs: pandas.DataFrame) -> list[list[float]]:
    """Return the steps until solved of the runs of each model; infinite where one never was."""
    score = runs["eval/success"].fillna(runs["eval/return"])
    steps = runs["env_steps"].astype(float).where(score >= SOLVED, np.inf)
    return [steps[runs["seq_model.name"] == model].tolist() for model in MODELS]


def row(name: str, length: float, runs: pandas.DataFrame) -> list[Any]:
    """Return one row of the table."""
    by_model = steps_of(runs)
    minutes = [runs["time/seconds"][runs["seq_model.name"] == model] / 60 for model in MODELS]
    return [
        name,
        f"{length:g}",
        *(f"{sum(np.isfinite(values))} of {len(values)}" for values in by_model),
        *(steps_text(values) if values else "-" for values in by_model),
        _p_text(p_value(*by_model)) if all(by_model) else "-",
        *(f"{values.median():.1f}" if len(values) else "-" for values in minutes),
    ]


def _p_text(p: float) -> str:
    return f"{p:.4f}" if p >= 0.00005 else "< 0.0001"


def draw(path: Path, runs: pandas.DataFrame) -> None:
    """Draw a panel for each task: steps until solved over length, each run and the median."""
    tasks = sorted(runs["env.name"].unique())
    styles = series_styles(sorted(MODELS))  # as in the figures of memrl plot
    rng = np.random.default_rng(0)
    with in_style(DEFAULTS):
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter, NullFormatter

        figure = Figure(figsize=(8, 2.8), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(tasks), sharey=True))
        top = 2 * runs["env_steps"].max()  # where runs are drawn that solved nothing
        for axes, task in zip(panels, tasks, strict=True):
            cells = runs[runs["env.name"] == task].groupby("env.length")
            for place, (_, some) in enumerate(cells):
                for shift, model, steps in zip((-0.15, 0.15), MODELS, steps_of(some), strict=True):
                    values, style = np.minimum(steps, top), styles[model]
                    x = place + shift + rng.uniform(-0.07, 0.07, len(values))
                    axes.plot(x, values, style["marker"], color=style["color"], alpha=0.4, ms=3)
                    median = estimate([values], np.median)
                    at, colour = place + shift, style["color"]
                    axes.plot([at] * 2, [median.low, median.high], color=colour, lw=1.5)
                    axes.plot(at, median.value, style["marker"], color=colour, ms=5)
            axes.axhline(top, color="grey", lw=0.5)
            axes.set(title=task.replace("_", " "), xlabel="length", yscale="log")
            axes.set_xticks(range(len(cells)), [f"{length:g}" for length, _ in cells])
            axes.set_xlim(-0.5, len(cells) - 0.5)
        panels[0].yaxis.set_major_formatter(EngFormatter(sep=""))
        panels[0].yaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("environment steps until solved")
        for axes in panels:
            axes.text(-0.45, top, "not solved", va="bottom", fontsize="x-small", color="grey")
        for model in MODELS:
            style = {k: styles[model][k] for k in ("marker", "color")}
            panels[-1].plot([], [], ls="", label=model.upper(), **style)
        panels[-1].legend(loc="lower right", fontsize="small")
        path.write_bytes(encode(figure, path.suffix.removeprefix("."), DEFAULTS))
    print(path)


def main() -> None:
    """Print the table, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=FILE)
    figure = file_ending(".png", ".pdf", ".svg")
    parser.add_argument("--figure", type=figure, metavar="FILE", help="draw the steps too")
    given = parser.parse_args()
    try:
        all_runs = pandas.read_csv(given.file)
        all_runs = all_runs[all_runs["seq_model.name"].isin(MODELS)]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{given.file}: not what memrl export --last writes ({error})")
    runs = all_runs[all_runs["state"] == "done"]
    if not len(runs):
        sys.exit(f"{given.file}: no run of {' or '.join(MODELS)} is done")
    head = ["task", "length", *(f"solved, {model.upper()}" for model in MODELS)]
    head += [*(f"steps, {model.upper()}" for model in MODELS), "p"]
    head += [f"minutes, {model.upper()}" for model in MODELS]
    cells = runs.groupby(["env.name", "env.length"])
    table(head, (row(*key, group) for key, group in cells))
    minutes = runs["time/seconds"].sum() / 60
    print(f"\n{len(runs)} runs, {minutes:.0f} minutes of training")
    if len(runs) < len(all_runs):
        print(f"{len(all_runs) - len(runs)} more are not done, and not counted")
    if given.figure:
        draw(given.figure, runs)


if __name__ == "__main__":
    main()
