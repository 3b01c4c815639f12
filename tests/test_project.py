"""Laws of the project itself: its pins, its import arrow and its size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "memrl").rglob("*.py"))
CODE = [*SOURCES, *sorted((ROOT / "hydra_plugins").glob("*.py")), ROOT / "run.py"]

# Folders, and files directly in memrl/, import only from those that stand before them: from an
# earlier row, not from another one of the same row.
ARROWS = (
    ("interfaces", "checks"),
    ("networks", "envs", "actions"),
    ("encoders", "seq_models", "replay", "lengths"),
    ("memory", "rollout"),
    ("algos",),
    ("trainer",),
    ("run",),
    ("experiment",),
    ("sweep",),
    ("results",),
    ("commands",),
    ("__main__", "hydra_plugins", "run.py"),
)
RANKS = {name: rank for rank, names in enumerate(ARROWS) for name in names}
CORE = {name for names in ARROWS[: RANKS["trainer"] + 1] for name in names}


def module_of(path: Path) -> str:
    """``memrl/envs/tmaze.py`` -> ``memrl.envs.tmaze``; a package has the name of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in CODE}


def place_of(module: str) -> str:
    """``memrl.envs.tmaze`` -> ``envs``: what has a rank; empty for ``memrl`` itself."""
    first, *rest = module.split(".")
    if first == "memrl":
        return rest[0] if rest else ""
    return "run.py" if first == "run" else first


def imported_modules(tree: ast.Module, package: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Line and name of every module of ours that a file in ``package`` imports, late ones too."""
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            targets = [".".join([*base, alias.name]) for alias in node.names]
        for target in targets:
            parts = target.split(".")
            # Other modules in hydra_plugins are of other packages.
            if parts[0] == "memrl" or parts[:2] == ["hydra_plugins", "memrl_plugins"]:
                # A name in a module, or one of no file here, counts as that module.
                known = [".".join(parts[:n]) for n in range(len(parts), 1, -1)]
                yield node.lineno, next((name for name in known if name in MODULES), target)


def arrow_violations(path: Path, source: str) -> list[str]:
    """What a file of ours imports against the arrow."""
    own = place_of(module_of(path))
    package = path.relative_to(ROOT).parent.parts
    return sorted(
        {
            f"{path.relative_to(ROOT)}:{line} ({own}) imports {name}"
            for line, name in imported_modules(ast.parse(source), package)
            # ``memrl`` itself may import all; of it, only the version may be read everywhere.
            if (place := place_of(name)) not in (own, "", "__version__")
            and RANKS.get(place, 99) >= RANKS.get(own, len(ARROWS))
        }
    )


def test_every_place_has_a_rank() -> None:
    unknown = {place_of(module) for module in MODULES} - {""} - RANKS.keys()
    assert SOURCES
    assert not unknown, f"give {sorted(unknown)} a rank in tests/test_project.py"


def test_imports_point_one_way() -> None:
    found = [line for path in CODE for line in arrow_violations(path, path.read_text())]
    assert not found, "\n".join(found)


def import_table() -> dict[str, set[str]]:
    """For every module of ours those that it imports."""
    return {
        module_of(path): {
            name
            for _, name in imported_modules(
                ast.parse(path.read_text()), path.relative_to(ROOT).parent.parts
            )
        }
        - {module_of(path), "memrl"}
        for path in CODE
    }


def test_no_modules_import_each_other_in_a_loop() -> None:
    table = import_table()
    for place in RANKS:  # shown if the test fails, and by ``pytest -s``
        used = {place_of(u) for m, us in table.items() if place_of(m) == place for u in us}
        print(f"{place:<13} <- {', '.join(sorted(used - {place}, key=RANKS.__getitem__)) or '-'}")
    try:
        TopologicalSorter(table).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    "source",
    [
        "import memrl.trainer",
        "from memrl import trainer",
        "from memrl.trainer import Trainer",
        "from ..trainer import Trainer",
        "from .. import trainer",
        "def f():\n    from memrl import trainer",  # a late import is no way out
        "import memrl.unheard_of",
        "from memrl import load",
        "import hydra_plugins.memrl_plugins",
    ],
)
def test_arrow_check_sees_every_form_of_import(source: str) -> None:
    assert arrow_violations(ROOT / "memrl" / "algos" / "dqn.py", source)


def test_arrow_check_lets_lower_ranks_pass() -> None:
    source = "from memrl import __version__, memory\nfrom .targets import td\nimport torch.nn\n"
    assert not arrow_violations(ROOT / "memrl" / "algos" / "dqn.py", source)


def test_at_most_twelve_files_lie_directly_in_memrl() -> None:
    assert len([path for path in SOURCES if path.parent == ROOT / "memrl"]) <= 12


def test_importing_memrl_and_its_results_is_light() -> None:
    code = (
        "import sys, memrl\n"
        "heavy = {'torch', 'gymnasium', 'hydra'} & sys.modules.keys()\n"
        "import memrl.results\n"
        "heavy |= {'hydra', 'torch', 'matplotlib'} & sys.modules.keys()\n"
        "sys.exit(' '.join(heavy | {m for m in sys.modules if 'memrl.commands' in m}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"importing memrl.results imports {done.stderr}"


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_page_of_nouns_stays_short() -> None:
    assert line_count(ROOT / "memrl" / "interfaces.py") < 120


def test_functions_stay_short() -> None:
    long = {}
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines >= 60:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert not long


def test_learning_core_stays_small() -> None:
    """From the page of nouns to the trainer; tasks and models may grow in number, a file each."""
    core = [
        path
        for path in SOURCES
        if place_of(module_of(path)) in CORE - {"envs", "seq_models", "lengths"}
    ]
    assert core
    assert sum(line_count(path) for path in core) < 3050
    models = list((ROOT / "memrl" / "seq_models").glob("*.py"))
    assert models and all(line_count(path) <= 165 for path in models)


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
