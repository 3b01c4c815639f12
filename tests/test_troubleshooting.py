"""Every error line that docs/troubleshooting.md quotes is in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCES = [*ROOT.glob("memrl/**/*.py"), *ROOT.glob("hydra_plugins/*.py")]
VARIABLE = re.compile(r"\.\.\.|\b(?:KEY|VALUE|GROUP|NAME|FOLDER|FILE|PACKAGE)\b")
JOINT = re.compile(r"[:;](?: |$)|, got\b|\bmust be\b")  # texts beside it may be apart
SHORTEST = 8  # characters of a text that is looked up


def quoted_lines() -> list[str]:
    """Return what is in code font in the first column of the tables of error lines."""
    text = PAGE.read_text().partition("\n## Error lines\n")[2]
    text = text.partition("\n## Lines of other programs\n")[0]
    cells = re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE)
    return [line for cell in cells for line in re.findall(r"`([^`]+)`", cell)]


def split(text: str, at: re.Pattern[str]) -> list[str]:
    parts = [part.strip() for part in at.split(text)]
    return [part for part in parts if len(part) >= SHORTEST]


def missing(line: str, sources: list[str]) -> list[str]:
    """Return the parts of a quoted line that no source file has."""

    def is_there(text: str) -> bool:
        return any(text in source for source in sources)

    parts = split(line, VARIABLE)
    finer = [split(part, JOINT) or [part] for part in parts if not is_there(part)]
    return [part for some in finer for part in some if not is_there(part)]


def texts_of(path: Path) -> Iterator[str]:
    """Yield the text constants of a source file and of its f-strings, but not its docstrings."""
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and node not in docstrings:
            if isinstance(node.value, str):
                yield " ".join(node.value.split())


@pytest.fixture(scope="module")
def sources() -> list[str]:
    return ["\n".join(texts_of(path)) for path in SOURCES]


def test_lines_can_be_looked_up() -> None:
    assert len(quoted_lines()) > 100
    assert not [line for line in quoted_lines() if not split(line, VARIABLE)], "too short"


def test_a_line_that_is_gone_is_found(sources: list[str]) -> None:
    line = "KEY must be at least ...; no message says this"
    assert missing(line, sources) == ["no message says this"]


@pytest.mark.parametrize("line", quoted_lines())
def test_quoted_line_is_in_the_code(line: str, sources: list[str]) -> None:
    assert not missing(line, sources), f"not in the code: {line!r}"
