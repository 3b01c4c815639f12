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
    some_steps,
    without_last_obs,
)
from memrl.algos.exploration import VisitCounts
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
        start_epsilon: probability of a uniformly random first action of an exploring episode, in
            [0, 1]; None: epsilon.
        min_tries: while exploring, actions that were tried less often than this after the same
            observation and action come first, one of them at random; what is not known is worth
            trying, as in R-max (Brafman & Tennenholtz 2002). At least 0; 0 where observations
            never repeat, or every exploring action is random.
        loss_steps: None: an update's loss is the mean over all transitions of the windows. A
            multiple n of 4: over n of them, the first and the last n/4 always among them, see
            :func:`~memrl.algos.agent.some_steps`. GPT computes the others' keys and values only.
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
        start_epsilon: float | None = None,
        min_tries: int = 0,
        loss_steps: int | None = None,
    ) -> None:
        require_at_least(1, horizon=horizon)
        require_at_least(0, train_steps=train_steps)
        ok = start_epsilon is None or 0 <= start_epsilon <= 1
        require(ok, "start_epsilon", "null or in [0, 1]", start_epsilon)
        require_at_least(0, min_tries=min_tries)
        ok = loss_steps is None or (loss_steps >= 4 and loss_steps % 4 == 0)
        require(ok, "loss_steps", "null or a multiple of 4", loss_steps)
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
        self.loss_steps = loss_steps
        self.start_epsilon = start_epsilon
        self.min_tries = min_tries
        actions = memory.actions
        self.counts = VisitCounts(actions.width, self.device) if min_tries else None
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

    def choose(self, values: Tensor, explore: bool | int, obs: Tensor, before: Tensor) -> Tensor:
        if not explore:
            return values.argmax(-1)
        if self.counts is not None:
            rows = self.counts.rows(obs, before)
            rare = self.counts.table[rows] < self.min_tries
            drawn = torch.rand_like(values).masked_fill(~rare, -1.0)
            values = torch.where(rare.any(-1, keepdim=True), drawn, values)
        action = values.argmax(-1)
        random = torch.randint_like(action, self.memory.actions.width)
        draw = torch.rand_like(values[:, 0])
        is_random = draw < self.epsilon
        if self.start_epsilon is not None:
            is_first = before == self.memory.actions.no_action
            is_random = torch.where(is_first, draw < self.start_epsilon, is_random)
        action = torch.where(is_random, random, action)
        if self.counts is not None:
            self.counts.add(rows, action)
        self.explored_steps += len(action) if explore is True else explore
        self.epsilon_now.fill_(self.epsilon)
        return action

    def action_scores(self, batch: Episodes) -> tuple[str, Tensor]:
        return "Q", self.head_outputs(batch)

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step on the batch.

        Returns scalar tensors: ``loss`` and ``q``, means over real transitions; ``epsilon``; and
        the mean gradient norms of the network's tensors and of the sequence model's alone.
        """
        at = some_steps(batch, self.loss_steps)
        n = (batch.mask if at is None else batch.mask[at]).sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        metrics: dict[str, Tensor] = {}
        for rows in micro_batches(batch):
            mask = rows.mask if at is None else rows.mask[at]
            prediction, target = self.predict(rows, at)
            loss = masked_mean((prediction - target).square(), mask, n)
            loss.backward()  # type: ignore[no-untyped-call]
            q = masked_mean(prediction.detach(), mask, n)
            accumulate_(metrics, {"loss": loss.detach(), "q": q})
        metrics |= {
            "epsilon": self.epsilon_now.clone(),
            "grad_norm": mean_grad_norm(self.online.parameters()),
            "seq_grad_norm": mean_grad_norm(self.memory.seq_model.parameters()),
        }
        self.optimizer.step()
        self.end_update(metrics)
        return metrics

    def predict(self, batch: Episodes, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return Q(h_t, a_t) with gradient and its double-DQN target without, (T, B) each.

        With ``at`` (n,) both are those of these transitions, (n, B).
        """
        window = batch.obs, batch.action, batch.reward
        _, action, reward, terminated, _ = batch

        def following(network: ActionNetwork) -> Tensor:  # Q(h_(t + 1), .), (T or n, B, A)
            return network(*window)[1:] if at is None else network(*window, at + 1)  # type: ignore[no-any-return]

        set_training(self.online, True)
        if self.shared_forward:
            q = self.online(*window, None if at is None else torch.cat([at, at + 1]))
            prediction, q_next = (q[:-1], q[1:]) if at is None else q.chunk(2)
        else:
            prediction = self.online(*without_last_obs(batch), at)
            set_training(self.online, self.dropout_everywhere)
            with torch.no_grad():
                q_next = following(self.online)
        if at is not None:
            action, reward, terminated = action[at], reward[at], terminated[at]
        set_training(self.target, self.dropout_everywhere)
        with torch.no_grad():
            best = q_next.argmax(-1, keepdim=True)
            value = following(self.target).gather(-1, best).squeeze(-1)
            target = reward + self.gamma * value * ~terminated
        return prediction.gather(-1, action.unsqueeze(-1)).squeeze(-1), target

    def state_dict(self) -> dict[str, Any]:
        counts = {} if self.counts is None else {"counts": self.counts.table.cpu()}
        return super().state_dict() | {"explored_steps": self.explored_steps} | counts

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.explored_steps = state["explored_steps"]
        if self.counts is not None:
            self.counts.table.copy_(state["counts"])
        self.epsilon_now.fill_(self.epsilon)
