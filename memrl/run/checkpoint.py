"""Checkpoints of an unfinished run, and the weights of a finished one."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memrl.run import files
from memrl.run.files import write_whole
from memrl.run.outcome import START_OVER, CannotContinue

UNFINISHED = NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.prev.pt"
WEIGHTS = "agent.pt"


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Save a checkpoint; the one before it is kept."""
    write_whole(folder / NEWEST, _to_bytes(state), keep_as=folder / PREVIOUS)


def load(folder: Path) -> tuple[dict[str, Any], str] | None:
    """Return the newest checkpoint that can be read and its file's name; None if there is none.

    Raises:
        CannotContinue: there are checkpoints, and none can be read.
    """
    import torch

    problems = []
    for name in UNFINISHED:
        path = folder / name
        if not path.exists():
            continue
        content = io.BytesIO(files.read_bytes(path, files.WEIGHTS))  # a read error is no torn file
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
