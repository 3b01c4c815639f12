"""Sweeps on a real SLURM of two nodes, started on this machine for these tests alone.

Run with ``pytest -m slurm``; the Debian packages that ``tests/slurm/up.sh`` names must be there.

Runs that are to be hit in the midst of their work are paused there by SIGSTOP, so that nothing
depends on how fast this machine is. SLURM itself sends SIGCONT with SIGTERM and with its warnings.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Process, at
from test_run import assert_ended_like, contents, run_in, status

from memrl.sweep.states import State, read_sweep
from memrl.sweep.submissions import Run

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

NEEDED = (
    *("munged", "mungekey", "slurmctld", "slurmd", "slurmdbd", "sbatch", "sacct"),
    *("mariadbd", "mariadb-install-db", "mariadb"),
)
DAEMONS = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PATIENCE_S = 120.0  # of every wait; far more than needed
SLURM = ("-m", "sweep=runs", "hydra/launcher=slurm", "hydra.launcher.timeout_min=20")
TINY = (
    *("device=cpu", "env.length=5", "batch_size=4", "algo.hidden_dims=[8]"),
    *("encoder.obs_dim=8", "encoder.action_dim=8", "budget=smoke"),
)
SHORT = (*TINY, "budget.train_episodes=10")
LONG = (*TINY, "budget.train_episodes=200", "budget.eval_every=50")  # to be paused
HELD = "+hydra.launcher.additional_parameters.hold=true"  # until it is released
ENDLESS = (*TINY, "budget.train_episodes=1000000", "budget.eval_every=50000")

Launch = Callable[..., Process]
Alone = Callable[..., Path]


# --- the cluster ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """The folder of a cluster of two nodes with two CPUs each, and arrays of at most four tasks."""
    missing = [name for name in NEEDED if not shutil.which(name, path=DAEMONS)]
    if missing:
        pytest.skip(f"no SLURM on this machine: {', '.join(missing)} missing")
    memory = os.access("/dev/shm", os.W_OK)
    folder = Path("/dev/shm" if memory else "/tmp", f"memrl-{os.getpid()}")  # sockets: a short path
    settings = {
        "SLURM_SANDBOX_PORT": os.environ.get("SLURM_SANDBOX_PORT") or str(free_port()),
        "SLURM_SANDBOX_NODES": "2",
        "SLURM_SANDBOX_CPUS": "2",
        "SLURM_SANDBOX_MAX_ARRAY_SIZE": "4",
    }
    scripts = ROOT / "tests" / "slurm"
    command = [sys.executable, scripts / "init.py", scripts / "up.sh", folder]
    with subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
            yield folder
        finally:
            subprocess.run([scripts / "down.sh", "--purge", folder], stdin=subprocess.DEVNULL)


def free_port() -> int:
    """Return the first of the ports that ``up.sh`` will use, none of them in use."""
    for first in range(17817 + 20 * (os.getpid() % 500), 60000, 20):
        try:
            for port in (first, first + 1, first + 11, first + 12):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    pytest.fail("no free port")


@pytest.fixture(autouse=True)
def here(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in the test's folder and with the cluster; leave no job behind."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", str(cluster / "etc" / "slurm.conf"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    slurm("scancel", "--user", str(os.getuid()))
    wait_for_all()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """The folder of a run done by ``python run.py`` in one go, without SLURM, by its arguments."""
    done: dict[tuple[str, ...], Path] = {}

    def folder_of(*arguments: str) -> Path:
        if arguments not in done:
            cwd = tmp_path_factory.mktemp("alone")
            process = Process(arguments, cwd)
            assert process.wait() == 0, process.output
            done[arguments] = run_in(cwd)
        return done[arguments]

    return folder_of


# --- what SLURM says -----------------------------------------------------------------------------


def slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.strip()


def job(job_id: str) -> dict[str, str]:
    """What SLURM knows of a job, of one that has ended too."""
    words = slurm("scontrol", "--oneliner", "show", "job", job_id).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def until(condition: Callable[[], Any], every: float = 0.1) -> Any:
    """Poll; return what the condition returns once that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            queue = slurm("squeue", "--array", "--states=all")
            pytest.fail(f"not within {PATIENCE_S} s\n{queue}\n{all_there_is_to_read()}")
        time.sleep(every)
    return value


def all_there_is_to_read() -> str:
    patterns = ("outputs/*/.submissions/*/*/*_log.out", "outputs/*/.submissions/*/log/*.txt")
    paths = [*Path().glob("*.out"), *(path for p in patterns for path in Path().glob(p))]
    lines = [f"{row.name}: {row.state} {row.cause}" for row in rows()]
    return "\n".join([*lines, *(f"--- {p}\n{p.read_text()[-2000:]}" for p in paths)])


def preempt() -> None:
    """Let a job that needs both nodes come first; it is short."""
    more = ("--nodes=2", "--exclusive", "--output=/dev/null")
    slurm("sbatch", "--partition=high", *more, "--wrap=sleep 1")


# --- what memrl says -----------------------------------------------------------------------------


def rows() -> list[Run]:
    """The runs of the only sweep here."""
    found = [path for path in Path("outputs").glob("[!.]*") if path.is_dir()]
    return read_sweep(found[0]).runs if found else []


def states() -> list[State]:
    return [row.state for row in rows()]


def wait_for_all() -> None:
    until(lambda: not slurm("squeue", "--noheader"))


def submissions() -> list[str]:
    return [path.parent.name for path in Path().glob("outputs/*/.submissions/*/submission.json")]


def issue(launch: Launch, *arguments: str, code: int = 0) -> str:
    """Give a sweep's command; return what it printed."""
    process = launch(*SLURM, *arguments)
    assert process.wait() == code, process.output
    assert "Traceback" not in process.output
    return process.output


def command(*words: str) -> str:
    """Give a command of ``python -m memrl sweep``; return what it printed."""
    line = [sys.executable, "-m", "memrl", "sweep", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def log_of(row: Run) -> str:
    """The output of the job that a run is in, which submitit keeps."""
    assert row.submission is not None
    number = f"*_{row.index // row.submission.per_job}" if row.submission.jobs > 1 else "*"
    (path,) = row.submission.folder.glob(f"{number}/*_log.out")
    return path.read_text()


def pause(runs: int, saved: bool = False) -> None:
    """Stop so many runs in the midst of their training, after a second checkpoint if so wanted."""
    paused: set[Path] = set()

    def all_paused() -> bool:
        for table in Path().glob("outputs/*/[!.]*/train.csv"):
            folder = table.parent
            trains = len(table.read_bytes().splitlines()) > 20
            ready = not saved or (folder / "checkpoint.prev.pt").exists()
            if trains and ready and folder not in paused:
                os.kill(status(folder)["pid"], signal.SIGSTOP)
                assert status(folder)["state"] == "running"
                paused.add(folder)
        return len(paused) == runs

    until(all_paused, every=0.01)


def ended(row: Run) -> str:
    """How SLURM says a run's job has ended."""
    return job(row.job_id)["JobState"]


def go_on(row: Run) -> None:
    os.kill(status(row.folder)["pid"], signal.SIGCONT)


def first_on_path(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: str) -> None:
    """Put a command of one line before SLURM's of this name."""
    (here / "bin").mkdir()
    (here / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
    (here / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here / 'bin'}:{os.environ['PATH']}")


# --- submitting ----------------------------------------------------------------------------------


def test_a_sweep_is_one_array_that_ends_as_without_slurm_and_only_what_is_missing_is_submitted(
    launch: Launch, alone: Alone
) -> None:
    arguments = (*SHORT, "seq_model=lstm,gpt", "sweep=four")
    out = issue(launch, *arguments, "seed=0,1", HELD)
    (name,) = submissions()
    found = re.search(r"^submitted 4 runs as 4 jobs: (\d+) \((four-\w+)\)$", out, re.MULTILINE)
    assert found and found[2] == name
    array = found[1]
    queue = slurm("squeue", "--noheader", "--array", "--format=%F_%K %j").splitlines()
    assert sorted(queue) == [f"{array}_{task} {name}" for task in range(4)]
    assert [(row.state, row.cause) for row in rows()] == [(State.QUEUED, "JobHeldUser")] * 4
    assert "4 runs (4 queued); to start: 0" in issue(launch, *arguments, "seed=0,1")
    assert submissions() == [name]

    slurm("scontrol", "release", array)
    wait_for_all()
    assert "4 runs (4 done)" in command("status", "outputs/four")
    for row in rows():
        config = row.config
        plain = (*SHORT, f"seq_model={config['seq_model']['name']}", f"seed={config['seed']}")
        assert_ended_like(row.folder, alone(*plain))
        assert status(row.folder)["attempt"] == 1
        assert status(row.folder)["job_id"] == f"{array}_{row.index}"
        assert ended(row) == "COMPLETED"

    more = issue(launch, *SHORT, "seq_model=lstm", "seed=0,1,2", "sweep=four")
    assert "3 runs (1 missing, 2 done); to start: 1" in more
    assert "submitted 1 run as 1 job: " in more
    wait_for_all()
    assert states() == [State.DONE] * 5
    assert len(submissions()) == 2


def test_more_runs_than_an_array_may_have_become_several_arrays(launch: Launch) -> None:
    out = issue(launch, *SHORT, "seed=range(5)")
    assert re.findall(r"^submitted (\d) runs? ", out, re.MULTILINE) == ["4", "1"]
    wait_for_all()
    assert states() == [State.DONE] * 5
    assert len({status(row.folder)["job_id"].split("_")[0] for row in rows()}) == 2


def test_what_the_cluster_refuses_is_said_in_one_line_and_leaves_nothing(launch: Launch) -> None:
    arguments = (*SHORT, "seed=0,1", "hydra.launcher.partition=nowhere")
    process = launch(*SLURM, *arguments)
    assert process.wait() == 1
    (line,) = process.err.splitlines()
    assert line.startswith("error: sbatch: ") and "nowhere" in line
    assert submissions() == []
    assert not list(Path().glob("outputs/runs/.submissions/*/"))
    assert rows() == []


def test_an_sbatch_that_fails_leaves_nothing_unless_it_is_unknown_what_it_submitted(
    launch: Launch, cluster: Path, here: Path
) -> None:
    arguments = (*SHORT, "seed=0,1")
    config = (cluster / "etc" / "slurm.conf").read_text()
    config = re.sub("SlurmctldPort=.*", "SlurmctldPort=1", config)
    (here / "slurm.conf").write_text(re.sub("MessageTimeout=.*", "MessageTimeout=3", config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(here / "slurm.conf"))
        assert "(connect failure)\n" in issue(launch, *arguments, code=1)
        (here / "slurm.conf").write_text("")
        assert "ration file\n" in issue(launch, *arguments, code=1)
    assert [path.name for path in Path("outputs").iterdir()] == [".snapshots"]

    late = "Socket timed out on send/recv operation"
    with pytest.MonkeyPatch.context() as patch:
        line = f"{shutil.which('sbatch')} \"$@\" >&2; echo 'sbatch: error: {late}' >&2; exit 1"
        first_on_path(here, patch, "sbatch", line)
        assert f"error: sbatch: {late}\n" in issue(launch, *arguments, HELD, code=1)
        assert slurm("squeue", "--noheader") == ""  # its jobs could not have trained
        (here / "bin" / "squeue").symlink_to("/bin/false")
        refused = issue(launch, *arguments, HELD, code=1)
        assert f"{late}; it may have been submitted all the same: squeue --name=runs-" in refused
    assert states() == [State.QUEUED] * 2
    assert command("cancel", "outputs/runs").startswith("cancelled 2 runs")
    wait_for_all()
    assert "to start: 2" in issue(launch, *arguments)
    wait_for_all()
    assert states() == [State.DONE] * 2


def test_a_queue_that_does_not_answer_is_said_and_nothing_is_submitted_meanwhile(
    launch: Launch, here: Path
) -> None:
    arguments = (*ENDLESS, "seed=0,1", "hydra.launcher.array_parallelism=1")
    issue(launch, *arguments)
    until(lambda: Counter(states()) == {State.RUNNING: 1, State.QUEUED: 1})
    with pytest.MonkeyPatch.context() as patch:
        first_on_path(
            here, patch, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1"
        )
        shown = command("status", "outputs/runs")
        assert "2 runs (1 queued, 1 running)" in shown
        assert "squeue does not answer" in shown
        refused = issue(launch, *arguments, "hydra.launcher.retry_failed=true", code=1)
        assert "squeue does not answer" in refused
        assert len(submissions()) == 1

    assert command("cancel", "outputs/runs").startswith("cancelled 2 runs")
    wait_for_all()
    assert states() == [State.CANCELLED] * 2


def test_what_stands_in_the_environment_of_the_driver_confuses_nobody(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "low")  # a user's filter, which would hide the job
    defaults = {"JOB_NAME": "x", "TIMELIMIT": "1", "NO_REQUEUE": "1", "EXPORT": "NONE"}
    for name, value in (defaults | {"SIGNAL": "KILL@9", "PARTITION": "low"}).items():
        monkeypatch.setenv(f"SBATCH_{name}", value)
    for name, value in {"ARRAY_JOB_ID": "1", "ARRAY_TASK_ID": "7", "RESTART_COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)  # the driver is in a job itself
    issue(launch, *SHORT, HELD)
    (row,) = rows()
    assert row.state == State.QUEUED
    known = job(row.job_id)
    assert (known["Partition"], known["TimeLimit"], known["Requeue"]) == ("low", "00:20:00", "1")
    assert known["JobName"] == row.submission.name  # type: ignore[union-attr]
    slurm("scontrol", "update", f"jobid={row.job_id}", "name=x")
    assert "1 run (1 queued); to start: 0" in issue(launch, *SHORT, HELD)
    slurm("scontrol", "release", row.job_id)
    monkeypatch.delenv("SQUEUE_PARTITION")
    wait_for_all()
    (row,) = rows()
    assert row.state == State.DONE
    assert status(row.folder)["job_id"] == row.submission.job_id  # type: ignore[union-attr]


# --- drivers that die ----------------------------------------------------------------------------


def test_a_driver_that_is_killed_after_sbatch_or_while_it_waits_changes_nothing(
    launch: Launch,
) -> None:
    arguments = (*LONG, "seed=0,1")
    # It writes the record a second time to note the job's id: SLURM has the job by then.
    first = at("rename submission.json", signal.SIGKILL, 2)
    submitting = launch(*SLURM, *arguments, first=first)
    assert submitting.wait() == -signal.SIGKILL, submitting.output
    (name,) = submissions()
    pause(2)
    assert [(row.state, row.submission and row.submission.job_id) for row in rows()] == [
        (State.RUNNING, None)
    ] * 2

    waiting = launch(*SLURM, *arguments, "hydra.launcher.wait=true")
    until(lambda: "waiting for all runs to end" in waiting.out)
    assert waiting.kill() == -signal.SIGKILL
    assert "2 runs (2 running); to start: 0" in waiting.out
    assert states() == [State.RUNNING] * 2
    for row in rows():
        go_on(row)
    wait_for_all()
    assert states() == [State.DONE] * 2
    assert submissions() == [name]
    assert "2 runs (2 done); to start: 0" in issue(launch, *arguments)


def test_a_driver_that_is_killed_before_sbatch_leaves_runs_that_the_same_command_submits(
    launch: Launch, here: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        first_on_path(here, patch, "sbatch", "kill -KILL $PPID")
        process = launch(*SLURM, *SHORT, "seed=0,1")
        assert process.wait() == -signal.SIGKILL, process.output
    assert slurm("squeue", "--noheader") == ""
    assert [(row.state, row.cause) for row in rows()] == [(State.LOST, "never started")] * 2
    assert "2 runs (2 lost); to start: 2" in issue(launch, *SHORT, "seed=0,1")
    wait_for_all()
    assert states() == [State.DONE] * 2


def test_two_commands_at_once_submit_everything_once(launch: Launch) -> None:
    slow = launch(*SLURM, *SHORT, "seed=0,1", HELD, first=at("rename runs.jsonl", signal.SIGSTOP))
    slow.wait_paused()
    quick = launch(*SLURM, *SHORT, "seed=0,1", HELD)
    assert quick.wait() == 3
    assert quick.err == "error: another command is submitting outputs/runs\n"
    slow.send(signal.SIGCONT)
    assert slow.wait() == 0, slow.output
    assert len(slurm("squeue", "--noheader", "--array").splitlines()) == 2


# --- failures ------------------------------------------------------------------------------------


def test_packed_runs_share_a_job_and_those_that_fail_fail_it_but_not_their_companions(
    launch: Launch, alone: Alone
) -> None:
    # Weights that become infinite: an honest failure, in every job one.
    arguments = (*SHORT, "seed=0,1", "algo.lr=1e-3,1e30", "hydra.launcher.runs_per_job=2")
    assert "submitted 4 runs as 2 jobs: " in issue(launch, *arguments)
    wait_for_all()
    runs = rows()
    good, bad = runs[::2], runs[1::2]
    assert [row.state for row in good] == [State.DONE] * 2
    assert [row.state for row in bad] == [State.FAILED] * 2
    for seed, row in enumerate(good):
        assert_ended_like(row.folder, alone(*SHORT, f"seed={seed}", "algo.lr=1e-3"))
        assert row.job_id == bad[seed].job_id
        assert ended(row) == "FAILED"
        assert job(row.job_id)["ExitCode"] == "1:0"
        assert job(row.job_id)["NumCPUs"] == "2"
    for row in runs:
        assert row.submission is not None
        own = row.submission.log(row.index).read_text()
        assert [other.name for other in runs if other.name in own] == [row.name]
    shown = command("status", "outputs/runs").splitlines()
    for row in bad:
        assert re.fullmatch(r"train/\w+ is -?(nan|inf) at env step \d+, by update \d+", row.cause)
        (line,) = (line for line in shown if row.name in line)
        assert " failed " in line and line.endswith(row.cause)
        assert row.submission is not None
        assert row.cause in log_of(row)
        assert row.cause in row.submission.log(row.index).read_text()
        log = (row.folder / "run.log").read_text()
        assert "Traceback" in log and f"FloatingPointError: {row.cause}" in log

    assert "to start: 0" in issue(launch, *arguments, code=1)  # as they are not all done
    retried = issue(launch, *arguments, "hydra.launcher.retry_failed=true")
    assert "to start: 2" in retried and "submitted 2 runs as 1 job: " in retried
    wait_for_all()
    assert [status(row.folder)["attempt"] for row in rows()] == [1, 2, 1, 2]


def test_what_was_cancelled_or_killed_is_known_and_the_same_command_continues_it(
    launch: Launch, alone: Alone
) -> None:
    arguments = (*LONG, "seed=range(4)", "checkpoint_minutes=0.0005")
    issue(launch, *arguments)
    pause(4, saved=True)
    assert "4 runs (4 running); to start: 0" in issue(launch, *arguments)
    scancelled, killed, cancelled, left = rows()
    slurm("scancel", scancelled.job_id)
    os.kill(status(killed.folder)["pid"], signal.SIGKILL)
    assert command("cancel", "outputs/runs", "2").startswith("cancelled 1 run;")
    go_on(left)
    wait_for_all()
    assert states() == [State.CANCELLED, State.LOST, State.CANCELLED, State.DONE]
    told = json.loads(command("status", "--json", "outputs/runs"))["runs"]
    assert told[0]["cause"] == "stopped by SIGTERM"
    assert told[1]["cause"] == "killed by SIGKILL (out of memory, or kill -9)"
    ends = [ended(row) for row in (scancelled, killed, cancelled, left)]
    assert ends == ["CANCELLED", "FAILED", "CANCELLED", "COMPLETED"]

    again = issue(launch, *arguments)
    assert "to start: 3" in again and "submitted 3 runs as 3 jobs: " in again
    wait_for_all()
    for seed, row in enumerate(rows()):
        assert_ended_like(row.folder, alone(*LONG, f"seed={seed}"))
        assert status(row.folder)["attempt"] == (1 if row.name == left.name else 2)
    assert "continuing at env step" in (killed.folder / "run.log").read_text()


def test_of_runs_that_share_a_job_one_can_be_cancelled_alone(launch: Launch) -> None:
    arguments = (*LONG, "seed=0,1", "hydra.launcher.runs_per_job=2")
    issue(launch, *arguments)
    pause(2)
    assert command("cancel", "outputs/runs", "seed=0").startswith("cancelled 1 run;")
    cancelled, left = rows()
    until(lambda: "SIGTERM" in told(status(cancelled.folder)["pid"]))
    go_on(cancelled)
    until(lambda: states() == [State.CANCELLED, State.RUNNING])
    go_on(left)
    wait_for_all()
    assert states() == [State.CANCELLED, State.DONE]
    assert status(cancelled.folder)["cause"] == "stopped by SIGTERM"
    assert ended(left) == "COMPLETED"
    assert "to start: 1" in issue(launch, *arguments)
    wait_for_all()
    assert states() == [State.DONE] * 2


def told(pid: int) -> list[str]:
    """The signals that wait for a stopped process to go on."""
    text = Path(f"/proc/{pid}/status").read_text()
    bits = int(re.findall(r"^ShdPnd:\s*(\w+)", text, re.MULTILINE)[0], 16)
    return [s.name for s in signal.Signals if bits >> (s - 1) & 1]


# --- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["stopped by SIGUSR2", "stopped by SIGTERM"])
def test_preempted_runs_save_are_requeued_and_end_as_if_nothing_had_happened(
    cause: str,
    launch: Launch,
    cluster: Path,
    here: Path,
    alone: Alone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (here / "run.py").symlink_to(ROOT / "run.py")  # run.sbatch is for the folder of run.py
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with no_warning(cluster) if cause == "stopped by SIGTERM" else contextlib.nullcontext():
        issue(launch, *LONG, "seed=0,1", "hydra.launcher.partition=low")
        options = ("--parsable", "--partition=low", "--mem=500M")
        script = str(ROOT / "docs" / "run.sbatch")
        by_hand = slurm("sbatch", *options, script, *LONG, "seed=2")
        pause(3)
        before = rows()
        assert before[2].job_id == by_hand
        preempt()
        wait_for_all()
    for seed, (row, old) in enumerate(zip(rows(), before, strict=True)):
        assert row.job_id == old.job_id  # the same, no new one
        assert_continued(row, cause, alone(*LONG, f"seed={seed}"))
    assert ("(preempted)" in (before[0].folder / "run.log").read_text()) == ("USR2" in cause)


@contextlib.contextmanager
def no_warning(cluster: Path) -> Iterator[None]:
    """Have no USR2 sent at a preemption, as most clusters do: SIGTERM and some grace, no more."""
    path = cluster / "etc" / "slurm.conf"
    config, line = path.read_text(), "SlurmctldParameters=preempt_send_user_signal\n"
    assert line in config
    try:
        path.write_text(config.replace(line, ""))
        slurm("scontrol", "reconfigure")
        yield
    finally:
        path.write_text(config)
        slurm("scontrol", "reconfigure")


def assert_continued(row: Run, cause: str, alone: Path) -> None:
    """A run saved, for this cause, and its job was requeued, in which it ended like one alone."""
    assert_ended_like(row.folder, alone)
    log = (row.folder / "run.log").read_text()
    assert cause in log and "continuing at env step" in log
    assert status(row.folder)["attempt"] >= 2
    assert int(job(row.job_id)["Restarts"]) >= 1
    assert ended(row) == "COMPLETED"


def test_a_job_that_is_preempted_while_python_starts_is_requeued(
    launch: Launch, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imports take seconds, or a minute where the disk is slow; no handler stands before."""
    (here / "start").mkdir()
    (here / "start" / "sitecustomize.py").write_text(
        "import os, time\n"
        "first = os.environ.get('SLURM_RESTART_COUNT', '0') == '0'\n"
        "while first and os.environ.get('SLURM_STEP_ID') == '0':\n"
        f"    open('{here}/started', 'w').close()\n"
        "    time.sleep(0.1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(here / "start"))
    issue(launch, *SHORT, "hydra.launcher.partition=low", "hydra.launcher.cpus_per_task=2")
    until((here / "started").exists)
    preempt()
    wait_for_all()
    (row,) = rows()
    assert row.state == State.DONE
    assert int(job(row.job_id)["Restarts"]) >= 1


def test_a_job_that_meets_its_time_limit_goes_on_in_the_next_one(
    launch: Launch, alone: Alone
) -> None:
    # SLURM looks every 30 s and warns that much early: 5 to 35 s after the start.
    issue(launch, *LONG, "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=25")
    pause(1)
    wait_for_all()
    (row,) = rows()
    assert_continued(row, "stopped by SIGUSR2 (time limit)", alone(*LONG, "seed=0"))


def test_a_finished_run_that_is_requeued_returns_at_once_and_changes_nothing(
    launch: Launch,
) -> None:
    issue(launch, *SHORT)
    wait_for_all()
    (row,) = rows()
    before = contents(row.folder)
    slurm("scontrol", "requeue", row.job_id)
    wait_for_all()
    assert (ended(row), job(row.job_id)["Restarts"]) == ("COMPLETED", "1")
    assert "finished before" in log_of(row)
    assert contents(row.folder) == before


def test_a_job_runs_the_code_as_it_was_when_it_was_submitted(here: Path) -> None:
    code = here / "code"
    for name in ("memrl", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", code)
    version = code / "memrl" / "__init__.py"
    version.write_text(version.read_text() + "__version__ = 'then'\n")
    lstm = (ROOT / "conf" / "seq_model" / "lstm.yaml").read_text()
    as_own = lstm.replace("name: lstm", "name: own").replace(
        "memrl.seq_models.rnn.", "own_pkg.model."
    )
    imports = "from memrl.seq_models import rnn\n"
    own = {
        "own_pkg/model.py": f"{imports}class Recurrent(rnn.Recurrent): ...\n",
        "my_conf/seq_model/own.yaml": as_own,
    }
    for name, text in own.items():
        (here / name).parent.mkdir(parents=True)
        (here / name).write_text(text)
    options = ("-cd", "my_conf", *SLURM, *SHORT, "seq_model=own", HELD)
    line = [sys.executable, str(code / "run.py"), *options]
    environment = os.environ | {"PYTHONPATH": str(code)}
    subprocess.run(line, env=environment, check=True, timeout=100)
    (row,) = rows()
    assert (row.state, row.cause) == (State.QUEUED, "JobHeldUser")

    version.write_text(version.read_text() + "__version__ = 'now'\n")
    for edited in (code / "memrl" / "sweep" / "slurm.py", here / "own_pkg" / "model.py"):
        edited.write_text("raise RuntimeError('edited')\n")
    slurm("scontrol", "release", row.job_id)
    wait_for_all()
    (row,) = rows()
    assert row.state == State.DONE
    (snapshot,) = (path.parent for path in here.glob("outputs/.snapshots/*/memrl"))
    (packages,) = (path.parent for path in here.glob("outputs/.snapshots/*/own_pkg"))
    label = f"{snapshot.name} and own_pkg {packages.name}"
    assert f"code: {label} in {snapshot}\n" in log_of(row)
    versions = status(row.folder)["versions"]
    assert (versions["code"], versions["memrl"]) == (label, "then")


def test_a_job_whose_snapshot_is_gone_runs_no_other_code(launch: Launch, here: Path) -> None:
    issue(launch, *SHORT, HELD)
    (row,) = rows()
    (snapshot,) = here.glob("outputs/.snapshots/[!.]*")
    shutil.rmtree(snapshot)
    slurm("scontrol", "release", row.job_id)
    wait_for_all()
    (row,) = rows()
    why = "its job ended before the run started; see sweep logs"
    assert (row.state, row.cause) == (State.LOST, why)
    assert f"error: {snapshot} is gone" in log_of(row)
    assert "submitted 1 run " in issue(launch, *SHORT)
    wait_for_all()
    assert states() == [State.DONE]


# --- the last one, as it takes a node away -------------------------------------------------------


def test_a_run_whose_node_dies_goes_on_on_another(
    launch: Launch, cluster: Path, alone: Alone
) -> None:
    each = "hydra.launcher.cpus_per_task=2"  # a node each
    issue(launch, *LONG, "seed=0,1", each, "checkpoint_minutes=0.0005")
    pause(2, saved=True)
    dies, stays = rows()
    assert dies.job and stays.job and dies.job.node != stays.job.node
    kill_node(cluster, dies.job.node, job(dies.job_id)["JobId"])
    go_on(stays)
    wait_for_all()
    for seed, (old, row) in enumerate(zip((dies, stays), rows(), strict=True)):
        assert row.job_id == old.job_id
        assert status(row.folder)["attempt"] == (2 if old is dies else 1)
        assert_ended_like(row.folder, alone(*LONG, f"seed={seed}"))
    assert job(dies.job_id)["NodeList"] == stays.job.node
    assert "continuing at env step" in (dies.folder / "run.log").read_text()


def kill_node(cluster: Path, node: str, job_id: str) -> None:
    """Kill a node's daemon and all of a job, as if the node had lost its power."""
    pids = (cluster / "run" / "pids").read_text()
    daemon = re.search(rf"^slurmd-{node} (\d+) ", pids, re.MULTILINE)
    assert daemon
    os.kill(int(daemon[1]), signal.SIGKILL)
    steps, processes = [], []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title = (path / "cmdline").read_bytes()
            environment = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended, or is another user's
        if title.startswith(f"slurmstepd: [{job_id}.".encode()):
            steps.append(int(path.name))
        elif f"SLURM_JOB_ID={job_id}".encode() in environment:
            processes.append(int(path.name))
    assert steps and processes
    for pid in steps + processes:  # first those that would tell SLURM of the others' deaths
        os.kill(pid, signal.SIGKILL)
