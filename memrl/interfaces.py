"""The nouns everything else is built from. No logic, and nothing of ours is imported here.

Shape letters, used in every file that handles tensors:
T transitions (an episode or window has T + 1 observations), B batch, D width, A actions,
H heads, K width of a head. Tensors are time-major: (T, B, ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import gymnasium
    from torch import Tensor

State = Any
"""A recurrent state: opaque, new in each episode, passed on by the caller, dropped at its end.

All its rows are at the same time step, and no update of the weights happens while it is in use.
"""


class TaskSpec(NamedTuple):
    """What an agent needs to know about a task."""

    observation_space: gymnasium.Space[Any]  # of one environment
    action_space: gymnasium.Space[Any]  # of one environment
    horizon: int  # longest possible episode, in steps


class Episodes(NamedTuple):
    """B episodes, or windows of episodes; index t is the step from ``obs[t]`` to ``obs[t + 1]``."""

    obs: Tensor  # (T + 1, B, *obs_shape), the environment's dtype
    action: Tensor  # (T, B) int64 if discrete, else (T, B, *action_shape) float32
    reward: Tensor  # (T, B) float32; float64 as it comes from an environment
    terminated: Tensor  # (T, B) bool; no bootstrapping past this step
    mask: Tensor  # (T, B) bool; True inside the episode, False in the padding


class SequenceModel(Protocol):
    """A causal model of histories, with one law.

    A history fed whole or in pieces gives the same outputs (evaluation mode). Dropout, if any, is
    one of PyTorch's dropout modules or recurrent layers, so that it can be detected.
    """

    output_dim: int
    # A model may also have a method ``outputs_at(x, at)`` that maps whole histories (T, B, D) to
    # the outputs of the steps ``at`` (n,) alone, (n, B, output_dim), for less than the cost of all.

    def initial_state(self, batch_size: int) -> State:
        """Return the state of ``batch_size`` empty histories."""

    def __call__(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Map (T, B, D) to (T, B, output_dim), continuing from ``state``.

        Without a state the inputs are whole histories, and the returned state is None; with
        ``precision=bf16`` they are bfloat16, and the call is made inside ``torch.autocast``.
        """


class Actor(Protocol):
    """Acts; sees no environment."""

    def initial_state(self, batch_size: int) -> State:
        """Return the state of ``batch_size`` episodes about to begin."""

    def act(
        self, obs: Tensor, prev_reward: Tensor, state: State, explore: bool | int
    ) -> tuple[Tensor, State]:
        """Choose actions (B, ...) for observations (B, *obs_shape) and previous rewards (B,).

        Args:
            obs: what the environments show.
            prev_reward: of the step before; 0 at an episode's start.
            state: what ``initial_state`` or the last call returned.
            explore: False while evaluating; while collecting, how many of the rows are still inside
                their episodes (True: all are).
        """


class Agent(Actor, Protocol):
    """Acts and learns; sees no environment and no buffer."""

    memory: Any  # the ``Memory`` it acts with

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step; return its metrics, ``loss`` among them, without a host sync."""

    def diagnostics(self, batch: Episodes) -> dict[str, Tensor]:
        """Return metrics that are too expensive for every update; an agent may lack this."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that later calls depend on, except random generators."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """Return the network weights that are trained, by name."""

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that acting needs, by name."""

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Restore what ``weights`` returned; a target network is set to the same weights."""


class Logger(Protocol):
    """Receives the rows of the tables ``train`` and ``eval``."""

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Append one row; every row of a table has the same keys in the same order."""

    def close(self, exit_code: int) -> None:
        """Finish; a non-zero exit code marks the run as failed."""
