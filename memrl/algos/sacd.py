"""Discrete SAC over histories (Ni et al. 2023).

The summaries h_0 .. h_T of histories come from one memory shared by policy and critic
(:class:`SACD`), or from one memory each (:class:`SeparateSACD`). T transitions, B batch, A actions,
D width of a summary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from memrl.algos.agent import micro_batches, twin_loss, without_last_obs
from memrl.algos.separate import SeparateMemories
from memrl.algos.soft import SoftActor, TwinHeads, taken
from memrl.interfaces import Episodes
from memrl.memory import Memory
from memrl.networks import accumulate_, adam, frozen_copy, mean_grad_norm, set_training


class Critic(nn.Module):
    """A memory of its own, and twin heads."""

    def __init__(self, memory: Memory, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.memory = memory
        self.heads = TwinHeads(memory.output_dim, hidden_dims, memory.actions.width)

    def forward(self, obs: Tensor, action: Tensor, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Map whole windows, as ``Memory.forward`` takes them, to two estimates (T + 1, B, A)."""
        return self.heads(self.memory(obs, action, reward))  # type: ignore[no-any-return]


class SACD(SoftActor):
    """Policy and critic on the summaries of one shared memory; the target network is heads only.

    One forward pass gives the summaries for everything; the loss is half the critic's plus the
    policy's, and one Adam moves all weights. ``gamma``, ``tau`` and ``lr`` are those of
    :class:`~memrl.algos.agent.MemoryAgent`; ``memory_lr``, ``recurrence_lr`` and ``weight_decay``
    those of :func:`~memrl.networks.adam`. The temperature is learned at ``lr``.

    Args:
        memory: already on its device.
        hidden_dims: widths of each head's hidden layers.
        alpha: the temperature, at least 0; if it is learned, the one to begin with.
        target_entropy: None for a fixed temperature; else it is learned, such that the policy's
            entropy tends to this fraction of its maximum, in [0, 1].
        dropout_scope: "everywhere": dropout is active while exploring too, as in the published
            program. "gradient": only in updates.
        freeze_critic: let no gradient of the policy's loss pass through the critic's values; it
            still reaches the memory through the policy's logits.
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
        dropout_scope: Literal["everywhere", "gradient"],
        freeze_critic: bool,
        memory_lr: float | None = None,
        recurrence_lr: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(memory, gamma, tau, lr, hidden_dims, alpha, target_entropy, dropout_scope)
        heads = TwinHeads(memory.output_dim, hidden_dims, memory.actions.width)
        self.heads = heads.to(self.device)
        self.target_heads = frozen_copy(self.heads)
        self.freeze_critic = freeze_critic
        weights = chain(self.policy.parameters(), heads.parameters())
        self.optimizer = adam(weights, lr, memory, memory_lr, recurrence_lr, weight_decay)
        self.networks = {"policy": self.policy, "heads": self.heads}
        self.moving = [(self.target_heads, self.heads)]
        self.targets_and_optimizers = {
            "target_heads": self.target_heads,
            "optimizer": self.optimizer,
        }

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step on the batch.

        Returns scalar tensors: ``loss``, of which ``critic_loss`` (summed over both heads, before
        it is halved) and ``policy_loss`` are the parts; ``q1``, ``q2`` and ``entropy``, means over
        real transitions; ``alpha``; and mean gradient norms: of the memory's sequence model, of the
        first critic head and of the policy's head.
        """
        metrics = {"alpha": self.alpha.clone()}
        n = batch.mask.sum().clamp(min=1)
        set_training(self.policy, True)
        self.optimizer.zero_grad(set_to_none=True)
        for rows in micro_batches(batch):
            h = self.memory(rows.obs, rows.action, rows.reward)  # (T + 1, B, D)
            logits = self.policy.head(h)  # (T + 1, B, A)
            target = self.target(rows, logits[1:].detach(), self.target_heads(h[1:].detach()))
            estimates = self.heads(h[:-1])  # (T, B, A) each
            critic_loss, means = twin_loss(taken(estimates, rows.action), rows, target, n)
            q = torch.minimum(*estimates)
            q = q.detach() if self.freeze_critic else q
            policy_loss, entropy = self.policy_loss(logits[:-1], q, rows.mask, n)
            loss = critic_loss / 2 + policy_loss
            loss.backward()  # type: ignore[no-untyped-call]
            means |= {"loss": loss.detach(), "policy_loss": policy_loss.detach()}
            accumulate_(metrics, means | {"entropy": entropy})
        metrics |= {
            "seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
            "critic_grad_norm": mean_grad_norm(self.heads.q1.parameters()),
            "policy_grad_norm": mean_grad_norm(self.policy.head.parameters()),
        }
        self.optimizer.step()
        self.end_update(metrics)
        return metrics


class SeparateSACD(SeparateMemories, SoftActor):
    """Policy and critic with a memory each; the target network is a whole critic.

    The critic's loss is the sum of both heads' losses, not halved. Arguments as for :class:`SACD`,
    and

    Args:
        memory: the critic's.
        new_memory: builds the policy's, on the same device.
        dropout_scope: "everywhere": in every pass of training. "gradient": only in those that are
            differentiated; the policy's pass gives the probabilities of the target too.
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
        policy_memory = new_memory()
        super().__init__(
            policy_memory, gamma, tau, lr, hidden_dims, alpha, target_entropy, dropout_scope
        )
        critic = Critic(memory, hidden_dims)
        rates = {"memory_lr": memory_lr, "recurrence_lr": recurrence_lr}
        self.set_critic(critic, lr, weight_decay=weight_decay, **rates)

    def first_metrics(self) -> dict[str, Tensor]:
        return {"alpha": self.alpha.clone()}

    def critic_loss(
        self, batch: Episodes, outputs: Tensor, n: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q1, q2 = self.target_critic(batch.obs, batch.action, batch.reward)
        target = self.target(batch, outputs, (q1[1:], q2[1:]))
        estimates = self.critic(*without_last_obs(batch))
        return twin_loss(taken(estimates, batch.action), batch, target, n)

    def actor_loss(
        self, batch: Episodes, outputs: Tensor, n: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            q = torch.minimum(*self.critic(*without_last_obs(batch)))
        loss, entropy = self.policy_loss(outputs, q, batch.mask, n)
        return loss, {"entropy": entropy}
