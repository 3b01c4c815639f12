"""SAC over histories (Haarnoja et al. 2018; Ni et al. 2023). T transitions, B batch, A actions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from memrl.algos.actor_critic import ActorCritic, ContinuousAgent, SeparateActorCritic
from memrl.algos.soft import Temperature
from memrl.interfaces import Episodes
from memrl.memory import Memory

LOG_STD = (-20.0, 2.0)  # least and largest


class GaussianAgent(ContinuousAgent):
    """Acts with tanh of a normal variable, whose mean and log std are the head's outputs."""

    def set_temperature(self, alpha: float, target_entropy: float | None, lr: float) -> None:
        """Set the temperature, and the target of the entropy for each number of an action."""
        total = None if target_entropy is None else target_entropy * self.memory.actions.width
        self.temperature = Temperature(alpha, total, lr, self.device)

    def choose(self, values: Tensor, explore: bool | int) -> Tensor:
        mean, std = mean_and_std(values)
        return (mean + std * torch.randn_like(std) if explore else mean).tanh()

    def sample(self, outputs: Tensor) -> tuple[Tensor, Tensor | float, dict[str, Tensor]]:
        mean, std = mean_and_std(outputs)
        action, log_p = squashed(mean, std)
        return action, self.temperature.value * log_p, {"entropy": -log_p, "std": std.mean(-1)}

    def next_action(self, outputs: Tensor) -> tuple[Tensor, Tensor | float]:
        action, log_p = squashed(*mean_and_std(outputs))
        return action, self.temperature.value * log_p

    def end_update(self, metrics: dict[str, Tensor]) -> None:
        metrics["alpha"] = self.temperature.value.clone()
        self.temperature.learn(metrics["entropy"])

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | self.temperature.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.temperature.load_state_dict(state)


class SAC(GaussianAgent, ActorCritic):
    """SAC with one memory for policy and critics.

    Next actions come from the policy itself, their values from the target network. Arguments as for
    :class:`~memrl.algos.td3.TD3`, without noise, and

    Args:
        alpha: the temperature, at least 0; if it is learned, the one to begin with.
        target_entropy: None for a fixed temperature; else it is learned, at ``lr``, such that the
            policy's entropy tends to this number times A.
    """

    def __init__(
        self,
        memory: Memory,
        gamma: float,
        tau: float,
        lr: float,
        hidden_dims: Sequence[int],
        alpha: float,
        target_entropy: float | None,
        policy_gradient: Literal["attached", "freeze_critic", "freeze_all"],
        dropout_scope: Literal["everywhere", "gradient"],
        memory_lr: float | None = None,
        recurrence_lr: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            *(memory, gamma, tau, lr, hidden_dims, dropout_scope, policy_gradient),
            per_action=2,
            memory_lr=memory_lr,
            recurrence_lr=recurrence_lr,
            weight_decay=weight_decay,
        )
        self.set_temperature(alpha, target_entropy, lr)

    def next_outputs(self, h: Tensor, target_h: Tensor) -> Tensor:
        return self.policy.head(h)  # type: ignore[no-any-return]


class SeparateSAC(GaussianAgent, SeparateActorCritic):
    """SAC with a memory for the policy and one for the critics, which have a target copy.

    Arguments as for :class:`SAC`, and

    Args:
        memory: the critics'.
        new_memory: builds the policy's, on the same device.
    """

    def __init__(
        self,
        memory: Memory,
        new_memory: Callable[[], Memory],
        gamma: float,
        tau: float,
        lr: float,
        hidden_dims: Sequence[int],
        alpha: float,
        target_entropy: float | None,
        dropout_scope: Literal["everywhere", "gradient"],
        memory_lr: float | None = None,
        recurrence_lr: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            *(memory, new_memory, gamma, tau, lr, hidden_dims, dropout_scope),
            per_action=2,
            memory_lr=memory_lr,
            recurrence_lr=recurrence_lr,
            weight_decay=weight_decay,
        )
        self.set_temperature(alpha, target_entropy, lr)

    def next_outputs(self, batch: Episodes, outputs: Tensor) -> Tensor:
        return outputs


def mean_and_std(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Split the head's outputs (..., 2 A) into means and standard deviations (..., A)."""
    mean, log_std = outputs.chunk(2, dim=-1)
    return mean, log_std.clamp(*LOG_STD).exp()


def squashed(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Return actions tanh(u), u normal, (..., A), and the logarithms of their densities (...)."""
    noise = torch.randn_like(mean)
    u = mean + std * noise
    log_normal = -0.5 * noise.square() - std.log() - 0.5 * math.log(2 * math.pi)
    log_slope = 2 * (
        math.log(2) - u - F.softplus(-2 * u)
    )  # log(1 - tanh(u)^2), where it is small too
    return u.tanh(), (log_normal - log_slope).sum(-1)
