"""The graph of a finite task's histories, as beliefs: what they tell of the state.

A node is a set of histories of the same length that end with the same observation and leave the
same belief; all that can still happen is the same after each of them. Letters: N nodes of a step,
A actions, E edges.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from memrl.envs.lockstep import Ints
from memrl.lengths.finite import END, Floats, Model, TooLarge

MOST_NODES = 8000  # of one step: pairs of them are compared
# Probabilities are compared as multiples of this. It is irrational, so that hardly any fraction
# lies between two of them, where rounding errors decide.
GRAIN = math.pi * 1e-10

Belief = dict[int, float]  # states and their probabilities


class Edges(NamedTuple):
    """Which node an action and what is observed then lead to, (E,) each."""

    source: Ints
    action: Ints
    target: Ints  # of the next step
    probability: Floats


class Step(NamedTuple):
    """The nodes of one step."""

    obs: Ints  # (N,) the last observation
    reward: Floats  # (N, A) its mean
    law: list[Any]  # of the next observation, or of the end, by action: equal if the laws are
    edges: Edges
    n_histories: list[int]  # of each node


def histories(model: Model, most: int = MOST_NODES) -> list[Step]:
    """Return the nodes of each step; every history that some behaviour can lead to is in one.

    Raises:
        TooLarge: a step has more than ``most`` nodes.
    """
    first: dict[int, Belief] = {}
    for p, state, obs in model.starts:
        if p:
            _add(first.setdefault(obs, {}), state, p)
    nodes = [_Node(obs, _normalized(belief), 1) for obs, belief in first.items()]
    graph: list[Step] = []
    for t, outcomes in enumerate(model.steps, 1):
        table: list[Any] = [part.tolist() for part in outcomes]  # by state, then by action
        following: list[_Node] = []
        number: dict[Hashable, int] = {}
        rewards, laws, edges = [], [], []
        for source, node in enumerate(nodes):
            for action in range(len(model.actions)):
                reward, law, after = _result(node.belief, action, table)
                rewards.append(reward)
                laws.append(_key(law))
                for obs, weights in after.items():
                    belief = _normalized(weights)
                    target = number.setdefault((obs, _key(belief)), len(number))
                    if target == len(following):
                        following.append(_Node(obs, belief, 0))
                    following[target].count += node.count
                    edges.append((source, action, target, law[obs]))
            if len(number) > most:
                n = sum(node.count for node in nodes)
                raise TooLarge(
                    f"{n:,} histories of {t} of {len(model.steps)} steps, and more than {most:,} "
                    f"different beliefs after the next one"
                )
        sources, actions, targets, chances = zip(*edges, strict=True) if edges else ((),) * 4
        A = len(model.actions)
        step = Step(
            np.array([node.obs for node in nodes]),
            np.array(rewards).reshape(-1, A),
            [tuple(laws[i : i + A]) for i in range(0, len(laws), A)],
            Edges(
                np.array(sources, np.int64),
                np.array(actions, np.int64),
                np.array(targets, np.int64),
                np.array(chances, np.float64),
            ),
            [node.count for node in nodes],
        )
        graph.append(step)
        nodes = following
    return graph


@dataclass
class _Node:
    obs: int
    belief: Belief
    count: int  # of its histories


def _add(belief: Belief, state: int, p: float) -> None:
    belief[state] = belief.get(state, 0.0) + p


def _normalized(belief: Belief) -> Belief:
    total = sum(belief.values())
    return {state: p / total for state, p in belief.items()}


def _key(chances: dict[int, float]) -> Hashable:
    """Return what is equal for equal probabilities."""
    return frozenset((name, round(p / GRAIN)) for name, p in chances.items())


def _result(
    belief: Belief, action: int, table: list[Any]
) -> tuple[float, dict[int, float], dict[int, Belief]]:
    """Return an action's mean reward, the law of the next observation, and the beliefs then."""
    probability, following, observed, paid = table
    reward = 0.0
    law: dict[int, float] = {}
    after: dict[int, Belief] = {}
    for state, weight in belief.items():
        outcomes = zip(
            probability[state][action],
            following[state][action],
            observed[state][action],
            paid[state][action],
            strict=True,
        )
        for p, next_state, obs, r in outcomes:
            if p:
                reward += weight * p * r
                _add(law, obs, weight * p)
                if next_state != END:
                    _add(after.setdefault(obs, {}), next_state, weight * p)
    return reward, law, after
