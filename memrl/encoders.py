"""Encoders: (observation, previous action, previous reward) -> vector.

An embedding of size 0 is absent. Order of concatenation: action, reward, observation
(Ni et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from memrl.checks import require, require_at_least
from memrl.interfaces import TaskSpec


class Encoder(nn.Module):
    """What encoders share: linear layers with ReLU for the previous action and reward.

    A subclass adds the observation's embedding, ``embed``.

    Args:
        spec: the task.
        action_width: width of the previous action as it arrives (one-hot if discrete).
        obs_dim: width of the observation's embedding, at least 1.
        action_dim: width of the previous action's embedding; 0 leaves it out.
        reward_dim: width of the previous reward's embedding; 0 leaves it out.
    """

    def __init__(
        self, spec: TaskSpec, action_width: int, obs_dim: int, action_dim: int, reward_dim: int
    ) -> None:
        super().__init__()
        require_at_least(1, obs_dim=obs_dim)
        require_at_least(0, action_dim=action_dim, reward_dim=reward_dim)
        space = spec.observation_space
        assert space.shape is not None
        self.obs_shape = space.shape
        pixels = space.dtype == np.uint8 and len(space.shape) == 3
        self.scale = 255.0 if pixels else 1.0  # pixels are bytes, to be scaled to [0, 1]
        self.action = nn.Linear(action_width, action_dim) if action_dim else None
        self.reward = nn.Linear(1, reward_dim) if reward_dim else None
        self.output_dim = action_dim + reward_dim + obs_dim

    def forward(self, obs: Tensor, prev_action: Tensor, prev_reward: Tensor) -> Tensor:
        """Map (..., *obs_shape), (..., action_width), (...) to (..., output_dim)."""
        parts = []
        if self.action is not None:
            parts.append(torch.relu(self.action(prev_action)))
        if self.reward is not None:
            parts.append(torch.relu(self.reward(prev_reward.unsqueeze(-1))))
        flat = obs.reshape(-1, *self.obs_shape).float()
        flat = flat / self.scale if self.scale != 1 else flat
        parts.append(self.embed(flat).view(*prev_reward.shape, -1))
        return torch.cat(parts, dim=-1)

    def embed(self, obs: Tensor) -> Tensor:
        """Map (N, *obs_shape) to (N, obs_dim)."""
        raise NotImplementedError


class MLPEncoder(Encoder):
    """One linear layer with ReLU over the flattened observation."""

    def __init__(
        self, spec: TaskSpec, action_width: int, obs_dim: int, action_dim: int, reward_dim: int
    ) -> None:
        super().__init__(spec, action_width, obs_dim, action_dim, reward_dim)
        self.obs = nn.Linear(math.prod(self.obs_shape), obs_dim)

    def embed(self, obs: Tensor) -> Tensor:
        return torch.relu(self.obs(obs.flatten(1)))


class CNNEncoder(Encoder):
    """Convolutions of 2 x 2 with ReLU over an image, then one linear layer without.

    Observations are (C, height, width). ``channels`` are the outputs of each convolution, which
    takes one row and one column off.
    """

    def __init__(
        self,
        spec: TaskSpec,
        action_width: int,
        channels: Sequence[int],
        obs_dim: int,
        action_dim: int,
        reward_dim: int,
    ) -> None:
        super().__init__(spec, action_width, obs_dim, action_dim, reward_dim)
        if len(self.obs_shape) != 3:
            raise ValueError(f"observations must be images (C, H, W), got shape {self.obs_shape}")
        width, *sides = self.obs_shape
        ok = all(count >= 1 for count in channels) and len(channels) < min(sides)
        allowed = f"fewer than {min(sides)} numbers, each at least 1"
        require(ok, "channels", allowed, list(channels))
        layers: list[nn.Module] = []
        for count in channels:
            layers += [nn.Conv2d(width, count, kernel_size=2), nn.ReLU()]
            width = count
        self.convolutions = nn.Sequential(*layers)
        area = math.prod(side - len(channels) for side in sides)
        self.obs = nn.Linear(width * area, obs_dim)

    def embed(self, obs: Tensor) -> Tensor:
        return self.obs(self.convolutions(obs).flatten(1))  # type: ignore[no-any-return]
