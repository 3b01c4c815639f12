"""What TD3 and SAC share: a policy and twin critics over histories (Ni et al. 2023, section 5.3).

The summaries h_0 .. h_T of histories come from one memory shared by policy and critics
(:class:`ActorCritic`), or from one memory each (:class:`SeparateActorCritic`). T transitions, B
batch, A numbers of an action, D width of a summary, W width of a hidden layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from memrl.actions import ContinuousActions
from memrl.algos.agent import (
    ActionNetwork,
    MemoryAgent,
    masked_mean,
    micro_batches,
    twin_loss,
    without_last_obs,
)
from memrl.algos.separate import SeparateMemories
from memrl.checks import require
from memrl.encoders import Encoder
from memrl.interfaces import Episodes
from memrl.memory import Memory
from memrl.networks import (
    accumulate_,
    adam,
    frozen_copy,
    mean_grad_norm,
    orthogonal_,
    products_in,
    set_training,
)
from memrl.seq_models.rnn import Recurrent

ACTIVATIONS = 4  # activation memory per input, relative to DQN's
RANKS = {"rank_1": 1e-1, "rank_2": 1e-2, "rank_3": 1e-3}  # singular values above these count
Critics = Callable[[Tensor, Tensor], Tensor]  # those of ``TwinCritic.forward``


class TwinCritic(nn.Module):
    """Two independent estimates of Q(h, a): linear layers with ReLU between, in batched products.

    Weights are orthogonal, biases 0.
    """

    def __init__(self, input_dim: int, action_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        ok = min(hidden_dims, default=0) >= 1
        require(ok, "hidden_dims", "at least one width, each at least 1", list(hidden_dims))
        first, *_ = widths = [*hidden_dims, 1]
        # The first layer, of both critics, in its parts for summaries and for actions.
        self.h = nn.Linear(input_dim, 2 * first)
        self.action = nn.Linear(action_dim, 2 * first, bias=False)
        joint = torch.empty(2 * first, input_dim + action_dim)
        orthogonal_(joint, parts=2)
        with torch.no_grad():
            self.h.weight.copy_(joint[:, :input_dim])
            self.h.bias.zero_()
            self.action.weight.copy_(joint[:, input_dim:])
        weights = [torch.empty(2, n, m) for n, m in pairwise(widths)]
        for each in chain.from_iterable(weights):
            nn.init.orthogonal_(each)
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList([torch.zeros(2 * m) for m in widths[1:]])

    def project(self, h: Tensor) -> Tensor:
        """Map summaries (..., D) to their part of the first layer's sums, (..., 2 W)."""
        with products_in(h.dtype, h.device):
            return self.h(h)  # type: ignore[no-any-return]

    def forward(self, projected: Tensor, action: Tensor) -> Tensor:
        """Map projected summaries and actions (..., A) to two estimates, (2, ...) float32."""
        shape, dtype = action.shape[:-1], projected.dtype
        biases = [bias.view(2, 1, -1) for bias in self.biases]
        *hidden, (last, last_bias) = zip(self.weights, biases, strict=True)
        with products_in(dtype, projected.device):
            sums, action = projected.flatten(0, -2), action.flatten(0, -2).to(dtype)  # (N, ...)
            y = torch.addmm(sums, action, self.action.weight.t()).relu_()
            y = y.view(len(y), 2, -1).transpose(0, 1)  # (2, N, W)
            for weight, bias in hidden:
                y = torch.baddbmm(bias, y, weight).relu_()
        # In float32, so that neither values nor the small differences between them are rounded.
        pairs = zip(y.float(), last, strict=True)
        q: Tensor = torch.stack([torch.mv(x, w[:, 0]) for x, w in pairs]) + last_bias[:, 0]
        return q.view(2, *shape)


class MemoryCritic(nn.Module):
    """Twin critics with a memory of their own."""

    def __init__(self, memory: Memory, heads: TwinCritic) -> None:
        super().__init__()
        self.memory = memory
        self.heads = heads

    def project(self, obs: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        """Map whole windows, as ``Memory.forward`` takes them, to (T + 1, B, 2 W)."""
        return self.heads.project(self.memory(obs, action, reward))


class ContinuousAgent(MemoryAgent):
    """A policy over histories.

    An algorithm defines how it acts, in training and in targets: ``choose``, ``sample``,
    ``next_action`` and the attributes below.

    Args:
        memory: the policy's, already on its device.
        hidden_dims: widths of the hidden layers of the policy's head and of either critic.
    """

    action_form = ContinuousActions
    per_action: int  # outputs of the policy's head for each of the A numbers of an action
    target_policy_acts: bool  # next actions are the target policy's, not the policy's own

    def __init__(
        self,
        memory: Memory,
        gamma: float,
        tau: float,
        lr: float,
        hidden_dims: Sequence[int],
        dropout_scope: str,
    ) -> None:
        network = ActionNetwork(memory, hidden_dims, 0.0, self.per_action)
        super().__init__(network, gamma, tau, lr, dropout_scope)
        self.policy = self.actor
        orthogonal_memory_(memory)
        orthogonal_head_(self.policy.head, self.per_action)

    def new_critic(self, memory: Memory, hidden_dims: Sequence[int]) -> TwinCritic:
        """Return twin critics on the summaries of a memory."""
        width = memory.actions.width
        return TwinCritic(memory.output_dim, width, hidden_dims).to(self.device)

    def sample(self, outputs: Tensor) -> tuple[Tensor, Tensor | float, dict[str, Tensor]]:
        """Return the policy's actions (T, B, A), alpha log pi of them, and metrics, (T, B) each.

        The second is 0 for a policy without entropy.
        """
        raise NotImplementedError

    def next_action(self, outputs: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return actions for a target, (T, B, A), and alpha log pi of them, (T, B) or 0."""
        raise NotImplementedError

    def target(self, batch: Episodes, q: Tensor, alpha_log_p: Tensor | float) -> Tensor:
        """Return r + gamma (min Q - alpha log pi) of what follows, (T, B), for q (2, T, B)."""
        value = q.amin(0) - alpha_log_p
        return batch.reward + self.gamma * value * ~batch.terminated

    def policy_loss(
        self, critics: Critics, projected: Tensor, outputs: Tensor, mask: Tensor, n: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the policy's loss and metrics, masked means over a micro-batch.

        Args:
            critics: map ``projected`` and actions to two estimates (2, T, B).
            outputs: of the policy's head, at h_0 .. h_(T-1).
            mask: real transitions, (T, B).
            n: real transitions of the whole batch.
        """
        action, alpha_log_p, metrics = self.sample(outputs)
        loss = masked_mean(alpha_log_p - critics(projected, action).amin(0), mask, n)
        return loss, {name: masked_mean(x.detach(), mask, n) for name, x in metrics.items()}

    @torch.no_grad()
    def diagnostics(self, batch: Episodes) -> dict[str, Tensor]:
        """Return numerical ranks of the policy's summaries of a batch, for three tolerances."""
        set_training(self.policy, False)
        x = self.memory.embed(*without_last_obs(batch))
        h = self.memory.seq_model(x)[0]  # in float32, whose rounding does not count as a rank
        h = h * batch.mask.unsqueeze(-1)
        h = h.nan_to_num(0.0, 0.0, 0.0)  # of a diverged run, which its losses show
        values = torch.linalg.svdvals(h.flatten(0, 1))
        return {name: (values > least).sum().float() for name, least in RANKS.items()}


class ActorCritic(ContinuousAgent):
    """Policy and critics on the summaries of one shared memory, with a target copy of all.

    One forward pass gives the summaries for everything; the loss is that of both critics plus the
    policy's, and one Adam moves all weights.

    Args:
        policy_gradient: what the policy's loss trains besides the policy's head. "attached":
            everything, the critics included. "freeze_critic": the memory, through the policy's head
            alone. "freeze_all": nothing; the memory learns from the critics' loss.
    """

    def __init__(
        self,
        memory: Memory,
        gamma: float,
        tau: float,
        lr: float,
        hidden_dims: Sequence[int],
        dropout_scope: str,
        policy_gradient: Literal["attached", "freeze_critic", "freeze_all"],
        **rates: Any,
    ) -> None:
        super().__init__(memory, gamma, tau, lr, hidden_dims, dropout_scope)
        kinds = ("attached", "freeze_critic", "freeze_all")
        allowed = "attached, freeze_critic or freeze_all"
        require(policy_gradient in kinds, "policy_gradient", allowed, policy_gradient)
        self.policy_gradient = policy_gradient
        self.critic = self.new_critic(memory, hidden_dims)
        self.networks = {"policy": self.policy, "critic": self.critic}
        self.target_policy, self.target_critic = map(frozen_copy, self.networks.values())
        self.moving = [(self.target_policy, self.policy), (self.target_critic, self.critic)]
        weights = chain(self.policy.parameters(), self.critic.parameters())
        self.optimizer = adam(weights, lr, memory, **rates)
        self.targets_and_optimizers = {
            "target_policy": self.target_policy,
            "target_critic": self.target_critic,
            "optimizer": self.optimizer,
        }

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step on the batch.

        Returns scalar tensors: ``loss``, of which ``critic_loss`` (summed over both critics) and
        ``policy_loss`` are the parts; ``q1`` and ``q2``, means over real transitions; the metrics
        of ``sample``; and mean gradient norms: of the memory's sequence model, of the critics and
        of the policy's head.
        """
        metrics: dict[str, Tensor] = {}
        n = batch.mask.sum().clamp(min=1)
        set_training(self.policy, True)
        set_training(self.target_policy, self.dropout_everywhere)
        self.optimizer.zero_grad(set_to_none=True)
        for rows in micro_batches(batch, ACTIVATIONS):
            h = self.memory(rows.obs, rows.action, rows.reward)  # (T + 1, B, D)
            target = self.target_of(rows, h[1:].detach())
            h = h[:-1]
            projected = self.critic.project(h)
            critic_loss, means = twin_loss(self.critic(projected, rows.action), rows, target, n)
            accumulate_(metrics, means)
            critics: Critics = self.critic
            if self.policy_gradient != "attached":
                critics, projected = frozen(self.critic), projected.detach()
            if self.policy_gradient == "freeze_all":
                h = h.detach()
            outputs = self.policy.head(h)
            policy_loss, means = self.policy_loss(critics, projected, outputs, rows.mask, n)
            loss = critic_loss + policy_loss
            loss.backward()  # type: ignore[no-untyped-call]
            means |= {"loss": loss.detach(), "policy_loss": policy_loss.detach()}
            accumulate_(metrics, means)
        metrics |= {
            "seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
            "critic_grad_norm": mean_grad_norm(self.critic.parameters()),
            "policy_grad_norm": mean_grad_norm(self.policy.head.parameters()),
        }
        self.optimizer.step()
        self.end_update(metrics)
        return metrics

    @torch.no_grad()
    def target_of(self, batch: Episodes, h: Tensor) -> Tensor:
        """Return the critics' target (T, B) for a batch with the summaries h_1 .. h_T."""
        target_h = self.target_policy.memory(batch.obs, batch.action, batch.reward)[1:]
        head, states = self.policy.head, h
        if self.target_policy_acts:
            head, states = self.target_policy.head, target_h
        action, alpha_log_p = self.next_action(head(states))
        q = self.target_critic(self.target_critic.project(target_h), action)
        return self.target(batch, q, alpha_log_p)


class SeparateActorCritic(SeparateMemories, ContinuousAgent):
    """Policy and critics with a memory each, and target copies: of the critics, for TD3 of both.

    Args:
        memory: the critics'.
        new_memory: builds the policy's, on the same device.
    """

    activations = ACTIVATIONS

    def __init__(
        self,
        memory: Memory,
        new_memory: Callable[[], Memory],
        gamma: float,
        tau: float,
        lr: float,
        hidden_dims: Sequence[int],
        dropout_scope: str,
        **rates: Any,
    ) -> None:
        super().__init__(new_memory(), gamma, tau, lr, hidden_dims, dropout_scope)
        orthogonal_memory_(memory)
        critic = MemoryCritic(memory, self.new_critic(memory, hidden_dims))
        self.set_critic(critic, lr, **rates)
        if self.target_policy_acts:
            self.target_policy = frozen_copy(self.policy)
            self.moving.append((self.target_policy, self.policy))
            self.targets_and_optimizers["target_policy"] = self.target_policy

    def critic_loss(
        self, batch: Episodes, outputs: Tensor, n: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        target = self.target_of(batch, outputs)
        projected = self.critic.project(*without_last_obs(batch))
        return twin_loss(self.critic.heads(projected, batch.action), batch, target, n)

    def actor_loss(
        self, batch: Episodes, outputs: Tensor, n: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            projected = self.critic.project(*without_last_obs(batch))
        return self.policy_loss(frozen(self.critic.heads), projected, outputs, batch.mask, n)

    @torch.no_grad()
    def target_of(self, batch: Episodes, outputs: Tensor) -> Tensor:
        """Return the critics' target (T, B), for outputs of the policy's head at h_1 .. h_T."""
        if self.target_policy_acts:
            outputs = self.target_policy(batch.obs, batch.action, batch.reward)[1:]
        action, alpha_log_p = self.next_action(outputs)
        projected = self.target_critic.project(batch.obs, batch.action, batch.reward)[1:]
        return self.target(batch, self.target_critic.heads(projected, action), alpha_log_p)


def frozen(critic: TwinCritic) -> Critics:
    """Return the critics as a function whose weights get no gradient, but its inputs do."""
    weights = {name: weight.detach() for name, weight in critic.named_parameters()}
    return lambda *inputs: functional_call(critic, weights, inputs)


def orthogonal_memory_(memory: Memory) -> None:
    """Initialise a memory of ours as the paper's agents of continuous actions do.

    Linear layers of its encoder are orthogonal with zero biases. LSTM and RNN layers are orthogonal
    gate by gate, and have one bias: the other one stays 0. Other sequence models, and encoders of
    others, keep their initialisation.
    """
    if isinstance(memory.encoder, Encoder):
        for layer in memory.encoder.modules():
            if isinstance(layer, nn.Linear):
                orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)
    for model in memory.seq_model.modules():
        if isinstance(model, Recurrent):
            gates = {"LSTM": 4, "GRU": 3}.get(model.layers.mode, 1)
            for name, weight in model.layers.named_parameters():
                if name.startswith("weight"):
                    orthogonal_(weight, gates)
                elif name.startswith("bias_ih") and gates != 3:  # a GRU's two biases do not add up
                    weight.requires_grad_(False)


def orthogonal_head_(head: nn.Sequential, last_parts: int) -> None:
    """Make a head's layers orthogonal with zero biases, the last one in so many blocks of rows."""
    *hidden, last = (layer for layer in head if isinstance(layer, nn.Linear))
    for layer in (*hidden, last):
        orthogonal_(layer.weight, last_parts if layer is last else 1)
        nn.init.zeros_(layer.bias)
