"""Rollout: play B episodes in lock-step, from reset to the last one's end."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from memrl.interfaces import Episodes, State


class Actor(Protocol):
    """The acting half of an ``Agent``."""

    def initial_state(self, batch_size: int) -> State:
        """Return the state of ``batch_size`` episodes about to begin."""

    def act(
        self, obs: Tensor, prev_reward: Tensor, state: State, explore: bool
    ) -> tuple[Tensor, State]:
        """Choose actions (B,)."""


class UniformActor:
    """Uniformly random actions, for the episodes before learning."""

    def __init__(self, n_action: int) -> None:
        self.n_action = n_action

    def initial_state(self, batch_size: int) -> State:
        """Return the empty state."""
        return ()

    def act(
        self, obs: Tensor, prev_reward: Tensor, state: State, explore: bool
    ) -> tuple[Tensor, State]:
        """Return actions (B,) int64, drawn with torch's generator."""
        action = torch.randint(self.n_action, prev_reward.shape, device=prev_reward.device)
        return action, state


def rollout(
    env: gymnasium.vector.VectorEnv[Any, Any, Any],
    actor: Actor,
    explore: bool,
    device: torch.device,
    horizon: int | None = None,
) -> tuple[Episodes, np.ndarray | None]:
    """Play one episode in each of the environment's B rows.

    The environment must not reset rows by itself (``AutoresetMode.DISABLED``). A row that ends
    early is stepped on with the others, and masked. An episode longer than ``horizon`` is an error.

    Returns:
        The episodes, on the CPU, and each row's ``info["success"]`` (B,) of its last step, or
        None if the task reports none.
    """
    obs, _ = env.reset()
    B = env.num_envs
    alive = np.ones(B, dtype=bool)
    success: np.ndarray | None = None
    reward = np.zeros(B, dtype=np.float32)
    state = actor.initial_state(B)
    observations = [torch.tensor(obs)]  # copied: environments may reuse arrays
    steps: list[tuple[Tensor, ...]] = []
    while alive.any():
        if len(steps) == horizon:
            raise RuntimeError(f"an episode is longer than the task's horizon of {horizon} steps")
        action, state = actor.act(
            observations[-1].to(device), torch.from_numpy(reward).to(device), state, explore
        )
        obs, rewards, terminated, truncated, info = env.step(action.cpu().numpy())
        reward = np.array(rewards, dtype=np.float32)
        over = alive & (terminated | truncated)
        if "success" in info:
            success = np.zeros(B) if success is None else success
            success[over] = np.asarray(info["success"])[over]
        observations.append(torch.tensor(obs))
        steps.append((action.cpu(), *map(torch.tensor, (rewards, terminated & alive, alive))))
        alive = alive & ~over
    columns = [torch.stack(column) for column in zip(*steps, strict=True)]
    return Episodes(torch.stack(observations), *columns), success
