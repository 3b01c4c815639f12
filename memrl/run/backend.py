"""Matplotlib without a display, regardless of ``MPLBACKEND``."""

from __future__ import annotations

import contextlib
import os
import sys


def import_matplotlib() -> None:
    """Import matplotlib, even if ``MPLBACKEND`` names a backend that is not installed.

    Every notebook sets this variable, also for the processes that it starts. memrl draws on
    ``Figure`` objects and needs no backend. The variable stays as it is for other processes, and
    pyplot in this one still uses the backend that it names, if that can be imported.
    """
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
