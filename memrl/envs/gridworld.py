"""The engine of Visual Match and Key-to-Door: three rooms in turn, seen through a small window.

An episode has three phases: explore, a room full of apples that distracts, and the room that
rewards.

Rules: Ni et al. 2023 ("When Do Transformers Shine in RL?"), after Hung et al. 2019 ("Optimizing
Agent Behavior over Long Time Scales by Transporting Value"). Letters: B environments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from memrl.checks import require
from memrl.envs.lockstep import (
    Bools,
    Images,
    Ints,
    Lockstep,
    Rewards,
    check_finite,
    check_integer,
    enlarge,
)

# --- boards --------------------------------------------------------------------------------------

# A cell is its index in the board with a margin of two cells, so that the 5 x 5 window around the
# player never leaves the array.
ROWS, COLS, SIGHT = 7, 11, 2  # the window reaches SIGHT cells to each side
WIDTH = COLS + 2 * SIGHT

# What a cell holds.
OUTSIDE, EMPTY, WALL, INDICATOR, SQUARE, DOOR, PLAYER = range(7)
KEY, APPLE, OPEN_DOOR, B, C, E = range(7, 13)  # these can be stood on
AGENT_COLOUR, APPLE_COLOUR = (228, 148, 109), (140, 178, 0)
KEY_COLOUR, DOOR_COLOUR = (159, 81, 44), (134, 206, 235)
SIGHT_COLOUR = (255, 220, 0)
COLOURS = np.zeros((13, 3), np.uint8)
COLOURS[[OUTSIDE, EMPTY]] = 204
COLOURS[WALL] = 25
COLOURS[INDICATOR] = 255
COLOURS[PLAYER] = AGENT_COLOUR
COLOURS[KEY] = KEY_COLOUR
COLOURS[[DOOR, OPEN_DOOR]] = DOOR_COLOUR
COLOURS[APPLE] = APPLE_COLOUR
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


# --- the engine ----------------------------------------------------------------------------------


def phase_frames(
    length: int | None, frames: Sequence[int] | None, first: int, last: int
) -> Sequence[int]:
    """Return the steps of the three phases: ``frames``, or else as the task has them.

    Raises:
        ValueError: ``length`` is not the second of ``frames``.
    """
    if frames is None:
        length = 60 if length is None else length
        check_integer("length", length, 1)
        return first, length, last
    if length is not None and len(frames) == 3 and length != frames[1]:
        raise ValueError(f"length must be the second of frames, {frames[1]}, got {length}")
    return frames


class GridVec(Lockstep):
    """B boards in lock-step, without autoreset: every episode has ``horizon`` steps.

    Actions are integers (B,): 0 north, 1 south, 2 west, 3 east; a move into something that cannot
    be stood on does nothing. Observations are the window around the player, uint8 (B, 3, 5, 5):
    red, green, blue; rows from north to south; columns from west to east.

    ``horizon`` is the sum of ``frames``, the steps of the phases. The observation after a phase's
    last step is already the next phase's first, so what happens in a last step is rewarded but not
    seen. In the second phase an apple pays ``apple_reward`` and is back ``respawn_every`` + 1 steps
    later. After an episode's last step ``info["success"]``, bool (B,), tells whether its third
    phase was rewarded; the last step is terminated, nothing is truncated.

    The state is in the arrays ``t``, ``phase``, ``frame``, ``has_key`` (B,), ``player`` (B, 2) as
    (row, column), ``board`` (B, 7, 11) and ``choices``: to be read, not written.
    """

    legend: ClassVar = {"agent": AGENT_COLOUR, "apple": APPLE_COLOUR, "what it sees": SIGHT_COLOUR}
    action_names = ("north", "south", "west", "east")
    state_names = ("t", "cell", "codes", "has_key", "success", "_back_at", "palette", "choices")

    def __init__(
        self,
        rooms: tuple[Room, Room],
        places: dict[str, Ints],
        num_envs: int,
        frames: Sequence[int],
        final_reward: float,
        apple_reward: float,
        respawn_every: int,
        num_apples: int,
        render_mode: str | None,
    ) -> None:
        """Build B boards.

        Args:
            rooms: of the first and of the third phase.
            places: for every choice that is one cell, by name, the cells to draw it from;
                ``start_explore`` and ``start_reward``, the player's, among them.
            frames: steps of the three phases, each at least 1.
            final_reward: what the third phase pays, once; above 0.
            respawn_every: R: an apple eaten in frame f is back in frame f + R + 1; 0 for never.
            num_apples: in the second phase, at most 22.
        """
        require(len(frames) == 3, "frames", "three numbers of steps", list(frames))
        for count in frames:
            check_integer("frames", count, 1)
        check_finite(final_reward=final_reward, apple_reward=apple_reward)
        require(final_reward > 0, "final_reward", "above 0", final_reward)
        check_integer("respawn_every", respawn_every, 0)
        check_integer("num_apples", num_apples, 0)
        most = len(APPLE_CELLS)
        require(num_apples <= most, "num_apples", f"at most {most}", num_apples)
        image = gymnasium.spaces.Box(0, 255, IMAGE, np.uint8)
        super().__init__(num_envs, sum(frames), image, 4, render_mode)
        self.frames = tuple(frames)
        self.length = frames[1]
        self.final_reward = final_reward
        self.apple_reward = apple_reward
        self.respawn_every = respawn_every
        self.num_apples = num_apples
        self.rooms = rooms
        self.places = places
        self.option_names = [*places, "apples"]
        self._phase_starts = np.array([0, frames[0], frames[0] + frames[1]])
        # The choices of each episode, by name: cells, or values of a task's own.
        self.choices: dict[str, NDArray[Any]] = {}
        self.has_key: Bools = np.zeros(num_envs, np.bool_)
        self.success: Bools = np.zeros(num_envs, np.bool_)
        cells = (ROWS + 2 * SIGHT) * WIDTH
        self.codes: Images = np.full((num_envs, cells), OUTSIDE, np.uint8)
        self._origin: Ints = np.arange(num_envs) * cells  # of each board in it
        self.cell: Ints = np.full(num_envs, SIGHT * WIDTH + SIGHT)  # the player's
        self._back_at: Ints = np.full((num_envs, cells), -1)  # steps at which apples return
        self.palette: Images = np.tile(COLOURS, (num_envs, 1, 1))  # (B, 13, 3)
        self._colour_origin: Ints = np.arange(num_envs)[:, None] * len(COLOURS)

    # --- what a task adds ------------------------------------------------------------------------

    def draw_choices(self) -> dict[str, NDArray[Any]]:
        """Draw every internal choice of B episodes, whatever the options are."""
        drawn: dict[str, NDArray[Any]] = {
            name: cells[self.np_random.integers(len(cells), size=self.num_envs)]
            for name, cells in self.places.items()
        }
        order = self.np_random.permuted(np.tile(APPLE_CELLS, (self.num_envs, 1)), axis=1)
        return drawn | {"apples": order[:, : self.num_apples]}

    def read_option(self, name: str, value: Any) -> NDArray[Any]:
        """Return a choice that an option fixes as ``draw_choices`` returns it."""
        shape = (self.num_apples, 2) if name == "apples" else (2,)
        pairs = self.batched(name, value, shape, "iu").astype(np.int64)
        allowed = APPLE_CELLS if name == "apples" else self.places[name]
        on_board = ((pairs >= 0) & (pairs < (ROWS, COLS))).all()
        cells = cells_at(pairs)
        if not on_board or not np.isin(cells, allowed).all():
            known = ", ".join(map(str, map(tuple, places_of(allowed).tolist())))
            raise ValueError(f"{name} must be among {known}, got {pairs.tolist()}")
        if name == "apples" and any(len(set(row)) < len(row) for row in cells.tolist()):
            raise ValueError(f"apples must be different cells, got {pairs.tolist()}")
        return cells

    def batched(self, name: str, value: Any, shape: tuple[int, ...], kinds: str) -> NDArray[Any]:
        """Return an option, one for all or one for each environment, as an array (B, *shape)."""
        array, full = np.asarray(value), (self.num_envs, *shape)
        if array.size == 0 and 0 in shape:  # an empty list has no dtype
            return np.zeros(full, np.int64)
        if array.dtype.kind not in kinds or array.shape not in (shape, full):
            kind = "text" if kinds == "U" else "integers"
            raise ValueError(f"{name} must be {kind}, {shape} or {full}, got {array.tolist()}")
        return np.broadcast_to(array, full)

    def furnish(self, phase: int, rows: Ints) -> None:
        """Place objects in the empty room of phase 0 or 2."""
        raise NotImplementedError

    def visit(self, here: Images) -> Rewards:
        """Apply what happens in phases 0 and 2 where the players now stand; return the rewards.

        ``here`` is what their cells hold, (B,).
        """
        raise NotImplementedError

    def pay(self, rewarded: Bools) -> Rewards:
        """Return the final reward where an episode has just earned it, (B,), which is success."""
        self.success = self.success | rewarded
        return np.where(rewarded, self.final_reward, 0.0)

    # --- episodes --------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, dict[str, Any]]:
        """Start episodes.

        Options are internal choices by name, each once for all or with a leading B. Cells are
        (row, column): ``start_explore``, ``start_reward``, and the task's own. ``apples``: the
        cells with apples (num_apples, 2). One that the room fixes must agree with it.
        """
        options = options or {}
        mask = self.read_mask(options, self.option_names)
        fixed = {k: self.read_option(k, v) for k, v in options.items() if k != "reset_mask"}
        super().reset(seed=seed)
        drawn = self.draw_choices() | fixed
        rows = np.flatnonzero(mask)
        for name, value in drawn.items():
            self.choices.setdefault(name, value.copy())[rows] = value[rows]
        self.t[rows] = 0
        self.has_key[rows] = self.success[rows] = False
        self._enter(0, rows)
        return self._observe(), {}

    def starts(self) -> Iterator[tuple[float, dict[str, Any]]]:
        require(self.num_apples == 0, "num_apples", "0, to have few enough states", self.num_apples)
        choices = self.possible_choices()
        chance = 1 / prod(map(len, choices.values()))
        for values in product(*choices.values()):
            yield chance, dict(zip(choices, values, strict=True))

    def possible_choices(self) -> Mapping[str, Sequence[Any]]:
        """Return, by name, the options that are equally likely in each episode."""
        return {name: places_of(cells).tolist() for name, cells in self.places.items()}

    def step(self, actions: Ints) -> tuple[Images, Rewards, Bools, Bools, dict[str, Any]]:
        target = self.cell + MOVES[self.read_actions(actions)]
        flat = self.codes.reshape(-1)  # a view
        self.cell = np.where(PASSABLE[flat[self._origin + target]], target, self.cell)
        self.t = self.t + 1
        where = self._origin + self.cell
        here = flat[where]
        reward = self.visit(here)
        eaten = here == APPLE
        if eaten.any():
            reward = reward + self.apple_reward * eaten
            flat[where[eaten]] = EMPTY
            if self.respawn_every:
                self._back_at.reshape(-1)[where[eaten]] = self.t[eaten] + self.respawn_every + 1
        self.codes[self._back_at == self.t[:, None]] = APPLE
        for phase in (1, 2):
            over = self.t == self._phase_starts[phase]
            if over.any():
                self._enter(phase, np.flatnonzero(over))
        terminated: Bools = self.t >= self.horizon
        info: dict[str, Any] = {}
        if terminated.any():
            info = {"success": self.success & terminated, "_success": terminated}
        return self._observe(), reward, terminated, np.zeros(self.num_envs, np.bool_), info

    def _enter(self, phase: int, rows: Ints) -> None:
        room = (self.rooms[0], DISTRACTOR, self.rooms[1])[phase]
        self.codes[rows] = room.codes
        self._back_at[rows] = -1
        if phase == 1:
            self.cell[rows] = DISTRACTOR.cells("p")
            self.codes[rows[:, None], self.choices["apples"][rows]] = APPLE
        else:
            self.cell[rows] = self.choices["start_explore" if phase == 0 else "start_reward"][rows]
            self.furnish(phase, rows)

    def _observe(self) -> Images:
        where = self._origin + self.cell
        codes = self.codes.reshape(-1)[where[:, None] + WINDOW]  # (B, 25)
        here = codes[:, CENTRE]
        codes[:, CENTRE] = np.where(here == OPEN_DOOR, OPEN_DOOR, PLAYER)
        pixels = self.palette.reshape(-1, 3)[codes + self._colour_origin]  # (B, 25, 3)
        return np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(self.obs_shape)

    # --- inspection ------------------------------------------------------------------------------

    @property
    def phase(self) -> Ints:
        """0 explore, 1 distractor, 2 reward; of the frame that is observed (B,)."""
        phase: Ints = np.searchsorted(self._phase_starts, self.t, side="right") - 1
        return phase

    @property
    def frame(self) -> Ints:
        """Steps since the phase began (B,)."""
        frame: Ints = self.t - self._phase_starts[self.phase]
        return frame

    @property
    def player(self) -> Ints:
        """The players' (row, column), (B, 2)."""
        player: Ints = places_of(self.cell)
        return player

    @property
    def board(self) -> Images:
        """What each cell holds, without the player, (B, 7, 11)."""
        padded: Images = self.codes.reshape(self.num_envs, -1, WIDTH)
        return padded[:, SIGHT:-SIGHT, SIGHT:-SIGHT]

    def draw(self, b: int) -> Images:
        """Return the whole board, the margin and, brighter and framed, the agent's window."""
        size, cell = 20, int(self.cell[b])
        codes = self.codes[b].copy()
        if codes[cell] != OPEN_DOOR:
            codes[cell] = PLAYER
        image = enlarge(self.palette[b][codes].reshape(-1, WIDTH, 3), size)
        row, column = places_of(self.cell[b])
        window = np.s_[row * size : (row + 5) * size + 1, column * size : (column + 5) * size + 1]
        seen = image[window].copy()
        image = image // 2
        seen[:3] = seen[-3:] = SIGHT_COLOUR
        seen[:, :3] = seen[:, -3:] = SIGHT_COLOUR
        image[window] = seen
        return image
