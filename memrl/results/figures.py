"""The figures of a sweep: score against length, learning curves, performance profiles."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from memrl.results.comparison import aggregates, differences
from memrl.results.drawing import (
    DEFAULTS,
    SERIES,
    FigureOptions,
    Panel,
    draw_levels,
    draw_panels,
    encode,
    in_style,
    series_styles,
)
from memrl.results.scores import Cell
from memrl.results.stats import Estimate
from memrl.results.text import how_many, lengths_of, name_intervals
from memrl.run.files import write_whole
from memrl.run.tables import Column
from memrl.sweep.progress import SHOWN

FIGURES = {
    "lengths": "Score against length",
    "curves": "Learning curves",
    "profiles": "Performance profiles",
}
MANY_POINTS = 50_000  # beyond this, single runs are pixels in vector formats too
TICKS = 30  # of lengths, at most

Styles = Mapping[str, dict[str, Any]]  # by the label of the series


def write(
    cells: Sequence[Cell],
    folder: Path,
    names: Sequence[str],
    forms: Sequence[str],
    options: FigureOptions = DEFAULTS,
) -> list[Path]:
    """Write figures into a folder, except empty ones; return their paths."""
    contents = {
        folder / f"{name}.{form}": content
        for name in names
        for form in forms
        if (content := draw(name, cells, options, form))
    }
    for path, content in contents.items():
        write_whole(path, content)
    return [*contents]


def draw(name: str, cells: Sequence[Cell], options: FigureOptions, form: str) -> bytes | None:
    """Return one of ``FIGURES`` as png, pdf or svg, or None if it would be empty."""
    with in_style(options):
        figure = arrange(name, cells, options)
        return encode(figure, form, options) if figure else None


def arrange(name: str, cells: Sequence[Cell], options: FigureOptions) -> Any:
    """Return one of ``FIGURES`` in the style in effect, or None if it would be empty."""
    functions = {"lengths": _draw_lengths, "curves": _draw_curves, "profiles": _draw_profiles}
    labels = sorted({cell.label for cell in cells if cell.has_score})
    styles = series_styles(labels[:SERIES])  # of all series, so that all figures have the same
    hidden = {*labels[SERIES:]}
    shown = [cell for cell in cells if cell.label not in hidden]
    notes = []
    if len(labels) > SERIES:
        notes.append(f"The first {SERIES} of {len(labels)} series are shown.")
    for task, values in differences(cells).items():
        keys = ", ".join([*values][:SHOWN]) + (", ..." if len(values) > SHOWN else "")
        notes.append(f"{_name(task)}: not the same in all runs: {keys}.")
    return functions[name](shown, styles, "".join(f" {note}" for note in notes), options)


def count_runs(panels: Sequence[Panel]) -> list[tuple[str, int]]:
    """Return the label of each cell and how many of its runs count."""
    return [(cell.label, len(cell.counted)) for panel in panels for cell in panel.cells]


def _center(cells: Sequence[Cell]) -> str:
    return f"{cells[0].protocol.name} with {name_intervals(cells)}"


def _name(task: str) -> str:
    return task.replace("_", " ")


def _draw_range(axes: Any, panel: Panel) -> dict[str, Any]:
    """Draw the task's reference levels, if any; show the whole range of a success rate."""
    handles = draw_levels(axes, [cell.facts.reference for cell in panel.cells])
    if panel.cells[0].in_unit_interval:
        axes.update_datalim([(axes.dataLim.x0, y) for y in (0.0, 1.0)])
        axes.autoscale_view()
    return handles


# --- score against length ------------------------------------------------------------------------


def _draw_lengths(cells: Sequence[Cell], styles: Styles, notes: str, options: FigureOptions) -> Any:
    """Draw scores over lengths: for each series estimates with intervals, and single runs."""
    panels = length_panels(cells)
    if not panels:
        return None
    if undrawn := sum(len(cell.members) for cell in cells if cell.length is None):
        notes = f" Not drawn for lack of a single length: {undrawn}.{notes}"
    caption = (
        f"Score: {cells[0].protocol.text}. Large marks: {_center(cells)}. "
        f"Small marks: single runs, hollow if not counted. {how_many(cells)}{notes}"
    )

    def draw_series(axes: Any, panel: Panel) -> dict[str, Any]:
        handles = draw_over_lengths(axes, panel, styles, options.scale)
        axes.set_xlabel("length" if options.scale != "even" else "length (evenly spaced)")
        return handles

    return draw_panels(panels, count_runs(panels), draw_series, (2.9, 2), caption, options)


def draw_over_lengths(
    axes: Any, panel: Panel, styles: Styles, scale: str, trained: Collection[float] = ()
) -> dict[str, Any]:
    """Draw a panel's cells over their lengths; return legend handles.

    Lengths of training, if there are any in ``trained``, are marked by dotted lines.
    """
    lengths = {cell.length for cell in panel.cells if cell.length is not None}
    at, handles = _positions(sorted(lengths.union(trained)), scale), {}
    gap = min(np.diff(sorted(at.values())), default=1.0)
    labels = sorted({cell.label for cell in panel.cells})
    # Each group of marks stays at its tick: where distances mean something, almost on it.
    step = gap * min(0.1, (0.4 if scale == "even" else 0.15) / len(labels))
    for n, label in enumerate(labels):
        series = [cell for cell in panel.cells if cell.label == label]
        shift = (n - (len(labels) - 1) / 2) * step
        x = np.array([at[cell.length] for cell in series]) + shift
        handles[label] = _draw_marks(axes, series, x, 0.35 * step, styles[label])
    for length in sorted(trained):
        handles["training length"] = axes.axvline(at[length], color="0.45", ls=":", zorder=1)
    ticks = list(at)[:: math.ceil(len(at) / TICKS)]
    axes.set_xticks([at[length] for length in ticks], [f"{length:g}" for length in ticks])
    axes.set_xlim(min(at.values()) - gap / 2, max(at.values()) + gap / 2)
    axes.minorticks_off()
    return handles | _draw_range(axes, panel)


def length_panels(cells: Sequence[Cell]) -> list[Panel]:
    """Return a panel for each task that has a length."""
    shown = [cell for cell in cells if cell.has_score and cell.length is not None]
    return [Panel(_name(task), [*own]) for task, own in groupby(shown, lambda cell: cell.task)]


def _positions(lengths: Sequence[float], scale: str) -> dict[Any, float]:
    if scale == "even":
        return {length: float(n) for n, length in enumerate(lengths)}
    if scale == "log":
        return {length: math.log10(max(length, 1e-9)) for length in lengths}
    return {length: float(length) for length in lengths}


def _draw_marks(
    axes: Any, series: Sequence[Cell], x: Column, spread: float, style: Mapping[str, Any]
) -> Any:
    """Draw a series: its runs, up to ``spread`` to the left and right of x, and its estimates."""
    colour = style["color"]
    dots = {"marker": style["marker"], "linestyle": "none", "markersize": 3, "color": colour}
    counted, others = [], []  # places and scores of single runs
    for center, cell in zip(x, series, strict=True):
        scores = [*cell.scores, *(member.score for member in cell.uncounted)]
        sides = np.linspace(-spread, spread, len(scores)) if len(scores) > 1 else [0.0]
        places = [*zip(center + sides, scores, strict=True)]
        counted += places[: len(cell.counted)]
        others += places[len(cell.counted) :]
    axes.plot(*_columns(counted, 2), alpha=0.4, markeredgewidth=0, zorder=2, **dots)
    axes.plot(*_columns(others, 2), alpha=0.8, mfc="none", mew=0.6, zorder=2, **dots)
    centers = zip(x, series, strict=True)
    estimates = [(center, *cell.estimate[:3]) for center, cell in centers if cell.counted]
    x, value, low, high = _columns(estimates, 4)
    axes.vlines(x, low, high, color=colour, linewidth=1.6, zorder=3)
    (line,) = axes.plot(
        x, value, markersize=5, linewidth=1.3, mec="white", mew=0.6, zorder=4, **style
    )
    return line


def _columns(rows: Sequence[tuple[Any, ...]], n: int) -> Column:
    return np.array(rows, dtype=np.float64).reshape(-1, n).T


# --- learning curves -----------------------------------------------------------------------------


def _draw_curves(cells: Sequence[Cell], styles: Styles, notes: str, options: FigureOptions) -> Any:
    """Draw learning curves, a panel for each task and length: bands, and thin lines of runs."""
    from matplotlib.ticker import EngFormatter

    panels = curve_panels(cells)
    if not panels:
        return None
    drawn = [cell for panel in panels for cell in panel.cells]
    if filled := sum(cell.n_filled for cell in drawn):
        notes = f" Continued with the last value to the figure's end: {filled}.{notes}"
    caption = (
        f"{cells[0].protocol.curve_text} Thick lines: {_center(cells)}; the last value of a run "
        "that is done is carried forward, unless an unfinished run counts. Thin lines: "
        f"single runs, dotted if not counted. {how_many(cells)}{notes}"
    )
    points = sum(len(m.run.eval[c.metric]) for c in drawn for m in (*c.counted, *c.uncounted))

    def draw_series(axes: Any, panel: Panel) -> dict[str, Any]:
        handles = {}
        for cell in panel.cells:
            style = styles[cell.label] | {"marker": ""}
            thin = {"color": style["color"], "linewidth": 0.5, "rasterized": points > MANY_POINTS}
            dotted = thin | {"linestyle": (0, (1, 2))}
            for member in (*cell.counted, *cell.uncounted):
                steps, values = cell.protocol.curve(member.run, cell.metric)
                look = {"alpha": 0.7} | dotted if member.excluded else {"alpha": 0.35} | thin
                marker = "." if len(steps) == 1 else ""  # a line through one point is invisible
                axes.plot(steps, values, marker=marker, **look)
            (handles[cell.label],) = axes.plot([], [], **style)  # where there is no band
            if cell.band:
                handles[cell.label] = _draw_band(axes, *cell.band, style)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("environment steps")
        return handles | _draw_range(axes, panel)

    return draw_panels(panels, count_runs(panels), draw_series, (2.1, 3), caption, options)


def curve_panels(cells: Sequence[Cell]) -> list[Panel]:
    """Return a panel for each task and length."""
    shown = [cell for cell in cells if cell.has_score]
    equal_n = len({len(cell.counted) for cell in shown}) == 1
    panels = []
    for (task, length), group in groupby(shown, lambda cell: (cell.task, cell.length)):
        own = list(group)
        title = _name(task) + ("" if length is None else f", length {length}")
        if not equal_n:
            title += f"\nn = {', '.join(str(len(cell.counted)) for cell in own)}"
        panels.append(Panel(title, own))
    return panels


def _draw_band(
    axes: Any, x: Column, estimate: Estimate, style: Mapping[str, Any], step: str | None = None
) -> Any:
    shade = {"color": style["color"], "alpha": 0.2, "lw": 0}
    axes.fill_between(x, estimate.low, estimate.high, step=step, **shade)
    drawn = f"steps-{step}" if step else "default"
    (line,) = axes.plot(x, estimate.value, linewidth=1.5, drawstyle=drawn, **style)
    return line


# --- performance profiles ------------------------------------------------------------------------


def _draw_profiles(
    cells: Sequence[Cell], styles: Styles, notes: str, options: FigureOptions
) -> Any:
    """Draw performance profiles, a panel for each task: the share of runs above each score."""
    compared = {a.task: a for a in aggregates(cells) if a.cells}
    if not compared:
        return None
    panels = [Panel(_name(task), aggregate.cells) for task, aggregate in compared.items()]
    drawn = [cell for panel in panels for cell in panel.cells]
    counts = [(label, e.n) for a in compared.values() for label, e in a.overall.items()]
    places = "; ".join(f"{_name(task)}: {lengths_of(a)}" for task, a in compared.items())
    caption = (
        f"Score: {cells[0].protocol.text}. Share of runs above each score, at the lengths that all "
        f"series have in common ({places}), with {name_intervals(drawn)}. {how_many(drawn)}{notes}"
    )

    def draw_series(axes: Any, panel: Panel) -> dict[str, Any]:
        aggregate = compared[panel.cells[0].task]
        metric = aggregate.metric.removeprefix("eval/")
        axes.set(xlabel=metric, ylabel="share of runs above", ylim=(-0.02, 1.02))
        return {
            label: _draw_band(axes, aggregate.levels, band, styles[label] | {"marker": ""}, "post")
            for label, band in aggregate.profile.items()
        }

    return draw_panels(panels, counts, draw_series, (2.6, 2), caption, options)
