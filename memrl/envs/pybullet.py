"""PyBullet's robots, of which only positions or only velocities are seen (Ni et al. 2023)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from memrl.checks import require
from memrl.envs.gym import GymVec, require_package
from memrl.envs.lockstep import Bools, Rewards

ROBOTS = {  # their names in Gymnasium, and how many joints and feet they have
    "ant": ("AntBulletEnv-v0", 8, 4),
    "halfcheetah": ("HalfCheetahBulletEnv-v0", 6, 6),
    "hopper": ("HopperBulletEnv-v0", 3, 1),
    "walker": ("Walker2DBulletEnv-v0", 6, 2),
}


def entries(robot: str, observed: str) -> list[int]:
    """Return the indices of a full observation that are seen.

    It has eight numbers of the body: height, sine and cosine of the angle to the target, velocity
    x, y, z, roll and pitch; then position and velocity of each joint; then the contacts of feet,
    which count as positions.

    Args:
        observed: "all", "positions" or "velocities".

    Raises:
        ValueError: there is no such robot.
    """
    require(robot in ROBOTS, "robot", f"one of {', '.join(ROBOTS)}", robot)
    _, joints, feet = ROBOTS[robot]
    everything = range(8 + 2 * joints + feet)
    velocities = [3, 4, 5, *range(9, 8 + 2 * joints, 2)]
    return {
        "all": [*everything],
        "positions": [i for i in everything if i not in velocities],
        "velocities": velocities,
    }[observed]


class PybulletVec(GymVec):
    """B robots that are to run forward, for 1,000 steps unless they fall.

    Each robot has a simulation of its own. A fall terminates the episode, except at step 1,000,
    where it counts as time-out (Ni et al. 2023).

    A simulation's first reset differs from all later ones: only from then on is the floor a part
    of the robot, whose mean position the target's angle and the reward come from. So every
    simulation is reset once here.

    Raises:
        ValueError: the package is missing, or there is no such robot.
    """

    observed: ClassVar[str] = "all"

    def __init__(
        self,
        *,
        num_envs: int = 1,
        robot: Literal["ant", "halfcheetah", "hopper", "walker"],
        render_mode: str | None = None,
    ) -> None:
        wrapper = {"_target_": "memrl.envs.gym.Entries", "entries": entries(robot, self.observed)}
        with _silent(1), _silent(2):
            require_package(
                "pybullet_envs_gymnasium.gym_locomotion_envs", "pybullet-envs-gymnasium"
            )
        id, *_ = ROBOTS[robot]
        super().__init__(num_envs=num_envs, id=id, wrappers=[wrapper], render_mode=render_mode)
        self.robot = robot
        with _silent(1):
            for env in self.envs:
                env.reset(seed=0)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], Rewards, Bools, Bools, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(actions)
        if self._t == self.horizon:
            terminated, truncated = np.zeros_like(terminated), terminated | truncated
        return obs, reward, terminated, truncated, info


class PybulletPositions(PybulletVec):
    """Robots of which all but the velocities is seen: height, angles, joints and contacts."""

    observed = "positions"


class PybulletVelocities(PybulletVec):
    """Robots of which only the velocities of body and joints are seen."""

    observed = "velocities"


@contextlib.contextmanager
def _silent(fd: int) -> Iterator[None]:
    """Discard what C code writes to a file descriptor, such as PyBullet's banners."""
    try:
        kept = os.dup(fd)
    except OSError:  # it is closed
        yield
        return
    flush = ctypes.CDLL(None).fflush  # C has a buffer of its own
    flush(None)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), fd)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, fd)
        os.close(kept)
