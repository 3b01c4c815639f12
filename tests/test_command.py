"""The command that was typed: it is recorded, and can be given again."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Process
from test_run import status, tiny

from memrl.__main__ import main
from memrl.results.report import commands
from memrl.results.runs import load
from memrl.run.command import VARIABLE, remember_command, typed_command

Launch = Callable[..., Process]
TINY = tiny("lstm", "budget.train_episodes=2")
SWEEP_FILE = """\
defaults: [config, _self_]
hydra: {mode: MULTIRUN, sweeper: {params: {seed: "1,2", algo.lr: "1e-3"}}}
sweep: figure
"""


@pytest.mark.parametrize(
    "program, start",
    [
        ("run.py", "python run.py"),
        ("/home/someone/memrl/run.py", "python run.py"),
        ("/home/someone/.venv/bin/memrl", "memrl train"),
        ("/home/someone/memrl/memrl/__main__.py", "python -m memrl train"),
    ],
)
def test_it_is_quoted_for_a_shell_and_names_no_place(
    program: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setenv(VARIABLE, "of the process that started this one")
    for arguments in ([], ["-m", "seed=range(2)", "sweep='a b'", "algo.hidden_dims=[8]"]):
        remember_command(arguments)
        line = typed_command() or ""
        assert line.startswith(start) and line == line.strip()
        assert shlex.split(line) == [*start.split(), *arguments]


def configs(cwd: Path) -> dict[str, str]:
    paths = cwd.glob("outputs/*/*/config.yaml")
    return {str(path.parent.relative_to(cwd)): path.read_text() for path in paths}


@pytest.mark.parametrize(
    "arguments, n_runs",
    [
        ((*TINY, "seed=3", "sweep='a b'"), 1),
        (("-cd", "sweeps", "-cn", "figure", *TINY), 2),
    ],
)
def test_the_recorded_command_gives_the_same_runs_again(
    arguments: tuple[str, ...], n_runs: int, launch: Launch, tmp_path: Path
) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "figure.yaml").write_text(SWEEP_FILE)
    process = launch(*arguments)
    assert process.wait() == 0, process.output
    for run in load(tmp_path / "outputs"):
        assert status(run.folder)["command"] == f"python run.py {shlex.join(arguments)}"
    (line,) = commands(load(tmp_path / "outputs"))
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "sweeps", again / "sweeps")
    python, program, *given = shlex.split(line)
    assert (python, program) == ("python", "run.py")
    process = launch(*given, cwd=again)
    assert process.wait() == 0, process.output
    assert len(configs(tmp_path)) == n_runs
    assert configs(again) == configs(tmp_path)


def test_a_run_has_the_command_of_the_sweep_that_named_it_first(
    launch: Launch, tmp_path: Path
) -> None:
    common = ("-m", *TINY, "sweep=mixed")
    typed = [(*common, "algo.lr=3e-4,1e30"), (*common, "algo.lr=1e30,1e29")]
    for arguments in typed:
        assert launch(*arguments).wait() == 1
    folder = tmp_path / "outputs" / "mixed"
    retry = launch(first=lambda: sys.exit(main(["sweep", "retry", str(folder)])))
    assert retry.wait() == 1
    records = [json.loads(path.read_text()) for path in folder.glob(".submissions/*/*.json")]
    records.sort(key=lambda record: record["created"])
    lines = [f"python run.py {shlex.join(arguments)}" for arguments in typed]
    assert [record["command"] for record in records] == [*lines, None]
    assert sorted(run.command or "" for run in load(folder)) == sorted([*lines, lines[0]])
    assert commands(load(folder)) == lines
    for run in load(folder):
        assert status(run.folder)["command"] in lines
