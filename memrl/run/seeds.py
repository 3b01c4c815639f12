"""Does a task honour its seed? A continued run is bit-identical only if it does."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from memrl.actions import actions_of
from memrl.run.status import EXACT

STEPS = 500  # of an episode that are compared


def compare_episodes(env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> str:
    """Return ``EXACT`` if two episodes with the same seed are the same, else how they differ."""
    with torch.random.fork_rng(devices=[]):  # which the environment may draw from
        first, second = _play(env), _play(env)
    for t, (a, b) in enumerate(zip(first, second, strict=False)):
        for name, x, y in zip(("observation", "reward", "end"), a, b, strict=True):
            if not np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
                text = f"two episodes with the same seed differ in the {name} of step {t}"
                return f"not bit-exact: {text}"
    return EXACT


def _play(env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> list[tuple[NDArray[Any], ...]]:
    """Return what the steps of an episode of random actions show, the first one's reset included.

    It ends with its first row, so that no row is stepped after its end.
    """
    actions, generator = actions_of(env.single_action_space), torch.Generator().manual_seed(0)
    obs, _ = env.reset(seed=0)
    over = np.zeros(env.num_envs, np.bool_)
    steps: list[tuple[NDArray[Any], ...]] = [(np.array(obs), np.zeros(env.num_envs), over)]
    while len(steps) <= STEPS and not over.any():
        action = actions.sample(env.num_envs, torch.device("cpu"), generator)
        obs, reward, terminated, truncated, _ = env.step(action.numpy())
        over = np.asarray(terminated) | np.asarray(truncated)
        steps.append((np.array(obs), np.array(reward), over))
    return steps
