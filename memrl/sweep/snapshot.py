"""A copy of the code, so that what was submitted is what runs, whatever is edited meanwhile."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from memrl.run.files import write_whole

ROOT = Path(__file__).parents[2]
FOLDER = ".snapshots"
MAX_BYTES = 10 * 2**20  # of a file; a larger one is data, not code
NOT_CODE = ("outputs", "tests", "docs", "benchmarks")
# What is copied where git does not say what the code is. Beside an installed memrl lie all other
# packages, whose plugins are in hydra_plugins too.
PLUGINS = "hydra_plugins/memrl_plugins.py"
WITHOUT_GIT = ("memrl", PLUGINS, "conf", "sweeps", "run.py", "pyproject.toml")


def take(outputs: Path = Path("outputs")) -> Path:
    """Copy the code to ``<outputs>/.snapshots/<hash>`` and return that folder, absolute.

    The code is what git tracks or would track, without tests and documents; where there is no git,
    or memrl is installed, memrl's own packages and configs. The same code has one copy. Files that
    are missing from it are written again, as some clusters delete old files one by one.
    """
    files = {name: (ROOT / name).read_bytes() for name in _files(outputs)}
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    folder = outputs.absolute() / FOLDER / digest.hexdigest()[:16]
    for name, content in files.items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, content)
    return folder


def _files(outputs: Path) -> list[str]:
    """Return the code's files as names relative to ROOT, sorted."""
    options = ("-z", "--cached", "--others", "--exclude-standard")
    listed = _git("ls-files", *options, *_without(outputs)) or ""
    paths = [Path(name) for name in listed.split("\0") if name]
    if Path("memrl/__init__.py") not in paths:  # no git, or it ignores memrl
        own = [ROOT / name for name in WITHOUT_GIT]
        paths = [path.relative_to(ROOT) for top in own for path in (top, *top.rglob("*"))]
    return sorted({str(path) for path in paths if _is_code(path)})


def _is_code(path: Path) -> bool:
    if path.parts[0] in NOT_CODE or any(p[0] == "." or p == "__pycache__" for p in path.parts):
        return False
    return (ROOT / path).is_file() and (ROOT / path).stat().st_size <= MAX_BYTES


def _without(outputs: Path) -> list[str]:
    """Return what tells git to leave out results."""
    names, folder = ["outputs"], outputs.resolve()
    if folder.is_relative_to(ROOT.resolve()) and folder != ROOT.resolve():
        names.append(str(folder.relative_to(ROOT.resolve())))
    return ["--", ".", *(f":(exclude,literal){name}" for name in names)]


def python_path() -> list[str]:
    """Return the folders in ``PYTHONPATH``, absolute."""
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(Path(part).absolute()) for part in parts if part]


def describe(outputs: Path) -> dict[str, Any]:
    """Return the code's commit, whether it differs from it, and the difference as a diff."""
    commit = (_git("rev-parse", "HEAD") or "").strip() or None
    diff = _git("diff", "HEAD", "--binary", *_without(outputs))
    new = _git("ls-files", "--others", "--exclude-standard", *_without(outputs))
    changed = bool(diff or new) if commit else None
    return {"commit": commit, "changed": changed, "diff": diff}


def label(code: dict[str, Any]) -> str:
    """Return a short name of a submission's code."""
    if not code.get("commit"):
        return str(code.get("snapshot") or "unknown")
    changed = f"+{code.get('snapshot') or 'changes'}" if code.get("changed") else ""
    return f"{code['commit'][:10]}{changed}"


def _git(*arguments: str) -> str | None:
    """Return git's output, or None if ROOT is not the top of memrl's working tree or git fails."""
    if any(ROOT.glob("memrl-*.dist-info")):  # installed: a repository here is another project's
        return None
    # Naming the repository keeps git from looking for one in the folders above.
    command = ["git", "--git-dir=.git", "--work-tree=.", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    except OSError:  # git is not installed
        return None
    return done.stdout if done.returncode == 0 else None
