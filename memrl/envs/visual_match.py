"""Passive Visual Match: a colour is shown first, and has to be picked out of three at the end.

It tests memory: the whole distractor phase lies between the colour and its use. The task is that
of Ni et al. 2023 ("When Do Transformers Shine in RL?"), played by the rules of
:mod:`memrl.envs.gridworld`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memrl.checks import require
from memrl.envs.gridworld import EMPTY, SQUARE, B, C, E, GridVec, Room, phase_frames
from memrl.envs.key_to_door import EXPLORE as WALKABLE
from memrl.envs.lockstep import Images, Ints, Rewards

GYMNASIUM_NAMES = {"VisualMatch": "VisualMatchVec"}

PASSIVE = Room(
    "           ",
    "    ###    ",
    "    #p#    ",
    "    ###    ",
    "           ",
    "           ",
    "           ",
)
REWARD = Room(
    "###########",
    "# b  c  e #",
    "#         #",
    "#         #",
    "####   ####",
    "   # p #   ",
    "   #####   ",
)
MEANINGS = ("per_env", "shared", "per_episode")
LETTERS = ("b", "c", "e")
SQUARES = np.array([B, C, E])
HUES = 255 * np.eye(3, dtype=np.uint8)  # red, green, blue


class VisualMatchVec(GridVec):
    """B Visual Match tasks. ``choices`` and options: also ``square``, ``target`` and ``colours``.

    In the first phase a wall cell, ``square``, has the target's colour. In the third, three squares
    "b", "c", "e" (west to east) have the three ``colours`` (3, 3): red, green, blue of each, 0 to
    255. Standing on the ``target`` (a letter; in ``choices`` its index) pays ``final_reward``; the
    first one visited, right or wrong, makes all three vanish.
    """

    def __init__(
        self,
        *,
        num_envs: int = 1,
        length: int | None = None,
        frames: Sequence[int] | None = None,
        final_reward: float = 5.0,
        apple_reward: float = 1.0,
        respawn_every: int = 20,
        num_apples: int = 10,
        passive: bool = True,
        colours: Literal["per_env", "shared", "per_episode"] = "per_env",
        render_mode: str | None = None,
    ) -> None:
        """Build it; see :class:`memrl.envs.gridworld.GridVec` for what is not listed.

        Args:
            length: Of the distractor phase; None for the second of ``frames``, or else 60.
            frames: None for 15, ``length`` and 15.
            passive: Wall the player in during the first phase; else it can walk about in
                Key-to-Door's first room, where any wall cell may be the coloured one.
            colours: Which of red, green, blue are at b, c, e. "per_env": a permutation drawn when
                this object is seeded, for all its environments and episodes; so training and
                evaluation have different ones five times out of six (the published program).
                "shared": red, green, blue, always. "per_episode": a new permutation every time.
        """
        require(colours in MEANINGS, "colours", f"one of {', '.join(MEANINGS)}", repr(colours))
        room = PASSIVE if passive else WALKABLE
        super().__init__(
            (room, REWARD),
            {
                "start_explore": room.cells("p"),
                "square": room.cells("#"),
                "start_reward": REWARD.cells("p"),
            },
            num_envs,
            phase_frames(length, frames, 15, 15),
            final_reward,
            apple_reward,
            respawn_every,
            num_apples,
            render_mode,
        )
        self.passive = passive
        self.colours = colours
        self.option_names += ["target", "colours"]
        self._squares = np.array([REWARD.cells(letter)[0] for letter in LETTERS])
        self._arrangement: Ints = np.arange(3)  # of "per_env",
        self._arranged_by: np.random.Generator | None = None  # drawn once from each generator

    def draw_choices(self) -> dict[str, NDArray[Any]]:
        if self._arranged_by is not self.np_random:
            self._arranged_by = self.np_random
            self._arrangement = self.np_random.permutation(3)
        order = np.tile(np.arange(3), (self.num_envs, 1))
        if self.colours == "per_env":
            order[:] = self._arrangement
        elif self.colours == "per_episode":
            order = self.np_random.permuted(order, axis=1)
        target = self.np_random.integers(3, size=self.num_envs)
        return super().draw_choices() | {"target": target, "colours": HUES[order]}

    def possible_choices(self) -> Mapping[str, Sequence[Any]]:
        orders = [*permutations(range(3))] if self.colours == "per_episode" else [(0, 1, 2)]
        colours = [HUES[list(order)] for order in orders]
        return {**super().possible_choices(), "target": LETTERS, "colours": colours}

    def read_option(self, name: str, value: Any) -> NDArray[Any]:
        if name == "target":
            letters = self.batched(name, value, (), "U")
            ok = bool(np.isin(letters, LETTERS).all())
            require(ok, "target", "'b', 'c' or 'e'", np.asarray(value))
            return np.searchsorted(LETTERS, letters)
        if name == "colours":
            colours = self.batched(name, value, (3, 3), "iu")
            ok = bool(colours.min() >= 0 and colours.max() <= 255)
            require(ok, "colours", "from 0 to 255", np.asarray(value).tolist())
            return colours.astype(np.uint8)
        return super().read_option(name, value)

    def furnish(self, phase: int, rows: Ints) -> None:
        if phase == 0:
            self.codes[rows, self.choices["square"][rows]] = SQUARE
            colours = self.choices["colours"][rows]  # (n, 3, 3)
            self.palette[rows[:, None], SQUARES] = colours
            self.palette[rows, SQUARE] = colours[np.arange(len(rows)), self.choices["target"][rows]]
        else:
            self.codes[rows[:, None], self._squares] = SQUARES

    def visit(self, here: Images) -> Rewards:
        visited = np.isin(here, SQUARES)
        if not visited.any():
            return np.zeros(self.num_envs)
        self.codes[np.flatnonzero(visited)[:, None], self._squares] = EMPTY
        return self.pay(here == SQUARES[self.choices["target"]])
