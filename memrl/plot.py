"""Figures of sweeps: ``python -m memrl.plot outputs/<sweep>``."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from memrl import figures
from memrl.checkpoint import write_whole
from memrl.cli import tool
from memrl.comparison import aggregates
from memrl.figures import FORMATS, SCALES, Curves, Look, Panel, Point
from memrl.results import Run, load
from memrl.run_folder import below_cwd
from memrl.schema import ConfigError
from memrl.scores import PROTOCOLS, REFERENCES, Cell, cells
from memrl.wording import as_text, how_many, left_out, lengths_of

SHOWN = 10  # runs that are named where there may be hundreds
LIMITS = (("width", 1, 50), ("height", 1, 50), ("font_size", 2, 50), ("dpi", 20, 2000))
TABLE_LINES = 40  # of a table that is printed without being asked for
FIGURES = {
    "lengths": "Score against length",
    "curves": "Learning curves",
    "profiles": "Performance profiles",
}


# --- from cells to figures -----------------------------------------------------------------------


def draw(name: str, found: Sequence[Cell], look: Look, form: str) -> bytes | None:
    """Return a figure of these cells, or None if there is nothing that it could show.

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
        caption = f"{score} Large marks: {center}; small ones: single runs, hollow: not counted."
        points = _length_panels([cell for cell in seen if cell.length is not None])
        return figures.lengths(points, f"{caption} {missing}", look, form) if points else None
    if name == "curves":
        caption = (
            f"{seen[0].protocol.curve_text} Lines: {center}, as far as all of them go; "
            f"thin ones: single runs, dotted: not counted. {missing}"
        )
        return figures.curves(_curve_panels(seen), caption, look, form)
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
    caption = f"{score} Share of the runs at all lengths that the series have in common ({places})"
    caption = f"{caption}, with 95 % bootstrap intervals. {how_many(used)}"
    panels = []
    for one in together:
        series = {label: (one.levels, estimate) for label, estimate in one.profile.items()}
        metric = _metric(one.task, found).removeprefix("eval/")
        panels.append(Panel(_name(one.task), metric, series))
    return figures.profiles(panels, caption, look, form)


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


# --- the command line ----------------------------------------------------------------------------


def choose(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which runs, and how they become numbers."""
    parser.add_argument(
        "folder",
        nargs="+",
        type=Path,
        help="outputs/<sweep>; several are put into one figure. Log folders of the paper's "
        "original program can be among them",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="last",
        help="last: IQM of the runs that are done, each the mean of its last 10 evaluations "
        "(default); paper: as Ni et al. 2023, the mean of the last 5 %% of smoothed runs that have "
        "90 %% of their steps",
    )
    parser.add_argument(
        "--metric",
        metavar="COLUMN",
        help="of eval.csv, such as eval/return (default: eval/success if the task reports it)",
    )


def read(given: argparse.Namespace) -> tuple[list[Run], list[Cell]]:
    """Read the runs that were asked for, and score them.

    Raises:
        ConfigError: there are none, or an argument does not fit.
        OSError: there is no such folder.
    """
    runs = load(*given.folder)
    if not any(run.config for run in runs):
        places = ", ".join(map(str, given.folder))
        found = "; ".join(f"{run.name}: {run.cause}" for run in runs[:SHOWN])
        raise ConfigError(f"{places}: no run{f' ({found})' if found else ''}")
    try:
        return runs, cells(runs, PROTOCOLS[given.protocol], given.metric)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None


def place(folders: Sequence[Path]) -> Path:
    """Return the folder that what is made of these goes to."""
    return folders[0] if len(folders) == 1 else Path()


def write(
    found: Sequence[Cell], folder: Path, names: Sequence[str], forms: Sequence[str], look: Look
) -> list[Path]:
    """Write figures into a folder; return their paths, without those that have nothing to show."""
    written = []
    for name in names:
        for form in forms:
            if content := draw(name, found, look, form):
                path = folder / f"{name}.{form}"
                write_whole(path, content)
                written.append(path)
    return written


def conclude(folder: Path) -> list[Path]:
    """Print a sweep's table, draw its scores, or curves if it has no length; return the path."""
    found = cells(load(folder), PROTOCOLS["last"])
    if len(found) <= TABLE_LINES:
        print(as_text(found))
    return write(found, folder, ["lengths"], ["png"], Look()) or write(
        found, folder, ["curves"], ["png"], Look()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m memrl.plot",
        description="Draw a sweep, finished or not: score against length (lengths), learning "
        "curves, and performance profiles; print the table and what is missing.",
    )
    choose(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="default: the folder itself; of several, the current one",
    )
    parser.add_argument(
        "--figures",
        type=_some_of(FIGURES),
        default=FIGURES,
        metavar="A,B",
        help="some of " + ", ".join(FIGURES),
    )
    parser.add_argument(
        "--format",
        type=_some_of(FORMATS),
        default=("png", "pdf"),
        metavar="A,B",
        help=f"some of {', '.join(FORMATS)} (default: png,pdf)",
    )
    look = Look()
    parser.add_argument("--width", type=float, default=look.width, help="inches (default: 6.5)")
    parser.add_argument("--height", type=float, help="inches (default: what the content needs)")
    parser.add_argument(
        "--font-size", type=float, default=look.font_size, help="points (default: 9)"
    )
    parser.add_argument("--dpi", type=int, default=look.dpi, help="of png (default: 200)")
    parser.add_argument("--style", default=look.style, help="of matplotlib: a name or a file")
    parser.add_argument(
        "--scale", choices=SCALES, default=look.scale, help="of lengths (default: even)"
    )
    return parser


def _some_of(known: Collection[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(text.split(",")))
        if not set(given) <= set(known):
            raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, got {text}")
        return given

    return parse


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = _parser()
    given = parser.parse_args(arguments)
    for name, low, high in LIMITS:
        value = getattr(given, name)
        if value is not None and not low <= value <= high:
            parser.error(f"--{name.replace('_', '-')} must be {low} to {high}, got {value:g}")
    tool(lambda: _plot(given))


def _plot(given: argparse.Namespace) -> None:
    runs, found = read(given)
    folder = given.output or place(given.folder)
    folder.mkdir(parents=True, exist_ok=True)
    look = Look(**{name: getattr(given, name) for name in Look._fields})
    written = write(found, folder, given.figures, given.format, look)
    print(as_text(found))  # once all is written: its reader may leave, as `head` does
    print(how_many(found))
    if lines := left_out(found, runs):
        print("not counted:")
        print(*(f"  {line}" for line in lines[:SHOWN]), sep="\n")
        if len(lines) > SHOWN:
            print(f"  and {len(lines) - SHOWN} more")
    if written:
        print(*map(below_cwd, written), sep="\n")
    else:
        print("no figure: no run has been evaluated yet")


if __name__ == "__main__":
    main()
