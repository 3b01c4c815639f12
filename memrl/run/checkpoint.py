"""Checkpoints of an unfinished run, and the weights of a finished one.

Both are archives of ``torch.save``. The archive's comment holds the identity of the run and, in its
last 64 bytes, a SHA-256 of all bytes before it: the CRC of an archive's members does not cover its
directory. Files of older versions have no such comment.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memrl.run import files
from memrl.run.identity import differences, identity
from memrl.run.lock import Lock
from memrl.run.outcome import START_OVER, CannotContinue, in_one_line

UNFINISHED = NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.prev.pt"
WEIGHTS = "agent.pt"
DIGEST = 64  # hex digits
LONGEST_COMMENT = 2**16 - 1  # bytes
IS_FOLDER = 0x10  # in a member's attributes
END_OF_DIRECTORY = b"PK\5\6"  # begins the last 22 bytes of an archive without a comment


class Damaged(CannotContinue):
    """A file does not hold what was written to it."""


def save(
    lock: Lock, config: Mapping[str, Any], trainer: Mapping[str, Any], csv_sizes: Mapping[str, int]
) -> None:
    """Save a checkpoint in the locked folder; the one before it is kept."""
    content = _to_bytes({"trainer": trainer, "csv_sizes": csv_sizes}, config)
    path, previous = lock.folder / NEWEST, lock.folder / PREVIOUS
    files.write_whole(path, content, keep_as=previous, check=lock.require_held)


def load(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Return the newest checkpoint that can be read and its file's name; None if there is none.

    Raises:
        CannotContinue: there are checkpoints, and none can be read; or one is of another run.
    """
    problems = []
    for name in UNFINISHED:
        try:
            return _load(folder / name, config), name
        except FileNotFoundError:
            continue
        except Damaged as error:
            problems.append(str(error))
    if problems:
        raise CannotContinue(f"no readable checkpoint: {', '.join(problems)}; {START_OVER}")
    return None


def save_weights(lock: Lock, config: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Save what acting needs, and nothing else, in the locked folder: the run is done."""
    content = _to_bytes(weights, config)
    files.write_whole(lock.folder / WEIGHTS, content, check=lock.require_held)


def load_weights(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights of a run that is done.

    Raises:
        FileNotFoundError: there are none.
        CannotContinue: they cannot be read, or are of another run.
    """
    return _load(folder / WEIGHTS, config)


def weights_problem(folder: Path) -> str | None:
    """Say what is wrong with a run's weights, in a few words, or return None; loads no torch."""
    try:
        problem = _damage(files.read_bytes(folder / WEIGHTS, files.WEIGHTS))
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"is damaged ({problem})" if problem else None


def exists(folder: Path) -> bool:
    """Tell whether there is a checkpoint, readable or not."""
    return any((folder / name).exists() for name in UNFINISHED)


def remove(folder: Path) -> None:
    """Remove the checkpoints of a run that is done."""
    for name in UNFINISHED:
        (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Raise CannotContinue, which names the file, if its contents do not fit the run."""
    import torch

    try:
        yield
    except (OSError, MemoryError, torch.OutOfMemoryError, CannotContinue):
        raise
    except Exception as error:
        raise CannotContinue(
            f"{path}: it does not hold what this version expects ({in_one_line(error)[:200]}); "
            f"{START_OVER}"
        ) from error


def misfit(weights: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """Name the first weight that does not fit the expected ones, with both shapes, or None."""
    for name in [*expected, *weights]:
        here, there = (
            tuple(getattr(w[name], "shape", ())) if name in w else "missing"
            for w in (expected, weights)
        )
        if here != there:
            return f"{name} is {there} there and {here} here"
    return None


def _to_bytes(state: Mapping[str, Any], config: Mapping[str, Any]) -> bytes:
    # Through memory: torch turns a full disk into a RuntimeError that does not say so.
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    text = json.dumps(identity(config)).encode() + b"\n"
    if len(text) + DIGEST > LONGEST_COMMENT:
        text = b"{}\n"
    buffer.seek(-2, io.SEEK_END)  # the length of the comment is the last field before it
    buffer.write((len(text) + DIGEST).to_bytes(2, "little") + text)
    with buffer.getbuffer() as view:
        digest = hashlib.sha256(view).hexdigest()
    buffer.write(digest.encode())
    return buffer.getvalue()


def _load(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    content = files.read_bytes(path, files.WEIGHTS)  # an error of reading is no damage
    if problem := _damage(content):
        raise Damaged(f"{path}: {problem}")
    try:
        saved = _identity(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises many kinds
        raise Damaged(f"{path}: {(str(error).splitlines() or ['?'])[0]}") from error
    if changed := differences(saved, config) if saved else []:
        raise CannotContinue(f"{path} is of another run (there -> here): {changed[0]}")
    if not isinstance(state, dict):
        raise Damaged(f"{path}: no mapping")
    return state


def _damage(content: bytes) -> str | None:
    """Say what is wrong with an archive's bytes, or return None."""
    if _is_sealed(content):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # For torch such a member is a folder, which it does not read.
            folders = [i.filename for i in archive.infolist() if i.external_attr & IS_FOLDER]
            member = archive.testzip() or next(iter(folders), None)
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises many kinds
        return in_one_line(error)
    if member:
        return f"{member} does not match its checksum"
    from_older_version = content[-22:-18] == END_OF_DIRECTORY and content[-2:] == bytes(2)
    return None if from_older_version else "does not match its checksum"


def _is_sealed(content: bytes) -> bool:
    digest = hashlib.sha256(memoryview(content)[:-DIGEST]).hexdigest()
    return content[-DIGEST:] == digest.encode()


def _identity(content: bytes) -> dict[str, Any]:
    """Return the identity in an archive's comment; empty if an older version wrote the archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return dict(json.loads(archive.comment[:-DIGEST] or b"{}"))
