"""Write logs of the paper's original program (Ni et al. 2023) as runs, which plot, report and
export read like any other: each log folder becomes DIR/<name of the log folder>. Importing again
brings them up to date; a folder that holds anything else is left as it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from memrl.commands.arguments import require_folders
from memrl.results.original import find_logs, import_log
from memrl.run.identity import outputs_folder
from memrl.run.outcome import ConfigError, Failure, below_cwd, in_one_line, plural


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    logs = "a log folder, with its flags.txt and progress.csv, or a folder of log folders"
    parser.add_argument("logs", nargs="+", type=Path, help=logs)
    output = outputs_folder({}) / "original"
    text = "default: %(default)s"
    parser.add_argument("--output", type=Path, default=output, metavar="DIR", help=text)


def run(args: argparse.Namespace) -> None:
    """Import what can be, and name what cannot.

    Raises:
        ConfigError: there is no such folder, or no log in any.
        Failure: nothing could be imported.
    """
    require_folders(args.logs)
    logs = {folder: find_logs(folder) for folder in args.logs}
    if not any(logs.values()):
        raise ConfigError(f"{', '.join(map(str, args.logs))}: no log here or below")
    imported = set()
    for folder in args.logs:
        if not logs[folder]:
            print(f"{folder}: no log here or below", file=sys.stderr)
        for log in logs[folder]:
            try:
                imported.add(import_log(log, args.output))
            except (OSError, Failure) as error:
                print(in_one_line(error), file=sys.stderr)
    if not imported:
        raise Failure("no log could be imported")
    print(f"{below_cwd(args.output)}: {plural(len(imported), 'run')}")
