"""A copy of the code, so that what was submitted is what runs, whatever is edited meanwhile."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from typing import Any

from memrl.run.files import write_whole
from memrl.run.import_path import import_path, python_path
from memrl.run.outcome import ConfigError

ROOT = Path(__file__).parents[2]
FOLDER = ".snapshots"
MAX_BYTES = 10 * 2**20  # of a file; a larger one is data, not code
MAX_PACKAGES_BYTES = 100 * 2**20  # of all files of a user's own packages
MODULE_SUFFIXES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
NOT_CODE = ("outputs", "tests", "docs", "benchmarks")
# What is copied where git does not say what the code is. Beside an installed memrl lie all other
# packages, whose plugins are in hydra_plugins too.
PLUGINS = "hydra_plugins/memrl_plugins.py"
WITHOUT_GIT = ("memrl", PLUGINS)
BESIDE_PACKAGE = ("conf", "sweeps", "run.py", "pyproject.toml")  # in a checkout
NOT_OWN = ("memrl", "hydra_plugins", "__main__", "sitecustomize", "usercustomize")
INSTALLED = {"site-packages", "dist-packages"}  # folders of packages that nobody edits


def take(outputs: Path = Path("outputs"), write: bool = True) -> Path:
    """Copy the code to ``<outputs>/.snapshots/<hash>`` and return that folder, absolute.

    The code is what git tracks or would track, without tests and documents; where there is no git,
    or memrl is installed, memrl's own packages and configs. The same code has one copy. Files that
    are missing from it are written again, as some clusters delete old files one by one. Unless
    ``write``, only the folder's name counts: it identifies the code.
    """
    return _copy({name: ROOT / name for name in _files(outputs)}, outputs, write)


def take_packages(outputs: Path = Path("outputs"), write: bool = True) -> Path | None:
    """Copy a user's own packages as ``take`` copies memrl; return None if there are none.

    Of each package that this process imported from the current folder, a folder beside configs or
    ``PYTHONPATH`` all modules are copied, and all other files that its git tracks or would track.

    Raises:
        ConfigError: they are too large.
    """
    sources = own_files(outputs)
    return _copy(sources, outputs, write) if sources else None


def own_files(outputs: Path) -> dict[str, Path]:
    """Return the files that ``take_packages`` copies, by their names in the copy.

    Raises:
        ConfigError: they are too large.
    """
    sources: dict[str, Path] = {}
    for package, folder in own_packages().items():
        sources |= {name: folder / name for name in _files_of(package, folder, outputs)}
    if sum(path.stat().st_size for path in sources.values()) > MAX_PACKAGES_BYTES:
        size = f"more than {MAX_PACKAGES_BYTES // 2**20} MiB"
        advice = "let git ignore the data in them, or set hydra.launcher.snapshot=false"
        raise ConfigError(f"the packages {', '.join(own_packages())} have {size}; {advice}")
    return sources


def own_packages() -> dict[str, Path]:
    """Return a user's own packages and modules that this process imported, each with its folder."""
    # A project that is installed with pip install -e may have its packages in src.
    typed = [*import_path(), *(f"{path}/src" for path in import_path()), *python_path()]
    paths = [Path(path).resolve() for path in typed]
    folders = {path for path in paths if path != ROOT.resolve() and not INSTALLED & {*path.parts}}
    packages = {}
    for name, module in sorted(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if "." in name or name in NOT_OWN or spec is None or name != spec.name:
            continue
        places = spec.submodule_search_locations or ([spec.origin] if spec.has_location else [])
        parents = {Path(place).parent.resolve() for place in places}
        if len(parents) == 1 and parents <= folders:
            packages[name] = parents.pop()
    return packages


def _files_of(package: str, folder: Path, outputs: Path) -> list[str]:
    """Return a package's files as names relative to its folder."""
    top, results = folder / package, outputs.resolve()
    if not top.is_dir():
        modules = (f"{package}{suffix}" for suffix in MODULE_SUFFIXES)
        return [name for name in modules if (folder / name).is_file()][:1]
    listing = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", package)
    tracked = {Path(name) for name in (_run_git(folder, *listing) or "").split("\0") if name}
    paths = [path.relative_to(folder) for path in top.rglob("*")]
    return sorted(
        str(path)
        for path in paths
        # git may ignore a module that is generated or compiled
        if (not tracked or path in tracked or path.name.endswith(MODULE_SUFFIXES))
        and "outputs" not in path.parts
        and not (folder / path).resolve().is_relative_to(results)
        and _is_small_file(folder, path)
    )


def _copy(sources: Mapping[str, Path], outputs: Path, write: bool) -> Path:
    files = {name: path.read_bytes() for name, path in sources.items()}
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    folder = outputs.absolute() / FOLDER / digest.hexdigest()[:16]
    for name, content in files.items() if write else ():
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
        is_wheel = (ROOT / "memrl" / "conf").is_dir()
        own = [ROOT / name for name in (*WITHOUT_GIT, *(() if is_wheel else BESIDE_PACKAGE))]
        paths = [path.relative_to(ROOT) for top in own for path in (top, *top.rglob("*"))]
    code = (path for path in paths if path.parts[0] not in NOT_CODE)
    return sorted({str(path) for path in code if _is_small_file(ROOT, path)})


def _is_small_file(folder: Path, path: Path) -> bool:
    if any(part[0] == "." or part == "__pycache__" for part in path.parts):
        return False
    return (folder / path).is_file() and (folder / path).stat().st_size <= MAX_BYTES


def _without(outputs: Path) -> list[str]:
    """Return what tells git to leave out results."""
    names, folder = ["outputs"], outputs.resolve()
    if folder.is_relative_to(ROOT.resolve()) and folder != ROOT.resolve():
        names.append(str(folder.relative_to(ROOT.resolve())))
    return ["--", ".", *(f":(exclude,literal){name}" for name in names)]


def describe(outputs: Path = Path("outputs")) -> dict[str, Any]:
    """Return the code's commit, whether it differs from it, and the difference as a diff.

    ``packages`` has the commit of each of a user's own packages, and whether it differs.
    """
    commit = (_git("rev-parse", "HEAD") or "").strip() or None
    diff = _git("diff", "HEAD", "--binary", *_without(outputs))
    new = _git("ls-files", "--others", "--exclude-standard", *_without(outputs))
    changed = bool(diff or new) if commit else None
    packages = {name: _state_of(name, folder) for name, folder in own_packages().items()}
    return {"commit": commit, "changed": changed, "diff": diff, "packages": packages}


def _state_of(package: str, folder: Path) -> dict[str, Any]:
    names = [package, *(f"{package}{suffix}" for suffix in MODULE_SUFFIXES)]
    tracked = [":(glob)" + name for name in (f"{package}/**", *names)]
    if not _run_git(folder, "ls-files", "--", *tracked):  # a repository that it merely lies in
        return {"commit": None, "changed": None}
    commit = (_run_git(folder, "rev-parse", "HEAD") or "").strip() or None
    changed = _run_git(folder, "status", "--porcelain", "--", *tracked)
    return {"commit": commit, "changed": bool(changed) if commit else None}


def label(code: dict[str, Any]) -> str:
    """Return a short name of a submission's code."""
    names = [_label(code)]
    for package, state in (code.get("packages") or {}).items():
        names.append(f"{package} {_label(state | {'snapshot': code.get('packages_snapshot')})}")
    return " and ".join(names)


def _label(state: Mapping[str, Any]) -> str:
    if not state.get("commit"):
        return str(state.get("snapshot") or "unknown")
    changed = f"+{state.get('snapshot') or 'changes'}" if state.get("changed") else ""
    return f"{state['commit'][:10]}{changed}"


def _git(*arguments: str) -> str | None:
    """Return git's output, or None if ROOT is not the top of memrl's working tree or git fails."""
    if any(ROOT.glob("memrl-*.dist-info")):  # installed: a repository here is another project's
        return None
    # Naming the repository keeps git from looking for one in the folders above.
    return _run_git(ROOT, "--git-dir=.git", "--work-tree=.", *arguments)


def _run_git(folder: Path, *arguments: str) -> str | None:
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    except OSError:  # git is not installed
        return None
    return done.stdout if done.returncode == 0 else None
