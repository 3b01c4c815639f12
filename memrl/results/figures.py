"""The figures of a sweep: score against length, learning curves, performance profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memrl.results.comparison import aggregates
from memrl.results.drawing import Look, Panel, draw_panels
from memrl.results.paper import REFERENCE_LEVELS
from memrl.results.scores import Cell
from memrl.results.stats import Estimate
from memrl.results.text import how_many, lengths_of
from memrl.run.files import write_whole
from memrl.run.tables import Column

FIGURES = {
    "lengths": "Score against length",
    "curves": "Learning curves",
    "profiles": "Performance profiles",
}
MANY_POINTS = 50_000  # beyond this, single runs are pixels in vector formats too


def write(
    cells: Sequence[Cell], folder: Path, names: Sequence[str], forms: Sequence[str], look: Look
) -> list[Path]:
    """Write figures into a folder, except empty ones; return their paths."""
    written = []
    for name in names:
        for form in forms:
            if content := draw(name, cells, look, form):
                path = folder / f"{name}.{form}"
                write_whole(path, content)
                written.append(path)
    return written


def draw(name: str, cells: Sequence[Cell], look: Look, form: str) -> bytes | None:
    """Return a figure of these cells, or None if it would be empty.

    Args:
        name: lengths, curves or profiles.
        cells: as ``score`` gives.
        look: size and style.
        form: png, pdf or svg.
    """
    functions = {"lengths": _draw_lengths, "curves": _draw_curves, "profiles": _draw_profiles}
    return functions[name](cells, look, form)


def _panel(title: str, cells: Sequence[Cell], series: Mapping[str, Any]) -> Panel:
    """Return a panel of cells of one task."""
    task, metric = cells[0].task, cells[0].metric
    counts = {label: [len(c.counted) for c in cells if c.label == label] for label in series}
    reference = REFERENCE_LEVELS.get((task, metric))
    span = (0.0, 1.0) if reference or metric == "eval/success" else None
    return Panel(title, metric.removeprefix("eval/"), series, counts, reference, span)


def _with_scores(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.counted or cell.uncounted]


def _center(cells: Sequence[Cell]) -> str:
    return f"{cells[0].protocol.name} with 95 % bootstrap intervals over runs"


def _name(task: str) -> str:
    return task.replace("_", " ")


# --- score against length ------------------------------------------------------------------------


def _draw_lengths(cells: Sequence[Cell], look: Look, form: str) -> bytes | None:
    """Draw scores over lengths: for each series estimates with intervals, and single runs."""
    panels = length_panels(cells)
    if not panels:
        return None
    caption = (
        f"Score: {cells[0].protocol.text}. Large marks: {_center(cells)}. "
        f"Small marks: single runs, hollow if not counted. {how_many(cells)}"
    )

    def draw_series(axes: Any, panel: Panel, styles: Mapping[str, Any]) -> dict[str, Any]:
        at, handles = _positions(panel, look.scale), {}
        gap = min(np.diff(sorted(at.values())), default=1.0)
        step = gap * min(0.16, 0.7 / len(panel.series))
        for n, (label, series) in enumerate(panel.series.items()):
            shift = (n - (len(panel.series) - 1) / 2) * step
            x = np.array([at[cell.length] for cell in series]) + shift
            handles[label] = _draw_marks(axes, series, x, gap, styles[label])
        axes.set_xlabel("length" if look.scale != "even" else "length (evenly spaced)")
        axes.set_xticks(list(at.values()), [f"{length:g}" for length in at])
        axes.set_xlim(min(at.values()) - gap / 2, max(at.values()) + gap / 2)
        axes.minorticks_off()
        return handles

    return draw_panels(panels, draw_series, (2.9, 2), caption, look, form)


def length_panels(cells: Sequence[Cell]) -> list[Panel]:
    """Return a panel for each task; ``series`` are lists of cells, by length."""
    shown = [cell for cell in _with_scores(cells) if cell.length is not None]
    panels = []
    for task in dict.fromkeys(cell.task for cell in shown):
        own = [cell for cell in shown if cell.task == task]
        labels = sorted({cell.label for cell in own})
        series = {label: [cell for cell in own if cell.label == label] for label in labels}
        panels.append(_panel(_name(task), own, series))
    return panels


def _positions(panel: Panel, scale: str) -> dict[float, float]:
    lengths = sorted({cell.length for series in panel.series.values() for cell in series})
    if scale == "even":
        return {length: float(n) for n, length in enumerate(lengths)}
    if scale == "log":
        return {length: math.log10(max(length, 1e-9)) for length in lengths}
    return {length: float(length) for length in lengths}


def _draw_marks(
    axes: Any, series: Sequence[Cell], x: Column, gap: float, style: Mapping[str, Any]
) -> Any:
    colour = style["color"]
    dots = {"marker": style["marker"], "linestyle": "none", "markersize": 3, "color": colour}
    for center, cell in zip(x, series, strict=True):
        counted, others = cell.scores, [member.score for member in cell.uncounted]
        n, total = len(counted), len(counted) + len(others)
        at = center + (np.linspace(-0.035, 0.035, total) * gap if total > 1 else np.zeros(1))
        axes.plot(at[:n], counted, alpha=0.4, markeredgewidth=0, zorder=2, **dots)
        axes.plot(at[n:], others, alpha=0.8, mfc="none", mew=0.6, zorder=2, **dots)
    estimates = np.array([cell.estimate[:3] for cell in series], dtype=float)
    has_estimate = ~np.isnan(estimates[:, 0])
    value, low, high = estimates[has_estimate].T
    x = x[has_estimate]
    axes.vlines(x, low, high, color=colour, linewidth=1.6, zorder=3)
    (line,) = axes.plot(
        x, value, markersize=5, linewidth=1.3, mec="white", mew=0.6, zorder=4, **style
    )
    return line


# --- learning curves -----------------------------------------------------------------------------


def _draw_curves(cells: Sequence[Cell], look: Look, form: str) -> bytes | None:
    """Draw learning curves, a panel for each task and length: bands, and thin lines of runs."""
    from matplotlib.ticker import EngFormatter

    panels = curve_panels(cells)
    if not panels:
        return None
    caption = (
        f"{cells[0].protocol.curve_text} Thick lines: {_center(cells)}, as far as all runs go. "
        f"Thin lines: single runs, dotted if not counted. {how_many(cells)}"
    )
    drawn = [cell for panel in panels for cell in panel.series.values()]
    points = sum(len(m.run.eval[c.metric]) for c in drawn for m in (*c.counted, *c.uncounted))

    def draw_series(axes: Any, panel: Panel, styles: Mapping[str, Any]) -> dict[str, Any]:
        handles = {}
        for label, cell in panel.series.items():
            style = styles[label] | {"marker": ""}
            thin = {"color": style["color"], "linewidth": 0.5, "rasterized": points > MANY_POINTS}
            dotted = thin | {"linestyle": (0, (1, 2))}
            for member in cell.counted:
                axes.plot(*cell.protocol.curve(member.run, cell.metric), alpha=0.35, **thin)
            for member in cell.uncounted:
                axes.plot(*cell.protocol.curve(member.run, cell.metric), alpha=0.7, **dotted)
            (handles[label],) = axes.plot([], [], **style)  # where there is no band
            if cell.band:
                handles[label] = _draw_band(axes, cell.band, style)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("environment steps")
        return handles

    return draw_panels(panels, draw_series, (2.1, 3), caption, look, form)


def curve_panels(cells: Sequence[Cell]) -> list[Panel]:
    """Return a panel for each task and length; ``series`` are cells."""
    shown = _with_scores(cells)
    equal_n = len({len(cell.counted) for cell in shown}) == 1
    panels = []
    for task, length in dict.fromkeys((cell.task, cell.length) for cell in shown):
        own = [cell for cell in shown if (cell.task, cell.length) == (task, length)]
        title = _name(task) + ("" if length is None else f", length {length}")
        if not equal_n:
            title += f"\nn = {', '.join(str(len(cell.counted)) for cell in own)}"
        panels.append(_panel(title, own, {cell.label: cell for cell in own}))
    return panels


def _draw_band(
    axes: Any, band: tuple[Column, Estimate], style: Mapping[str, Any], step: str | None = None
) -> Any:
    x, estimate = band
    shade = {"color": style["color"], "alpha": 0.2, "lw": 0}
    axes.fill_between(x, estimate.low, estimate.high, step=step, **shade)
    drawn = f"steps-{step}" if step else "default"
    (line,) = axes.plot(x, estimate.value, linewidth=1.5, drawstyle=drawn, **style)
    return line


# --- performance profiles ------------------------------------------------------------------------


def _draw_profiles(cells: Sequence[Cell], look: Look, form: str) -> bytes | None:
    """Draw performance profiles, a panel for each task: the share of runs above each score."""
    compared = [aggregate for aggregate in aggregates(cells) if aggregate.cells]
    panels = []
    for aggregate in compared:
        profile = aggregate.profile
        series = {label: (aggregate.levels, estimate) for label, estimate in profile.items()}
        counts = {label: [estimate.n] for label, estimate in profile.items()}
        metric = aggregate.metric.removeprefix("eval/")
        panels.append(Panel(_name(aggregate.task), metric, series, counts))
    if not panels:
        return None
    places = "; ".join(f"{_name(a.task)}: {lengths_of(a)}" for a in compared)
    caption = (
        f"Score: {cells[0].protocol.text}. Share of runs above each score, at the lengths that all "
        f"series have in common ({places}), with 95 % bootstrap intervals. "
        f"{how_many([cell for a in compared for cell in a.cells])}"
    )

    def draw_series(axes: Any, panel: Panel, styles: Mapping[str, Any]) -> dict[str, Any]:
        axes.set(xlabel=panel.y, ylabel="share of runs above", ylim=(-0.02, 1.02))
        return {
            label: _draw_band(axes, band, styles[label] | {"marker": ""}, "post")
            for label, band in panel.series.items()
        }

    return draw_panels(panels, draw_series, (2.6, 2), caption, look, form)
