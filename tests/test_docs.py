"""The documentation: its commands can be parsed, its Python runs, its generated pages are whole."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT
from made import make_run

from memrl.__main__ import COMMANDS

DOCS = ROOT / "docs"
PAGES = {
    path: path.read_text()
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    if "_build" not in path.parts and path.name not in ("commands.md", "config.md")
}
LINES = sorted(
    {
        line
        for text in PAGES.values()
        for line in re.findall(r"^    (?:python -m )?memrl (\S+(?:[^\n\\]|\\\n)*)$", text, re.M)
    }
)


def test_every_command_can_be_parsed() -> None:
    """Training commands are composed elsewhere."""
    assert len(LINES) > 20
    for line in LINES:
        name, *words = shlex.split(line, comments=True)
        assert name in COMMANDS, line
        if name == "train":
            continue
        command = import_module(f"memrl.commands.{name.replace('-', '_')}")
        parser = argparse.ArgumentParser(exit_on_error=False)
        command.add_arguments(parser)
        parse = parser.parse_args if name == "sweep" else parser.parse_intermixed_args
        try:
            parse([word for word in words if word != "LOGS..."] + ["x"] * ("LOGS..." in words))
        except (SystemExit, argparse.ArgumentError) as error:
            pytest.fail(f"{line}: {error}")


def test_every_marker_that_a_command_names_exists() -> None:
    """pytest takes an unknown word after -m for a marker that no test has."""
    texts = [(ROOT / name).read_text() for name in ("Makefile", ".ci/run")]
    chosen = re.findall(r'pytest[^"\n]* -m "?([a-z ]+)', "\n".join([*texts, *PAGES.values()]))
    assert len(chosen) >= 3
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
    markers = {marker.split(":")[0] for marker in declared["ini_options"]["markers"]}
    assert {word for text in chosen for word in text.split()} <= markers | {"and", "or", "not"}


# What each block of Python on the pages begins with, and the file of the tests that run it.
BLOCKS = {
    "concepts/episodes.md": ["rollout(env, actor"],  # below
    "concepts/law.md": ["output_dim: int"],  # a signature
    "environments.md": ["class Delay"],  # test_readme.py
    "lengths.md": ["class Umbrella", "class RepeatPrevious"],  # test_lengths.py
    "results.md": ["scores.PROTOCOLS"],  # below
    "tasks.md": ["RecurrentPPO"],  # test_tmaze.py
    "tutorials/model.md": ["class Ema"],  # test_readme.py
    "tutorials/notebook.md": ["memrl.load", "results.load"],  # test_readme.py, below
    "tutorials/task.md": ["class RecallVec", "make_vec"],  # test_readme.py
}


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGES[DOCS / page], re.S)


def test_every_block_of_python_is_run_by_a_test() -> None:
    found = {
        str(path.relative_to(DOCS)): len(re.findall(r"```python\n", text))
        for path, text in PAGES.items()
        if "```python" in text
    }
    assert found == {page: len(parts) for page, parts in BLOCKS.items()}
    for page, parts in BLOCKS.items():
        assert all(part in block for part, block in zip(parts, blocks(page), strict=True)), page


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for i, model in enumerate(("lstm", "gpt")):
        folder = make_run(tmp_path, [0.5, 0.9 + i / 10], f"seq_model={model}", "sweep=memory")
        (folder / "train.csv").write_text("env_steps,episodes,updates,train/loss\n110,10,20,0.5\n")
    return folder


def test_the_lines_on_results(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(blocks("results.md")[0], {})
    out = capsys.readouterr().out
    assert "'seq_model.name': ['gpt', 'lstm']" in out and "0.5" in out and "1 runs" in out


def test_the_lines_on_episodes_print_what_stands_there(capsys: pytest.CaptureFixture[str]) -> None:
    exec(blocks("concepts/episodes.md")[0], {})
    (shown,) = re.findall(r"```text\n(\(7.*?)```", PAGES[DOCS / "concepts/episodes.md"], re.S)
    assert capsys.readouterr().out == shown


def test_the_lines_for_notebooks(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(blocks("tutorials/notebook.md")[1].replace("outputs/runs", "outputs/memory"), {})
    assert "done [0.5 1. ]" in capsys.readouterr().out


def test_the_generated_pages_have_every_command_and_key(tmp_path: Path) -> None:
    sys.path.append(str(DOCS))
    try:
        import generate
    finally:
        sys.path.remove(str(DOCS))
    generate.write(tmp_path)
    commands, config = ((tmp_path / name).read_text() for name in ("commands.md", "config.md"))
    for name in COMMANDS:
        assert f"\n## {name}\n" in commands and f"memrl {name}" in commands
    for path in (ROOT / "conf").rglob("*.yaml"):
        group = path.parent.relative_to(ROOT / "conf")
        if str(group) in generate.GROUPS:
            assert f"### {group}={path.stem}\n" in config
    for key in (
        "seed",
        "env.length",
        "algo.gamma",
        "seq_model.hidden_dim",
        "hydra.launcher.n_jobs",
    ):
        assert f"| `{key}` | " in config
