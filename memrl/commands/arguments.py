"""Arguments that several commands share: which runs, and how they are scored."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from memrl.results.runs import Run, load
from memrl.results.scores import PROTOCOLS, Cell, score
from memrl.run.outcome import ConfigError
from memrl.sweep.progress import SHOWN


def add_config(parser: argparse.ArgumentParser, example: str, keys: Collection[str]) -> None:
    """Add the arguments that compose a config, of which only these keys have an effect."""
    overrides = f"as for memrl train, such as {example}; keys of {', '.join(keys)}"
    parser.add_argument("overrides", nargs="*", help=overrides)
    for name in ("dir", "name", "path"):
        parser.add_argument(f"-c{name[0]}", f"--config-{name}", help="as for memrl train")


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select the runs and how they are scored."""
    parser.add_argument(
        "folder", nargs="+", type=Path, help="outputs/<sweep>, or several, joined in one figure"
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="last",
        help="last (default): the IQM over done runs; a run's score is the mean of its last 10 "
        "evaluations. paper: as in Ni et al. 2023, the mean over the last 5 %% of smoothed runs "
        "that have 90 %% of their steps",
    )
    parser.add_argument(
        "--metric",
        metavar="COLUMN",
        help="a column of eval.csv, such as eval/return (default: eval/success if the task reports "
        "it, else eval/return)",
    )


def read_runs(args: argparse.Namespace) -> tuple[list[Run], list[Cell]]:
    """Read the requested runs, and score them.

    Raises:
        ConfigError: there are none, or an argument does not fit.
    """
    runs = load_folders(args.folder)
    if not any(run.config for run in runs):
        places = ", ".join(map(str, args.folder))
        causes = "; ".join(f"{run.name}: {run.cause}" for run in runs[:SHOWN])
        raise ConfigError(f"{places}: no run{f' ({causes})' if causes else ''}")
    return runs, score(runs, PROTOCOLS[args.protocol], args.metric)


def load_folders(folders: Sequence[Path]) -> list[Run]:
    """Read all runs of these folders.

    Raises:
        ConfigError: there is no such folder.
    """
    require_folders(folders)
    return load(*folders)


def require_folders(folders: Sequence[Path]) -> None:
    """Raise ConfigError unless these folders exist."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")


def output_folder(folders: Sequence[Path]) -> Path:
    """Return the default folder for what is made from these."""
    return folders[0] if len(folders) == 1 else Path()


def some_of(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Return an argument type: some of these names, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",")))
        if not set(names) <= set(known):
            raise argparse.ArgumentTypeError(
                f"must be one or more of {','.join(known)}, got {text}"
            )
        return names

    return parse


def number_between(
    kind: type[int] | type[float], low: float, high: float
) -> Callable[[str], float]:
    """Return an argument type: a number from ``low`` to ``high``."""

    def parse(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low:g} to {high:g}, got {text}")
        return value

    parse.__name__ = kind.__name__  # argparse's own message names it
    return parse


def file_ending(*endings: str) -> Callable[[str], Path]:
    """Return an argument type: a file whose name ends with one of these."""

    def parse(text: str) -> Path:
        path = Path(text)
        if path.suffix not in endings:
            raise argparse.ArgumentTypeError(f"must end with {' or '.join(endings)}, got {text}")
        return path

    return parse
