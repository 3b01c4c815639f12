"""One tidy table of all runs: ``python -m memrl export outputs/<sweep> --output runs.parquet``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memrl.results.runs import MAIN_KEYS, Run, varying
from memrl.run.files import write_whole
from memrl.run.outcome import ConfigError, show
from memrl.run.tables import Table

COUNTERS = ("env_steps", "episodes", "updates")  # whole numbers


def tidy(runs: Sequence[Run], table: str = "eval") -> dict[str, list[Any]]:
    """Return all rows of all runs as columns: which run, its config, what was measured.

    A run without rows has one in which nothing was measured, so that none is lost.

    Args:
        runs: as ``results.load`` gives.
        table: eval or train.

    Returns:
        columns of one length by name; None or NaN where there is nothing.
    """
    keys = [*MAIN_KEYS, *(k for k in varying(runs) if k not in (*MAIN_KEYS, "sweep"))]
    measured = list(dict.fromkeys(name for run in runs for name in getattr(run, table)))
    who = ("run", "sweep", "state", "cause")
    columns: dict[str, list[Any]] = {name: [] for name in (*who, *keys, *measured)}
    for run in runs:
        rows: Table = getattr(run, table)
        n = max((len(column) for column in rows.values()), default=0)
        values = [run.name, run.flat["sweep"], str(run.state), run.cause]
        values += [run.flat.get(key) for key in keys]
        for name, value in zip((*who, *keys), values, strict=True):
            columns[name] += [value] * max(n, 1)
        for name in measured:
            column = rows.get(name, np.full(n, np.nan))
            whole = name in COUNTERS and np.isfinite(column).all()
            columns[name] += column.astype(int).tolist() if whole else column.tolist()
            columns[name] += [] if n else [None]
    return columns


def export(runs: Sequence[Run], path: Path, table: str = "eval") -> None:
    """Write the tidy table, as csv or parquet by the path's ending.

    Raises:
        ConfigError: another ending, or parquet without pyarrow.
        OSError: it cannot be written.
    """
    columns = tidy(runs, table)
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        plain = [_empty_where_unknown(values) for values in columns.values()]
        writer.writerows(zip(*plain, strict=True))
        write_whole(path, text.getvalue().encode())
    elif path.suffix == ".parquet":
        write_whole(path, _parquet(columns))
    else:
        raise ConfigError(f"--output must end with .csv or .parquet, got {path}")


def _empty_where_unknown(values: Sequence[Any]) -> list[Any]:
    return ["" if v is None or v != v else show(v) if isinstance(v, bool) else v for v in values]


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        install = "pip install -c constraints.txt -e '.[parquet]'"
        raise ConfigError(f"--output: parquet needs pyarrow; {install}") from None
    arrays = {}
    for name, values in columns.items():
        kinds = {type(value) for value in values} - {type(None)}
        if kinds & {list, dict} or (len(kinds) > 1 and not kinds <= {int, float}):
            values = [None if value is None else show(value) for value in values]
        arrays[name] = pyarrow.array(values)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays), buffer)
    return buffer.getvalue()
