"""A run's identity: the keys that may not change when it is continued, and the name they give it.

The folder is ``<outputs>/<sweep>/<run>/``: the same config always has the same one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memrl.run.files import Unreadable, parse_yaml, read_bytes
from memrl.run.outcome import show


class Absent:
    """Stands for the value of a key that is not there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()
Config = dict[str, Any]  # resolved: plain nested values
# Keys of a run's identity that configs of older versions lack, with the values that they stand for.
_BUDGET = {"train_steps": None, "warmup_steps": None, "discounts": None}
ADDED = {"init_from": None, "updates_per_round": None, "replay_episodes": None, "replay_best": 0.0}
ADDED |= {f"budget.{key}": value for key, value in _BUDGET.items()}
_RATES = {"algo.memory_lr": None, "algo.recurrence_lr": None, "algo.weight_decay": 0.0}
ADDED_TO: dict[str, dict[str, Any]] = {  # configs with this _target_
    "memrl.algos.dqn.DQN": {
        **_RATES,
        **{"algo.start_epsilon": None, "algo.min_tries": 0, "algo.loss_steps": None},
    },
    "memrl.algos.sacd.SACD": _RATES,
    "memrl.algos.sacd.SeparateSACD": _RATES,
    "memrl.seq_models.gpt.GPT": {
        **{"seq_model.window": None, "seq_model.sinks": 0},
        **{"seq_model.gate": "none", "seq_model.scale": "sqrt"},
        "seq_model.attention_init": 0.02,
    },
    "memrl.seq_models.deltanet.GatedDeltaNet": {"seq_model.decay": True},
}
GONE = {"algo.count_bonus": 0.0}  # keys that older versions had, and values that did nothing
SINGLE_RUNS = "runs"  # in the place of a sweep's name
NOT_IDENTITY = (
    *("outputs", "sweep", "device", "logger", "checkpoint_minutes", "objective", "hydra"),
    *("env.solved_at", "env.reference", "env.task_keys"),  # what results say of a task
)
NAMED_GROUPS = ("env", "algo", "seq_model")
GROUPS = (*NAMED_GROUPS, "encoder", "budget", "logger")
# In every run's name.
NAMED = (*(f"{group}.name" for group in NAMED_GROUPS), "env.length", "seed")
# Of each pair one is null, and not in the name.
PAIRS = ("budget.train_episodes", "budget.train_steps", "updates_per_round", "updates_per_step")
LONGEST_NAME = 150
LONGEST_LIST = 40  # of lengths, in a name
UNSAFE = r"[^A-Za-z0-9._=,+\[\]-]"  # becomes "-" in a name

# --- identity ------------------------------------------------------------------------------------


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted keys that may not change when a run is continued, sorted."""
    flat = completed(config)
    return {key: flat[key] for key in sorted(flat) if _is_part(key)}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config by dotted keys, among them those that older versions did not have."""
    flat = flatten(config)
    for group in ("algo", "seq_model"):
        flat = ADDED_TO.get(str(flat.get(f"{group}._target_")), {}) | flat
    return ADDED | {key: flat[key] for key in flat if key not in GONE or flat[key] != GONE[key]}


def _is_part(key: str) -> bool:
    """Whether a dotted key is part of a run's identity."""
    first, *others = key.split(".")
    return not {first, ".".join([first, *others[:1]])} & {*NOT_IDENTITY}


def read_config(folder: Path) -> Config:
    """Return the contents of a run's ``config.yaml``.

    Raises:
        OSError: it cannot be opened.
        Unreadable: it holds no config; the message begins with the file's name.
    """
    try:
        config = parse_yaml(read_bytes(folder / "config.yaml"))
    except Unreadable as error:
        raise Unreadable(f"config.yaml: {error}") from None
    if not isinstance(config, dict):
        raise Unreadable("config.yaml: no config")
    for group in GROUPS:
        if not isinstance(config.get(group, {}), dict):
            raise Unreadable(f"config.yaml: {group}={show(config[group])[:40]}: must be a group")
    for path, value in GONE.items():
        group, _, key = path.partition(".")
        if config.get(group, {}).get(key) == value:
            del config[group][key]
    return config


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def task_name(env: Mapping[str, Any]) -> str:
    """Return what to call the task of an ``env`` section, such as "popgym RepeatPrevious easy"."""
    name = str(env.get("name"))
    return " ".join([name, *(show(env[key]) for key in task_keys(env) if key in env)])


def length_name(env: Mapping[str, Any]) -> str:
    """Return what a name says of a task's length, such as "-10" or "-[10,20,30]"; "" if none."""
    length = env.get("length")
    if length is None:
        return ""
    text = show(length) if isinstance(length, list) else str(length)
    return f"-{text if len(text) <= LONGEST_LIST else f'[{_digest(text)}]'}"


def task_keys(env: Mapping[str, Any]) -> Sequence[str]:
    """Return the keys that tell tasks of one name apart, where it stands for many."""
    keys = env.get("task_keys")
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else ()


def canonical(value: Any) -> str:
    """Return text that is the same for equal values: of 1 and 1.0, but not of True or "1"."""
    if isinstance(value, list):
        return f"[{', '.join(map(canonical, value))}]"
    return repr(int(value) if isinstance(value, float) and value.is_integer() else value)


def run_names(config: Mapping[str, Any], default: Mapping[str, Any]) -> tuple[str, str]:
    """Return a run's name, and the one that an older version may have given it.

    The name says what distinguishes the run:
    ``<env>-<length>,<algo>,<seq_model>[,key=value of what is not default],seed=<n>``; over 150
    characters the middle becomes 8 hex digits of its sha256. ``default`` is the config of the same
    env, length, algo, seq_model and named budget with nothing else changed. Older versions wrote
    ``dropout=0.0`` where that was typed; now it is ``dropout=0``.
    """
    return _name(config, default, show), _name(config, default, _with_decimals)


def default_outputs() -> str:
    """Return the folder of all results, unless the key ``outputs`` says another."""
    return os.environ.get("MEMRL_OUTPUTS", "outputs")


def outputs_folder(config: Mapping[str, Any]) -> Path:
    """Return the folder of all results that a config says."""
    return Path(os.path.expanduser(config.get("outputs", default_outputs())))


def sweep_name(keys: Mapping[str, str | None], config_name: str = "config") -> str:
    """Return the name of a sweep that has none: what distinguishes its command, sorted.

    The values of swept keys are left out, and so is the seed's: the sweep stays the same one when
    values are added. A name that had to be changed or cut ends with 8 hex digits of its sha256.

    Args:
        keys: the keys that the command sets, each with its value as text; None: it is swept.
        config_name: of the primary config.
    """
    parts = [] if config_name == "config" else [config_name]
    for key, value in sorted(keys.items()):
        if _is_part(re.sub("[/@]", ".", key)):
            parts.append(key if value is None or key == "seed" else f"{key}={value}")
    text = ",".join(parts) or "default"
    name = re.sub(UNSAFE, "-", text)
    if name != text or len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]},{_digest(text)}"
    return name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _with_decimals(value: Any) -> str:
    return repr(value) if isinstance(value, float) else show(value)


def _name(
    config: Mapping[str, Any], default: Mapping[str, Any], text_of: Callable[[Any], str]
) -> str:
    env = config["env"]
    task = env["name"] + length_name(env)
    parts = {
        key: value
        for key, (_, value) in changes(default, config).items()
        if (key not in NAMED or value is ABSENT) and (key not in PAIRS or value is not None)
    }
    for key in [key for key, value in parts.items() if value is ABSENT]:
        if any(other.startswith(f"{key}.") for other in parts):
            del parts[key]  # null by default, and now a mapping: its keys say it
    if budget := config["budget"].get("name"):
        parts["budget"] = budget
    middle = "".join(f",{key}={text_of(parts[key])}" for key in sorted(parts))
    head = f"{task},{config['algo']['name']},{config['seq_model']['name']}"
    tail = f",seed={config['seed']}"
    if len(head + middle + tail) > LONGEST_NAME:
        keys = [f"env.{key}" for key in task_keys(env)]
        task_parts = "".join(f",{key}={text_of(parts[key])}" for key in keys if key in parts)
        short = f"{task_parts},{_digest(middle)}"
        middle = short if len(head + short + tail) <= LONGEST_NAME else f",{_digest(middle)}"
    return re.sub(UNSAFE, "-", head + middle + tail)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the identity keys in which two configs differ, sorted, and both values.

    A key that one of them lacks has the value ABSENT there.
    """
    a, b = identity(old), identity(new)
    pairs = {key: (a.get(key, ABSENT), b.get(key, ABSENT)) for key in sorted(a.keys() | b.keys())}
    return {
        key: (before, after)
        for key, (before, after) in pairs.items()
        if canonical(before) != canonical(after)
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line for each identity key in which two configs differ."""
    return [f"{key}: {show(a)} -> {show(b)}" for key, (a, b) in changes(old, new).items()]
