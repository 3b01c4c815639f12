"""A run's lock: no two processes work in one folder, and none waits for a dead one.

The lock is a file that describes the process which made it. If that process can be seen from here,
the system tells whether it lives. On another host, or in another container, only signs of life do:
the times at which the lock and the run's status were last written. A process that was silent for
too long may wake up after another one took over, so each checks the lock before it writes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from memrl.run.files import naming, parse_json, read_bytes, remove_leftovers, write_whole
from memrl.run.outcome import Busy

# After this long without a sign of life, a process that cannot be seen counts as dead. It gives one
# every 30 s, and NFS may show a file as it was a minute ago.
SILENT_S = 180.0
NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
PLACE = ("host", "boot_id", "pid_namespace")  # a process number means the same where these do


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
        "pid_namespace": _pid_namespace(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "job_id": job_id(),
    }


def is_visible(process: Mapping[str, Any]) -> bool:
    """Tell whether a process, as ``this_process`` described it, can be seen from here if it lives.

    Hosts may share a name, and so may a host and its containers. A host that was started again
    looks like another one.
    """
    here = this_process()
    return all(process.get(key, here[key]) == here[key] for key in PLACE)


def is_alive(process: Mapping[str, Any], elsewhere: bool) -> bool:
    """Tell whether a process is alive, as ``this_process`` described it.

    ``elsewhere`` is the answer for a process that cannot be seen from here.
    """
    if type(process["pid"]) is not int or process["pid"] < 1:  # 0 and -1 stand for many processes
        raise ValueError(f"no process id: {process['pid']}")
    if not is_visible(process):
        return elsewhere
    try:
        # If it began at another time, the pid now belongs to another process.
        same = bool(abs(_started(process["pid"]) - process["started"]) < 1)
        return same and psutil.Process(process["pid"]).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def holder(folder: Path) -> str | None:
    """Return who works on a run, in words, or None if no living process does.

    It only reads. So it judges processes that cannot be seen by this host's clock, where ``locked``
    asks the file system for the time.
    """
    path = folder / "lock"
    content = _read(path)
    return None if content is None else _living_owner(path, content, time.time())


@dataclass(frozen=True)
class Lock:
    """A lock that this process took; another process may have taken it over since."""

    path: Path
    content: bytes  # which no other lock has

    @property
    def folder(self) -> Path:
        """The folder that is locked."""
        return self.path.parent

    def is_held(self) -> bool:
        """Tell whether the lock is still that of this process; False if it cannot be read."""
        with contextlib.suppress(OSError):
            return _read(self.path) == self.content
        return False

    def require_held(self) -> None:
        """Raise Busy unless the lock is still that of this process: to be called before a write."""
        now = _read(self.path)
        if now != self.content:
            reason = "it was deleted" if now is None else "another process took it over"
            raise Busy(f"{self.folder}: this process has lost the run's lock: {reason}")

    def renew(self) -> None:
        """Give a sign of life; raise Busy if the lock is lost."""
        self.require_held()
        os.utime(self.path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Hold the folder's lock, taking it over from a process that is gone.

    Raises:
        Busy: the process that holds it may be alive.
        OSError: the lock cannot be written; names its path.
    """
    owner = this_process() | {"token": secrets.token_hex(8)}
    lock = Lock(folder / "lock", json.dumps(owner).encode())
    _take(lock.path, lock.content)
    try:
        remove_leftovers(folder)
        yield lock
    finally:
        if lock.is_held():
            lock.path.unlink(missing_ok=True)


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
    """Make a file unless there is one; tell whether it was made.

    It gets its name once it is whole, where the file system has hard links.
    """
    temporary = path.with_name(f".{path.name.lstrip('.')}.{secrets.token_hex(8)}.tmp")
    with naming(path):
        try:
            _write_new(temporary, content)
            os.link(temporary, path)
        except FileExistsError:
            return _read(path) == content  # NFS may repeat a request that it has carried out
        except FileNotFoundError:  # who holds the lock removes temporary files
            if not path.parent.is_dir():
                raise
            return False
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            try:
                _write_new(path, content)
            except FileExistsError:
                return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return True


def _write_new(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:
            path.unlink(missing_ok=True)
            raise


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


def _pid_namespace() -> str | None:
    """Return this process's PID namespace; None if the system has none."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return None


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
    except (FileNotFoundError, NotADirectoryError):
        return None
