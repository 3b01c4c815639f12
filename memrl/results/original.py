"""Log folders of the original program (Ni et al. 2023), turned into run folders.

A log folder has ``flags.txt``, which holds the settings, and ``progress.csv``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from memrl.results.export import COUNTERS
from memrl.results.paper import EXTRA_STEPS
from memrl.run.files import TABLE, parse_yaml, read_bytes, write_whole
from memrl.run.identity import Config, flatten
from memrl.run.outcome import Failure, in_one_line
from memrl.run.status import read_status
from memrl.run.tables import Table, TornTable, read_table

SOURCE = "imported_from"  # the key of status.json that tells an imported run from any other

EVAL = {"eval/return": "return", "eval/success": "success", "eval/length": "length"}
EVAL |= {"time/env_steps_per_s": "FPS"}  # memrl's column; the original's
DISCOUNTED = {"eval/return_0.99": "return-0.99", "eval/return_0.999": "return-0.999"}  # PyBullet
MODEL = "config_seq.model.seq_model_config"
HEADS = "config_rl.config_critic.hidden_dims config_rl.config_actor.hidden_dims"

# memrl's key; the original's, which must agree if several; its type
KEYS: dict[str, tuple[str, type]] = {
    "env.name": ("config_env.env_type", str),
    "env.length": ("config_env.env_name", int),
    "env.distract_reward": ("config_env.distract_reward", float),
    "env.robot": ("robot", str),
    "algo.name": ("config_rl.algo", str),
    "algo.gamma": ("config_rl.discount", float),
    "algo.tau": ("config_rl.tau", float),
    "algo.lr": ("config_rl.critic_lr config_rl.actor_lr", float),
    "algo.hidden_dims": (HEADS, list),
    "algo.freeze_critic": ("freeze_critic", bool),
    "algo.policy_gradient": ("policy_gradient", str),
    "seq_model.name": (f"{MODEL}.name", str),
    "seq_model.n_layer": (f"{MODEL}.n_layer", int),
    "seq_model.n_head": (f"{MODEL}.n_head", int),
    "seq_model.position": (f"{MODEL}.position_encoding", str),
    "seq_model.hidden_dim": (f"{MODEL}.hidden_size", int),
    "dropout": (f"{MODEL}.pdrop", float),
    "seed": ("seed", int),
    "batch_size": ("batch_size", int),
    "updates_per_step": ("updates_per_step", float),
    "budget.train_episodes": ("train_episodes", int),
    "budget.warmup_episodes": ("start_training", int),
    "budget.eval_every": ("config_env.eval_interval", int),
    "budget.eval_episodes": ("config_env.eval_episodes", int),
}
# The original has these for other algorithms and models too.
ONLY_FOR = {
    "algo.freeze_critic": ("sacd",),
    "seq_model.hidden_dim": ("rnn", "gru", "lstm", "mlp"),
}
# The original's names for PyBullet's tasks; memrl's. Other robots have the same names.
PYBULLET = {
    "mdp/bullet": "pybullet_f",
    "pomdp/bullet_p": "pybullet_p",
    "pomdp/bullet_v": "pybullet_v",
}
ROBOTS = {"cheetah": "halfcheetah"}
PYBULLET_HORIZON = 1000  # steps of a full episode
# Flags that change no result: of files, of the libraries that parse the others, and parts of groups
# of flags, which hold them as well.
NO_SETTING = re.compile(
    r"alsologtostderr|debug|log_dir|logger_levels|logtostderr|only_check_args|profile_file|run_name"
    r"|save_dir|showprefixforinfo|stderrthreshold|submit_time|v|verbosity|xml_output_file|\?"
    r"|config_\w+\..*|(chex_|help|pdb|run_with_|test_|use_cprofile_).*"
)


class Log(NamedTuple):
    """A run of the original program, as the contents of a run folder.

    Settings without an exact counterpart are under ``original`` in the config, by the original's
    names. ``eval/success`` is NaN for T-Mazes, where the original writes 0.
    """

    config: Config
    eval: Table
    train: Table
    status: dict[str, Any]


def find_logs(folder: Path) -> list[Path]:
    """Return the folders that have a file of a log: this one, and all below."""
    files = [path for name in ("flags.txt", "progress.csv") for path in folder.rglob(name)]
    return sorted({path.parent for path in files})


def import_log(folder: Path, output: Path) -> Path:
    """Write a log folder as a run folder, ``<output>/<name of the log folder>``, and return that.

    Its model is called ``lstm (original program)``, say, so that it is a series of its own beside
    runs of memrl. A run that was imported from the same folder before is overwritten.

    Raises:
        Failure: the log cannot be read, or the run folder holds something else.
        OSError: a file cannot be read or written.
    """
    source = os.path.abspath(folder)
    run = output / os.path.basename(source)
    if run.exists() and any(run.iterdir()) and read_status(run).get(SOURCE) != source:
        raise Failure(f"{folder}: {run} holds something else; delete it, or use --output")
    log = read_log(folder)
    model = log.config.get("seq_model", {})
    name = f"{model.get('name', 'unknown model')} (original program)"
    config = {**log.config, "seq_model": {**model, "name": name}}
    run.mkdir(parents=True, exist_ok=True)
    # The status first: by it an import that was interrupted can be done again.
    status = json.dumps({**log.status, SOURCE: source}, indent=1)
    write_whole(run / "status.json", f"{status}\n".encode())
    write_whole(run / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    write_whole(run / "eval.csv", _csv(log.eval))
    write_whole(run / "train.csv", _csv(log.train))
    return run


def _csv(table: Table) -> bytes:
    columns = [
        [f"{value:.0f}" if name in COUNTERS else repr(value) for value in column.tolist()]
        for name, column in table.items()
    ]
    lines = [tuple(table), *zip(*columns, strict=True)]
    return "".join(f"{','.join(line)}\n" for line in lines).encode()


def read_log(folder: Path) -> Log:
    """Read a log folder.

    Raises:
        OSError: ``flags.txt`` or ``progress.csv`` cannot be opened.
        Failure: one of them holds something else.
    """
    config, path, problem = _config(read_flags(folder / "flags.txt")), folder / "progress.csv", None
    try:
        table = read_table(path) or {"env_steps": np.empty(0)}
    except TornTable as error:
        table, problem = error.table, str(error)
    steps = table.pop("env_steps", np.array([np.nan]))
    if not np.isfinite(steps).all():
        raise Failure(f"{path} has rows without env_steps")
    unknown = np.full_like(steps, np.nan)
    env, budget = config.get("env", {}), config.get("budget", {})
    name = env.get("name", "")
    horizon = env.get("length", np.nan) + EXTRA_STEPS.get(name, np.nan)
    episodes = steps // horizon
    if name in PYBULLET.values():
        horizon, episodes = PYBULLET_HORIZON, unknown  # an episode may end early
    warmup = budget.get("warmup_steps", horizon * budget.get("warmup_episodes", np.nan))
    total = warmup + horizon * budget.get("train_episodes", np.nan)
    if name.startswith("tmaze"):
        table["success"] = unknown
    counters = {"env_steps": steps, "episodes": episodes, "updates": unknown}
    columns = EVAL | {k: v for k, v in DISCOUNTED.items() if v in table}
    scores = {ours: table.pop(original, unknown) for ours, original in columns.items()}
    losses = {f"train/{key.replace('-', '_')}": column for key, column in table.items()}
    is_eval = ~np.isnan(scores["eval/return"])
    return Log(
        config,
        {key: column[is_eval] for key, column in (counters | scores).items()},
        {key: column[~is_eval] for key, column in (counters | losses).items()},
        _status(int(max(steps, default=0)), total, problem),
    )


def _status(env_steps: int, total: float, problem: str | None) -> dict[str, Any]:
    """Return how far a run got: ``total`` is the planned number of steps, NaN if not known."""
    state, cause = "stopped", f"at env step {env_steps:,} of {total:,}"
    if problem:
        state, cause = "failed", problem
    elif math.isnan(total):
        cause = "its planned number of steps is not known"
    elif env_steps >= total:
        state, cause = "done", ""
    progress = {} if math.isnan(total) else {"progress": min(env_steps / total, 1.0)}
    return {"state": state, "cause": cause or None, **progress, "env_steps": env_steps}


def _config(settings: dict[str, Any]) -> Config:
    """Return settings by memrl's keys, and under ``original`` those that have none."""
    rest = _translate(settings)
    names = [rest.get(path) for path in ("config_rl.algo", f"{MODEL}.name")]
    config: Config = {}
    for key, (paths, kind) in KEYS.items():
        values = [rest[path] for path in paths.split() if path in rest]
        kinds = (int, float) if kind is float else (kind,)  # a bool is no int here
        agree = all(type(value) in kinds and value == values[0] for value in values)
        if values and agree and any(name in ONLY_FOR.get(key, names) for name in names):
            group, _, end = key.rpartition(".")
            (config.setdefault(group, {}) if group else config)[end] = values[0]
            rest = {path: value for path, value in rest.items() if path not in paths.split()}
    if "robot" in config.get("env", {}):
        config["env"]["task_keys"] = ["robot"]
        budget = config.get("budget", {})
        if {"train_episodes", "warmup_episodes"} <= budget.keys():  # the former include the latter
            warmup = budget.pop("warmup_episodes")
            budget["train_episodes"] -= warmup
            budget["warmup_steps"] = PYBULLET_HORIZON * warmup
    return config | ({"original": rest} if rest else {})


def _translate(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with memrl's names of algorithms and of PyBullet's tasks."""
    rest = dict(settings)
    algo = rest.get("config_rl.algo")
    if algo in ("sacd", "td3", "sac") and not rest.pop("shared_encoder", True):
        rest["config_rl.algo"] = f"{algo}_separate"
    elif algo in ("td3", "sac"):
        frozen = [flag for flag in ("freeze_all", "freeze_critic") if rest.pop(flag, False)]
        rest["policy_gradient"] = frozen[0] if frozen else "attached"
    if task := PYBULLET.get(str(rest.get("config_env.env_type"))):
        robot = rest.pop("config_env.env_name", None)
        rest |= {"config_env.env_type": task, "robot": ROBOTS.get(str(robot), robot)}
    return rest


def read_flags(path: Path) -> dict[str, Any]:
    """Return the settings in a ``flags.txt`` by their dotted names.

    Raises:
        OSError: there is no such file.
        Failure: it has no settings.
    """
    content = read_bytes(path, TABLE)
    settings: dict[str, Any] = {}
    try:
        for flag in re.split("^--", content.decode(), flags=re.MULTILINE)[1:]:
            name, equals, value = flag.strip().partition("=")
            if not equals:  # --name or --noname
                value = "false" if name.startswith("no") else "true"
                name = name.removeprefix("no")
            if not NO_SETTING.fullmatch(name):
                settings |= flatten({name: parse_yaml(value, _Loader, aliases=20)})
        if not settings:
            raise ValueError
    except Exception as error:  # of YAML: of any kind
        raise Failure(f"{path}: no flags can be read ({in_one_line(error)})") from error
    settings.pop("config_env.save_interval", None)
    return settings


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Takes tuples for lists and names of code for strings."""


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", yaml.SafeLoader.construct_sequence)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda _, name, node: name)
