"""Draw the figures of a sweep, finished or not: score against length (lengths), learning curves
(curves) and performance profiles (profiles). Print the table of scores and what is missing."""

from __future__ import annotations

import argparse
from pathlib import Path

from memrl.commands.arguments import add_runs, number, output_folder, read_runs, some_of
from memrl.results.drawing import DEFAULTS, FORMATS, SCALES, FigureOptions
from memrl.results.figures import FIGURES, write
from memrl.results.text import as_text, how_many, left_out
from memrl.run.outcome import below_cwd
from memrl.sweep.progress import SHOWN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_runs(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="default: the sweep's folder; with several, the current folder",
    )
    parser.add_argument(
        "--figures",
        type=some_of(FIGURES),
        default=FIGURES,
        metavar="A,B",
        help="some of " + ", ".join(FIGURES),
    )
    parser.add_argument(
        "--format",
        type=some_of(FORMATS),
        default=("png", "pdf"),
        metavar="A,B",
        help=f"some of {', '.join(FORMATS)} (default: png,pdf)",
    )
    inches = number(float, 1, 50)
    parser.add_argument("--width", type=inches, help="inches (default: 6.5)")
    parser.add_argument("--height", type=inches, help="inches (default: as the content needs)")
    parser.add_argument("--font-size", type=number(float, 2, 50), help="points (default: 9)")
    parser.add_argument(
        "--dpi", type=number(int, 20, 2000), help="resolution of png (default: 200)"
    )
    parser.add_argument("--style", help="a matplotlib style: a name or a file")
    parser.add_argument("--scale", choices=SCALES, help="scale of the length axis (default: even)")
    parser.set_defaults(**DEFAULTS._asdict())


def run(given: argparse.Namespace) -> None:
    """Write the figures, and print the scores."""
    runs, cells = read_runs(given)
    folder = given.output or output_folder(given.folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = FigureOptions(**{name: getattr(given, name) for name in FigureOptions._fields})
    written = write(cells, folder, given.figures, given.format, options)
    # Only after the files are written: the reader of a pipe may leave, as `head` does.
    print(as_text(cells))
    print(how_many(cells))
    if lines := left_out(cells, runs):
        print("not counted:")
        print(*(f"  {line}" for line in lines[:SHOWN]), sep="\n")
        if len(lines) > SHOWN:
            print(f"  and {len(lines) - SHOWN} more")
    if written:
        print(*map(below_cwd, written), sep="\n")
    else:
        print("no figure: no run has been evaluated yet")
