"""Double DQN over histories (Ni et al. 2023; van Hasselt et al. 2016).

T transitions, B batch, A actions, D width of a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from memrl.algos.checks import check_settings
from memrl.algos.parts import parts
from memrl.interfaces import Episodes
from memrl.memory import ActState, Memory
from memrl.networks import (
    Head,
    accumulate_,
    adam,
    frozen_copy,
    mean_grad_norm,
    polyak_,
    set_training,
)


class QNetwork(nn.Module):
    """Action values of a history: a memory and a head."""

    def __init__(self, memory: Memory, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.memory = memory
        self.head = Head(memory.output_dim, hidden_dims, memory.n_action, last_init=3e-3)

    def forward(self, obs: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        """Map whole windows, as ``Memory.forward`` takes them, to (T + 1, B, A)."""
        return self.head(self.memory(obs, action, reward))  # type: ignore[no-any-return]


class DQN:
    """Epsilon-greedy acting and double-DQN updates with a soft target network.

    Args:
        memory: encoder and sequence model, already on its device.
        horizon: longest episode; the final epsilon is 1 / horizon.
        train_steps: environment steps chosen by this agent in the whole run.
        gamma: discount, in [0, 1].
        tau: share of the online weights that enters the target each update, in (0, 1].
        lr: Adam's learning rate, above 0.
        hidden_dims: widths of the head's hidden layers.
        explore_fraction: share of ``train_steps`` after which epsilon has fallen from 1 to
            1 / horizon, linearly; in (0, 1].
        dropout_scope: where dropout is active. "everywhere": in every forward pass of training,
            so also while exploring and in targets, as the published program. "gradient": only
            in the pass that is differentiated (and the arg-max, if that pass gives it too).
        shared_forward: compute predictions and arg-max from one online forward pass instead of
            two. Without dropout this changes nothing, and it is then always done.
    """

    def __init__(
        self,
        memory: Memory,
        horizon: int,
        train_steps: int,
        gamma: float,
        tau: float,
        lr: float,
        hidden_dims: Sequence[int],
        explore_fraction: float,
        dropout_scope: Literal["everywhere", "gradient"],
        shared_forward: bool,
    ) -> None:
        for name, steps, least in (("horizon", horizon, 1), ("train_steps", train_steps, 0)):
            if steps < least:
                raise ValueError(f"{name} must be at least {least}, got {steps}")
        check_settings(gamma, tau, lr, dropout_scope)
        if not 0 < explore_fraction <= 1:
            raise ValueError(f"explore_fraction must be in (0, 1], got {explore_fraction}")
        device = next(memory.parameters()).device
        self.memory = memory
        self.online = QNetwork(memory, hidden_dims).to(device)
        self.target = frozen_copy(self.online)
        self.optimizer = adam(self.online.parameters(), lr)
        self.gamma = gamma
        self.tau = tau
        self.dropout_everywhere = dropout_scope == "everywhere"
        self.shared_forward = shared_forward or not memory.has_dropout
        self.epsilon_end = 1 / horizon
        self.epsilon_steps = explore_fraction * train_steps
        self.explored_steps = 0
        self.epsilon_now = torch.ones((), device=device)  # for metrics, where nothing may wait

    @property
    def epsilon(self) -> float:
        """Probability of a uniformly random action at the next exploring step."""
        if self.explored_steps >= self.epsilon_steps:
            return self.epsilon_end
        done = self.explored_steps / self.epsilon_steps
        return 1 + (self.epsilon_end - 1) * done

    def initial_state(self, batch_size: int) -> ActState:
        """Return the state of ``batch_size`` episodes about to begin."""
        return self.memory.begin(batch_size)

    @torch.no_grad()
    def act(
        self, obs: Tensor, prev_reward: Tensor, state: ActState, explore: bool
    ) -> tuple[Tensor, ActState]:
        """Return actions (B,) int64: epsilon-greedy if ``explore``, else greedy.

        Every row of an exploring step counts towards the epsilon schedule.
        """
        set_training(self.online, explore and self.dropout_everywhere)
        h, memory = self.memory.step(obs, state.prev_action, prev_reward, state.memory)
        action = self.online.head(h).argmax(-1)
        if explore:
            random = torch.randint_like(action, self.memory.n_action)
            action = torch.where(torch.rand_like(h[:, 0]) < self.epsilon, random, action)
            self.explored_steps += len(action)
            self.epsilon_now.fill_(self.epsilon)
        return action, ActState(memory, action)

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step on the batch.

        Returns scalar tensors: ``loss`` and ``q``, means over real transitions; ``epsilon``; and
        the mean gradient norms of the network's tensors and of the sequence model's alone.
        """
        n = batch.mask.sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        metrics: dict[str, Tensor] = {}
        for part in parts(batch):
            prediction, target = self.predict(part)
            loss = ((prediction - target).square() * part.mask).sum() / n
            loss.backward()  # type: ignore[no-untyped-call]
            q = (prediction.detach() * part.mask).sum() / n
            accumulate_(metrics, {"loss": loss.detach(), "q": q})
        metrics |= {
            "epsilon": self.epsilon_now.clone(),
            "grad_norm": mean_grad_norm(self.online.parameters()),
            "seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
        }
        self.optimizer.step()
        polyak_(self.target, self.online, self.tau)
        return metrics

    def predict(self, batch: Episodes) -> tuple[Tensor, Tensor]:
        """Return Q(h_t, a_t) with gradient and its double-DQN target without, (T, B) each."""
        obs, action, reward = batch.obs, batch.action, batch.reward
        set_training(self.online, True)
        if self.shared_forward:
            q = self.online(obs, action, reward)  # (T + 1, B, A)
            prediction, q_next = q[:-1], q[1:].detach()
        else:  # no input of the last observation, so that no gradient passes through it
            prediction = self.online(obs[:-1], action[:-1], reward[:-1])  # (T, B, A)
            set_training(self.online, self.dropout_everywhere)
            with torch.no_grad():
                q_next = self.online(obs, action, reward)[1:]
        set_training(self.target, self.dropout_everywhere)
        with torch.no_grad():
            best = q_next.argmax(-1, keepdim=True)
            value = self.target(obs, action, reward)[1:].gather(-1, best).squeeze(-1)  # (T, B)
            target = reward + self.gamma * value * ~batch.terminated
        return prediction.gather(-1, action.unsqueeze(-1)).squeeze(-1), target

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next ``act`` and ``update`` depend on, random generators aside."""
        return {
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "explored_steps": self.explored_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.explored_steps = state["explored_steps"]
        self.epsilon_now.fill_(self.epsilon)

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """Return all that the optimiser moves, by name."""
        return self.online.named_parameters()

    def weights(self) -> dict[str, Tensor]:
        """Return what greedy acting needs, by name."""
        return self.online.state_dict()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Restore what ``weights`` returned."""
        self.online.load_state_dict(weights)
