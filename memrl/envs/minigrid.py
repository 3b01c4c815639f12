"""MiniGrid's Memory: go to the object that was seen first (Chevalier-Boisvert et al. 2023)."""

from __future__ import annotations

from memrl.checks import require
from memrl.envs.gym import GymVec, require_package

IDS = {
    7: "MiniGrid-MemoryS7-v0",
    9: "MiniGrid-MemoryS9-v0",
    11: "MiniGrid-MemoryS11-v0",
    13: "MiniGrid-MemoryS13-v0",
    17: "MiniGrid-MemoryS17Random-v0",  # the hallway's length is random
}


class MinigridMemoryVec(GymVec):
    """B environments, squares of ``size`` cells.

    Observations are what the player sees, 7 x 7 cells, and its direction. The reward of success is
    1 - 0.9 t / horizon, t being its step.

    Raises:
        ValueError: the package is missing, or has no such size.
    """

    def __init__(self, *, num_envs: int = 1, size: int, render_mode: str | None = None) -> None:
        require(size in IDS, "size", f"one of {', '.join(map(str, IDS))}", size)
        require_package("minigrid")
        super().__init__(num_envs=num_envs, id=IDS[size], render_mode=render_mode)
        self.size = size
