"""Write the rows of all runs to one tidy table: a line per evaluation, with the run, its state and
its config. A run without rows gets one line too."""

from __future__ import annotations

import argparse
from pathlib import Path

from memrl.commands.arguments import file_ending, load_folders
from memrl.results.export import export
from memrl.run.outcome import ConfigError, plural
from memrl.run.tables import TABLES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", nargs="+", type=Path, help="outputs/<sweep>, or several")
    output = file_ending(".csv", ".parquet")
    parser.add_argument(
        "--output", type=output, required=True, metavar="FILE", help="a .csv or .parquet file"
    )
    parser.add_argument("--table", choices=TABLES, default="eval", help="default: %(default)s")
    parser.add_argument("--last", action="store_true", help="only the last row of each run")


def run(args: argparse.Namespace) -> None:
    """Write the table, and print how many runs are in it."""
    runs = load_folders(args.folder)
    if not runs:
        raise ConfigError(f"{', '.join(map(str, args.folder))}: no run")
    export(runs, args.output, args.table, args.last)
    print(f"{args.output}: {plural(len(runs), 'run')}")
