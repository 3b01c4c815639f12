"""An agent's view of actions: what networks see, what the replay stores, and random ones.

Discrete and continuous actions differ here and in the heads of the algorithms, nowhere else. B
batch, A width of an action as networks see it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from memrl.checks import require


class DiscreteActions:
    """Integers from 0 to A - 1, which networks see as one-hot vectors."""

    shape: tuple[int, ...] = ()  # of a stored action
    dtype = torch.int64
    no_action = -1  # as before an episode's first one

    def __init__(self, n: int) -> None:
        self.width = n

    def encode(self, action: Tensor) -> Tensor:
        """Map (...) integers to (..., A) float32; no action gives zeros."""
        return (action.unsqueeze(-1) == torch.arange(self.width, device=action.device)).float()

    def sample(
        self, batch_size: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return uniformly random actions (B,)."""
        shape = (batch_size,)
        return torch.randint(self.width, shape, device=device, generator=generator)

    def __str__(self) -> str:
        return f"{self.width} discrete actions"


class ContinuousActions:
    """Vectors (A,) of numbers in [-1, 1], which networks see as they are."""

    dtype = torch.float32
    no_action = 0.0

    def __init__(self, width: int) -> None:
        self.width = width
        self.shape: tuple[int, ...] = (width,)

    def encode(self, action: Tensor) -> Tensor:
        """Return the actions (..., A) as they are."""
        return action

    def sample(
        self, batch_size: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return uniformly random actions (B, A)."""
        shape = (batch_size, self.width)
        return torch.rand(shape, device=device, generator=generator) * 2 - 1

    def __str__(self) -> str:
        return f"continuous actions of width {self.width}"


Actions = DiscreteActions | ContinuousActions


def actions_of(space: gymnasium.Space[Any]) -> Actions:
    """Return an agent's view of a space of actions.

    Raises:
        ValueError: another space than Discrete(n) with actions from 0 on, or Box(-1, 1, (A,)).
    """
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return DiscreteActions(int(space.n))
    box = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1
    ok = box and space.dtype == np.float32 and 0 not in space.shape  # type: ignore[operator]
    ok = ok and bool((space.low == -1).all() and (space.high == 1).all())  # type: ignore[attr-defined]
    allowed = "Discrete(n), actions 0 to n - 1, or Box(-1, 1, (A,), float32)"
    require(ok, "its single_action_space", allowed, space)
    return ContinuousActions(space.shape[0])  # type: ignore[index]


def no_action(actions: Actions, batch_size: int, device: torch.device) -> Tensor:
    """Return what stands for the actions (B, ...) before the first ones."""
    shape = (batch_size, *actions.shape)
    return torch.full(shape, actions.no_action, dtype=actions.dtype, device=device)
