"""The figure that places tasks by what they demand: how long a memory, and how long credit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memrl.results.drawing import DEFAULTS, encode, in_style, series_styles
from memrl.run.files import write_whole

SHIFT = 6  # points


def draw(path: Path, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Write the figure: a point for each task, lines through those that differ in length only.

    Of tasks on the same horizontal or vertical line, later ones are drawn beside earlier ones.

    Args:
        path: its ending is the format.
        tasks: ``task``, its name, and ``policy_memory`` and ``credit``, in steps.
    """
    names = list(dict.fromkeys(task["task"] for task in tasks))
    styles = series_styles(names)
    with in_style(DEFAULTS):
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter
        from matplotlib.transforms import offset_copy

        figure = Figure(figsize=(4.2, 3.8), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xscale="log", yscale="log")
        axes.set(xlim=(0.8, 1.3 * max(t["policy_memory"] for t in tasks)))
        axes.set(ylim=(0.8, 1.3 * max(t["credit"] for t in tasks)))
        rows, columns = Counter[int](), Counter[int]()  # how many lines are there already
        for name in names:
            some = sorted((t["policy_memory"], t["credit"]) for t in tasks if t["task"] == name)
            memory, credit = zip(*some, strict=True)
            up = rows[credit[0]] if len({*credit}) == 1 else 0
            right = columns[memory[0]] if len({*memory}) == 1 else 0
            beside = offset_copy(axes.transData, figure, SHIFT * right, SHIFT * up, "points")
            axes.plot(memory, credit, label=name, transform=beside, **styles[name])
            rows.update({*credit} if len({*credit}) == 1 else ())
            columns.update({*memory} if len({*memory}) == 1 else ())
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="memory length of a policy", ylabel="credit-assignment length")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        form = path.suffix.removeprefix(".")
        write_whole(path, encode(figure, form, DEFAULTS))
