"""Files that are whole or absent: checkpoints, weights and every small text of a run's folder."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

START_OVER = "to start over, delete the folder"
UNFINISHED = NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.prev.pt"
WEIGHTS = "agent.pt"


class CannotContinue(Exception):
    """What is on disk does not suffice to continue the run; its rows were not touched."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an OSError name this file; those of a full disk name none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_whole(path: Path, content: bytes, keep_as: Path | None = None) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new.

    With ``keep_as`` the old file gets that name.

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
            if keep_as is not None and path.exists():
                os.replace(path, keep_as)
                _sync_folder(path.parent)
            os.replace(temporary, path)
            _sync_folder(path.parent)
    except OSError:
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
    """Remove temporary files of processes that died while writing; those of locks are apart."""
    for path in folder.glob(".*.tmp"):
        if not path.name.startswith((".lock.", ".claim.")):
            path.unlink(missing_ok=True)


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Save a checkpoint; the one before it is kept."""
    write_whole(folder / NEWEST, _to_bytes(state), keep_as=folder / PREVIOUS)


def load(folder: Path) -> tuple[dict[str, Any], str] | None:
    """Return the newest checkpoint that can be read and its file's name; None if there is none.

    A newest one that cannot be read is removed, lest it take the place of the sound one before.

    Raises:
        CannotContinue: there are checkpoints, and none can be read.
    """
    found = read(folder)
    if found and found[1] != NEWEST:
        (folder / NEWEST).unlink(missing_ok=True)
    return found


def read(folder: Path) -> tuple[dict[str, Any], str] | None:
    """Do the same without a change to the folder, which may be another process's."""
    import torch

    problems = []
    for name in UNFINISHED:
        path = folder / name
        if not path.exists():
            continue
        content = io.BytesIO(path.read_bytes())  # what fails here is no torn file
        try:
            state = torch.load(content, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # torch raises many kinds for a torn file
            problems.append(f"{path} ({(str(error).splitlines() or ['?'])[0]})")
            continue
        return state, name
    if problems:
        raise CannotContinue(f"no readable checkpoint: {', '.join(problems)}; {START_OVER}")
    return None


def save_weights(folder: Path, weights: Mapping[str, Any]) -> None:
    """Save what acting needs, and nothing else."""
    write_whole(folder / WEIGHTS, _to_bytes(weights))


def remove(folder: Path) -> None:
    """Remove the checkpoints of a run that is done."""
    for name in UNFINISHED:
        (folder / name).unlink(missing_ok=True)


def _to_bytes(state: Mapping[str, Any]) -> bytes:
    # Through memory: torch turns a full disk into a RuntimeError that does not say so.
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()
