"""Memory lengths and the credit-assignment length of a finite task.

Definitions: Ni et al. 2023 ("When Do Transformers Shine in RL? Decoupling Memory from Credit
Assignment"), section 3. A history of t observations and the actions between them is compared with
histories of the same length only, and all that some behaviour can lead to count.

Letters: T steps, N nodes of a step (see :mod:`memrl.lengths.histories`), A actions, E edges.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from functools import reduce
from operator import and_
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memrl.checks import require
from memrl.envs.lockstep import Bools, Ints
from memrl.lengths.finite import Floats, TooLarge
from memrl.lengths.histories import Step

TOLERANCE = 1e-12  # of the largest reward: values that differ by less are equal
LEAST_DISCOUNT = 1e-9  # of a reward in the last step: less could not be told from rounding
MOST_CHOICES = 100_000  # ways to break ties, or sets of nodes, that are tried


class Pair(NamedTuple):
    """Two nodes of a step whose histories may agree in the last ``common`` observations."""

    t: int  # the number of observations, from 1
    nodes: tuple[int, int]
    common: int


class Lengths(NamedTuple):
    """What a task demands, in steps."""

    reward_memory: int
    transition_memory: int
    policy_memory: int
    value_memory: int
    credit: int
    policy_pair: Pair | None  # two histories that demand different actions
    histories: int
    nodes: int
    values: list[Floats]  # (N, A) for each step: Q of the optimal policies, over the largest reward


def measure(graph: Sequence[Step], gamma: float) -> Lengths:
    """Return the lengths of a task.

    Raises:
        TooLarge: ties between optimal actions leave too many policies to be searched.
        ValueError: ``gamma`` is not in [0, 1], or so small that rewards vanish.
    """
    require(0 <= gamma <= 1, "gamma", "in [0, 1]", gamma)
    T = len(graph)
    least = LEAST_DISCOUNT ** (1 / max(T - 1, 1))
    require(
        gamma == 0 or gamma >= least, "gamma", f"0, or at least {least:.3f} with {T} steps", gamma
    )
    # Of rewards of another size the lengths are the same.
    size = max(float(np.abs(step.reward).max()) for step in graph) or 1.0
    graph = [step._replace(reward=step.reward / size) for step in graph]
    values = optimal_values(graph, gamma)
    optimal = [find_optimal(q) for q in values]
    rewards = [_classes(step.reward) for step in graph]
    laws = [_numbered(step.law) for step in graph]
    value_classes = [_classes(q) for q in values]
    longest = dict.fromkeys(("reward", "transition", "policy", "value"), 1)
    policy_pair = None
    for t, common in enumerate(common_histories(graph)):
        differ = {
            "reward": _differ(rewards[t]),
            "transition": _differ(laws[t]),
            "value": _differ(value_classes[t]),
            "policy": ~(optimal[t][:, None] & optimal[t][None]).any(-1),
        }
        for name, pairs in differ.items():
            most = int(np.where(pairs, common, 0).max())
            if most + 1 > longest[name]:
                longest[name] = most + 1
                if name == "policy":
                    u, v = divmod(int(np.where(pairs, common, 0).argmax()), len(common))
                    policy_pair = Pair(t + 1, (u, v), most)
    return Lengths(
        longest["reward"],
        longest["transition"],
        _policy_memory(graph, optimal, longest["policy"]),
        longest["value"],
        credit_length(graph, gamma, values, optimal),
        policy_pair,
        sum(sum(step.n_histories) for step in graph),
        sum(len(step.obs) for step in graph),
        values,
    )


def find_optimal(q: Floats) -> Bools:
    """Return which actions are optimal, (..., A), given their values."""
    best: Bools = q >= q.max(-1, keepdims=True) - TOLERANCE
    return best


def optimal_values(graph: Sequence[Step], gamma: float) -> list[Floats]:
    """Return Q of the optimal policies, (N, A) for each step, by backward induction."""
    values: list[Floats] = []
    for step in reversed(graph):
        q = step.reward.copy()
        if len(step.edges.source):
            best = values[-1].max(1)
            gain = gamma * step.edges.probability * best[step.edges.target]
            np.add.at(q, (step.edges.source, step.edges.action), gain)
        values.append(q)
    return values[::-1]


def common_histories(graph: Sequence[Step]) -> Iterator[NDArray[np.int32]]:
    """Return, step by step, how much histories of two nodes may have in common, (N, N).

    It is the largest number of last observations that are equal, with the actions between them, of
    any history of the one and any of the other.
    """
    common = np.eye(len(graph[0].obs), dtype=np.int32)
    yield common
    for before, step in itertools.pairwise(graph):
        N = len(step.obs)
        best = np.zeros((N, N), np.int32)
        for action in range(before.reward.shape[1]):
            chosen = np.flatnonzero(before.edges.action == action)
            if not len(chosen):
                continue
            chosen = chosen[np.argsort(before.edges.target[chosen], kind="stable")]
            sources = before.edges.source[chosen]
            targets, first = np.unique(before.edges.target[chosen], return_index=True)
            pairs = np.maximum.reduceat(common[sources], first, axis=0)
            pairs = np.maximum.reduceat(pairs[:, sources], first, axis=1)
            at = np.ix_(targets, targets)
            best[at] = np.maximum(best[at], pairs)
        common = np.where(step.obs[:, None] == step.obs, best + 1, 0)
        yield common


def example(
    graph: Sequence[Step], pair: Pair
) -> tuple[list[tuple[int, int | None]], list[tuple[int, int | None]]]:
    """Return two histories of a pair: (observation, action after it), None after the last.

    They agree in the last ``pair.common`` observations, and in the actions between these.
    """
    commons = list(itertools.islice(common_histories(graph), pair.t))
    ways: list[dict[int, list[tuple[int, int]]]] = []  # to each node: (node before, action)
    for step in graph[: pair.t - 1]:
        table: dict[int, list[tuple[int, int]]] = {}
        for source, action, target, _ in zip(*map(np.ndarray.tolist, step.edges), strict=True):
            table.setdefault(target, []).append((source, action))
        ways.append(table)
    nodes = pair.nodes
    paths: tuple[list[tuple[int, int | None]], ...] = ([], [])
    after: tuple[int | None, int | None] = (None, None)
    for t in reversed(range(pair.t)):
        for path, node, action in zip(paths, nodes, after, strict=True):
            path.append((int(graph[t].obs[node]), action))
        if t:
            before = itertools.product(*(ways[t - 1][node] for node in nodes))
            # Those that agree most, and of these such as differ in the observation alone.
            (u, a), (v, b) = max(
                before,
                key=lambda ends: (
                    (ends[0][1] == ends[1][1]) * (1 + commons[t - 1][ends[0][0], ends[1][0]])
                ),
            )
            nodes, after = (u, v), (a, b)
    return paths[0][::-1], paths[1][::-1]


def _policy_memory(graph: Sequence[Step], optimal: Sequence[Bools], least: int) -> int:
    """Return the shortest memory of an optimal policy, given what pairs of histories demand.

    Three histories may have no optimal action in common although each two of them have. So sets of
    nodes are followed, of all histories that agree from some step on.
    """
    allowed = [[sum(1 << int(a) for a in np.flatnonzero(row)) for row in rows] for rows in optimal]
    if all(_pairs_suffice(step, masks) for step, masks in zip(graph, allowed, strict=True)):
        return least
    children: list[dict[tuple[int, int], dict[int, int]]] = []
    for step, following in itertools.zip_longest(graph, graph[1:]):
        table: dict[tuple[int, int], dict[int, int]] = {}
        for source, action, target, _ in zip(*map(np.ndarray.tolist, step.edges), strict=True):
            table.setdefault((source, action), {})[int(following.obs[target])] = target
        children.append(table)
    seen: list[set[frozenset[int]]] = [set() for _ in graph]
    for start, step in enumerate(graph):
        if len(graph) - start < least:
            break
        groups: dict[int, set[int]] = {}
        for node, obs in enumerate(step.obs.tolist()):
            groups.setdefault(obs, set()).add(node)
        frontier = {frozenset(group) for group in groups.values()}
        for t in range(start, len(graph)):
            frontier = {group for group in frontier if len(group) > 2} - seen[t]
            seen[t] |= frontier
            if sum(map(len, seen)) > MOST_CHOICES:
                raise TooLarge(f"more than {MOST_CHOICES:,} sets of histories that may be confused")
            for group in frontier:
                if not reduce(and_, (allowed[t][node] for node in group)):
                    least = max(least, t - start + 2)
            images: dict[tuple[frozenset[int], int, int], set[int]] = {}
            for group in frontier:
                for node in group:
                    for action in range(optimal[t].shape[1]):
                        for obs, target in children[t].get((node, action), {}).items():
                            images.setdefault((group, action, obs), set()).add(target)
            frontier = {frozenset(group) for group in images.values()}
    return least


def _pairs_suffice(step: Step, allowed: Sequence[int]) -> bool:
    """Tell whether nodes with the same observation have an action in common if any two have."""
    kinds: dict[int, set[int]] = {}
    for obs, mask in zip(step.obs.tolist(), allowed, strict=True):
        kinds.setdefault(obs, set()).add(mask)
    A = step.reward.shape[1]  # of more sets than actions, some A have no action in common either
    return all(
        reduce(and_, some) or any(not a & b for a, b in itertools.combinations(some, 2))
        for masks in kinds.values()
        if not reduce(and_, masks)
        for n in range(3, min(len(masks), A) + 1)
        for some in itertools.combinations(masks, n)
    )


class Choice(NamedTuple):
    """What optimal actions from a node on may lead to."""

    gains: Floats  # the mean sums of the next 1, 2, ... rewards
    credit: int  # the longest credit-assignment length from here on


def credit_length(
    graph: Sequence[Step], gamma: float, values: Sequence[Floats], optimal: Sequence[Bools]
) -> int:
    """Return the credit-assignment length: the least of deterministic optimal policies.

    A policy's is the longest of its histories'; a history's is the least n such that the mean sum
    of the next n rewards is larger after some greedy action than after all others.
    """
    following: list[list[Choice]] = []
    budget = itertools.repeat(None, MOST_CHOICES + sum(len(step.obs) for step in graph))
    for t in reversed(range(len(graph))):
        step, n = graph[t], len(graph) - t
        after: list[list[list[tuple[float, int]]]] = [[[] for _ in row] for row in step.reward]
        for source, action, target, p in zip(*map(np.ndarray.tolist, step.edges), strict=True):
            after[source][action].append((p, target))
        following = [
            _choices(step.reward[node], after[node], optimal[t][node], following, gamma, n, budget)
            for node in range(len(step.obs))
        ]
    return max(min(choice.credit for choice in choices) for choices in following)


def _choices(
    reward: Floats,
    after: list[list[tuple[float, int]]],
    is_optimal: Bools,
    following: list[list[Choice]],
    gamma: float,
    n: int,
    budget: Iterator[None],
) -> list[Choice]:
    """Return the choices of a node with ``n`` steps to go, those with the same gains only once."""
    edges = [(action, p, target) for action, row in enumerate(after) for p, target in row]
    best: dict[bytes, Choice] = {}
    combinations = itertools.product(*(following[target] for _, _, target in edges))
    for combination in combinations:
        if next(budget, True):
            raise TooLarge(f"more than {MOST_CHOICES:,} ways to break ties")
        gains = np.repeat(reward[:, None], n, axis=1)  # (A, n)
        for (action, p, _), choice in zip(edges, combination, strict=True):
            gains[action, 1:] += gamma * p * choice.gains
        credit = _credit(gains, is_optimal)
        credit = max([credit, *(choice.credit for choice in combination)])
        for action in np.flatnonzero(is_optimal).tolist():
            key = (np.round(gains[action], 9) + 0.0).tobytes()
            if key not in best or credit < best[key].credit:
                best[key] = Choice(gains[action], credit)
    return list(best.values())


def _credit(gains: Floats, is_optimal: Bools) -> int:
    """Return the credit-assignment length of one history."""
    if is_optimal.all():
        return 1
    ahead = gains[is_optimal].max(0) > gains[~is_optimal].max(0) + TOLERANCE
    ahead[-1] = True  # the whole sums are Q
    return int(ahead.argmax()) + 1


def _classes(rows: Floats) -> Ints:
    """Return a number for each row (N, ...), equal for rows that are equal within the tolerance."""
    order = np.sort(rows, axis=None)
    levels = order[np.flatnonzero(np.diff(order, prepend=-np.inf) > TOLERANCE)]
    return _numbered([tuple(row) for row in np.searchsorted(levels, rows, side="right").tolist()])


def _numbered(rows: Sequence[Hashable]) -> Ints:
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(row, len(seen)) for row in rows])


def _differ(numbers: Ints) -> Bools:
    differ: Bools = numbers[:, None] != numbers
    return differ
