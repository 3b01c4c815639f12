"""Tables: read from csv files of numbers, whole, growing or torn; written for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

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

    What stands behind the last end of a line is still being written, and is left out.

    Raises:
        OSError: there is no such file.
        TornTable: one line that says what is wrong where, and holds what could be read.
    """
    lines = path.read_bytes().decode(errors="replace").split("\n")[:-1]
    lines = [line.rstrip("\r") for line in lines]
    names = lines[0].split(",") if lines else []
    if not any(lines[1:]):
        return {name: np.empty(0) for name in names}
    try:
        values = np.loadtxt(lines[1:], delimiter=",", ndmin=2, comments=None)
        return dict(zip(names, values.T.copy(), strict=True))
    except ValueError:  # an empty cell is enough
        return _slowly(path, names, lines[1:])


def _slowly(path: Path, names: list[str], lines: list[str]) -> Table:
    """Do the same row by row, with empty cells."""
    rows: list[list[float]] = []
    problem = None
    for number, line in enumerate(lines, start=2):
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
    values = np.array(rows, dtype=np.float64).reshape(-1, len(names))
    table = dict(zip(names, values.T.copy(), strict=True))
    if problem:
        raise TornTable(problem, table)
    return table


def align(cells: Sequence[Sequence[str]]) -> str:
    """Return rows of text with their columns aligned, the last one ragged."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
    return "\n".join(lines)
