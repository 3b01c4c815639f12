"""The T-Maze: remember, at the end of a corridor, what was seen at its beginning.

Cells are integer pairs. The corridor is (x, 0) for x from 0 to the junction J = oracle length +
corridor length; the two arms are (J, -1) and (J, +1). The oracle, cell (0, 0), shows the goal's
side once per episode, at the first observation made there. The agent starts ``oracle_length`` cells
to its right and is paid for standing in the goal's arm when the episode ends.

The task, its Passive and its Active variant are those of Ni et al. 2023 ("When Do Transformers
Shine in RL? Decoupling Memory from Credit Assignment"). Letters: B environments, D width of an
observation, T horizon.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partialmethod
from numbers import Integral
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from memrl.checks import require
from memrl.envs.lockstep import (
    Bools,
    Images,
    Ints,
    Lockstep,
    Rewards,
    check_finite,
    check_integer,
    enlarge,
)

Obs = NDArray[np.float32]

GYMNASIUM_NAMES = {
    "TMaze": "TMazeVec",
    "TMazePassive": "TMazePassiveVec",
    "TMazeActive": "TMazeActiveVec",
}

# Actions: 0 right, 1 up, 2 left, 3 down.
_DX = np.array([1, 0, -1, 0])
_DY = np.array([0, 1, 0, -1])
_STATE = ("x", "y", "t", "oracle_visited", "_exposure")  # what a step changes
_REACH = 12  # cells that a picture shows to each side of the agent
_CELL = 20  # pixels
_AGENT, _GOAL, _ORACLE = (228, 148, 109), (0, 170, 0), (134, 206, 235)


class TMazeVec(Lockstep):
    """B T-Mazes in lock-step, without autoreset: every episode has ``horizon`` steps.

    With several lengths, each episode draws its own, and ``horizon`` is that of the longest: a row
    that is over stays as it is, is paid 0 and not terminated again, until all rows are.

    Actions are integers (B,): 0 right, 1 up, 2 left, 3 down; a move into a wall does nothing.

    Observations are float32 (B, D). With ``ambiguous_position``, ``(0, e)`` at the oracle,
    ``(0, 0)`` in the corridor and ``(1, y)`` at the junction and in the arms, where the exposure
    ``e`` is the goal's side (-1 or +1) the first time the agent is observed at the oracle, else 0.
    Otherwise ``(x, y, e)``, or with ``expose_goal`` ``(x, y, g)``, g being the goal's side from
    that first time on. ``add_timestep`` appends the number of steps made.

    The last step of an episode is terminated; nothing is truncated. It pays ``goal_reward`` in the
    goal's arm, else 0. Every other step pays ``distract_reward`` at the oracle, plus ``penalty`` by
    ``penalty_rule``: "late" when the agent is behind the pace of one cell a step, x < t -
    oracle_length, t counting this step; "not_right" for any action but 0 once t > oracle_length,
    wherever the agent stands.

    The state is in the arrays ``x``, ``y``, ``t``, ``goal`` (int64) and ``oracle_visited`` (bool),
    all (B,): to be read, not written. So are the corridors' lengths, in ``corridor``, int64 (B,),
    or a number if there is only one.
    """

    legend: ClassVar = {"agent": _AGENT, "goal": _GOAL, "oracle": _ORACLE}
    action_names = ("right", "up", "left", "down")
    state_names = ("t", "x", "y", "goal", "oracle_visited", "_exposure")

    def __init__(
        self,
        *,
        num_envs: int = 1,
        length: int | Sequence[int] = 10,
        oracle_length: int = 0,
        episode_length: int | None = None,
        goal_reward: float = 1.0,
        penalty: float | None = 0.0,
        penalty_rule: Literal["late", "not_right"] = "late",
        distract_reward: float = 0.0,
        ambiguous_position: bool = False,
        expose_goal: bool = False,
        add_timestep: bool = False,
        render_mode: str | None = None,
    ) -> None:
        """Build B mazes.

        Args:
            length: Cells from the start to the junction, or a list: each episode draws one of it.
            oracle_length: Cells from the oracle to the start.
            episode_length: The horizon; None for ``length + 2 * oracle_length + 1``, just enough.
            penalty: What a penalised step is paid, at most 0; None for ``-1 / length``, the length
                being the episode's.
            distract_reward: Reward of standing at the oracle; must be 0 with the rule "not_right".
            ambiguous_position: Hide where in the corridor the agent is.
            expose_goal: Keep showing the goal once seen; only without ``ambiguous_position``.
            add_timestep: Append the step counter to the observation.
        """
        longest = _longest(length)
        check_integer("oracle_length", oracle_length, 0)
        self._lengths = None if isinstance(length, Integral) else np.array(length, np.int64)
        ok = self._lengths is None or episode_length is None
        require(ok, "episode_length", "null with a list of lengths", episode_length)
        if episode_length is None:
            episode_length = longest + 2 * oracle_length + 1
        check_integer("episode_length", episode_length, 1)
        self._has_relative_penalty = penalty is None
        penalty = -1 / longest if penalty is None else penalty
        check_finite(goal_reward=goal_reward, penalty=penalty, distract_reward=distract_reward)
        require(penalty <= 0, "penalty", "at most 0", penalty)
        self.length = length
        self.oracle_length = oracle_length
        self.goal_reward = goal_reward
        self.penalty: float | Rewards = penalty
        self.penalty_rule = penalty_rule
        self.distract_reward = distract_reward
        self.ambiguous_position = ambiguous_position
        self.expose_goal = expose_goal
        self.add_timestep = add_timestep
        self._check_rules()
        self._last_junction = oracle_length + longest
        super().__init__(num_envs, episode_length, self._box(episode_length), 4, render_mode)
        self._set_corridors(longest if self._lengths is None else np.full(num_envs, longest))
        self.x: Ints = np.full(num_envs, oracle_length)
        self.y: Ints = np.zeros(num_envs, np.int64)
        self.goal: Ints = np.zeros(num_envs, np.int64)
        self.oracle_visited: Bools = np.zeros(num_envs, np.bool_)
        self._exposure: Ints = np.zeros(num_envs, np.int64)

    def _check_rules(self) -> None:
        ok = self.penalty_rule in ("late", "not_right")
        require(ok, "penalty_rule", "'late' or 'not_right'", repr(self.penalty_rule))
        ok = self.penalty_rule == "late" or self.distract_reward == 0
        require(ok, "distract_reward", "0 with penalty_rule 'not_right'", self.distract_reward)
        ok = not (self.expose_goal and self.ambiguous_position)
        require(ok, "expose_goal", "False with ambiguous_position", self.expose_goal)

    def _box(self, episode_length: int) -> gymnasium.spaces.Box:
        low, high = [-1, -1], [1, 1]
        if not self.ambiguous_position:
            low, high = [0, -1, -1], [self._last_junction, 1, 1]
        if self.add_timestep:
            low, high = [*low, 0], [*high, episode_length]
        return gymnasium.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start episodes; the option ``goal`` is the goal's side, -1 or +1, one number or (B,).

        With several lengths, the option ``length`` is one of them, or (B,).
        """
        options, shape = options or {}, (self.num_envs,)
        names = ["goal"] if self._lengths is None else ["goal", "length"]
        mask = self.read_mask(options, names)
        goal = self._read_option("goal", options, (-1, 1))
        length = self._read_option("length", options, self._lengths)
        super().reset(seed=seed)
        drawn = 2 * self.np_random.integers(2, size=shape) - 1
        self.goal = np.where(mask, drawn if goal is None else goal, self.goal)
        if self._lengths is not None:
            drawn = self._lengths[self.np_random.integers(len(self._lengths), size=shape)]
            new = drawn if length is None else length
            self._set_corridors(np.where(mask, new, self.corridor))
        self.x = np.where(mask, self.oracle_length, self.x)
        self.y = np.where(mask, 0, self.y)
        self.t = np.where(mask, 0, self.t)
        self.oracle_visited = self.oracle_visited & ~mask
        self._exposure = np.where(mask, self._expose(), self._exposure)
        return self._observe(), {}

    def starts(self) -> Iterator[tuple[float, dict[str, Any]]]:
        require(self._lengths is None, "length", "one number", self.length)
        return ((0.5, {"goal": goal}) for goal in (-1, 1))

    def _read_option(self, name: str, options: dict[str, Any], allowed: Any) -> Ints | None:
        """Return an option, one number or (B,), all of them ``allowed``; None if it is not set."""
        if name not in options:
            return None
        value, shape = np.asarray(options[name]), (self.num_envs,)
        ok = value.dtype.kind in "iuf" and value.shape in ((), shape)
        ok = ok and bool(np.isin(value, allowed).all())
        text = " or ".join(map(str, allowed))
        require(ok, name, f"{text}, one or an array of shape {shape}", value)
        return value.astype(np.int64)

    def _set_corridors(self, corridor: Ints | int) -> None:
        """Give every episode its length, (B,) or one for all, and what depends on that."""
        self.corridor = corridor
        self._junction = self.oracle_length + corridor
        if self._lengths is not None:
            self.end = corridor + 2 * self.oracle_length + 1
            self.first_end = int(np.min(self.end))
        if self._has_relative_penalty:
            self.penalty = -1 / corridor

    def step(self, actions: Ints) -> tuple[Obs, Rewards, Bools, Bools, dict[str, Any]]:
        action = self.read_actions(actions)
        before = () if self._lengths is None else [getattr(self, name) for name in _STATE]
        live = self.t < self.end if before else None
        self.t = self.t + 1
        # An action moves along x or along y, never both; x moves off the arms, y at the junction.
        self.x = self.x + _DX[action] * (self.y == 0)
        self.x = np.minimum(np.maximum(self.x, 0), self._junction)
        self.y = self.y + _DY[action] * (self.x == self._junction)
        self.y = np.minimum(np.maximum(self.y, -1), 1)

        terminated: Bools = self.t >= self.end
        reward = self._reward(action, terminated)
        self._exposure = self._expose()
        if live is not None:  # rows that were over stay as they are
            reward, terminated = reward * live, terminated & live
            for name, value in zip(_STATE, before, strict=True):
                setattr(self, name, np.where(live, getattr(self, name), value))
        return self._observe(), reward, terminated, np.zeros(self.num_envs, np.bool_), {}

    def _reward(self, action: NDArray[Any], last: Bools) -> Rewards:
        if self.penalty_rule == "late":
            penalised = self.x < self.t - self.oracle_length
        else:
            penalised = (action != 0) & (self.t > self.oracle_length)
        before = np.where(penalised, self.penalty, 0.0) + self.distract_reward * (self.x == 0)
        reward: Rewards = np.where(last, self.goal_reward * (self.y == self.goal), before)
        return reward

    def _expose(self) -> Ints:
        """Return what the oracle shows (B,), and remember that it did."""
        at_oracle = self.x == 0
        exposure = np.where(at_oracle & ~self.oracle_visited, self.goal, 0)
        self.oracle_visited = self.oracle_visited | at_oracle
        return exposure

    def _observe(self) -> Obs:
        obs = np.empty(self.obs_shape, np.float32)
        if self.ambiguous_position:
            obs[:, 0] = self.x == self._junction
            obs[:, 1] = self.y + self._exposure  # y is 0 except at x = J, the exposure at x = 0
        else:
            obs[:, 0] = self.x
            obs[:, 1] = self.y
            obs[:, 2] = self.goal * self.oracle_visited if self.expose_goal else self._exposure
        if self.add_timestep:
            obs[:, -1] = self.t
        return obs

    def draw(self, b: int) -> Images:
        """Return the maze, or the cells around the agent: the goal's arm green, the oracle blue.

        While the oracle shows the goal's side, the wall on that side of it is green. Three dots
        in the margin mean that the corridor goes on there.
        """
        x, goal, cells_in_x = int(self.x[b]), int(self.goal[b]), self._last_junction + 1
        junction = int(np.broadcast_to(self._junction, self.num_envs)[b])
        width = min(cells_in_x, 2 * _REACH + 1)
        first = min(max(x - _REACH, 0), cells_in_x - width)
        cells = np.full((3, cells_in_x, 3), 25, np.uint8)  # rows: y = 1, 0, -1
        cells[1, : junction + 1] = cells[:, junction] = 204
        cells[1, 0] = _ORACLE
        cells[1 - goal, junction] = _GOAL
        if self._exposure[b]:
            cells[1 - goal, 0] = _GOAL
        cells[1 - int(self.y[b]), x] = _AGENT
        cells = np.pad(cells[:, first : first + width], ((1, 1), (1, 1), (0, 0)))
        image = enlarge(cells, _CELL)
        middle = 2 * _CELL + _CELL // 2  # of the corridor's row
        for goes_on, left in ((first > 0, 0), (first + width <= junction, (width + 1) * _CELL)):
            if goes_on:
                for dot in range(4, _CELL, 5):
                    image[middle - 1 : middle + 2, left + dot : left + dot + 3] = 230
        return image


def _longest(length: int | Sequence[int]) -> int:
    """Return a length, or the longest of several.

    Raises:
        ValueError: it is neither, or a length is repeated.
    """
    if isinstance(length, str) or not isinstance(length, Sequence | np.ndarray):
        check_integer("length", length, 1)
        return length
    ok = all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 1 for n in length)
    ok = ok and 0 < len({*length}) == len(length)
    require(ok, "length", "an integer of at least 1, or a list of distinct ones", length)
    return int(max(length))


class TMazePassiveVec(TMazeVec):
    """The Passive T-Maze: the agent starts at the oracle, and has to remember.

    The horizon is ``length + 1``: the goal is in the first observation and needed at the last step.
    """

    # By partialmethod, so that the signature is still the schema of the keys.
    __init__ = partialmethod(
        TMazeVec.__init__, oracle_length=0, penalty=None, ambiguous_position=True
    )


class TMazeActiveVec(TMazeVec):
    """The Active T-Maze: the oracle is one cell to the left, and looking pays only at the end.

    The horizon is ``length + 3``: a step to the oracle, ``length + 1`` to the junction, the arm.
    """

    __init__ = partialmethod(
        TMazeVec.__init__, oracle_length=1, penalty=None, ambiguous_position=True
    )
