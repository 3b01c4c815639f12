"""The figures of a sweep, made from scores, and their captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memrl.results import drawing
from memrl.results.comparison import aggregates
from memrl.results.drawing import Curves, Look, Panel, Point
from memrl.results.paper import REFERENCES
from memrl.results.scores import Cell
from memrl.results.text import how_many, lengths_of
from memrl.run.files import write_whole

FIGURES = {
    "lengths": "Score against length",
    "curves": "Learning curves",
    "profiles": "Performance profiles",
}


# --- from cells to figures -----------------------------------------------------------------------


def draw(name: str, found: Sequence[Cell], look: Look, form: str) -> bytes | None:
    """Return a figure of these cells, or None if it would be empty.

    Args:
        name: lengths, curves or profiles.
        found: as ``scores.cells`` gives.
        look: size and style.
        form: png, pdf or svg.
    """
    seen = [cell for cell in found if cell.scored]
    if not seen:
        return None
    center = f"{seen[0].protocol.name} with 95 % bootstrap intervals over runs"
    score = f"Score: {seen[0].protocol.text}."
    missing = how_many(found)
    if name == "lengths":
        caption = f"{score} Large marks: {center}. Small marks: single runs, hollow if not counted."
        points = _length_panels([cell for cell in seen if cell.length is not None])
        return drawing.lengths(points, f"{caption} {missing}", look, form) if points else None
    if name == "curves":
        caption = (
            f"{seen[0].protocol.curve_text} Thick lines: {center}, as far as all runs go. "
            f"Thin lines: single runs, dotted if not counted. {missing}"
        )
        return drawing.curves(_curve_panels(seen), caption, look, form)
    together = [one for one in aggregates(found) if one.profile]
    if not together:
        return None
    used = [
        cell
        for one in together
        for cell in found
        if cell.task == one.task and cell.length in one.lengths and cell.label in one.profile
    ]
    places = "; ".join(f"{_name(one.task)}: {lengths_of(one)}" for one in together)
    caption = (
        f"{score} Share of runs above each score, at the lengths that all series have in common "
        f"({places}), with 95 % bootstrap intervals. {how_many(used)}"
    )
    panels = []
    for one in together:
        series = {label: (one.levels, estimate) for label, estimate in one.profile.items()}
        metric = _metric(one.task, found).removeprefix("eval/")
        panels.append(Panel(_name(one.task), metric, series))
    return drawing.profiles(panels, caption, look, form)


def _length_panels(seen: Sequence[Cell]) -> list[Panel]:
    panels = []
    for task in dict.fromkeys(cell.task for cell in seen):
        series: dict[str, list[Point]] = {}
        for cell in sorted((c for c in seen if c.task == task), key=lambda cell: cell.label):
            scores = [member.score for member in cell.counted]
            others = [member.score for member in cell.scored if member.excluded]
            point = Point(float(cell.length or 0), cell.estimate, scores, others)
            series.setdefault(cell.label, []).append(point)
        panels.append(_panel(_name(task), task, series, seen))
    return panels


def _curve_panels(seen: Sequence[Cell]) -> list[Panel]:
    alike = len({len(cell.counted) for cell in seen}) == 1
    panels = []
    for task, length in dict.fromkeys((cell.task, cell.length) for cell in seen):
        mine = [cell for cell in seen if (cell.task, cell.length) == (task, length)]
        series = {}
        for cell in mine:
            line = cell.protocol.curve
            single = [
                [line(m.run, cell.metric) for m in cell.scored if bool(m.excluded) == x]
                for x in (False, True)
            ]
            series[cell.label] = Curves(cell.band, *single)
        title = _name(task) + ("" if length is None else f", length {length}")
        if not alike:
            title += f"\nn = {', '.join(str(len(cell.counted)) for cell in mine)}"
        panels.append(_panel(title, task, series, seen))
    return panels


def _name(task: str) -> str:
    return task.replace("_", " ")


def _panel(title: str, task: str, series: Mapping[str, Any], seen: Sequence[Cell]) -> Panel:
    metric = _metric(task, seen)
    reference = REFERENCES.get((task, metric))
    span = (0.0, 1.0) if reference or metric == "eval/success" else None
    return Panel(title, metric.removeprefix("eval/"), series, reference, span)


def _metric(task: str, found: Sequence[Cell]) -> str:
    return next(cell.metric for cell in found if cell.task == task)


def write(
    found: Sequence[Cell], folder: Path, names: Sequence[str], forms: Sequence[str], look: Look
) -> list[Path]:
    """Write figures into a folder, except empty ones; return their paths."""
    written = []
    for name in names:
        for form in forms:
            if content := draw(name, found, look, form):
                path = folder / f"{name}.{form}"
                write_whole(path, content)
                written.append(path)
    return written
