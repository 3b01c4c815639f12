"""Draw the figures of a sweep, finished or not: score against length (lengths), learning curves
(curves) and performance profiles (profiles). Print the table of scores and what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from memrl.commands.arguments import add_runs, number_between, output_folder, read_runs, some_of
from memrl.results.drawing import DEFAULTS, FORMATS, SCALES, FigureOptions
from memrl.results.figures import FIGURES, write
from memrl.results.runs import Run
from memrl.results.scores import Cell
from memrl.results.text import as_text, how_many, left_out
from memrl.run.outcome import below_cwd
from memrl.sweep.progress import SHOWN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_runs(parser)
    output = "default: the sweep's folder; with several, the current folder"
    parser.add_argument("--output", type=Path, metavar="DIR", help=output)
    figures, every = some_of(FIGURES), ",".join(FIGURES)
    text = "which figures, separated by commas (default: %(default)s)"
    parser.add_argument("--figures", type=figures, default=every, metavar="A,B", help=text)
    formats, text = some_of(FORMATS), f"some of {','.join(FORMATS)} (default: %(default)s)"
    parser.add_argument("--format", type=formats, default="png,pdf", metavar="A,B", help=text)
    parser.set_defaults(**DEFAULTS._asdict())
    inches, points = number_between(float, 1, 50), number_between(float, 2, 50)
    parser.add_argument("--width", type=inches, help="inches (default: %(default)s)")
    parser.add_argument("--height", type=inches, help="inches (default: as the content needs)")
    parser.add_argument("--font-size", type=points, help="points (default: %(default)s)")
    dpi = number_between(int, 20, 2000)
    parser.add_argument("--dpi", type=dpi, help="resolution of png (default: %(default)s)")
    parser.add_argument("--style", help="a matplotlib style: a name or a file")
    scale = "scale of the length axis (default: %(default)s)"
    parser.add_argument("--scale", choices=SCALES, help=scale)


def run(args: argparse.Namespace) -> None:
    """Write the figures, and print the scores."""
    runs, cells = read_runs(args)
    folder = args.output or output_folder(args.folder)
    options = FigureOptions(**{name: getattr(args, name) for name in FigureOptions._fields})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = write(cells, folder, args.figures, args.format, options)
    except OSError:
        _print_scores(runs, cells)  # they need no disk
        raise
    # Only after the files are written: the reader of a pipe may leave, as `head` does.
    _print_scores(runs, cells)
    if written:
        print(*map(below_cwd, written), sep="\n")
    elif any(cell.has_score for cell in cells):
        contents = {
            "lengths": "lengths shows tasks that have one",
            "profiles": "profiles shows runs that count, at lengths that all series have",
        }
        print("no figure:", "; ".join(contents[name] for name in contents if name in args.figures))
    else:
        print("no figure: no run has been evaluated yet")


def _print_scores(runs: Sequence[Run], cells: Sequence[Cell]) -> None:
    print(as_text(cells))
    print(how_many(cells))
    if lines := left_out(cells, runs):
        print("not counted:")
        print(*(f"  {line}" for line in lines[:SHOWN]), sep="\n")
        if len(lines) > SHOWN:
            print(f"  and {len(lines) - SHOWN} more")
