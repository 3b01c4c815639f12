"""What the variants of discrete SAC share (Christodoulou 2019; Haarnoja et al. 2018).

T transitions, B batch, A actions, D width of a state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from memrl.algos.checks import check_settings
from memrl.interfaces import Episodes
from memrl.memory import ActState, Memory
from memrl.networks import Head, adam, set_training


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
        self.dropout_everywhere = dropout_scope == "everywhere"
        self.alpha = torch.tensor(alpha, dtype=torch.float32, device=device)
        self.target_entropy: float | None = None
        if target_entropy is not None:
            self.target_entropy = target_entropy * math.log(policy.memory.n_action)
            self.log_alpha = self.alpha.log().requires_grad_()
            self.alpha_optimizer = adam([self.log_alpha], lr)

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
        self.alpha.copy_(self.log_alpha.detach().exp())  # in place: a CUDA graph reads it there

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

    def policy_loss(
        self, logits: Tensor, q: Tensor, mask: Tensor, n: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return a part's share in the loss of the policy at h_0 .. h_(T-1), and in its entropy.

        Args:
            logits: (T, B, A).
            q: the smaller of the critic's two estimates, (T, B, A).
            mask: real transitions, (T, B).
            n: real transitions of the whole batch.
        """
        p, log_p = probabilities(logits)
        loss = share((p * (self.alpha * log_p - q)).sum(-1), mask, n)
        return loss, -share((p * log_p).sum(-1), mask, n).detach()

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
            self.alpha.copy_(self.log_alpha.detach().exp())

    def weights(self) -> dict[str, Tensor]:
        """Return what acting needs, by name."""
        return self.policy.state_dict()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Restore what ``weights`` returned."""
        self.policy.load_state_dict(weights)


def probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the policy and its logarithm, bounded from below, (..., A) each."""
    p = logits.softmax(-1)
    return p, p.clamp(min=1e-8).log()


def share(x: Tensor, mask: Tensor, n: Tensor) -> Tensor:
    """Return a part's share (T, B) in the mean over the batch's n real transitions."""
    return (x * mask).sum() / n


def critic_loss_of(
    both: tuple[Tensor, Tensor], part: Episodes, target: Tensor, n: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a part's share in the squared errors of both heads, summed, and in their metrics.

    Args:
        both: estimates (T, B, A) each.
        part: B windows.
        target: of the action taken, (T, B).
        n: real transitions of the whole batch.
    """
    q1, q2 = (q.gather(-1, part.action.unsqueeze(-1)).squeeze(-1) for q in both)  # (T, B)
    loss = sum(share((q - target).square(), part.mask, n) for q in (q1, q2))
    assert isinstance(loss, Tensor)
    means = {name: share(q.detach(), part.mask, n) for name, q in (("q1", q1), ("q2", q2))}
    return loss, {"critic_loss": loss.detach()} | means
