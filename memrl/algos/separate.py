"""A memory for the policy and one for the critics, which take their steps one after the other.

T transitions, B batch.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from memrl.algos.agent import MemoryAgent, micro_batches
from memrl.interfaces import Episodes
from memrl.networks import accumulate_, adam, frozen_copy, mean_grad_norm, set_training


class SeparateMemories(MemoryAgent):
    """What the separate forms of all algorithms share: two networks, two optimizers, one update.

    The critics take their step first; then the policy's loss uses the new critics. Until then the
    policy's activations of all micro-batches are held.
    """

    activations = 1  # of ``micro_batches``

    def set_critic(self, critic: Any, lr: float, **rates: Any) -> None:
        """Set the critics' network, which has a ``memory``; ``rates`` are those of ``adam``."""
        self.critic = critic.to(self.device)
        self.target_critic = frozen_copy(self.critic)
        self.moving = [(self.target_critic, self.critic)]
        self.critic_optimizer, self.policy_optimizer = (
            adam(network.parameters(), lr, network.memory, **rates)
            for network in (self.critic, self.actor)
        )
        self.networks = {"policy": self.actor, "critic": self.critic}
        self.targets_and_optimizers = {
            "target_critic": self.target_critic,
            "policy_optimizer": self.policy_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }

    def first_metrics(self) -> dict[str, Tensor]:
        """Return metrics of the agent as it is before the update."""
        return {}

    def critic_loss(
        self, batch: Episodes, outputs: Tensor, n: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critics' loss of a micro-batch and metrics.

        ``outputs`` are those of the policy's head at h_1 .. h_T, without gradient; ``n`` counts the
        real transitions of the whole batch.
        """
        raise NotImplementedError

    def actor_loss(
        self, batch: Episodes, outputs: Tensor, n: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the policy's loss and metrics, for the outputs of its head at h_0 .. h_(T-1)."""
        raise NotImplementedError

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step of the critics on the batch, and one of the policy.

        Returns scalar tensors: ``loss``, the sum of ``critic_loss`` and ``policy_loss``; what else
        these report; and mean gradient norms of either network and of its sequence model.
        """
        metrics = self.first_metrics()
        n = batch.mask.sum().clamp(min=1)
        passes = []  # micro-batches, and the outputs of the policy's head there
        set_training(self.actor, True)
        set_training(self.critic, True)
        for target, _ in self.moving:
            set_training(target, self.dropout_everywhere)
        self.critic_optimizer.zero_grad(set_to_none=True)
        for rows in micro_batches(batch, self.activations):
            outputs = self.actor(rows.obs, rows.action, rows.reward)
            passes.append((rows, outputs))
            loss, means = self.critic_loss(rows, outputs[1:].detach(), n)
            loss.backward()  # type: ignore[no-untyped-call]
            accumulate_(metrics, means)
        metrics |= {
            "critic_grad_norm": mean_grad_norm(self.critic.parameters()),
            "critic_seq_grad_norm": mean_grad_norm(self.critic.memory.seq_model.parameters()),
        }
        self.critic_optimizer.step()

        set_training(self.critic, self.dropout_everywhere)
        self.policy_optimizer.zero_grad(set_to_none=True)
        for rows, outputs in passes:
            loss, means = self.actor_loss(rows, outputs[:-1], n)
            loss.backward()  # type: ignore[no-untyped-call]
            accumulate_(metrics, {"policy_loss": loss.detach()} | means)
        metrics |= {
            "policy_grad_norm": mean_grad_norm(self.actor.parameters()),
            "policy_seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
        }
        self.policy_optimizer.step()
        self.end_update(metrics)
        return {"loss": metrics["critic_loss"] + metrics["policy_loss"]} | metrics
