"""Benchmarks start; what they measure is for people to read."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_does(name):
    command = [sys.executable, str(FOLDER / name), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    first = " ".join((FOLDER / name).read_text().split("\n\n")[0].strip('"').split())
    assert first[:40] in text


def test_things_take_turns_in_processes_of_their_own(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    updates, common = importlib.import_module("updates"), importlib.import_module("common")
    shared = updates.KINDS["shared"]
    made = [(updates.reference, "lstm", 2, 1), (updates.ours, "lstm", 2, 1, shared)]
    times, memory = common.in_turn(made, repetitions=1)
    assert [len(own) for own in times] == [1, 1] and min(map(min, times)) > 0
    assert min(memory) >= 0
    assert common.ratio([4.0, 6.0], [2.0, 2.0]) == 2.5
