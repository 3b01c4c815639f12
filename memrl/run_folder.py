"""A run's folder: its name, its lock, its status.

``outputs/<sweep>/<run>/`` is the run's identity: the same config always has the same folder, and
no two processes work in it at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from memrl.checkpoint import naming, write_whole
from memrl.schema import show

NOT_IDENTITY = ("sweep", "device", "logger", "checkpoint_minutes", "hydra")
HEARTBEAT_S = 30.0  # an update of the weights can take that long
SILENT_S = 180.0  # on another host, a run that did not touch its status for this long is dead
LONGEST_NAME = 150


class Busy(Exception):
    """Another process works on this run."""


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


# --- lock ----------------------------------------------------------------------------------------


def job_id() -> str | None:
    """Return the SLURM job this process belongs to, as ``squeue`` shows it, or None."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{k}_ID") for k in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _process() -> dict[str, Any]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot_id": boot.read_text().strip() if boot.exists() else str(int(psutil.boot_time())),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "job_id": job_id(),
    }


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, taking it over from a process that is gone.

    Raises:
        Busy: the process that holds it may be alive.
    """
    path, mine = folder / "lock", _process()
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            _remove_if_stale(path)
    try:
        with naming(path), os.fdopen(descriptor, "w") as file:
            json.dump(mine, file)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    try:
        yield
    finally:
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _remove_if_stale(path: Path) -> None:
    holder = _read(path)
    why_alive = _alive(path, holder)
    if why_alive:
        raise Busy(f"{path.parent}: {why_alive}")
    # Two processes may both find it stale: only one rename succeeds, and if it caught a lock made
    # in the meantime, that one is put back.
    aside = path.with_name(f".lock.{os.getpid()}.tmp")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _read(aside) != holder:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _alive(path: Path, holder: dict[str, Any]) -> str | None:
    mine = _process()
    if not holder:  # torn, or about to be written
        age = time.time() - _touched(path)
        return "another process is taking this run" if age < SILENT_S else None
    who = f"{holder['host']}, process {holder['pid']}"
    who += f", job {holder['job_id']}" if holder.get("job_id") else ""
    if holder["host"] == mine["host"]:
        if holder["boot_id"] != mine["boot_id"] or not psutil.pid_exists(holder["pid"]):
            return None
        try:
            process = psutil.Process(holder["pid"])
            same = abs(process.create_time() - holder["started"]) < 5  # else the pid was reused
            gone = process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return f"this run is going on ({who})" if same and not gone else None
    updated = _read(path.with_name("status.json")).get("updated", 0)
    silent = time.time() - max(updated, _touched(path))
    return f"this run is going on ({who})" if silent < SILENT_S else None


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# --- status --------------------------------------------------------------------------------------


class Status:
    """``status.json``: what the run does, touched every 30 s while its process lives."""

    def __init__(self, folder: Path, versions: Mapping[str, Any]) -> None:
        self.path = folder / "status.json"
        before = _read(self.path)
        past = before.get("versions", {})
        changed = [
            f"{key}: {past[key]} -> {versions[key]}"
            for key in versions
            if key in past and past[key] != versions[key]
        ]
        self.changed = past.get("changed", []) + changed
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
            "attempt": before.get("attempt", 0) + 1,
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


def state_of(folder: Path) -> str | None:
    """Return the ``state`` of a run's folder, or None if it has none."""
    return _read(folder / "status.json").get("state")
