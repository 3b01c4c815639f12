"""Discrete SAC over histories (Ni et al. 2023; Christodoulou 2019; Haarnoja et al. 2018).

The history states h_0 .. h_T come from one memory shared by policy and critic (:class:`SACD`), or
from one memory each (:class:`SeparateSACD`). T transitions, B batch, A actions, D width of a state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from memrl.algos.checks import check_settings
from memrl.interfaces import Episodes
from memrl.memory import ActState, Memory
from memrl.networks import Head, mean_grad_norm, polyak_, set_training


class Policy(nn.Module):
    """A memory and a head that gives logits."""

    def __init__(self, memory: Memory, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.memory = memory
        self.head = Head(memory.output_dim, hidden_dims, memory.n_action, last_init=1e-3)


class TwinHeads(nn.Module):
    """Two independent estimates of the action values of a state."""

    def __init__(self, input_dim: int, hidden_dims: Sequence[int], n_action: int) -> None:
        super().__init__()
        self.q1 = Head(input_dim, hidden_dims, n_action, last_init=3e-3)
        self.q2 = Head(input_dim, hidden_dims, n_action, last_init=3e-3)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Map states (T, B, D) to two estimates (T, B, A)."""
        return self.q1(h), self.q2(h)


class Critic(nn.Module):
    """A memory of its own, and twin heads."""

    def __init__(self, memory: Memory, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.memory = memory
        self.heads = TwinHeads(memory.output_dim, hidden_dims, memory.n_action)

    def forward(self, obs: Tensor, action: Tensor, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Map whole windows, as ``Memory.forward`` takes them, to two estimates (T + 1, B, A)."""
        return self.heads(self.memory(obs, action, reward))  # type: ignore[no-any-return]


class SoftActor:
    """What both variants share: a policy that acts, its temperature, and the soft values."""

    def __init__(
        self,
        policy: Policy,
        gamma: float,
        tau: float,
        lr: float,
        alpha: float,
        target_entropy: float | None,
        dropout_scope: str,
    ) -> None:
        check_settings(gamma, tau, lr, dropout_scope)
        if not 0 <= alpha < math.inf or (alpha == 0 and target_entropy is not None):
            least = "above" if target_entropy is not None else "at least"
            raise ValueError(f"alpha must be {least} 0, got {alpha}")
        if target_entropy is not None and not 0 <= target_entropy <= 1:
            raise ValueError(f"target_entropy must be null or in [0, 1], got {target_entropy}")
        device = next(policy.memory.parameters()).device
        self.memory = policy.memory
        self.policy = policy.to(device)
        self.gamma = gamma
        self.tau = tau
        self.lr = lr
        self.dropout_everywhere = dropout_scope == "everywhere"
        self.alpha = torch.tensor(alpha, dtype=torch.float32, device=device)
        self.target_entropy: float | None = None
        if target_entropy is not None:
            self.target_entropy = target_entropy * math.log(policy.memory.n_action)
            self.log_alpha = self.alpha.log().requires_grad_()
            self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=lr)

    def initial_state(self, batch_size: int) -> ActState:
        """Return the state of ``batch_size`` episodes about to begin."""
        return self.memory.begin(batch_size)

    @torch.no_grad()
    def act(
        self, obs: Tensor, prev_reward: Tensor, state: ActState, explore: bool
    ) -> tuple[Tensor, ActState]:
        """Return actions (B,) int64: sampled from the policy if ``explore``, else its mode."""
        set_training(self.policy, explore and self.dropout_everywhere)
        h, memory = self.memory.step(obs, state.prev_action, prev_reward, state.memory)
        logits = self.policy.head(h)  # (B, A)
        if explore:  # the first of A exponential clocks to ring, with the policy's rates
            logits = logits.softmax(-1) / torch.empty_like(logits).exponential_()
        action = logits.argmax(-1)
        return action, ActState(memory, action)

    def learn_temperature(self, entropy: Tensor) -> None:
        """Move the temperature so that the policy's mean entropy tends to its target."""
        if self.target_entropy is None:
            return
        loss = self.log_alpha.exp() * (entropy - self.target_entropy)
        self.log_alpha.grad = torch.autograd.grad(loss, self.log_alpha)[0]
        self.alpha_optimizer.step()
        self.alpha = self.log_alpha.detach().exp()

    def target(self, batch: Episodes, logits: Tensor, q: tuple[Tensor, Tensor]) -> Tensor:
        """Return r + gamma times the soft value of the next state, (T, B), without gradient.

        Args:
            batch: B windows.
            logits: the policy's at h_1 .. h_T, (T, B, A).
            q: the target critic's two estimates there.
        """
        with torch.no_grad():
            p, log_p = probabilities(logits)
            value = (p * (torch.minimum(*q) - self.alpha * log_p)).sum(-1)
            return batch.reward + self.gamma * value * ~batch.terminated

    def policy_loss(self, logits: Tensor, q: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of the policy at h_0 .. h_(T-1), and its mean entropy.

        Args:
            logits: (T, B, A).
            q: the smaller of the critic's two estimates, (T, B, A).
            mask: real transitions, (T, B).
        """
        p, log_p = probabilities(logits)
        loss = masked_mean((p * (self.alpha * log_p - q)).sum(-1), mask)
        return loss, -masked_mean((p * log_p).sum(-1), mask).detach()

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that learn, by name."""
        raise NotImplementedError

    def others(self) -> dict[str, Any]:
        """Return what else has a ``state_dict``, by name."""
        raise NotImplementedError

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """Return all that the optimisers move, by name; the temperature aside."""
        for name, network in self.networks().items():
            yield from network.named_parameters(prefix=name)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next ``act`` and ``update`` depend on, random generators aside."""
        parts = self.networks() | self.others()
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        if self.target_entropy is not None:
            state["log_alpha"] = self.log_alpha.detach().clone()
            state["alpha_optimizer"] = self.alpha_optimizer.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        for name, part in (self.networks() | self.others()).items():
            part.load_state_dict(state[name])
        if self.target_entropy is not None:
            self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
            with torch.no_grad():
                self.log_alpha.copy_(state["log_alpha"])
            self.alpha = self.log_alpha.detach().exp()

    def weights(self) -> dict[str, Tensor]:
        """Return what acting needs, by name."""
        return self.policy.state_dict()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Restore what ``weights`` returned."""
        self.policy.load_state_dict(weights)


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
        self.target_heads = deepcopy(self.heads).requires_grad_(False)
        self.freeze_critic = freeze_critic
        learned = chain(policy.parameters(), heads.parameters())
        self.optimizer = torch.optim.Adam(learned, lr=lr, fused=True)

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step on the batch.

        Returns scalar tensors: ``loss``, of which ``critic_loss`` (summed over both heads, before
        it is halved) and ``policy_loss`` are the parts; ``q1``, ``q2`` and ``entropy``, means over
        real transitions; ``alpha``; and mean gradient norms: of the memory's sequence model, of the
        first critic head and of the policy's head.
        """
        alpha = self.alpha
        set_training(self.policy, True)
        h = self.memory(batch.obs, batch.action, batch.reward)  # (T + 1, B, D)
        logits = self.policy.head(h)  # (T + 1, B, A)
        target = self.target(batch, logits[1:], self.target_heads(h[1:]))
        both = self.heads(h[:-1])  # (T, B, A) each
        critic_loss, metrics = critic_loss_of(both, batch, target)
        q = torch.minimum(*both)
        q = q.detach() if self.freeze_critic else q
        policy_loss, entropy = self.policy_loss(logits[:-1], q, batch.mask)
        loss = critic_loss / 2 + policy_loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        metrics |= {"policy_loss": policy_loss.detach(), "entropy": entropy, "alpha": alpha}
        metrics |= {
            "seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
            "critic_grad_norm": mean_grad_norm(self.heads.q1.parameters()),
            "policy_grad_norm": mean_grad_norm(self.policy.head.parameters()),
        }
        self.optimizer.step()
        polyak_(self.target_heads, self.heads, self.tau)
        self.learn_temperature(entropy)
        return {"loss": loss.detach()} | metrics

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
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=lr, fused=True)
        self.policy_optimizer = torch.optim.Adam(policy.parameters(), lr=lr, fused=True)

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step of the critic on the batch, and one of the policy.

        Returns what :meth:`SACD.update` returns, ``loss`` being the sum of both losses, the
        gradient norms those of the whole critic, the whole policy and their sequence models.
        """
        alpha = self.alpha
        whole = batch.obs, batch.action, batch.reward
        early = batch.obs[:-1], batch.action[:-1], batch.reward[:-1]  # without the last observation
        set_training(self.policy, True)
        logits = self.policy.head(self.memory(*whole))  # (T + 1, B, A)
        set_training(self.target_critic, self.dropout_everywhere)
        q1, q2 = self.target_critic(*whole)
        target = self.target(batch, logits[1:].detach(), (q1[1:], q2[1:]))
        set_training(self.critic, True)
        critic_loss, metrics = critic_loss_of(self.critic(*early), batch, target)
        self.critic_optimizer.zero_grad(set_to_none=True)
        critic_loss.backward()  # type: ignore[no-untyped-call]
        metrics |= {
            "critic_grad_norm": mean_grad_norm(self.critic.parameters()),
            "critic_seq_grad_norm": mean_grad_norm(self.critic.memory.seq_model.parameters()),
        }
        self.critic_optimizer.step()

        set_training(self.critic, self.dropout_everywhere)
        with torch.no_grad():
            q = torch.minimum(*self.critic(*early))
        policy_loss, entropy = self.policy_loss(logits[:-1], q, batch.mask)
        self.policy_optimizer.zero_grad(set_to_none=True)
        policy_loss.backward()  # type: ignore[no-untyped-call]
        metrics |= {"policy_loss": policy_loss.detach(), "entropy": entropy, "alpha": alpha}
        metrics |= {
            "policy_grad_norm": mean_grad_norm(self.policy.parameters()),
            "policy_seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
        }
        self.policy_optimizer.step()
        polyak_(self.target_critic, self.critic, self.tau)
        self.learn_temperature(entropy)
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


def probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the policy and its logarithm, bounded from below, (..., A) each."""
    p = logits.softmax(-1)
    return p, p.clamp(min=1e-8).log()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of (T, B) over real transitions; 0 if there is none."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def critic_loss_of(
    both: tuple[Tensor, Tensor], batch: Episodes, target: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the summed squared errors of both heads, (T, B, A) each, and their metrics."""
    q1, q2 = (q.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1) for q in both)  # (T, B)
    loss = sum(masked_mean((q - target).square(), batch.mask) for q in (q1, q2))
    assert isinstance(loss, Tensor)
    means = {name: masked_mean(q.detach(), batch.mask) for name, q in (("q1", q1), ("q2", q2))}
    return loss, {"critic_loss": loss.detach()} | means
