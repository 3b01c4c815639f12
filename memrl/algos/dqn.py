"""Double DQN over histories (Ni et al. 2023; van Hasselt et al. 2016).

T transitions, B batch, A actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from memrl.algos.agent import (
    ActionNetwork,
    MemoryAgent,
    masked_mean,
    micro_batches,
    without_last_obs,
)
from memrl.checks import require, require_at_least
from memrl.interfaces import Episodes
from memrl.memory import Memory
from memrl.networks import accumulate_, adam, frozen_copy, mean_grad_norm, set_training


class DQN(MemoryAgent):
    """Epsilon-greedy acting and double-DQN updates with a soft target network.

    Rows of an exploring step that are inside their episodes count towards the epsilon schedule.
    ``gamma``, ``tau`` and ``lr`` are those of :class:`MemoryAgent`; ``memory_lr``,
    ``recurrence_lr`` and ``weight_decay`` those of :func:`~memrl.networks.adam`.

    Args:
        memory: already on its device.
        horizon: longest episode; the final epsilon is 1 / horizon.
        train_steps: environment steps of the run's budget.
        hidden_dims: widths of the head's hidden layers.
        explore_fraction: fraction of ``train_steps`` over which epsilon falls from 1 to
            1 / horizon, linearly; in (0, 1].
        dropout_scope: where dropout is active. "everywhere": in every forward pass of training,
            so also while exploring and in targets, as in the published program. "gradient": only
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
        memory_lr: float | None = None,
        recurrence_lr: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        require_at_least(1, horizon=horizon)
        require_at_least(0, train_steps=train_steps)
        network = ActionNetwork(memory, hidden_dims, last_init=3e-3)
        super().__init__(network, gamma, tau, lr, dropout_scope)
        require(0 < explore_fraction <= 1, "explore_fraction", "in (0, 1]", explore_fraction)
        self.online = self.actor
        self.target = frozen_copy(self.online)
        self.optimizer = adam(
            self.online.parameters(), lr, memory, memory_lr, recurrence_lr, weight_decay
        )
        self.networks = {"online": self.online}
        self.targets_and_optimizers = {"target": self.target, "optimizer": self.optimizer}
        self.moving = [(self.target, self.online)]
        self.shared_forward = shared_forward or not memory.has_dropout
        self.epsilon_end = 1 / horizon
        self.epsilon_steps = explore_fraction * train_steps
        self.explored_steps = 0
        self.epsilon_now = torch.ones((), device=self.device)  # for metrics: no host sync

    @property
    def epsilon(self) -> float:
        """Probability of a uniformly random action at the next exploring step."""
        if self.explored_steps >= self.epsilon_steps:
            return self.epsilon_end
        done = self.explored_steps / self.epsilon_steps
        return 1 + (self.epsilon_end - 1) * done

    def choose(self, values: Tensor, explore: bool | int) -> Tensor:
        action = values.argmax(-1)
        if explore:
            random = torch.randint_like(action, self.memory.actions.width)
            action = torch.where(torch.rand_like(values[:, 0]) < self.epsilon, random, action)
            self.explored_steps += len(action) if explore is True else explore
            self.epsilon_now.fill_(self.epsilon)
        return action

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step on the batch.

        Returns scalar tensors: ``loss`` and ``q``, means over real transitions; ``epsilon``; and
        the mean gradient norms of the network's tensors and of the sequence model's alone.
        """
        n = batch.mask.sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        metrics: dict[str, Tensor] = {}
        for rows in micro_batches(batch):
            prediction, target = self.predict(rows)
            loss = masked_mean((prediction - target).square(), rows.mask, n)
            loss.backward()  # type: ignore[no-untyped-call]
            q = masked_mean(prediction.detach(), rows.mask, n)
            accumulate_(metrics, {"loss": loss.detach(), "q": q})
        metrics |= {
            "epsilon": self.epsilon_now.clone(),
            "grad_norm": mean_grad_norm(self.online.parameters()),
            "seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
        }
        self.optimizer.step()
        self.end_update(metrics)
        return metrics

    def predict(self, batch: Episodes) -> tuple[Tensor, Tensor]:
        """Return Q(h_t, a_t) with gradient and its double-DQN target without, (T, B) each."""
        obs, action, reward = batch.obs, batch.action, batch.reward
        set_training(self.online, True)
        if self.shared_forward:
            q = self.online(obs, action, reward)  # (T + 1, B, A)
            prediction, q_next = q[:-1], q[1:].detach()
        else:
            prediction = self.online(*without_last_obs(batch))  # (T, B, A)
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
        return super().state_dict() | {"explored_steps": self.explored_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.explored_steps = state["explored_steps"]
        self.epsilon_now.fill_(self.epsilon)
