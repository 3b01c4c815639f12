"""What was submitted is what runs: a copy of the code, made when the sweep is issued."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, Process, wait_until
from made import make_config
from test_run import status, tiny

from memrl.__main__ import main
from memrl.run import import_path
from memrl.run.outcome import ConfigError
from memrl.sweep import snapshot
from memrl.sweep.launch import launch as launch_runs
from memrl.sweep.launchers import Local
from memrl.sweep.snapshot import describe, label, take
from memrl.sweep.submissions import Run

Launch = Callable[..., Process]

COPIED = ("memrl", "conf", "hydra_plugins", "sweeps", "run.py", "pyproject.toml")


def git(project: Path, *arguments: str) -> str:
    command = ["git", "-C", str(project), "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def work_on(folder: Path, with_git: bool) -> None:
    """Make a copy of this project, as somebody works on it."""
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder / name)
    not_code = ["tests/test_it.py", "docs/conf.py", "benchmarks/b.py", "outputs/runs/r/config.yaml"]
    for name in [*not_code, ".venv/bin/python", ".venv/lib/x.py", "env/bin/python", "env/lib/y.py"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x = 1\n")
    if with_git:
        (folder / ".gitignore").write_text("outputs/*\n.venv/\n/env/\n__pycache__/\n")
        git(folder, "init", "--quiet")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", "all")


@pytest.fixture(autouse=True)
def no_folders_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_path, "_added", [])


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the project will be; sweeps are issued in a folder beside it."""
    folder = tmp_path / "project"
    monkeypatch.setattr(snapshot, "ROOT", folder)  # what it is where the copy's own code runs
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.fixture(params=[True, False], ids=["git", "no git"])
def project(request: pytest.FixtureRequest, work: Path) -> Path:
    work_on(work, request.param)
    return work


@pytest.fixture
def with_git(work: Path) -> Path:
    work_on(work, True)
    return work


@pytest.fixture
def without_git(work: Path) -> Path:
    work_on(work, False)
    return work


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_snapshot_is_the_code_and_nothing_else(project: Path) -> None:
    taken = take()
    code = {name for name in files(project) if name.split("/")[0] in COPIED}
    assert len(code) > 50
    assert files(taken) == code
    for name in code:
        assert (taken / name).read_bytes() == (project / name).read_bytes()
    assert taken.parent == Path.cwd() / "outputs" / ".snapshots"


def test_the_same_code_has_one_copy(project: Path) -> None:
    first = take()
    for name in ("tests/test_it.py", "docs/conf.py", "benchmarks/b.py", "outputs/runs/new.py"):
        (project / name).write_text("y = 2\n")
    for path in project.rglob("*.yaml"):
        os.utime(path, (1, 1))
    assert take() == first
    assert [path.name for path in first.parent.iterdir()] == [first.name]


EDITS = {
    "a file changed": lambda project: (project / "memrl/trainer.py").write_text("x = 1\n"),
    "a file added": lambda project: (project / "memrl/envs/mine.py").write_text(""),
    "a file removed": lambda project: (project / "memrl/algos/graphs.py").unlink(),
    "a file renamed": lambda project: (project / "conf/env/tmaze.yaml").rename(
        project / "conf/env/maze.yaml"
    ),
    "a config changed": lambda project: (project / "conf/config.yaml").write_text("seed: 1\n"),
}


def test_other_code_has_another_copy_and_the_old_one_stays(project: Path) -> None:
    before = take()
    content = {name: (before / name).read_bytes() for name in files(before)}
    kept = project.parent / "kept"
    shutil.copytree(project, kept)
    for copies, (what, edit) in enumerate(EDITS.items(), start=2):
        edit(project)
        after = take()
        assert after != before, what
        assert files(after) == {n for n in files(project) if n.split("/")[0] in COPIED}, what
        assert {name: (before / name).read_bytes() for name in files(before)} == content, what

        shutil.rmtree(project)
        shutil.copytree(kept, project)  # and back again
        assert take() == before, what
        assert len(list(before.parent.iterdir())) == copies, what


def test_data_that_lies_in_the_code_is_not_copied(project: Path) -> None:
    with open(project / "memrl" / "data.yaml", "wb") as file:
        file.truncate(snapshot.MAX_BYTES + 1)
    assert "memrl/data.yaml" not in files(take())


@pytest.mark.parametrize("repository", ["none", "tracks all", "ignores memrl"])
def test_of_an_installed_memrl_only_its_own_files_are_copied(
    repository: str, without_git: Path
) -> None:
    """All other packages lie beside it; the folder may be in a repository that is not memrl's."""
    own = {name for name in files(without_git) if name.split("/")[0] in COPIED}
    others = ["torch/nn.py", "setup.py", "memrl/__pycache__/trainer.cpython-311.pyc"]
    for name in [*others, "hydra_plugins/other/launcher.py"]:
        (without_git / name).parent.mkdir(exist_ok=True)
        (without_git / name).write_text("")
    if repository == "ignores memrl":
        (without_git / ".gitignore").write_text("/memrl/\n")
    else:  # as pip leaves it
        (without_git / "memrl-0.1.0.dist-info").mkdir()
    if repository != "none":
        git(without_git, "init", "--quiet")
        git(without_git, "add", ".")
        git(without_git, "commit", "--quiet", "-m", "environment")
    assert files(take()) == own
    if repository == "tracks all":
        assert describe()["commit"] is None


def test_what_git_is_told_to_ignore_is_not_copied(with_git: Path) -> None:
    with open(with_git / ".gitignore", "a") as file:
        file.write("secret.py\n")
    for name in ("secret.py", "public.py", "weights.bin"):
        (with_git / "memrl" / name).write_text("")
    found = files(take())
    assert "memrl/secret.py" not in found
    assert {"memrl/public.py", "memrl/weights.bin"} <= found


def test_what_was_purged_from_a_copy_is_put_back(project: Path) -> None:
    taken = take()
    whole = {name: (taken / name).read_bytes() for name in files(taken)}
    for name in ("memrl/trainer.py", "run.py"):
        (taken / name).unlink()
    assert take() == taken
    assert {name: (taken / name).read_bytes() for name in files(taken)} == whole


def test_several_at_once_make_one_copy(project: Path) -> None:
    code = "import sys; from pathlib import Path; from memrl.sweep import snapshot as s; "
    code += "s.ROOT = Path(sys.argv[1]); print(s.take())"
    command = [sys.executable, "-c", code, str(project)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    printed = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    taken = take()
    assert printed == {str(taken)}
    assert [path.name for path in taken.parent.iterdir()] == [taken.name]


def test_code_is_described_by_its_commit_and_what_was_changed_since(with_git: Path) -> None:
    commit = git(with_git, "rev-parse", "HEAD")
    clean = describe()
    assert (clean["commit"], clean["changed"], clean["diff"]) == (commit, False, "")
    assert label(clean | {"snapshot": "5af3"}) == commit[:10]
    with open(with_git / "memrl" / "trainer.py", "a") as file:
        file.write("# a thought\n")
    changed = describe()
    assert (changed["commit"], changed["changed"]) == (commit, True)
    assert "+# a thought" in changed["diff"]
    assert label(changed | {"snapshot": "5af3"}) == f"{commit[:10]}+5af3"
    assert label(changed) == f"{commit[:10]}+changes"
    git(with_git, "checkout", "--quiet", ".")
    (with_git / "memrl" / "new.py").write_text("")
    assert describe()["changed"]


def test_results_in_the_code_are_no_code(with_git: Path) -> None:
    before, results = take(write=False), with_git / "my results"
    assert not before.exists() and take() == before and before.exists()
    (results / "s").mkdir(parents=True)
    (results / "s" / "new.py").write_text("")
    after = take(results)
    assert after.parent == results / ".snapshots" and after.name == before.name
    assert take(results) == after
    assert describe(results)["changed"] is False and describe()["changed"]


def test_code_without_git_is_described_by_its_copy(without_git: Path) -> None:
    assert describe()["commit"] is None
    assert label(describe() | {"snapshot": "5af3"}) == "5af3"
    git(without_git.parent, "init", "--quiet")  # a repository that it merely lies in
    assert describe()["commit"] is None


@pytest.mark.parametrize("tracked", [True, False], ids=["git", "no git"])
def test_of_a_users_packages_all_modules_and_what_git_tracks_is_copied(
    tracked: bool, with_git: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path.cwd()
    modules = ["own_pkg/__init__.py", "own_pkg/deep/model.py", "own_pkg/_version.py", "own_file.py"]
    others = ["own_pkg/sizes.yaml", "own_pkg/weights.npz", "own_pkg/outputs/r/eval.csv", "notes.py"]
    for name in [*modules, *others, "own_pkg/.cache/x.py", "types.py"]:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("")
    if tracked:
        (here / ".gitignore").write_text("_version.py\n*.npz\noutputs\n")
        git(here, "init", "--quiet")
        git(here, "add", ".")
        git(here, "commit", "--quiet", "-m", "all")
    assert snapshot.take_packages() is None
    monkeypatch.syspath_prepend(here)
    monkeypatch.setattr(import_path, "_added", [str(here)])
    for name in ("own_pkg", "own_file"):
        importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    folder = snapshot.take_packages()
    assert folder is not None
    assert files(folder) == {*modules, others[0], *([] if tracked else others[1:2])}
    assert snapshot.take_packages() == folder
    commit = git(here, "rev-parse", "HEAD") if tracked else None
    state = {"commit": commit, "changed": False if tracked else None}
    assert describe()["packages"] == {"own_file": state, "own_pkg": state}
    monkeypatch.setattr(snapshot, "MAX_PACKAGES_BYTES", -1)
    before = files(here)
    run = Run(make_config(), here / "outputs" / "all" / "one")
    with pytest.raises(ConfigError, match="own_file, own_pkg have more than"):
        launch_runs([run], Local(retry_failed=False, dry_run=tracked, n_jobs=1, snapshot=True))
    assert files(here) == before


# --- runs ----------------------------------------------------------------------------------------

PAUSE = """\
import os, signal, sys
if "memrl.sweep.child" in sys.orig_argv:
    open(f"{os.path.dirname(__file__)}/{os.getpid()}.pid", "w").close()
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Runs stop before they import anything of memrl; return the process of the last that did."""
    folder = tmp_path / "pause"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PAUSE)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), before])))
    seen: set[int] = set()

    def pids() -> set[int]:
        return {int(path.stem) for path in folder.glob("*.pid")}

    def wait() -> int:
        wait_until(lambda: pids() - seen)
        (pid,) = pids() - seen
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        seen.add(pid)
        return pid

    yield wait
    for pid in pids():
        with contextlib.suppress(psutil.Error):  # it has ended
            process = psutil.Process(pid)
            if "memrl.sweep.child" in process.cmdline():
                process.kill()


OWN = "own_pkg.model.Own"
OWN_ENV = """\
defaults: [gym, _self_]
name: mine
module: own_envs
id: Mine-v0
length: 5
"""
REGISTERS = """\
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
gymnasium.register("Mine-v0", lambda length: CartPoleEnv(), max_episode_steps=5)
"""


def write_version(project: Path, version: str) -> None:
    (project / "memrl" / "__init__.py").write_text(f'__version__ = "{version}"\n')


@pytest.mark.processes
def test_runs_import_the_code_of_the_moment_when_they_were_issued(
    with_git: Path, paused: Callable[[], int], launch: Launch
) -> None:
    cwd = Path.cwd()
    local = ("hydra/launcher=local", "sweep=code")
    (cwd / "own_pkg").mkdir()
    (cwd / "own_pkg" / "model.py").write_text(
        "from memrl.seq_models.rnn import Recurrent\n\n\nclass Own(Recurrent): ...\n"
    )
    (cwd / "my_conf" / "seq_model").mkdir(parents=True)
    text = (with_git / "conf" / "seq_model" / "lstm.yaml").read_text()
    text = text.replace("name: lstm", "name: own").replace("memrl.seq_models.rnn.Recurrent", OWN)
    (cwd / "my_conf" / "seq_model" / "own.yaml").write_text(text)
    (cwd / "own_envs.py").write_text(REGISTERS)
    (cwd / "my_conf" / "env").mkdir()
    (cwd / "my_conf" / "env" / "mine.yaml").write_text(OWN_ENV)
    words = tiny("lstm", "budget.train_episodes=2")
    sweep = ("-m", "-cd", "my_conf", *words, *local, "seq_model=own", "env=mine")
    write_version(with_git, "1.1")
    git(with_git, "commit", "--quiet", "-am", "1.1")
    commit = git(with_git, "rev-parse", "HEAD")[:10]

    first = launch(*sweep, "seed=0", cwd=cwd)
    children = [paused()]
    write_version(with_git, "1.2")
    second = launch(*sweep, "seed=0,1", cwd=cwd)
    children.append(paused())
    tree = take().name
    own_files = (cwd / "own_pkg" / "model.py", cwd / "own_envs.py")
    for edited in (with_git / "memrl" / "trainer.py", *own_files):
        edited.write_text("raise SystemExit('edited meanwhile')\n")
    for child in children:
        os.kill(child, signal.SIGCONT)
    assert first.wait() == 0, first.output
    assert second.wait() in (0, 3), second.output  # the first may still be at work
    assert "1 queued" in second.out and "to start: 1\n" in second.out

    old, new = (status(path)["versions"] for path in sorted(cwd.glob("outputs/code/mine*/")))
    assert (old["memrl"], new["memrl"]) == ("1.1", "1.2")
    assert len(list(cwd.glob("outputs/.snapshots/*"))) == 3
    (model,) = cwd.glob("outputs/.snapshots/*/own_pkg/model.py")
    assert (model.parents[1] / "own_envs.py").read_text() == REGISTERS
    own = " and ".join(f"{name} {model.parents[1].name}" for name in ("own_envs", "own_pkg"))
    assert (old["code"], new["code"]) == (f"{commit} and {own}", f"{commit}+{tree} and {own}")

    said = launch(first=lambda: main(["sweep", "status", "outputs/code"]), cwd=cwd)
    assert said.wait() == 0
    note = said.out.splitlines()[-1]
    assert f"{commit} and {own} (1 run" in note and f"{commit}+{tree} and {own} (1 run" in note
    assert note in second.out
    records = [json.loads(p.read_text()) for p in cwd.glob("outputs/code/.submissions/*/*.json")]
    assert {record["code"]["snapshot"] for record in records} > {tree}
    (diff,) = cwd.glob("outputs/code/.submissions/*/changes.diff")
    assert '+__version__ = "1.2"' in diff.read_text()
