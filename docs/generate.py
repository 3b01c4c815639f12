"""Generates reference pages: commands from their parsers, keys from conf/ and docstrings."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from memrl.__main__ import COMMANDS, main
from memrl.run.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
GROUPS = ("env", "algo", "seq_model", "encoder", "budget", "logger", "hydra/launcher")
KEY = re.compile(r"^( *)([A-Za-z_][\w-]*):(?: +(.*?))?(?:  +# (.*)|$)")


def write(folder: Path) -> None:
    """Write ``commands.md`` and ``config.md``."""
    folder.mkdir(exist_ok=True)
    for name, text in (("commands.md", commands()), ("config.md", config())):
        path = folder / name
        if not path.exists() or path.read_text() != text:  # else Sphinx would read it again
            write_whole(path, text.encode())


# --- commands ------------------------------------------------------------------------------------


def commands() -> str:
    """Return the page of commands: what each prints with ``--help``."""
    parts = [
        "# Commands\n",
        "`memrl COMMAND` and `python -m memrl COMMAND` are the same, and `python run.py` is `memrl "
        "train`.\n",
    ]
    for name, what in COMMANDS.items():
        parts.append(f"## {name}\n\n{what[0].upper()}{what[1:]}.\n\n```text\n{_help(name)}```\n")
    return "\n".join(parts)


def _help(name: str) -> str:
    text = io.StringIO()
    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "100"
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main([name, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    lines = text.getvalue().rstrip().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


# --- keys ----------------------------------------------------------------------------------------


def config() -> str:
    """Return the page of keys: the default of each, and what it means."""
    parts = [
        "# Config keys\n",
        "Every key of a run, from `conf/config.yaml` and the options of its groups. `python run.py "
        "--cfg job` prints those of a command, with their values.\n",
        "## Top level\n",
        _table(CONF / "config.yaml", ""),
    ]
    for group in GROUPS:
        parts.append(f"## {group}\n")
        for path in sorted((CONF / group).glob("*.yaml")):
            parts.append(f"### {group}={path.stem}\n")
            if comment := _comment(path):
                parts.append(f"{comment}\n")
            parts.append(_table(path, _prefix(group)))
    return "\n".join(parts)


def _prefix(group: str) -> str:
    return f"{group.replace('/', '.')}."


def _comment(path: Path) -> str:
    """Return the comment at the top of a file, as a sentence."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#") or line.startswith("# @"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _table(path: Path, prefix: str) -> str:
    """Return a file's keys as a table; where it has no comment, the class's docstring speaks."""
    rows = [*_keys(path)]
    about = _arguments(path)
    shown = [
        f"| `{prefix}{key}` | {f'`{value}`' if value else ''} | {text or about.get(key, '')} |"
        for key, value, text in rows
        if key not in ("name", "_target_")
    ]
    if not shown:
        return "No keys.\n"
    return "\n".join(["| key | default | |", "| --- | --- | --- |", *shown]) + "\n"


def _keys(path: Path) -> Iterator[tuple[str, str, str]]:
    """Return the keys of a file, with their values and comments; nested ones joined by dots."""
    parents: list[tuple[int, str]] = []
    skipped: int | None = None  # the indentation of a section that is not shown
    for line in path.read_text().splitlines():
        found = KEY.match(line)
        if not found or line.lstrip().startswith("- "):
            continue
        indent, key = len(found[1]), found[2]
        if skipped is not None and indent > skipped:
            continue
        skipped = None
        if key in ("defaults", "hydra", "table"):
            skipped = indent
            continue
        while parents and parents[-1][0] >= indent:
            parents.pop()
        value, text = (found[3] or "").strip(), (found[4] or "").strip()
        value, _, rest = value.partition(" # ") if not text else (value, "", "")
        name = ".".join([*(name for _, name in parents), key])
        if value:
            yield name, value.strip().replace("|", "\\|"), (text or rest).replace("|", "\\|")
        else:
            parents.append((indent, key))


def _arguments(path: Path) -> dict[str, str]:
    """Return what the docstring of a file's class says of its arguments."""
    target = re.search(r"^_target_: (\S+)", path.read_text(), re.M)
    if not target or not target[1].startswith("memrl."):
        return {}
    module, _, name = target[1].rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    about: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for owner in (base, base.__dict__.get("__init__")):
            about |= _described(inspect.getdoc(owner) or "")
    return about


def _described(docstring: str) -> dict[str, str]:
    found = re.search(r"^ *Args:\n((?: +.*\n?|\n)+)", docstring, re.M)
    if not found:
        return {}
    text = inspect.cleandoc(found[1])
    entries = re.findall(r"^(\w+): (.*(?:\n +.*)*)", text, re.M)
    return {name: " ".join(words.split()).replace("|", "\\|") for name, words in entries}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
