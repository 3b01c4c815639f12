"""The config: what composes, what is refused and how, what a run is called."""

import ast
import copy
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from conftest import ROOT, compose_quickly, needs_pybullet
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import memrl
from memrl.__main__ import main
from memrl.commands import train
from memrl.envs.tmaze import TMazePassiveVec
from memrl.experiment import build, folder_of, make_env, resolve
from memrl.run import identity, schema
from memrl.run.config import CONF, compose_config, lookup
from memrl.run.outcome import ConfigError, Failure
from memrl.run.schema import check_types


def config(*overrides):
    return resolve(compose_quickly(overrides))


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


MODELS = options("seq_model")
REQUIRED = {"env=gym": ["env.id=CartPole-v1"]}  # keys without which an option is refused

# --- what composes -------------------------------------------------------------------------------

PAPER = {  # Ni et al. 2023, the published program's settings
    "tmaze_passive": {
        **{50: 20000, 100: 20000, 250: 16000, 500: 8000},
        **{750: 8000, 1000: 8000, 1250: 8000, 1500: 6700},
    },
    "tmaze_active": {20: 40000, 50: 40000, 100: 40000, 250: 32000, 500: 16000},
    "visual_match": {
        **{60: 40000, 120: 30000, 250: 15000},
        **{500: 10000, 750: 10000, 1000: 10000},
    },
    "key_to_door": {60: 40000, 120: 40000, 250: 30000, 500: 15000},
}
IMAGE_TASKS = ("visual_match", "key_to_door")


@pytest.mark.parametrize("env", PAPER)
def test_paper_budget(env):
    cfg = compose_config([f"env={env}"])  # by Hydra itself, and so are those of a command line
    for length, train_episodes in PAPER[env].items():
        cfg.env.length = length
        assert resolve(cfg)["budget"] == {
            "train_steps": None,
            "train_episodes": train_episodes,
            "warmup_episodes": 10,
            "warmup_steps": None,
            "discounts": None,
            "eval_every": 50 if env in IMAGE_TASKS else 10,
            "eval_episodes": 20 if env in IMAGE_TASKS else 10,
            "stop_at_return": None,
            "stop_at_success": None,
        }, length


@pytest.mark.parametrize("env", [pytest.param("pybullet_p", marks=needs_pybullet), "mujoco_v"])
def test_paper_budget_of_robots(env):
    """1.5 million steps, 10,000 random ones among them, and evaluations every 5,000."""
    c = resolve(compose_config([f"env={env}"]))
    keys = ("context_len", "batch_size", "updates_per_step", "num_envs")
    assert [c[key] for key in keys] == [64, 256, 1.0, 1]
    assert c["budget"] == {
        "train_steps": None,
        "train_episodes": 1490,
        "warmup_episodes": None,
        "warmup_steps": 10_000,
        "discounts": [0.99, 0.999],
        "eval_every": 5,
        "eval_episodes": 10,
        "stop_at_return": None,
        "stop_at_success": None,
    }
    trainer = build(c)
    assert trainer.total_steps == 1_500_000
    assert trainer.replay.capacity == 1_000_000


@pytest.mark.parametrize(
    ("env", "budget"),
    [
        *(("tmaze_passive", budget) for budget in options("budget")),
        *(
            pytest.param("pybullet_v", budget, marks=needs_pybullet)
            for budget in options("budget")
            if budget != "fast"  # which has no entry for robots
        ),
    ],
)
def test_every_warm_up_can_be_in_steps_or_in_episodes(env, budget):
    for unit, other in (("steps", "episodes"), ("episodes", "steps")):
        c = resolve(compose_quickly([f"env={env}", f"budget={budget}", f"budget.warmup_{unit}=7"]))
        assert c["budget"][f"warmup_{unit}"] == 7
        assert c["budget"][f"warmup_{other}"] is None


def test_every_budget_can_be_in_steps_whatever_its_table_lacks():
    for budget in options("budget"):
        length = 10 if budget == "fast" else 7  # of its replay there is a table, too
        c = config(f"budget={budget}", f"env.length={length}", "budget.train_steps=5000")
        assert (c["budget"]["train_steps"], c["budget"]["train_episodes"]) == (5000, None)
    trainer = build(config("env.length=10", "budget.train_steps=5000"))
    assert trainer.total_steps == 5000
    assert trainer.agent.epsilon_steps == 500
    assert trainer.replay.capacity == 2 * (5000 + 11 * 11)  # warm-up and the last round


def test_paper_defaults():
    c = config("env.length=50")
    expected = {
        "batch_size": 64,
        "num_envs": 1,
        "updates_per_step": 0.25,
        "context_len": None,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "threads": 1,
    }
    assert {key: c[key] for key in expected} == expected
    assert {key: c["algo"][key] for key in ("gamma", "tau", "lr", "hidden_dims")} == {
        "gamma": 0.99,
        "tau": 0.005,
        "lr": 3e-4,
        "hidden_dims": [256, 256],
    }
    assert c["algo"]["dropout_scope"] == "everywhere"
    assert c["algo"]["shared_forward"] is False


@pytest.mark.parametrize("env", IMAGE_TASKS)
@pytest.mark.parametrize("seq_model", ["lstm", "gpt"])
def test_paper_defaults_of_image_tasks(env, seq_model):
    """The environment chooses CNN and SAC-D, whatever the memory."""
    c = config(f"env={env}", f"seq_model={seq_model}")
    sacd = {
        **{"gamma": 0.99, "tau": 0.005, "lr": 3e-4, "hidden_dims": [256, 256], "alpha": 0.1},
        **{"target_entropy": None, "dropout_scope": "everywhere", "freeze_critic": True},
        **{"memory_lr": None, "recurrence_lr": None, "weight_decay": 0.0},
    }
    assert c["algo"] == {"name": "sacd", "_target_": "memrl.algos.sacd.SACD", **sacd}
    cnn = {"channels": [8, 16], "obs_dim": 100, "action_dim": 0, "reward_dim": 0}
    assert c["encoder"] == {"_target_": "memrl.encoders.CNNEncoder", **cnn}
    room = {"final_reward": 5.0, "apple_reward": 1.0, "respawn_every": 20, "num_apples": 10}
    assert room.items() <= c["env"].items()
    assert c["env"].get("colours", "per_env") == "per_env"
    assert (c["batch_size"], c["updates_per_step"], c["context_len"]) == (64, 0.25, None)


@pytest.mark.parametrize("order", [1, -1])
def test_what_the_environment_chooses_can_be_overridden(order):
    overrides = ["env=key_to_door", "algo=dqn", "encoder=mlp", "encoder.obs_dim=7"][::order]
    c = config(*overrides)
    assert c["algo"]["name"] == "dqn"
    assert c["encoder"]["_target_"] == "memrl.encoders.MLPEncoder"
    assert c["encoder"]["obs_dim"] == 7
    assert config("algo=sacd")["encoder"]["_target_"] == "memrl.encoders.MLPEncoder"


@pytest.mark.parametrize("algo", ["sacd", "sacd_separate"])
def test_a_learned_temperature_begins_at_1(algo):
    """As in the published program; a given alpha is never passed over."""
    learned = [f"algo={algo}", "algo.target_entropy=0.5"]
    assert config(f"algo={algo}")["algo"]["alpha"] == 0.1
    assert config(*learned)["algo"]["alpha"] == 1.0
    assert config(*learned, "algo.alpha=0.3")["algo"]["alpha"] == 0.3


ORIGINAL_EXAMPLES = [  # the original program's example commands
    ("env=tmaze_passive env.length=50 seq_model=lstm", 191_156, 51),
    ("env=tmaze_passive env.length=1500 seq_model=gpt", 298_884, 1501),
    ("env=tmaze_active env.length=20 seq_model=gpt seq_model.n_layer=2", 497_156, 23),
    ("env=visual_match env.length=60 seq_model=gpt", 414_660, 90),
    ("env=key_to_door env.length=120 seq_model=lstm seq_model.n_layer=2", 564_520, 145),
    ("env=key_to_door env.length=250 seq_model=gpt seq_model.n_layer=2", 535_960, 275),
]


@pytest.mark.parametrize(("command", "parameters", "horizon"), ORIGINAL_EXAMPLES)
def test_original_examples_build_and_stand_in_the_readme(command, parameters, horizon):
    trainer = build(config(*command.split()))
    assert sum(w.numel() for _, w in trainer.agent.named_parameters()) == parameters
    assert trainer.horizon == horizon
    assert f"python run.py {command}" in (ROOT / "docs" / "reproduce.md").read_text()


@pytest.mark.parametrize("group", ["env", "algo", "seq_model"])
def test_an_option_is_named_after_its_file(group):
    for option in options(group):
        assert OmegaConf.load(CONF / group / f"{option}.yaml").name == option


COMBINATIONS = {("tmaze_passive", model) for model in MODELS}
COMBINATIONS |= {(env, "mlp") for env in options("env")}


@pytest.mark.parametrize(
    ("env", "seq_model"),
    [
        pytest.param(*each, marks=needs_pybullet if "pybullet" in each[0] else ())
        for each in sorted(COMBINATIONS)
    ],
)
def test_every_model_builds_and_one_for_every_task(env, seq_model):
    length = ["env.length=5"] if "length" in compose_quickly([f"env={env}"]).env else []
    more = [*length, *REQUIRED.get(f"env={env}", [])]
    c = config(f"env={env}", f"seq_model={seq_model}", "budget=smoke", *more)
    if env not in ("tmaze", "gym"):  # general forms have more keys
        own = len(c["seq_model"])  # as many as the model has options
        assert len(identity.flatten(c)) - own <= (58 if env in IMAGE_TASKS else 56)
    build(c)


CONTINUOUS = ("td3", "td3_separate", "sac", "sac_separate")
KINDS = [  # vectors and images, of tasks with discrete actions
    (env, algo)
    for algo in options("algo")
    for env in (["pendulum_v"] if algo in CONTINUOUS else ["tmaze_active", "key_to_door"])
]


@pytest.mark.parametrize(("env", "algo"), KINDS)
def test_every_kind_of_task_takes_every_algorithm(env, algo):
    length = "env.horizon=9" if algo in CONTINUOUS else "env.length=2"
    tiny = [length, "batch_size=2", "budget=smoke", "updates_per_step=1"]
    tiny += ["budget.warmup_episodes=1"]
    trainer = build(config(f"env={env}", f"algo={algo}", *tiny))
    trainer.logger = type("Nowhere", (), {"write": lambda *_: None})()
    trainer.total_steps = 1  # ends after the warm-up, its updates and an evaluation
    trainer.fit(lambda: None)
    assert trainer.counters.updates > 0


def test_every_key_is_read_by_somebody():
    """A constructor takes it (the schema sees to that), and something uses it by name."""
    read = set()
    for path in (ROOT / "memrl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr if isinstance(node, ast.Attribute) else node.id)
            elif isinstance(node, ast.Constant):
                read.add(node.value)
    groups = ("env", "seq_model", "logger", "encoder", "algo", "budget")
    for path in (CONF / "config.yaml", *(p for group in groups for p in (CONF / group).glob("*"))):
        content = OmegaConf.to_container(OmegaConf.load(path))
        for key in identity.flatten({k: v for k, v in content.items() if k != "defaults"}):
            if not key.startswith(("hydra.", "budget.table.")):
                assert key.rpartition(".")[2] in read, f"nobody reads {key}"


def test_keys_have_the_values_that_a_budgets_table_says():
    table = OmegaConf.to_container(OmegaConf.load(CONF / "budget" / "fast.yaml"))["budget"]["table"]
    names = {"pendulum_*": "pendulum_p"}
    of_gpt = ("n_head", "position", "attention_init", "window", "sinks")
    for task, rows in table.items():
        for length, columns in rows.items():
            size = [] if length == "other" else [f"env.length={length}"]
            task = names.get(task, task)
            for model in ("lstm", "gpt", "lru"):
                c = config(f"env={task}", *size, "budget=fast", f"seq_model={model}")
                values = {key.rpartition(".")[2]: v for key, v in identity.flatten(c).items()}
                for name, value in columns.items():
                    value = value.get(model, values[name]) if name == "lr" else value
                    if model == "gpt" or name not in of_gpt:
                        assert values[name] == value, (task, length, name)
            assert "table" not in c["budget"]


def test_of_two_keys_for_one_thing_the_typed_one_counts():
    c = config("env.length=10", "budget=fast", "updates_per_step=0.5", "replay_capacity=2000")
    keys = ("updates_per_step", "updates_per_round", "replay_capacity", "replay_episodes")
    assert [c[key] for key in keys] == [0.5, None, 2000, None]
    c = config("env.length=10", "updates_per_round=7", "replay_episodes=30")
    assert [c[key] for key in keys] == [None, 7, None, 30]
    trainer = build(c)
    assert (trainer.updates_per_round, trainer.replay.capacity) == (7, 30 * 12)


def test_heads_follow_layers():
    assert config("seq_model=gpt", "seq_model.n_layer=4")["seq_model"]["n_head"] == 4
    assert config("seq_model=gpt", "seq_model.n_head=2")["seq_model"]["n_head"] == 2


@given(st.dictionaries(st.integers(0, 5), st.integers(), min_size=1), st.integers(0, 5))
def test_lookup_takes_an_entry_or_other_or_fails(table, key):
    if key in table:
        assert lookup(table, key) == table[key]
    else:
        with pytest.raises(ValueError, match=f"no entry for {key}, only "):
            lookup(table, key)
        assert lookup(table | {"other": 7}, key) == 7


GPT_SMOKE = config("seq_model=gpt", "budget=smoke")


# --- what is refused -----------------------------------------------------------------------------

REFUSED = {
    "env.length=-3": "env.length must be at least 1, got -3",
    "env.length=0": "env.length must be at least 1, got 0",
    "env.length=abc": "env.length=abc: must be an integer or a list",
    "env.length=1.5": "env.length=1.5: must be an integer or a list",
    "env.length=[5,a]": "env.length=[5,a]: must be an integer or a list, each an integer",
    "env.length=[5,5]": "env.length must be an integer of at least 1, or a list of distinct ones, "
    "got [5, 5]",
    "env=memory_chain env.length=[5,6]": "env.length=[5,6]: must be an integer",
    "env.length=[5,37] budget=fast": "env.length=[5,37]: budget=fast has no entry for "
    "tmaze_passive 37, only for 5, 10, 20, 50, 100, 250, 500, 1000, 1500, 3000, 10000: use budget=",
    "env.length=7": "no published budget for tmaze_passive 7, only for 5, 10, 20, 50, "
    "100, 250, 500, 750, 1000, 1250, 1500: use budget=quick, budget.train_episodes=N or "
    "budget.train_steps=N",
    "env.length=37 budget=fast": "budget=fast has no entry for tmaze_passive 37, only for 5, 10, "
    "20, 50, 100, 250, 500, 1000, 1500, 3000, 10000: use budget=quick or smoke",
    "env.penalty=0.1": "env.penalty must be at most 0, got 0.1",
    "env.penalty_rule=early": "env.penalty_rule=early: must be one of late, not_right",
    "algo.gamma=2": "algo.gamma must be in [0, 1], got 2",
    "algo.gamma=high": "algo.gamma=high: must be a finite number",
    "algo.tau=0": "algo.tau must be in (0, 1], got 0",
    "updates_per_step=1/64": "updates_per_step=1/64: must be a finite number (1/64 is 0.015625)",
    f"algo.lr=1{'0' * 400}": f"algo.lr=1{'0' * 400}: must be a finite number",
    "algo.lr=nan": "algo.lr=nan: must be a finite number",
    "algo.lr=true": "algo.lr=true: must be a finite number",
    "algo.lr=-1": "algo.lr must be above 0, got -1",
    "algo.memory_lr=0": "algo.memory_lr must be null or above 0, got 0",
    "algo.memory_lr=x": "algo.memory_lr=x: must be a finite number or null",
    "algo=sacd algo.weight_decay=-1": "algo.weight_decay must be at least 0, got -1",
    "algo=sacd_separate algo.recurrence_lr=1e-4": "algo.recurrence_lr must be null: the model names"
    " no recurrence_parameters, got 0.0001",
    "algo.shared_forward=1": "algo.shared_forward=1: must be true or false",
    "algo.hidden_dims=3": "algo.hidden_dims=3: must be a list",
    "algo.hidden_dims=[a]": "algo.hidden_dims=[a]: must be a list, each an integer",
    "algo.hidden_dims=[]": "algo.hidden_dims must be widths of at least 1, got []",
    "batch_size=0": "batch_size must be at least 1, got 0",
    "batch_size=null": "batch_size=null: must be an integer",
    "num_envs=0": "num_envs must be at least 1, got 0",
    "threads=0": "threads must be at least 1 and at most 1024, got 0",
    "objective=return": "objective=return: must be one of eval/return, eval/success, eval/length "
    "or null",
    "seed=-1": "seed must be at least 0 and below 2**32, got -1",
    "seed=abc": "seed=abc: must be an integer",
    "device=cuda": "device=cuda: there is no CUDA device here; auto and cpu are allowed",
    "precision=tf32": "precision=tf32: only a CUDA device has it; float32, bf16 and auto are "
    "allowed",
    "precision=fp16": "precision=fp16: must be one of float32, tf32, bf16",
    "update=graphed": "update=graphed: only a CUDA device has it; eager and compiled are allowed",
    "update=fast": "update=fast: must be one of eager, compiled, graphed",
    "device=tpu": "device=tpu: must be one of auto, cpu, cuda",
    "updates_per_step=0": "updates_per_step must be null or above 0, got 0",
    "updates_per_round=0": "updates_per_round must be null or at least 1, got 0",
    "updates_per_round=2 updates_per_step=0.5": "updates_per_round must be null where "
    "updates_per_step is set, and an integer where it is null, got 2",
    "updates_per_step=null": "updates_per_round must be null where updates_per_step is set, and an",
    "replay_episodes=3 num_envs=4": "replay_episodes must be at least 4, got 3",
    "replay_episodes=300 replay_capacity=5000": "replay_capacity must be null where "
    "replay_episodes is set, got 5000",
    "replay_episodes=1000000000000": "replay_episodes must fit into memory: 12000000000000 times",
    "replay_best=1.5": "replay_best must be in [0, 1], got 1.5",
    "algo.start_epsilon=-1": "algo.start_epsilon must be null or in [0, 1], got -1",
    "algo.min_tries=-1": "algo.min_tries must be at least 0, got -1",
    "seq_model=gpt seq_model.attention_init=0": "seq_model.attention_init must be above 0, got 0",
    "algo.loss_steps=6": "algo.loss_steps must be null or a multiple of 4, got 6",
    "context_len=12": "context_len must be null (the whole episode) or at most the horizon, 11, "
    "got 12",
    "context_len=0": "context_len must be null (the whole episode) or at least 1, got 0",
    "dropout=1": "dropout must be in [0, 1), got 1",
    "attention_dropout=-1": "attention_dropout must be in [0, 1), got -1",
    "checkpoint_minutes=0": "checkpoint_minutes must be above 0, got 0",
    "sweep=../up": "sweep must be a folder's name of at most 150 characters and 255 bytes, "
    "without slash or leading dot, got ../up",
    "replay_capacity=100 num_envs=9": "replay_capacity must be at least the num_envs=9 episodes "
    "of a round, 108 slots, got 100",
    "replay_capacity=5": "replay_capacity must be at least one episode, 12 slots, got 5",
    "budget.train_episodes=0": "budget.train_episodes must be at least 1, got 0",
    "budget.train_episodes=null": "budget.train_steps must be null where train_episodes is set,"
    " and an integer where it is null, got null",
    "budget.train_steps=50 budget.train_episodes=5": "budget.train_steps must be null where "
    "train_episodes is set, and an integer where it is null, got 50",
    "budget.train_steps=0": "budget.train_steps must be at least 1, got 0",
    "budget.eval_every=often": "budget.eval_every=often: must be an integer",
    "budget.stop_at_return=x": "budget.stop_at_return=x: must be a finite number or null",
    "seq_model=gpt seq_model.n_head=3": "seq_model.n_head must divide the width 128, got 3",
    "seq_model.n_layer=0": "seq_model.n_layer must be at least 1, got 0",
    "seq_model._target_=memrl.seq_models.rnn.Elman": "seq_model._target_="
    "memrl.seq_models.rnn.Elman: no class Elman there; it has Recurrent",
    "seq_model._target_=nowhere.Model": "seq_model._target_=nowhere.Model: no package nowhere in",
    "encoder.obs_dim=0": "encoder.obs_dim must be at least 1, got 0",
    "+speed=3": "speed=3: no such key or group; ",
    "+algo.gama=0.9": "algo.gama=0.9: no such key; did you mean algo.gamma?",
    "+algo.horizon=3": "algo.horizon=3: no such key; there are algo.dropout_scope, algo.expl",
    "+seq_model.dropout=0.2": "seq_model.dropout=0.2: no such key; there are seq_model.cell, ",
    "~algo.gamma": "algo=dqn: missing a required argument: 'gamma'",
    "~seed": "seed is missing",
    "sweep=": "sweep must be a folder's name of at most 150 characters and 255 bytes, "
    "without slash or leading dot, got ",
    "batch_size=${env.length} env.length=-1": "env.length must be at least 1, got -1",
    "seed=${oc.env:NOWHERE}": "seed: ",
    "env.name=${nowhere}": "env.name: Interpolation key 'nowhere' not found; give it as env.name=",
    "dropout=${algo.lr} algo.lr=3": "dropout must be in [0, 1), got 3",
    "seq_model.name=other": "seq_model.name=other: must be its file's; there is no ",
    "env=visual_match env.length=7": "no published budget for visual_match 7, only ",
    "env=visual_match env.colours=x": "env.colours=x: must be one of per_env, shared, per_episode",
    "env=mujoco_p budget=smoke budget.train_steps=2000": "budget.train_steps must be above "
    "warmup_steps, 2000, got 2000",
    "env=visual_match env.passive=1": "env.passive=1: must be true or false",
    "env=visual_match env.frames=[1,2]": "env.frames must be three numbers of steps, got [1, 2]",
    "env=visual_match env.frames=[15,7,15]": "env.length must be the second of frames, 7, got 60",
    "env=visual_match env.length=null": "env.length=null: must be an integer",
    "env=visual_match +env.render_mode=human": "env.render_mode=human: no such key; ",
    "env=key_to_door env.reward_room=x": "env.reward_room=x: must be one of sr, cca",
    "env=key_to_door env.num_apples=23": "env.num_apples must be at most 22, got 23",
    "env=key_to_door env.final_reward=0": "env.final_reward must be above 0, got 0",
    "env=key_to_door env.respawn_every=-1": "env.respawn_every must be at least 0, got -1",
    "env=key_to_door encoder.channels=[8,8,8,8,8]": "encoder.channels must be at most 4 numbers",
    "encoder=cnn": "encoder: observations must be images (C, H, W), got shape (2,)",
    "algo=sacd algo.alpha=-1": "algo.alpha must be at least 0, got -1",
    "algo=sacd algo.alpha=0 algo.target_entropy=0.5": "algo.alpha must be above 0, or ",
    "algo=sacd algo.target_entropy=2": "algo.target_entropy must be null or in [0, 1], got 2",
    "algo=sacd algo.freeze_critic=0": "algo.freeze_critic=0: must be true or false",
    "algo=sacd_separate algo.dropout_scope=x": "algo.dropout_scope=x: must be one of everywhere, ",
    "algo=sacd_separate algo.tau=2": "algo.tau must be in (0, 1], got 2",
    "budget.stop_at_success=x": "budget.stop_at_success=x: must be a finite number or null",
    "+budget._target_=memrl.run.files.MIB": "budget._target_=memrl.run.files.MIB: no such key",
    "env._target_=[a]": "env._target_=[a]: must be text, module.Class",
    "env._target_=os.system": "env._target_=os.system: must be a gymnasium.vector.VectorEnv",
    "env._target_=builtins.int": "env._target_=builtins.int: must be a gymnasium.vector.VectorEnv",
    "env._target_=memrl.envs.single.SingleEnv": "env._target_=memrl.envs.single.SingleEnv: must be "
    "a gymnasium.vector.VectorEnv",
    "seq_model._target_=subprocess.run": "seq_model._target_=subprocess.run: must be a torch.nn.",
    "seq_model._target_=torch.nn.LSTM": "seq_model._target_=torch.nn.LSTM: must be a torch.nn.",
    "encoder._target_=memrl.seq_models.mlp.MLP": "encoder._target_=memrl.seq_models.mlp.MLP: must "
    "be a torch.nn.Module with forward(obs, prev_action, prev_reward)",
    "algo._target_=memrl.encoders.MLPEncoder": "algo._target_=memrl.encoders.MLPEncoder: must be an"
    " agent with the methods of memrl.interfaces.Agent",
    "algo._target_=memrl.run.files.write_whole": "algo._target_=memrl.run.files.write_whole: must ",
    "logger._target_=memrl.run.tables.CsvTables": "logger._target_=memrl.run.tables.CsvTables: must"
    " be a logger with write(table, row) and close(exit_code)",
    "+logger.project=x logger._target_=memrl.run.logger.TensorBoard": "logger.project=x: no such ",
    "seq_model.n_layer=1000000000": "seq_model.n_layer must be at most 1000, got 1000000000",
    "batch_size=10000000000": "batch_size must fit into memory: 10000000000 times 264 bytes are ",
    "replay_capacity=1000000000000000": "replay_capacity must fit into memory: 1000000000000000 ",
    "budget=smoke env.length=1000000000": "env.length=1000000000: the default replay_capacity must",
    "budget=smoke budget.warmup_episodes=0": "budget.warmup_episodes must be at least 1, got 0",
    "budget=smoke budget.eval_every=0": "budget.eval_every must be at least 1, got 0",
    "budget=smoke budget.eval_episodes=0": "budget.eval_episodes must be at least 1, got 0",
    "+env.solved_at=1/3": "env.solved_at=1/3: must be a finite number (1/3 is 0.333",
    "+env.reference=[1]": "env.reference=[1]: must be null or a mapping, {key: value}",
    "+env.reference={best:a}": "env.reference={'best': 'a'}: must be null or a mapping, "
    "{key: value}, each value a finite number",
    "+env.task_keys=[lenght]": "env.task_keys=lenght: no such key; did you mean length?",
    "+algo.solved_at=1": "algo.solved_at=1: no such key; ",
    "~env": "env=null: must be a group's option",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_bad_values_are_refused_in_one_line(overrides):
    import torch

    if (
        overrides in ("device=cuda", "precision=tf32", "update=graphed")
        and torch.cuda.is_available()
    ):
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError) as caught:
        c = config(*overrides.split())
        folder_of(c)
        build(c)
    line = str(caught.value)
    assert line.startswith(REFUSED[overrides])
    assert "\n" not in line


@pytest.mark.parametrize(
    "overrides",
    [
        "seq_model.hidden_dim=1000000000",
        "seq_model.hidden_dim=1000000000000000000",  # more than an address holds
        "seq_model.hidden_dim=10000000000000000000",  # more than an integer of 64 bits holds
        "algo.hidden_dims=[8,1000000000]",
        "encoder.obs_dim=1000000000000",
        "env.length=1000000000000 seq_model=gpt budget=smoke",
        "budget.eval_episodes=1000000000000",
    ],
)
def test_too_little_memory_is_one_line_with_the_largest_size(overrides):
    largest = overrides.split()[0]
    with pytest.raises(Failure, match=rf"^{re.escape(largest)}: out of memory, .* GiB are free$"):
        build(config(*overrides.split()))
    np.empty(2**26).fill(0)  # the limit is lifted


def test_too_little_memory_creates_nothing(launch, tmp_path):
    process = launch("device=cpu", "budget=smoke", "seq_model.hidden_dim=1000000000")
    assert process.wait() == 1
    assert process.err.startswith("error: seq_model.hidden_dim=1000000000: out of memory")
    assert process.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def of_another_kind(num_envs: int) -> int:
    return num_envs


def test_what_a_function_returns_must_be_of_the_right_kind():
    target = "test_config.of_another_kind"
    with pytest.raises(ConfigError) as caught:
        make_env({"env": {"_target_": target}}, 1)
    assert str(caught.value) == f"env._target_={target}: must be a gymnasium.vector.VectorEnv"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_no_wrong_type_ever_passes(data):
    """Replace any value by one of another kind: the key is named, before anything is built."""
    c = copy.deepcopy(GPT_SMOKE)
    path = data.draw(st.sampled_from(sorted(identity.flatten(c))))
    if path.endswith(("name", "_target_")):
        return
    section, _, key = path.rpartition(".")
    holder = c[section] if section else c
    wrong = {"an": "object"} if section else [[1]]
    holder[key] = data.draw(st.sampled_from([wrong, [["x"]], b"bytes"]))
    with pytest.raises(ConfigError, match=key if section else None):
        check_types(c)


class ResetsItself(TMazePassiveVec):
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012


class OwnNames(TMazePassiveVec):
    def __init__(self, num_envs: int, memory: int, seed: int) -> None:
        super().__init__(num_envs=num_envs, length=memory + seed)


def test_a_task_that_resets_itself_is_refused():
    with pytest.raises(ConfigError, match=r"^env: its autoreset_mode must be .*DISABLED, got"):
        make_env({"env": {"_target_": "test_config.ResetsItself", "length": 5}}, 1)


BOX, DISCRETE = gymnasium.spaces.Box, gymnasium.spaces.Discrete
FORMS = "Discrete(n), actions 0 to n - 1, or Box(-1, 1, (A,), float32), "
ATTRIBUTES = [  # what a task has, and what is said of it
    ("single_action_space", DISCRETE(4, start=1), FORMS + "got Discrete"),
    ("single_action_space", gymnasium.spaces.MultiDiscrete([2, 2]), FORMS + "got Multi"),
    ("single_action_space", BOX(-2, 2, (2,)), FORMS + "got Box(-2.0"),
    ("single_action_space", BOX(-1, 1, (2, 1)), FORMS + "got Box(-1.0"),
    ("single_action_space", BOX(-1, 1, (2,), np.float64), FORMS + "got Box"),
    ("single_observation_space", DISCRETE(3), "of arrays with at least one dimension, such as"),
    ("single_observation_space", BOX(-1, 1, ()), "of arrays with at least one dimension"),
    ("single_observation_space", BOX(-1, 1, (2, 0)), "of arrays with at least one dimension"),
    ("single_observation_space", gymnasium.spaces.Text(3), "of arrays with at least one dimension"),
    ("single_observation_space", gymnasium.spaces.Dict(x=BOX(0, 1, (1,))), "of arrays with at"),
    ("single_observation_space", gymnasium.spaces.Tuple([DISCRETE(2)]), "of arrays with at least"),
    ("num_envs", 7, "the 1 that it was called with, got 7"),
    ("horizon", None, "its longest episode in steps, an integer of at least 1, got None"),
    ("horizon", 0, "its longest episode in steps, an integer of at least 1, got 0"),
    ("_np_random", np.random.Generator(np.random.MT19937(0)), "a numpy Generator of kind PCG64"),
]
RESULTS = [  # which result of a step, what it is instead, and what is said of it
    (
        0,
        np.zeros((1, 3)),
        "the observation of step must be numbers of shape (1, 2), got float64 of",
    ),
    (0, np.array([["a", "b"]]), "the observation of step must be numbers of shape (1, 2), got <U1"),
    (1, np.zeros((1, 1)), "the reward must be numbers of shape (1,), got float64 of shape (1, 1)"),
    (2, np.zeros(1, int), "terminated must be bool of shape (1,), got int64 of shape (1,)"),
    (3, False, "truncated must be bool of shape (1,), got bool of shape ()"),
]


class Unfit(TMazePassiveVec):
    """A T-Maze with one attribute, or one result of a step, that is something else."""

    def __init__(self, num_envs: int, attribute: int | None, result: int | None) -> None:
        super().__init__(num_envs=num_envs, length=5)
        self.result = result
        if attribute is not None:
            name, value, _ = ATTRIBUTES[attribute]
            setattr(self, name, value)

    def step(self, actions):
        results = [*super().step(actions)]
        if self.result is not None:
            place, value, _ = RESULTS[self.result]
            results[place] = value
        return tuple(results)


def of_one_generator_per_row(num_envs: int) -> gymnasium.vector.VectorEnv:
    def create() -> gymnasium.Env:
        return gymnasium.make("CartPole-v1", max_episode_steps=20)

    env = gymnasium.vector.SyncVectorEnv([create] * num_envs, autoreset_mode=AutoresetMode.DISABLED)
    env.horizon = 20
    return env


@pytest.mark.parametrize("kind", [*range(len(ATTRIBUTES)), *range(-len(RESULTS), 0), "sync"])
def test_a_task_that_cannot_work_is_refused_before_anything_is_created(kind):
    section = {"name": "unfit", "_target_": "test_config.Unfit", "attribute": None, "result": None}
    if kind == "sync":
        section = {"name": "unfit", "_target_": "test_config.of_one_generator_per_row"}
        expected = "its np_random must be a numpy Generator of kind PCG64 for all rows"
    elif kind >= 0:
        section["attribute"], (name, _, allowed) = kind, ATTRIBUTES[kind]
        expected = f"its {name.removeprefix('_')} must be {allowed}"
    else:
        section["result"], (_, _, expected) = kind, RESULTS[kind]
    with pytest.raises(ConfigError) as caught:
        build(GPT_SMOKE | {"env": section})
    assert str(caught.value).startswith(f"env=unfit: {expected}")
    assert "\n" not in str(caught.value)


def test_a_section_may_use_the_names_of_others():
    section = {"name": "own", "_target_": "test_config.OwnNames", "memory": 3, "seed": 2}
    check_types(GPT_SMOKE | {"env": section})
    assert make_env({"env": section}, 1).horizon == 6


COMMAND_LINE = {  # what Hydra itself refuses
    "seq_model=foo": "seq_model=foo: no such option; choose from deltanet, gpt, gru, lru, lstm, "
    "mamba2, min_gru, mlp, rnn",
    "env=": "env=: no such option; choose from ",
    "env.lenght=3": "env.lenght=3: no such key; did you mean env.length?",
    "seq_model.n_head=2": "seq_model.n_head=2: no such key; seq_model=deltanet or gpt or ",
    "logger.project=x": "logger.project=x: no such key; logger=wandb has it",
    "+batch_size=3": "+batch_size=3: there is such a key already; leave out the +",
    "envs=tmaze": "envs=tmaze: no such key; did you mean env?",
    "seed=1,2": "seed=1,2: several values are a sweep; add -m, or quote a list as [1,2]",
    "seed": "seed: a value is missing, as in seed=VALUE",
    "lr=1e-3": "lr=1e-3: no such key; did you mean algo.lr?",
    "lenght=5": "lenght=5: no such key; did you mean env.length?",
    "hydra.sweeper.n_trials=3": "hydra.sweeper.n_trials=3: no such key; hydra/",
    "budget=smoke ": "'': must be key=value or group=option",
    "sweep=\udcc3": "sweep=\\udcc3: not text in utf-8",
    "sweep=größe": "sweep=größe: Hydra reads such a value only in quotes: ",
    "logger=[wandb,tensorboard]": "logger=[wandb,tensorboard]: choose one option of none, ",
    "algo.hidden_dims={a:1}": "algo.hidden_dims={a:1}: must be a list\n",
    "hydra.job.env_set=[1]": "hydra.job.env_set=[1]: must be a mapping, {key: value}\n",
    "env=pendulum_p env.kwargs={g:9}": "env.kwargs={g:9}: a key that is not in its file needs a + "
    "in front, +env.kwargs=VALUE\n",
    "env.num_envs=3": "env.num_envs=3: no such key; ",
    "env=pendulum_p env.solved_at=5": "env.solved_at=5: a key that is not in its file needs a + ",
    "env=pendulum_p ~env.kwargs": "~env.kwargs: no such key; there are env.horizon, ",
    "~env.penalty": "~env.penalty: it is null, which Hydra cannot delete",
    "-cn typo": "-cn typo: no such config in conf/, sweeps/ or the folder of -cd; there are ",
    "-sc query=bash": "-sc query: a shell calls this; to install it: -sc install=bash\n",
    "-sc install=tcsh": "-sc install=tcsh: No completion plugin for 'tcsh' found\n",
    "objective=eval/return": "objective=eval/return: only a sweeper such as hydra/sweeper=optuna ",
    "hydra=3": "hydra=3: it has no effect in memrl; leave it out",
    "hydra.job=3": "hydra.job=3: it has no effect in memrl; leave it out",
    "hydra/foo=3": "hydra/foo=3: it has no effect in memrl; leave it out",
    "hydra.mode=foo": "Error merging override hydra.mode=foo Invalid value 'foo', expected one of",
    "hydra.job.env_copy=[NOWHERE_]": "hydra.job.env_copy=[NOWHERE_]: runs have all variables",
    "hydra.searchpath=[/nowhere]": "hydra.searchpath in command-line: there is no folder or ",
    "hydra.sweeper.params.seed=1": "hydra.sweeper.params.seed=1: no such key; a key that is new",
    "hydra/launcher=basic": "hydra/launcher=basic is for sweeps: add -m",
    "hydra.launcher.dry_run=true": "hydra.launcher.dry_run=true is for sweeps: add -m",
    "hydra.run.dir=x": "hydra.run.dir=x: results go to outputs/",
}


@pytest.mark.parametrize("overrides", [*COMMAND_LINE, "algo.gamma=x"])
def test_command_line_is_refused_with_status_2_and_creates_nothing(overrides, launch, tmp_path):
    expected = COMMAND_LINE.get(overrides, "algo.gamma=x: must be a finite number")
    process = launch(*overrides.split(" "))
    assert process.wait() == 2
    assert process.out == ""
    assert process.err.startswith(f"error: {expected}")
    assert process.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_unreadable_annotations_are_left_to_the_constructor(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "class Model:\n    def __init__(self, a: 'np.ndarray', b=1, c: 'Custom' = None): ...\n"
        "class Any:\n    def __init__(self, **anything): ...\n"
        "class Child(Model): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert set(schema.parameters_of("mine.Model")) == {"a", "b", "c"}
    assert set(schema.parameters_of("mine.Child")) == {"a", "b", "c"}
    assert schema.parameters_of("mine.Any") is None


# --- help ----------------------------------------------------------------------------------------


def test_help_names_every_group_option_and_only_commands_that_compose(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/memrl"])
    assert "\n  memrl train env=visual_match " in train.help_text()
    monkeypatch.setattr(sys, "argv", ["run.py"])
    text = train.help_text()
    for group in (path.name for path in CONF.iterdir() if path.is_dir()):
        for option in options(group):
            assert option in text
    commands = [x for x in text.splitlines() if x.startswith("  python run.py ") and "[" not in x]
    assert len([x for x in commands if "--" not in x]) == 10
    for line in commands:
        words = line.split("   ")[0].split()[2:]
        if not {"-m", "-cn"} & {*words} and not any(word.startswith("--") for word in words):
            config(*words)


@pytest.mark.parametrize(
    "flags", [("-cd", "my_conf"), ("hydra.searchpath=[file://my_conf]",)], ids=lambda f: f[0]
)
def test_a_users_own_options_are_in_the_help_and_completed(flags, launch, tmp_path, monkeypatch):
    for name in ("seq_model/ema", "experiment/first", "mysweep"):
        path = tmp_path / "my_conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("name: x\n")
    process = launch("--help", *flags)
    assert process.wait() == 0, process.err
    assert "  seq_model= lstm | deltanet | ema | gpt | gru" in process.out
    assert "\n  +experiment=first\n  -cn        far | fast | " in process.out
    assert " | mysweep | " in process.out
    typed = {
        "memrl ": "train check lengths sweep plot",
        "memrl train env=tmaze_": "env=tmaze_active env=tmaze_",
    }
    if "-cd" in flags:
        typed |= {"memrl train -cd my_conf seq_model=e": "seq_model=ema\n"}
    for line, answer in typed.items():
        monkeypatch.setenv("COMP_LINE", line)
        process = launch(first=lambda: sys.exit(main(["-sc", "query=bash"])))
        assert process.wait() == 0
        assert process.out.startswith(answer), line


@pytest.mark.parametrize("flags", [("-cd", "mine"), ("hydra.searchpath=[file://mine]",)])
def test_a_file_that_memrls_own_hides_is_refused(flags, launch, tmp_path):
    """Hydra takes the first file of a name; an edited copy of another one would be ignored."""
    path = tmp_path / "mine" / "algo" / "dqn.yaml"
    path.parent.mkdir(parents=True)
    text = (ROOT / "conf" / "algo" / "dqn.yaml").read_text()
    path.write_text(text)  # the same: nothing is lost
    if flags[0] == "-cd":
        shown = launch("--cfg", "job", *flags)
        assert shown.wait() == 0, shown.err
    path.write_text(f"{text}# mine\n")
    process = launch(*flags)
    assert process.wait() == 2
    line = "error: mine/algo/dqn.yaml: memrl's own algo/dqn.yaml comes first, so this file has no "
    assert process.err == f"{line}effect; give it another name\n"
    path.unlink()
    (tmp_path / "mine" / "fast.yaml").write_text((ROOT / "sweeps" / "far.yaml").read_text())
    if flags[0] == "-cd":
        process = launch(*flags, "-cn", "fast")
        assert process.wait() == 2
        line = "error: mine/fast.yaml: memrl's own fast.yaml comes first"
        assert process.err.startswith(line)
        (tmp_path / "mine" / "other.yaml").write_text("defaults:\n  - fast\n  - _self_\n")
        process = launch(*flags, "-cn", "other")
        assert process.wait() == 2
        assert process.err.startswith(line)
        shown = launch(*flags, "--cfg", "job")  # neither is used
        assert shown.wait() == 0, shown.err
    assert not (tmp_path / "outputs").exists()


def test_a_file_that_selects_another_group_is_told_how(tmp_path):
    (tmp_path / "env").mkdir()
    path = tmp_path / "env" / "mine.yaml"
    path.write_text("defaults:\n  - gym\n  - override /algo: td3\n  - _self_\n\nname: mine\n")
    advice = r"for another group write: override /algo@_global_\.algo"
    with pytest.raises(ConfigError, match=f"^In 'env/mine': .*; {advice}$"):
        memrl.train(["env=mine"], config_dir=tmp_path)


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["--version"]])
def test_answers_before_importing_torch(arguments, tmp_path):
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    environ = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environ)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert "torch" not in imported


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", "runs/tmaze_passive-10,dqn,lstm,seed=0"),
        ("seed=7 sweep=mine", "mine/tmaze_passive-10,dqn,lstm,seed=7"),
        ("env.length=1500 seq_model=gpt", "runs/tmaze_passive-1500,dqn,gpt,seed=0"),
        ("env.length=[10,50,20] seq_model=gpt", "runs/tmaze_passive-[10,50,20],dqn,gpt,seed=0"),
        ("env.length=[20] budget=fast", "runs/tmaze_passive-[20],dqn,lstm,budget=fast,seed=0"),
        ("algo.gamma=0.9", "runs/tmaze_passive-10,dqn,lstm,algo.gamma=0.9,seed=0"),
        ("dropout=0 algo.tau=1", "runs/tmaze_passive-10,dqn,lstm,algo.tau=1,dropout=0,seed=0"),
        ("device=cpu checkpoint_minutes=1", "runs/tmaze_passive-10,dqn,lstm,seed=0"),
        ("logger=tensorboard", "runs/tmaze_passive-10,dqn,lstm,seed=0"),
        ("env.penalty_rule=not_right",
         "runs/tmaze_passive-10,dqn,lstm,env.penalty_rule=not_right,seed=0"),
        ("env.length=7 budget.train_episodes=50",
         "runs/tmaze_passive-7,dqn,lstm,budget.train_episodes=50,seed=0"),
        ("env.length=7 budget.train_steps=50",
         "runs/tmaze_passive-7,dqn,lstm,budget.train_steps=50,seed=0"),
        ("env=cartpole_v budget.train_episodes=50",
         "runs/cartpole_v,dqn,lstm,budget.train_episodes=50,seed=0"),
        ("env=gym env.id=FrozenLake-v1 env.kwargs={is_slippery:false}",
         "runs/gym,dqn,lstm,env.id=FrozenLake-v1,env.kwargs.is_slippery=false,seed=0"),
        ("env.length=50 budget=fast", "runs/tmaze_passive-50,dqn,lstm,budget=fast,seed=0"),
        ("env.length=50 budget=fast algo.lr=1e-4 dropout=0.1",
         "runs/tmaze_passive-50,dqn,lstm,algo.lr=0.0001,budget=fast,dropout=0.1,seed=0"),
        ("algo.hidden_dims=[8]", "runs/tmaze_passive-10,dqn,lstm,algo.hidden_dims=[8],seed=0"),
        ("seq_model=gpt seq_model.n_layer=2",
         "runs/tmaze_passive-10,dqn,gpt,seq_model.n_head=2,seq_model.n_layer=2,seed=0"),
    ],
)  # fmt: skip
def test_run_is_named_after_what_distinguishes_it(overrides, name):
    assert folder_of(config(*overrides.split())) == Path("outputs") / name


def test_results_go_where_the_key_or_else_the_environment_says(monkeypatch):
    name = folder_of(config()).name
    assert folder_of(config("outputs=/scratch/me")) == Path("/scratch/me/runs") / name
    monkeypatch.setenv("MEMRL_OUTPUTS", "~/results")
    assert folder_of(config()) == Path.home() / "results" / "runs" / name
    assert folder_of(config("outputs=here", "sweep=mine")) == Path("here/mine") / name
    older = config()
    del older["outputs"], older["budget"]["train_steps"]
    for key in ("memory_lr", "recurrence_lr", "weight_decay"):
        del older["algo"][key]
    assert schema.check_types(older) == older and folder_of(older) == folder_of(config())
    assert identity.identity(older) == identity.identity(config())
    assert build(older).total_steps == build(config()).total_steps == 610 * 11
    gpt, older = config("seq_model=gpt"), config("seq_model=gpt")
    for key in ("window", "sinks", "gate", "scale"):
        del older["seq_model"][key]
    assert identity.identity(older) == identity.identity(gpt)
    assert folder_of(older) == folder_of(gpt) and build(older)


def test_a_key_that_is_gone_is_ignored_where_it_did_nothing(tmp_path):
    path, c = tmp_path / "config.yaml", config()
    for bonus, same in ((0.0, True), (0.5, False)):
        older = c | {"algo": c["algo"] | {"count_bonus": bonus}}
        path.write_text(OmegaConf.to_yaml(older))
        assert (identity.read_config(tmp_path) == c) is same
        assert (identity.identity(older) == identity.identity(c)) is same


def test_long_names_are_shortened_and_stay_distinct():
    many = "batch_size=32 num_envs=2 dropout=0 attention_dropout=0 algo.gamma=0.9 algo.tau=0.01 "
    many += "algo.explore_fraction=0.2 env.penalty=-0.2 env.goal_reward=2"
    names = {folder_of(config(*many.split(), x)).name for x in ("algo.lr=0.01", "algo.lr=0.02")}
    assert len(names) == 2
    for name in names:
        head, digest, tail = name.rsplit(",", 2)
        assert head == "tmaze_passive-10,dqn,lstm"
        assert len(digest) == 8 and set(digest) <= set("0123456789abcdef")
        assert tail == "seed=0"
    lists = [f"env.length=[{','.join(map(str, range(1, n)))}]" for n in (100, 101)]
    names = {folder_of(config(length, "budget=quick")).name for length in lists}
    assert len(names) == 2 and all(len(name) < 150 for name in names)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dropout=0", "dropout=0.0"),
        ("dropout=0", "dropout=-0.0"),
        ("algo.lr=1", "algo.lr=1.0"),
        ("algo.gamma=1 env.penalty=-1", "algo.gamma=1.0 env.penalty=-1.0"),
        ("budget.stop_at_return=1", "budget.stop_at_return=1e0"),
        ("updates_per_step=1", "updates_per_step=1.000"),
        ("", "env.goal_reward=1"),
        ("", "env.distract_reward=0"),
    ],
)
def test_a_number_is_one_value_however_it_is_spelled(one, other):
    a, b = config(*one.split()), config(*other.split())
    assert repr(a) == repr(b)
    assert folder_of(a) == folder_of(b)


def test_a_number_has_the_type_of_its_annotation():
    c = config("dropout=0", "budget.stop_at_return=1", "budget.stop_at_success=null")
    assert type(c["dropout"]) is type(c["budget"]["stop_at_return"]) is float
    assert c["budget"]["stop_at_success"] is None
    assert type(c["env"]["length"]) is type(c["algo"]["hidden_dims"][0]) is int
    assert c["algo"]["shared_forward"] is False
    assert schema._typed([1, 2.5], Sequence[float]) == [1.0, 2.5]
    assert type(schema._typed([1, 2.5], Sequence[float])[0]) is float
    assert type(schema._typed(1, int | float)) is int


def test_a_run_of_an_older_version_is_found_under_the_spelling_it_was_made_with(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    c = config("dropout=0.0", "env.penalty=-1.0")
    new = folder_of(c)
    assert new.name == "tmaze_passive-10,dqn,lstm,dropout=0,env.penalty=-1,seed=0"
    old = new.with_name("tmaze_passive-10,dqn,lstm,dropout=0.0,env.penalty=-1.0,seed=0")
    old.mkdir(parents=True)
    assert folder_of(c) == old
    new.mkdir()
    assert folder_of(c) == new


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (0, 0.0, True),
        ([1, 2], [1.0, 2], True),
        (True, 1, False),
        ("1", 1, False),
        (None, "null", False),
        (2.0**53, 2**53 + 1, False),
    ],
)
def test_identities_compare_numbers_as_numbers(a, b, same):
    assert (identity.changes({"x": a}, {"x": b}) == {}) is same


def test_identity_is_every_key_but_these():
    c = config("+env.solved_at=0.5", "+env.reference={best without memory: 0.1}")
    others = {"env.solved_at", "env.reference.best without memory"}
    assert identity.differences(config(), c) == [] and folder_of(c) == folder_of(config())
    left_out = set(identity.flatten(c)) - set(identity.identity(c))
    others |= {"device", "logger._target_", "checkpoint_minutes", "objective"}
    assert left_out == {"outputs", "sweep", *others}
