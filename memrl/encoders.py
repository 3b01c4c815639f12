"""Encoders: (observation, previous action, previous reward) -> vector.

An embedding of size 0 is absent. Order of concatenation: action, reward, observation
(Ni et al. 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from memrl.interfaces import TaskSpec


class MLPEncoder(nn.Module):
    """One linear layer with ReLU for each of observation, previous action, previous reward.

    Args:
        spec: the task; its observations are flattened.
        obs_dim: width of the observation's embedding, at least 1.
        action_dim: width of the previous action's embedding; 0 leaves it out.
        reward_dim: width of the previous reward's embedding; 0 leaves it out.
        action_width: width of the previous action as it arrives (one-hot if discrete).
    """

    def __init__(
        self, spec: TaskSpec, action_width: int, obs_dim: int, action_dim: int, reward_dim: int
    ) -> None:
        super().__init__()
        if obs_dim < 1:
            raise ValueError(f"obs_dim must be at least 1, got {obs_dim}")
        for name, width in (("action_dim", action_dim), ("reward_dim", reward_dim)):
            if width < 0:
                raise ValueError(f"{name} must be at least 0, got {width}")
        self.obs_shape = spec.observation_space.shape
        assert self.obs_shape is not None
        self.action = nn.Linear(action_width, action_dim) if action_dim else None
        self.reward = nn.Linear(1, reward_dim) if reward_dim else None
        self.obs = nn.Linear(math.prod(self.obs_shape), obs_dim)
        self.output_dim = action_dim + reward_dim + obs_dim

    def forward(self, obs: Tensor, prev_action: Tensor, prev_reward: Tensor) -> Tensor:
        """Map (..., *obs_shape), (..., action_width), (...) to (..., output_dim)."""
        parts = []
        if self.action is not None:
            parts.append(self.action(prev_action))
        if self.reward is not None:
            parts.append(self.reward(prev_reward.unsqueeze(-1)))
        parts.append(self.obs(obs.flatten(prev_reward.ndim).float()))
        return torch.relu(torch.cat(parts, dim=-1))
