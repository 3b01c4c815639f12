"""Rollout: what is recorded of rows that end at different steps, and what actors are given."""

import itertools
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from test_dqn_laws import agent as dqn_of

from memrl.actions import DiscreteActions
from memrl.envs.tmaze import TMazePassiveVec
from memrl.interfaces import TaskSpec
from memrl.replay import Replay
from memrl.rollout import UniformActor, check_first_step, rollout

CPU = torch.device("cpu")
LENGTHS = (2, 5, 3, 1)
T, B = max(LENGTHS), len(LENGTHS)


class Staggered(VectorEnv):
    """Row b ends at step ``LENGTHS[b]``, even rows by termination, odd ones by truncation.

    Observation (row, t), reward 10 * row + t, and after a row's end whatever is asked for.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, reuse=False, success="at the end", over=True):
        self.num_envs = B
        self.single_observation_space = gymnasium.spaces.Box(0, 100, (2,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(4)
        self.observation_space = batch_space(self.single_observation_space, B)
        self.action_space = batch_space(self.single_action_space, B)
        self.reuse, self.success, self.over = reuse, success, over
        self.obs = np.zeros((B, 2), np.float32)
        self.rewards = np.zeros(B, np.float32)
        self.actions = []

    def _observe(self):
        self.obs[:, 0], self.obs[:, 1] = np.arange(B), self.t
        return self.obs if self.reuse else self.obs.copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, actions):
        assert self.t < T, "stepped on although all rows have ended"
        self.actions.append(actions.copy())
        self.t += 1
        n, even = np.array(LENGTHS), np.arange(B) % 2 == 0
        ended = self.t >= n if self.over else self.t == n
        self.rewards[:] = 10 * np.arange(B) + self.t
        rewards = self.rewards if self.reuse else self.rewards.astype(np.float64)
        info = {}
        if self.success == "always":  # right at the row's last step only
            info["success"] = np.where(self.t == n, even, ~even)
        elif self.success == "at the end" and (self.t == n).any():
            info["success"] = (self.t == n) & even
        return self._observe(), rewards, ended & even, ended & ~even, info


class WholeRewards(Staggered):
    """The same rewards, as integers."""

    def step(self, actions):
        obs, rewards, *rest = super().step(actions)
        return obs, rewards.astype(np.int64), *rest


class Scripted:
    """Acts t % 4 in every row, and notes what it was given."""

    def __init__(self):
        self.seen = []

    def initial_state(self, batch_size):
        self.batch_size = batch_size
        return 0

    def act(self, obs, prev_reward, state, explore):
        self.seen.append((obs.clone(), prev_reward.clone(), state, explore))
        return torch.full((B,), state % 4), state + 1


def played(explore=False, **kwargs):
    env, actor = Staggered(**kwargs), Scripted()
    episodes, success = rollout(env, actor, explore, CPU)
    return env, actor, episodes, success


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *itertools.product(("observation", "reward"), (math.nan, math.inf, -math.inf)),
        ("reward", 1e39),  # agents see float32
    ],
)
def test_what_is_not_finite_is_named_before_it_is_acted_on(name, bad):
    class Broken(Staggered):
        at, row = 2, 1

        def reset(self, **kwargs):
            obs, info = super().reset(**kwargs)
            return self.spoilt(obs, "observation"), info

        def step(self, actions):
            obs, rewards, *rest = super().step(actions)
            return self.spoilt(obs, "observation"), self.spoilt(rewards, "reward"), *rest

        def spoilt(self, array, of):
            if of == name and self.t == self.at:
                array[self.row] = bad
                return [*array] if self.t < LENGTHS[self.row] else array  # a list will do
            return array

    shown = math.inf if bad == 1e39 else bad
    places = [(0, 1), (2, 1)] if name == "observation" else [(2, 1), (2, 3)]
    for Broken.at, Broken.row in places:
        actor = Scripted()
        with pytest.raises(FloatingPointError) as error:
            rollout(Broken(), actor, False, CPU)
        where = f"at step {Broken.at} of an episode"
        assert str(error.value) == f"the environment's {name} {where} is {shown}"
        assert len(actor.seen) == Broken.at
    Broken.at = 1
    if bad != 1e39:
        with pytest.raises(ValueError, match=f"^the {name}( of step)? must be finite, got {bad}$"):
            check_first_step(Broken())
    if name == "observation":  # of row 3, whose episode is over
        Broken.at, Broken.row = 2, 3
        rollout(Broken(), Scripted(), False, CPU)


@pytest.mark.parametrize("place", [0, 1], ids=["observation", "reward"])
def test_another_shape_than_before_is_refused(place):
    class Wider(Staggered):
        def step(self, actions):
            results = [*super().step(actions)]
            if self.t == 2:
                results[place] = results[place].repeat(2, -1)
            return tuple(results)

    name, shape = (("observation", (B, 2)), ("reward", (B,)))[place]
    with pytest.raises(ValueError) as error:
        rollout(Wider(), Scripted(), False, CPU)
    wider = (*shape[:-1], 2 * shape[-1])
    assert str(error.value) == f"the environment's {name} must be of shape {shape}, got {wider}"


def test_shapes_and_types():
    _, _, episodes, _ = played()
    assert episodes.obs.shape == (T + 1, B, 2)
    assert all(column.shape == (T, B) for column in episodes[1:])
    dtypes = [column.dtype for column in episodes]
    assert dtypes == [torch.float32, torch.int64, torch.float64, torch.bool, torch.bool]
    assert all(column.device == CPU for column in episodes)


@pytest.mark.parametrize("over", [False, True])
def test_mask_is_true_up_to_and_including_each_rows_last_step(over):
    _, _, episodes, _ = played(over=over)
    assert episodes.mask.tolist() == [[t < n for n in LENGTHS] for t in range(T)]


@pytest.mark.parametrize("over", [False, True])
def test_terminated_is_true_at_the_last_step_of_terminated_rows_alone(over):
    _, _, episodes, _ = played(over=over)
    expected = [[t == n - 1 and b % 2 == 0 for b, n in enumerate(LENGTHS)] for t in range(T)]
    assert episodes.terminated.tolist() == expected


def test_the_rollout_ends_with_the_longest_row_and_steps_ended_rows_on():
    env, actor, episodes, _ = played()
    assert len(env.actions) == len(actor.seen) == T
    assert all(len(actions) == B for actions in env.actions)
    assert np.array_equal(episodes.action, env.actions)


@pytest.mark.parametrize("reuse", [False, True])
def test_everything_is_recorded_as_it_was_even_if_the_env_reuses_its_arrays(reuse):
    _, actor, episodes, _ = played(reuse=reuse)
    for t in range(T + 1):
        assert episodes.obs[t].tolist() == [[b, t] for b in range(B)]
    for t in range(T):
        assert episodes.action[t].tolist() == [t % 4] * B
        assert episodes.reward[t].tolist() == [10 * b + t + 1 for b in range(B)]
        assert actor.seen[t][0].tolist() == [[b, t] for b in range(B)]


@pytest.mark.parametrize("reuse", [False, True])
def test_the_actor_gets_the_reward_of_the_step_before_0_at_first(reuse):
    _, actor, _, _ = played(reuse=reuse)
    for t, (_, prev_reward, _, _) in enumerate(actor.seen):
        assert prev_reward.dtype == torch.float32
        assert prev_reward.tolist() == [0 if t == 0 else 10 * b + t for b in range(B)]


@pytest.mark.parametrize("explore", [False, True])
def test_the_actors_state_is_threaded_and_it_explores_for_rows_inside_their_episodes(explore):
    _, actor, _, _ = played(explore=explore)
    assert actor.batch_size == B
    assert [state for _, _, state, _ in actor.seen] == list(range(T))
    assert [e for _, _, _, e in actor.seen] == ([4, 3, 2, 1, 1] if explore else [False] * T)


@pytest.mark.parametrize("success", ["at the end", "always"])
@pytest.mark.parametrize("over", [False, True])
def test_success_is_that_of_each_rows_last_step(success, over):
    _, _, _, result = played(success=success, over=over)
    assert result.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("window", [2, T])
def test_only_truncated_rows_bootstrap_from_the_observation_at_their_own_end(window):
    env = Staggered()
    spec = TaskSpec(env.single_observation_space, env.single_action_space, T)
    replay = Replay(spec, window, 20, CPU)
    replay.add(rollout(env, Scripted(), True, CPU)[0])
    batch, agent = replay.windows(replay.starts, cut=True), dqn_of("lstm")
    for j in range(len(replay.starts)):
        b, t = batch.obs[0, j].int().tolist()
        last = int(batch.mask[:, j].sum()) - 1
        terminated = b % 2 == 0 and t + last + 1 == LENGTHS[b]
        assert batch.obs[last + 1, j].tolist() == [b, t + last + 1]
        assert batch.terminated[last, j] == terminated
        target, batch.obs[last + 1, j] = agent.predict(batch)[1][last, j], -7.0  # another end
        assert (agent.predict(batch)[1][last, j] == target) == terminated
        assert (target == batch.reward[last, j]) == terminated


def test_success_is_none_if_the_task_reports_none():
    assert played(success=None)[3] is None
    maze = TMazePassiveVec(num_envs=2, length=2)
    assert rollout(maze, UniformActor(DiscreteActions(4)), False, CPU)[1] is None


def test_every_rollout_begins_with_a_reset():
    env = Staggered()
    first, second = (rollout(env, Scripted(), False, CPU)[0] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_no_gradient_and_no_graph_is_kept():
    class Learning(Scripted):
        weight = torch.ones(B, requires_grad=True)

        def act(self, obs, prev_reward, state, explore):
            action, state = super().act(obs, prev_reward, state, explore)
            return (action * self.weight).argmax(-1).expand(B), state

    episodes, _ = rollout(Staggered(), Learning(), True, CPU)
    assert not any(column.requires_grad for column in episodes)


def test_a_real_maze_is_played_to_its_horizon():
    env = TMazePassiveVec(num_envs=3, length=4)
    env.reset(seed=0)
    episodes, _ = rollout(env, UniformActor(DiscreteActions(4)), True, CPU)
    assert episodes.obs.shape == (6, 3, 2)
    assert episodes.mask.all()
    assert episodes.terminated.tolist() == [[False] * 3] * 4 + [[True] * 3]


def test_uniform_actor_draws_every_action_equally_often_with_torchs_generator():
    n, actor = 40_000, UniformActor(DiscreteActions(4))

    def draw(seed):
        torch.manual_seed(seed)
        return actor.act(torch.zeros(n, 2), torch.zeros(n), actor.initial_state(n), True)[0]

    action = draw(0)
    assert action.dtype == torch.int64
    share = action.bincount(minlength=4) / n
    assert (share - 0.25).abs().max() < 5 * (0.25 * 0.75 / n) ** 0.5
    assert len(share) == 4
    assert torch.equal(action, draw(0))
    assert not torch.equal(action, draw(1))


def test_an_episode_longer_than_the_horizon_is_an_error():
    env = TMazePassiveVec(num_envs=2, length=5)
    env.reset(seed=0)
    actor = UniformActor(DiscreteActions(4))
    assert len(rollout(env, actor, True, CPU, 6)[0].mask) == 6
    with pytest.raises(RuntimeError, match="longer than the task's horizon of 5 steps"):
        rollout(env, actor, True, CPU, 5)


def test_integer_rewards_are_recorded_as_floats():
    whole, floats = (rollout(env(), Scripted(), True, CPU)[0] for env in (WholeRewards, Staggered))
    assert whole.reward.dtype == floats.reward.dtype == torch.float64
    assert torch.equal(whole.reward, floats.reward)
