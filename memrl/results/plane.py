"""The figure that places tasks by what they demand: how long a memory, and how long credit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memrl.results.drawing import DEFAULTS, encode, in_style, series_styles
from memrl.run.files import write_whole

SHIFT = 6  # points
WIDEST = 7.0  # inches


def draw(path: Path, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Write the figure: a point for each task, lines through those that differ in length only.

    Horizontal or vertical lines that would overlap are drawn beside each other.

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

        column = 0.6 + 0.075 * max(map(len, names))  # inches, of the legend
        n_columns = 2 if 2 * column <= WIDEST else 1
        width = min(WIDEST, max(4.2, n_columns * column))
        figure = Figure(figsize=(width, 3.8), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xscale="log", yscale="log")
        axes.set(xlim=(0.8, 1.3 * max(t["policy_memory"] for t in tasks)))
        axes.set(ylim=(0.8, 1.3 * max(t["credit"] for t in tasks)))
        lanes: dict[tuple[str, int, int], list[tuple[int, int]]] = defaultdict(list)
        for name in names:
            some = sorted((t["policy_memory"], t["credit"]) for t in tasks if t["task"] == name)
            memory, credit = zip(*some, strict=True)
            up = _lane(lanes, "credit", credit, memory)
            right = _lane(lanes, "memory", memory, credit)
            beside = offset_copy(axes.transData, figure, SHIFT * right, SHIFT * up, "points")
            axes.plot(memory, credit, label=name, transform=beside, **styles[name])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="memory length of a policy", ylabel="credit-assignment length")
        figure.legend(loc="outside upper center", ncols=n_columns, frameon=False)
        form = path.suffix.removeprefix(".")
        write_whole(path, encode(figure, form, DEFAULTS))


def _lane(
    lanes: dict[tuple[str, int, int], list[tuple[int, int]]],
    axis: str,
    level: Sequence[int],
    along: Sequence[int],
) -> int:
    """Return how many lines a line at one level has to keep clear of; take that place."""
    if len({*level}) > 1:
        return 0
    low, high = min(along), max(along)
    n = 0
    while any(low <= end and start <= high for start, end in lanes[axis, level[0], n]):
        n += 1
    lanes[axis, level[0], n].append((low, high))
    return n
