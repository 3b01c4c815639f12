"""Encoders: (observation, previous action, previous reward) -> vector.

An embedding of size 0 is absent. Order of concatenation: action, reward, observation
(Ni et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memrl.checks import require, require_at_least
from memrl.envs.spaces import Part, parts_of
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
        self.parts = parts_of(spec.observation_space)
        self.features = nn.ModuleList(map(Features, self.parts))
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
        flat = obs.reshape(prev_reward.numel(), -1)  # (N, all numbers of an observation)
        columns = torch.split(flat, [math.prod(part.shape) for part in self.parts], dim=1)
        observed = [features(x) for features, x in zip(self.features, columns, strict=True)]
        parts.append(self.embed(observed).view(*prev_reward.shape, -1))
        return torch.cat(parts, dim=-1)

    def embed(self, parts: list[Tensor]) -> Tensor:
        """Map the observation's parts, (N, C, H, W) or (N, width) each, to (N, obs_dim)."""
        raise NotImplementedError


class Features(nn.Module):
    """Turns a part's numbers (N, n) into float32, images (N, C, H, W), others (N, width).

    Categories become one-hot vectors.
    """

    owners: Tensor  # (width,) for each category the index of its number
    codes: Tensor  # (width,) and its value

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        owners = [i for i, size in enumerate(part.sizes) for _ in range(size)]
        codes = [float(code) for size in part.sizes for code in range(size)]
        columns = torch.tensor(codes).view(-1, *(1,) * (len(part.shape) - 1))
        # Not weights: they stay out of checkpoints.
        self.register_buffer("owners", torch.tensor(owners, dtype=torch.int64), persistent=False)
        self.register_buffer("codes", columns, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        x = numbers.view(-1, *self.part.shape).float()
        if self.part.sizes:
            return torch.eq(x[:, self.owners], self.codes).float()
        return x / self.part.scale if self.part.scale != 1 else x


class MLPEncoder(Encoder):
    """One linear layer with ReLU over the flattened observation."""

    def __init__(
        self, spec: TaskSpec, action_width: int, obs_dim: int, action_dim: int, reward_dim: int
    ) -> None:
        super().__init__(spec, action_width, obs_dim, action_dim, reward_dim)
        self.obs = nn.Linear(sum(map(width, self.parts)), obs_dim)

    def embed(self, parts: list[Tensor]) -> Tensor:
        return torch.relu(self.obs(torch.cat([part.flatten(1) for part in parts], dim=1)))


class SpaceEncoder(Encoder):
    """Images through 2 x 2 convolutions with ReLU and a linear layer; everything else as in an MLP.

    The linear layer has no activation. Images, which must be of one size, are stacked. A
    convolution takes one row and one column off; an image of more than 16 rows and columns it
    halves, by a stride of 2.

    Args:
        channels: outputs of each convolution; None for 16 and 32, and where there is no image.
        obs_dim: width of the embedding of images, and of that of everything else.
    """

    halved_above: float = 16  # pixels

    def __init__(
        self,
        spec: TaskSpec,
        action_width: int,
        channels: Sequence[int] | None,
        obs_dim: int,
        action_dim: int,
        reward_dim: int,
    ) -> None:
        super().__init__(spec, action_width, obs_dim, action_dim, reward_dim)
        images = [part for part in self.parts if part.is_image]
        others = [part for part in self.parts if not part.is_image]
        if images:
            sizes = sorted({part.shape[1:] for part in images})
            require(len(sizes) == 1, "observations", "images of one size", sizes)
            inputs = sum(part.channels for part in images)
            chosen = (16, 32) if channels is None else channels
            self.convolutions, outputs = convolutions(inputs, sizes[0], chosen, self.halved_above)
            self.obs = nn.Linear(outputs, obs_dim)
        else:
            require(channels is None, "channels", "null, as there is no image", channels)
        self.others = nn.Linear(sum(map(width, others)), obs_dim) if others else None
        self.output_dim += obs_dim * (bool(images) + bool(others) - 1)

    def embed(self, parts: list[Tensor]) -> Tensor:
        images = [x for x in parts if x.dim() == 4]
        others = [x for x in parts if x.dim() == 2]
        embedded = []
        if images:
            x = images[0] if len(images) == 1 else torch.cat(images, dim=1)
            embedded.append(self.obs(self.convolutions(x).flatten(1)))
        if self.others is not None:
            embedded.append(torch.relu(self.others(torch.cat(others, dim=1))))
        return embedded[0] if len(embedded) == 1 else torch.cat(embedded, dim=1)


class CNNEncoder(SpaceEncoder):
    """A ``SpaceEncoder`` of observations that have an image; it does not halve them."""

    halved_above = math.inf

    def __init__(
        self,
        spec: TaskSpec,
        action_width: int,
        channels: Sequence[int],
        obs_dim: int,
        action_dim: int,
        reward_dim: int,
    ) -> None:
        if not any(part.is_image for part in parts_of(spec.observation_space)):
            shape = spec.observation_space.shape
            raise ValueError(f"observations must be images (C, H, W), got shape {shape}")
        super().__init__(spec, action_width, channels, obs_dim, action_dim, reward_dim)


def width(part: Part) -> int:
    """Return the width of a part's flattened features."""
    return part.channels * math.prod(part.shape[1:])


def convolutions(
    inputs: int, size: Sequence[int], channels: Sequence[int], halved_above: float
) -> tuple[nn.Sequential, int]:
    """Return the layers over images with so many channels, rows and columns, and their outputs.

    Raises:
        ValueError: the image is too small for them.
    """
    layers: list[nn.Module] = []
    sides = list(size)
    for i, count in enumerate(channels):
        allowed = f"at most {i} numbers for images of {size[0]} x {size[1]}"
        require(min(sides) >= 2, "channels", allowed, list(channels))
        require(count >= 1, "channels", "numbers of at least 1", list(channels))
        stride = 2 if min(sides) > halved_above else 1
        layers += [nn.Conv2d(inputs, count, kernel_size=2, stride=stride), nn.ReLU()]
        inputs, sides = count, [(side - 2) // stride + 1 for side in sides]
    return nn.Sequential(*layers), inputs * math.prod(sides)
