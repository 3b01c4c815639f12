"""Key-to-Door: taking a key is paid only much later, when it opens a door.

It tests credit assignment: the whole distractor phase lies between an action and its reward. The
task is that of Ni et al. 2023 ("When Do Transformers Shine in RL?"), played by the rules of
:mod:`memrl.envs.gridworld`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from memrl.checks import require
from memrl.envs.gridworld import (
    DOOR,
    DOOR_COLOUR,
    EMPTY,
    INDICATOR,
    KEY,
    KEY_COLOUR,
    OPEN_DOOR,
    WALL,
    GridVec,
    Room,
    cells_at,
    phase_frames,
)
from memrl.envs.lockstep import Images, Ints, Rewards

GYMNASIUM_NAMES = {"KeyToDoor": "KeyToDoorVec"}

EXPLORE = Room(
    "  #######  ",
    "  #kkkkk#  ",
    "  #kkkkk#  ",
    "  ##   ##  ",
    "  #ppppp#  ",
    "  #ppppp#  ",
    "  #######  ",
)
REWARD_ROOMS = {
    "sr": Room(
        "           ",
        "   ##d##   ",
        "   #   #   ",
        "   # p #   ",
        "   #   #   ",
        "   #####   ",
        "           ",
    ),
    "cca": Room(
        "  #######  ",
        "  #ppppp#  ",
        "  #ppppp#  ",
        "  ##   ##  ",
        "  #ddddd#  ",
        "  #ddddd#  ",
        "  #######  ",
    ),
}
INDICATOR_CELL = cells_at(np.array([0, 5]))  # always in the window of who takes the key


class KeyToDoorVec(GridVec):
    """B Key-to-Door tasks. ``choices`` and options: also ``key`` and ``door``, each a cell.

    Standing on the key takes it, without a reward; in that one frame the wall cell (0, 5) is white.
    With the key the door can be entered, and the first time pays ``final_reward``. Standing in it,
    the player is hidden by it.
    """

    legend: ClassVar = {**GridVec.legend, "key": KEY_COLOUR, "door": DOOR_COLOUR}

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
        reward_room: Literal["sr", "cca"] = "sr",
        render_mode: str | None = None,
    ) -> None:
        """Build it; see :class:`memrl.envs.gridworld.GridVec` for what is not listed.

        Args:
            length: Of the distractor phase; None for the second of ``frames``, or else 60.
            frames: None for 15, ``length`` and 10 (15 with "cca").
            reward_room: "sr": a small room whose door is at a fixed place. "cca": the explore
                room upside down, the door being anywhere in its lower half.
        """
        require(reward_room in REWARD_ROOMS, "reward_room", "'sr' or 'cca'", repr(reward_room))
        room = REWARD_ROOMS[reward_room]
        super().__init__(
            (EXPLORE, room),
            {
                "start_explore": EXPLORE.cells("p"),
                "key": EXPLORE.cells("k"),
                "start_reward": room.cells("p"),
                "door": room.cells("d"),
            },
            num_envs,
            phase_frames(length, frames, 15, 10 if reward_room == "sr" else 15),
            final_reward,
            apple_reward,
            respawn_every,
            num_apples,
            render_mode,
        )
        self.reward_room = reward_room

    def furnish(self, phase: int, rows: Ints) -> None:
        if phase == 0:
            self.codes[rows, self.choices["key"][rows]] = KEY
        else:
            door = np.where(self.has_key[rows], OPEN_DOOR, DOOR)
            self.codes[rows, self.choices["door"][rows]] = door

    def visit(self, here: Images) -> Rewards:
        shown = self.codes[:, INDICATOR_CELL]
        shown[shown == INDICATOR] = WALL
        took = here == KEY
        if took.any():
            self.has_key = self.has_key | took
            self.codes[took, self.cell[took]] = EMPTY
            shown[took] = INDICATOR
        opened = self.has_key & (here == OPEN_DOOR)
        self.has_key = self.has_key & ~opened
        return self.pay(opened)
