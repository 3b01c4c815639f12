"""memrl: experiment sweeps for memory-based reinforcement learning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memrl import results as results
    from memrl.commands.train import train as train
    from memrl.results.agents import load as load

__version__ = "0.1.0"

# What a script or a notebook needs, imported when it is used: torch alone takes a second.
LATE = {"load": "memrl.results.agents", "train": "memrl.commands.train"}


def __getattr__(name: str) -> Any:
    if name == "results":
        return import_module("memrl.results")
    if name in LATE:
        return getattr(import_module(LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "results", *LATE])
