"""T-Maze: recorded episodes replay exactly, and the rules hold for every setting."""

from __future__ import annotations

import importlib
import itertools
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st

import memrl.envs
from memrl.envs.single import SingleEnv, single_class
from memrl.envs.tmaze import TMazeActiveVec, TMazePassiveVec, TMazeVec

RIGHT, UP, LEFT, DOWN = range(4)
IDS = ["memrl/TMazePassive-v0", "memrl/TMazeActive-v0", "memrl/TMaze-v0"]
CLASSES = [TMazePassiveVec, TMazeActiveVec, TMazeVec]
NAMED = [TMazePassiveVec, TMazeActiveVec]
SETTINGS = """length oracle_length goal_reward penalty penalty_rule distract_reward
ambiguous_position expose_goal add_timestep""".split()
few = settings(max_examples=40, deadline=None)


# Recorded episodes ---------------------------------------------------------------------------


class Recorded(NamedTuple):
    """Episodes with one setting, recorded with the original program; time-major."""

    id: str
    kwargs: dict[str, Any]
    goal: np.ndarray  # (B,)
    action: np.ndarray  # (T, B)
    obs: np.ndarray  # (T + 1, B, D)
    reward: np.ndarray  # (T, B)
    done: np.ndarray  # (T, B)
    xy: np.ndarray  # (T + 1, B, 2)
    visited: np.ndarray  # (T + 1, B)


def _setting(cls: str, cfg: dict[str, float]) -> tuple[str, dict[str, Any]]:
    kwargs: dict[str, Any] = {
        "length": int(cfg["corridor_length"]),
        "goal_reward": cfg["goal_reward"],
        "distract_reward": cfg["distract_reward"],
        "ambiguous_position": bool(cfg["ambiguous_position"]),
        "expose_goal": bool(cfg["expose_goal"]),
        "add_timestep": bool(cfg["add_timestep"]),
    }
    if cls == "TMazeBase":
        kwargs |= {
            "penalty": cfg["penalty"],
            "oracle_length": int(cfg["oracle_length"]),
            "episode_length": int(cfg["episode_length"]),
        }
        return "memrl/TMaze-v0", kwargs
    return f"memrl/{cls.replace('Classic', '')}-v0", kwargs


def _load() -> list[Recorded]:
    with np.load(Path(__file__).parent / "golden" / "tmaze.npz") as file:
        data = {name: file[name] for name in file.files}
    groups: dict[str, list[dict[str, Any]]] = {}
    for i in range(int(data["n_episodes"])):
        prefix = f"ep{i:03d}/"
        episode = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
        cfg = {k.removeprefix("cfg_"): float(v) for k, v in episode.items() if k[:4] == "cfg_"}
        episode["setting"] = _setting(str(episode["cls"]), cfg)
        groups.setdefault(repr(episode["setting"]), []).append(episode)
    return [_batch(episodes) for episodes in groups.values()]


def _batch(episodes: list[dict[str, Any]]) -> Recorded:
    def stack(name: str) -> np.ndarray:
        return np.stack([episode[name] for episode in episodes], axis=1)

    id, kwargs = episodes[0]["setting"]
    return Recorded(
        id=id,
        kwargs=kwargs,
        goal=np.array([episode["goal_y"] for episode in episodes]),
        action=stack("action"),
        obs=stack("obs"),
        reward=stack("reward"),
        done=stack("done"),
        xy=stack("xy"),
        visited=stack("oracle_visited"),
    )


RECORDED = _load()


def test_all_recorded_episodes_are_replayed() -> None:
    assert sum(len(recorded.goal) for recorded in RECORDED) == 90


@pytest.mark.parametrize("recorded", RECORDED)
def test_recorded_episodes_replay_in_one_batch(recorded: Recorded) -> None:
    env = gymnasium.make_vec(recorded.id, num_envs=len(recorded.goal), **recorded.kwargs)
    maze = env.unwrapped
    assert isinstance(maze, TMazeVec)
    assert maze.horizon == len(recorded.action)
    obs, info = env.reset(seed=0, options={"goal": recorded.goal})
    assert info == {}
    assert obs.dtype == np.float32
    for t in range(maze.horizon + 1):
        if t > 0:
            obs, reward, terminated, truncated, info = env.step(recorded.action[t - 1])
            assert reward.dtype == np.float64
            np.testing.assert_array_equal(reward, recorded.reward[t - 1])
            np.testing.assert_array_equal(terminated, recorded.done[t - 1])
            assert not truncated.any()
            assert info == {}
        assert obs in env.observation_space
        np.testing.assert_array_equal(obs, recorded.obs[t])
        np.testing.assert_array_equal(np.stack([maze.x, maze.y], 1), recorded.xy[t])
        np.testing.assert_array_equal(maze.oracle_visited, recorded.visited[t])


@pytest.mark.parametrize("recorded", RECORDED)
def test_recorded_episodes_replay_through_make(recorded: Recorded) -> None:
    env = gymnasium.make(recorded.id, **recorded.kwargs)
    for b, goal in enumerate(recorded.goal):
        obs, _ = env.reset(options={"goal": int(goal)})
        np.testing.assert_array_equal(obs, recorded.obs[0, b])
        for t, action in enumerate(recorded.action[:, b]):
            obs, reward, terminated, truncated, _ = env.step(int(action))
            np.testing.assert_array_equal(obs, recorded.obs[t + 1, b])
            assert reward == recorded.reward[t, b]
            assert terminated is bool(recorded.done[t, b])
            assert truncated is False


# Registration and Gymnasium's contract -------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"length": 1},
    {"length": 50, "add_timestep": True, "distract_reward": 0.1},
    {"ambiguous_position": False, "expose_goal": True},
    {"ambiguous_position": False, "penalty_rule": "not_right", "goal_reward": 4.0},
]


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_environment_checker_is_silent(id: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(id, **options)
        check_env(env.unwrapped)
        for seed in (0, None):  # and with the wrappers, the passive checker among them
            env.reset(seed=seed)
            ended = False
            while not ended:
                _, _, ended, _, _ = env.step(env.action_space.sample())
        env.close()


def test_the_environment_checker_is_silent_for_episodes_of_one_step() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("memrl/TMaze-v0", episode_length=1).unwrapped)


@pytest.mark.parametrize(("mode", "steps"), [("NextStep", 8), ("SameStep", 7)])
def test_a_loop_with_autoreset_plays_whole_episodes(mode: str, steps: int) -> None:
    """An agent that remembers the goal solves every episode, whoever resets."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        native = gymnasium.make_vec(IDS[0], num_envs=64, length=6, autoreset_mode=mode)
    assert type(native.unwrapped) is TMazePassiveVec and native.unwrapped.length == 6
    envs = RecordEpisodeStatistics(native, buffer_length=1000)
    obs, _ = envs.reset(seed=0)
    ended, goal = np.zeros(64, bool), np.zeros(64)
    for _ in range(3 * steps):
        assert obs in envs.observation_space and obs.shape == (64, 2)
        goal = np.where((obs[:, 0] == 0) & (obs[:, 1] != 0), obs[:, 1], goal)  # at the oracle
        action = np.where(obs[:, 0] == 0, RIGHT, np.where(goal > 0, UP, DOWN))
        before = ended
        obs, reward, terminated, truncated, _ = envs.step(action)
        ended = terminated | truncated
        if mode == "NextStep" and before.any():
            assert not reward.any() and not ended.any() and obs[:, 1].all()
    assert list(envs.return_queue) == [1] * 3 * 64


def test_what_autoreset_cannot_do_is_refused() -> None:
    def make(**kwargs: Any) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        return gymnasium.make_vec(IDS[0], num_envs=2, length=1, **kwargs)

    with pytest.raises(ValueError, match=r"^autoreset_mode must be 'NextStep', .*, got 'next'$"):
        make(autoreset_mode="next")
    with pytest.raises(ValueError, match=r"^max_episode_steps must be the horizon, 2, got 3$"):
        make(max_episode_steps=3)
    one, actions = {"reset_mask": np.array([True, False])}, np.zeros(2, int)
    envs, disabled = make(), make(autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match=r"^autoreset_mode must be 'Disabled' with the option"):
        envs.reset(options=one)
    envs.reset()
    envs.step(actions)
    envs.unwrapped.reset(options=one)
    with pytest.raises(RuntimeError, match=r"^rows \[1\] of TMazePassiveVec\(.* ended before the"):
        envs.step(actions)
    disabled.reset()
    disabled.step(actions)
    disabled.reset(options=one)
    assert disabled.step(actions)[2].tolist() == [False, True]
    with pytest.raises(gymnasium.error.ResetNeeded):
        disabled.step(actions)


def test_stable_baselines3_takes_every_task() -> None:
    """Its checker has no complaint, and the lines of docs/tasks.md train, with fewer steps."""
    reason = "sb3-contrib is not installed"
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason=reason)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The minimal resolution for an image is 36x36")
        for id in (*IDS, "memrl/VisualMatch-v0", "memrl/KeyToDoor-v0"):
            checker.check_env(gymnasium.make(id, render_mode="rgb_array"), skip_render_check=False)
    page = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text()
    (lines,) = re.findall(r"```python\n(import memrl.*?)```", page, re.DOTALL)
    shorter = lines.replace("20_000", "384").replace("ent_coef=0.01", "ent_coef=0.01, n_epochs=1")
    namespace: dict[str, Any] = {}
    exec(shorter, namespace)
    assert namespace["agent"].num_timesteps == 384


def test_importing_again_neither_warns_nor_needs_torch() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(memrl.envs)
    code = "import sys, memrl.envs, memrl.envs.tmaze; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("cls", NAMED)
def test_named_variants_declare_the_unit_box(cls: type[TMazeVec]) -> None:
    assert cls(length=50).single_observation_space == gymnasium.spaces.Box(-1, 1, (2,))


def test_defaults() -> None:
    assert [cls().horizon for cls in CLASSES] == [11, 13, 11]
    assert [cls(length=50).horizon for cls in CLASSES] == [51, 53, 51]
    assert [cls(length=50).penalty for cls in CLASSES] == [-0.02, -0.02, 0]
    assert TMazeVec(length=4, oracle_length=2).horizon == 9
    assert TMazeVec(length=4, penalty=None).penalty == -0.25


# The single environment ----------------------------------------------------------------------


def test_single_environment_types_and_attributes() -> None:
    env = gymnasium.make(IDS[0], length=3).unwrapped
    assert isinstance(env, SingleEnv)
    assert env.horizon == 4
    assert env.metadata["render_modes"] == ["rgb_array"]
    assert env.render_mode is env.render() is None
    obs, info = env.reset(options={"goal": 1})
    assert obs.shape == (2,)
    assert info == {}
    _, reward, terminated, truncated, info = env.step(RIGHT)
    assert [type(v) for v in (reward, terminated, truncated)] == [float, bool, bool]
    assert info == {}
    env.close()
    assert env.vec.closed


def test_single_environment_shares_the_generator() -> None:
    env, vec = SingleEnv(TMazePassiveVec()), TMazePassiveVec()
    for seed in (5, None, None, None):
        assert env.reset(seed=seed)[0][1] == vec.reset(seed=seed)[0][0, 1]
    assert env.np_random is env.vec.np_random
    assert env.np_random_seed == 5
    env.np_random = np.random.default_rng(1)
    assert env.vec.np_random is env.np_random
    assert SingleEnv(TMazePassiveVec()).np_random_seed is not None


def test_single_environment_errors() -> None:
    with pytest.raises(ValueError, match=r"^num_envs must be 1, got 2$"):
        SingleEnv(TMazeVec(num_envs=2))
    with pytest.raises(ValueError, match=r"^render_mode must be None or 'rgb_array', got 'ansi'"):
        single_class("TMaze", "memrl.envs", TMazeVec)(render_mode="ansi")
    assert gymnasium.make(IDS[0], render_mode=None).render_mode is None
    env = single_class("TMaze", "memrl.envs", TMazeVec)()
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"^reset .* before stepping"):
        env.step(0)
    env.reset()
    for action in (4, -1, 0.0, [0]):
        with pytest.raises(ValueError, match=r"^actions must be"):
            env.step(action)
    with pytest.raises(ValueError, match=r"^goal must be"):
        env.reset(options={"goal": 0})


# Laws ----------------------------------------------------------------------------------------


@st.composite
def mazes(draw: st.DrawFn, named: bool = False) -> TMazeVec:
    """Draw an environment with any valid setting."""
    rule: Literal["late", "not_right"] = draw(st.sampled_from(["late", "not_right"]))
    ambiguous = draw(st.booleans())
    kwargs: dict[str, Any] = {
        "num_envs": draw(st.integers(1, 4)),
        "length": draw(st.integers(1, 8)),
    }
    if named:
        cls: type[TMazeVec] = draw(st.sampled_from(NAMED))
        return cls(**kwargs)
    return TMazeVec(
        **kwargs,
        oracle_length=draw(st.integers(0, 3)),
        episode_length=draw(st.none() | st.integers(1, 20)),
        goal_reward=draw(st.sampled_from([1.0, 3.0, -2.0])),
        penalty=draw(st.sampled_from([None, 0.0, -0.3])),
        penalty_rule=rule,
        distract_reward=0.0 if rule == "not_right" else draw(st.sampled_from([0.0, 0.2])),
        ambiguous_position=ambiguous,
        expose_goal=not ambiguous and draw(st.booleans()),
        add_timestep=draw(st.booleans()),
    )


def _actions(env: TMazeVec, seed: int) -> np.ndarray:
    """Draw actions (T, B), with more moves along the corridor than across."""
    rng = np.random.default_rng(seed)
    favoured = rng.integers(4, size=env.num_envs)
    uniform = rng.integers(4, size=(env.horizon, env.num_envs))
    return np.where(rng.random(uniform.shape) < 0.6, favoured, uniform)


seeds = st.integers(0, 2**31)


@few
@given(mazes(), seeds)
def test_episodes_keep_to_the_cells_the_box_and_the_horizon(env: TMazeVec, seed: int) -> None:
    junction = env.oracle_length + env.length
    obs, _ = env.reset(seed=seed)
    for t, action in enumerate(_actions(env, seed), start=1):
        x, y = env.x, env.y
        obs, _, terminated, truncated, info = env.step(action)
        assert obs in env.observation_space
        assert (np.where(env.x == junction, abs(env.y) <= 1, env.y == 0)).all()
        assert ((env.x >= 0) & (env.x <= junction)).all()
        assert (abs(env.x - x) + abs(env.y - y) <= 1).all()
        assert (terminated == (t == env.horizon)).all()
        assert not truncated.any()
        assert info == {}
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)


@few
@given(mazes(), seeds)
def test_rows_are_single_environments(env: TMazeVec, seed: int) -> None:
    kwargs = {name: getattr(env, name) for name in SETTINGS}
    singles = [
        SingleEnv(TMazeVec(**kwargs, episode_length=env.horizon)) for _ in range(env.num_envs)
    ]
    obs, _ = env.reset(seed=seed)
    for b, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(options={"goal": env.goal[b]})[0], obs[b])
    for action in _actions(env, seed):
        obs, reward, terminated, _, _ = env.step(action)
        for b, single in enumerate(singles):
            single_obs, *rest, _ = single.step(action[b])
            np.testing.assert_array_equal(single_obs, obs[b])
            assert rest == [reward[b], terminated[b], False]


@few
@given(mazes(), st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True), seeds)
def test_each_row_of_several_lengths_has_an_episode_of_its_own(
    env: TMazeVec, length: list[int], seed: int
) -> None:
    """It is a maze of the length that was drawn; when it is over it stays as it is."""
    kwargs = {name: getattr(env, name) for name in SETTINGS if name not in ("length", "penalty")}
    mixed = TMazeVec(num_envs=4, length=length, penalty=None, **kwargs)
    assert mixed.horizon == TMazeVec(length=max(length), **kwargs).horizon
    obs, _ = mixed.reset(seed=seed)
    assert {*mixed.corridor.tolist()} <= {*length}  # type: ignore[union-attr]
    singles = [
        SingleEnv(TMazeVec(length=int(n), penalty=None, **kwargs)) for n in np.array(mixed.corridor)
    ]
    for b, single in enumerate(singles):
        first, _ = single.reset(options={"goal": mixed.goal[b]})
        np.testing.assert_array_equal(first, obs[b])
    for t, action in enumerate(_actions(mixed, seed)[: max(s.horizon for s in singles)]):
        before = obs
        obs, reward, terminated, truncated, _ = mixed.step(action)
        assert obs in mixed.observation_space and not truncated.any()
        for b, single in enumerate(singles):
            expected: Any = (before[b], 0.0, False)
            if t < single.horizon:
                expected = single.step(action[b])[:3]
            np.testing.assert_array_equal(obs[b], expected[0])
            assert (reward[b], terminated[b]) == expected[1:]
    with pytest.raises(gymnasium.error.ResetNeeded):
        mixed.step(action)
    new, t = np.roll(length, 1)[0], mixed.t
    mixed.reset(options={"reset_mask": np.arange(4) < 2, "length": new})
    assert (np.array(mixed.corridor)[:2] == new).all() and (mixed.t[2:] == t[2:]).all()


def test_each_of_several_lengths_is_drawn_as_often() -> None:
    mazes = TMazePassiveVec(num_envs=3000, length=[5, 30, 10])
    mazes.reset(seed=0)
    counts = np.unique(mazes.corridor, return_counts=True)
    assert counts[0].tolist() == [5, 10, 30] and (abs(counts[1] - 1000) < 100).all()


@few
@given(mazes(named=True), seeds)
def test_the_goal_is_seen_at_most_once(env: TMazeVec, seed: int) -> None:
    obs, _ = env.reset(seed=seed)
    seen = (obs[:, 0] == 0) & (obs[:, 1] != 0)
    assert (seen == isinstance(env, TMazePassiveVec)).all()
    count = seen.astype(int)
    for action in _actions(env, seed):
        obs, *_ = env.step(action)
        seen = (obs[:, 0] == 0) & (obs[:, 1] != 0)
        assert (obs[seen, 1] == env.goal[seen]).all()
        count += seen
    np.testing.assert_array_equal(count, env.oracle_visited)


@few
@given(mazes(named=True), seeds)
def test_returns_lie_between_their_bounds(env: TMazeVec, seed: int) -> None:
    least = -1.0 if isinstance(env, TMazePassiveVec) else -(env.length + 1) / env.length
    env.reset(seed=seed)
    total = np.sum([env.step(action)[1] for action in _actions(env, seed)], axis=0)
    assert (total >= least - 1e-9).all()
    assert (total <= 1).all()


def _return(env: TMazeVec, goal: int, actions: list[int]) -> float:
    env.reset(options={"goal": goal})
    return sum(float(env.step(np.array([action]))[1][0]) for action in actions)


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize(("goal", "arm"), [(1, UP), (-1, DOWN)])
def test_returns_of_known_policies(length: int, goal: int, arm: int) -> None:
    passive, active = TMazePassiveVec(length=length), TMazeActiveVec(length=length)
    away = [*[RIGHT] * length, arm]
    assert _return(passive, goal, away) == 1
    assert _return(passive, -goal, away) == 0
    assert _return(passive, goal, [LEFT] * (length + 1)) == pytest.approx(-1)
    assert _return(active, goal, [LEFT, RIGHT, *away]) == 1
    assert _return(active, goal, [*away, arm, arm]) == 1  # going right at once is never late
    assert _return(active, goal, [LEFT] * (length + 3)) == pytest.approx(-(length + 1) / length)
    assert _return(active, goal, [UP] * (length + 3)) == pytest.approx(-1)


@few
@given(mazes(), seeds)
def test_one_seed_gives_one_sequence_of_goals(env: TMazeVec, seed: int) -> None:
    def goals() -> list[np.ndarray]:
        return [(env.reset(seed=s), env.goal)[1] for s in (seed, None, None)]

    first = goals()
    np.testing.assert_array_equal(goals(), first)
    env.reset(seed=seed, options={"goal": 1})  # fixing one does not move the later ones
    np.testing.assert_array_equal([(env.reset(), env.goal)[1] for _ in range(2)], first[1:])


def test_goals_are_balanced_and_leave_the_global_generator_alone() -> None:
    env = TMazePassiveVec(num_envs=1000)
    before = pickle.dumps(np.random.get_state())
    goals = [(env.reset(seed=s), env.goal)[1] for s in (0, *[None] * 9)]
    assert set(np.unique(goals)) == {-1, 1}
    assert abs(np.mean(goals)) < 0.04  # four standard deviations
    assert pickle.dumps(np.random.get_state()) == before


def test_the_generator_can_be_saved_and_restored() -> None:
    env, other = TMazePassiveVec(num_envs=50), TMazePassiveVec(num_envs=50)
    env.reset(seed=3)
    other.np_random = np.random.default_rng()
    other.np_random.bit_generator.state = env.np_random.bit_generator.state
    np.testing.assert_array_equal(env.reset()[0], other.reset()[0])


def test_returned_arrays_are_not_reused() -> None:
    env = TMazePassiveVec(num_envs=2, length=3)
    first, _ = env.reset(options={"goal": 1})
    kept = first.copy()
    results = [env.step(np.array([RIGHT, LEFT]))[:4] for _ in range(2)]
    np.testing.assert_array_equal(first, kept)
    for a, b in zip(*results, strict=True):
        assert not np.shares_memory(a, b)


# The rule "not_right" ------------------------------------------------------------------------


@pytest.mark.parametrize("env", [TMazePassiveVec, TMazeActiveVec])
def test_not_right_penalises_by_action_alone(env: type[TMazeVec]) -> None:
    maze = env(num_envs=64, length=4, penalty_rule="not_right", penalty=-0.5)
    maze.reset(seed=0)
    *actions, last = _actions(maze, 0)
    for t, action in enumerate(actions, start=1):
        penalised = (action != RIGHT) & (t > maze.oracle_length)
        np.testing.assert_array_equal(maze.step(action)[1], np.where(penalised, -0.5, 0))
    assert np.isin(maze.step(last)[1], (0, 1)).all()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("late", [0, 0, 0, -0.5, -0.5, 1]), ("not_right", [0, -0.5, 0, -0.5, 0, 1])],
)
def test_the_rules_differ(rule: Literal["late", "not_right"], expected: list[float]) -> None:
    # Into the wrong arm, a push right against its wall, and out of it again: at the junction,
    # x = 2, the agent is late from t = 4 on.
    maze = TMazeVec(length=1, oracle_length=1, episode_length=6, penalty=-0.5, penalty_rule=rule)
    maze.reset(options={"goal": 1})
    actions = [RIGHT, DOWN, RIGHT, UP, RIGHT, UP]
    assert [maze.step(np.array([action]))[1][0] for action in actions] == expected


# Partial resets ------------------------------------------------------------------------------


@few
@given(mazes(), seeds, st.data())
def test_a_partial_reset_leaves_the_others_alone(
    env: TMazeVec, seed: int, data: st.DataObject
) -> None:
    bits = st.lists(st.booleans(), min_size=env.num_envs, max_size=env.num_envs)
    mask = np.array(data.draw(bits.filter(any)))
    obs, _ = env.reset(seed=seed)
    for action in _actions(env, seed)[: env.horizon // 2]:
        obs, *_ = env.step(action)
    state = {name: getattr(env, name) for name in ("x", "y", "t", "goal", "oracle_visited")}
    options = {"reset_mask": mask, "goal": -1}
    new, _ = env.reset(options=options)
    assert set(options) == {"reset_mask", "goal"}  # the caller's dictionary is not consumed
    np.testing.assert_array_equal(new[~mask], obs[~mask])
    for name, value in state.items():
        np.testing.assert_array_equal(getattr(env, name)[~mask], value[~mask])
    assert (env.t[mask] == 0).all()
    assert (env.goal[mask] == -1).all()
    fresh, _ = env.reset(options={"goal": -1})
    np.testing.assert_array_equal(new[mask], fresh[mask])


def test_every_environment_must_be_reset_before_a_step() -> None:
    env = TMazePassiveVec(num_envs=3)
    env.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"^reset environments \[1\] before"):
        env.step(np.zeros(3, int))


# Errors --------------------------------------------------------------------------------------

ONE_OR_SEVERAL = "an integer of at least 1, or a list of distinct ones"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
    ({"length": -3}, "length must be at least 1, got -3"),
    ({"length": 0}, "length must be at least 1, got 0"),
    ({"length": 2.5}, "length must be an integer, got 2.5"),
    ({"length": float("inf")}, "length must be an integer, got inf"),
    *(
        ({"length": n}, f"length must be {ONE_OR_SEVERAL}, got {n}")
        for n in ([], [5, 5], [5, 0], [5, 2.5], [5, True], [[5]])
    ),
    ({"goal_reward": float("nan")}, "goal_reward must be finite, got nan"),
    ({"penalty": 0.5}, "penalty must be at most 0, got 0.5"),
    ({"penalty": float("-inf")}, "penalty must be finite, got -inf"),
    ({"penalty": float("nan")}, "penalty must be finite, got nan"),
    ({"penalty_rule": "left"}, "penalty_rule must be 'late' or 'not_right', got 'left'"),
    ({"distract_reward": float("inf")}, "distract_reward must be finite, got inf"),
    (
        {"distract_reward": 0.1, "penalty_rule": "not_right"},
        "distract_reward must be 0 with penalty_rule 'not_right', got 0.1",
    ),
    (
        {"expose_goal": True, "ambiguous_position": True},
        "expose_goal must be False with ambiguous_position, got True",
    ),
]
BAD_GENERAL: list[tuple[dict[str, Any], str]] = [
    ({"oracle_length": -1}, "oracle_length must be at least 0, got -1"),
    ({"episode_length": 0}, "episode_length must be at least 1, got 0"),
    ({"episode_length": 1.5}, "episode_length must be an integer, got 1.5"),
    (
        {"episode_length": 9, "length": [5]},
        "episode_length must be null with a list of lengths, got 9",
    ),
]


@pytest.mark.parametrize(
    ("cls", "kwargs", "message"),
    [(cls, *bad) for cls, bad in itertools.product(CLASSES, BAD)]
    + [(TMazeVec, *bad) for bad in BAD_GENERAL],
)
def test_a_value_out_of_range_is_named(
    cls: type[TMazeVec], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        cls(**kwargs)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 1}, "options must be among 'goal' and 'reset_mask', got 'side'"),
        ({"length": 5}, "options must be among 'goal' and 'reset_mask', got 'length'"),
        ({"goal": 0}, "goal must be -1 or 1, one or an array of shape (2,), got 0"),
        ({"goal": [1, 2]}, "goal must be -1 or 1, one or an array of shape (2,), got [1 2]"),
        ({"goal": [1]}, "goal must be -1 or 1, one or an array of shape (2,), got [1]"),
        ({"goal": "1"}, "goal must be -1 or 1, one or an array of shape (2,), got 1"),
        ({"goal": None}, "goal must be -1 or 1, one or an array of shape (2,), got None"),
        (
            {"reset_mask": np.zeros(2, bool)},
            "reset_mask must be bool of shape (2,) with at least one True, got [False False]",
        ),
        (
            {"reset_mask": np.ones(2, int)},
            "reset_mask must be bool of shape (2,) with at least one True, got [1 1]",
        ),
        (
            {"reset_mask": np.ones(1, bool)},
            "reset_mask must be bool of shape (2,) with at least one True, got [ True]",
        ),
    ],
)
def test_a_bad_option_is_named_and_changes_nothing(options: dict[str, Any], message: str) -> None:
    env = TMazePassiveVec(num_envs=2)
    env.reset(seed=0)
    before = env.np_random.bit_generator.state
    with pytest.raises(ValueError) as error:
        env.reset(seed=1, options=options)
    assert str(error.value) == message
    assert env.np_random.bit_generator.state == before


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 4], "actions must be 0, 1, 2 or 3, got [0 4]"),
        ([-1, 0], "actions must be 0, 1, 2 or 3, got [-1  0]"),
        ([0], "actions must be integers of shape (2,), got int64 of shape (1,)"),
        ([0.0, 1.0], "actions must be integers of shape (2,), got float64 of shape (2,)"),
        ([True, False], "actions must be integers of shape (2,), got bool of shape (2,)"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(actions: list[Any], message: str) -> None:
    env = TMazePassiveVec(num_envs=2)
    env.reset(seed=0)
    with pytest.raises(ValueError) as error:
        env.step(np.array(actions))
    assert str(error.value) == message
    assert (env.t == 0).all()
