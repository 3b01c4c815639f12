"""The common parts of figures: colour-blind safe, legible in print, the same bytes each time.

Uses matplotlib without a display, and the colours of Okabe and Ito (2008).
"""

from __future__ import annotations

import contextlib
import io
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from memrl.results.scores import Cell
from memrl.run.outcome import ConfigError

# Of series in alphabetical order: 28 are distinct.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
FORMATS = ("png", "pdf", "svg")
SCALES = ("even", "linear", "log")

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


class FigureOptions(NamedTuple):
    """Size and style of figures."""

    width: float = 6.5  # inches: a page's text
    height: float | None = None  # inches; None: as the content needs
    font_size: float = 9.0  # points
    style: str = "default"  # of matplotlib, a name or a file
    dpi: int = 200  # of png
    scale: str = "even"  # of lengths: evenly spaced, linear or log


DEFAULTS = FigureOptions()


class Panel(NamedTuple):
    """One pair of axes: its title, and the cells that it shows, all of one task."""

    title: str
    cells: list[Cell]


@contextlib.contextmanager
def _style(options: FigureOptions) -> Iterator[None]:
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


def _encode(figure: Any, form: str, dpi: int) -> bytes:
    # Without the time of writing and the version of the writer.
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=dpi, metadata=metadata[form])
    return buffer.getvalue()


def draw_panels(
    panels: Sequence[Panel],
    counts: Mapping[str, Sequence[int]],
    draw_series: Callable[[Any, Panel, Mapping[str, Any]], Mapping[str, Any]],
    size: tuple[float, int],
    caption: str,
    options: FigureOptions,
    form: str,
) -> bytes:
    """Draw panels in rows, with a legend above and a caption below.

    Args:
        panels: at least one.
        counts: the numbers of runs that each series has.
        draw_series: draws a panel into axes, each series in its style; returns legend handles.
        size: the height of a row, in inches, and the number of panels in it.
        caption, options, form: the text, the style, and png, pdf or svg.
    """
    from matplotlib.figure import Figure

    row_height, columns = size[0], min(size[1], len(panels))
    rows = math.ceil(len(panels) / columns)
    styles = {
        label: {"color": color, "marker": marker, "linestyle": line}
        for label, color, marker, line in zip(
            sorted(counts), cycle(COLOURS), cycle(MARKERS), cycle(LINES), strict=False
        )
    }
    with _style(options):
        height = options.height or 0.9 + row_height * rows
        figure = Figure(figsize=(options.width, height), layout="constrained")
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
            handles |= draw_series(axes, panel, styles)
        _draw_legend(figure, counts, handles, options)
        # As wide as the figure: the constrained layout does not wrap text.
        text = textwrap.fill(caption, int(options.width * 72 / (0.5 * (options.font_size - 2))))
        small = {"fontsize": options.font_size - 2, "color": "0.3"}
        figure.supxlabel(text, x=0.01, ha="left", **small)
        return _encode(figure, form, options.dpi)


def _draw_legend(
    figure: Any,
    counts: Mapping[str, Sequence[int]],
    handles: Mapping[str, Any],
    options: FigureOptions,
) -> None:
    """Draw the legend: the series with their numbers of runs, then the reference levels."""
    names = {}
    for label in sorted(counts):
        low, high = min(counts[label]), max(counts[label])
        names[label] = f"{label} (n = {low})" if low == high else f"{label} (n = {low} to {high})"
    names |= {text: text for text in handles if text not in names}
    width = max(map(len, names.values())) * options.font_size * 0.55 / 72 + 0.6  # inches of one
    columns = max(1, min(len(names), int(options.width / width)))
    lines = [handles[label] for label in names]
    figure.legend(lines, names.values(), loc="outside upper center", ncols=columns)
