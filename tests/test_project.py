"""Laws of the project itself: its pins, its import arrow and its size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "memrl").rglob("*.py"))

# A module of memrl imports only from modules of a lower rank.
CORE_RANKS = {
    "interfaces": 0,
    "networks": 1,
    "envs": 1,
    "encoders": 2,
    "seq_models": 2,
    "replay": 2,
    "memory": 3,
    "algos": 4,
    "graphs": 5,
    "rollout": 5,
    "trainer": 6,
    "checkpoint": 7,
    "logger": 8,
}
TOOL_RANKS = {
    "interrupt": 0,
    "machine": 0,
    "schema": 0,
    "tables": 0,
    "stats": 0,
    "original": 1,
    "lock": 8,
    "figures": 8,
    "progress": 8,
    "run_folder": 9,
    "session": 10,
    "experiment": 11,
    "cli": 12,
    "reproduce": 12,
    "watch": 12,
    "sweep.compose": 13,
    "sweep.snapshot": 13,
    "sweep.records": 14,
    "sweep.states": 15,
    "results": 16,
    "scores": 17,
    "export": 17,
    "comparison": 18,
    "wording": 19,
    "plot": 20,
    "sweep.display": 21,
    "sweep.pool": 22,
    "sweep.slurm": 23,
    "report": 22,
    "sweep.child": 24,
    "sweep.launch": 24,
    "sweep.__main__": 25,
}
RANKS = CORE_RANKS | TOOL_RANKS


def name_of(path: Path) -> str:
    """``memrl/envs/tmaze.py`` -> ``envs``, ``memrl/sweep/pool.py`` -> ``sweep.pool``."""
    return ranked(path.relative_to(ROOT / "memrl").with_suffix("").parts)


def ranked(parts: Sequence[str]) -> str:
    """Each of a sweep's modules has a rank of its own: results stand between them."""
    return ".".join(parts[: 2 if parts[0] == "sweep" else 1])


def imported_names(tree: ast.Module, package: list[str]) -> Iterator[tuple[int, str]]:
    """Line and name of every module or package of memrl that a file in ``package`` imports."""
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            targets = [".".join([*base, alias.name]) for alias in node.names]
        for target in targets:
            parts = target.split(".")
            # Attributes of memrl itself, such as __version__, may be read from everywhere.
            if parts[0] == "memrl" and len(parts) > 1 and not parts[1].startswith("__"):
                yield node.lineno, ranked(parts[1:])


def arrow_violations(path: Path, source: str) -> list[str]:
    """What a file of memrl imports against the arrow."""
    own = name_of(path)
    package = list(path.relative_to(ROOT).parent.parts)
    return sorted(
        {
            f"{path.relative_to(ROOT)}:{line} ({own}) imports {name}"
            for line, name in imported_names(ast.parse(source), package)
            if name != own and RANKS.get(name, 99) >= RANKS.get(own, -1)
        }
    )


def test_every_module_has_a_rank() -> None:
    unknown = {name_of(path) for path in SOURCES} - {"__init__", "sweep.__init__"} - RANKS.keys()
    assert SOURCES
    assert not unknown, f"give {sorted(unknown)} a rank in tests/test_project.py"


def test_imports_point_one_way() -> None:
    found = [line for path in SOURCES for line in arrow_violations(path, path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import memrl.trainer",
        "from memrl import trainer",
        "from memrl.trainer import Trainer",
        "from ..trainer import Trainer",
        "from .. import trainer",
        "def f():\n    from memrl import rollout",  # the same rank or a late import is no way out
        "import memrl.unheard_of",
    ],
)
def test_arrow_check_sees_every_form_of_import(source: str) -> None:
    assert arrow_violations(ROOT / "memrl" / "algos" / "dqn.py", source)


def test_arrow_check_lets_lower_ranks_pass() -> None:
    source = "from memrl import __version__, memory\nfrom .targets import td\nimport torch.nn\n"
    assert not arrow_violations(ROOT / "memrl" / "algos" / "dqn.py", source)


def test_importing_memrl_is_light() -> None:
    heavy = "{'torch', 'gymnasium'}"
    code = f"import memrl, sys; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"importing memrl imports {done.stderr}"


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_files_stay_short() -> None:
    limits = {path: 350 for path in SOURCES}
    limits[ROOT / "memrl" / "interfaces.py"] = 120
    long = {
        str(path.relative_to(ROOT)): f"{line_count(path)} lines, at least {limit}"
        for path, limit in limits.items()
        if line_count(path) >= limit
    }
    assert not long


def test_functions_stay_short() -> None:
    long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines >= 60:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert not long


def test_learning_core_stays_small() -> None:
    """From the page of nouns to the trainer; tasks may grow in number, one file each."""
    names = {name for name, rank in CORE_RANKS.items() if rank <= CORE_RANKS["trainer"]} - {"envs"}
    core = [path for path in SOURCES if name_of(path) in names]
    assert core
    assert sum(line_count(path) for path in core) < 2100


def test_every_dependency_is_pinned_within_its_range() -> None:
    first, *lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert first.startswith("# Made with Python 3.")
    pins = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"not an exact pin: {line!r}"
        pins[canonicalize_name(match[1])] = Version(match[2])

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name == "memrl":
            continue
        assert name in pins, f"{text} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[name], prereleases=True), (text, pins[name])


def test_tracked_files_name_nothing_outside_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    # In pieces, so that this file does not match; an attribute of torch by the last name may stand.
    needles = re.compile(rb"\.\./" rb"shared|/wo" rb"rk/|(?<!\w)\.lib" rb"rary\b")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    found = []
    for name in filter(None, listing.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and (match := needles.search(path.read_bytes())):
            found.append(f"{name}: {match[0].decode()}")
    assert not found
