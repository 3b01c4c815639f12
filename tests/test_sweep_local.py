"""Sweeps on one machine: several runs at a time, each in a process of its own, which may die."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Process, at, wait_until
from test_run import assert_ended_like, status, table, tiny, weights

from memrl.__main__ import main
from memrl.sweep import pool

Launch = Callable[..., Process]

TINY = tiny("lstm")
SERIAL = ("-m", *TINY, "sweep=runs")
LOCAL = (*SERIAL, "hydra/launcher=local")
FORKED = (*LOCAL, "hydra.launcher.snapshot=false")  # forks have imported the code that is here
SWEEP = Path("outputs", "runs")

HOOK = """\
import json, os, sys
index = sys.orig_argv[-1] if "memrl.sweep.child" in sys.orig_argv else None
if index is not None:
    folder = os.path.dirname(__file__)
    with open("/proc/self/stat") as file:
        started = file.read().rpartition(")")[2].split()[19]
    with open(f"{folder}/seen.txt", "a") as file:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        file.write(f"{index} {os.getpid()} {started} {gpu}\\n")
    with open(f"{folder}/plan.json") as file:
        nth, signum = json.load(file).get(index, (-1, 0))
    if nth == 0:
        os.kill(os.getpid(), signum)
    seen = 0
    def count(event, arguments):
        global seen
        if event == "open" and str(arguments[0]).endswith("/train.csv"):
            seen += 1
            if seen == nth:
                os.kill(os.getpid(), signum)
    sys.addaudithook(count)
"""


def process_of(pid: int, started: str) -> psutil.Process | None:
    """Return a run's process if it lives; nobody may have waited for one that is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return None
    same = stat.rpartition(")")[2].split()[19] == started  # the number may be another one's now
    return process if same and not dead else None


class Children:
    """The processes of a sweep's runs; they are told apart by their place in the submission.

    Python runs the file ``sitecustomize.py`` of ``PYTHONPATH`` first: it notes each process, and
    sends it a signal just before it opens ``train.csv`` for the n-th time; 0 is at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HOOK)
        self.seen = 0
        self.plan({})

    def plan(self, signals: dict[int, tuple[int, int]]) -> None:
        """Set what the processes that start from now on will meet: index -> n-th time, signal."""
        (self.folder / "plan.json").write_text(json.dumps(signals))

    def all(self) -> list[list[str]]:
        """Index, process, its start and its GPUs, of all that ever started, in order."""
        path = self.folder / "seen.txt"
        return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []

    def new(self) -> list[tuple[int, str]]:
        """Index and GPUs of those that started since this was asked last, sorted."""
        found = self.all()[self.seen :]
        self.seen += len(found)
        return sorted((int(index), gpu) for index, _, _, gpu in found)

    def alive(self) -> dict[int, psutil.Process]:
        """Return the processes that have not ended, by index."""
        there = [(int(n), process_of(int(pid), started)) for n, pid, started, _ in self.all()]
        return {n: process for n, process in there if process}

    def paused(self, count: int, process: Process) -> dict[int, psutil.Process]:
        """Return the processes that have stopped at their signal, by index: so many, no fewer."""

        def found() -> dict[int, psutil.Process]:
            time.sleep(0.02)  # to leave the processor to them
            return {n: p for n, p in self.alive().items() if p.status() == psutil.STATUS_STOPPED}

        wait_until(lambda: len(found()) == count, process)
        return found()


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    monkeypatch.setattr(pool, "CANCELLED_POLL_S", pool.POLL_S)  # nobody else reads that file
    made = Children(tmp_path / "hook")
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(made.folder), before])))
    yield made
    for _, pid, started, _ in made.all():  # several may have the same index
        if process := process_of(int(pid), started):
            process.kill()


def has_signal(process: psutil.Process, signum: int) -> bool:
    """Tell whether a signal waits for a stopped process to go on."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
    )
    return bool(int(fields["ShdPnd"], 16) >> (signum - 1) & 1)


def command(launch: Launch, *arguments: str) -> Process:
    """``python -m memrl sweep``, in a fork; it has ended."""
    process = launch(first=lambda: main(["sweep", *arguments]))
    process.wait()
    return process


def states(launch: Launch) -> dict[str, str]:
    """What ``status --json`` says, by the last part of the name."""
    process = command(launch, "status", "--json", str(SWEEP))
    assert (process.wait(), process.err) == (0, "")
    said = json.loads(process.out)
    found = {run["run"].rpartition(",")[2]: run["state"] for run in said["runs"]}
    assert len(found) == len(said["runs"]) == sum(said["counts"].values())
    return found


def folders(cwd: Path) -> dict[str, Path]:
    """The runs' folders by the last part of the name, the seed."""
    return {path.name.rpartition(",")[2]: path for path in cwd.glob("outputs/runs/tmaze*/")}


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same runs without any of this, by their names."""
    cwd = tmp_path_factory.mktemp("one_by_one")
    for argument in ("seed=0", "seed=1", "algo.lr=1e-3"):
        process = Process((*TINY, argument), cwd, composed=True)
        assert process.wait() == 0, process.output
    return {path.name: path for path in cwd.glob("outputs/runs/tmaze*/")}


def assert_all_like(cwd: Path, one_by_one: dict[str, Path], count: int) -> None:
    found = list(cwd.glob("outputs/runs/tmaze*/"))
    assert len(found) == count
    for folder in found:
        assert_ended_like(folder, one_by_one[folder.name])


# --- runs that fail ------------------------------------------------------------------------------


@pytest.mark.usefixtures("forked_runs")
def test_one_that_fails_or_dies_leaves_the_others_alone_and_only_a_failed_one_waits_for_a_retry(
    children: Children,
    launch: Launch,
    tmp_path: Path,
    one_by_one: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    sweep = (*FORKED, "algo.lr=1e30,3e-4,1e-3")
    children.plan({2: (0, signal.SIGKILL)})  # before it has a folder
    first = launch(*sweep)
    assert first.wait() == 1, first.output
    assert "outputs/runs: 3 runs (3 missing); to start: 3" in first.out
    assert "outputs/runs: 3 runs (1 done, 1 failed, 1 lost)" in first.out
    good, failed = sorted(
        tmp_path.glob("outputs/runs/tmaze*/"), key=lambda path: status(path)["state"]
    )[:2]
    assert_ended_like(good, one_by_one[good.name])
    cause = status(failed)["cause"]
    assert "is nan at env step 60" in cause
    assert "2 of 3 runs are not done:\n" in first.err
    assert f"  {failed.name}: failed: {cause}\n" in first.err
    assert f"  error: {cause}" in first.err.splitlines()  # what it printed, where it was issued
    assert "Traceback" not in first.output

    # GPUs are dealt out round-robin, in the order of starts.
    assert children.new() == [(0, "4"), (1, "7"), (2, "4")]

    children.plan({})
    again = launch(*sweep)
    assert again.wait() == 1
    assert "outputs/runs: 3 runs (1 done, 1 failed, 1 lost); to start: 1\n" in again.out
    assert "hydra.launcher.retry_failed=true" in again.out
    assert again.err.endswith(f"1 of 3 runs are not done:\n  {failed.name}: failed: {cause}\n")
    assert [index for index, _ in children.new()] == [0]  # of a submission of its own
    runs = list(tmp_path.glob("outputs/runs/tmaze*/"))
    others = [path for path in runs if path != failed]
    assert len(others) == 2
    for folder in others:
        assert_ended_like(folder, one_by_one[folder.name])

    with open(tmp_path / SWEEP / "runs.csv", newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {path.name for path in runs}
    assert {rows[path.name]["state"] for path in others} == {"done"}
    assert (rows[failed.name]["state"], rows[failed.name]["cause"]) == ("failed", cause)
    assert (tmp_path / SWEEP / "lengths.png").read_bytes().startswith(b"\x89PNG")

    children.plan({0: (0, signal.SIGKILL)})  # that it is started is enough
    retried = command(launch, "retry", str(SWEEP))
    assert retried.wait() == 1
    assert "to start: 1\n" in retried.out
    assert [index for index, _ in children.new()] == [0]
    typed = f"python run.py {shlex.join(sweep)}"
    assert {status(path)["command"] for path in runs} == {typed}


CRASHING = """\
import faulthandler, os, signal
faulthandler.disable()  # pytest's, which would print
def crash(code):
    os.kill(os.getpid(), signal.SIGSEGV)
os._exit = crash  # which is how a fork ends
"""
LOGGER = """\
class FailsToClose:
    def write(self, table, row):
        pass
    def close(self, exit_code):
        raise RuntimeError("no network")
"""


@pytest.mark.usefixtures("forked_runs")
@pytest.mark.parametrize("launcher", ["local", "serial"])
def test_a_run_that_is_done_stays_done_whatever_fails_afterwards(
    launcher: str,
    launch: Launch,
    tmp_path: Path,
    one_by_one: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A logger that cannot close, and native code that crashes as the interpreter exits."""
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    (tmp_path / "failing_logger.py").write_text(LOGGER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    logger = "logger._target_=failing_logger.FailsToClose"
    local = [*FORKED, logger] if launcher == "local" else [*SERIAL, logger]
    process = launch(*local)
    assert process.wait() == 0, process.output
    assert_all_like(tmp_path, one_by_one, 1)
    (folder,) = folders(tmp_path).values()
    warnings = ["the logger failed to close: RuntimeError: no network"]
    assert warnings[0] in (folder / "run.log").read_text()
    if launcher == "local":
        name = folder.relative_to(tmp_path)
        warnings = [f"warning: {name} is done, although its process ended badly: killed by SIGSEGV"]
    assert all(line in process.output for line in warnings)
    assert states(launch) == {"seed=0": "done"}


def test_a_run_that_cannot_begin_has_failed_each_time(launch: Launch) -> None:
    """Here for want of a GPU, which is found out before the run has a status."""
    sweep = (*LOCAL, "device=cuda", "hydra.launcher.retry_failed=true")
    for launcher, count in (("local", "1 missing"), ("serial", "1 failed")):
        process = launch(*sweep, f"hydra/launcher={launcher}")
        assert process.wait() == 1, process.output
        assert f"outputs/runs: 1 run ({count}); to start: 1\n" in process.out
        assert "there is no CUDA device here" in process.err
        assert states(launch) == {"seed=0": "failed"}


def test_a_failure_that_cannot_be_recorded_fails_the_sweep(launch: Launch, tmp_path: Path) -> None:
    """A file is in the place of its folder."""
    sweep = (*LOCAL, "hydra/launcher=serial")
    planned = launch(*sweep, "hydra.launcher.dry_run=true")
    assert planned.wait() == 0, planned.output
    (name,) = re.findall(r"tmaze\S+,seed=\d+", planned.out)
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    (tmp_path / "outputs" / "runs" / name).touch()
    process = launch(*sweep)
    assert process.wait() == 1, process.output


# --- results elsewhere ---------------------------------------------------------------------------


@pytest.mark.usefixtures("forked_runs")
def test_a_sweep_without_a_name_grows_and_its_results_may_be_moved(
    launch: Launch,
    tmp_path: Path,
    one_by_one: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, scratch, larger = (tmp_path / name for name in ("here", "scratch", "larger"))
    here.mkdir()
    sweep = (*FORKED, "sweep=null")
    first = launch(*sweep, "seed=0", f"outputs={scratch}", cwd=here)
    assert first.wait() == 0, first.output
    monkeypatch.setenv("MEMRL_OUTPUTS", "../scratch")
    grown = launch("-m", "seed=0,1", *sweep[:0:-1], "sweep=null", cwd=here)
    assert grown.wait() == 0, grown.output
    (folder,) = scratch.iterdir()
    assert f"../scratch/{folder.name}: 2 runs (1 missing, 1 done); to start: 1\n" in grown.out
    assert "budget=smoke" in folder.name and folder.name.split(",").count("seed") == 1
    for run in folder.glob("tmaze*/"):
        assert_ended_like(run, one_by_one[run.name])

    scratch.rename(larger)
    next((larger / folder.name).glob("tmaze*seed=1/agent.pt")).unlink()
    next((larger / folder.name).glob("tmaze*seed=1/status.json")).unlink()
    retried = command(launch, "retry", str(larger / folder.name))
    assert retried.wait() == 0, retried.output
    assert f"{larger / folder.name}: 2 runs (1 done, 1 stopped); to start: 1\n" in retried.out
    monkeypatch.setenv("MEMRL_OUTPUTS", str(larger))
    listed = command(launch, "status")
    assert listed.out.splitlines()[1].split()[:3] == [f"larger/{folder.name}", "2", "100%"]
    assert list(here.iterdir()) == []


# --- interruptions -------------------------------------------------------------------------------


@pytest.mark.usefixtures("forked_runs")
def test_whatever_is_killed_the_same_command_goes_on_and_ends_as_if_nothing_had_happened(
    children: Children, launch: Launch, tmp_path: Path, one_by_one: dict[str, Path]
) -> None:
    sweep = (*FORKED, "hydra.launcher.n_jobs=1", "seed=0,1")

    # Ctrl-C, while one of two is at work.
    children.plan({0: (5, signal.SIGSTOP)})
    driver = launch(*sweep)
    paused = children.paused(1, driver)
    assert states(launch) == {"seed=0": "running", "seed=1": "queued"}
    driver.send(signal.SIGINT)
    wait_until(lambda: has_signal(paused[0], signal.SIGTERM), driver)
    paused[0].resume()
    assert driver.wait() == 130
    assert "stopped by SIGINT; the same command continues this sweep\n" in driver.err
    assert "Traceback" not in driver.output
    (folder,) = folders(tmp_path).values()
    assert status(folder)["cause"] == "stopped by SIGTERM"
    assert (folder / "checkpoint.pt").exists()
    assert states(launch) == {"seed=0": "stopped", "seed=1": "stopped"}
    assert [index for index, _ in children.new()] == [0]

    # One is killed, then another one starts, then the command itself is killed.
    children.plan({0: (2, signal.SIGKILL), 1: (3, signal.SIGSTOP)})
    driver = launch(*sweep)
    paused = children.paused(1, driver)
    assert paused.keys() == {1}
    assert driver.kill() == -signal.SIGKILL
    assert states(launch) == {"seed=0": "lost", "seed=1": "running"}
    assert status(folders(tmp_path)["seed=0"])["cause"].startswith("killed by SIGKILL")
    assert [index for index, _ in children.new()] == [0, 1]

    # One that goes on without it is left alone; the launcher may be another one.
    driver = launch(*SERIAL, "seed=0,1")
    assert driver.wait() == 3, driver.output  # one is going on elsewhere
    assert "outputs/runs: 2 runs (1 running, 1 lost); to start: 1\n" in driver.out
    assert states(launch) == {"seed=0": "done", "seed=1": "running"}
    paused[1].resume()
    found = folders(tmp_path).values()
    wait_until(lambda: not any((folder / "lock").exists() for folder in found))

    last = launch(*sweep)
    assert last.wait() == 0
    assert "outputs/runs: 2 runs (2 done); to start: 0\n" in last.out
    assert children.new() == []
    assert_all_like(tmp_path, one_by_one, 2)
    attempts = {seed: status(path)["attempt"] for seed, path in folders(tmp_path).items()}
    assert attempts == {"seed=0": 3, "seed=1": 1}


def test_a_signal_before_any_run_has_begun_leaves_nothing_half_done(
    children: Children, launch: Launch, tmp_path: Path
) -> None:
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGUSR2, 75), (signal.SIGHUP, 129)):
        before = len(children.all())
        driver = launch(*LOCAL, "seed=0,1")
        wait_until(lambda before=before: len(children.all()) == before + 2, driver)
        driver.send(signum)
        assert driver.wait() == code, driver.output
        assert f"stopped by {signum.name}; the same command continues this sweep\n" in driver.err
        assert "Traceback" not in driver.output
        assert states(launch) == {"seed=0": "stopped", "seed=1": "stopped"}
        assert list(tmp_path.glob("outputs/runs/tmaze*")) == []
        assert not children.alive()


SWALLOWING = """\
import os, signal, sys
class Finder:
    def find_spec(name, *_):
        if name == "memrl.experiment":
            try:
                os.kill(os.getpid(), signal.SIGUSR2)
            except BaseException as error:
                raise ImportError(str(error))
sys.meta_path.insert(0, Finder)
"""


def test_a_signal_amid_an_import_that_swallows_exceptions_ends_a_run(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SWALLOWING)
    command = [sys.executable, "-m", "memrl.sweep.child", str(tmp_path), "0"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGUSR2, done.stderr


def test_a_second_ctrl_c_does_not_wait(children: Children, launch: Launch) -> None:
    children.plan({0: (0, signal.SIGSTOP), 1: (0, signal.SIGSTOP)})
    driver = launch(*LOCAL, "seed=0,1")
    paused = children.paused(2, driver)
    driver.send(signal.SIGINT)
    wait_until(lambda: all(has_signal(p, signal.SIGTERM) for p in paused.values()), driver)
    assert driver.poll() is None
    driver.send(signal.SIGINT)
    assert driver.wait() == 130, driver.output
    assert driver.err.endswith("error: interrupted\n") and "Traceback" not in driver.output
    wait_until(lambda: not children.alive())
    assert states(launch) == {"seed=0": "stopped", "seed=1": "stopped"}


@pytest.mark.usefixtures("forked_runs")
def test_two_commands_at_once_do_every_run_once(
    children: Children, launch: Launch, tmp_path: Path, one_by_one: dict[str, Path]
) -> None:
    # It has found both due.
    slow = launch(*FORKED, "seed=0,1", first=at("rename runs.jsonl", signal.SIGSTOP))
    slow.wait_paused()
    # One run after the other, in the process of the command.
    quick = launch(*SERIAL, "seed=1,0", first=at("rename learning_curve.png", signal.SIGSTOP, 2))
    quick.wait_paused()
    slow.send(signal.SIGCONT)
    assert slow.wait() == 3, slow.output
    assert "queued or running elsewhere: 1 of 2 runs; python -m memrl sweep" in slow.out
    assert len(children.all()) == 2
    assert states(launch) == {"seed=0": "running", "seed=1": "done"}
    quick.send(signal.SIGCONT)
    assert quick.wait() == 0, quick.output
    assert (slow.err, quick.err) == ("", "")  # to find a run at work elsewhere is no failure
    assert_all_like(tmp_path, one_by_one, 2)
    assert {status(folder)["attempt"] for folder in folders(tmp_path).values()} == {1}
    one, other = folders(tmp_path).values()
    assert table(one, "train.csv") != table(other, "train.csv")
    assert weights(one) != weights(other)


# --- cancelled, and retried ----------------------------------------------------------------------


@pytest.mark.usefixtures("forked_runs")
def test_what_is_cancelled_saves_and_ends_and_can_be_continued(
    children: Children, launch: Launch, tmp_path: Path, one_by_one: dict[str, Path]
) -> None:
    children.plan({0: (6, signal.SIGSTOP)})
    driver = launch(*FORKED, "hydra.launcher.n_jobs=1", "seed=0,1")
    paused = children.paused(1, driver)
    waiting = command(launch, "cancel", str(SWEEP), "seed=1")
    assert (waiting.wait(), waiting.out.split(";")[0]) == (0, "cancelled 1 run")
    assert states(launch) == {"seed=0": "running", "seed=1": "cancelled"}
    everything = command(launch, "cancel", str(SWEEP))
    assert (everything.wait(), everything.out.split(";")[0]) == (0, "cancelled 1 run")
    wait_until(lambda: has_signal(paused[0], signal.SIGTERM), driver)
    paused[0].resume()
    assert driver.wait() == 1, driver.output
    assert states(launch) == {"seed=0": "cancelled", "seed=1": "cancelled"}
    assert "2 of 2 runs are not done:" in driver.err
    assert (folders(tmp_path)["seed=0"] / "checkpoint.pt").exists()
    assert len(children.new()) == 1  # the other one never began

    again = launch(*SERIAL, "seed=0,1")
    assert again.wait() == 0, again.output
    assert "to start: 2\n" in again.out and "continuing at env step" in again.out
    assert_all_like(tmp_path, one_by_one, 2)


def test_a_run_that_is_cancelled_while_it_starts_does_not_begin(
    children: Children, launch: Launch, tmp_path: Path
) -> None:
    """Python imports for seconds before there is a lock that says whose the run is."""
    children.plan({0: (0, signal.SIGSTOP)})
    driver = launch(*LOCAL, "hydra.launcher.n_jobs=1", "seed=0,1")
    paused = children.paused(1, driver)
    assert command(launch, "cancel", str(SWEEP)).wait() == 0
    wait_until(lambda: has_signal(paused[0], signal.SIGTERM), driver)
    paused[0].resume()
    assert driver.wait() == 1, driver.output
    assert states(launch) == {"seed=0": "cancelled", "seed=1": "cancelled"}
    assert list(tmp_path.glob("outputs/runs/tmaze*")) == []
    assert len(children.all()) == 1
