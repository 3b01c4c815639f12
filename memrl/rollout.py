"""Rollout: play B episodes in lock-step, from reset to the last one's end."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from memrl.interfaces import Actor, Episodes, State


class UniformActor:
    """Uniformly random actions, drawn with torch's generator; for the episodes before learning."""

    def __init__(self, n_action: int) -> None:
        self.n_action = n_action

    def initial_state(self, batch_size: int) -> State:
        return ()

    def act(
        self, obs: Tensor, prev_reward: Tensor, state: State, explore: bool
    ) -> tuple[Tensor, State]:
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
    early is stepped along with the others, and masked out.

    Returns:
        The episodes, on the CPU, and each row's ``info["success"]`` (B,) of its last step, or
        None if the task reports none.

    Raises:
        RuntimeError: an episode is longer than ``horizon``.
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
        ended = alive & (terminated | truncated)
        if "success" in info:
            success = np.zeros(B) if success is None else success
            success[ended] = np.asarray(info["success"])[ended]
        observations.append(torch.tensor(obs))
        steps.append((action.cpu(), *map(torch.tensor, (rewards, terminated & alive, alive))))
        alive = alive & ~ended
    columns = [torch.stack(column) for column in zip(*steps, strict=True)]
    return Episodes(torch.stack(observations), *columns), success
