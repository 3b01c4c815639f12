"""Write a report on a sweep, finished or not, as one self-contained HTML file: scores, figures,
settings, hardware, cost, failures, and the commands to run it again."""

from __future__ import annotations

import argparse

from memrl.commands.arguments import add_runs, file_ending, output_folder, read_runs
from memrl.results.report import page
from memrl.results.text import how_many
from memrl.run.files import write_whole
from memrl.run.outcome import below_cwd


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_runs(parser)
    output = "default: report.html in the sweep's folder"
    parser.add_argument("--output", type=file_ending(".html"), metavar="FILE", help=output)


def run(args: argparse.Namespace) -> None:
    """Write the report, and print where it is."""
    runs, cells = read_runs(args)
    title = ", ".join(folder.absolute().name for folder in args.folder)
    path = args.output or output_folder(args.folder) / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page(runs, cells, title).encode(errors="backslashreplace"))
    print(how_many(cells))
    print(below_cwd(path))
