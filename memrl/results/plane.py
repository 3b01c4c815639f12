"""The figure that places tasks by what they demand: how long a memory, and how long credit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memrl.results.drawing import DEFAULTS, encode, in_style, series_styles
from memrl.run.files import write_whole


def draw(path: Path, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Write the figure: a point for each task, lines through those that differ in length only.

    Args:
        path: its ending is the format.
        tasks: ``task``, its name, and ``policy_memory`` and ``credit``, in steps.
    """
    names = list(dict.fromkeys(task["task"] for task in tasks))
    styles = series_styles(names)
    with in_style(DEFAULTS):
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter

        figure = Figure(figsize=(4.2, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for name in names:
            some = sorted((t["policy_memory"], t["credit"]) for t in tasks if t["task"] == name)
            axes.plot(*zip(*some, strict=True), label=name, **styles[name])
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.set(xlim=(0.8, None), ylim=(0.8, None))
        axes.set(xlabel="memory length of a policy", ylabel="credit-assignment length")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        form = path.suffix.removeprefix(".")
        write_whole(path, encode(figure, form, DEFAULTS))
