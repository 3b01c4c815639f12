"""Discrete SAC over histories (Ni et al. 2023).

The history states h_0 .. h_T come from one memory shared by policy and critic (:class:`SACD`), or
from one memory each (:class:`SeparateSACD`). T transitions, B batch, A actions, D width of a state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from memrl.algos.parts import parts
from memrl.algos.soft import Policy, SoftActor, TwinHeads, critic_loss_of
from memrl.interfaces import Episodes
from memrl.memory import Memory
from memrl.networks import accumulate_, adam, frozen_copy, mean_grad_norm, polyak_, set_training


class Critic(nn.Module):
    """A memory of its own, and twin heads."""

    def __init__(self, memory: Memory, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.memory = memory
        self.heads = TwinHeads(memory.output_dim, hidden_dims, memory.n_action)

    def forward(self, obs: Tensor, action: Tensor, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Map whole windows, as ``Memory.forward`` takes them, to two estimates (T + 1, B, A)."""
        return self.heads(self.memory(obs, action, reward))  # type: ignore[no-any-return]


class SACD(SoftActor):
    """Policy and critic on the states of one shared memory; the target network is heads only.

    One forward pass gives the states for everything; the loss is half the critic's plus the
    policy's, and one Adam moves all weights.

    Args:
        memory: encoder and sequence model, already on its device.
        gamma: discount, in [0, 1].
        tau: share of the online heads that enters the target heads each update, in (0, 1].
        lr: Adam's learning rate, above 0; of the temperature too.
        hidden_dims: widths of each head's hidden layers.
        alpha: the temperature, at least 0; if it is learned, the one to begin with.
        target_entropy: None to leave the temperature as it is; else it is learned, such that the
            policy's entropy tends to this share of its maximum, in [0, 1].
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
    ) -> None:
        policy = Policy(memory, hidden_dims)
        super().__init__(policy, gamma, tau, lr, alpha, target_entropy, dropout_scope)
        heads = TwinHeads(memory.output_dim, hidden_dims, memory.n_action)
        self.heads = heads.to(self.alpha.device)
        self.target_heads = frozen_copy(self.heads)
        self.freeze_critic = freeze_critic
        learned = chain(policy.parameters(), heads.parameters())
        self.optimizer = adam(learned, lr)

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
        for part in parts(batch):
            h = self.memory(part.obs, part.action, part.reward)  # (T + 1, B, D)
            logits = self.policy.head(h)  # (T + 1, B, A)
            target = self.target(part, logits[1:].detach(), self.target_heads(h[1:].detach()))
            both = self.heads(h[:-1])  # (T, B, A) each
            critic_loss, sums = critic_loss_of(both, part, target, n)
            q = torch.minimum(*both)
            q = q.detach() if self.freeze_critic else q
            policy_loss, entropy = self.policy_loss(logits[:-1], q, part.mask, n)
            loss = critic_loss / 2 + policy_loss
            loss.backward()  # type: ignore[no-untyped-call]
            sums |= {"loss": loss.detach(), "policy_loss": policy_loss.detach()}
            accumulate_(metrics, sums | {"entropy": entropy})
        metrics |= {
            "seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
            "critic_grad_norm": mean_grad_norm(self.heads.q1.parameters()),
            "policy_grad_norm": mean_grad_norm(self.policy.head.parameters()),
        }
        self.optimizer.step()
        polyak_(self.target_heads, self.heads, self.tau)
        self.learn_temperature(metrics["entropy"])
        return metrics

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that learn, by name."""
        return {"policy": self.policy, "heads": self.heads}

    def others(self) -> dict[str, Any]:
        """Return what else has a ``state_dict``, by name."""
        return {"target_heads": self.target_heads, "optimizer": self.optimizer}


class SeparateSACD(SoftActor):
    """Policy and critic with a memory each; the target network is a whole critic.

    The critic takes its step first (the sum of both heads' losses, not halved), and the policy is
    then judged by the new critic. Arguments as for :class:`SACD`, and

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
    ) -> None:
        policy = Policy(new_memory(), hidden_dims)
        super().__init__(policy, gamma, tau, lr, alpha, target_entropy, dropout_scope)
        self.critic = Critic(memory, hidden_dims).to(self.alpha.device)
        self.target_critic = frozen_copy(self.critic)
        self.critic_optimizer = adam(self.critic.parameters(), lr)
        self.policy_optimizer = adam(policy.parameters(), lr)

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step of the critic on the batch, and one of the policy.

        Returns what :meth:`SACD.update` returns, ``loss`` being the sum of both losses, the
        gradient norms those of the whole critic, the whole policy and their sequence models.
        """
        metrics = {"alpha": self.alpha.clone()}
        n = batch.mask.sum().clamp(min=1)
        learnt = []  # parts, and the policy's logits there, (T + 1, B, A)
        set_training(self.policy, True)
        set_training(self.target_critic, self.dropout_everywhere)
        set_training(self.critic, True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        for part in parts(batch):
            logits = self.policy.head(self.memory(part.obs, part.action, part.reward))
            learnt.append((part, logits))
            q1, q2 = self.target_critic(part.obs, part.action, part.reward)
            target = self.target(part, logits[1:].detach(), (q1[1:], q2[1:]))
            critic_loss, sums = critic_loss_of(self.critic(*early(part)), part, target, n)
            critic_loss.backward()  # type: ignore[no-untyped-call]
            accumulate_(metrics, sums)
        metrics |= {
            "critic_grad_norm": mean_grad_norm(self.critic.parameters()),
            "critic_seq_grad_norm": mean_grad_norm(self.critic.memory.seq_model.parameters()),
        }
        self.critic_optimizer.step()

        set_training(self.critic, self.dropout_everywhere)
        self.policy_optimizer.zero_grad(set_to_none=True)
        for part, logits in learnt:
            with torch.no_grad():
                q = torch.minimum(*self.critic(*early(part)))
            policy_loss, entropy = self.policy_loss(logits[:-1], q, part.mask, n)
            policy_loss.backward()  # type: ignore[no-untyped-call]
            accumulate_(metrics, {"policy_loss": policy_loss.detach(), "entropy": entropy})
        metrics |= {
            "policy_grad_norm": mean_grad_norm(self.policy.parameters()),
            "policy_seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
        }
        self.policy_optimizer.step()
        polyak_(self.target_critic, self.critic, self.tau)
        self.learn_temperature(metrics["entropy"])
        return {"loss": metrics["critic_loss"] + metrics["policy_loss"]} | metrics

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that learn, by name."""
        return {"policy": self.policy, "critic": self.critic}

    def others(self) -> dict[str, Any]:
        """Return what else has a ``state_dict``, by name."""
        return {
            "target_critic": self.target_critic,
            "policy_optimizer": self.policy_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }


def early(part: Episodes) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a memory sees of windows without their last observation."""
    return part.obs[:-1], part.action[:-1], part.reward[:-1]
