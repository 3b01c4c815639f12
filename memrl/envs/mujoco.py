"""MuJoCo's robots, of which only positions or only velocities are seen."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from memrl.checks import require
from memrl.envs.gym import GymVec, require_package

ROBOTS = {  # their names in Gymnasium, and how many positions and velocities they have
    "ant": ("Ant-v5", 13, 14),
    "halfcheetah": ("HalfCheetah-v5", 8, 9),
    "hopper": ("Hopper-v5", 5, 6),
    "walker2d": ("Walker2d-v5", 8, 9),
}
KWARGS: Mapping[str, Mapping[str, Any]] = {"ant": {"include_cfrc_ext_in_observation": False}}


def entries(robot: str, observed: str) -> list[int]:
    """Return the indices of a full observation, positions before velocities, that are seen.

    Args:
        observed: "all", "positions" or "velocities".

    Raises:
        ValueError: there is no such robot.
    """
    require(robot in ROBOTS, "robot", f"one of {', '.join(ROBOTS)}", robot)
    _, n, n_velocity = ROBOTS[robot]
    seen = {
        "all": range(n + n_velocity),
        "positions": range(n),
        "velocities": range(n, n + n_velocity),
    }
    return [*seen[observed]]


class MujocoVec(GymVec):
    """B robots that are to run forward, for 1,000 steps unless they fall (Gymnasium's v5).

    Ant's contact forces are left out. Returns cannot be compared with PyBullet's.

    Raises:
        ValueError: a package is missing, or there is no such robot.
    """

    observed: ClassVar[str] = "all"

    def __init__(
        self,
        *,
        num_envs: int = 1,
        robot: Literal["ant", "halfcheetah", "hopper", "walker2d"],
        render_mode: str | None = None,
    ) -> None:
        wrapper = {"_target_": "memrl.envs.gym.Entries", "entries": entries(robot, self.observed)}
        mujoco = require_package("mujoco", "'gymnasium[mujoco]'")
        require_package("imageio", "'gymnasium[mujoco]'")
        if render_mode is not None and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
            os.environ.setdefault("MUJOCO_GL", "egl")  # draws without a screen
        id, *_ = ROBOTS[robot]
        with _without_warnings(mujoco):
            super().__init__(
                num_envs=num_envs,
                id=id,
                kwargs=KWARGS.get(robot),
                wrappers=[wrapper],
                render_mode=render_mode,
            )
        self.robot = robot


class MujocoPositions(MujocoVec):
    """Robots of which only positions and angles are seen."""

    observed = "positions"


class MujocoVelocities(MujocoVec):
    """Robots of which only velocities are seen."""

    observed = "velocities"


@contextlib.contextmanager
def _without_warnings(mujoco: Any) -> Iterator[None]:
    """Discard warnings about Gymnasium's models, which go to MUJOCO_LOG.TXT in this folder too."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
