"""What TD3 and SAC share: a policy and twin critics over histories (Ni et al. 2023, section 5.3).

The summaries h_0 .. h_T of histories come from one memory shared by policy and critics
(:class:`ActorCritic`), or from one memory each (:class:`SeparateActorCritic`). T transitions, B
batch, A actions, D width of a summary, W width of a hidden layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from memrl.actions import Continuous
from memrl.algos.agent import (
    ActionNetwork,
    MemoryAgent,
    masked_mean,
    micro_batches,
    without_last_obs,
)
from memrl.checks import require
from memrl.interfaces import Episodes
from memrl.memory import Memory
from memrl.networks import (
    accumulate_,
    adam,
    frozen_copy,
    mean_grad_norm,
    orthogonal_,
    polyak_,
    products_in,
    set_training,
)

ACTIVATIONS = 4  # of two critics in three passes and a policy, for each one of DQN's
RANKS = {"rank_1": 1e-1, "rank_2": 1e-2, "rank_3": 1e-3}  # least singular values that count


class TwinCritic(nn.Module):
    """Two independent estimates of Q(h, a): linear layers with ReLU between, in batched products.

    Weights are orthogonal, biases 0.
    """

    def __init__(self, input_dim: int, action_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        first, *_ = widths = [*hidden_dims, 1]
        ok = min(hidden_dims, default=0) >= 1
        require(ok, "hidden_dims", "at least one width, each at least 1", list(hidden_dims))
        self.h = nn.Linear(input_dim, 2 * first)
        self.action = nn.Linear(action_dim, 2 * first, bias=False)
        with torch.no_grad():
            joint = torch.empty(2, first, input_dim + action_dim)
            orthogonal_(joint.flatten(0, 1), parts=2)
            self.h.weight.copy_(joint[..., :input_dim].flatten(0, 1))
            self.h.bias.zero_()
            self.action.weight.copy_(joint[..., input_dim:].flatten(0, 1))
        shapes = list(pairwise(widths))
        self.weights = nn.ParameterList([torch.empty(2, n, m) for n, m in shapes])
        self.biases = nn.ParameterList([torch.zeros(2, 1, m) for _, m in shapes])
        for weight in self.weights:
            for each in weight.detach():
                nn.init.orthogonal_(each)

    def read(self, h: Tensor) -> Tensor:
        """Map summaries (..., D) to their part of the first layer's sums, (..., 2 W)."""
        with products_in(h.dtype, h.device):
            return self.h(h)  # type: ignore[no-any-return]

    def forward(self, read: Tensor, action: Tensor) -> Tensor:
        """Map what ``read`` returned and actions (..., A) to two estimates, (2, ...) float32."""
        shape, dtype = action.shape[:-1], read.dtype
        with products_in(dtype, read.device):
            sums, action = read.flatten(0, -2), action.flatten(0, -2).to(dtype)  # (N, ...)
            y = torch.addmm(sums, action, self.action.weight.t()).relu_()
            y = y.view(len(y), 2, -1).transpose(0, 1)  # (2, N, W)
            for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
                y = torch.baddbmm(bias, y, weight).relu_()
        # In float32, so that neither values nor the small differences between them are rounded.
        last = zip(y.float(), self.weights[-1], self.biases[-1], strict=True)
        q = torch.stack([torch.mv(each, w[:, 0]) + bias[0] for each, w, bias in last])  # (2, N)
        return q.view(2, *shape)


class Critic(nn.Module):
    """Twin critics with a memory of their own."""

    def __init__(self, memory: Memory, heads: TwinCritic) -> None:
        super().__init__()
        self.memory = memory
        self.heads = heads

    def read(self, obs: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        """Map whole windows, as ``Memory.forward`` takes them, to what ``heads`` takes."""
        return self.heads.read(self.memory(obs, action, reward))


class ContinuousAgent(MemoryAgent):
    """What both forms share. An algorithm adds the policy: ``sample`` and ``next_action``.

    Args:
        memory: the policy's, already on its device.
        per_action: outputs of the policy's head for each of the A numbers of an action.
        hidden_dims: widths of the hidden layers of the policy's head and of either critic.
    """

    action_form = Continuous

    def __init__(
        self,
        memory: Memory,
        gamma: float,
        tau: float,
        lr: float,
        hidden_dims: Sequence[int],
        dropout_scope: str,
        per_action: int,
    ) -> None:
        network = ActionNetwork(memory, hidden_dims, last_init=0.0, per_action=per_action)
        super().__init__(network, gamma, tau, lr, dropout_scope)
        self.policy = self.actor
        orthogonal_network_(memory, self.policy.head, per_action)

    def new_critic(self, memory: Memory, hidden_dims: Sequence[int]) -> TwinCritic:
        """Return twin critics on the summaries of a memory."""
        width = memory.actions.width
        return TwinCritic(memory.output_dim, width, hidden_dims).to(self.device)

    def sample(self, outputs: Tensor) -> tuple[Tensor, Tensor | float, dict[str, Tensor]]:
        """Return the policy's actions (T, B, A), their cost (T, B), and figures (T, B) to log.

        The policy's loss is the mean of the cost less the smaller estimate of Q.
        """
        raise NotImplementedError

    def next_action(self, outputs: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return actions for a target, (T, B, A), and their cost (T, B)."""
        raise NotImplementedError

    def target(self, batch: Episodes, q: Tensor, cost: Tensor | float) -> Tensor:
        """Return r + gamma (min Q - cost) of what follows, (T, B), for estimates (2, T, B)."""
        value = q.amin(0) - cost
        return batch.reward + self.gamma * value * ~batch.terminated

    def policy_loss(
        self, critic: nn.Module, read: Tensor, outputs: Tensor, mask: Tensor, n: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the policy's loss and metrics, masked means over a micro-batch.

        Args:
            critic: maps ``read`` and actions to two estimates (2, T, B).
            outputs: of the policy's head, at h_0 .. h_(T-1).
            mask: real transitions, (T, B).
            n: real transitions of the whole batch.
        """
        action, cost, figures = self.sample(outputs)
        loss = masked_mean(cost - critic(read, action).amin(0), mask, n)
        means = {name: masked_mean(x.detach(), mask, n) for name, x in figures.items()}
        return loss, {"policy_loss": loss.detach()} | means

    def end_update(self, metrics: dict[str, Tensor]) -> None:
        """Learn what else there is to learn, from the metrics of this update."""

    @torch.no_grad()
    def diagnostics(self, batch: Episodes) -> dict[str, Tensor]:
        """Return numerical ranks of the policy's summaries of a batch, for three tolerances."""
        set_training(self.memory, False)
        h = self.memory(*without_last_obs(batch)).float() * batch.mask.unsqueeze(-1)
        values = torch.linalg.svdvals(h.flatten(0, 1))
        return {name: (values > least).sum().float() for name, least in RANKS.items()}


class ActorCritic(ContinuousAgent):
    """Policy and critics on the summaries of one shared memory; the target is a copy of all.

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
        per_action: int,
        **rates: Any,
    ) -> None:
        super().__init__(memory, gamma, tau, lr, hidden_dims, dropout_scope, per_action)
        kinds = ("attached", "freeze_critic", "freeze_all")
        allowed = "attached, freeze_critic or freeze_all"
        require(policy_gradient in kinds, "policy_gradient", allowed, policy_gradient)
        self.policy_gradient = policy_gradient
        self.critic = self.new_critic(memory, hidden_dims)
        # One copy, so that both have the same memory there too.
        self.target_network = frozen_copy(nn.ModuleList([self.policy, self.critic]))
        self.target_policy, self.target_critic = self.target_network
        weights = chain(self.policy.parameters(), self.critic.parameters())
        self.optimizer = adam(weights, lr, memory, **rates)
        self.networks = {"policy": self.policy, "critic": self.critic}
        self.targets_and_optimizers = {"target": self.target_network, "optimizer": self.optimizer}

    def next_outputs(self, h: Tensor, target_h: Tensor) -> Tensor:
        """Return the outputs of a policy's head at h_1 .. h_T: its summaries, or the target's."""
        raise NotImplementedError

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step on the batch.

        Returns scalar tensors: ``loss``, of which ``critic_loss`` (summed over both critics) and
        ``policy_loss`` are the parts; ``q1`` and ``q2``, means over real transitions; what the
        policy's ``sample`` logs; and mean gradient norms: of the memory's sequence model, of the
        critics and of the policy's head.
        """
        metrics: dict[str, Tensor] = {}
        n = batch.mask.sum().clamp(min=1)
        set_training(self.policy, True)
        set_training(self.target_network, self.dropout_everywhere)
        self.optimizer.zero_grad(set_to_none=True)
        for rows in micro_batches(batch, ACTIVATIONS):
            h = self.memory(rows.obs, rows.action, rows.reward)  # (T + 1, B, D)
            target = self.target_of(rows, h[1:].detach())
            read = self.critic.read(h[:-1])
            critic_loss, means = twin_loss(self.critic(read, rows.action), rows, target, n)
            accumulate_(metrics, means)
            critic, h = self.critic, h[:-1]
            if self.policy_gradient != "attached":
                critic, read = frozen(critic), read.detach()
            if self.policy_gradient == "freeze_all":
                h = h.detach()
            outputs = self.policy.head(h)
            policy_loss, means = self.policy_loss(critic, read, outputs, rows.mask, n)
            loss = critic_loss + policy_loss
            loss.backward()  # type: ignore[no-untyped-call]
            accumulate_(metrics, {"loss": loss.detach()} | means)
        metrics |= {
            "seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
            "critic_grad_norm": mean_grad_norm(self.critic.parameters()),
            "policy_grad_norm": mean_grad_norm(self.policy.head.parameters()),
        }
        self.optimizer.step()
        polyak_(self.target_network, nn.ModuleList([self.policy, self.critic]), self.tau)
        self.end_update(metrics)
        return metrics

    @torch.no_grad()
    def target_of(self, batch: Episodes, h: Tensor) -> Tensor:
        """Return the critics' target (T, B), without gradient, for summaries h_1 .. h_T."""
        target_h = self.target_policy.memory(batch.obs, batch.action, batch.reward)[1:]
        action, cost = self.next_action(self.next_outputs(h, target_h))
        q = self.target_critic(self.target_critic.read(target_h), action)
        return self.target(batch, q, cost)

    def load_weights(self, weights: Any) -> None:
        super().load_weights(weights)
        self.target_policy.load_state_dict(self.policy.state_dict())


class SeparateActorCritic(ContinuousAgent):
    """Policy and critics with a memory each; the target network is a whole critic.

    The critics take their step first, then the policy, whose loss uses the new critics. Until then
    the policy's activations of all micro-batches are held.

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
        dropout_scope: str,
        per_action: int,
        **rates: Any,
    ) -> None:
        super().__init__(new_memory(), gamma, tau, lr, hidden_dims, dropout_scope, per_action)
        orthogonal_network_(memory)
        self.critic = Critic(memory, self.new_critic(memory, hidden_dims))
        self.target_critic = frozen_copy(self.critic)
        self.critic_optimizer, self.policy_optimizer = (
            adam(network.parameters(), lr, network.memory, **rates)
            for network in (self.critic, self.policy)
        )
        self.networks = {"policy": self.policy, "critic": self.critic}
        self.targets_and_optimizers = {
            "target_critic": self.target_critic,
            "policy_optimizer": self.policy_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }

    def next_outputs(self, batch: Episodes, outputs: Tensor) -> Tensor:
        """Return the outputs of a policy's head at h_1 .. h_T: these, or a target policy's."""
        raise NotImplementedError

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step of the critics on the batch, and one of the policy.

        Returns what :meth:`ActorCritic.update` returns, the gradient norms being those of the whole
        critic, the whole policy and their sequence models.
        """
        metrics: dict[str, Tensor] = {}
        n = batch.mask.sum().clamp(min=1)
        passes = []  # micro-batches, and the outputs of the policy's head there, at h_0 .. h_T
        set_training(self.policy, True)
        set_training(self.target_critic, self.dropout_everywhere)
        set_training(self.critic, True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        for rows in micro_batches(batch, ACTIVATIONS):
            outputs = self.policy(rows.obs, rows.action, rows.reward)
            passes.append((rows, outputs))
            target = self.target_of(rows, outputs[1:].detach())
            q = self.critic.heads(self.critic.read(*without_last_obs(rows)), rows.action)
            loss, means = twin_loss(q, rows, target, n)
            loss.backward()  # type: ignore[no-untyped-call]
            accumulate_(metrics, means)
        metrics |= {
            "critic_grad_norm": mean_grad_norm(self.critic.parameters()),
            "critic_seq_grad_norm": mean_grad_norm(self.critic.memory.seq_model.parameters()),
        }
        self.critic_optimizer.step()

        set_training(self.critic, self.dropout_everywhere)
        self.policy_optimizer.zero_grad(set_to_none=True)
        critic = frozen(self.critic.heads)
        for rows, outputs in passes:
            with torch.no_grad():
                read = self.critic.read(*without_last_obs(rows))
            loss, means = self.policy_loss(critic, read, outputs[:-1], rows.mask, n)
            loss.backward()  # type: ignore[no-untyped-call]
            accumulate_(metrics, means)
        metrics |= {
            "policy_grad_norm": mean_grad_norm(self.policy.parameters()),
            "policy_seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
        }
        self.policy_optimizer.step()
        self.update_targets()
        self.end_update(metrics)
        return {"loss": metrics["critic_loss"] + metrics["policy_loss"]} | metrics

    @torch.no_grad()
    def target_of(self, batch: Episodes, outputs: Tensor) -> Tensor:
        """Return the critics' target (T, B), for outputs of the policy's head at h_1 .. h_T."""
        action, cost = self.next_action(self.next_outputs(batch, outputs))
        read = self.target_critic.read(batch.obs, batch.action, batch.reward)[1:]
        return self.target(batch, self.target_critic.heads(read, action), cost)

    def update_targets(self) -> None:
        """Move the target networks towards those that learn."""
        polyak_(self.target_critic, self.critic, self.tau)


def frozen(critic: nn.Module) -> Any:
    """Return the critic as a function whose weights get no gradient, but its inputs do."""
    weights = {name: weight.detach() for name, weight in critic.named_parameters()}
    return lambda *inputs: functional_call(critic, weights, inputs)


def orthogonal_network_(memory: Memory, head: nn.Module | None = None, last_parts: int = 1) -> None:
    """Initialise as the paper's agents of continuous actions, which differ from the others.

    Linear layers of the encoder and of a head are orthogonal with zero biases, the last one in
    ``last_parts`` parts; LSTM and RNN layers are orthogonal gate by gate, and have one bias, not
    two: the other one stays 0. Other sequence models keep their initialisation.
    """
    layers = [layer for layer in memory.encoder.modules() if isinstance(layer, nn.Linear)]
    layers += [layer for layer in head or () if isinstance(layer, nn.Linear)]  # type: ignore[union-attr]
    for layer in layers:
        orthogonal_(layer.weight, last_parts if head is not None and layer is layers[-1] else 1)
        nn.init.zeros_(layer.bias)
    for cells in memory.seq_model.modules():
        if isinstance(cells, nn.RNNBase):
            gates = {"LSTM": 4, "GRU": 3}.get(cells.mode, 1)
            for name, weight in cells.named_parameters():
                if name.startswith("weight"):
                    orthogonal_(weight, gates)
                elif name.startswith("bias_ih") and cells.mode != "GRU":  # whose two biases differ
                    weight.requires_grad_(False)


def twin_loss(
    q: Tensor, batch: Episodes, target: Tensor, n: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the squared errors of both critics, summed, and metrics: masked means.

    Args:
        q: two estimates (2, T, B) for the actions of the batch.
        batch: a micro-batch of B windows.
        target: (T, B).
        n: real transitions of the whole batch.
    """
    loss = masked_mean((q - target).square().sum(0), batch.mask, n)
    q1, q2 = (masked_mean(each, batch.mask, n) for each in q.detach())
    return loss, {"critic_loss": loss.detach(), "q1": q1, "q2": q2}
