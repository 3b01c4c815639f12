"""The files in sweeps/: the paper's experiments and ours; each is accepted whole, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Process, needs_pybullet
from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.types import RunMode
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from omegaconf import DictConfig, OmegaConf
from test_run import tiny

from memrl.experiment import folder_of, resolve
from memrl.run.config import CONF
from memrl.run.outcome import ConfigError
from memrl.sweep.compose import Composer

Launch = Callable[..., Process]

DRY = "hydra.launcher.dry_run=true"
SEEDS = range(10)
PLAIN = {"lstm": "", "gpt": ""}
TWO = {"lstm": "seq_model.n_layer=2,", "gpt": "seq_model.n_head=2,seq_model.n_layer=2,"}
FOUR = {"lstm": "seq_model.n_layer=4,", "gpt": "seq_model.n_head=4,seq_model.n_layer=4,"}


def names(task: str, lengths: list[int], algo: str, *layers: dict[str, str]) -> set[str]:
    """All that is not in a run's name is default, and tests/test_config.py has the defaults."""
    return {
        f"{task}-{length},{algo},{model},{layer[model]}seed={seed}"
        for layer, length, model, seed in product(layers, lengths, ("lstm", "gpt"), SEEDS)
    }


ROBOTS = ("env.robot=ant,", "env.robot=halfcheetah,", "", "env.robot=walker,")  # hopper: default
GRADIENTS = ("algo.policy_gradient=attached,", "algo.policy_gradient=freeze_critic,", "")


def pybullet_names(*agents: str) -> set[str]:
    """The runs of both variants of all robots, for agents such as ``td3,lstm,``."""
    variants = ("pybullet_p", "pybullet_v")
    return {f"{v},{a}{r}seed={seed}" for v, a, r, seed in product(variants, agents, ROBOTS, SEEDS)}


ACTIVE = [20, 50, 100, 250, 500]
PAPER = {
    "tmaze_passive": (
        160,
        names("tmaze_passive", [50, 100, 250, 500, 750, 1000, 1250, 1500], "dqn", PLAIN),
    ),
    "tmaze_active": (
        100,
        names("tmaze_active", ACTIVE, "dqn", {"lstm": PLAIN["lstm"], "gpt": TWO["gpt"]}),
    ),
    "visual_match": (
        120,
        names("visual_match", [60, 120, 250, 500, 750, 1000], "sacd", PLAIN),
    ),
    "key_to_door": (80, names("key_to_door", [60, 120, 250, 500], "sacd", TWO)),
    "layers": (300, names("tmaze_active", ACTIVE, "dqn", PLAIN, TWO, FOUR)),
    "pybullet": (160, pybullet_names("td3,lstm,", "td3,gpt,")),
    "pybullet_encoders": (80, pybullet_names("td3_separate,lstm,")),
}
# And how many runs of one seed.
OURS = {"far": 1, "fast": 8, "generalise": 7, "headline": 4, "memory_chain": 9, "popgym": 6}
OURS |= {"fidelity": 2, "paper_small": 8}
TUNING = {"optuna"}  # whose runs a sweeper of another package proposes


# Of the launcher slurm, besides those of hydra-submitit-launcher.
OWN_KEYS = {"runs_per_job", "wait", "retry_failed", "dry_run", "snapshot"}


def planned(process: Process, state: str = "missing", now: str = "start") -> list[str]:
    """The names of the runs in the table of a dry run that are in that state."""
    return re.findall(rf"^\d+ +(\S+) +{state} +{now}$", process.out, re.M)


@contextmanager
def composed(name: str) -> Iterator[DictConfig]:
    """Yield what Hydra composes for ``-cd sweeps -cn NAME``; put Hydra's singletons back."""
    before = Singleton.get_state()
    path = create_config_search_path(str(CONF))
    path.prepend("command-line", f"file://{ROOT / 'sweeps'}", anchor="schema")
    with initialize_config_dir(str(CONF), version_base="1.3"):  # which puts back what there was
        GlobalHydra.instance().clear()
        running = Hydra.create_main_hydra2("memrl", path)
        yield running.compose_config(name, [], run_mode=RunMode.MULTIRUN)
    Singleton.set_state(before)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=needs_pybullet if "pybullet" in name else ()) for name in PAPER
    ],
)
def file(request: pytest.FixtureRequest) -> Iterator[tuple[str, DictConfig]]:
    """A file's name, and what it composes to."""
    with composed(request.param) as master:
        yield request.param, master


def test_there_is_a_test_of_every_file() -> None:
    assert {path.stem for path in (ROOT / "sweeps").glob("*.yaml")} == {*PAPER, *OURS, *TUNING}


@pytest.mark.parametrize(("name", "runs"), OURS.items())
def test_our_own_files_are_accepted(name: str, runs: int) -> None:
    with composed(name) as master:
        composer = Composer(GlobalHydra.instance().config_loader(), master)
        params = [f"{key}={value}" for key, value in master.hydra.sweeper.params.items()]
        folders = {
            folder_of(resolve(composer(each))) for each in composer.product([*params, "seed=0"])
        }
    assert len(folders) == runs
    assert {path.parent for path in folders} == {Path("outputs", name)}


def test_a_file_is_exactly_the_runs_of_the_paper(file: tuple[str, DictConfig]) -> None:
    name, master = file
    count, expected = PAPER[name]
    assert len(expected) == count
    assert master.hydra.mode == RunMode.MULTIRUN  # without -m
    composer = Composer(GlobalHydra.instance().config_loader(), master)
    params = [f"{key}={value}" for key, value in master.hydra.sweeper.params.items()]
    assert len(composer.product(params)) == count
    assert params[-1] == "seed=range(10)"  # composing all takes ten times as long
    found = [
        folder_of(resolve(composer(overrides)))
        for overrides in composer.product([*params, "seed=0"])
    ]
    assert len(found) == count // 10
    assert {path.parent for path in found} == {Path("outputs", name)}
    assert {path.name for path in found} == {run for run in expected if run.endswith("seed=0")}


def test_the_command_line_narrows_a_file(launch: Launch, tmp_path: Path) -> None:
    narrow = ("env.length=50,100", "seed=0,1", "budget=smoke")
    process = launch("-cn", "tmaze_passive", *narrow, DRY)
    assert process.wait() == 0, process.output
    smoke = "budget.eval_every=5,budget.train_episodes=20"
    assert set(planned(process)) == {
        f"tmaze_passive-{length},dqn,{model},{smoke},seed={seed}"
        for length, model, seed in product((50, 100), ("lstm", "gpt"), (0, 1))
    }
    assert "outputs/tmaze_passive: 8 runs (8 missing); to start: 8\n" in process.out
    assert process.err == ""
    assert list(tmp_path.iterdir()) == []


def test_the_ablation_of_another_task_as_its_file_says(launch: Launch) -> None:
    comment = (ROOT / "sweeps" / "layers.yaml").read_text().split("defaults:")[0]
    (command,) = re.findall(r"^# +python run\.py (.*)$", comment, re.M)
    process = launch(*command.split(), "env.length=60", "seed=0", DRY)
    assert process.wait() == 0, process.output
    expected = names("key_to_door", [60], "sacd", PLAIN, TWO, FOUR)
    assert set(planned(process)) == {name for name in expected if name.endswith("seed=0")}
    assert "outputs/layers_key: 6 runs" in process.out


@needs_pybullet
def test_the_shared_encoders_as_the_file_of_the_separate_ones_says(launch: Launch) -> None:
    comment = (ROOT / "sweeps" / "pybullet_encoders.yaml").read_text().split("defaults:")[0]
    separate, shared = re.findall(r"^# +python run\.py (.*)$", comment, re.M)
    assert separate == "-cn pybullet_encoders"
    for arguments, sweep, model in (
        ((), "pybullet_encoders", "lstm"),
        (re.findall(r"seq_model=\S+|sweep=\S+", comment), "pybullet_encoders_gpt", "gpt"),
    ):
        process = launch(*shared.split(), *arguments, "seed=0", DRY)
        assert process.wait() == 0, process.output
        expected = pybullet_names(*(f"td3,{model},{gradient}" for gradient in GRADIENTS))
        assert set(planned(process)) == {name for name in expected if name.endswith("seed=0")}
        assert f"outputs/{sweep}: 24 runs" in process.out


# --- refused as a whole --------------------------------------------------------------------------

LOCAL, SLURM = "hydra/launcher=local", "hydra/launcher=slurm"
REFUSED = {  # what stands after -m, and how the one line begins
    f"{LOCAL} hydra.launcher.n_jobs=0": "hydra.launcher.n_jobs must be at least 1, got 0",
    f"{LOCAL} +hydra.launcher.njobs=3": "hydra.launcher.njobs=3: no such key; "
    "did you mean hydra.launcher.n_jobs?",
    f"{LOCAL} hydra.launcher.njobs=3": "hydra.launcher.njobs=3: no such key; "
    "did you mean hydra.launcher.n_jobs?",
    f"{LOCAL} ~hydra.launcher.n_jobs": "hydra.launcher.n_jobs is missing",
    f"{LOCAL} hydra.launcher.n_jobs=1,2": "Sweeping over Hydra's configuration is not supported",
    "hydra.launcher.n_jobs=3": "hydra.launcher.n_jobs=3: no such key; ",
    f"{SLURM} hydra.launcher.runs_per_job=abc": "hydra.launcher.runs_per_job=abc: must be an int",
    f"{SLURM} +hydra.launcher.additional_parameters.job_name=x": "hydra.launcher."
    "additional_parameters.job_name=x: set hydra.launcher.name instead",
    f"{SLURM} sweep=50% hydra.launcher.dry_run=true": "sweep=50%: with hydra/launcher=slurm it must"
    " have no % and no \\, which SLURM replaces in the names of log files",
    f"sweep='{'統' * 86}' hydra.launcher.dry_run=true": "sweep must be a folder's name of at most "
    "150 characters and 255 bytes, ",
    "hydra/launcher=nonsense": "hydra/launcher=nonsense: no such option; choose from basic, ",
    "hydra.sweeper.params=0.5": "hydra.sweeper.params=0.5: must be a mapping",
    "hydra.verbose=1e3": "hydra.verbose=1e3: it has no effect",
    "+hydra.job.env_set.A=b": "+hydra.job.env_set.A=b: for a sweep, set variables in the shell",
    "hydra.sweep.dir=x": "hydra.sweep.dir=x: results go to outputs/",
    "hydra/sweeper=nonsense": "hydra/sweeper=nonsense: no such option; choose from basic, ",
    f"hydra/sweeper=basic {DRY}": "hydra.launcher.dry_run=true needs hydra/sweeper=memrl",
    "hydra/launcher=null": "hydra/launcher=null: choose one option of basic, ",
    "env=visual_match env.lenght=5": "env.lenght=5: no such key; did you mean env.length?",
    "hydra.mode=RUN": "hydra.mode=RUN: -m already says MULTIRUN",
    "+hydra.sweeper.max_batch_size=3": "hydra.sweeper.max_batch_size=3: no such key; ",
    "sweep=a,b": "sweep: ",
    "hydra/sweeper=basic sweep=a,b": "sweep: one sweep has one name; give sweep=NAME once",
    "hydra/sweeper=basic seed=-1 env.length=5,6": "seed must be at least 0 and below 2**32, got -1",
    "seed=range(0)": "",
    "seed=interval(0,1)": "seed=interval(0,1): an interval is for sweepers such as ",
    "hydra/sweeper=optuna seed=1,2": "hydra.sweeper.direction=minimize: the return, or the share ",
    "seq_model=lstm,foo": "seq_model=foo: no such option; choose from ",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_bad_sweep_is_one_line_with_status_2_and_creates_nothing(
    line: str, launch: Launch, tmp_path: Path
) -> None:
    process = launch("-m", *line.split())
    assert process.wait() == 2, process.output
    assert process.err.startswith(f"error: {REFUSED[line]}")
    assert process.err.count("\n") == 1
    assert process.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("launcher", "keys", "message"),
    [
        ("local", {"n_jobs": "many"}, "n_jobs=many: must be an integer"),
        ("local", {"dry_run": 1}, "dry_run=1: must be true or false"),
        ("slurm", {"mem_gb": 0}, "mem_gb must be null or above 0, got 0"),
        ("slurm", {"mem_gb": 0.0009}, "mem_gb must be null or at least 0.001"),
        ("slurm", {"setup": "module"}, "setup=module: must be a list"),
        ("slurm", {"nodes": 2}, "nodes must be 1 (runs_per_job is how many runs share a job), got"),
        ("slurm", {"submitit_folder": "logs/%A"}, "submitit_folder must be a folder without"),
        (
            "slurm",
            {"exclude": "node7", "additional_parameters": {"exclude": "node8"}},
            "additional_parameters.exclude=node8: exclude is set as well",
        ),
        ("slurm", {"additional_parameters": "x"}, "additional_parameters=x: "),
        (
            "slurm",
            {"additional_parameters": {"mem": "4G"}},
            "additional_parameters.mem=4G: set hydra.launcher.mem_gb instead",
        ),
        (
            "slurm",
            {"timeout_min": 2, "signal_delay_s": 120},
            "signal_delay_s must be below timeout_min in seconds, 120, got 120",
        ),
    ],
)
def test_the_values_of_a_launchers_keys_are_checked(
    launcher: str, keys: dict[str, Any], message: str
) -> None:
    section = OmegaConf.load(CONF / "hydra" / "launcher" / f"{launcher}.yaml")
    if launcher == "slurm":  # which has all keys of the plugin
        assert set(section) == {*SlurmQueueConf.__dataclass_fields__, *OWN_KEYS}
    sweeper = {"_target_": "hydra_plugins.memrl_plugins.Sweeper", "params": {}}
    launcher_keys = OmegaConf.merge(section, keys)
    config = OmegaConf.create({"hydra": {"sweeper": sweeper, "launcher": launcher_keys}})
    context: Any = None  # which only a sweep itself needs
    with pytest.raises(ConfigError, match=f"^{re.escape(f'hydra.launcher.{message}')}"):
        Plugins.instance().instantiate_sweeper(
            hydra_context=context, task_function=context, config=config
        )


def test_a_key_that_only_some_models_have_is_refused_with_the_run_it_is_missing_in(
    launch: Launch, tmp_path: Path
) -> None:
    process = launch("-m", "seq_model=gpt,lstm", "seq_model.n_head=1,2")
    assert process.wait() == 2
    for word in ("seq_model.n_head", "no such key", "seq_model=lstm"):
        assert word in process.err
    # That the command's own task lacks a key does not matter.
    tasks = ("env=visual_match,key_to_door", "env.num_apples=5", "env.length=5", "budget=smoke")
    process = launch("-m", *tasks, DRY)
    assert process.wait() == 0, process.output
    assert len(planned(process)) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_bad_value_in_one_run_of_many_is_named_on_the_command_line(
    launch: Launch, tmp_path: Path
) -> None:
    process = launch("-m", "budget=smoke", "env.length=5,-3", "seed=range(3)")
    assert process.wait() == 2
    assert process.err == (
        "error: 3 of 6 runs were refused; nothing was started:\n"
        "  env.length must be at least 1, got -3 (budget=smoke env.length=-3 seed=0 and 2 more)\n"
    )
    assert process.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_of_sweeps_without_m_is_refused(launch: Launch, tmp_path: Path) -> None:
    """Else the run would be done here and now, without a word."""
    process = launch("budget=smoke", SLURM)
    assert process.wait() == 2
    assert process.err.startswith("error: hydra/launcher=slurm ") and "-m" in process.err
    assert list(tmp_path.iterdir()) == []


OTHER_APP = """\
import hydra

@hydra.main(config_path=None, config_name="other", version_base="1.3")
def main(cfg):
    print("lr", cfg.lr)

ConfigStore = hydra.core.config_store.ConfigStore
defaults = ["_self_"] + OVERRIDES
ConfigStore.instance().store("other", {"defaults": defaults, "lr": 0})
main()
"""


@pytest.mark.parametrize("overrides", [[], [{"override hydra/launcher": "basic"}]], ids=str)
def test_another_hydra_program_in_the_same_environment_is_left_alone(
    overrides: list[dict[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "other.py").write_text(OTHER_APP.replace("OVERRIDES", repr(overrides)))
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    for arguments, printed in ([["lr=1"], ["lr 1"]], [["-m", "lr=1,2"], ["lr 1", "lr 2"]]):
        command = [sys.executable, "other.py", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert re.findall("^lr .*", done.stdout, re.M) == printed


def test_options_of_a_folder_in_the_search_path_are_trained_and_name_their_runs(
    launch: Launch, tmp_path: Path
) -> None:
    folder = tmp_path / "mine" / "seq_model"
    folder.mkdir(parents=True)
    text = (CONF / "seq_model" / "gru.yaml").read_text()
    (folder / "small.yaml").write_text(text.replace("name: gru", "name: small"))
    (folder / "odd.yaml").write_text(text.replace("name: gru", "name: other"))
    (folder / "twin.yaml").write_text(text)
    search = f"hydra.searchpath=[{folder.parent}]"
    words = [word for word in tiny("gru", "budget.train_episodes=2") if "seq_model=" not in word]
    process = launch("seq_model=small", "seed=2", search, *words)
    assert process.wait() == 0, process.output
    (trained,) = tmp_path.glob("outputs/runs/*/agent.pt")
    assert trained.parent.name.startswith("tmaze_passive-5,dqn,small,")
    text = f"defaults: [config, _self_]\nhydra: {{searchpath: ['{folder.parent}']}}\n"
    (tmp_path / "top.yaml").write_text(text)
    process = launch("-m", "-cd", ".", "-cn", "top", "seq_model=small,gru", *words, DRY)
    assert process.wait() == 0, process.output
    names = [name.split(",algo")[0] for name in planned(process)]
    assert names == ["tmaze_passive-5,dqn,small", "tmaze_passive-5,dqn,gru"]
    process = launch("-m", search, "budget=smoke", "seq_model=odd,twin", DRY)
    assert process.wait() == 2
    assert process.out == (
        "warning: seq_model/twin.yaml has name: gru, so runs and figures say gru, not twin\n"
    )
    _, refused = process.err.splitlines()
    assert "  seq_model.name=other: must be odd, as its file is seq_model/odd.yaml (" in refused


def test_a_copy_of_conf_under_another_name_works(launch: Launch, tmp_path: Path) -> None:
    shutil.copytree(CONF, tmp_path / "copy")
    (tmp_path / "copy" / "config.yaml").rename(tmp_path / "copy" / "main.yaml")
    flags = ("-cp", str(tmp_path / "copy"), "-cn", "main")
    process = launch("-m", "budget=smoke", "seed=1,2", DRY, *flags)
    assert process.wait() == 0, process.output
    assert len(planned(process)) == 2
    process = launch("budget=smoke", "env.lenght=3", *flags)
    assert process.wait() == 2
    assert process.err == "error: env.lenght=3: no such key; did you mean env.length?\n"


EXPERIMENTS = {  # what the files of a group hold
    "local": "defaults: [override /hydra/launcher: local]\n",
    "slurm": "defaults: [override /hydra/launcher: slurm]\n",
    "dry": "hydra: {launcher: {dry_run: true}}\n",
    "late": "defaults: [override /hydra/sweeper: basic]\n",
    "swept": "hydra: {sweeper: {params: {seed: '1,2'}}}\n",
    "plain": "seed: 4\n",
}
ONE = "a sweep has one; give it on the command line"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"-m +experiment=local {DRY} hydra.launcher.n_jobs=3", ""),
        (f"-m +experiment=local,plain {DRY} hydra/launcher=serial", ""),
        ("-m +experiment=dry", ""),
        ("-m +experiment=late", "experiment=late sets hydra/sweeper=basic, which comes too late"),
        ("+experiment=local", "hydra/launcher=local is for sweeps: add -m"),
        ("+experiment=swept", "hydra.sweeper.params.seed=1,2 is for sweeps: add -m"),
        ("-m +experiment=plain,local", f"+experiment=local sets hydra/launcher=local: {ONE}"),
        ("-m +experiment=slurm,local", f"+experiment=slurm sets hydra/launcher=slurm: {ONE}"),
        ("-m +experiment=plain,dry", f"+experiment=dry sets hydra.launcher.dry_run=true: {ONE}"),
        ("-m +experiment=swept,plain", "+experiment=swept sets hydra.sweeper.params.seed=1,2: "),
    ],
)
def test_an_experiment_that_sets_what_is_the_sweeps_is_obeyed_or_refused(
    line: str, message: str, launch: Launch, tmp_path: Path
) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    for name, text in EXPERIMENTS.items():
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    process = launch(*line.split(), "-cd", ".")
    assert process.wait() == (2 if message else 0), process.output
    if message:
        assert process.err.startswith(f"error: {message}") and process.err.count("\n") == 1
    else:
        assert process.out.endswith("dry run: nothing was started, nothing written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["experiment"]


# --- a dry run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", ["serial", "basic", "local", "slurm"])
def test_a_dry_run_prints_every_run_and_writes_nothing(
    launcher: str, launch: Launch, tmp_path: Path
) -> None:
    if launcher == "slurm":
        pytest.importorskip("submitit", reason="submitit is not installed")
    process = launch("-m", "budget=smoke", "seed=range(12)", DRY, f"hydra/launcher={launcher}")
    assert process.wait() == 0, process.output
    smoke = "budget.eval_every=5,budget.train_episodes=20"
    assert planned(process) == [f"tmaze_passive-10,dqn,lstm,{smoke},seed={n}" for n in range(12)]
    assert process.out.endswith("dry run: nothing was started, nothing written\n")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_script_of_jobs(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No SLURM is needed for that."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    # Only where jobs run, and on whose account, is up to the environment, and keys come first.
    for name, value in {
        "ACCOUNT": "us",
        "PARTITION": "low",
        "WCKEY": "w",
        "TIMELIMIT": "1",
    }.items():
        monkeypatch.setenv(f"SBATCH_{name}", value)
    keys = {"timeout_min": 90, "partition": "gpu", "mem_gb": 1.5, "runs_per_job": 4}
    keys |= {"array_parallelism": 2, "signal_delay_s": 30, "setup": '["module load x"]'}
    keys |= {"gpus_per_node": 1, "gres": "ssd", "exclude": "node7", "name": "mine", "comment": "x"}
    keys |= {"submitit_folder": "logs/%j"}
    given = [f"hydra.launcher.{key}={value}" for key, value in keys.items()]
    given.append("+hydra.launcher.additional_parameters.mail_type=FAIL")
    command = ("-m", "budget=smoke", "threads=2", "seed=range(9)", "sweep=my runs", SLURM, DRY)
    process = launch(*command, *given)
    assert process.wait() == 0, process.output
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", process.out, re.M))
    expected = {"time": "90", "partition": "gpu", "mem": "1536MB", "cpus-per-task": "8"}
    expected |= {"gpus-per-node": "1", "array": "0-2%2", "mail-type": "FAIL"}
    expected |= {"account": "us", "wckey": "w"}
    assert expected.items() <= options.items()
    assert options["signal"].endswith("USR2@30")
    assert {"gres": "ssd", "exclude": "node7", "comment": "x"}.items() <= options.items()
    assert re.fullmatch(r"mine-\w+", options["job-name"])
    assert options["output"] == f"{tmp_path}/logs/%A_%a/%A_%a_0_log.out"
    assert "module load x" in process.out
    assert list(tmp_path.iterdir()) == []


def test_without_sbatch_it_is_one_line(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    process = launch("-m", "budget=smoke", SLURM)
    assert process.wait() == 2, process.output
    assert process.err.startswith("error: hydra/launcher=slurm: there is no sbatch here")
    assert process.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
