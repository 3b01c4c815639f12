"""What the agents share: acting with a memory, micro-batches, and the contents of a checkpoint.

T transitions, B batch, A actions, D width of a summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memrl.actions import Actions, ContinuousActions, DiscreteActions, no_action
from memrl.checks import require
from memrl.interfaces import Episodes, State
from memrl.memory import Memory
from memrl.networks import Head, polyak_, set_training

ALGORITHMS = {  # to use instead, by the form of actions that the chosen one takes
    DiscreteActions: "td3, sac, td3_separate or sac_separate",
    ContinuousActions: "dqn, sacd or sacd_separate",
}
CPU_INPUTS = 8192  # of a micro-batch, T x B: with more, activations no longer fit the caches
CPU_WINDOWS = 16  # of a micro-batch, at least: fewer rows starve recurrent matrix products


class ActionNetwork(nn.Module):
    """A memory and a head: ``per_action`` numbers for each action from a history."""

    def __init__(
        self, memory: Memory, hidden_dims: Sequence[int], last_init: float, per_action: int = 1
    ) -> None:
        super().__init__()
        self.memory = memory
        outputs = per_action * memory.actions.width
        self.head = Head(memory.output_dim, hidden_dims, outputs, last_init)

    def forward(
        self, obs: Tensor, action: Tensor, reward: Tensor, at: Tensor | None = None
    ) -> Tensor:
        """Map whole windows, as ``Memory.forward`` takes them, to (T + 1, B, per_action * A).

        With ``at`` (n,), only those steps, (n, B, per_action * A).
        """
        return self.head(self.memory(obs, action, reward, at))  # type: ignore[no-any-return]


class ActingState(NamedTuple):
    """The recurrent state of an agent: what acting carries from one step to the next."""

    memory: State
    prev_action: Tensor  # (B, ...); ``no_action`` before the first


class MemoryAgent:
    """An agent that acts with the memory and the head of one of its networks, ``actor``.

    An algorithm sets the attributes below. Names are those in a checkpoint.

    Args:
        actor: the acting network, its memory already on its device.
        gamma: discount, in [0, 1].
        tau: fraction of the online weights that enters the target each update, in (0, 1].
        lr: Adam's learning rate, above 0.
        dropout_scope: "everywhere" or "gradient"; each algorithm says what that means.
    """

    action_form: type[Actions] = DiscreteActions  # that it can take
    networks: dict[str, nn.Module]  # that learn
    targets_and_optimizers: dict[str, nn.Module | torch.optim.Optimizer]
    moving: list[tuple[nn.Module, nn.Module]]  # target networks, each with what it follows

    def __init__(
        self, actor: ActionNetwork, gamma: float, tau: float, lr: float, dropout_scope: str
    ) -> None:
        require(0 <= gamma <= 1, "gamma", "in [0, 1]", gamma)
        require(0 < tau <= 1, "tau", "in (0, 1]", tau)
        require(0 < lr < float("inf"), "lr", "above 0", lr)
        scopes = ("everywhere", "gradient")
        require(dropout_scope in scopes, "dropout_scope", " or ".join(scopes), dropout_scope)
        self.memory = actor.memory
        actions, form = self.memory.actions, self.action_form
        if not isinstance(actions, form):
            line = f"the task has {actions}, which {type(self).__name__} cannot take"
            raise ValueError(f"{line}: use algo={ALGORITHMS[form]}")
        self.device = next(self.memory.parameters()).device
        self.actor = actor.to(self.device)
        self.gamma = gamma
        self.tau = tau
        self.dropout_everywhere = dropout_scope == "everywhere"

    def choose(self, values: Tensor, explore: bool | int, obs: Tensor, before: Tensor) -> Tensor:
        """Choose actions (B, ...) from the outputs of the actor's head.

        ``obs`` is what the environments show, and ``before`` the actions of the step before.
        """
        raise NotImplementedError

    def action_scores(self, batch: Episodes) -> tuple[str, Tensor] | None:
        """Return what a greedy action has most of: its name, and the numbers (T + 1, B, A).

        None if actions are not chosen by such numbers.
        """
        return None

    @torch.no_grad()
    def head_outputs(self, batch: Episodes) -> Tensor:
        """Return what the actor's head gives in whole episodes, as acting in them does."""
        set_training(self.actor, False)
        x = self.memory.embed(batch.obs, batch.action, batch.reward)
        h, _ = self.memory.seq_model(x, self.memory.initial_state(x.shape[1]))
        return self.actor.head(h)  # type: ignore[no-any-return]

    def initial_state(self, batch_size: int) -> ActingState:
        before = no_action(self.memory.actions, batch_size, self.device)
        return ActingState(self.memory.initial_state(batch_size), before)

    @torch.no_grad()
    def act(
        self, obs: Tensor, prev_reward: Tensor, state: ActingState, explore: bool | int
    ) -> tuple[Tensor, ActingState]:
        set_training(self.actor, bool(explore) and self.dropout_everywhere)
        h, memory = self.memory.step(obs, state.prev_action, prev_reward, state.memory)
        action = self.choose(self.actor.head(h), explore, obs, state.prev_action)
        return action, ActingState(memory, action)

    def end_update(self, metrics: dict[str, Tensor]) -> None:
        """Move the target networks; a subclass may learn a temperature from the metrics too."""
        for target, online in self.moving:
            polyak_(target, online, self.tau)

    def state_dict(self) -> dict[str, Any]:
        holders = self.networks | self.targets_and_optimizers
        return {name: holder.state_dict() for name, holder in holders.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, holder in (self.networks | self.targets_and_optimizers).items():
            holder.load_state_dict(state[name])

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        for name, network in self.networks.items():
            for key, weight in network.named_parameters(prefix=name):
                if weight.requires_grad:
                    yield key, weight

    def weights(self) -> dict[str, Tensor]:
        return self.actor.state_dict()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.actor.load_state_dict(weights)
        for target, online in self.moving:
            target.load_state_dict(online.state_dict())


# --- batches -------------------------------------------------------------------------------------


def micro_batches(batch: Episodes, activations: int = 1) -> list[Episodes]:
    """Split a batch of windows (T, B, ...) along B; the last micro-batch may be smaller.

    Gradients of windows add up, so that the activations of one micro-batch are held at a time. On
    a GPU the batch stays whole.

    Args:
        activations: activation memory per input, relative to DQN's.
    """
    T, B = batch.mask.shape
    size = max(CPU_WINDOWS, CPU_INPUTS // activations // T)
    if size >= B or batch.mask.device.type != "cpu":
        return [batch]
    columns = [torch.split(column, size, dim=1) for column in batch]
    return [Episodes(*rows) for rows in zip(*columns, strict=True)]


def some_steps(batch: Episodes, count: int | None) -> Tensor | None:
    """Draw ``count`` of a batch's T transitions, ascending; None for all, or if there are no more.

    A quarter are the first ones and a quarter the last ones of a window, where an episode's
    rare events are; the others are drawn between these without replacement. ``count`` is a
    multiple of 4.
    """
    T, device = len(batch.mask), batch.mask.device
    if count is None or count >= T:
        return None
    ends, between = count // 4, count // 2
    steps = torch.arange(T, device=device)
    inner = steps[ends : T - ends]
    drawn = inner[torch.rand(len(inner), device=device).topk(between).indices.sort().values]
    return torch.cat([steps[:ends], drawn, steps[T - ends :]])


def masked_mean(x: Tensor, mask: Tensor, n: Tensor) -> Tensor:
    """Return what a micro-batch (T, B) adds to the mean over the batch's n real transitions."""
    return (x * mask).sum() / n


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


def without_last_obs(batch: Episodes) -> tuple[Tensor, Tensor, Tensor]:
    """Return the arguments of ``Memory.forward`` for windows that end one observation earlier."""
    return batch.obs[:-1], batch.action[:-1], batch.reward[:-1]
