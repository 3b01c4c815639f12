"""A run's identity: the keys that may not change when it is continued, and the name they give it.

The folder is ``outputs/<sweep>/<run>/``: the same config always has the same one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memrl.run.outcome import show


class Absent:
    """Stands for the value of a key that is not there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()
Config = dict[str, Any]  # resolved: plain nested values
OUTPUTS = Path("outputs")
NOT_IDENTITY = ("sweep", "device", "logger", "checkpoint_minutes", "hydra")
LONGEST_NAME = 150

# --- identity ------------------------------------------------------------------------------------


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted keys that may not change when a run is continued, sorted."""
    flat = flatten(config)
    return {k: flat[k] for k in sorted(flat) if k.split(".")[0] not in NOT_IDENTITY}


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def run_name(config: Mapping[str, Any], default: Mapping[str, Any]) -> str:
    """Name a run after what distinguishes it.

    ``<env>-<length>,<algo>,<seq_model>[,key=value of whatever else is not default],seed=<n>``;
    over 150 characters the middle becomes 8 hex digits of its sha256.

    Args:
        config: the resolved config.
        default: the same env, length, algo and seq_model with nothing else changed.
    """
    env, plain = config["env"], identity(default)
    task = env["name"] + (f"-{env['length']}" if "length" in env else "")
    named = {"seed", "env.name", "env.length", "algo.name", "seq_model.name"}
    changed = {
        key: value
        for key, value in identity(config).items()
        if key not in named and (key not in plain or plain[key] != value)
    }
    changed |= {key: "absent" for key in plain.keys() - identity(config).keys()}
    middle = "".join(f",{key}={show(changed[key])}" for key in sorted(changed))
    head = f"{task},{config['algo']['name']},{config['seq_model']['name']}"
    tail = f",seed={config['seed']}"
    if len(head + middle + tail) > LONGEST_NAME:
        middle = "," + hashlib.sha256(middle.encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9._=,+\[\]-]", "-", head + middle + tail)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line for each identity key in which two configs differ."""
    a, b = identity(old), identity(new)
    return [
        f"{key}: {show(a[key]) if key in a else 'absent'}"
        f" -> {show(b[key]) if key in b else 'absent'}"
        for key in sorted(a.keys() | b.keys())
        if key not in a or key not in b or a[key] != b[key]
    ]
