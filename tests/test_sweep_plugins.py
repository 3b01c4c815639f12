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
from hydra.core.utils import JobReturn, JobStatus
from made import make_config, make_run

from memrl.commands.start import conclude_study
from memrl.results.scores import objective
from memrl.run.identity import read_config
from memrl.run.outcome import Failure
from memrl.sweep.launch import NoObjective, hand_over
from memrl.sweep.states import State, read_sweep
from memrl.sweep.submissions import Run

Launch = Callable[..., Process]
TINY = ("-m", "budget=smoke", "env.length=5", "budget.train_episodes=1", "sweep=all")


def needs(plugin: str) -> pytest.MarkDecorator:
    missing = find_spec(f"hydra_plugins.{plugin}") is None
    return pytest.mark.skipif(missing, reason=f"{plugin} is not installed")


@pytest.mark.processes
@pytest.mark.timeout(240)  # three interpreters import torch
@needs("hydra_joblib_launcher")
@needs("hydra_submitit_launcher")
@needs("hydra_optuna_sweeper")
def test_any_launcher_starts_what_is_missing_and_any_sweeper_gets_the_objectives(
    launch: Launch, tmp_path: Path
) -> None:
    folder = tmp_path / "outputs" / "all"
    lr = "algo.lr=choice(1e-3)"
    optuna = ("hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_jobs=2")
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    process = launch(*TINY, *optuna, *joblib, "hydra.sweeper.n_trials=2", lr)  # the same at once
    assert process.wait() == 0, process.output
    (done,) = folder.glob("tmaze*")
    assert process.out.count(f"{done.name}: objective 0\n") == 2
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_params"] == {"algo.lr": 0.001}
    assert best["best_value"] == objective(read_config(done), done)
    assert "best_value: 0.0\n" in process.out
    before = (done / "status.json").read_bytes()

    # What Hydra's own sweeper has written by the time a run is refused.
    refused = launch(*TINY[:-1], "hydra/sweeper=basic", "seed=0,-1", "sweep=none")
    assert refused.wait() == 2, refused.output
    assert "seed must be at least 0" in refused.err and not (tmp_path / "outputs/none").exists()

    here = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")  # in the command's own process
    for attempt, launcher in enumerate((here, ("hydra/launcher=submitit_local",)), start=1):
        process = launch(*TINY, *launcher, "algo.lr=1e-3,1e30")
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
    with pytest.raises(Failure, match=r"^objective=eval/success: no eval/success in "):
        objective(config | {"objective": "eval/success"}, folder)


def test_no_failure_of_another_launcher_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "outputs" / "all"
    runs = [Run(make_config(f"seed={n}"), folder / f"seed={n}") for n in range(3)]

    def cannot_begin(overrides: object, record: Path) -> list[JobReturn]:
        raise RuntimeError("no sbatch")

    with pytest.raises(Failure, match=r"^hydra/launcher=other: RuntimeError: no sbatch$"):
        hand_over(runs, "other", cannot_begin)
    assert not folder.exists()

    def two_fail(overrides: object, record: Path) -> list[JobReturn]:
        # Before the run has a folder, and as the run itself says.
        errors = (ValueError("no network"), NoObjective("stopped"))
        results = [JobReturn(status=JobStatus.FAILED) for _ in errors]
        for result, error in zip(results, errors, strict=True):
            result.return_value = error
        return results

    assert hand_over(runs, "other", two_fail) == 1
    assert capsys.readouterr().err == "error: seed=0: ValueError: no network\n"
    states = {run.name: (run.state, run.cause) for run in read_sweep(folder).runs}
    assert states["seed=0"] == (State.FAILED, "ValueError: no network")
    assert {states[name][0] for name in ("seed=1", "seed=2")} == {State.STOPPED}

    # The sweeper, not each run, decides how a study has ended.
    assert conclude_study(folder, 0, None) == 0
    assert conclude_study(folder, 0, NoObjective("seed=0: failed")) == 1
    assert "3 of 3 runs are not done:\n  seed=0: failed: ValueError" in capsys.readouterr().err
