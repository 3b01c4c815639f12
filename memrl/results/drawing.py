"""Draws figures from plain numbers: colour-blind safe, legible in print, the same bytes each time.

Uses matplotlib without a display, and the colours of Okabe and Ito (2008).
"""

from __future__ import annotations

import contextlib
import io
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from memrl.run.outcome import ConfigError
from memrl.run.tables import Column

if TYPE_CHECKING:
    from memrl.results.stats import Estimate


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
FORMATS = ("png", "pdf", "svg")
SCALES = ("even", "linear", "log")
MANY_POINTS = 50_000  # beyond this, single runs are pixels in vector formats too

RC: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "grid.alpha": 0.3,
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "text.parse_math": False,  # a $ in a name is a $
    "svg.hashsalt": "memrl",  # ids that do not change
}


class Look(NamedTuple):
    """Size and style of figures."""

    width: float = 6.5  # inches: a page's text
    height: float | None = None  # inches; None: as the content needs
    font_size: float = 9.0  # points
    style: str = "default"  # of matplotlib, a name or a file
    dpi: int = 200  # of png
    scale: str = "even"  # of lengths: evenly spaced, linear or log


class Point(NamedTuple):
    """A series at one length."""

    length: float
    estimate: Estimate  # of the runs that count
    seeds: Sequence[float]  # their scores
    others: Sequence[float]  # scores of the runs that do not


class Curves(NamedTuple):
    """A series in a panel of learning curves."""

    band: tuple[Column, Estimate] | None  # steps, and an estimate for each
    seeds: Sequence[tuple[Column, Column]]  # steps and values of the runs that count
    others: Sequence[tuple[Column, Column]]  # of the runs that do not


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    y: str
    series: Mapping[str, Any]  # by label
    reference: tuple[float, str] | None = None  # a level and its name
    span: tuple[float, float] | None = None  # of y, shown whatever the data


@contextlib.contextmanager
def _style(look: Look) -> Iterator[None]:
    import matplotlib
    import matplotlib.style

    with matplotlib.rc_context():
        try:
            matplotlib.style.use(look.style)
        except OSError:
            known = ", ".join(matplotlib.style.available)
            raise ConfigError(f"--style {look.style}: neither a file nor one of {known}") from None
        matplotlib.rcParams.update(RC | {"font.size": look.font_size, "legend.frameon": False})
        yield


def _encode(figure: Any, form: str, dpi: int) -> bytes:
    # Without the time of writing and the version of the writer.
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=dpi, metadata=metadata[form])
    return buffer.getvalue()


class Styles:
    """The colour, marker and line of each series, the same in all figures; 28 are distinct."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.of = {
            label: {
                "color": COLOURS[n % len(COLOURS)],
                "marker": MARKERS[n % len(MARKERS)],
                "linestyle": LINES[n % len(LINES)],
            }
            for n, label in enumerate(labels)
        }

    def line(self, label: str) -> dict[str, Any]:
        """Return the style of a line without markers."""
        return {key: value for key, value in self.of[label].items() if key != "marker"}


def _draw(
    panels: Sequence[Panel],
    draw_panel: Callable[[Any, Panel, Styles], Mapping[str, Any]],
    size: tuple[float, int],
    caption: str,
    look: Look,
    form: str,
) -> bytes:
    """Draw panels in rows, with a legend above and a caption below.

    Args:
        draw_panel: draws a panel into axes; returns a legend handle for each of its series.
        size: the height of a row, in inches, and the number of panels in it.
    """
    from matplotlib.figure import Figure

    row_height, columns = size[0], min(size[1], len(panels))
    rows = math.ceil(len(panels) / columns)
    with _style(look):
        height = look.height or 0.9 + row_height * rows
        figure = Figure(figsize=(look.width, height), layout="constrained")
        styles = Styles(sorted({label for panel in panels for label in panel.series}))
        handles: dict[str, Any] = {}
        for n, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
            if n >= len(panels):
                axes.set_visible(False)
                continue
            axes.set_title(panels[n].title)
            if n % columns == 0 or panels[n].y != panels[n - 1].y:
                axes.set_ylabel(panels[n].y)
            handles = {**draw_panel(axes, panels[n], styles), **handles}
            if reference := panels[n].reference:
                level, text = reference
                dashed = {"color": "0.45", "linestyle": (0, (2, 2)), "linewidth": 1}
                handles.setdefault(text, axes.axhline(level, zorder=1, **dashed))
            if span := panels[n].span:
                axes.update_datalim([(axes.dataLim.x0, y) for y in span])
                axes.autoscale_view()
        _legend(figure, handles, _counts(panels), look)
        # As wide as the figure: the constrained layout does not wrap text.
        text = textwrap.fill(caption, int(look.width * 72 / (0.5 * (look.font_size - 2))))
        small = {"fontsize": look.font_size - 2, "color": "0.3"}
        figure.supxlabel(text, x=0.01, ha="left", **small)
        return _encode(figure, form, look.dpi)


def _legend(
    figure: Any, handles: Mapping[str, Any], counts: Mapping[str, Sequence[int]], look: Look
) -> None:
    """Draw the legend: the series, with their numbers of runs."""
    order = [*sorted(counts), *(label for label in handles if label not in counts)]
    names = [f"{label}{_n(counts[label]) if label in counts else ''}" for label in order]
    width = max(map(len, names)) * look.font_size * 0.55 / 72 + 0.6  # inches of one
    columns = max(1, min(len(names), int(look.width / width)))
    lines = [handles[label] for label in order]
    figure.legend(lines, names, loc="outside upper center", ncols=columns)


def _n(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f" (n = {low})" if low == high else f" (n = {low} to {high})"


def _counts(panels: Sequence[Panel]) -> dict[str, list[int]]:
    """Return how many runs count, for each series at each length."""
    counts: dict[str, list[int]] = {}
    for panel in panels:
        for label, series in panel.series.items():
            if isinstance(series, Curves):
                counts.setdefault(label, []).append(len(series.seeds))
            elif isinstance(series, list):  # of Points
                counts.setdefault(label, []).extend(point.estimate.n for point in series)
            else:
                counts.setdefault(label, []).append(series[1].n)
    return counts


# --- score against length ------------------------------------------------------------------------


def lengths(panels: Sequence[Panel], caption: str, look: Look, form: str) -> bytes:
    """Draw scores over lengths: for each series estimates with intervals, and single runs.

    Args:
        panels: one for each task; ``series`` are lists of Points.
        caption: what is shown, in words.
        look: size and style.
        form: png, pdf or svg.
    """

    def draw_panel(axes: Any, panel: Panel, styles: Styles) -> dict[str, Any]:
        at, handles = _positions(panel, look.scale), {}
        gap = min(np.diff(sorted(at.values())), default=1.0)
        step = gap * min(0.16, 0.7 / len(panel.series))
        for n, (label, points) in enumerate(panel.series.items()):
            shift = (n - (len(panel.series) - 1) / 2) * step
            handles[label] = _series(axes, points, at, shift, gap, styles.of[label])
        axes.set_xlabel("length" if look.scale != "even" else "length (evenly spaced)")
        axes.set_xticks(list(at.values()), [f"{length:g}" for length in at])
        axes.set_xlim(min(at.values()) - gap / 2, max(at.values()) + gap / 2)
        axes.minorticks_off()
        return handles

    return _draw(panels, draw_panel, (2.9, 2), caption, look, form)


def _positions(panel: Panel, scale: str) -> dict[float, float]:
    lengths = sorted({point.length for points in panel.series.values() for point in points})
    if scale == "even":
        return {length: float(n) for n, length in enumerate(lengths)}
    if scale == "log":
        return {length: math.log10(max(length, 1e-9)) for length in lengths}
    return {length: length for length in lengths}


def _series(
    axes: Any,
    points: Sequence[Point],
    at: Mapping[float, float],
    shift: float,
    gap: float,
    style: Mapping[str, Any],
) -> Any:
    colour = style["color"]
    for point in points:
        scores = [*point.seeds, *point.others]
        spread = np.linspace(-0.035, 0.035, len(scores)) * gap if len(scores) > 1 else [0.0]
        x = at[point.length] + shift + np.asarray(spread)
        n = len(point.seeds)
        dots = {"marker": style["marker"], "linestyle": "none", "markersize": 3, "color": colour}
        axes.plot(x[:n], point.seeds, alpha=0.4, markeredgewidth=0, zorder=2, **dots)
        axes.plot(x[n:], point.others, alpha=0.8, mfc="none", mew=0.6, zorder=2, **dots)
    drawn = [point for point in points if point.estimate.n]
    value = np.array([point.estimate.value for point in drawn], dtype=float)
    low = np.array([point.estimate.low for point in drawn], dtype=float)
    high = np.array([point.estimate.high for point in drawn], dtype=float)
    x = np.array([at[point.length] + shift for point in drawn])
    axes.vlines(x, low, high, color=colour, linewidth=1.6, zorder=3)
    (line,) = axes.plot(
        x, value, markersize=5, linewidth=1.3, mec="white", mew=0.6, zorder=4, **style
    )
    return line


# --- learning curves -----------------------------------------------------------------------------


def curves(panels: Sequence[Panel], caption: str, look: Look, form: str) -> bytes:
    """Draw learning curves, a panel for each task and length: bands, and thin lines of single runs.

    Args:
        panels: ``series`` are Curves.
        caption, look, form: as in ``lengths``.
    """
    from matplotlib.ticker import EngFormatter

    single = [c for p in panels for s in p.series.values() for c in (*s.seeds, *s.others)]
    pixels = sum(len(steps) for steps, _ in single) > MANY_POINTS

    def draw_panel(axes: Any, panel: Panel, styles: Styles) -> dict[str, Any]:
        handles = {}
        for label, drawn in panel.series.items():
            style = styles.line(label)
            thin = {"color": style["color"], "linewidth": 0.5, "rasterized": pixels}
            for each in drawn.seeds:
                axes.plot(*each, alpha=0.35, **thin)
            for each in drawn.others:
                axes.plot(*each, alpha=0.7, linestyle=(0, (1, 2)), **thin)
            (handles[label],) = axes.plot([], [], **style)  # where there is no band
            if drawn.band:
                steps, estimate = drawn.band
                handles[label] = _band(axes, steps, estimate, style)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("environment steps")
        return handles

    return _draw(panels, draw_panel, (2.1, 3), caption, look, form)


def _band(
    axes: Any, x: Column, estimate: Estimate, style: Mapping[str, Any], step: str | None = None
) -> Any:
    shade = {"color": style["color"], "alpha": 0.2, "lw": 0}
    axes.fill_between(x, estimate.low, estimate.high, step=step, **shade)
    drawn = f"steps-{step}" if step else "default"
    (line,) = axes.plot(x, estimate.value, linewidth=1.5, drawstyle=drawn, **style)
    return line


def profiles(panels: Sequence[Panel], caption: str, look: Look, form: str) -> bytes:
    """Draw performance profiles, a panel for each task: the share of runs above each score.

    Args:
        panels: ``series`` are pairs of scores, (L,), and their Estimate.
        caption, look, form: as in ``lengths``.
    """

    def draw_panel(axes: Any, panel: Panel, styles: Styles) -> dict[str, Any]:
        axes.set(xlabel=panel.y, ylabel="share of runs above", ylim=(-0.02, 1.02))
        handles = {}
        for label, (levels, estimate) in panel.series.items():
            handles[label] = _band(axes, levels, estimate, styles.line(label), "post")
        return handles

    return _draw(panels, draw_panel, (2.6, 2), caption, look, form)
