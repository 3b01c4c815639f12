"""The command that was typed, as the records of a run and of a sweep show it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "MEMRL_COMMAND"  # in the environment, so that the processes of a sweep inherit it
PROGRAMS = {"memrl": "memrl train", "__main__.py": "python -m memrl train"}


def program() -> str:
    """Return what trains, as it was typed: ``python run.py``, ``memrl train`` or its like."""
    return PROGRAMS.get(Path(sys.argv[0]).name, "python run.py")


def remember_command(arguments: Sequence[str]) -> None:
    """Remember that this process was started to train with these arguments.

    Args:
        arguments: what follows ``run.py``, ``memrl train`` or ``python -m memrl train``.
    """
    os.environ[VARIABLE] = f"{program()} {shlex.join(arguments)}".rstrip()


def typed_command() -> str | None:
    """Return the command behind this process, quoted for a shell, without this machine's paths.

    In a process of a sweep that is the sweep's. It is None where nobody typed one that trains.
    """
    return os.environ.get(VARIABLE)
