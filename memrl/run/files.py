"""Atomic writes: a file is complete before it gets its name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path


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
