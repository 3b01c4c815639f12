"""Pictures of results, from files alone."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from memrl.checkpoint import write_whole


def evaluations(folder: Path) -> dict[str, list[float]]:
    """Return the columns of a run's ``eval.csv`` by name."""
    with open(folder / "eval.csv", newline="") as file:
        names, *rows = list(csv.reader(file)) or [[]]
    return {name: [float(row[n]) for row in rows] for n, name in enumerate(names)}


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
    return _save(figure, folder / "learning_curve.png")


def _save(figure: Any, path: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_whole(path, buffer.getvalue())
    return path


LAST = 10  # evaluations whose mean stands for a run


def lengths(folder: Path, runs: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[Path]:
    """Draw a sweep: every run's last evaluations over the task's length, a colour for each model.

    A line joins the medians. Runs that are not done are hollow and not in the medians; those
    without an evaluation are left out.

    Args:
        folder: the sweep's, which gets ``lengths.png``.
        runs: the folder and the config of each run.

    Returns:
        The PNG's path, or nothing if there is nothing to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    found: dict[tuple[str, str], list[tuple[float, float, bool]]] = {}
    for path, config in runs:
        if "length" in config.get("env", {}) and (path / "eval.csv").exists():
            values = evaluations(path)
            if not values.get("eval/return"):
                continue
            success = values["eval/success"]
            name = "return" if math.isnan(success[-1]) else "success"
            models = f"{config['seq_model']['name']} x {config['seq_model'].get('n_layer', 1)}"
            label = f"{config['env']['name']}, {models}"
            point = fmean(values[f"eval/{name}"][-LAST:])
            done = (path / "agent.pt").exists()
            found.setdefault((label, name), []).append((config["env"]["length"], point, done))
    if not found:
        return []
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for n, ((label, _), points) in enumerate(sorted(found.items())):
        colour = f"C{n}"
        for length, value, done in points:
            axes.plot(length, value, "o", color=colour, mfc=colour if done else "none", alpha=0.5)
        at = sorted({length for length, _, done in points if done})
        middle = [median(y for x, y, done in points if done and x == length) for length in at]
        total = sum(done for *_, done in points)
        axes.plot(at, middle, color=colour, label=f"{label} (n = {total})")
    axes.set_xlabel("length")
    axes.set_ylabel(f"{' / '.join(sorted({n for _, n in found}))}, last {LAST} evaluations")
    axes.set_title("each point a run, hollow: not done; lines: medians", fontsize="small")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return [_save(figure, folder / "lengths.png")]
