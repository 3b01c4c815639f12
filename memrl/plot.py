"""Pictures of results, from files alone."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from memrl.checkpoint import write_whole


def evaluations(folder: Path) -> tuple[list[int], list[float]]:
    """Return the env steps and the returns of a run's evaluations, from its ``eval.csv``."""
    with open(folder / "eval.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [int(row["env_steps"]) for row in rows], [float(row["eval/return"]) for row in rows]


def learning_curve(folder: Path) -> Path:
    """Draw a run's evaluation returns over environment steps; return the PNG's path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*evaluations(folder), marker=".", linewidth=1)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean return of an evaluation")
    axes.set_title(folder.name, fontsize="small", wrap=True)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    path = folder / "learning_curve.png"
    write_whole(path, buffer.getvalue())
    return path
