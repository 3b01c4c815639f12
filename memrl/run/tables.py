"""Csv tables of numbers: written row by row, read whole, even while growing or after a crash."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memrl.run.files import TABLE, naming, read_bytes
from memrl.run.lock import Lock
from memrl.run.outcome import START_OVER, CannotContinue

TABLES = ("train", "eval")


class CsvTables:
    """``train.csv`` and ``eval.csv`` in a locked folder; every row is on disk once written.

    A run that continues first cuts both to the ``sizes`` that they had at its checkpoint.

    Raises:
        CannotContinue: a file is shorter than that.
    """

    def __init__(self, lock: Lock, sizes: Mapping[str, int]) -> None:
        self.lock = lock
        self.paths = {table: lock.folder / f"{table}.csv" for table in TABLES}
        self.sizes = {table: sizes.get(table, 0) for table in TABLES}
        for table, path in self.paths.items():
            size, have = self.sizes[table], path.stat().st_size if path.exists() else 0
            if have < size:
                raise CannotContinue(
                    f"{path} has {have} bytes, the checkpoint counts {size}; {START_OVER}"
                )
        for table, path in self.paths.items():
            with naming(path), open(path, "ab") as file:
                lock.require_held()  # to load a checkpoint may have taken long
                file.truncate(self.sizes[table])

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Append one row, the header first if the file is empty.

        Raises:
            Busy: the lock is lost; nothing was written.
        """
        path, header = self.paths[table], ",".join(row) + "\n"
        cells = (repr(v if isinstance(v, int) else float(v)) for v in row.values())
        with naming(path), open(path, "r+b") as file:  # not created in another's folder
            if self.sizes[table] and file.readline().decode() != header:  # of another version
                raise CannotContinue(f"{path} has other columns than {header.strip()}")
            data = f"{'' if self.sizes[table] else header}{','.join(cells)}\n".encode()
            self.lock.require_held()  # once the file is open, which may have taken long
            file.seek(0, os.SEEK_END)
            file.write(data)
        self.sizes[table] += len(data)

    def sync(self) -> None:
        """Wait until all rows are on the disk itself, so that no checkpoint is ahead of them."""
        for path in self.paths.values():
            with naming(path), open(path, "r+b") as file:
                os.fsync(file.fileno())


Column = npt.NDArray[np.float64]
Table = dict[str, Column]  # columns by name, all of one length


class TornTable(ValueError):
    """A table that cannot be read to its end.

    Attributes:
        table: the rows before.
    """

    def __init__(self, message: str, table: Table) -> None:
        super().__init__(message)
        self.table = table


def read_table(path: Path) -> Table:
    """Return the columns of a csv file: numbers, NaN where a cell is empty.

    A last line without a line end is still being written, and is left out.

    Raises:
        OSError: there is no such file.
        TornTable: the message says what is wrong where; it holds the rows before.
    """
    text = read_bytes(path, TABLE).decode(errors="replace")
    lines = [line.rstrip("\r") for line in text.split("\n")[:-1]]
    names = lines[0].split(",") if lines else []
    rows: list[list[float]] = []
    problem = None
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        cells = line.split(",")
        try:
            if len(cells) != len(names):
                raise ValueError
            rows.append([float(cell) if cell else np.nan for cell in cells])
        except ValueError:
            shown = line if len(line) <= 40 else f"{line[:40]}..."
            problem = f"{path.name}, line {number}: {len(names)} numbers expected, got {shown!r}"
            break
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
    table = dict(zip(names, values.T.copy(), strict=True))
    if problem:
        raise TornTable(problem, table)
    return table


def spreadsheet_cell(value: Any) -> Any:
    """Return a csv cell with an apostrophe before text that a spreadsheet would take for a formula.

    Numbers are left as they are. Source: OWASP, CSV Injection.
    """
    if isinstance(value, str) and value.startswith(tuple("=+-@\t\r")):
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value


def align(cells: Sequence[Sequence[str]]) -> str:
    """Return rows of text with their columns aligned, the last one ragged."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
    return "\n".join(lines)
