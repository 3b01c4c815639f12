"""What the variants of discrete SAC share (Christodoulou 2019; Haarnoja et al. 2018).

T transitions, B batch, A actions, D width of a summary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memrl.algos.agent import ActionNetwork, masked_mean
from memrl.algos.temperature import TemperatureAgent
from memrl.checks import require
from memrl.interfaces import Episodes
from memrl.memory import Memory
from memrl.networks import Head


class TwinHeads(nn.Module):
    """Two independent estimates of the action values from a history's summary."""

    def __init__(self, input_dim: int, hidden_dims: Sequence[int], n_action: int) -> None:
        super().__init__()
        self.q1 = Head(input_dim, hidden_dims, n_action, last_init=3e-3)
        self.q2 = Head(input_dim, hidden_dims, n_action, last_init=3e-3)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Map summaries (T, B, D) to two estimates (T, B, A)."""
        return self.q1(h), self.q2(h)


class SoftActor(TemperatureAgent):
    """What both variants share: a policy that acts, its temperature, and the soft values."""

    def __init__(
        self,
        memory: Memory,
        gamma: float,
        tau: float,
        lr: float,
        hidden_dims: Sequence[int],
        alpha: float,
        target_entropy: float | None,
        dropout_scope: str,
    ) -> None:
        network = ActionNetwork(memory, hidden_dims, last_init=1e-3)  # its head gives logits
        super().__init__(network, gamma, tau, lr, dropout_scope)
        if target_entropy is not None:
            allowed = "null or in [0, 1]"
            require(0 <= target_entropy <= 1, "target_entropy", allowed, target_entropy)
            target_entropy *= math.log(memory.actions.width)
        self.policy = self.actor
        self.set_temperature(alpha, target_entropy, lr)

    def action_scores(self, batch: Episodes) -> tuple[str, Tensor]:
        return "p", self.head_outputs(batch).softmax(-1)

    def choose(self, values: Tensor, explore: bool | int, obs: Tensor, before: Tensor) -> Tensor:
        if explore:  # the first of A exponential clocks to ring, with the policy's rates
            values = values.softmax(-1) / torch.empty_like(values).exponential_()
        return values.argmax(-1)

    def target(self, batch: Episodes, logits: Tensor, q: tuple[Tensor, Tensor]) -> Tensor:
        """Return r + gamma times the soft value of what follows, (T, B), without gradient.

        ``logits`` and the target critic's estimates ``q`` are those at h_1 .. h_T, (T, B, A) each.
        """
        with torch.no_grad():
            p, log_p = probabilities(logits)
            value = (p * (torch.minimum(*q) - self.alpha * log_p)).sum(-1)
            return batch.reward + self.gamma * value * ~batch.terminated

    def policy_loss(
        self, logits: Tensor, q: Tensor, mask: Tensor, n: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the policy's loss and its entropy, masked means over a micro-batch.

        Args:
            logits: at h_0 .. h_(T-1), (T, B, A).
            q: the smaller of the critic's two estimates, (T, B, A).
            mask: real transitions, (T, B).
            n: real transitions of the whole batch.
        """
        p, log_p = probabilities(logits)
        loss = masked_mean((p * (self.alpha * log_p - q)).sum(-1), mask, n)
        return loss, -masked_mean((p * log_p).sum(-1), mask, n).detach()


def probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the policy and its logarithm, bounded from below, (..., A) each."""
    p = logits.softmax(-1)
    return p, p.clamp(min=1e-8).log()


def taken(estimates: tuple[Tensor, Tensor], action: Tensor) -> Tensor:
    """Return two estimates (2, T, B) for actions (T, B), of those for all, (T, B, A) each."""
    return torch.stack([q.gather(-1, action.unsqueeze(-1)).squeeze(-1) for q in estimates])
