"""All rows of all runs in one tidy table, as a pandas frame or as a file."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memrl.results.runs import MAIN_KEYS, Run, varying
from memrl.run.files import write_whole
from memrl.run.outcome import ConfigError, show
from memrl.run.tables import Table

if TYPE_CHECKING:
    import pandas

COUNTERS = ("env_steps", "episodes", "updates")  # whole numbers
EXACT = 2**53  # whole numbers up to here are exact as float64


def frame(runs: Sequence[Run], table: str = "eval") -> pandas.DataFrame:
    """Return one row for each evaluation of each run, and one for a run without any.

    The columns are a run's name, sweep, state and cause, its config (the main keys, and all keys
    that vary), and what was measured. Missing values are NA or NaN.

    Args:
        runs: as ``results.load`` returns them.
        table: ``eval`` or ``train``, the csv file that is read.

    Raises:
        ConfigError: pandas is not installed.
    """
    pd = _import("pandas")
    columns: dict[str, Sequence[Any]] = {
        "run": [run.name for run in runs],
        "sweep": [run.flat["sweep"] for run in runs],
        "state": [str(run.state) for run in runs],
        "cause": [run.cause for run in runs],
    }
    for key in dict.fromkeys([*MAIN_KEYS, *varying(runs)]):
        columns.setdefault(key, [run.flat.get(key) for run in runs])
    tables: list[Table] = [getattr(run, table) for run in runs]
    lengths = [max(map(len, rows.values()), default=0) for rows in tables]
    described = pd.DataFrame({name: _array(values) for name, values in columns.items()})
    tidy = described.loc[described.index.repeat([max(n, 1) for n in lengths])]
    tidy = tidy.reset_index(drop=True)
    for name in dict.fromkeys(name for rows in tables for name in rows):
        parts = [
            rows[name] if n and name in rows else np.full(max(n, 1), np.nan)
            for rows, n in zip(tables, lengths, strict=True)
        ]
        column = pd.Series(np.concatenate(parts))
        tidy[name] = column.astype("Int64") if name in COUNTERS and _is_whole(column) else column
    return tidy


def export(runs: Sequence[Run], path: Path, table: str = "eval") -> None:
    """Write the tidy table, as csv or parquet by the path's ending.

    Raises:
        ConfigError: another ending, or a package is not installed.
        OSError: it cannot be written.
    """
    if path.suffix == ".csv":
        write_whole(path, frame(runs, table).to_csv(index=False).encode())
    elif path.suffix == ".parquet":
        _import("pyarrow")
        write_whole(path, frame(runs, table).to_parquet(index=False))
    else:
        raise ConfigError(f"--output must end with .csv or .parquet, got {path}")


def _array(values: Sequence[Any]) -> Any:
    """Return a column of one dtype; values of several types, and lists, as text."""
    pd = _import("pandas")
    array = pd.array([show(v) if isinstance(v, list | dict) else v for v in values])
    if array.dtype != object:
        return array
    return pd.array([None if v is None else show(v) for v in values], dtype="string")


def _is_whole(column: pandas.Series) -> bool:
    known = column.dropna()
    return bool(((known % 1 == 0) & (known.abs() <= EXACT)).all())


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        install = "pip install -c constraints.txt -e '.[export]'"
        raise ConfigError(f"a table of all runs needs {name}; {install}") from None
