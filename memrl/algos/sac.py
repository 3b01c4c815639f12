"""SAC over histories (Haarnoja et al. 2018; Ni et al. 2023).

T transitions, B batch, A numbers of an action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from memrl.algos.actor_critic import ActorCritic, ContinuousAgent, SeparateActorCritic
from memrl.algos.temperature import TemperatureAgent
from memrl.checks import require
from memrl.memory import Memory

LOG_STD = (-20.0, 2.0)  # least and largest


class GaussianAgent(TemperatureAgent, ContinuousAgent):
    """Acts with tanh of a normal variable, whose mean and log std are the head's outputs."""

    per_action = 2
    target_policy_acts = False

    def set_temperature(self, alpha: float, target_entropy: float | None, lr: float) -> None:
        """Set the temperature, and the target of the entropy per dimension of an action."""
        if target_entropy is not None:
            allowed = "null or below log(2), the entropy of a uniform action"
            require(target_entropy < math.log(2), "target_entropy", allowed, target_entropy)
            target_entropy *= self.memory.actions.width
        super().set_temperature(alpha, target_entropy, lr)

    def choose(self, values: Tensor, explore: bool | int, obs: Tensor, before: Tensor) -> Tensor:
        mean, log_std = mean_and_log_std(values)
        return (mean + log_std.exp() * torch.randn_like(mean) if explore else mean).tanh()

    def sample(self, outputs: Tensor) -> tuple[Tensor, Tensor | float, dict[str, Tensor]]:
        mean, log_std = mean_and_log_std(outputs)
        action, log_p = squashed(mean, log_std)
        return action, self.alpha * log_p, {"entropy": -log_p, "std": log_std.exp().mean(-1)}

    def next_action(self, outputs: Tensor) -> tuple[Tensor, Tensor | float]:
        action, log_p = squashed(*mean_and_log_std(outputs))
        return action, self.alpha * log_p

    def end_update(self, metrics: dict[str, Tensor]) -> None:
        metrics["alpha"] = self.alpha.clone()  # as this update used it
        super().end_update(metrics)


class SAC(GaussianAgent, ActorCritic):
    """SAC with one memory for policy and critics.

    Next actions are the policy's own, their values the target network's. Arguments as for
    :class:`~memrl.algos.td3.TD3`, without noise, and

    Args:
        alpha: the temperature, at least 0; if it is learned, the one to begin with.
        target_entropy: None for a fixed temperature; else it is learned, at ``lr``, such that the
            policy's entropy tends to this number times A; below log 2.
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
            memory_lr=memory_lr,
            recurrence_lr=recurrence_lr,
            weight_decay=weight_decay,
        )
        self.set_temperature(alpha, target_entropy, lr)


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
            memory_lr=memory_lr,
            recurrence_lr=recurrence_lr,
            weight_decay=weight_decay,
        )
        self.set_temperature(alpha, target_entropy, lr)


def mean_and_log_std(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Split the head's outputs (..., 2 A) into means and log standard deviations (..., A)."""
    mean, log_std = outputs.chunk(2, dim=-1)
    return mean, log_std.clamp(*LOG_STD)


def squashed(mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
    """Return actions tanh(u), u normal, (..., A), and the logarithms of their densities (...)."""
    noise = torch.randn_like(mean)
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    # log(1 - tanh(u)^2), also where it is small (Haarnoja et al. 2018, appendix C)
    log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return u.tanh(), (log_normal - log_slope).sum(-1)
