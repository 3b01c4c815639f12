"""Any Gymnasium environment as a task: on real packages, and where they have no case, tiny ones."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import compose_quickly, needs_pybullet
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trainer import as_saved, loaded, real_trainer, same, whole_state

from memrl import experiment
from memrl.encoders import MLPEncoder, SpaceEncoder
from memrl.envs.gym import GymVec
from memrl.envs.popgym import PopgymVec
from memrl.envs.spaces import Packer, Part, action_reader
from memrl.interfaces import TaskSpec
from memrl.rollout import check_env, check_first_step
from memrl.run import machine
from memrl.run.outcome import ConfigError, in_one_line
from memrl.run.seeds import compare_episodes

MINIGRID = {"id": "MiniGrid-MemoryS7-v0", "module": "minigrid"}
POPGYM = {"module": "popgym"}


class Clock(gymnasium.Env[Any, Any]):
    """Counts its steps, and what is done to it; what it shows and takes is up to a test."""

    metadata = {"render_modes": []}  # noqa: RUF012
    made: list[Clock] = []  # noqa: RUF012

    def __init__(self, space=None, actions=None, end=None, paid=1, render_mode=None):
        self.observation_space = space or spaces.Box(-9.0, 9.0, (), np.float64)
        self.action_space = actions or spaces.Discrete(2)
        self.end, self.paid, self.calls, self.is_closed = end, paid, [], False
        Clock.made.append(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.calls.append(("reset", seed))
        self.t = 0
        self.end_now = self.end or int(self.np_random.integers(1, 6))
        return self.show(), {}

    def show(self):
        return np.array(self.t / 3)

    def step(self, action):
        self.calls.append(("step", action))
        self.t += 1
        assert self.t <= self.end_now, "stepped past its end"
        return self.show(), self.paid, self.t == self.end_now, False, {"is_success": self.t % 2}

    def close(self):
        self.is_closed = True


gymnasium.register("Clock-v0", Clock, max_episode_steps=5)  # ends at random
gymnasium.register("Long-v0", Clock, kwargs={"end": 10**6})  # and says nothing of it


@pytest.fixture
def clocks(monkeypatch):
    """The clocks that a test makes."""
    monkeypatch.setattr(Clock, "made", [])
    return Clock.made


def unpacked(packer: Packer, numbers: np.ndarray) -> list[np.ndarray]:
    """The environment's own arrays, of every part, from an observation as it is stored."""
    arrays, at = [], 0
    for source in packer.sources:
        size = math.prod(source.part.shape)
        value = numbers[at : at + size].reshape(source.part.shape) + np.asarray(source.start)
        at += size
        value = value.transpose(np.argsort(source.axes)) if source.axes else value
        arrays.append(value.reshape(source.shape))
    assert at == len(numbers)
    return arrays


def leaves(packer: Packer, obs: Any) -> list[np.ndarray]:
    """The same from an observation as the environment gives it."""
    found = []
    for source in packer.sources:
        value = obs
        for key in source.path:
            value = value[key]
        found.append(np.asarray(value))
    return found


# --- episodes ------------------------------------------------------------------------------------

TASKS = {
    "CartPole": {"id": "CartPole-v1"},
    "MiniGrid": MINIGRID | {"horizon": 60},
    "Autoencode": POPGYM | {"id": "popgym-AutoencodeEasy-v0"},  # its observations are tuples
    "Battleship": POPGYM | {"id": "popgym-BattleshipEasy-v0"},  # a coordinate is an action
    "Taxi": {"id": "Taxi-v4", "horizon": 40},
    "TimeAware": {
        "id": "FrozenLake-v1",
        "kwargs": {"map_name": "8x8"},
        "wrappers": [{"_target_": "gymnasium.wrappers.TimeAwareObservation", "flatten": False}],
    },
    "Pendulum": {"id": "Pendulum-v1"},
    "PopgymPendulum": POPGYM | {"id": "popgym-NoisyPositionOnlyPendulumHard-v0"},
    "start": {"id": "Clock-v0", "kwargs": {"actions": spaces.Discrete(3, start=-1)}},
}


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_single_environments_that_are_not_stepped_past_their_ends(name):
    task, B = TASKS[name], 3
    env = GymVec(num_envs=B, **task)
    check_env(env, B)
    assert env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    singles = [GymVec(**task).envs[0] for _ in range(B)]
    pack, act, generator = env._pack, env._read_action, np.random.default_rng(7)
    env.action_space.seed(1)
    for episode in range(2):
        obs, _ = env.reset(seed=7 if episode == 0 else None)
        seeds = generator.integers(2**31, size=B)
        last = [single.reset(seed=int(s))[0] for single, s in zip(singles, seeds, strict=True)]
        live, t = [True] * B, 0
        while any(live):
            action = env.action_space.sample()
            shown, before, (obs, *results, _) = obs, obs.copy(), env.step(action)
            np.testing.assert_array_equal(shown, before)  # a copy: steps leave it alone
            t += 1
            for b in range(B):
                expected = (0, False, False)
                if live[b]:
                    last[b], *expected, _ = singles[b].step(act(action[b]))
                    if t == env.horizon and not expected[1]:
                        expected[2] = True
                    live[b] = not (expected[1] or expected[2])
                else:
                    np.testing.assert_array_equal(obs[b], before[b])
                assert [result[b] for result in results] == [*expected]
                for x, y in zip(unpacked(pack, obs[b]), leaves(pack, last[b]), strict=True):
                    np.testing.assert_array_equal(x, y.astype(np.float32))
        assert t <= env.horizon
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(action)


def test_a_row_is_stepped_until_its_end_and_reports_success_there(clocks):
    env = GymVec(num_envs=4, id="Clock-v0")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(4, np.int64))
    first = env.reset(seed=0)[0]
    length, total, success = np.zeros(4), np.zeros(4), np.zeros(4)
    while env._is_live.any():
        obs, reward, terminated, _, info = env.step(np.zeros(4, np.int64))
        length[terminated], total = env._t, total + reward
        success[info["_success"]] = info["success"][info["_success"]]
        assert not info["success"][~terminated].any()
    assert len({*length}) > 1 and (first == 0).all()  # a copy: later steps leave it alone
    for clock, n, paid, ok in zip(clocks, length, total, success, strict=True):
        assert len(clock.calls) == 1 + n == 1 + paid and ok == n % 2
    np.testing.assert_array_equal(obs, (length / 3).astype(np.float32)[:, None])


def test_a_reward_that_is_no_number_is_refused():
    for paid in (None, math.nan, math.inf):
        env = GymVec(num_envs=2, id="Long-v0", kwargs={"paid": paid}, horizon=5)
        shown = "inf" if paid == math.inf else "nan"
        with pytest.raises(ValueError, match=f"^the reward must be finite, got {shown}$"):
            check_first_step(env)
    for paid in ("much", [1, 2]):
        env = GymVec(num_envs=2, id="Long-v0", kwargs={"paid": paid}, horizon=5)
        with pytest.raises(ValueError, match=r"^the environment's reward must be a number, got "):
            check_first_step(env)


def test_an_error_in_an_environment_says_where_it_comes_from():
    def raised(error, kind):
        def step(action):
            raise error

        env = GymVec(num_envs=1, id="Pendulum-v1")
        env.reset(seed=0)
        env.envs[0].step = step
        with pytest.raises(kind) as caught:
            env.step(np.zeros((1, 1), np.float32))
        return caught.value

    for error, kind, text in (
        (KeyError("x"), RuntimeError, "KeyError: 'x'"),
        (AssertionError(), RuntimeError, "AssertionError"),
        (ValueError("two\nlines"), ValueError, "ValueError: two lines"),
    ):
        expected = f"{kind.__name__}: the environment's step raised {text}"
        assert in_one_line(raised(error, kind)) == expected
    out_of_memory = torch.OutOfMemoryError("CUDA out of memory")
    assert machine.is_out_of_memory(raised(out_of_memory, RuntimeError))
    for error in (MemoryError(), OSError(28, "No space left on device", "log")):
        assert raised(error, type(error)) is error


@pytest.mark.parametrize("name", ["NormalizeReward", "NormalizeObservation"])
def test_wrappers_that_go_on_from_episode_to_episode_are_no_bit_exact_tasks(name):
    wrapper = {"_target_": f"gymnasium.wrappers.{name}"}
    for wrappers, resume in (([], "bit-exact"), ([wrapper], "not bit-exact: two episodes")):
        env = GymVec(id="CartPole-v1", wrappers=wrappers)
        check_first_step(env)
        assert compare_episodes(env).startswith(resume)


def test_the_generators_state_is_all_that_episodes_depend_on():
    def episode(env):
        env.reset()
        played = []
        while env._is_live.any():
            played.append(env.step(np.zeros(2, np.int64))[:4])
        return played

    for name in ("CartPole", "Autoencode", "MiniGrid"):
        env, other = (GymVec(num_envs=2, **TASKS[name]) for _ in range(2))
        env.reset(seed=3)
        episode(env)
        state = env.np_random.bit_generator.state
        other.reset(seed=4)
        other.np_random.bit_generator.state = state
        np.testing.assert_equal(episode(env), episode(other))
        assert env.np_random.bit_generator.state != state


SMALL = ["device=cpu", "batch_size=3", "seq_model=gru", "seq_model.hidden_dim=4", "num_envs=2"]
SMALL += ["algo.hidden_dims=[4]", "encoder.obs_dim=4", "encoder.action_dim=2"]
SMALL += ["encoder.reward_dim=2", "budget.warmup_episodes=2", "budget.eval_every=1"]
SMALL += ["budget.eval_episodes=2", "context_len=5"]
SMALL += ["budget.train_steps=100", "updates_per_step=0.03"]


@pytest.mark.parametrize(
    "task",
    [
        ["env=cartpole_v", "env.horizon=20"],
        ["env=popgym", "budget.train_steps=250"],
        ["env=gym", "env.id=MiniGrid-MemoryS7-v0", "env.module=minigrid", "env.horizon=20"],
        ["env=pendulum_p", "env.horizon=20"],
        ["env=mujoco_p", "budget.warmup_steps=null"],
        pytest.param(["env=pybullet_p", "budget.warmup_steps=null"], marks=needs_pybullet),
    ],
    ids=lambda task: task[0],
)
def test_a_run_that_is_cut_continues_identically(task):
    config = experiment.resolve(compose_quickly([*SMALL, *task]))
    trainer, saved = real_trainer(config), []
    trainer.fit(lambda: saved.append((as_saved(trainer.state_dict()), len(trainer.logger))))
    rows = list(trainer.logger)
    assert {row[0] for row in rows} == {"train", "eval"}
    data, written = saved[len(saved) // 2]
    other = real_trainer(config)
    other.env.reset()  # its generator stands elsewhere
    other.load_state_dict(loaded(data))
    other.fit(lambda: None)
    assert other.logger == rows[written:]
    assert same(whole_state(other), whole_state(trainer))


def test_a_time_limit_is_an_end_only_where_that_is_said(clocks):
    cases = [
        ({"id": "CartPole-v1", "horizon": 3}, False),
        ({"id": "CartPole-v1", "kwargs": {"max_episode_steps": 3}}, False),
        ({"id": "CartPole-v1", "horizon": 3, "time_limit_is_end": True}, True),
        ({"id": "Long-v0", "horizon": 3}, False),
        (MINIGRID | {"kwargs": {"max_steps": 3}}, False),  # its own limit, not Gymnasium's
    ]
    for task, is_end in cases:
        env = GymVec(num_envs=2, **task)
        assert env.horizon == 3
        env.reset(seed=0)
        for t in range(3):
            _, _, terminated, truncated, _ = env.step(np.zeros(2, np.int64))
            assert [*terminated] == [t == 2 and is_end] * 2
            assert [*truncated] == [t == 2 and not is_end] * 2
    for name in ("Battleship", "HigherLower"):  # truncated by POPGym, and over
        env = PopgymVec(task=name)
        env.reset(seed=0)
        while env._is_live.any():
            _, _, terminated, truncated, _ = env.step(np.zeros(1, np.int64))
        assert terminated.all()
    assert PopgymVec(task="HigherLower", level="hard").horizon == 3 * 52 - 1
    assert PopgymVec(task="RepeatPrevious", level="medium").horizon == 103


def test_environments_are_closed(clocks):
    env = GymVec(num_envs=3, id="Clock-v0", render_mode="rgb_array")
    assert env.render_mode is None and env.render() is None
    assert [clock.is_closed for clock in clocks] == [True, False, False, False]  # a probe
    env.close()
    with pytest.raises(ValueError, match=r"^horizon must"):
        GymVec(num_envs=2, id="Long-v0")
    with pytest.raises(ValueError, match=r"^wrappers must fit"):
        GymVec(id="Clock-v0", wrappers=[{"_target_": "gymnasium.wrappers.GrayscaleObservation"}])
    with pytest.raises(ValueError, match=r"^its action_space must"):
        GymVec(id="Clock-v0", kwargs={"actions": spaces.Box(0, math.inf, (2,))})
    assert len(clocks) == 8 and all(clock.is_closed for clock in clocks)


# --- observations --------------------------------------------------------------------------------


def image(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


NUMBERS, BYTES = spaces.Box(-1, 1, (2, 3), np.float64), spaces.Box(0, 9, (3,), np.uint8)
KNOWN = [  # space, its parts, whether bytes hold it
    (spaces.Box(-1, 1, (), np.float64), [Part((1,))], False),
    (NUMBERS, [Part((6,))], False),
    (spaces.Box(-3, 3, (2,), np.int64), [Part((2,))], False),
    (spaces.Box(0.0, 1.0, (8, 8, 3), np.float32), [Part((192,))], False),
    (BYTES, [Part((3,))], True),
    (image(128), [Part((128,), scale=255.0)], True),
    (image(9, 8, 3), [Part((3, 9, 8), scale=255.0)], True),
    (image(3, 9, 8), [Part((3, 9, 8), scale=255.0)], True),
    (image(9, 8), [Part((1, 9, 8), scale=255.0)], True),
    (spaces.Box(0, 1, (9, 8), np.uint8), [Part((1, 9, 8))], True),
    (spaces.Discrete(5, start=-2), [Part((1,), (5,))], True),
    (spaces.Discrete(257), [Part((1,), (257,))], False),
    (spaces.MultiDiscrete([2, 3], start=[4, -1]), [Part((2,), (2, 3))], True),
    (spaces.MultiDiscrete(np.full((5, 4, 2), [2, 3])), [Part((2, 5, 4), (2, 3))], True),
    (spaces.MultiDiscrete([[[2, 3]], [[3, 3]]]), [Part((4,), (2, 3, 3, 3))], True),
    (spaces.MultiBinary((2, 2)), [Part((4,))], True),
    (
        spaces.Dict({"b": spaces.Tuple([spaces.Discrete(2), BYTES]), "a": spaces.Discrete(3)}),
        [Part((1,), (3,)), Part((1,), (2,)), Part((3,))],
        True,
    ),
    (spaces.Tuple([BYTES, spaces.Text(5), NUMBERS]), [Part((3,)), Part((6,))], False),
]


@pytest.mark.parametrize(("space", "parts", "bytes"), KNOWN, ids=lambda v: f"{v}"[:40])
def test_a_space_has_these_parts_and_its_observations_come_back(space, parts, bytes):
    packer = Packer(space)
    assert [*packer.space.parts] == parts
    assert packer.space.dtype == (np.uint8 if bytes else np.float32)
    space.seed(0)
    for _ in range(3):
        obs, numbers = space.sample(), packer.space.sample()
        packer(obs, numbers)
        for x, y in zip(unpacked(packer, numbers), leaves(packer, obs), strict=True):
            np.testing.assert_array_equal(x, y.astype(np.float32))


REFUSED = [
    (image(8, 8, 8), "must be an image whose channels, fewer than its rows and columns"),
    (spaces.Graph(NUMBERS, None), "must be made of Box, Discrete, MultiDiscrete"),
    (spaces.Sequence(NUMBERS), "must be made of"),
    (spaces.Dict({"x": spaces.OneOf([BYTES, NUMBERS])}), "must be made of"),
    (spaces.Box(0, 1, (0,)), "must be made of"),
    (spaces.Text(3), "must hold numbers"),
    (spaces.Discrete(10**6), "must have at most 10,000 categories, got 1,000,000"),
]


@pytest.mark.parametrize(("space", "text"), REFUSED, ids=lambda v: f"{v}"[:20])
def test_what_no_encoder_reads_is_refused_in_one_line(space, text):
    with pytest.raises(ValueError, match=f"^its observation_space.*{text}.*") as caught:
        Packer(space)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "obs", "text"),
    [
        (BYTES, np.array([0, 1, 256]), "must be in its space, got 256"),
        (BYTES, np.array([0, 0.5, 1]), "must be in its space, got 0.5"),
        (BYTES, np.zeros(4), r"must have shape \(3,\), got \(4,\)"),
        (spaces.Discrete(3, start=1), 4, "must be in its space, got 4"),
        (spaces.Discrete(3, start=1), 0, "must be in its space, got 0"),
        (spaces.Dict({"a": BYTES}), {}, "must be there"),
    ],
)
def test_an_observation_that_is_not_of_its_space_is_never_another_one(space, obs, text):
    packer = Packer(space)
    with pytest.raises(ValueError, match=f"^the environment's observation.* {text}"):
        packer(obs, packer.space.sample())


def test_text_is_left_out():
    packer = Packer(spaces.Dict({"said": spaces.Text(5), "seen": BYTES}))
    assert packer.left_out == ["observation.said"]


CATEGORIES = Part((3, 7, 7), (11, 6, 4))


@pytest.mark.parametrize(
    ("wrappers", "parts"),
    [
        ([], [Part((1,), (4,)), CATEGORIES]),
        (["minigrid.wrappers.FullyObsWrapper"], [Part((1,), (4,)), CATEGORIES]),
        (["minigrid.wrappers.ImgObsWrapper"], [CATEGORIES]),
        (["minigrid.wrappers.RGBImgPartialObsWrapper"], [Part((1,), (4,)), (3, 56, 56)]),
        (["minigrid.wrappers.RGBImgObsWrapper", "minigrid.wrappers.ImgObsWrapper"], [(3, 56, 56)]),
        (
            [
                "minigrid.wrappers.RGBImgPartialObsWrapper",
                "minigrid.wrappers.ImgObsWrapper",
                "gymnasium.wrappers.GrayscaleObservation",
            ],
            [(1, 56, 56)],
        ),
    ],
)
def test_views_of_minigrid_are_categories_and_its_pictures_are_pictures(wrappers, parts):
    env = GymVec(**MINIGRID, wrappers=[{"_target_": target} for target in wrappers])
    check_first_step(env)
    parts = [Part(part, scale=255.0) if type(part) is tuple else part for part in parts]
    assert [*env.single_observation_space.parts] == parts


def test_stacked_views_are_categories():
    stack = {"_target_": "gymnasium.wrappers.FrameStackObservation", "stack_size": 2}
    wrappers = [{"_target_": "minigrid.wrappers.ImgObsWrapper"}, stack]
    env = GymVec(**MINIGRID, wrappers=wrappers)
    check_first_step(env)
    assert env.single_observation_space.parts == (Part((294,), (11, 6, 4) * 98),)
    env = GymVec(id="CartPole-v1", wrappers=[stack])
    assert env.single_observation_space.parts == (Part((8,)),)


def features(space, obs, encoder_class=SpaceEncoder, **kwargs):
    """What an encoder makes of observations of a space, and the packed arrays."""
    packer = Packer(space)
    packed = np.zeros((len(obs), *packer.space.shape), packer.space.dtype)
    for row, one in zip(packed, obs, strict=True):
        packer(one, row)
    spec = TaskSpec(packer.space, spaces.Discrete(2), 5)
    kwargs = {"obs_dim": 3, "action_dim": 2, "reward_dim": 1} | kwargs
    encoder = encoder_class(spec, 2, **kwargs)
    n = len(obs)
    encoded = encoder(torch.from_numpy(packed), torch.zeros(n, 2), torch.zeros(n))
    assert encoded.shape == (n, encoder.output_dim) and encoded.isfinite().all()
    columns = torch.split(torch.from_numpy(packed), [math.prod(p.shape) for p in encoder.parts], 1)
    seen = [see(x) for see, x in zip(encoder.features, columns, strict=True)]
    assert encoder_class is MLPEncoder or all(x.dim() == (4 if p.is_image else 2)
        for x, p in zip(seen, encoder.parts, strict=True))  # fmt: skip
    return seen, packed


def test_categories_are_one_hot_and_bytes_of_images_are_fractions():
    space = spaces.MultiDiscrete([2, 3], start=[5, 0])
    for encoder, kwargs in ((SpaceEncoder, {"channels": None}), (MLPEncoder, {})):
        (seen,), _ = features(space, [np.array([6, 0]), np.array([5, 2])], encoder, **kwargs)
        assert seen.tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
        view = spaces.MultiDiscrete(np.full((4, 3, 2), [2, 3]))
        obs = np.zeros((4, 3, 2), np.int64)
        obs[1, 2] = [1, 2]
        (seen,), _ = features(view, [obs], encoder, **kwargs)
        assert seen.shape == (1, 5, 4, 3) and (seen.sum(1) == 2).all()
        assert seen[0, :, 1, 2].tolist() == [0, 1, 0, 0, 1]
        (seen,), _ = features(image(4, 5), [np.full((4, 5), 51)], encoder, **kwargs)
        assert (seen == 0.2).all()


LEAVES = st.one_of(
    st.builds(lambda n, s: spaces.Discrete(n, start=s), st.integers(1, 4), st.integers(-2, 2)),
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(spaces.MultiDiscrete),
    st.integers(1, 3).map(spaces.MultiBinary),
    st.sampled_from([np.float64, np.float32, np.int16]).map(
        lambda dtype: spaces.Box(-5, 5, (2, 1), dtype)
    ),
    st.integers(1, 3).map(lambda n: image(6, 7, n)),
    st.just(spaces.MultiDiscrete(np.full((6, 7, 2), [1, 3]))),
)  # fmt: skip
NESTED = st.recursive(
    LEAVES,
    lambda below: (
        st.lists(below, min_size=1, max_size=3).map(spaces.Tuple)
        | st.dictionaries(st.sampled_from("abc"), below, min_size=1, max_size=3).map(spaces.Dict)
    ),
    max_leaves=4,
)


@settings(max_examples=40)
@given(NESTED, st.integers(0, 99))
def test_observations_of_nested_spaces_stay_apart_and_are_encoded(space, seed):
    space.seed(seed)
    obs = [space.sample() for _ in range(4)]
    _, packed = features(space, obs, channels=None)
    packer = Packer(space)
    for i, a in enumerate(obs):
        for j, b in enumerate(obs):
            equal = all(map(np.array_equal, leaves(packer, a), leaves(packer, b)))
            assert equal == np.array_equal(packed[i], packed[j])


# --- actions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=3),
        spaces.MultiDiscrete([2, 3, 4], start=[0, -1, 5]),
        spaces.MultiDiscrete([[2, 1], [3, 2]]),
        spaces.MultiDiscrete([10, 100]),
        spaces.MultiBinary((3, 2)),
    ],
)
def test_every_action_has_one_number(space):
    read = action_reader(space)
    n = read.space.n
    every = [read(number) for number in np.arange(n)]
    assert all(space.contains(action) for action in every)
    sizes = getattr(space, "nvec", np.full(6, 2))
    expected = 4 if isinstance(space, spaces.Discrete) else math.prod(sizes.reshape(-1).tolist())
    assert read.space == spaces.Discrete(expected)
    assert len({np.asarray(action).tobytes() for action in every}) == n


FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
SHAPES = st.sampled_from([(), (1,), (3,), (2, 3), (1, 2, 1)])
NUMBER = st.floats(-1e3, 1e3, width=16)


@given(FLOATS, SHAPES, NUMBER, NUMBER)
def test_a_box_is_spanned_by_actions_from_minus_one_to_one(dtype, shape, a, b):
    low, high = sorted((a, b))
    space = spaces.Box(low, high, shape, dtype)
    read = action_reader(space)
    A = math.prod(shape)
    assert read.space == spaces.Box(-1.0, 1.0, (A,), np.float32)
    for number, expected in [(-1, low), (0, (low + high) / 2), (1, high), (-1.5, low), (9, high)]:
        action = read(np.full(A, number, np.float32))
        assert space.contains(action) and action.dtype == dtype and action.shape == shape
        assert (action == np.array(expected, dtype)).all()


UNIT = st.floats(-1, 1, width=32)


@given(FLOATS.filter(lambda dtype: dtype != np.float16), st.lists(UNIT, min_size=4, max_size=4))
def test_where_the_bounds_are_minus_one_and_one_actions_arrive_bit_for_bit(dtype, numbers):
    action = np.array(numbers, np.float32)
    arrived = action_reader(spaces.Box(-1, 1, (2, 2), dtype))(action)
    assert arrived.tobytes() == action.astype(dtype).tobytes()
    assert arrived.base is None or not np.shares_memory(arrived, action)


def test_each_number_of_an_action_has_bounds_of_its_own():
    low, high = np.array([[0, -3], [5, -1]]), np.array([[8, -1], [5, 1]])
    read = action_reader(spaces.Box(low, high, dtype=np.float64))
    assert read(np.array([-0.5, 0.5, 0.7, -0.25], np.float32)).tolist() == [
        [2, -1.5],
        [5, -0.25],
    ]
    ends = np.array([-1e30, 1e17])  # rounding must not lead out of the bounds
    read = action_reader(spaces.Box(ends[0], ends[1], (1,), np.float64))
    for number in (-1, 1):
        assert ends[0] <= read(np.array([number]))[0] <= ends[1]


def test_a_pendulum_is_gymnasiums_own_and_gets_rescaled_torques():
    B, env = 2, GymVec(num_envs=2, id="Pendulum-v1")
    assert env.single_action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=5)
    seeds = np.random.default_rng(5).integers(2**31, size=B)
    own = [gymnasium.make("Pendulum-v1") for _ in range(B)]
    for b in range(B):
        np.testing.assert_array_equal(obs[b], own[b].reset(seed=int(seeds[b]))[0])
    for t in range(200):
        action = env.action_space.sample()
        obs, reward, terminated, truncated, _ = env.step(action)
        for b in range(B):
            expected, paid, *_ = own[b].step(2 * action[b])
            np.testing.assert_array_equal(obs[b], expected)
            assert reward[b] == paid and not terminated[b] and truncated[b] == (t == 199)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-math.inf, math.inf, (2,)),
        spaces.Box(-3.4e38, 3.4e38, (2,)),
        spaces.Box(np.array([0, 0]), np.array([1, math.inf]), dtype=np.float64),
        spaces.Box(0, 9, (2,), np.int64),
        spaces.Box(0, 255, (2,), np.uint8),
        spaces.Box(-1, 1, (0,)),
        spaces.Tuple([spaces.Discrete(2)]),
    ],
    ids=str,
)
def test_other_actions_are_refused_in_one_line(space):
    allowed = "Discrete, MultiDiscrete, MultiBinary, or a Box of floats with finite bounds "
    with pytest.raises(ValueError, match=f"^its action_space must be {allowed}") as caught:
        action_reader(space)
    assert "\n" not in str(caught.value)


def test_too_many_combinations_are_refused():
    with pytest.raises(ValueError, match=r"at most 1,000 combinations, got .* with 1,001"):
        action_reader(spaces.MultiDiscrete([7, 11, 13]))
    assert action_reader(spaces.Discrete(2000)).space.n == 2000


# --- the config ----------------------------------------------------------------------------------

WRAPPER = "env.wrappers=[{_target_: %s}]"
MODULE = r"must name a module that is in the current folder, .*, got"
BAD = [
    ([], r"env\.id must be a name that Gymnasium knows, such as CartPole-v1, got null"),
    (["env.id=CartPole-v9"], r"env\.id must be registered .*`v9` .* doesn't exist.*env\.module="),
    (["env.id=Cartpole-v1"], r"env\.id must be .* Did you mean: `CartPole`"),
    (["env.id='nosuch:A-v0'"], rf"env\.id {MODULE} 'nosuch'"),
    (["env.id=phys2d/CartPole-v1"], r"env\.id must be usable here, got .*: No module named 'jax'"),
    (["env.id=Blackjack-v1"], r"env\.horizon must be given, as Blackjack-v1 does not say"),
    (["env.module=nosuch.envs"], rf"env\.module {MODULE} 'nosuch\.envs'"),
    (["env.module=xml.etree.cElementTree_"], rf"env\.module {MODULE}"),
    (["env.module=hypothesis.extra.redis"], r"env\.module must name a module that can be imported"),
    (["env.kwargs={foo: 1}"], r"env\.kwargs must be those of CartPole-v1, got .*'foo'"),
    (["env.kwargs={max_episode_steps: 7}", "env.horizon=9"], r"env\.kwargs must be without"),
    (["env.id=FrozenLake-v1", "env.kwargs={map_name: x}"], r"env\.kwargs must .*KeyError: 'x'"),
    (["env.horizon=0"], r"env\.horizon must be at least 1, got 0"),
    (
        [WRAPPER % "gymnasium.wrappers.Nope"],
        r"env\.wrappers must be subclasses of gymnasium\.Wrapper",
    ),
    ([WRAPPER % "nosuch.Nope"], rf"env\.wrappers {MODULE} 'nosuch'"),
    ([WRAPPER % "builtins.repr"], r"env\.wrappers must be subclasses of gymnasium\.Wrapper"),
    ([WRAPPER % "gymnasium.wrappers.GrayscaleObservation"], r"env\.wrappers must fit, got .*image"),
    ([WRAPPER % "memrl.envs.gym.Entries, entries: [4]"], r"env\.wrappers .*: entries must be int"),
    (["env.wrappers=[gymnasium.wrappers.X]"], r"env\.wrappers=.*: must be a list, each a mapping"),
    (["env=popgym", "env.task=Nope"], r"env\.task must be one of Autoencode, .*, got Nope"),
    (["env=popgym", "env.task=LabyrinthEscape"], r"env\.task must be one of"),
    (["env=popgym", "env.level=Easy"], r"env\.level=Easy: must be one of easy, medium, hard"),
    (["env=minigrid_memory", "env.size=8"], r"env\.size must be one of 7, 9, 11, 13, 17, got 8"),
]


@pytest.mark.parametrize(("overrides", "text"), BAD, ids=lambda v: f"{v}"[:50])
def test_what_cannot_work_is_refused_in_one_line(overrides, text):
    named = any(word.startswith(("env.id", "env=")) for word in overrides) or not overrides
    words = ["device=cpu", "env=gym", *([] if named else ["env.id=CartPole-v1"]), *overrides]
    with pytest.raises(ConfigError, match=f"^{text}") as caught:
        experiment.build(experiment.resolve(compose_quickly(words)))
    assert "\n" not in str(caught.value)


MISSING = """
import sys
for name in ("popgym", "minigrid", "pybullet_envs_gymnasium", "mujoco"):
    sys.modules[name] = None  # as if they were not installed
from memrl.envs.minigrid import MinigridMemoryVec
from memrl.envs.mujoco import MujocoVec
from memrl.envs.popgym import PopgymVec
from memrl.envs.pybullet import PybulletVec
for make, keys in (
    (PopgymVec, {"task": "RepeatFirst"}),
    (MinigridMemoryVec, {"size": 7}),
    (PybulletVec, {"robot": "ant"}),
    (MujocoVec, {"robot": "ant"}),
):
    try:
        make(**keys)
    except ValueError as error:
        print(error)
"""


def test_a_package_that_is_not_installed_is_named():
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "popgym is not installed: pip install popgym",
        "minigrid is not installed: pip install minigrid",
        "pybullet_envs_gymnasium is not installed: pip install pybullet-envs-gymnasium",
        "mujoco is not installed: pip install 'gymnasium[mujoco]'",
    ], done.stderr
