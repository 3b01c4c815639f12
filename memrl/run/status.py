"""``status.json``: what a run does, how far it is, and how it ended."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memrl.run.command import typed_command
from memrl.run.files import write_whole
from memrl.run.lock import job_id, locked
from memrl.run.outcome import Busy

HEARTBEAT_S = 30.0  # an update of the weights can take that long


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
            "command": typed_command() or before.get("command"),
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
    blank |= {"pid": None, "versions": {}, "command": typed_command()}
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
