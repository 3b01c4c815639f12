"""The picture of one run: its evaluations over environment steps."""

from __future__ import annotations

import io
import math
from pathlib import Path

from memrl.run.backend import import_matplotlib
from memrl.run.files import write_whole
from memrl.run.tables import Table

LEARNING_CURVE = "learning_curve.png"  # in the run's folder


def learning_curve(table: Table, title: str, path: Path) -> Path:
    """Plot the evaluations in ``eval.csv``, unsmoothed, as a PNG; return its path."""
    import_matplotlib()
    from matplotlib.figure import Figure

    shown = [name for name in ("eval/return", "eval/success") if not math.isnan(table[name][-1])]
    figure = Figure(figsize=(6, 1 + 2.5 * len(shown)), layout="constrained")
    for axes, name in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True):
        axes.plot(table["env_steps"], table[name], marker=".", linewidth=1)
        axes.set_xlabel("environment steps")
        axes.set_ylabel(f"{name.removeprefix('eval/')}, mean of an evaluation")
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize="small", wrap=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_whole(path, buffer.getvalue())
    return path
