"""A run's folder: its name and its status.

``outputs/<sweep>/<run>/`` is the run's identity: the same config always has the same folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memrl.checkpoint import write_whole
from memrl.lock import Busy, job_id, locked
from memrl.schema import show

NOT_IDENTITY = ("sweep", "device", "logger", "checkpoint_minutes", "hydra")
SPOKEN = (FloatingPointError, OSError)  # raised by memrl with a whole sentence
HEARTBEAT_S = 30.0  # an update of the weights can take that long
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


def below_cwd(path: Path) -> str:
    """Return a path as short as it can be written here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line for each identity key in which two configs differ."""
    a, b = identity(old), identity(new)
    return [
        f"{key}: {show(a[key]) if key in a else 'absent'}"
        f" -> {show(b[key]) if key in b else 'absent'}"
        for key in sorted(a.keys() | b.keys())
        if key not in a or key not in b or a[key] != b[key]
    ]


# --- status --------------------------------------------------------------------------------------


class Status:
    """``status.json``: what the run does, touched every 30 s while its process lives."""

    def __init__(self, folder: Path, versions: Mapping[str, Any]) -> None:
        self.path = folder / "status.json"
        before = read_status(folder)
        past = before.get("versions")
        past = past if isinstance(past, dict) else {}
        changed = [
            f"{key}: {past[key]} -> {versions[key]}"
            for key in versions
            if key in past and past[key] != versions[key]
        ]
        earlier = past.get("changed")
        self.changed = [*(earlier if isinstance(earlier, list) else []), *changed]
        now = time.time()
        self.fields: dict[str, Any] = {
            "state": "running",
            "cause": None,
            "progress": before.get("progress", 0.0),
            "env_steps": before.get("env_steps", 0),
            "episodes": before.get("episodes", 0),
            "updates": before.get("updates", 0),
            "last_return": before.get("last_return"),
            "env_steps_per_s": None,
            "eta_s": None,
            "started": before.get("started", now),
            "updated": now,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job_id": job_id(),
            "attempt": int(number(before, "attempt") or 0) + 1,
            "versions": {**versions, "changed": self.changed},
        }
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Status:
        self.write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def update(self, **fields: Any) -> None:
        """Change fields; the next beat writes them."""
        assert fields.keys() <= self.fields.keys()
        with self._lock:
            self.fields.update(fields)

    def write(self, **fields: Any) -> None:
        """Change fields and write them now."""
        self.update(**fields)
        with self._lock:
            self.fields["updated"] = time.time()
            write_whole(self.path, (json.dumps(self.fields, indent=1) + "\n").encode())

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # the main thread will meet a full disk itself
                self.write()


def record_end(folder: Path, state: str, cause: str) -> None:
    """Write the end of a run whose own process could not; the folder's lock must be held."""
    before = read_status(folder)
    blank: dict[str, Any] = {
        "progress": 0.0,
        "env_steps": 0,
        "episodes": 0,
        "updates": 0,
        "last_return": None,
    }
    blank |= {"env_steps_per_s": None, "eta_s": None, "started": time.time(), "attempt": 1}
    blank |= {"pid": None, "versions": {}}
    fields = {"state": state, "cause": cause} | blank | before
    fields |= {"state": state, "cause": cause, "updated": time.time()}
    fields |= {"host": socket.gethostname(), "job_id": job_id()}
    write_whole(folder / "status.json", (json.dumps(fields, indent=1) + "\n").encode())


def note_failure(folder: Path, cause: str) -> None:
    """Mark a run failed, which may have no status yet; leave it if another process works on it."""
    if state_of(folder) == "done":
        return
    with contextlib.suppress(Busy, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            record_end(folder, "failed", cause)


def in_one_line(error: BaseException) -> str:
    """Say what went wrong; the kind too, unless the message was written to be read."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    kind = type(error)
    if kind.__module__.startswith("memrl.") or isinstance(error, SPOKEN):
        return text or kind.__name__
    return f"{kind.__name__}: {text}" if text else kind.__name__


def state_of(folder: Path) -> str | None:
    """Return the ``state`` of a run's folder, or None if it has none."""
    return read_status(folder).get("state")


def number(status: Mapping[str, Any], key: str) -> float | None:
    """Return a number of a status; None if it has none, whatever else stands there."""
    value: Any = status.get(key)
    return value if type(value) in (int, float) and math.isfinite(value) else None


def read_status(folder: Path) -> dict[str, Any]:
    """Return a run's ``status.json``; empty if there is none that can be read."""
    try:
        content = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
