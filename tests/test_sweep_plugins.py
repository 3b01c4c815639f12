"""Launchers and sweepers of other packages: the real ones, each with runs of a second."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from conftest import Process
from made import make_run

from memrl.results.scores import objective
from memrl.run.identity import read_config
from memrl.run.outcome import ConfigError

Launch = Callable[..., Process]
TINY = ("-m", "budget=smoke", "env.length=5", "budget.train_episodes=1", "sweep=all")


def needs(plugin: str) -> pytest.MarkDecorator:
    missing = find_spec(f"hydra_plugins.{plugin}") is None
    return pytest.mark.skipif(missing, reason=f"{plugin} is not installed")


@needs("hydra_joblib_launcher")
@needs("hydra_submitit_launcher")
@needs("hydra_optuna_sweeper")
def test_any_launcher_starts_what_is_missing_and_any_sweeper_gets_the_objectives(
    launch: Launch, tmp_path: Path
) -> None:
    folder = tmp_path / "outputs" / "all"
    lr = "algo.lr=choice(1e-3)"
    optuna = ("hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_jobs=1")
    process = launch(*TINY, *optuna, "hydra.sweeper.n_trials=2", lr)  # the same twice
    assert process.wait() == 0, process.output
    (done,) = folder.glob("tmaze*")
    assert process.out.count(f"{done.name}: objective 0\n") == 2
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_params"] == {"algo.lr": 0.001}
    assert best["best_value"] == objective(read_config(done), done)
    assert "best_value: 0.0\n" in process.out
    before = (done / "status.json").read_bytes()

    process = launch(*TINY, "hydra/sweeper=basic", lr)
    assert process.wait() == 0, process.output
    assert f"{done.name}: objective 0\n" in process.out

    for attempt, launcher in enumerate(("joblib", "submitit_local"), start=1):
        process = launch(*TINY, f"hydra/launcher={launcher}", "algo.lr=1e-3,1e30")
        assert process.wait() == 1, process.output  # by the state of the runs, not by the launcher
        assert "; to start: 1\n" in process.out
        assert "outputs/all: 2 runs (1 done, 1 failed)\n" in process.out
        assert re.search(r"algo.lr=1e\+30\S*: failed: train/loss is nan", process.err)
        (failed,) = set(folder.glob("tmaze*")) - {done}
        assert json.loads((failed / "status.json").read_text())["attempt"] == attempt
    assert (folder / ".submitit").is_dir() and "foreign" not in process.out
    assert (done / "status.json").read_bytes() == before


def test_the_objective_is_the_score_by_the_chosen_or_the_tasks_own_metric(tmp_path: Path) -> None:
    returns, success = [9.0] * 5 + [0.5] * 10, [0.0] * 5 + [0.25] * 10
    folder = make_run(tmp_path, returns, success=success)
    config = read_config(folder)
    assert objective(config, folder) == 0.25
    assert objective(config | {"objective": "eval/return"}, folder) == 0.5
    del config["objective"]  # as in configs of older versions
    folder = make_run(tmp_path, returns, "seed=1")
    assert objective(config, folder) == 0.5
    with pytest.raises(ConfigError, match=r"^objective=eval/success: no eval/success in "):
        objective(config | {"objective": "eval/success"}, folder)
