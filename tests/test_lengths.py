"""Memory and credit-assignment lengths: a second, brute-force computation, and the known tasks."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memrl.__main__ import main
from memrl.envs.gym import GymVec
from memrl.envs.key_to_door import KeyToDoorVec
from memrl.envs.memory_chain import MemoryChainVec
from memrl.envs.tmaze import TMazeActiveVec, TMazePassiveVec, TMazeVec
from memrl.envs.visual_match import VisualMatchVec
from memrl.lengths.finite import (
    END,
    TableTask,
    TooLarge,
    enumerate_lockstep,
    enumerate_task,
    model_of,
)
from memrl.lengths.histories import histories
from memrl.lengths.measure import Lengths, example, measure

# --- brute force: every history, every optimal policy ------------------------------------------

History = tuple[Any, ...]  # (o1, a1, o2, ..., ot)


class Task(NamedTuple):
    """A finite task: tables by state, and by state and action."""

    horizon: int
    start: list[tuple[float, int, int]]
    table: dict[tuple[int, int], list[tuple[float, int, int, float, bool]]]

    def starts(self) -> list[tuple[float, int, int]]:
        return self.start

    def transitions(self, state: int, action: int) -> list[tuple[float, int, int, float, bool]]:
        return self.table[state, action]


class Facts(NamedTuple):
    """What a history tells: mean rewards by action, and the laws of what is observed then."""

    reward: tuple[float, ...]
    law: tuple[dict[Any, float], ...]


def facts(task: Task, actions: range) -> dict[History, Facts]:
    """Return the facts of every history, by following the probability of all its states."""
    found: dict[History, Facts] = {}
    weights: dict[History, dict[int, float]] = {}
    for p, state, obs in task.start:
        if p:
            weights.setdefault((obs,), {}).setdefault(state, 0)
            weights[obs,][state] += p
    for t in range(1, task.horizon + 1):
        following: dict[History, dict[int, float]] = {}
        for history, states in weights.items():
            total = sum(states.values())
            rewards, laws = [], []
            for action in actions:
                reward, law = 0.0, {}
                for state, weight in states.items():
                    for p, after, obs, r, ends in task.table[state, action]:
                        if not p:
                            continue
                        reward += weight / total * p * r
                        seen = "end" if ends or t == task.horizon else obs
                        law[seen] = law.get(seen, 0) + weight / total * p
                        if seen != "end":
                            longer = (*history, action, obs)
                            mass = following.setdefault(longer, {})
                            mass[after] = mass.get(after, 0) + weight * p
                rewards.append(reward)
                laws.append(law)
            found[history] = Facts(tuple(rewards), tuple(laws))
        weights = following
    return found


def gains(
    known: dict[History, Facts], policy: dict[History, int], gamma: float, history: History, a: int
) -> list[float]:
    """Return the mean sums of the next 1, 2, ... rewards after an action and then a policy."""
    fact = known[history]
    parts = []
    for obs, p in fact.law[a].items():
        longer = (*history, a, obs)
        if obs != "end":
            parts.append((p, gains(known, policy, gamma, longer, policy[longer])))
    steps = max((len(part) for _, part in parts), default=0)
    sums = [fact.reward[a]]
    for n in range(steps):
        later = sum(p * part[min(n, len(part) - 1)] for p, part in parts)
        sums.append(fact.reward[a] + gamma * later)
    return sums


def shortest_memory(values: dict[History, Any], same: Any) -> int:
    """Return the smallest n such that the last n observations of a history decide its value."""
    longest = max((len(history) + 1) // 2 for history in values)
    for n in range(1, longest + 1):
        groups: dict[Any, list[Any]] = {}
        for history, value in values.items():
            groups.setdefault((len(history), history[-(2 * n - 1) :]), []).append(value)
        if all(same(value, group[0]) for group in groups.values() for value in group):
            return n
    raise AssertionError("a whole history decides everything")


def close(a: Any, b: Any) -> bool:
    return bool(np.allclose(a, b, rtol=0, atol=1e-7))


def same_laws(a: tuple[dict[Any, float], ...], b: tuple[dict[Any, float], ...]) -> bool:
    return all(
        all(abs(x.get(obs, 0) - y.get(obs, 0)) < 1e-7 for obs in {*x, *y})
        for x, y in zip(a, b, strict=True)
    )


def brute_force(task: Task, gamma: float, actions: range, most: int) -> tuple[int, ...]:
    known = facts(task, actions)
    some: dict[History, int] = {}
    q: dict[History, tuple[float, ...]] = {}
    for history in sorted(known, key=len, reverse=True):
        q[history] = tuple(gains(known, some, gamma, history, a)[-1] for a in actions)
        some[history] = int(np.argmax(q[history]))
    greedy = {h: [a for a in actions if v[a] > max(v) - 1e-9] for h, v in q.items()}
    if np.prod([len(some) for some in greedy.values()], dtype=float) > most:
        assume(False)
    memory, credit = [], []
    for choice in itertools.product(*greedy.values()):
        policy = dict(zip(greedy, choice, strict=True))
        memory.append(shortest_memory(policy, int.__eq__))
        lengths = [1]
        for history, best in greedy.items():
            others = [a for a in actions if a not in best]
            if not others:
                continue
            sums = {a: gains(known, policy, gamma, history, a) for a in actions}
            steps = max(map(len, sums.values()))
            at = [{a: s[min(n, len(s) - 1)] for a, s in sums.items()} for n in range(steps)]
            ahead = [max(g[a] for a in best) > max(g[a] for a in others) + 1e-9 for g in at]
            lengths.append(ahead.index(True) + 1)
        credit.append(max(lengths))
    rewards = {history: fact.reward for history, fact in known.items()}
    laws = {history: fact.law for history, fact in known.items()}
    return (
        shortest_memory(rewards, close),
        shortest_memory(laws, same_laws),
        min(memory),
        shortest_memory(q, close),
        min(credit),
    )


@st.composite
def tasks(draw: st.DrawFn) -> tuple[Task, range]:
    """Draw tasks with few states, and small whole rewards, so that ties are common."""
    S, A = draw(st.integers(1, 3)), draw(st.integers(2, 3))
    n_obs, T = draw(st.integers(1, 2)), draw(st.integers(1, 4 if A == 2 else 3))
    state, obs = st.integers(0, S - 1), st.integers(0, n_obs - 1)
    weights = st.lists(st.integers(1, 3), min_size=1, max_size=2)

    def shares() -> Iterator[float]:
        drawn = draw(weights)
        return (weight / sum(drawn) for weight in drawn)

    start = [(p, draw(state), draw(obs)) for p in shares()]
    ends = st.sampled_from([False] * 5 + [True])
    reward = st.sampled_from([0.0, 0.0, 0.0, 1.0, -1.0])
    table = {
        (s, a): [(p, draw(state), draw(obs), draw(reward), draw(ends)) for p in shares()]
        for s in range(S)
        for a in range(A)
    }
    return Task(T, start, table), range(A)


def lengths_of(task: Any, horizon: int, gamma: float, n_action: int) -> Lengths:
    model = enumerate_task(task, horizon, [str(a) for a in range(n_action)])
    return measure(histories(model), gamma)


@settings(max_examples=300, deadline=None)
@given(tasks(), st.sampled_from([1.0, 0.9]))
def test_lengths_are_those_of_all_histories_and_all_optimal_policies(
    drawn: tuple[Task, range], gamma: float
) -> None:
    task, actions = drawn
    expected = brute_force(task, gamma, actions, most=200)
    assert lengths_of(task, task.horizon, gamma, len(actions))[:5] == expected


# --- known tasks ---------------------------------------------------------------------------------


ROWS = 7  # an odd number of environments, which the states do not fill
MAZES = {"passive": TMazePassiveVec, "active": TMazeActiveVec, "chain": MemoryChainVec}
PLAIN: dict[str, Any] = {"num_envs": 64, "num_apples": 0}


def computed(env: Any, gamma: float = 0.99) -> tuple[int, ...]:
    return measure(histories(model_of(env)), gamma)[:5]


@pytest.mark.parametrize("L", [2, 3, 7, 30])
def test_t_mazes_have_the_lengths_of_the_paper(L: int) -> None:
    T = L + 1
    assert computed(TMazePassiveVec(num_envs=ROWS, length=L)) == (T, T - 1, T, T, 1)
    T = L + 3
    # The oracle is seen in the second observation, and looking pays in the last step alone.
    assert computed(TMazeActiveVec(num_envs=ROWS, length=L)) == (T - 1, T - 1, T - 1, T - 1, T)
    assert computed(MemoryChainVec(num_envs=ROWS, length=L)) == (L, 1, L, L, 1)


@pytest.mark.parametrize("L", [1, 4])
def test_image_tasks_have_the_lengths_of_the_paper(L: int) -> None:
    lengths = measure(
        histories(model_of(VisualMatchVec(length=L, colours="shared", **PLAIN))), 0.99
    )
    assert lengths.policy_memory >= L + 2 and lengths.credit <= 15
    lengths = measure(histories(model_of(KeyToDoorVec(length=L, **PLAIN))), 0.99)
    assert lengths.policy_memory == 1 and L + 3 <= lengths.credit <= L + 25


def test_a_task_whose_state_is_seen_needs_no_memory() -> None:
    env = GymVec(id="FrozenLake-v1", kwargs={"is_slippery": False})
    # The goal is six steps away, and nothing is paid before.
    assert computed(env) == (1, 1, 1, 1, 6)
    table = env.envs[0].unwrapped
    assert [*TableTask(table).starts()] == [(1.0, 0, 0)]


def test_three_histories_may_conflict_where_no_two_do() -> None:
    """Each two of three states have an optimal action in common, but all three have none."""
    pays = [(1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (1.0, 0.0, 1.0)]
    start = [(1 / 3, s, s) for s in range(3)]
    table = {(s, a): [(1.0, s + 3, 9, 0.0, False)] for s in range(3) for a in range(3)}
    table |= {(s + 3, a): [(1.0, 0, 9, pays[s][a], True)] for s in range(3) for a in range(3)}
    task = Task(2, start, table)
    assert lengths_of(task, 2, 1.0, 3)[:5] == brute_force(task, 1.0, range(3), 10**5)
    assert lengths_of(task, 2, 1.0, 3).policy_memory == 2


@pytest.mark.parametrize("name", MAZES)
def test_examples_differ_in_the_oldest_step_alone(name: str) -> None:
    model = model_of(MAZES[name](num_envs=ROWS, length=5))
    graph = histories(model)
    lengths = measure(graph, 0.99)
    pair = lengths.policy_pair
    assert pair is not None and pair.common == lengths.policy_memory - 1
    one, other = example(graph, pair)
    n = pair.common
    assert len(one) == len(other) == pair.t
    assert [obs for obs, _ in one[-n:]] == [obs for obs, _ in other[-n:]]
    assert [action for _, action in one[-n:]] == [action for _, action in other[-n:]]
    assert one[-n - 1] != other[-n - 1]
    for path, node in zip((one, other), pair.nodes, strict=True):  # they lead to these nodes
        at = next(i for i, obs in enumerate(graph[0].obs) if obs == path[0][0])
        for t, ((_, action), (obs, _)) in enumerate(itertools.pairwise(path)):
            (at,) = (
                target
                for source, a, target, _ in zip(*map(list, graph[t].edges), strict=True)
                if (source, a, graph[t + 1].obs[target]) == (at, action, obs)
            )
        assert at == node


TASKS = {
    "tmaze": lambda n: TMazeVec(num_envs=n, length=3, oracle_length=2, penalty=-0.5),
    "not_right": lambda n: TMazeVec(num_envs=n, length=3, penalty_rule="not_right", penalty=-1.0),
    "chain": lambda n: MemoryChainVec(num_envs=n, length=4, num_bits=3),
    "door": lambda n: KeyToDoorVec(num_envs=n, frames=(6, 3, 5), num_apples=0),
    "match": lambda n: VisualMatchVec(
        num_envs=n, frames=(2, 3, 9), num_apples=0, colours="per_episode"
    ),
    "walk": lambda n: VisualMatchVec(
        num_envs=n, frames=(2, 1, 7), num_apples=0, colours="shared", passive=False
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_model_is_its_task(name: str) -> None:
    """Whatever is drawn and done, what the task shows and pays is what its model says."""
    env, n = TASKS[name](40), 40
    model = model_of(env)
    assert sum(p for p, _, _ in model.starts) == pytest.approx(1)
    known = {o.tobytes(): i for i, o in enumerate(model.observations)}
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=1)
    possible = [{s for _, s, o in model.starts if o == known[x.tobytes()]} for x in obs]
    for outcomes in model.steps:
        action = rng.integers(env.n_action, size=n)
        obs, reward, terminated, _, _ = env.step(action)
        for b in range(n):
            seen = END if terminated[b] else known[obs[b].tobytes()]
            possible[b] = {
                int(outcomes.state[s, action[b], 0])
                for s in possible[b]
                if outcomes.obs[s, action[b], 0] == seen
                and outcomes.reward[s, action[b], 0] == reward[b]
            }
            assert possible[b]
    assert terminated.all()


# --- the command ---------------------------------------------------------------------------------


def run_command(*words: str) -> int:
    try:
        main(["lengths", *words])
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("a command ends the process")


def test_the_command_prints_a_table_and_why(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command("env=tmaze_active", "env.length=4") == 0
    table, why = capfd.readouterr().out.split("these agree in the last 5 observations")
    assert table.split()[-10:-1] == ["tmaze_active", "4", "7", "6", "6", "6", "6", "7", "8569"]
    assert "down!" in why and "up!" in why and "(0, -1)" in why and "3-6" in why


def test_the_command_takes_many_tasks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "plane.png"
    words = ["env=tmaze_passive,tmaze_active", "env.length=2,3,5"]
    assert run_command(*words, "--figure", str(figure)) == 0
    out = capfd.readouterr().out
    assert "tmaze_active, L = 2, 3, 5: " in out and "policy memory L + 2, " in out
    assert "credit L + 3" in out and figure.read_bytes().startswith(b"\x89PNG")
    assert run_command("env.length=2", "--json") == 0
    (tmp_path / "two.json").write_text(capfd.readouterr().out)
    words = ["env=tmaze_passive", "env.length=3,5", "--also", str(tmp_path / "two.json")]
    assert run_command(*words) == 0
    assert "tmaze_passive, L = 2, 3, 5: " in capfd.readouterr().out
    words = ["env=tmaze_passive,tmaze_active", "env.length=2,3,5"]
    assert run_command(*words, "--json") == 0
    rows = json.loads(capfd.readouterr().out)
    assert [(row["task"], row["length"], row["credit"]) for row in rows] == [
        *(("tmaze_passive", n, 1) for n in (2, 3, 5)),
        *(("tmaze_active", n, n + 3) for n in (2, 3, 5)),
    ]


def test_your_own_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The class in the documentation is the task whose lengths are computed, and can be played."""
    page = (ROOT / "docs" / "lengths.md").read_text()
    text = "\n\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "umbrella.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = ["env=gym", "env.module=mylab.umbrella", "env.id=mylab/Umbrella-v0"]
    assert run_command(*words, "--json") == 0
    (row,) = json.loads(capfd.readouterr().out)
    assert (row["policy_memory"], row["reward_memory"], row["credit"]) == (1, 5, 5)
    for name in ("RepeatFirst", "RepeatPrevious"):
        words = ["env=gym", "env.module=mylab.umbrella", f"env.id=mylab/{name}-v0", "+env.length=3"]
        assert run_command(*words, "--json") == 0
        (row,) = json.loads(capfd.readouterr().out)
        assert (row["policy_memory"], row["credit"]) == (3, 1)
    env = gymnasium.make("mylab/Umbrella-v0", length=3)
    obs, _ = env.reset(seed=0)
    steps = [env.step(int(obs)) for _ in range(3)]
    assert [step[1:3] for step in steps] == [(0.0, False), (0.0, False), (1.0, True)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=key_to_door"], "env.num_apples must be 0, to have few enough states, got 10"),
        (["env=cartpole_p"], "must be a task whose states and transitions are known, and it has"),
        (["env=pendulum_p"], "its actions are not discrete"),
        (["env.length=[2,3]"], "env.length must be one number, got [2, 3]"),
        (["seq_model=gpt"], "seq_model=gpt: it has no effect in memrl lengths"),
        (["env.lenght=5"], "env.lenght=5: no such key; did you mean env.length?"),
        (["env.length"], "env.length: a value is missing, as in env.length=VALUE"),
        (["algo.gamma=2"], "algo.gamma must be in [0, 1], got 2"),
        (["algo.gamma=abc"], "algo.gamma=abc: must be a number in [0, 1]"),
        (["algo.gamma=0.5", "env.length=99"], "algo.gamma must be 0, or at least 0.811 with 100"),
        (["--figure", "nowhere/x.png"], "--figure nowhere/x.png: there is no such folder"),
        (["env.length=0"], "env.length must be at least 1, got 0"),
        (["--also", "nothing.json"], "--also nothing.json: No such file or directory"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def test_the_size_of_rewards_does_not_matter() -> None:
    env = TMazeActiveVec(num_envs=ROWS, length=20, goal_reward=1e-9, penalty=0.0)
    assert computed(env, 0.5)[4] == 23


def test_many_kinds_of_ties_and_many_outcomes_are_no_trouble() -> None:
    """Every set of six actions is optimal after one of 63 observations, seen together later."""
    sets = [set for set in range(1, 64)]
    start = [(1 / 63, s, s) for s in sets]
    table = {(s, a): [(1.0, -s, 99, 0.0, False)] for s in sets for a in range(6)}
    table |= {(-s, a): [(1.0, 0, 99, float(s >> a & 1), True)] for s in sets for a in range(6)}
    assert lengths_of(Task(2, start, table), 2, 1.0, 6).policy_memory == 2
    dense = {
        (s, a): [(1 / 99, n, n, 0.0, False) for n in range(99)] for s in range(99) for a in (0, 1)
    }
    assert lengths_of(Task(3, [(1.0, 0, 0)], dense), 3, 1.0, 2)[:5] == (1, 1, 1, 1, 1)


def test_a_task_too_large_says_how_many_histories_it_has() -> None:
    model = model_of(TMazeActiveVec(num_envs=ROWS, length=5))
    with pytest.raises(TooLarge, match="93 histories of 4 of 8 steps, and more than 9"):
        histories(model, most=9)
    with pytest.raises(TooLarge, match="states at step"):
        enumerate_lockstep(TMazeActiveVec(num_envs=ROWS, length=5), most=5)
