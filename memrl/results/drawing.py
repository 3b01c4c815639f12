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


class Look(NamedTuple):
    """Size and style of figures."""

    width: float = 6.5  # inches: a page's text
    height: float | None = None  # inches; None: as the content needs
    font_size: float = 9.0  # points
    style: str = "default"  # of matplotlib, a name or a file
    dpi: int = 200  # of png
    scale: str = "even"  # of lengths: evenly spaced, linear or log


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    y: str
    series: Mapping[str, Any]  # what is drawn, by label
    counts: Mapping[str, Sequence[int]]  # how many runs count, for each series at each length
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


def draw_panels(
    panels: Sequence[Panel],
    draw_series: Callable[[Any, Panel, Mapping[str, Any]], Mapping[str, Any]],
    size: tuple[float, int],
    caption: str,
    look: Look,
    form: str,
) -> bytes:
    """Draw panels in rows, with a legend above and a caption below.

    Args:
        panels: at least one.
        draw_series: draws a panel's series into axes, given the style of each; returns a legend
            handle for each.
        size: the height of a row, in inches, and the number of panels in it.
        caption: what is shown, in words.
        look: size and style.
        form: png, pdf or svg.
    """
    from matplotlib.figure import Figure

    row_height, columns = size[0], min(size[1], len(panels))
    rows = math.ceil(len(panels) / columns)
    styles = {
        label: {"color": color, "marker": marker, "linestyle": line}
        for label, color, marker, line in zip(
            _labels(panels), cycle(COLOURS), cycle(MARKERS), cycle(LINES), strict=False
        )
    }
    with _style(look):
        height = look.height or 0.9 + row_height * rows
        figure = Figure(figsize=(look.width, height), layout="constrained")
        handles: dict[str, Any] = {}
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for n, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
            axes.set_title(panel.title)
            if n % columns == 0 or panel.y != panels[n - 1].y:
                axes.set_ylabel(panel.y)
            handles = {**draw_series(axes, panel, styles), **handles}
            if panel.reference:
                level, text = panel.reference
                dashed = {"color": "0.45", "linestyle": (0, (2, 2)), "linewidth": 1}
                handles.setdefault(text, axes.axhline(level, zorder=1, **dashed))
            if panel.span:
                axes.update_datalim([(axes.dataLim.x0, y) for y in panel.span])
                axes.autoscale_view()
        _legend(figure, panels, handles, look)
        # As wide as the figure: the constrained layout does not wrap text.
        text = textwrap.fill(caption, int(look.width * 72 / (0.5 * (look.font_size - 2))))
        small = {"fontsize": look.font_size - 2, "color": "0.3"}
        figure.supxlabel(text, x=0.01, ha="left", **small)
        return _encode(figure, form, look.dpi)


def _labels(panels: Sequence[Panel]) -> list[str]:
    return sorted({label for panel in panels for label in panel.series})


def _legend(figure: Any, panels: Sequence[Panel], handles: Mapping[str, Any], look: Look) -> None:
    """Draw the legend: the series with their numbers of runs, then the reference levels."""
    names = {}
    for label in _labels(panels):
        counts = [n for panel in panels for n in panel.counts.get(label, ())]
        low, high = min(counts), max(counts)
        names[label] = f"{label} (n = {low})" if low == high else f"{label} (n = {low} to {high})"
    names |= {text: text for text in handles if text not in names}
    width = max(map(len, names.values())) * look.font_size * 0.55 / 72 + 0.6  # inches of one
    columns = max(1, min(len(names), int(look.width / width)))
    lines = [handles[label] for label in names]
    figure.legend(lines, names.values(), loc="outside upper center", ncols=columns)
