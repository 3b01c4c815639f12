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
from memrl.run.tables import spreadsheet_cell

if TYPE_CHECKING:
    import pandas

COUNTERS = ["env_steps", "episodes", "updates"]  # whole numbers


def frame(runs: Sequence[Run], table: str = "eval", only_last: bool = False) -> pandas.DataFrame:
    """Return one row for each evaluation of each run, and one for a run without any.

    The columns are a run's name, sweep, state and cause, its config (the main keys, and all keys
    that vary), and what was measured, in ``eval.csv`` or ``train.csv``. Missing values are NA or
    NaN.

    Args:
        runs: what to return.
        table: ``eval`` or ``train``.
        only_last: one row for each run, its last.

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
    described = pd.DataFrame({name: _array(values) for name, values in columns.items()})
    tables = [pd.DataFrame(getattr(run, table)) for run in runs] or [pd.DataFrame()]
    tables = [rows.tail(1) for rows in tables] if only_last else tables
    measured = pd.concat(dict(enumerate(tables))).droplevel(1)
    tidy = described.join(measured).reset_index(drop=True)
    counters = tidy.columns.intersection(COUNTERS)
    with np.errstate(invalid="ignore"):  # an infinite one is no integer
        tidy[counters] = tidy[counters].convert_dtypes()
    return tidy


def export(runs: Sequence[Run], path: Path, table: str = "eval", only_last: bool = False) -> None:
    """Write the tidy table as csv, or as parquet if the path ends with ``.parquet``.

    Raises:
        ConfigError: a package is not installed.
        OSError: it cannot be written.
    """
    rows = frame(runs, table, only_last)
    if path.suffix == ".parquet":
        _import("pyarrow")
        write_whole(path, rows.to_parquet(index=False))
    else:
        csv = rows.rename(columns=spreadsheet_cell)
        for name in csv.select_dtypes(["object", "string"]):
            csv[name] = csv[name].map(spreadsheet_cell, na_action="ignore")
        write_whole(path, csv.to_csv(index=False).encode(errors="backslashreplace"))


def _array(values: Sequence[Any]) -> Any:
    """Return a column of one dtype; values of several types, and lists, as text."""
    pd = _import("pandas")
    array = pd.array([show(v) if isinstance(v, list) else v for v in values])
    if array.dtype != object:
        return array
    return pd.array([None if v is None else show(v) for v in values], dtype="string")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"{name} is not installed; pip install pandas pyarrow") from None
