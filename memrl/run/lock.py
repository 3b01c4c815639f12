"""A run's lock: no two processes work in one folder, and none waits for a dead one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from memrl.run.files import naming, write_whole
from memrl.run.outcome import Busy

SILENT_S = 180.0  # on another host, a run that did not touch its status for this long is dead


NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def job_id() -> str | None:
    """Return the SLURM job this process belongs to, as ``squeue`` shows it, or None."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{k}_ID") for k in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def this_process() -> dict[str, Any]:
    """Return what tells this process from every other one, on any host, before and after."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot_id": boot.read_text().strip() if boot.exists() else str(int(psutil.boot_time())),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "job_id": job_id(),
    }


def holder(folder: Path) -> str | None:
    """Return who works on a run, in words, or None if no living process does."""
    path = folder / "lock"
    content = _read(path)
    return None if content is None else _alive(path, content)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, taking it over from a process that is gone.

    Raises:
        Busy: the process that holds it may be alive.
    """
    path, mine = folder / "lock", json.dumps(this_process()).encode()
    own = folder / f".lock.{_digest(mine)}.tmp"  # complete before it gets its name
    try:
        while True:
            with naming(path):
                own.write_bytes(mine)
            if not path.exists():
                _touch_status(folder)
            if _create(path, own) or _take_over(path, own):
                break
    finally:
        own.unlink(missing_ok=True)
    _remove_leftovers(folder)
    try:
        yield
    finally:
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _create(path: Path, own: Path) -> bool:
    """Give the content of ``own`` the name ``path`` unless something has it."""
    try:
        os.link(own, path)
    except FileExistsError:  # somebody has it: we do, if NFS lost the first answer
        return _read(path) == own.read_bytes()
    except FileNotFoundError:  # our own was tidied away
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise OSError(error.errno, error.strerror, str(path)) from error
        try:  # a file system without hard links
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with naming(path), os.fdopen(descriptor, "wb") as file:
            file.write(own.read_bytes())
    return True


def _take_over(path: Path, own: Path) -> bool:
    """Replace a stale lock by ``own``; return False if it changed meanwhile.

    Several processes may find it stale. The right to replace it is a file named after its content;
    if the process that held this right died as well, the right to go on is named after that file's
    content, and so on. The lock keeps its name all the time, so nobody gets in between.
    """
    stale = content = _read(path)
    walked: list[Path] = []
    while True:
        if content is None:
            return False
        alive = _alive(path, content)
        if alive:
            raise Busy(f"{path.parent}: {alive}")
        if not walked:
            _touch_status(path.parent)
        claim = path.with_name(f".claim.{_digest(content)}.tmp")
        if _create(claim, own):
            break
        walked.append(claim)
        content = _read(claim)
    try:
        unchanged = _read(path) == stale
        if unchanged:
            os.replace(own, path)
            for dead in walked:
                dead.unlink(missing_ok=True)
        return unchanged
    finally:
        claim.unlink(missing_ok=True)


def _alive(path: Path, content: bytes) -> str | None:
    """Return who holds a lock or a claim, or None if that process is gone."""
    try:
        owner = json.loads(content)
        host, boot_id, pid = owner["host"], owner["boot_id"], int(owner["pid"])
        started, job = float(owner["started"]), owner["job_id"]
    except (ValueError, KeyError, TypeError):  # torn, or about to be written
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime < SILENT_S:
                return "another process is taking this run"
        return None
    recent = time.time() - (_updated(path.parent) or _written(path)) < SILENT_S
    who = f"this run is going on ({host}, process {pid}{f', job {job}' if job else ''})"
    process = {"host": host, "boot_id": boot_id, "pid": pid, "started": started}
    return who if is_alive(process, recent) else None


def is_alive(process: Mapping[str, Any], elsewhere: bool) -> bool:
    """Tell whether a process is alive, as ``this_process`` described it.

    Args:
        process: its description.
        elsewhere: what to answer for another host, whose processes cannot be seen.
    """
    mine = this_process()
    if process["host"] != mine["host"]:
        return elsewhere
    if process["boot_id"] != mine["boot_id"]:
        return False
    try:
        found = psutil.Process(process["pid"])
        # If it began at another time, the pid was given to another one.
        same = bool(abs(_started(found.pid) - process["started"]) < 1)
        return same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _started(pid: int) -> float:
    """Return when a process began; in seconds since boot if possible, as the clock may be set."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return float(psutil.Process(pid).create_time())
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def _remove_leftovers(folder: Path) -> None:
    # Of processes that died while taking a lock. Those still at it will find the lock changed.
    for pattern in (".lock.*.tmp", ".claim.*.tmp"):
        for path in folder.glob(pattern):
            content = _read(path)
            with contextlib.suppress(FileNotFoundError):
                if content is not None and (
                    _alive(path, content) is None or time.time() - path.stat().st_mtime > SILENT_S
                ):
                    path.unlink()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _updated(folder: Path) -> float:
    try:
        return float(json.loads((folder / "status.json").read_text())["updated"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _touch_status(folder: Path) -> None:
    """Make the status fresh, lest another host take us for dead before we write our own."""
    path = folder / "status.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # TypeError: it is no object
        content = json.loads(path.read_text())
        write_whole(
            path, (json.dumps(content | {"updated": time.time()}, indent=1) + "\n").encode()
        )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
