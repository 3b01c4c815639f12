"""A run's lock: no two processes work in one folder, and none waits for a dead one.

The lock is a file that describes the process which made it. On this host the system tells whether
that process lives. On another host, only signs of life tell: the times at which the lock and the
run's status were last written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from memrl.run.files import naming, parse_json, read_bytes, remove_leftovers, write_whole
from memrl.run.outcome import Busy

# After this long without a sign of life, a process on another host counts as dead. It gives one
# every 30 s, and NFS may show a file as it was a minute ago.
SILENT_S = 180.0


def job_id() -> str | None:
    """Return the SLURM job this process belongs to, as ``squeue`` shows it, or None."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{k}_ID") for k in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def this_process() -> dict[str, Any]:
    """Return what identifies this process among all processes, of any host and any time."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot_id": boot.read_text().strip() if boot.exists() else str(int(psutil.boot_time())),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "job_id": job_id(),
    }


def is_alive(process: Mapping[str, Any], elsewhere: bool) -> bool:
    """Tell whether a process is alive, as ``this_process`` described it.

    ``elsewhere`` is the answer for another host, whose processes cannot be seen.
    """
    here = this_process()
    if type(process["pid"]) is not int or process["pid"] < 1:  # 0 and -1 stand for many processes
        raise ValueError(f"no process id: {process['pid']}")
    if process["host"] != here["host"]:
        return elsewhere
    if process["boot_id"] != here["boot_id"]:
        return False
    try:
        # If it began at another time, the pid now belongs to another process.
        same = bool(abs(_started(process["pid"]) - process["started"]) < 1)
        return same and psutil.Process(process["pid"]).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def holder(folder: Path) -> str | None:
    """Return who works on a run, in words, or None if no living process does.

    It only reads. So it judges processes of other hosts by this host's clock, where ``locked`` asks
    the file system for the time.
    """
    path = folder / "lock"
    content = _read(path)
    return None if content is None else _living_owner(path, content, time.time())


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, taking it over from a process that is gone.

    Raises:
        Busy: the process that holds it may be alive.
        OSError: the lock cannot be written; names its path.
    """
    path, content = folder / "lock", json.dumps(this_process()).encode()
    _take(path, content)
    try:
        remove_leftovers(folder)
        yield
    finally:
        if _read(path) == content:
            path.unlink(missing_ok=True)


def _take(path: Path, content: bytes) -> None:
    """Make this file, or replace one whose owner is gone.

    Several processes may see that the owner is gone. The right to replace its file is a lock of
    its own, named after that file and its content. It is taken like any lock, since the process
    that had it may have died as well. The file keeps its name, so nobody gets in between.
    """
    while not _create(path, content):
        stale = _read(path)
        if stale is None:  # its owner has just removed it
            continue
        owner = _living_owner(path, stale, _file_system_time(path.parent))
        if owner:
            raise Busy(f"{path.parent}: {owner}")
        digest = hashlib.sha256(path.name.encode() + stale).hexdigest()[:16]
        right = path.with_name(f".claim.{digest}.tmp")
        _take(right, content)
        try:
            if _read(path) == stale:
                write_whole(path, content)
                return
        finally:
            right.unlink(missing_ok=True)


def _create(path: Path, content: bytes) -> bool:
    """Make a file unless there is one; tell whether it was made."""
    with naming(path):
        try:
            file = open(path, "xb")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(content)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return True


def _living_owner(path: Path, content: bytes, now: float) -> str | None:
    """Return who made a lock, in words, or None if that process is gone."""
    recent = now - _last_sign_of_life(path) < SILENT_S
    try:
        owner = parse_json(content)
        alive = is_alive(owner, elsewhere=recent)
        job = f", job {owner['job_id']}" if owner["job_id"] else ""
    except (ValueError, KeyError, TypeError):  # torn, or about to be written
        return "another process is about to work on this run" if recent else None
    who = f"host {owner['host']}, process {owner['pid']}{job}"
    return f"another process is working on this run ({who})" if alive else None


def _last_sign_of_life(path: Path) -> float:
    """Return when a lock or the status beside it was last written, by the file system's clock."""
    latest = 0.0
    for sign in (path, path.with_name("status.json")):
        with contextlib.suppress(OSError):
            latest = max(latest, sign.stat().st_mtime)
    return latest


def _file_system_time(folder: Path) -> float:
    """Return the time by the clock that dates files, which may be that of a file server."""
    with naming(folder), tempfile.TemporaryFile(dir=folder, prefix=".time.") as file:
        return os.fstat(file.fileno()).st_mtime


def _started(pid: int) -> float:
    """Return when a process began; in seconds since boot if possible, as the clock may be set."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return float(psutil.Process(pid).create_time())
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def _read(path: Path) -> bytes | None:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None
