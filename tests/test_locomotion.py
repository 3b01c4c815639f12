"""Robots of PyBullet and MuJoCo: what is seen of them, and that a seed fixes an episode."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from conftest import needs_pybullet
from gymnasium import spaces

from memrl.envs import mujoco, pybullet
from memrl.envs.gym import GymVec
from memrl.envs.mujoco import MujocoPositions, MujocoVec, MujocoVelocities
from memrl.envs.pybullet import PybulletPositions, PybulletVec, PybulletVelocities

ROBOTS = [
    *(pytest.param(PybulletVec, robot, marks=needs_pybullet) for robot in pybullet.ROBOTS),
    *((MujocoVec, robot) for robot in mujoco.ROBOTS),
]
with np.load(Path(__file__).parent / "golden" / "pybullet_locomotion.npz") as file:
    GOLDEN = dict(file)


def episode(env: GymVec, seed: int, most: int = 1000) -> list[tuple[np.ndarray, ...]]:
    """What random actions show of an episode, or of its first steps."""
    rng = np.random.default_rng(seed)
    steps: list[tuple[np.ndarray, ...]] = [(env.reset(seed=seed)[0],)]
    while env._is_live.any() and len(steps) <= most:
        actions = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        steps.append(env.step(actions)[:4])
    return steps


def assert_same(played: list[Any], expected: list[Any]) -> None:
    """Compare episodes bit for bit."""
    assert len(played) == len(expected) > 5
    for x, y in zip(played, expected, strict=True):
        assert [a.tobytes() for a in x] == [b.tobytes() for b in y]


# --- a seed fixes an episode ---------------------------------------------------------------------


@pytest.mark.parametrize(("make", "robot"), ROBOTS)
def test_an_episode_is_the_same_whatever_was_played_before(make, robot):
    env = make(num_envs=2, robot=robot)
    first = episode(env, 3, 60)  # the very first one
    for seed, most in [(4, 250), (5, 0), (6, 1)]:  # falls, and episodes that are broken off
        episode(env, seed, most)
        assert_same(episode(env, 3, 60), first)
    other = make(num_envs=2, robot=robot)
    episode(other, 7, 30)
    assert_same(episode(other, 3, 60), first)
    env.close()
    assert_same(episode(other, 3, 60), first)


@pytest.mark.parametrize(("make", "robot"), ROBOTS)
def test_robots_do_not_influence_each_other(make, robot):
    together = make(num_envs=3, robot=robot)
    together.action_space.seed(0)
    obs, _ = together.reset(seed=9)
    seeds = np.random.default_rng(9).integers(2**31, size=3)
    alone = [make(robot=robot).envs[0] for _ in range(3)]
    for b, env in enumerate(alone):
        np.testing.assert_array_equal(obs[b], env.reset(seed=int(seeds[b]))[0].astype(np.float32))
    for _ in range(30):
        action, live = together.action_space.sample(), together._is_live.copy()
        obs, reward, terminated, truncated, _ = together.step(action)
        for b in np.flatnonzero(live):
            expected, *results, _ = alone[b].step(action[b])
            np.testing.assert_array_equal(obs[b], expected.astype(np.float32))
            assert results == [reward[b], terminated[b], truncated[b]]
        if not together._is_live.any():
            break


OTHER_PROCESS = """
from test_locomotion import *
env = PybulletVec(robot="walker")
print(digest(episode(env, 1)))
"""


def digest(steps: list[tuple[np.ndarray, ...]]) -> str:
    return hashlib.sha256(b"".join(a.tobytes() for step in steps for a in step)).hexdigest()


@needs_pybullet
def test_an_episode_is_the_same_in_another_process_which_prints_nothing_else():
    env = PybulletVec(num_envs=1, robot="walker")
    episode(env, 2)
    command = [sys.executable, "-c", OTHER_PROCESS]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (digest(episode(env, 1)) + "\n", "")


# --- PyBullet ------------------------------------------------------------------------------------


class RecordedNoise(gymnasium.Wrapper):
    """Starts episodes with the recorded offsets of joints instead of random ones."""

    def reset(self, *, seed=None, options=None):
        robot = self.unwrapped.robot
        self.left = [*GOLDEN[f"{type(robot).__name__}/joint_noise"]]
        robot.np_random = self
        return self.env.reset(options=options)

    def uniform(self, low, high):
        return self.left.pop(0)


@needs_pybullet
@pytest.mark.parametrize("make", [PybulletVec, PybulletPositions, PybulletVelocities])
@pytest.mark.parametrize("name", sorted({key.split("/")[0] for key in GOLDEN}))
def test_golden_physics(name, make):
    seen = pybullet.entries(name.lower(), make.observed)
    wrappers = [
        {"_target_": "test_locomotion.RecordedNoise"},
        {"_target_": "memrl.envs.gym.Entries", "entries": seen},
    ]
    first = GymVec(
        id=pybullet.ROBOTS[name.lower()][0], module="pybullet_envs_gymnasium", wrappers=wrappers
    )
    later = make(robot=name.lower())
    later.envs[0] = RecordedNoise(later.envs[0])
    for env in (first, later):
        (obs,), _ = env.reset(seed=0)
        # The records are of a simulation's first episode, where two numbers differ from those of
        # any later one: the target's angle in the first observation, and the first reward.
        if env is first:
            np.testing.assert_array_equal(obs, GOLDEN[f"{name}/obs"][0][seen])
        np.testing.assert_allclose(obs, GOLDEN[f"{name}/obs"][0][seen], atol=1e-6)
        actions = GOLDEN[f"{name}/action"]
        for t, action in enumerate(actions):
            obs, reward, terminated, truncated, _ = env.step(action[None])
            np.testing.assert_array_equal(obs[0], GOLDEN[f"{name}/obs"][t + 1][seen])
            assert (reward[0] == GOLDEN[f"{name}/reward"][t]) == (env is first or t > 0)
            assert terminated[0] == GOLDEN[f"{name}/terminated"][t] and not truncated[0]
        assert len(actions) == {"Ant": 100, "Hopper": 17}[name]


TABLE = {  # of the paper's program: width, actions, positions, velocities
    "ant": (
        (28, 8),
        [0, 1, 2, 6, 7, 8, 10, 12, 14, 16, 18, 20, 22, 24, 25, 26, 27],
        [3, 4, 5, 9, 11, 13, 15, 17, 19, 21, 23],
    ),
    "halfcheetah": (
        (26, 6),
        [0, 1, 2, 6, 7, 8, 10, 12, 14, 16, 18, 20, 21, 22, 23, 24, 25],
        [3, 4, 5, 9, 11, 13, 15, 17, 19],
    ),
    "hopper": ((15, 3), [0, 1, 2, 6, 7, 8, 10, 12, 14], [3, 4, 5, 9, 11, 13]),
    "walker": (
        (22, 6),
        [0, 1, 2, 6, 7, 8, 10, 12, 14, 16, 18, 20, 21],
        [3, 4, 5, 9, 11, 13, 15, 17, 19],
    ),
}


@pytest.mark.parametrize("robot", TABLE)
def test_what_is_seen_of_pybullets_robots(robot):
    (width, _), positions, velocities = TABLE[robot]
    assert pybullet.entries(robot, "positions") == positions
    assert pybullet.entries(robot, "velocities") == velocities
    assert pybullet.entries(robot, "all") == sorted(positions + velocities) == [*range(width)]
    assert TABLE.keys() == pybullet.ROBOTS.keys()
    for name, seen in (("P", positions), ("V", velocities)):
        recorded = GOLDEN.get(f"{robot.capitalize()}/idx_{name}")
        assert recorded is None or recorded.tolist() == seen


@needs_pybullet
@pytest.mark.parametrize("robot", TABLE)
def test_episodes_are_those_of_pybullet_and_what_is_not_seen_is_hidden(robot):
    (width, n_action), *seen = TABLE[robot]
    kinds = [PybulletVec, PybulletPositions, PybulletVelocities]
    full, *parts = (make(num_envs=2, robot=robot) for make in kinds)
    assert full.single_observation_space.shape == (width,) and full.horizon == 1000
    assert full.single_action_space == spaces.Box(-1.0, 1.0, (n_action,), np.float32)
    expected = episode(full, 8, 40)
    for env, columns in zip(parts, seen, strict=True):
        assert env.single_observation_space.shape == (len(columns),)
        hidden = [(obs[:, columns], *rest) for obs, *rest in expected]
        assert_same(episode(env, 8, 40), hidden)
    simulation = full.envs[0].unwrapped
    joints = [joint.current_relative_position() for joint in simulation.robot.ordered_joints]
    last = expected[-1][0][0]
    np.testing.assert_array_equal(last[8 : 8 + 2 * n_action], np.float32(joints).reshape(-1))


@needs_pybullet
def test_the_first_episode_is_like_later_ones():
    """Which it is not of the package's own environments."""
    bare = GymVec(id="AntBulletEnv-v0", module="pybullet_envs_gymnasium")
    first, second = episode(bare, 3, 10), episode(bare, 3, 10)
    differ = [[a.tobytes() != b.tobytes() for a, b in zip(x, y, strict=True)]
              for x, y in zip(first, second, strict=True)]  # fmt: skip
    assert differ[:2] == [[True], [False, True, False, False]] and not any(map(any, differ[2:]))
    assert_same(episode(PybulletVec(robot="ant"), 3, 10), second)


@needs_pybullet
def test_a_fall_is_an_end_except_at_the_time_limit():
    env = PybulletVec(num_envs=4, robot="hopper")
    before = episode(env, 0)[1:]
    fall = np.argmax([terminated for *_, terminated, _ in before], axis=0)  # (B,), the last step
    assert len({*fall}) > 1 and not any(truncated.any() for *_, truncated in before)
    env.horizon = len(before)
    after = episode(env, 0)[1:]
    assert_same([step[:2] for step in after], [step[:2] for step in before])
    is_late = fall == len(before) - 1
    for t, (*_, terminated, truncated) in enumerate(after):
        np.testing.assert_array_equal(terminated, (fall == t) & ~is_late)
        np.testing.assert_array_equal(truncated, (fall == t) & is_late)


@needs_pybullet
def test_an_episode_that_does_not_fall_is_truncated_after_a_thousand_steps():
    steps = episode(PybulletPositions(robot="halfcheetah"), 0)
    assert len(steps) == 1001
    assert [tuple(map(bool, step[2:])) for step in steps[-2:]] == [(False, False), (False, True)]


@needs_pybullet
def test_pictures_need_no_screen_and_change_nothing():
    env = PybulletVec(num_envs=2, robot="hopper", render_mode="rgb_array")
    expected = episode(env, 0, 2)
    played = [(env.reset(seed=0)[0],)]
    pictures = [env.render()]
    rng = np.random.default_rng(0)
    for _ in range(2):
        played.append(env.step(rng.uniform(-1, 1, (2, 3)).astype(np.float32))[:4])
        pictures.append(env.render())
    for picture in pictures[0]:
        assert picture.dtype == np.uint8 and picture.shape == (240, 320, 3) and picture.std() > 10
    assert (pictures[0][0] != pictures[2][0]).any()
    for x, y in zip(played, expected, strict=True):
        np.testing.assert_equal(x, y)


# --- MuJoCo --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robot", "positions", "velocities"),
    [("ant", 13, 14), ("halfcheetah", 8, 9), ("hopper", 5, 6), ("walker2d", 8, 9)],
)
def test_positions_and_velocities_are_those_of_mujoco(robot, positions, velocities):
    parts = {}
    for make, n in ((MujocoPositions, positions), (MujocoVelocities, velocities)):
        env = make(num_envs=2, robot=robot)
        assert env.single_observation_space.shape == (n,) and env.horizon == 1000
        parts[env.observed] = episode(env, 1, 10)
        data = [single.unwrapped.data for single in env.envs]
        limit = 10 if robot in ("hopper", "walker2d") else np.inf  # of what is seen of a velocity
        seen = {
            "positions": [d.qpos[-n:] for d in data],  # without those that grow as it runs
            "velocities": [d.qvel.clip(-limit, limit) for d in data],
        }
        np.testing.assert_array_equal(parts[env.observed][-1][0], np.float32(seen[env.observed]))
    whole = episode(MujocoVec(num_envs=2, robot=robot), 1, 10)
    for x, y, z in zip(whole, *parts.values(), strict=True):
        np.testing.assert_array_equal(x[0], np.concatenate([y[0], z[0]], axis=1))
        assert [a.tobytes() for a in x[1:]] == [a.tobytes() for a in y[1:]]


def test_mujoco_leaves_no_log_and_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    env = MujocoVec(robot="halfcheetah")  # whose model has a deprecated attribute
    assert len(episode(env, 0)) == 1001
    assert capfd.readouterr() == ("", "") and not [*tmp_path.iterdir()]


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "walker"),
    [pytest.param(PybulletVec, "walker", marks=needs_pybullet), (MujocoVec, "walker2d")],
)
def test_other_robots_are_refused(make, walker):
    robots = f"robot must be one of ant, halfcheetah, hopper, {walker}, got Ant"
    with pytest.raises(ValueError, match=f"^{robots}$"):
        make(robot="Ant")
    with pytest.raises(ValueError, match=r"^num_envs must be at least 1, got 0$"):
        make(num_envs=0, robot="ant")
