"""The common parts of figures: colour-blind safe, legible in print, the same bytes each time.

Uses matplotlib without a display, and the colours of Okabe and Ito (2008).
"""

from __future__ import annotations

import contextlib
import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from memrl.results.scores import Cell
from memrl.run.backend import import_matplotlib
from memrl.run.outcome import ConfigError

SERIES = 28  # as many differ in colour and line, and in colour and marker
PANELS = 24  # more take minutes and are too many to be read
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
LEVELS: tuple[Any, ...] = ((0, (2, 2)), (0, (2, 4)), (0, (6, 2)))  # of reference levels
# With metadata that leave out the time of writing and the version of the writer.
FORMATS = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
SCALES = ("even", "linear", "log")

RC: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "grid.alpha": 0.3,
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "text.hinting": "none",  # a text is as wide at any resolution, and in pdf and svg
    "text.parse_math": False,  # a $ in a name is a $
    "svg.hashsalt": "memrl",  # ids that do not change
}


class FigureOptions(NamedTuple):
    """Size and style of figures."""

    width: float = 6.5  # inches: a page's text
    height: float | None = None  # inches; None: as the content needs
    font_size: float = 9.0  # points
    style: str = "default"  # of matplotlib, a name or a file
    dpi: int = 200  # of png
    scale: str = "even"  # of lengths: evenly spaced, linear or log


DEFAULTS = FigureOptions()
PANEL_EMS = 16  # the least width of a panel, in font sizes
AXES_EMS = 3  # the least width and height of its axes


class Panel(NamedTuple):
    """One pair of axes: its title, and the cells that it shows, all of one task."""

    title: str
    cells: list[Cell]


@contextlib.contextmanager
def in_style(options: FigureOptions) -> Iterator[None]:
    """Draw and encode in this style and with this font size.

    Raises:
        ConfigError: there is no such style.
    """
    import_matplotlib()
    import matplotlib
    import matplotlib.style

    with matplotlib.rc_context():
        try:
            matplotlib.style.use(options.style)
        except OSError:
            known = ", ".join(matplotlib.style.available)
            raise ConfigError(
                f"--style {options.style}: neither a file nor one of {known}"
            ) from None
        matplotlib.rcParams.update(RC | {"font.size": options.font_size, "legend.frameon": False})
        yield


def encode(figure: Any, form: str, options: FigureOptions) -> bytes:
    """Return a figure as png, pdf or svg, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=options.dpi, metadata=FORMATS[form])
    return buffer.getvalue()


def series_styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a colour, a marker and a line style for each of at most 28 series."""
    return {
        label: {
            "color": COLOURS[n % len(COLOURS)],
            # Shifted where the colours begin again: single runs are marks without a line.
            "marker": MARKERS[(n + n // len(COLOURS)) % len(MARKERS)],
            "linestyle": LINES[n % len(LINES)],
        }
        for n, label in enumerate(labels)
    }


def draw_panels(
    panels: Sequence[Panel],
    counts: Sequence[tuple[str, int]],
    draw_series: Callable[[Any, Panel], Mapping[str, Any]],
    size: tuple[float, int],
    caption: str,
    options: FigureOptions,
) -> Any:
    """Return a figure of panels in rows, with a legend above and a caption below.

    Args:
        panels: at least one; of more than 24 an even selection is drawn, and the caption says so.
        counts: of each series its label and how many runs it has, at each place where it is.
        draw_series: draws a panel into axes; returns legend handles.
        size: the height of a row, in inches, and the greatest number of panels in it.
        caption, options: the text below, and the size.

    Raises:
        ConfigError: the size in the options is too small for what is to be drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(panels) > PANELS:
        caption += f" {PANELS} of {len(panels):,} panels are shown."
        chosen = np.linspace(0, len(panels) - 1, PANELS).round().astype(int)
        panels = [panels[n] for n in chosen]
    narrowest = PANEL_EMS * options.font_size / 72
    columns = max(1, min(size[1], len(panels), int(options.width / narrowest)))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(options.width, size[0] * rows), layout="constrained")
    FigureCanvasAgg(figure)  # which measures text
    handles: dict[str, Any] = {}
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    metric = None
    for n, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
        axes.set_title(panel.title)
        if n % columns == 0 or panel.cells[0].metric != metric:
            metric = panel.cells[0].metric
            axes.set_ylabel(metric.removeprefix("eval/"))
        handles |= draw_series(axes, panel)
    legend = _draw_legend(figure, counts, handles, options)
    small = max(options.font_size - 2, 1)
    below = figure.supxlabel(caption, x=0.01, ha="left", fontsize=small, color="0.3")
    _wrap(below, 0.97 * figure.bbox.width)
    around = sum(artist.get_window_extent().height for artist in (legend, below)) / figure.dpi + 0.2
    figure.set_figheight(options.height or size[0] * rows + around)
    _fit_panels(figure, [*grid[: len(panels)]], rows, options)
    return figure


def draw_levels(axes: Any, references: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Draw reference levels if all series have the same; return legend handles."""
    levels = references[0] if all(each == references[0] for each in references) else {}
    return {
        text: axes.axhline(level, color="0.45", linestyle=LEVELS[n % len(LEVELS)], lw=1, zorder=1)
        for n, (text, level) in enumerate(levels.items())
    }


def _wrap(text: Any, room: float) -> None:
    """Break a text into lines of at most this length, in pixels."""
    paragraphs = text.get_text().split("\n")
    n = max(map(len, paragraphs))  # characters in a line
    while n > 1 and (length := _length(text)) > room:
        n = max(min(n - 1, int(n * room / length)), 1)
        text.set_text("\n".join(textwrap.fill(paragraph, n) for paragraph in paragraphs))


def _length(text: Any) -> float:
    box = text.get_window_extent()
    return float(box.height if text.get_rotation() else box.width)


def _draw_legend(
    figure: Any,
    counts: Sequence[tuple[str, int]],
    handles: Mapping[str, Any],
    options: FigureOptions,
) -> Any:
    """Draw the legend: the series with their numbers of runs, then the reference levels."""
    names = {}
    for label in sorted({label for label, _ in counts if label in handles}):
        numbers = [n for of_series, n in counts if of_series == label]
        low, high = min(numbers), max(numbers)
        names[label] = f"{label} (n = {low})" if low == high else f"{label} (n = {low} to {high})"
    names |= {text: text for text in handles if text not in names}
    em = options.font_size / 72 * figure.dpi
    room = options.width * figure.dpi - 2 * em
    texts = [*names.values()]
    columns = max(min(len(names), int(room / (6 * em))), 1)  # each is wider than 6 em
    while True:  # until they fit
        legend = figure.legend(
            [handles[label] for label in names],
            texts,
            loc="outside upper center",
            ncols=columns,
            fontsize=options.font_size,
            handlelength=2.2,
        )
        for text in legend.get_texts():
            _wrap(text, room - 4 * em)  # beside a line
        if columns == 1 or legend.get_window_extent().width <= room:
            return legend
        texts = [text.get_text() for text in legend.get_texts()]
        legend.remove()
        columns -= 1


def _fit_panels(figure: Any, grid: Sequence[Any], rows: int, options: FigureOptions) -> None:
    """Wrap the texts of axes to their size, leave out tick labels that overlap, add the height.

    Raises:
        ConfigError: the axes are too small.
    """
    _lay_out(figure, options)
    em = options.font_size / 72
    for axes in grid:
        _wrap(axes.title, axes.bbox.width)
        _wrap(axes.xaxis.label, axes.bbox.width)
        _wrap(axes.yaxis.label, axes.bbox.height)
    if not options.height:
        more = max(axes.get_title().count("\n") for axes in grid)
        figure.set_figheight(figure.get_figheight() + rows * more * 1.2 * em)
    _lay_out(figure, options)
    if np.min([axes.bbox.size for axes in grid]) < AXES_EMS * em * figure.dpi:
        raise ConfigError(_no_room(options))
    for axes in grid:
        _thin_labels(axes.xaxis, 0)
        _thin_labels(axes.yaxis, 1)


def _lay_out(figure: Any, options: FigureOptions) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            figure.draw_without_rendering()
        except UserWarning:
            raise ConfigError(_no_room(options)) from None


def _no_room(options: FigureOptions) -> str:
    height = f" --height {options.height:g}" if options.height else ""
    return f"--width {options.width:g}{height} --font-size {options.font_size:g}: no room for axes"


def _thin_labels(axis: Any, dimension: int) -> None:
    """Hide the tick labels that would overlap an earlier one on the x-axis, 0, or y-axis, 1."""
    end = -math.inf
    first, last = sorted(axis.get_view_interval())
    for tick in axis.get_major_ticks():
        label = tick.label1
        if first <= tick.get_loc() <= last and label.get_text():
            box = label.get_window_extent()
            if box.min[dimension] < end + (0 if dimension else 0.3 * box.height):
                label.set_visible(False)
            else:
                end = box.max[dimension]
