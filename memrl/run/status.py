"""``status.json``: what a run does, how far it is, and how it ended."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memrl.run import checkpoint
from memrl.run.command import typed_command
from memrl.run.console import printable
from memrl.run.files import Unreadable, parse_json, read_bytes, write_whole
from memrl.run.lock import job_id, locked
from memrl.run.outcome import BUSY, FAILED, Busy, catch_failure, show
from memrl.run.tables import read_table

HEARTBEAT_S = 30.0
EXACT = "bit-exact"  # of a run that is continued
END_OF_TIME = 2.0**37  # UTC seconds: the year 6325


@contextlib.contextmanager
def heartbeat(beat: Callable[[], object]) -> Iterator[None]:
    """Call ``beat`` every 30 s in a thread, so that other hosts see that this process lives.

    The thread reports nothing: on a full disk, or without the lock, the main thread's next write
    fails as well.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError, Busy):
                beat()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@dataclass
class Fields:
    """The contents of ``status.json``, in the order of its keys; defaults are a new run's."""

    id: str = field(default_factory=lambda: secrets.token_hex(8))  # random
    state: str = "running"
    cause: str | None = None
    command: str | None = field(default_factory=typed_command)
    progress: float = 0.0
    env_steps: int = 0
    episodes: int = 0
    updates: int = 0
    last_return: float | None = None
    env_steps_per_s: float | None = None
    eta_s: float | None = None
    seconds: float | None = None  # spent training by all processes, without lost work
    started: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    host: str = field(default_factory=socket.gethostname)
    pid: int | None = None
    job_id: str | None = field(default_factory=job_id)
    attempt: int = 1
    resume: str | None = None  # EXACT, or why a continued run is not bit-identical
    versions: dict[str, Any] = field(default_factory=dict)


# What an earlier process's status passes on to the next one's.
CARRIED = (
    *("id", "progress", "env_steps", "episodes", "updates", "last_return", "seconds", "started"),
)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < END_OF_TIME


# What other code relies on, of files that anybody may have written.
EXPECTED: dict[str, tuple[Callable[[Any], object], str]] = {
    **{key: (_is_text, "text") for key in ("state", "cause", "command", "host")},
    **{key: (_is_time, "a time") for key in ("started", "updated")},
    "id": (lambda value: re.fullmatch("[0-9a-z]{1,64}", str(value)), "letters and digits"),
    "pid": (lambda value: type(value) is int and value > 0, "the id of a process"),
    "versions": (
        lambda value: isinstance(value, dict) and isinstance(value.get("changed", []), list),
        "a mapping",
    ),
}


class Status:
    """``status.json`` of a run in this process.

    Args:
        folder: the run's folder.
        versions: what the results may depend on; changes since an earlier process are listed.
    """

    def __init__(self, folder: Path, versions: Mapping[str, Any]) -> None:
        self.path = folder / "status.json"
        before = read_status(folder)
        past = before.get("versions") or {}
        self.changed = past.get("changed", []) + [
            f"{key}: {past[key]} -> {new}"
            for key, new in versions.items()
            if past.get(key, new) != new
        ]
        self.fields = Fields(
            **{key: before[key] for key in CARRIED if before.get(key) is not None},
            command=typed_command() or before.get("command"),
            pid=os.getpid(),
            attempt=int(get_number(before, "attempt") or 0) + 1,
            versions={**versions, "changed": self.changed},
        )
        self._lock = threading.Lock()

    def update(self, **fields: Any) -> None:
        """Change fields; the next heartbeat writes them."""
        with self._lock:
            self.fields = replace(self.fields, **fields)

    def write(self, **fields: Any) -> None:
        """Change fields and write them now."""
        self.update(**fields, updated=time.time())
        with self._lock:
            _write(self.path, vars(self.fields))


def record_end(folder: Path, state: str, cause: str) -> None:
    """Write the end of a run whose own process could not; the folder's lock must be held."""
    ended = Fields(state=state, cause=cause)
    now = {key: getattr(ended, key) for key in ("state", "cause", "updated", "host", "job_id")}
    _write(folder / "status.json", vars(ended) | read_status(folder) | now)


def record_done(folder: Path) -> None:
    """Write the status of a run that is done and does not say so; the lock must be held."""
    done: dict[str, Any] = {"state": "done", "cause": None, "progress": 1.0, "eta_s": 0}
    with contextlib.suppress(OSError, ValueError, LookupError):  # what eval.csv can tell
        last = {name: column[-1] for name, column in read_table(folder / "eval.csv").items()}
        done |= {key: int(last[key]) for key in ("env_steps", "episodes", "updates")}
        done["last_return"] = float(last["eval/return"])
        done["seconds"] = float(last["time/seconds"])
    done["updated"] = time.time()
    _write(folder / "status.json", vars(Fields(host="", job_id=None)) | read_status(folder) | done)


def _write(path: Path, fields: Mapping[str, Any]) -> None:
    write_whole(path, (json.dumps(fields, indent=1) + "\n").encode())


# --- is it done? ---------------------------------------------------------------------------------


def says_done(folder: Path) -> bool:
    """Tell whether a run's status says that it is done."""
    return read_status(folder).get("state") == "done"


def is_done(folder: Path) -> bool:
    """Tell whether a run is done: its weights, which it writes last of its results, are whole.

    The status only reports that, and may be lost. If it does not, and there is a checkpoint, the
    run is continued from there, to the same results: older versions wrote the weights earlier.
    """
    if not says_done(folder) and checkpoint.exists(folder):
        return False
    return checkpoint.weights_problem(folder) is None


def settle(folder: Path) -> bool:
    """Return True if a run is done; finish what its process did not get to."""
    if not is_done(folder):
        return False
    if not says_done(folder) or checkpoint.exists(folder) or (folder / "lock").exists():
        with contextlib.suppress(Busy, OSError), locked(folder):  # busy: its process will do it
            tidy(folder)
    return True


def tidy(folder: Path) -> None:
    """Do what the process of a run that is done did not get to; the lock must be held."""
    if not says_done(folder):
        record_done(folder)
    checkpoint.remove(folder)


def note_failure(folder: Path, cause: str, state: str = "failed") -> None:
    """Mark a run as failed; not if it is done, or another process is working on it."""
    if says_done(folder) or settle(folder):
        return
    with contextlib.suppress(Busy, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            record_end(folder, state, cause)


def execute(train: Callable[[], object], folder: Path) -> int:
    """Train the run of a sweep that this folder is for; return the exit status of ``run.py``.

    A failure is one line on standard error, and is noted in the run's status. What fails once the
    run is done is a warning.
    """
    failure = catch_failure(train)
    if failure is None:
        return 0
    cause, code = failure
    if code == FAILED and settle(folder):
        print(printable(f"warning: {folder} is done, but: {cause}"), file=sys.stderr, flush=True)
        return 0
    print(printable(f"error: {cause}"), file=sys.stderr, flush=True)
    if code != BUSY:
        note_failure(folder, cause)
    return code


def get_number(status: Mapping[str, Any], key: str) -> float | None:
    """Return a field of a status if it is a finite number, else None."""
    value: Any = status.get(key)
    return value if type(value) in (int, float) and math.isfinite(value) else None


def load_status(folder: Path) -> dict[str, Any]:
    """Return a run's ``status.json``.

    Raises:
        OSError, Unreadable: it cannot be read, or a field holds what memrl never writes there.
    """
    try:
        content = parse_json(read_bytes(folder / "status.json"))
    except Unreadable as error:
        raise Unreadable(f"status.json: {error}") from None
    if not isinstance(content, dict):
        raise Unreadable("status.json: no mapping")
    for key, (fits, allowed) in EXPECTED.items():
        if content.get(key) is not None and not fits(content[key]):
            shown = show(content[key])[:40]
            raise Unreadable(f"status.json: {key} must be {allowed}, got {shown}")
    return content


def read_status(folder: Path) -> dict[str, Any]:
    """Return a run's ``status.json``; empty if there is none that can be read."""
    try:
        return load_status(folder)
    except (OSError, Unreadable):
        return {}
