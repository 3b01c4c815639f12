"""TD3 over histories (Fujimoto et al. 2018; Ni et al. 2023).

As in the paper's experiments, the policy is updated as often as the critics, and its loss has the
smaller of both estimates. T transitions, B batch, A numbers of an action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from memrl.algos.actor_critic import ActorCritic, ContinuousAgent, SeparateActorCritic
from memrl.checks import require
from memrl.memory import Memory


class DeterministicAgent(ContinuousAgent):
    """Acts with tanh of the head's outputs, and with noise while exploring and in targets."""

    per_action = 1
    target_policy_acts = True

    def set_noise(self, exploration_noise: float, target_noise: float, noise_clip: float) -> None:
        """Set the standard deviations of the noises, and the largest size of that in targets."""
        self.exploration_noise, self.target_noise = exploration_noise, target_noise
        self.noise_clip = noise_clip
        for name in ("exploration_noise", "target_noise", "noise_clip"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, "at least 0", value)

    def choose(self, values: Tensor, explore: bool | int, obs: Tensor, before: Tensor) -> Tensor:
        action = values.tanh()
        if explore:
            action = action + self.exploration_noise * torch.randn_like(action)
        return action.clamp(-1, 1)

    def sample(self, outputs: Tensor) -> tuple[Tensor, Tensor | float, dict[str, Tensor]]:
        return outputs.tanh(), 0.0, {}

    def next_action(self, outputs: Tensor) -> tuple[Tensor, Tensor | float]:
        noise = self.target_noise * torch.randn_like(outputs)
        noise = noise.clamp(-self.noise_clip, self.noise_clip)
        return (outputs.tanh() + noise).clamp(-1, 1), 0.0


class TD3(DeterministicAgent, ActorCritic):
    """TD3 with one memory for policy and critics.

    ``gamma``, ``tau`` and ``lr`` are those of :class:`~memrl.algos.agent.MemoryAgent`;
    ``memory_lr``, ``recurrence_lr`` and ``weight_decay`` those of :func:`~memrl.networks.adam`;
    ``policy_gradient`` that of :class:`~memrl.algos.actor_critic.ActorCritic`.

    Args:
        memory: already on its device.
        hidden_dims: widths of the hidden layers of the policy's head and of either critic.
        exploration_noise: standard deviation of the noise on explored actions, at least 0.
        target_noise: standard deviation of the noise on the target policy's actions, at least 0.
        noise_clip: its largest size, at least 0.
        dropout_scope: "everywhere": dropout is active while exploring and in targets too, as in the
            published program. "gradient": only in the pass that is differentiated.
    """

    def __init__(
        self,
        memory: Memory,
        gamma: float,
        tau: float,
        lr: float,
        hidden_dims: Sequence[int],
        exploration_noise: float,
        target_noise: float,
        noise_clip: float,
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
        self.set_noise(exploration_noise, target_noise, noise_clip)


class SeparateTD3(DeterministicAgent, SeparateActorCritic):
    """TD3 with a memory for the policy and one for the critics; both have a target copy.

    Arguments as for :class:`TD3`, and

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
        exploration_noise: float,
        target_noise: float,
        noise_clip: float,
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
        self.set_noise(exploration_noise, target_noise, noise_clip)
