"""The loop: its order, its counts, what it writes, and that it may be cut anywhere."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from test_rollout import LENGTHS, Staggered

from memrl import experiment
from memrl.envs.tmaze import TMazePassiveVec
from memrl.interfaces import TaskSpec
from memrl.replay import Replay
from memrl.run import config
from memrl.trainer import Trainer

CPU = torch.device("cpu")
LEFT = 2
COUNTERS = ("env_steps", "episodes", "updates")


class Tape:
    """An agent, a logger and a maker of environments that write down what is asked of them.

    The agent always goes left; its n-th update reports a loss of n.
    """

    def __init__(self, length=3, losses=None):
        self.length = length
        self.events = []
        self.losses = losses
        self.updates = 0
        self.batches = []

    # environment

    def make_env(self, num_envs):
        tape = self

        class Taped(TMazePassiveVec):
            def reset(self, *, seed=None, options=None):
                tape.events.append(("reset", self.num_envs, seed))
                return super().reset(seed=seed, options=options)

        return Taped(num_envs=num_envs, length=self.length)

    # agent

    def initial_state(self, batch_size):
        return 0

    def act(self, obs, prev_reward, state, explore):
        if state == 0:  # once an episode
            self.events.append(("act", len(obs), explore))
        return torch.full((len(obs),), LEFT), state + 1

    def update(self, batch):
        self.events.append("update")
        self.batches.append(batch)
        self.updates += 1
        loss = self.losses(self.updates) if self.losses else self.updates
        return {"loss": torch.tensor(float(loss))}

    def state_dict(self):
        return {"updates": self.updates}

    def load_state_dict(self, state):
        self.updates = state["updates"]

    def named_parameters(self):
        return []

    # logger

    def write(self, table, row):
        self.events.append((table, dict(row)))

    def close(self, exit_code):
        pass

    # what happened

    def boundary(self):
        self.events.append("boundary")

    def rows(self, table):
        return [e[1] for e in self.events if isinstance(e, tuple) and e[0] == table]

    def order(self):
        """The events, each row by its table alone, what the constructor did left out."""
        return [
            e[0] if isinstance(e, tuple) and e[0] in ("train", "eval") else e for e in self.events
        ][2:]


def trainer_of(tape, **changes):
    horizon = tape.length + 1
    env = tape.make_env(1)
    spec = TaskSpec(env.single_observation_space, env.single_action_space, horizon)
    settings = {
        "make_env": tape.make_env,
        "agent": tape,
        "replay": Replay(spec, horizon, 200 * (horizon + 1), CPU),
        "device": CPU,
        "horizon": horizon,
        "seed": 5,
        "num_envs": 1,
        "batch_size": 7,
        "updates_per_step": 0.25,
        "train_episodes": 6,
        "warmup_episodes": 10,
        "eval_every": 10,
        "eval_episodes": 3,
        "stop_at_return": None,
        "stop_at_success": None,
    }
    trainer = Trainer(**(settings | changes))
    trainer.logger = tape
    return trainer


def fitted(length=3, losses=None, **changes):
    tape = Tape(length, losses)
    trainer = trainer_of(tape, **changes)
    trainer.fit(tape.boundary)
    return tape, trainer


def updates_between_rows(tape):
    """How many updates each train row ends."""
    done = [row["updates"] for row in tape.rows("train")]
    return [b - a for a, b in zip([0, *done], done, strict=False)]


# --- order ---------------------------------------------------------------------------------------


def test_the_order_of_a_run():
    tape, _ = fitted(length=3, train_episodes=4, eval_every=3)
    update = ["update", "boundary"]
    random = [("reset", 1, None)]
    episode = [("reset", 1, None), ("act", 1, True)]
    evaluation = [("reset", 3, None), ("act", 3, False), "eval"]
    expected = ["boundary"]
    expected += 10 * random + ["boundary"] + 10 * update  # floor(0.25 x 40)
    expected += ["train", "boundary"]  # and no evaluation, though 9 episodes' worth are passed
    for n in (11, 12, 13, 14):
        expected += [*episode, "boundary", *update, "train"]  # ceil(0.25 x 4)
        expected += evaluation if n in (12, 14) else []  # a multiple of 3, and the end
        expected += ["boundary"] if n < 14 else []
    assert tape.order() == expected


def test_the_environments_are_seeded_once_42_apart():
    tape, _ = fitted(seed=8)
    seeds = [
        e for e in tape.events if isinstance(e, tuple) and e[0] == "reset" and e[2] is not None
    ]
    assert seeds == [("reset", 1, 8), ("reset", 3, 50)]


def test_boundary_is_called_between_any_two_updates_and_around_every_collection():
    tape, _ = fitted(length=9, updates_per_step=0.7)
    order = tape.order()
    assert order.count("update") == tape.updates > 20
    for i, event in enumerate(order):
        if event == "update":
            assert order[i - 1] == order[i + 1] == "boundary"


def test_training_explores_and_evaluation_is_greedy_in_one_batch():
    tape, _ = fitted(train_episodes=20, num_envs=2, eval_episodes=5)
    acts = {e[1:] for e in tape.events if isinstance(e, tuple) and e[0] == "act"}
    assert acts == {(2, 2), (5, False)}


def test_updates_get_batches_of_batch_size_windows_of_the_window():
    tape, _ = fitted(length=3, batch_size=7)
    for batch in tape.batches:
        assert batch.action.shape == (4, 7)
        assert batch.mask.all()


def test_everything_collected_is_in_the_replay():
    _, trainer = fitted(length=3, train_episodes=6)
    assert trainer.replay.size == 16 * 5
    assert len(trainer.replay.starts) == 16


# --- counts --------------------------------------------------------------------------------------


def test_length_50_owes_127_updates_after_the_warm_up_and_13_an_episode():
    tape, trainer = fitted(length=50, train_episodes=3)
    assert updates_between_rows(tape) == [127, 13, 13, 13]
    assert trainer.counters.env_steps == 13 * 51
    rows = [[row[key] for key in COUNTERS] for row in tape.rows("train")]
    assert rows == [[510, 10, 127], [561, 11, 140], [612, 12, 153], [663, 13, 166]]


@pytest.mark.parametrize(("length", "train_episodes"), [(3, 1), (3, 7), (7, 11)])
def test_the_budget_is_warm_up_plus_train_episodes(length, train_episodes):
    tape, trainer = fitted(length=length, train_episodes=train_episodes)
    assert trainer.counters.env_steps == trainer.total_steps == (10 + train_episodes) * (length + 1)
    assert trainer.counters.episodes == 10 + train_episodes
    assert tape.rows("train")[-1]["env_steps"] == trainer.counters.env_steps


@pytest.mark.parametrize(("train_steps", "episodes"), [(1, 1), (39, 10), (45, 12)])
def test_a_budget_in_steps_ends_with_the_episode_that_reaches_it(train_steps, episodes):
    tape, trainer = fitted(length=3, train_episodes=None, train_steps=train_steps)
    assert (trainer.counters.episodes, trainer.progress) == (episodes, 1)  # the warm-up has 10
    assert tape.rows("eval")[-1]["env_steps"] == 4 * episodes


@pytest.mark.parametrize(
    ("updates_per_step", "horizon", "warmup", "each"),
    [
        (0.1, 30, 30, 3),  # 0.1 x 30 is more than 3 in floating point
        (0.29, 10, 29, 3),  # 0.29 x 100 is less than 29
        (0.7, 10, 70, 7),
        (1.0, 4, 40, 4),
        (2.0, 3, 60, 6),
        (1 / 3, 4, 13, 2),
        (0.26, 4, 10, 2),
    ],
)
def test_owed_updates_are_rounded_down_after_the_warm_up_then_up(
    updates_per_step, horizon, warmup, each
):
    tape, _ = fitted(
        length=horizon - 1, updates_per_step=updates_per_step, train_episodes=2, batch_size=1
    )
    assert updates_between_rows(tape) == [warmup, each, each]


@pytest.mark.parametrize("warmup", [{}, {"warmup_episodes": None, "warmup_steps": 30}])
def test_updates_may_be_counted_by_rounds(warmup):
    """10 or 8 random episodes in rounds of 2; with warmup_steps the last of them owes updates."""
    tape, trainer = fitted(
        **{"num_envs": 2, "updates_per_step": None, "updates_per_round": 3, **warmup}
    )
    first, *others = updates_between_rows(tape)
    assert (first, set(others)) == (3 if warmup else 15, {3})
    assert trainer.progress == 1
    steps = trainer.counters.env_steps
    trainer.counters.in_cycle, trainer.counters.owed = True, 1  # of 3 for 8 steps
    assert trainer.progress == pytest.approx(1 - 8 / 3 / steps)


def test_a_cycle_without_an_update_writes_no_row():
    tape, trainer = fitted(length=3, updates_per_step=0.02, train_episodes=2)  # owes 0.8, 0.08
    assert [row["env_steps"] for row in tape.rows("train")] == [44, 48]
    assert trainer.counters.updates == 2


@pytest.mark.parametrize(
    ("num_envs", "warmup", "train", "episodes"),
    [(4, 10, 6, [12, 16]), (4, 8, 9, [8, 12, 16, 20]), (16, 10, 3, [16]), (3, 1, 3, [3, 6])],
)
def test_several_environments_collect_whole_rounds(num_envs, warmup, train, episodes):
    tape, _ = fitted(
        num_envs=num_envs, warmup_episodes=warmup, train_episodes=train, eval_episodes=1
    )
    rows = tape.rows("train")
    assert [row["episodes"] for row in rows] == episodes
    assert [row["env_steps"] for row in rows] == [4 * n for n in episodes]
    collected = [b - a for a, b in zip([0, *episodes], episodes, strict=False)]
    assert updates_between_rows(tape) == collected  # 0.25 x 4 steps
    resets = [e for e in tape.order() if e[0] == "reset" and e[1] == num_envs]
    assert len(resets) == episodes[-1] / num_envs


def test_several_environments_round_the_updates_of_a_round_not_of_an_episode():
    tape, _ = fitted(length=4, num_envs=3, warmup_episodes=3, train_episodes=6)
    assert updates_between_rows(tape) == [3, 4, 4]  # 0.25 x 15 = 3.75


# --- evaluation ----------------------------------------------------------------------------------


def evaluated_at(tape):
    return [row["episodes"] for row in tape.rows("eval")]


@pytest.mark.parametrize(
    ("eval_every", "train_episodes", "episodes"),
    [
        (10, 30, [20, 30, 40]),  # 10 is passed by the warm-up
        (10, 25, [20, 30, 35]),  # the end is evaluated, too
        (10, 3, [13]),
        (100, 3, [13]),
        (3, 6, [12, 15, 16]),
        (1, 3, [11, 12, 13]),
        (50, 45, [50, 55]),
    ],
)
def test_evaluation_at_each_next_multiple_and_at_the_end(eval_every, train_episodes, episodes):
    tape, _ = fitted(eval_every=eval_every, train_episodes=train_episodes)
    assert evaluated_at(tape) == episodes


@pytest.mark.parametrize(
    ("num_envs", "eval_every", "episodes"),
    [(4, 5, [16, 20, 28, 32]), (4, 3, [16, 20, 24, 28, 32]), (8, 10, [24, 32])],
)
def test_cadence_with_several_environments(num_envs, eval_every, episodes):
    # Collections end at multiples of num_envs, the warm-up at 12 or 16, the budget at 30.
    tape, _ = fitted(num_envs=num_envs, eval_every=eval_every, train_episodes=20)
    assert evaluated_at(tape) == episodes


def test_an_evaluation_row_holds_the_means_of_its_episodes():
    tape, trainer = fitted(length=4, train_episodes=1)
    (row,) = tape.rows("eval")
    assert row["eval/return"] == pytest.approx(-1)  # a penalty of -1/4 at all steps but the last
    assert row["eval/length"] == 5
    assert math.isnan(row["eval/success"])  # a T-Maze reports none
    assert trainer.counters.last_return == row["eval/return"]
    assert list(row) == [*COUNTERS, "eval/return", "eval/success", "eval/length", "time/seconds"]


def test_rows_that_end_at_different_steps_count_up_to_their_own_ends():
    rows = {"make_env": lambda n: Staggered(), "num_envs": 4, "eval_episodes": 4}
    budget = {"train_episodes": None, "train_steps": 40, "eval_every": 1}
    tape, _ = fitted(length=4, **rows, **budget)
    total, steps = [10 * b * n + n * (n + 1) / 2 for b, n in enumerate(LENGTHS)], sum(LENGTHS)
    assert [row["env_steps"] for row in tape.rows("train")] == [3 * steps, 4 * steps]
    (row,) = tape.rows("eval")
    assert row["eval/return"] == tape.rows("train")[-1]["train/return"] == sum(total) / 4
    assert (row["eval/success"], row["eval/length"]) == (0.5, steps / 4)
    assert [e[2] for e in tape.events if e[0] == "act"] == [4, False]


def test_a_training_row_holds_the_means_of_its_cycle():
    torch.manual_seed(0)
    tape, _ = fitted(length=4, train_episodes=2, updates_per_step=0.4)
    rows = tape.rows("train")
    assert [row["train/loss"] for row in rows] == [10.5, 21.5, 23.5]  # 1..20, 21..22, 23..24
    assert rows[0]["train/return"] > -1  # random
    assert [row["train/return"] for row in rows[1:]] == pytest.approx([-1, -1])
    names = ["train/return", "train/success", "train/loss", "time/updates_per_s", "time/seconds"]
    assert all(list(row) == [*COUNTERS, *names] for row in rows)


def test_the_run_stops_once_an_evaluation_reaches_stop_at_return():
    tape, trainer = fitted(stop_at_return=-1.0, train_episodes=100, eval_every=6)
    assert evaluated_at(tape) == [12]
    assert trainer.finished and trainer.solved
    assert trainer.counters.env_steps == 12 * 4
    assert trainer.progress == 1


def test_the_budget_ends_a_run_that_never_reaches_stop_at_return():
    tape, trainer = fitted(stop_at_return=-0.999, train_episodes=6)
    assert evaluated_at(tape) == [16]
    assert trainer.finished and not trainer.solved


class Succeeds(TMazePassiveVec):
    """Half of the rows succeed from the n-th episode on."""

    def __init__(self, num_envs, first):
        super().__init__(num_envs=num_envs, length=3)
        self.first, self.begun = first, 0

    def reset(self, *, seed=None, options=None):
        self.begun += seed is None
        return super().reset(seed=seed, options=options)

    def step(self, actions):
        obs, reward, terminated, truncated, _ = super().step(actions)
        success = (np.arange(self.num_envs) % 2 == 0) & (self.begun >= self.first)
        return obs, reward, terminated, truncated, {"success": success}


def succeeding(**changes):
    tape = Tape()
    trainer = trainer_of(tape, make_env=lambda n: Succeeds(n, 3), eval_episodes=4, **changes)
    trainer.fit(tape.boundary)
    return tape, trainer


def test_the_run_stops_once_an_evaluation_reaches_stop_at_success():
    tape, trainer = succeeding(stop_at_success=0.5, train_episodes=100, eval_every=6)
    assert [row["eval/success"] for row in tape.rows("eval")] == [0, 0, 0.5]
    assert trainer.finished and trainer.solved


@pytest.mark.parametrize(("least", "solved"), [(-1.0, True), (-0.9, False)])
def test_with_both_both_have_to_be_reached(least, solved):
    _, trainer = succeeding(
        stop_at_success=0.5, stop_at_return=least, train_episodes=20, eval_every=5
    )
    assert trainer.solved is solved


def test_a_task_without_success_never_reaches_it():
    tape, trainer = fitted(stop_at_success=0.0, train_episodes=6)
    assert not trainer.solved
    assert all(math.isnan(row["train/success"]) for row in tape.rows("train"))


def test_a_training_row_holds_the_success_of_its_cycle():
    tape, _ = succeeding(num_envs=4, warmup_episodes=12, train_episodes=4)
    assert [row["train/success"] for row in tape.rows("train")] == pytest.approx([0.5 / 3, 0.5])


def test_progress_stays_between_0_and_1_and_counts_owed_updates_as_unspent():
    tape = Tape()
    trainer, seen = trainer_of(tape), []
    trainer.fit(lambda: seen.append((trainer.progress, trainer.counters.owed)))
    assert seen[0] == (0, 0)
    assert seen[1] == (0, 10)  # ten episodes are played, and all their updates owed
    assert [p for p, _ in seen] == sorted(p for p, _ in seen)
    assert all(0 <= p <= 1 for p, _ in seen)
    assert trainer.progress == 1


# --- what stops a run ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_stops_the_run_and_is_named(bad):
    tape = Tape(losses=lambda n: bad if n == 12 else n)
    with pytest.raises(FloatingPointError) as error:
        trainer_of(tape).fit(tape.boundary)
    assert str(error.value) == f"train/loss is {bad} at env step 48, by update 12"
    assert len(tape.rows("train")) == 2  # its own cycle has none
    assert tape.rows("eval") == []


def test_check_finite_sees_the_cycle_that_is_going_on():
    tape = Tape(losses=lambda n: math.nan if n == 3 else n)
    trainer, bad = trainer_of(tape), []

    def boundary():
        try:
            trainer.check_finite()
        except FloatingPointError:
            bad.append(trainer.counters.updates)

    with pytest.raises(FloatingPointError):
        trainer.fit(boundary)
    assert bad == [3, 4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    "name",
    ["num_envs", "batch_size", "train_episodes", "warmup_episodes", "eval_every", "eval_episodes"],
)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_below_1_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got {value}$"):
        trainer_of(Tape(), **{name: value})


@pytest.mark.parametrize("value", [0, -0.25, math.inf, math.nan])
def test_updates_per_step_out_of_range_is_refused_by_name(value):
    with pytest.raises(ValueError, match=f"^updates_per_step must be above 0, got {value}$"):
        trainer_of(Tape(), updates_per_step=value)


def test_an_update_in_another_form_takes_the_place_of_the_agents_own():
    tape, batches = Tape(), []

    def update(batch):
        batches.append(batch)
        return {"loss": torch.tensor(0.5)}

    trainer_of(tape, agent_update=update).fit(tape.boundary)
    assert tape.updates == 0
    assert len(batches) == tape.rows("train")[-1]["updates"] > 10
    assert {row["train/loss"] for row in tape.rows("train")} == {0.5}


def test_random_steps_owe_updates_in_their_last_round_alone():
    """As in the paper's continuous tasks; episodes here have 4 steps."""
    tape, trainer = fitted(warmup_episodes=None, warmup_steps=21, updates_per_step=1.0)
    assert updates_between_rows(tape) == [4] * 7  # the last random round, and six episodes
    assert [row["env_steps"] for row in tape.rows("train")] == [24, 28, 32, 36, 40, 44, 48]
    assert trainer.total_steps == 21 + 6 * 4
    tape, _ = fitted(warmup_episodes=None, warmup_steps=21, updates_per_step=0.3)
    assert updates_between_rows(tape) == [2] * 7  # rounded up, in the last random round too
    line = "train_steps must be above warmup_steps, 8, got 8"  # it would train nothing
    with pytest.raises(ValueError, match=f"^{line}$"):
        fitted(warmup_episodes=None, warmup_steps=8, train_steps=8, train_episodes=None)


@pytest.mark.parametrize("episodes", [None, 3])
def test_the_warm_up_is_counted_in_steps_or_in_episodes(episodes):
    steps = None if episodes is None else 12
    with pytest.raises(ValueError, match=r"^warmup_steps must be null where warmup_episodes is"):
        trainer_of(Tape(), warmup_episodes=episodes, warmup_steps=steps)


def test_discounted_returns_are_logged_on_request():
    tape, _ = fitted(discounts=[0.5, 1])
    for row in tape.rows("eval"):  # it walks left: penalised by 1/3 a step, but for the last one
        rewards = np.array([*[-1 / 3] * 3, 0])
        assert row["eval/return"] == pytest.approx(rewards.sum())
        assert row["eval/return_1"] == pytest.approx(rewards.sum())
        assert row["eval/return_0.5"] == pytest.approx((rewards * 0.5 ** np.arange(4)).sum())
    with pytest.raises(ValueError, match=r"^discounts must be numbers in \[0, 1\], got"):
        trainer_of(Tape(), discounts=[0.9, 1.1])


def test_diagnostics_are_those_of_the_last_batch_of_a_cycle():
    tape = Tape()
    tape.diagnostics = lambda batch: {"seen": torch.tensor(float(tape.updates))}
    trainer_of(tape).fit(tape.boundary)
    assert [row["train/seen"] for row in tape.rows("train")] == [
        row["updates"] for row in tape.rows("train")
    ]


# --- interruption, with a real agent -------------------------------------------------------------

SMALL = ["device=cpu", "batch_size=3", "algo.hidden_dims=[8]", "budget=smoke"]
SMALL += ["budget.train_episodes=3", "budget.warmup_episodes=3", "budget.eval_every=2"]
SMALL += ["budget.eval_episodes=2", "updates_per_step=0.5"]
LSTM = ["seq_model=lstm", "seq_model.hidden_dim=8"]
GPT = ["seq_model=gpt", "encoder.obs_dim=4", "encoder.action_dim=4", "dropout=0.3"]
RARE = [*GPT, "num_envs=2", "updates_per_step=null", "updates_per_round=3", "replay_episodes=4"]
RARE += ["replay_best=0.5", "env.length=4"]
RARE += ["algo.min_tries=2", "algo.start_epsilon=0.5", "algo.loss_steps=4"]
GPT += ["num_envs=2", "replay_capacity=23"]  # a ring that is full before the end
PIXELS = ["env=visual_match", "env.frames=[2,3,3]", "algo.target_entropy=0.5", *LSTM]
PIXELS += ["num_envs=2"]
SEPARATE = ["env=key_to_door", "env.frames=[2,3,3]", "algo=sacd_separate", "seq_model=gpt"]
SEPARATE += ["encoder.obs_dim=8", "dropout=0.3"]


BOX = ["env=gym", "env.id=Pendulum-v1", "env.horizon=8", "context_len=3", "num_envs=2"]
BOX += ["budget.train_episodes=2", "encoder.obs_dim=4"]
TD3 = [*BOX, "algo=td3", "seq_model=gpt", "dropout=0.3", "encoder.action_dim=4"]
TD3 += ["encoder.reward_dim=4"]
SEPARATE_TD3 = [*BOX, *LSTM, "algo=td3_separate"]
SAC = [*BOX, *LSTM, "algo=sac", "budget.warmup_steps=20", "budget.discounts=[0.9]"]
SAC += ["budget.warmup_episodes=null"]
BOXES = [TD3, SEPARATE_TD3, SAC]
LINEAR = [[f"seq_model={m}", *LSTM[1:]] for m in ("lru", "min_gru", "mamba2", "deltanet")]
EARLY = [*GPT, "env._target_=test_trainer.Early", "budget.train_steps=32"]
EARLY += ["budget.train_episodes=null"]


class Early(TMazePassiveVec):
    """Each row is truncated after a number of steps that is drawn at its start."""

    def reset(self, *, seed=None, options=None):
        first = super().reset(seed=seed, options=options)
        self.lengths, self.steps = self.np_random.integers(1, self.horizon + 1, self.num_envs), 0
        return first

    def step(self, actions):
        obs, reward, terminated, truncated, info = super().step(actions)
        self.steps += 1
        return obs, reward, terminated, truncated | (self.steps >= self.lengths), info


class Rows(list):
    """A logger that keeps rows, wall-clock columns aside."""

    def write(self, table, row):
        row = {k: repr(v) for k, v in row.items() if not k.startswith("time/")}
        self.append((table, row))


def whole_state(trainer):
    """What the rest of a run could depend on, weights, moments and generators included."""
    envs = [env.np_random.bit_generator.state for env in (trainer.env, trainer.eval_env)]
    return trainer.state_dict() | {"elapsed": 0, "envs": envs}


def real_trainer(config):
    trainer = experiment.build(config)
    trainer.logger = Rows()
    return trainer


def config_of(overrides):
    length = [] if "env=gym" in overrides else ["env.length=3"]
    return experiment.resolve(config.compose_config([*SMALL, *length, *overrides]))


def as_saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def loaded(data):
    return torch.load(io.BytesIO(data), weights_only=True)


def same(a, b):
    """Equal to the last bit, however nested."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return a == b or (a != a and b != b)  # nan is what a task without success reports


@pytest.mark.parametrize(
    ("overrides", "every"),
    # 7: of any kind, as a cycle has 4 or 6
    [
        (LSTM, 1),
        *((each, 7) for each in (EARLY, RARE, PIXELS, SEPARATE, *LINEAR, TD3, SEPARATE_TD3, SAC)),
    ],
    ids=lambda value: " ".join(value[:1] + value[-1:]) if isinstance(value, list) else "",
)
def test_a_run_cut_at_any_boundary_continues_identically(overrides, every):
    config = config_of(overrides)
    trainer, saved = real_trainer(config), []
    trainer.fit(lambda: saved.append((as_saved(trainer.state_dict()), len(trainer.logger))))
    rows = list(trainer.logger)
    assert len(saved) > 12
    assert {row[0] for row in rows} == {"train", "eval"}
    for number, (data, written) in list(enumerate(saved))[::every]:
        torch.manual_seed(1000 + number)
        other = real_trainer(config)
        for _ in range(number % 5):  # its generators stand elsewhere
            other.env.reset()
            other.eval_env.reset()
        torch.rand(number)
        state = loaded(data)
        other.load_state_dict(state)
        assert same(other.state_dict() | {"elapsed": 0}, state | {"elapsed": 0})
        other.fit(lambda: None)
        assert other.logger == rows[written:], f"boundary {number}"
        assert same(whole_state(other), whole_state(trainer)), f"boundary {number}"


def test_a_finished_run_has_nothing_left_to_do():
    config = config_of(LSTM)
    trainer = real_trainer(config)
    trainer.fit(lambda: None)
    other = real_trainer(config)
    other.load_state_dict(loaded(as_saved(trainer.state_dict())))
    assert other.finished
    other.fit(lambda: None)
    assert other.logger == []


def test_seconds_go_on_counting_over_interruptions():
    config = config_of(LSTM)
    trainer = real_trainer(config)
    state = trainer.state_dict() | {"elapsed": 1000.0}
    trainer.load_state_dict(state)
    assert trainer.seconds() >= 1000
    assert trainer.state_dict()["elapsed"] >= 1000


@pytest.mark.parametrize("fails", [False, True])
def test_every_environment_is_closed_however_a_run_ends(fails, monkeypatch, tmp_path):
    make_env, envs = experiment.make_env, []

    def noted(*arguments):
        envs.append(make_env(*arguments))
        return envs[-1]

    def fail(trainer, boundary):
        raise RuntimeError("as a test wants it")

    monkeypatch.setattr(experiment, "make_env", noted)
    if fails:
        monkeypatch.setattr(Trainer, "fit", fail)
    config = config_of(LSTM)
    with pytest.raises(RuntimeError) if fails else contextlib.nullcontext():
        experiment.train(config, tmp_path / "run")
    assert len(envs) == 5  # for ranges, for shapes, to train, to evaluate, and to compare episodes
    assert all(env.closed for env in envs)


@pytest.mark.parametrize("overrides", [LSTM, GPT], ids=lambda o: o[0])
def test_evaluation_does_not_change_training(overrides):
    def train_rows(*budget):
        trainer = real_trainer(config_of([*overrides, *budget]))
        trainer.fit(lambda: None)
        return [row for row in trainer.logger if row[0] == "train"]

    often = train_rows("budget.eval_every=1", "budget.eval_episodes=3")
    assert often == train_rows("budget.eval_every=100", "budget.eval_episodes=1")


def test_a_seed_gives_one_run_and_another_seed_another():
    def rows(seed):
        trainer = real_trainer(config_of([*LSTM, f"seed={seed}"]))
        trainer.fit(lambda: None)
        return trainer.logger

    first = rows(1)
    assert first == rows(1)
    assert first != rows(2)
