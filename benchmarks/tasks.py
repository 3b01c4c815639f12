"""Steps per second of every task: native batches compared with Gymnasium's loop over environments.

    python benchmarks/tasks.py

Random actions, whole episodes including resets, best of three rounds. The machine should be idle.
A second table compares environments of other packages as memrl steps them with Gymnasium's
SyncVectorEnv: steps inside episodes, as dead rows and calls that reset are none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from common import help_only, machine, table

import memrl.envs  # noqa: F401  # registers the tasks
from memrl.envs.gym import GymVec

TASKS = {"TMazePassive": 60, "TMazeActive": 60, "VisualMatch": 60, "KeyToDoor": 60}
BATCHES = (1, 64, 1024)
OTHERS = {  # environments of other packages: module, id
    "CartPole": ("gymnasium", "CartPole-v1"),
    "RepeatPrevious": ("popgym", "popgym-RepeatPreviousEasy-v0"),
    "MemoryS7": ("minigrid", "MiniGrid-MemoryS7-v0"),
}
ROUND_S = 0.5


def steps_per_second(env: gymnasium.vector.VectorEnv[Any, Any, Any], horizon: int) -> float:
    """Play whole episodes for half a second, three times; return the best rate."""
    B = env.num_envs
    actions = np.random.default_rng(0).integers(4, size=(horizon, B))
    env.reset(seed=0)
    best = 0.0
    for _ in range(3):
        episodes, start = 0, time.perf_counter()
        while time.perf_counter() - start < ROUND_S:
            env.reset()
            for action in actions:
                env.step(action)
            episodes += 1
        best = max(best, episodes * horizon * B / (time.perf_counter() - start))
    return best


def live_steps_per_second(env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> float:
    """Play for half a second, three times; return the best rate of steps inside episodes."""
    B, waits = env.num_envs, isinstance(env, GymVec)  # for its last row, and is reset then
    n = env.single_action_space.n  # type: ignore[attr-defined]
    actions = np.random.default_rng(0).integers(n, size=(1000, B))
    env.reset(seed=0)
    best, over = 0.0, np.zeros(B, np.bool_)
    for _ in range(3):
        steps, t, start = 0, 0, time.perf_counter()
        while time.perf_counter() - start < ROUND_S:
            _, _, terminated, truncated, _ = env.step(actions[t % 1000])
            steps, t = steps + B - over.sum(), t + 1
            over = (terminated | truncated) | (over & waits)
            if waits and over.all():
                env.reset()
                over[:] = False
        best = max(best, steps / (time.perf_counter() - start))
    return best


def main() -> None:
    """Print the table."""
    help_only(__doc__)
    print(f"{machine()}, NumPy {np.__version__}, gymnasium {gymnasium.__version__}\n")
    table(["task", "envs", "steps/s", "loop, steps/s", "ratio"], measure())
    print()
    table(["environment", "envs", "steps/s", "SyncVectorEnv, steps/s", "ratio"], measure_others())


def measure() -> Iterator[list[Any]]:
    """Yield the rows."""
    for name, length in TASKS.items():
        for B in BATCHES:
            make = {"id": f"memrl/{name}-v0", "num_envs": B, "length": length}
            native = gymnasium.make_vec(**make).unwrapped  # what memrl trains on
            loop = gymnasium.make_vec(**make, vectorization_mode="sync")
            horizon: int = native.horizon  # type: ignore[attr-defined]
            fast, slow = steps_per_second(native, horizon), steps_per_second(loop, horizon)
            yield [name, B, f"{fast:,.0f}", f"{slow:,.0f}", f"{fast / slow:.1f}"]


def measure_others() -> Iterator[list[Any]]:
    """Yield the rows of environments of other packages."""
    for name, (module, id) in OTHERS.items():
        for B in (1, 8, 64):
            sync = gymnasium.make_vec(f"{module}:{id}", num_envs=B, vectorization_mode="sync")
            ours = live_steps_per_second(GymVec(num_envs=B, id=id, module=module))
            theirs = live_steps_per_second(sync)
            yield [name, B, f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}"]


if __name__ == "__main__":
    main()
