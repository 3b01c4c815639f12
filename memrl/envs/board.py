"""Boards of the grid worlds: what their cells hold, how it looks, and rooms drawn as text.

A board has 7 rows and 11 columns. A cell is its index in the board with a margin of two cells, so
that the 5 x 5 window around the player never leaves the array.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memrl.envs.lockstep import Ints

ROWS, COLS, SIGHT = 7, 11, 2  # the window reaches SIGHT cells to each side
WIDTH = COLS + 2 * SIGHT

# What a cell holds.
OUTSIDE, EMPTY, WALL, INDICATOR, SQUARE, DOOR, PLAYER = range(7)
KEY, APPLE, OPEN_DOOR, B, C, E = range(7, 13)  # these can be stood on
COLOURS = np.zeros((13, 3), np.uint8)
COLOURS[[OUTSIDE, EMPTY]] = 204
COLOURS[WALL] = 25
COLOURS[INDICATOR] = 255
COLOURS[PLAYER] = (228, 148, 109)
COLOURS[KEY] = (159, 81, 44)
COLOURS[[DOOR, OPEN_DOOR]] = (134, 206, 235)
COLOURS[APPLE] = (140, 178, 0)
PASSABLE = np.zeros(13, np.bool_)
PASSABLE[[EMPTY, KEY, APPLE, OPEN_DOOR, B, C, E]] = True

MOVES = np.array([-WIDTH, WIDTH, -1, 1])  # north, south, west, east
_sight = np.arange(-SIGHT, SIGHT + 1)
WINDOW = (_sight[:, None] * WIDTH + _sight).ravel()  # of a cell: row by row
CENTRE = len(WINDOW) // 2
IMAGE = (3, 2 * SIGHT + 1, 2 * SIGHT + 1)  # the window's shape: channels, rows, columns


class Room:
    """A board drawn as text: ``#`` is wall, letters mark the cells that a task uses."""

    def __init__(self, *rows: str) -> None:
        """Read ``ROWS`` lines of ``COLS`` characters."""
        self.letters = np.pad(np.array([list(row) for row in rows]), SIGHT, constant_values=".")
        codes = np.where(self.letters == "#", WALL, EMPTY)
        self.codes = np.where(self.letters == ".", OUTSIDE, codes).astype(np.uint8).ravel()

    def cells(self, letter: str) -> Ints:
        """Return the cells of a letter, row by row."""
        return np.flatnonzero(self.letters == letter)


DISTRACTOR = Room(
    "###########",
    "#a a a a a#",
    "# a a a a #",
    "#a a a a a#",
    "# a a a a #",
    "#a a p a a#",
    "###########",
)
APPLE_CELLS = DISTRACTOR.cells("a")


def cells_at(places: NDArray[np.int64]) -> Ints:
    """Return the cells of (row, column) pairs (..., 2)."""
    cells: Ints = (places[..., 0] + SIGHT) * WIDTH + places[..., 1] + SIGHT
    return cells


def places_of(cells: Ints) -> Ints:
    """Return (row, column), (..., 2), of cells (...)."""
    return np.stack(np.divmod(cells, WIDTH), axis=-1) - SIGHT
