"""Files of runs and sweeps: written atomically, and read defensively.

Anybody may have made what is read: it is of bounded size and depth, and plain values.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

MIB = 2**20
RECORD, TABLE, WEIGHTS = MIB, 256 * MIB, 2**16 * MIB  # the largest files of each kind, in bytes
DEEPEST = 20  # how deeply values may be nested

# --- writing -------------------------------------------------------------------------------------


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an OSError name this file; those of a full disk name none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_whole(
    path: Path,
    content: bytes,
    keep_as: Path | None = None,
    check: Callable[[], object] = lambda: None,
) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new.

    With ``keep_as`` the old file gets that name. ``check`` is called just before the file gets its
    name, and may raise: to write a long file takes long.

    Raises:
        OSError: names the path; what was there is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            check()
            if keep_as is not None and path.exists():
                os.replace(path, keep_as)
                _sync_folder(path.parent)
            os.replace(temporary, path)
            _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    # Makes a rename outlast a loss of power, where the system lets a folder be synced.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that died while writing; the folder must be locked."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


# --- reading -------------------------------------------------------------------------------------


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads dates as text, as OmegaConf does; in C if possible, which is fast."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in _Loader.yaml_implicit_resolvers.items()
}


class Unreadable(ValueError):
    """A file holds something else than it should."""


def read_bytes(path: Path, limit: int = RECORD) -> bytes:
    """Return a file's content.

    Raises:
        OSError: names the path. It cannot be read, is no regular file (a pipe would make the reader
            wait, a device may never end), or has more than ``limit`` bytes.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with naming(path), open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        if about.st_size > limit:
            raise OSError(errno.EFBIG, f"Larger than {limit // MIB} MiB", str(path))
        return file.read()


def parse_json(content: bytes | str) -> Any:
    """Return a JSON value; raise Unreadable if it is none, or not one of ``check_plain``."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"no JSON: {error}") from None
    check_plain(value)
    return value


def parse_yaml(content: bytes | str, loader: Any = _Loader, aliases: int = 0) -> Any:
    """Return a YAML value; raise Unreadable if it is none, or not one of ``check_plain``.

    Many aliases could make a value of any size, and one alias a value that contains itself.
    """
    try:
        depth = 0
        for event in yaml.parse(content, loader):  # the parser in C crashes on deep nesting
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError("nested too deeply")
            aliases -= isinstance(event, yaml.AliasEvent)
            if aliases < 0:
                raise ValueError("too many aliases")
        value = yaml.load(content, loader)
    except Exception as error:  # yaml raises many kinds
        raise Unreadable(" ".join(str(error).split())) from None
    check_plain(value)
    return value


def check_plain(value: Any, depth: int = 0) -> None:
    """Raise Unreadable unless a value is text, a number, true, false or null, or is made of them.

    Integers have at most 64 bits, so that they can become floats.
    """
    if depth > DEEPEST:
        raise Unreadable("nested too deeply")
    if type(value) is dict:
        for key, item in value.items():
            check_plain(key, depth)
            check_plain(item, depth + 1)
    elif type(value) is list:
        for item in value:
            check_plain(item, depth + 1)
    elif type(value) is int and not -(2**63) <= value < 2**64:
        raise Unreadable("a number is out of range")
    elif type(value) not in (str, int, float, bool, type(None)):
        raise Unreadable(f"values of type {type(value).__name__} are not allowed")
