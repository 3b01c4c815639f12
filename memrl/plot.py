"""Pictures of results, from files alone."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from memrl.checkpoint import write_whole


def evaluations(folder: Path) -> dict[str, list[float]]:
    """Return the columns of a run's ``eval.csv`` by name."""
    with open(folder / "eval.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def learning_curve(folder: Path) -> Path:
    """Draw a run's evaluations over environment steps; return the PNG's path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    table = evaluations(folder)
    shown = [name for name in ("eval/return", "eval/success") if not math.isnan(table[name][-1])]
    figure = Figure(figsize=(6, 1 + 2.5 * len(shown)), layout="constrained")
    for axes, name in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True):
        axes.plot(table["env_steps"], table[name], marker=".", linewidth=1)
        axes.set_xlabel("environment steps")
        axes.set_ylabel(f"{name.removeprefix('eval/')}, mean of an evaluation")
        axes.grid(alpha=0.3)
    figure.suptitle(folder.name, fontsize="small", wrap=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    path = folder / "learning_curve.png"
    write_whole(path, buffer.getvalue())
    return path
