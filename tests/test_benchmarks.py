"""Benchmarks start; what they measure is for people to read."""

from __future__ import annotations

import importlib
import runpy
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_does(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert not ended.value.code
    text = " ".join(capsys.readouterr().out.split())
    first = " ".join((FOLDER / name).read_text().split("\n\n")[0].strip('"').split())
    assert first[:40] in text


def sleeper(seconds):
    return lambda: time.sleep(seconds)


@pytest.mark.processes
def test_things_take_turns_in_processes_of_their_own(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    common = importlib.import_module("common")
    times, memory = common.in_turn([(sleeper, 0.01), (sleeper, 0.02)], repetitions=1)
    assert [len(own) for own in times] == [1, 1] and min(map(min, times)) > 0
    assert min(memory) >= 0
    assert common.ratio([4.0, 6.0], [2.0, 2.0]) == 2.5


def test_an_update_of_ours_and_one_of_the_reference_can_be_timed(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    updates = importlib.import_module("updates")
    for update in (
        updates.reference("lstm", 2, 1),
        updates.ours("lstm", 2, 1, updates.KINDS["shared"]),
    ):
        assert update()["loss"] >= 0


def test_steps_until_solved_are_compared_exactly(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    fidelity = importlib.import_module("fidelity")
    assert fidelity.p_value([1, 2], [3, float("inf")]) == pytest.approx(2 / 6)
    assert fidelity.p_value([3], [float("inf"), 1, 2]) == 1.0
    recorded = fidelity.recorded()
    assert {key: len(curves) for key, curves in recorded.items()} == {
        ("tmaze_active 5", "GPT"): 1,
        ("tmaze_active 5", "LSTM"): 2,
        ("tmaze_passive 10", "GPT"): 3,
        ("tmaze_passive 10", "LSTM"): 3,
        ("visual_match 1", "LSTM"): 2,
        (fidelity.TRAINING, "LSTM"): 2,
    }
    assert [curve.solved_at for curve in recorded[fidelity.TRAINING, "LSTM"]] == [
        18600,
        float("inf"),
    ]


def test_the_page_has_the_table_of_the_recorded_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    paper_small = importlib.import_module("paper_small")
    monkeypatch.setattr(sys, "argv", ["paper_small.py", "--figure", str(tmp_path / "steps.png")])
    paper_small.main()
    printed = capsys.readouterr().out.splitlines()
    page = (FOLDER.parent / "docs" / "reproduce.md").read_text().splitlines()
    rows = [line for line in printed if line.startswith("|")]
    assert len(rows) == 2 + 11 and set(rows) <= set(page)
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")


def test_what_a_run_costs_can_be_computed(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    costs = importlib.import_module("costs")
    for task, model in (("tmaze_passive", "gpt"), ("key_to_door", "lstm")):
        steps, update, cpu, gpu = costs.run_cost(task, 5, model)
        assert steps > 1_000 and 0 < update < cpu and 0 < gpu


def test_an_update_of_continuous_actions_and_its_reference_can_be_timed(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    continuous = importlib.import_module("continuous")
    monkeypatch.setattr(continuous, "BATCH", 3)
    monkeypatch.setattr(continuous, "T", 4)
    for model in ("lstm", "gpt"):
        losses = continuous.reference(model, "cpu", 1)()
        losses |= continuous.ours(model, "cpu", 1, continuous.KINDS["sac"])()
        assert all(abs(float(loss)) < 1e3 for loss in losses.values())
