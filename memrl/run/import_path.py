"""Where a user's own packages lie: in the current folder, or beside a folder of configs."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

_added: list[str] = []


def extend_import_path(folders: Iterable[Path | str]) -> None:
    """Let packages be imported from these folders too.

    They come last: a file ``types.py`` or ``torch.py`` of a user's own hides no other module. Where
    Python itself puts the current folder first, as in ``python -m memrl``, it stays there.
    """
    for folder in map(os.path.abspath, folders):
        if folder not in _added:
            _added.append(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def add_user_folders(args: Namespace | None = None) -> None:
    """Let a user's packages be imported: from the current folder, and beside a folder of configs.

    Args:
        args: parsed by Hydra; its -cd and -cp are used.
    """
    folders = (args.config_dir, args.config_path) if args else ()
    paths = [folder for folder in folders if folder and "://" not in folder]
    extend_import_path([".", *(Path(os.path.abspath(path)).parent for path in paths)])


def import_path() -> list[str]:
    """Return the folders that were added in this process, absolute."""
    return [*_added]


def python_path() -> list[str]:
    """Return the folders in ``PYTHONPATH``, absolute."""
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(Path(part).absolute()) for part in parts if part]
