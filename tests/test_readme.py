"""What the README says works, word for word, and so do the commands of the other pages."""

import csv
import re
import shlex
import warnings
from functools import partial

import gymnasium
import pytest
import torch
from conftest import ROOT, compose_quickly, needs_pybullet
from gymnasium.utils.env_checker import check_env
from omegaconf import OmegaConf

from memrl.__main__ import main
from memrl.envs.autoreset import make_autoreset
from memrl.envs.single import single_class
from memrl.experiment import resolve
from memrl.sweep.states import State

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
SLURM = (ROOT / "docs" / "slurm.md").read_text()
DOCS = ROOT / "docs"
MODEL = (DOCS / "tutorials" / "model.md").read_text()
TASK = (DOCS / "tutorials" / "task.md").read_text()
NOTEBOOK = (DOCS / "tutorials" / "notebook.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted(DOCS.rglob("*.md")))]
COMMANDS = sorted(
    {
        command.strip()
        for page in PAGES
        for command in re.findall(r"(?:^    |`)python run\.py([^`#\n]*)", page, re.M)
    }
)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=needs_pybullet if "pybullet" in command else ())
        for command in COMMANDS
        if not re.search("-cd|-cn|ema|recall", command)
    ],
)
def test_every_command_composes(command, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")  # nobody is logged in
    words = shlex.split(command)
    if "--help" in words:
        return
    if words[:1] == ["-m"]:
        firsts = (re.split(r",(?![^[]*\])", word)[0] for word in words[1:])  # no comma of a list
        words = [re.sub(r"range\(\d+\)", "0", first) for first in firsts]
    words = [word.replace("seed=S", "seed=1") for word in words]
    words = [word for word in words if word not in ("--cfg", "job", "--resolve")]
    resolve(compose_quickly([word for word in words if not word.startswith(("hydra/", "hydra."))]))


def test_there_are_commands():
    assert len(COMMANDS) >= 8


def block(language, containing, page):
    blocks = re.findall(rf"```{language}\n(.*?)```", page, re.S)
    return next(text for text in blocks if containing in text)


@pytest.fixture
def run(launch, tmp_path):
    """Run with what stands in the test's folder and in ``my_conf``; return status and process."""

    def run_py(*overrides):
        tiny = ["batch_size=4", "budget=smoke", "budget.train_episodes=2"]
        process = launch("-cd", "my_conf", *overrides, *tiny)
        return process.wait(), process

    return run_py


def test_your_own_sequence_model(tmp_path, run, launch):
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "ema.py").write_text(block("python", "class Ema", MODEL))
    for name in ("types", "torch"):  # files that hide no module
        (tmp_path / f"{name}.py").write_text("raise SystemExit(name)\n")
    conf = tmp_path / "my_conf" / "seq_model"
    conf.mkdir(parents=True)
    (conf / "ema.yaml").write_text(
        block("yaml", "Ema", MODEL).replace("memrl.seq_models", "my_pkg")
    )

    run = partial(run, "env.length=5", "seq_model=ema")
    code, done = run("seq_model.decay=0.8")
    assert code == 0, done.output
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert folder.name.startswith("tmaze_passive-5,dqn,ema,")
    assert "seq_model.decay=0.8" in folder.name
    assert (folder / "agent.pt").exists()
    watch = partial(main, ["watch", str(folder), "--episodes", "1"])
    watched = launch(first=watch)
    assert watched.wait() == 0, watched.output
    elsewhere = launch(first=watch, cwd=folder)
    assert elsewhere.wait() == 2
    assert (
        "Ema: no package my_pkg here; give the command in the folder that has it" in elsewhere.err
    )

    code, refused = run("seq_model.decay=often")
    assert code == 2
    assert refused.err == "error: seq_model.decay=often: must be a finite number\n"
    code, refused = run("seq_model.decay=2")
    assert code == 2
    assert refused.err == "error: seq_model.decay must be in [0, 1), got 2.0\n"


def test_your_own_task(tmp_path, run):
    (tmp_path / "recall.py").write_text(block("python", "class RecallVec", TASK))
    conf = tmp_path / "my_conf" / "env"
    conf.mkdir(parents=True)
    (conf / "recall.yaml").write_text(block("yaml", "RecallVec", TASK).replace("memrl.envs.", ""))
    run = partial(run, "env=recall")
    code, done = run("env.length=6", "num_envs=2")
    assert code == 0, done.output
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert folder.name.startswith("recall-6,dqn,lstm,")
    with open(folder / "eval.csv") as file:
        for row in csv.DictReader(file):
            assert row["eval/success"] == row["eval/return"]
            assert float(row["eval/length"]) == 6
    code, refused = run("env.length=1")
    assert code == 2
    assert refused.err == "error: env.length must be at least 2, got 1\n"


def test_your_own_project(tmp_path, launch):
    page = (ROOT / "docs" / "own_project.md").read_text()
    files = {
        "my_pkg/__init__.py": "",
        "my_pkg/ema.py": block("python", "class Ema", MODEL),
        "my_pkg/recall.py": block("python", "class RecallVec", TASK),
        "my_conf/seq_model/ema.yaml": block("yaml", "my_pkg.ema.Ema", page),
        "my_conf/env/recall.yaml": block("yaml", "RecallVec", page),
        "my_conf/experiment/first.yaml": block("yaml", "batch_size", page),
        "my_conf/sizes.yaml": block("yaml", "sweep: sizes", page),
        "my_conf/hydra/launcher/mycluster.yaml": block("yaml", "- slurm", SLURM),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for words, run, count in [
        (["-cn", "sizes"], "recall-10,dqn,ema,budget.train_episodes=600,seed=2 ", 6),
        (
            ["-m", "+experiment=first", "hydra/launcher=mycluster"],
            "recall-10,dqn,ema,batch_size=32,budget.train_",
            1,
        ),
    ]:
        process = launch("-cd", "my_conf", *words, "hydra.launcher.dry_run=true")
        assert process.wait() == 0, process.output
        assert run in process.out
        assert f"to start: {count}\n" in process.out
    assert "#SBATCH --partition=gpu\n" in process.out


def test_your_own_environment(tmp_path, launch):
    page = (ROOT / "docs" / "environments.md").read_text()
    files = {
        "mylab/__init__.py": "",
        "mylab/envs.py": block("python", "class Delay", page),
        "my_conf/env/delay.yaml": block("yaml", "name: delay", page),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    sweep = ["-m", "-cd", "my_conf", "env=delay", "sweep=delay"]
    tiny = ["device=cpu", "budget=smoke", "budget.train_episodes=3", "algo.hidden_dims=[8]"]
    tiny += ["batch_size=4", "updates_per_step=0.1"]
    process = launch(*sweep, "env.length=3,6", *tiny)
    assert process.wait() == 0, process.output
    for n in (3, 6):
        (folder,) = tmp_path.glob(f"outputs/delay/delay-{n},*")
        with open(folder / "eval.csv") as file:
            for row in csv.DictReader(file):
                assert 2 <= float(row["eval/length"]) <= n
                assert row["eval/success"] == row["eval/return"]
    assert (tmp_path / "outputs" / "delay" / "lengths.png").exists()


def test_your_own_sequence_model_obeys_the_law():
    namespace = {}
    exec(block("python", "class Ema", MODEL), namespace)
    model, x = namespace["Ema"](input_dim=3, decay=0.8), torch.randn(6, 2, 3)
    state, outputs = model.initial_state(2), []
    for part in x.split([1, 3, 2]):
        y, state = model(part, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs), model(x)[0])


def test_gymnasium_lines():
    namespace = {}
    exec(block("python", "import memrl.envs", TASK), namespace)
    assert namespace["env"].unwrapped.horizon == 51
    assert namespace["room"].unwrapped.vec.player.tolist() == [[4, 3]]
    assert namespace["picture"].ndim == 3
    assert isinstance(namespace["envs"], gymnasium.vector.VectorEnv)
    assert (namespace["obs"] == 0).all()  # an Active T-Maze begins beside its oracle


def test_your_own_task_as_a_gymnasium_environment():
    """A task needs to know nothing of single environments and of autoreset to be registered."""
    namespace = {}
    exec(block("python", "class RecallVec", TASK), namespace)
    single = single_class("Recall", __name__, namespace["RecallVec"])
    with warnings.catch_warnings(action="error"):
        check_env(single(length=3), skip_render_check=True)
    envs = make_autoreset(namespace["RecallVec"], num_envs=4, length=3)
    obs, _ = envs.reset(seed=0)
    bit = obs[:, 0]
    for step in range(1, 12):  # every fourth step resets
        bit = obs[:, 0] if obs.any() else bit
        obs, reward, terminated, _, _ = envs.step((bit > 0).astype(int))
        assert obs.all() == (step % 4 == 0)
        assert reward.all() == terminated.all() == (step % 4 == 3)


def test_lines_of_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    lines = block("python", "memrl.train", NOTEBOOK).replace("budget=quick", "budget=smoke")
    exec(
        lines.replace('"seed=1"', '"seed=1", "budget.train_episodes=2", "batch_size=4"'), namespace
    )
    assert namespace["run"].state == "done" and namespace["obs"].shape == (1, 2)
    *_, printed = capsys.readouterr().out.splitlines()
    assert printed.startswith("<Run tmaze_passive-5,dqn,lstm,") and len(printed) <= 100


def test_the_two_commands_are_one_line_each_and_make_and_ci_repeat_them():
    lines = [line.strip() for line in README.splitlines() if line.startswith("    python3 -m venv")]
    assert lines == [
        "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e . "
        "&& .venv/bin/python run.py",
        "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[test]' "
        "&& .venv/bin/python -m pytest -n 2",
    ]
    assert "constraints.txt -e '.[test]'" in MAKEFILE
    assert "-m pytest -n 2" in MAKEFILE and "-m pytest -n 2" in (ROOT / ".ci" / "run").read_text()


def test_the_page_on_slurm_lists_every_key_and_state():
    page = (ROOT / "docs" / "slurm.md").read_text()
    keys = OmegaConf.load(ROOT / "conf" / "hydra" / "launcher" / "slurm.yaml").keys() - {"_target_"}
    rows = re.findall(r"^\| (`[^|]*) \|", page, re.M)
    listed = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row)]
    assert sorted(keys) == sorted(name for name in listed if name in keys)
    assert {*State} <= {*listed}


def test_the_page_on_memories_lists_every_key_of_every_model():
    page = (ROOT / "docs" / "memories.md").read_text()
    table = re.search(r"\| under `seq_model.` \|\n.*\n((?:\|.*\n)*)", page)[1]
    listed = {}
    for models, keys in re.findall(r"^\| (.*) \| `(.*)` \|$", table, re.M):
        listed |= dict.fromkeys(
            re.findall(r"`(\w+)`", models), OmegaConf.from_dotlist(keys.split())
        )
    for path in (ROOT / "conf" / "seq_model").glob("*.yaml"):
        options = compose_quickly([f"seq_model={path.stem}"]).seq_model
        assert listed.pop(path.stem) == {
            key: value for key, value in options.items() if key not in ("name", "_target_", "cell")
        }
    assert not listed


def test_map_of_the_code_names_files_that_exist():
    names = re.findall(
        r"^    ([\w./, ]+?)  +\S",
        (DOCS / "contributing.md").read_text().split("## A map of the code")[1],
        re.M,
    )
    assert names
    for name in ", ".join(names).split(", "):
        assert (ROOT / name).exists(), name
