"""A copy of the code, so that what was submitted is what runs, whatever is edited meanwhile."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memrl.run.files import write_whole
from memrl.run.identity import OUTPUTS

ROOT = Path(__file__).parents[2]
FOLDER = ".snapshots"
LARGEST = 10 * 2**20  # bytes of a file; what is larger is data, not code
NOT_CODE = ("outputs", "tests", "docs", "benchmarks")


def take() -> Path:
    """Copy the code into ``outputs/.snapshots/<hash>``, absolute; the same code has one copy.

    That is what git tracks or would track, without tests and documents; where there is no git,
    Python and YAML files.
    """
    files = {name: (ROOT / name).read_bytes() for name in sorted(set(_files()))}
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    folder = Path.cwd() / OUTPUTS / FOLDER / digest.hexdigest()[:16]
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        if not folder.exists():
            _write(files, temporary)
            os.rename(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not folder.exists():  # else another process was faster
            raise
    lacking = [name for name in files if not (folder / name).exists()]
    _write({name: files[name] for name in lacking}, folder)  # some clusters purge file by file
    return folder


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, content)


def _files() -> Iterator[str]:
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        names = [
            str(path.relative_to(ROOT))
            for folder in (ROOT, *(p for p in ROOT.iterdir() if _is_package(p)))
            for path in (folder.glob("*") if folder == ROOT else folder.rglob("*"))
            if path.suffix in (".py", ".yaml", ".yml", ".toml", ".html")
        ]
    else:
        names = [name for name in listed.split("\0") if name]
    for name in names:
        path = ROOT / name
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if hidden or name.split("/")[0] in NOT_CODE or not path.is_file():
            continue
        if path.stat().st_size <= LARGEST:
            yield name


def _is_package(folder: Path) -> bool:
    # A virtual environment or a folder of data is none of the code.
    return folder.is_dir() and not folder.name.startswith(".") and not (folder / "bin").exists()


def describe() -> dict[str, Any]:
    """Return the commit of the code, whether it was changed since, and the changes as a diff."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "changed": None, "taken": time.time(), "diff": None}
    diff = _git("diff", "HEAD", "--binary", "--", ".", ":!outputs")
    new = _git("ls-files", "--others", "--exclude-standard")
    changed = bool(diff or new)
    return {"commit": commit.strip(), "changed": changed, "taken": time.time(), "diff": diff}


def label(code: dict[str, Any]) -> str:
    """Name a submission's code in a few letters."""
    if not code.get("commit"):
        return str(code.get("snapshot") or "unknown")
    changed = f"+{code.get('snapshot') or 'changes'}" if code.get("changed") else ""
    return f"{code['commit'][:10]}{changed}"


def _git(*arguments: str) -> str | None:
    """Return what git says about the code, or None where it does not know it."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        top = subprocess.run(
            [*command[:3], "rev-parse", "--show-toplevel"], capture_output=True, text=True
        )
        if top.returncode or Path(top.stdout.strip()).resolve() != ROOT.resolve():
            return None
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
