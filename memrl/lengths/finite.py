"""Tasks with finitely many states, enumerated step by step.

Letters: T horizon, S states of a step, A actions, K outcomes of an action, B environments.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from numpy.typing import NDArray

from memrl.checks import require
from memrl.envs.lockstep import Ints, Lockstep, name_actions

Floats = NDArray[np.float64]

MOST_STATES = 200_000  # of one step
Name = tuple[str, str]  # of an attribute, and of an entry in it if it is a dict
END = -1  # instead of a state and an observation, once an episode is over


class TooLarge(ValueError):
    """The task has too many states or histories."""


class FiniteTask(Protocol):
    """What a task has to tell of itself; states and observations are anything hashable."""

    def starts(self) -> Iterable[tuple[float, Hashable, Hashable]]:
        """Return how an episode may start: (probability, state, observation)."""

    def transitions(
        self, state: Any, action: int
    ) -> Iterable[tuple[float, Hashable, Hashable, float, bool]]:
        """Return what an action may lead to.

        Each is (probability, next state, next observation, reward, whether the episode ends).
        """


class NotFinite(ValueError):
    """The task does not say what its actions may lead to."""


class Outcomes(NamedTuple):
    """What each action may lead to in each state of one step, (S, A, K) each.

    Outcomes of probability 0 fill up the third axis; their other entries are 0.
    """

    probability: Floats
    state: Ints  # the next step's, or END
    obs: Ints  # the next step's, or END
    reward: Floats


class Model(NamedTuple):
    """A finite task with a horizon; states and observations are numbers.

    States that differ in nothing that can still happen are one, and each step numbers its own.
    """

    starts: list[tuple[float, int, int]]  # probability, state, observation
    steps: list[Outcomes]  # T
    observations: list[Any]  # what the numbers stand for
    actions: Sequence[str]  # names


def model_of(env: Any) -> Model:
    """Return the model of a vector environment with one task.

    Raises:
        NotFinite: it is no task of which this can be known.
        TooLarge: it has too many states.
        ValueError: one of its keys makes it so; the message begins with its name.
    """
    if isinstance(env, Lockstep):
        if not env.state_names:
            raise NotFinite("it has no attribute state_names")
        return enumerate_lockstep(env)
    horizon = env.horizon
    if not isinstance(env.single_action_space, Discrete):
        raise NotFinite("its actions are not discrete")
    task = env.envs[0] if hasattr(env, "envs") else env
    while task is not task.unwrapped:
        if isinstance(task, TimeLimit):
            horizon = min(horizon, task._max_episode_steps)  # it has no public name
        elif not isinstance(task, OrderEnforcing | PassiveEnvChecker):
            raise NotFinite(f"it has the wrapper {type(task).__name__}")
        task = task.env
    if getattr(task, "fickle_passenger", False):  # of Taxi
        raise NotFinite("its table P leaves out that passengers change their minds")
    n = int(env.single_action_space.n)
    names = name_actions(task, n)
    if hasattr(task, "P") and hasattr(task, "initial_state_distrib"):
        task = TableTask(task)
    if not (hasattr(task, "starts") and hasattr(task, "transitions")):
        raise NotFinite("it has no methods starts and transitions")
    return enumerate_task(task, horizon, names)


def enumerate_task(
    task: FiniteTask, horizon: int, actions: Sequence[str], most: int = MOST_STATES
) -> Model:
    """Return the model of a task.

    Raises:
        TooLarge: a step has more than ``most`` states.
    """
    seen: dict[Hashable, int] = {}

    def number(name: Hashable, numbers: dict[Hashable, int]) -> int:
        try:
            return numbers.setdefault(name, len(numbers))
        except TypeError:
            text = "states and observations must be hashable, such as tuples and numbers"
            raise ValueError(f"{text}, got {name!r}") from None

    states: dict[Hashable, int] = {}
    starts = [
        (p, number(s, states), number(obs, seen))
        for p, s, obs in itertools.islice(task.starts(), most + 1)
    ]
    _check_states(len(starts), 1, most)
    _check_sum("starts", [p for p, _, _ in starts])
    steps = []
    for t in range(1, horizon + 1):
        following: dict[Hashable, int] = {}
        rows = []
        for state in states:
            for action in range(len(actions)):
                row = []
                name = f"transitions of {state!r} and {action}"
                for p, s, obs, reward, ends in task.transitions(state, action):
                    require(math.isfinite(reward), name, "with finite rewards", reward)
                    if ends or t == horizon:
                        row.append((p, END, END, reward))
                    elif p:
                        row.append((p, number(s, following), number(obs, seen), reward))
                _check_sum(name, [p for p, *_ in row])
                rows.append(row)
            _check_states(len(following), t + 1, most)
        steps.append(_outcomes(rows, len(states), len(actions)))
        states = following
        if not states:
            break
    return _merge_states(Model(starts, steps, list(seen), actions))


class TableTask:
    """One of Gymnasium's toy tasks, such as FrozenLake, whose state is its observation."""

    def __init__(self, env: Any) -> None:
        self._table = env.P  # state -> action -> [(probability, next state, reward, end)]
        self._starts = env.initial_state_distrib

    def starts(self) -> Iterable[tuple[float, int, int]]:
        return [(float(p), s, s) for s, p in enumerate(self._starts) if p]

    def transitions(self, state: int, action: int) -> Iterable[tuple[float, int, int, float, bool]]:
        return [(p, s, s, float(r), bool(end)) for p, s, r, end in self._table[state][action]]


def enumerate_lockstep(env: Lockstep, most: int = MOST_STATES) -> Model:
    """Return the model of a task whose only chance is in how an episode starts, by playing it.

    Raises:
        TooLarge: a step has more than ``most`` states.
        ValueError: it has a key that makes it infinite.
    """
    seen: dict[bytes, int] = {}
    pictures: list[Any] = []

    def numbers(obs: NDArray[Any]) -> Ints:
        obs = obs + np.zeros((), obs.dtype)  # no -0.0
        distinct, inverse = _distinct(obs.reshape(len(obs), -1))
        for row in obs[distinct]:
            if row.tobytes() not in seen:
                seen[row.tobytes()] = len(seen)
                pictures.append(row.copy())
        return np.array([seen[row.tobytes()] for row in obs[distinct]])[inverse]

    ways = [*itertools.islice(env.starts(), most + 1)]
    _check_states(len(ways), 1, most)
    chances, options = zip(*ways, strict=True)
    _check_sum("starts", list(chances))
    play = _Player(env)
    states, obs = play.start(options)
    distinct, inverse = _distinct_states(states)
    starts = list(zip(chances, inverse.tolist(), numbers(obs).tolist(), strict=True))
    steps = []
    for t in range(1, env.horizon + 1):
        states = {name: value[distinct] for name, value in states.items()}
        S, A = len(distinct), env.n_action
        states, obs, reward, over = play.step(
            {name: value.repeat(A, axis=0) for name, value in states.items()},
            np.tile(np.arange(A), S),
        )
        over |= t == env.horizon
        following, known = np.full(S * A, END), np.full(S * A, END)
        if not over.all():
            states = {name: value[~over] for name, value in states.items()}
            distinct, following[~over] = _distinct_states(states)
            known[~over] = numbers(obs[~over])
            _check_states(len(distinct), t + 1, most)
        shape = (S, A, 1)
        steps.append(
            Outcomes(
                np.ones(shape),
                following.reshape(shape),
                known.reshape(shape),
                np.asarray(reward, np.float64).reshape(shape),
            )
        )
        if over.all():
            break
    return _merge_states(Model(starts, steps, pictures, name_actions(env, env.n_action)))


class _Player:
    """Plays from given states, any number at a time, in an environment with B rows.

    A state is a dict of arrays, whose rows are the environments'.
    """

    def __init__(self, env: Lockstep) -> None:
        self.env = env

    def start(self, options: Sequence[Mapping[str, Any]]) -> tuple[dict[Name, Any], NDArray[Any]]:
        """Return the states that options of ``reset`` lead to, and what is observed there."""
        batches = []
        for rows in self._batches(len(options)):
            names = options[0]
            chosen = {name: np.stack([options[row][name] for row in rows]) for name in names}
            obs, _ = self.env.reset(options=chosen)
            batches.append((self._read(), obs))
        states, (obs,) = _join(batches, len(options))
        return states, obs

    def step(self, states: dict[Name, Any], actions: Ints) -> tuple[dict[Name, Any], Any, Any, Any]:
        """Return next states, observations, rewards, and which episodes have ended."""
        batches = []
        for rows in self._batches(len(actions)):
            self._write({name: value[rows] for name, value in states.items()})
            obs, reward, terminated, _, _ = self.env.step(actions[rows])
            batches.append((self._read(), obs, reward, terminated))
        states, (obs, reward, terminated) = _join(batches, len(actions))
        return states, obs, reward, terminated

    def _batches(self, n: int) -> Iterable[Ints]:
        """Return the numbers 0 to n - 1 in groups of B; the last group is filled up with n - 1."""
        B = self.env.num_envs
        return (np.minimum(np.arange(first, first + B), n - 1) for first in range(0, n, B))

    def _read(self) -> dict[Name, Any]:
        flat: dict[Name, Any] = {}
        for name in self.env.state_names:
            value = getattr(self.env, name)
            parts = value if isinstance(value, dict) else {"": value}
            flat |= {(name, key): np.array(part) for key, part in parts.items()}
        return flat

    def _write(self, states: dict[Name, Any]) -> None:
        for (name, key), value in states.items():
            if key:
                getattr(self.env, name)[key] = value
            else:
                setattr(self.env, name, value)


def _distinct_states(states: dict[Name, Any]) -> tuple[Ints, Ints]:
    """Return one row of each different state, and which of these every row has."""
    n = len(next(iter(states.values())))
    return _distinct(*(value.reshape(n, -1) for value in states.values()))


def _join(batches: list[tuple[Any, ...]], n: int) -> tuple[dict[Name, Any], list[Any]]:
    """Return the first ``n`` rows of batches that each begin with a state."""
    states, *others = zip(*batches, strict=True)
    joined = {name: np.concatenate([s[name] for s in states])[:n] for name in states[0]}
    return joined, [np.concatenate(parts)[:n] for parts in others]


def _check_sum(name: str, chances: list[float]) -> None:
    ok = all(p >= 0 for p in chances) and math.isclose(sum(chances), 1)
    require(ok, name, "probabilities that sum to 1", chances)


def _check_states(count: int, t: int, most: int) -> None:
    if count > most:
        raise TooLarge(f"{count:,} states at step {t} alone, and at most {most:,} are possible")


def _outcomes(rows: list[list[tuple[float, int, int, float]]], S: int, A: int) -> Outcomes:
    K = max(map(len, rows), default=1)
    table = np.array([row + [(0.0, 0, 0, 0.0)] * (K - len(row)) for row in rows], np.float64)
    p, state, obs, reward = np.moveaxis(table.reshape(S, A, K, 4), -1, 0)
    return Outcomes(p, state.astype(np.int64), obs.astype(np.int64), reward)


def _distinct(*columns: NDArray[Any]) -> tuple[Ints, Ints]:
    """Return the first of equal rows of these (N, ...), and for every row which of them it is."""
    data = [np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in columns]
    number: dict[bytes, int] = {}
    rows = np.concatenate(data, axis=1)
    inverse = np.array([number.setdefault(row.tobytes(), len(number)) for row in rows], np.int64)
    return np.unique(inverse, return_index=True)[1], inverse


def _merge_states(model: Model) -> Model:
    """Merge, from the last step to the first, states in which the same can happen."""
    steps: list[Outcomes] = []
    merged = np.zeros(0, np.int64)  # of each of the next step's states, which one it becomes
    for outcomes in reversed(model.steps):
        p, state, obs, reward = outcomes
        if len(merged):
            state = np.where((state != END) & (p > 0), merged[state], state)
        order = np.lexsort((p, reward, obs, state), axis=-1)
        p, reward = np.take_along_axis(p, order, -1), np.take_along_axis(reward, order, -1) + 0.0
        state, obs = np.take_along_axis(state, order, -1), np.take_along_axis(obs, order, -1)
        first, merged = _distinct(*(part.reshape(len(p), -1) for part in (p, state, obs, reward)))
        steps.append(Outcomes(p[first], state[first], obs[first], reward[first]))
    starts = [(p, int(merged[state]), obs) for p, state, obs in model.starts]
    return model._replace(starts=starts, steps=steps[::-1])
