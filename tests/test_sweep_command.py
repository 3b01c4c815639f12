"""``python -m memrl sweep``: what it says of a sweep and does to it; what is imported for that."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Process, at, wait_until
from test_run import status, tiny

from memrl.__main__ import main
from memrl.run.lock import this_process

Launch = Callable[..., Process]

TINY = tiny("lstm")
MIXED = Path("outputs", "mixed")
STATES = ["done", "failed", "stopped", "stopped"]  # of the sweep below, in the order of its table


@pytest.fixture(scope="module")
def mixed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with a run that is done, one that failed, one that was stopped, one never begun."""
    cwd = tmp_path_factory.mktemp("mixed")
    first = Process(("-m", *TINY, "algo.lr=3e-4,1e30", "sweep=mixed"), cwd)
    assert first.wait() == 1, first.output
    stop = at("open train.csv", 15, 4)
    second = Process(("-m", *TINY, "seed=5,6", "sweep=mixed"), cwd, stop)
    assert second.wait() == 143, second.output
    assert "Traceback" not in second.output
    return cwd


@pytest.fixture
def mixed(mixed_once: Path, tmp_path: Path) -> Path:
    """The folder where it was issued, to be changed at will."""
    shutil.copytree(mixed_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def command(launch: Launch) -> Callable[..., Process]:
    """``python -m memrl sweep``, in a fork; it has ended."""

    def run(*arguments: object, **options: Path) -> Process:
        process = launch(first=lambda: main(["sweep", *map(str, arguments)]), **options)
        process.wait()
        assert "Traceback (most recent call last):\n  File" not in process.err
        return process

    return run


Command = Callable[..., Process]


def name_of(cwd: Path, number: int) -> str:
    """A run's name by its place in the table."""
    found = sorted(cwd.glob("outputs/mixed/.submissions/*/submission.json"), key=created)
    lines = [x for path in found for x in (path.parent / "runs.jsonl").read_text().splitlines()]
    return str(json.loads(lines[number])["run"])


def created(path: Path) -> float:
    return float(json.loads(path.read_text())["created"])


# --- status --------------------------------------------------------------------------------------


def test_status_is_a_table_of_all_runs(mixed: Path, command: Command) -> None:
    process = command("status", MIXED)
    assert (process.wait(), process.err) == (0, "")
    header, *rows, last = process.out.splitlines()
    assert (
        header.split() == "# run state progress return updates/s hours ETA job node cause".split()
    )
    for number, (row, state) in enumerate(zip(rows, STATES, strict=True)):
        assert row.split()[:3] == [str(number), name_of(mixed, number), state]
    assert "100%" in rows[0] and "is nan at env step" in rows[1] and "SIGTERM" in rows[2]
    said = status(mixed / MIXED / name_of(mixed, 0))
    assert f" {said['updates'] / said['seconds']:,.1f} " in rows[0] and rows[0].split()[6] == "0.00"
    total = "outputs/mixed: 4 runs (1 done, 1 failed, 2 stopped), 0.00 hours, ETA -"
    assert last == total


def test_status_for_programs(mixed: Path, command: Command) -> None:
    process = command("status", "--json", MIXED)
    assert (process.wait(), process.err) == (0, "")
    said = json.loads(process.out)
    assert said["sweep"] == "outputs/mixed"
    assert said["counts"] == {"done": 1, "failed": 1, "stopped": 2}
    assert [run["state"] for run in said["runs"]] == STATES
    assert [run["run"] for run in said["runs"]] == [name_of(mixed, n) for n in range(4)]
    done, failed, stopped, never = said["runs"]
    assert done["status"] == status(mixed / MIXED / done["run"])
    assert failed["cause"] == status(mixed / MIXED / failed["run"])["cause"]
    assert 0 < stopped["status"]["progress"] < 1
    assert never["status"] == {}
    assert len({run["submission"] for run in said["runs"]}) == 2
    assert len({run["code"] for run in said["runs"]}) == 1


def test_the_place_where_it_is_asked_does_not_matter(
    mixed: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = command("status", MIXED).out
    from_elsewhere = here.replace(str(MIXED), str(mixed / MIXED))
    elsewhere = mixed / "else" / "where"
    elsewhere.mkdir(parents=True)
    assert command("status", mixed / MIXED, cwd=elsewhere).out == from_elsewhere
    assert command("status", ".", cwd=mixed / MIXED).out == from_elsewhere
    assert command("status", f"{MIXED}/").out == here
    assert list(elsewhere.iterdir()) == []
    typed = "../outputs/../outputs/mixed"
    assert command("status", typed, cwd=mixed / "else").out == from_elsewhere
    (mixed / "outputs").rename(mixed / "disk")  # a larger one
    (mixed / "outputs").symlink_to("disk")
    monkeypatch.setenv("PWD", str(mixed / "outputs"))  # as a shell sets it
    assert command("status", "mixed", cwd=mixed / "outputs").out == from_elsewhere


def test_without_a_folder_all_sweeps_are_listed(
    mixed: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = command("status", cwd=mixed / MIXED)
    assert (empty.wait(), empty.err) == (
        2,
        "error: outputs: no such folder; give a sweep's, or set MEMRL_OUTPUTS\n",
    )
    shutil.copytree(mixed / MIXED, mixed / "outputs" / "later")
    for path in (mixed / "outputs" / "later").glob("*/status.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"updated": 3e9}))
    (mixed / "outputs" / "notes").mkdir()
    listed = command("status")
    assert (listed.wait(), listed.err) == (0, "")
    header, *rows = listed.out.splitlines()
    assert header.split()[0] == "sweep"
    assert [row.split()[:2] for row in rows] == [["outputs/later", "4"], ["outputs/mixed", "4"]]
    assert all(row.endswith("1 done, 1 failed, 2 stopped") for row in rows)
    monkeypatch.setenv("MEMRL_OUTPUTS", str(mixed / "outputs"))
    said = json.loads(command("status", "--json", cwd=mixed / MIXED).out)["sweeps"]
    assert [Path(sweep["sweep"]).name for sweep in said] == ["later", "mixed"]
    assert said[0]["last_activity"] == 3e9 and 0 < said[1]["progress"] < 1


def test_a_run_that_was_started_without_a_sweep_is_shown_too(
    mixed: Path, command: Command, launch: Launch
) -> None:
    by_hand = launch(*TINY, "budget.train_episodes=2", "seed=9", "sweep=mixed")
    assert by_hand.wait() == 0, by_hand.output
    said = json.loads(command("status", "--json", MIXED).out)
    assert [run["state"] for run in said["runs"]] == [*STATES, "done"]
    assert (said["runs"][-1]["submission"], said["runs"][-1]["log"]) == (None, None)


def test_watching_ends_with_the_sweep_or_with_ctrl_c(
    mixed: Path, command: Command, launch: Launch
) -> None:
    assert command("status", "--watch", MIXED).out == command("status", MIXED).out
    (mixed / MIXED / name_of(mixed, 2) / "lock").write_text(json.dumps(this_process()))
    process = launch(first=lambda: main(["sweep", "status", "--watch", str(MIXED)]))
    wait_until(lambda: "1 running" in process.out, process)
    process.send(signal.SIGINT)
    assert (process.wait(), process.err) == (130, "")


# --- logs ----------------------------------------------------------------------------------------


def test_the_log_of_a_run_that_failed_ends_with_its_traceback(
    mixed: Path, command: Command
) -> None:
    name = name_of(mixed, 1)
    by_number = command("logs", MIXED, "1")
    assert by_number.wait() == 0
    first, path, mark, *lines = by_number.out.splitlines()
    assert first == f"{name}: failed: {status(mixed / MIXED / name)['cause']}"
    assert path == f"{MIXED}/{name}/run.log" and mark == f"--- {path}"
    assert "Traceback (most recent call last):" in by_number.out
    assert lines[-1].startswith("FloatingPointError: train/")
    assert lines == (mixed / path).read_text().splitlines()[-40:]
    assert command("logs", MIXED, name).out == by_number.out
    short = command("logs", "--lines", "1", MIXED, "1").out.splitlines()
    assert short == [first, path, mark, lines[-1]]


def test_the_log_of_a_run_that_never_began(mixed: Path, command: Command) -> None:
    process = command("logs", MIXED, "seed=6")
    assert process.wait() == 0
    first, second = process.out.splitlines()
    assert first.startswith(f"{name_of(mixed, 3)}: stopped: ")
    assert second == "it has printed nothing yet"


def test_a_log_can_be_followed(mixed: Path, launch: Launch) -> None:
    process = launch(
        first=lambda: main(["sweep", "logs", "--follow", "--lines", "1", str(MIXED), "0"])
    )
    wait_until(lambda: "done: return" in process.out, process)
    with open(mixed / MIXED / name_of(mixed, 0) / "run.log", "a") as file:
        file.write("one more line\n")
    wait_until(lambda: process.out.endswith("one more line\n"), process)
    assert process.poll() is None


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "folder"),
    [
        *((what, "outputs/none") for what in ("status", "retry", "cancel", "logs")),
        *(("status", folder) for folder in ("nowhere", "outputs/mixed/runs.csv")),
    ],
)
def test_what_is_no_sweeps_folder_is_refused(
    what: str, folder: str, mixed: Path, command: Command
) -> None:
    process = command(what, folder, *(["0"] if what == "logs" else []))
    assert process.wait() == 2
    assert process.out == ""
    assert process.err == f"error: {folder}: not a sweep's folder, outputs/<sweep>\n"
    assert not (mixed / "outputs" / "none").exists()


@pytest.mark.parametrize("what", ["cancel", "logs"])
@pytest.mark.parametrize("run", ["99", "seed=77"])
def test_a_run_that_is_not_there_is_refused(
    what: str, run: str, mixed: Path, command: Command
) -> None:
    process = command(what, MIXED, run)
    assert process.wait() == 2
    assert process.err == f"error: {run}: no run of {MIXED} has this number or name\n"


def test_several_runs_have_no_single_log(mixed: Path, command: Command) -> None:
    process = command("logs", MIXED, "tmaze")
    assert process.wait() == 2
    first, *names = process.err.splitlines()
    assert first == "error: tmaze: 4 runs have this in their names:"
    assert [name.strip() for name in names] == [name_of(mixed, n) for n in range(4)]


def test_what_was_never_issued_as_a_sweep_is_not_retried(tmp_path: Path, command: Command) -> None:
    (tmp_path / "outputs" / "empty").mkdir(parents=True)
    process = command("retry", "outputs/empty")
    assert process.wait() == 2
    assert process.err.startswith("error: outputs/empty: no sweep was started here")
    for what in (["status"], ["status", "--json"], ["cancel"], ["logs", "--lines", "5", "0"]):
        shown = command(what[0], "outputs/empty", *what[1:])
        assert (shown.wait(), shown.out) == (2, "")
        assert shown.err == "error: outputs/empty: no run\n"


def test_a_submission_of_another_version_is_named_and_is_not_issued_again(
    mixed: Path, command: Command
) -> None:
    path = next((mixed / MIXED / ".submissions").glob("*/submission.json"))
    content = json.loads(path.read_text())
    del content["created"]
    path.write_text(json.dumps(content))
    process = command("status", MIXED)
    assert process.wait() == 0
    assert path.parent.name in process.out and "created is missing" in process.out
    process = command("retry", MIXED)
    assert process.wait() in (1, 2)
    assert process.out == ""
    assert process.err.startswith("error: ") and process.err.count("\n") == 1
    assert path.parent.name in process.err and "created" in process.err


def test_a_submission_that_lost_its_runs_is_named_and_nothing_is_started(
    mixed: Path, command: Command, launch: Launch
) -> None:
    path = max(mixed.glob("outputs/*/.submissions/*/submission.json"), key=created)
    (path.parent / "runs.jsonl").write_text("")
    message = f"{path.parent / 'runs.jsonl'}: it holds 0 of 2 runs; some were lost"
    told = json.loads(command("status", "--json", MIXED).out)
    assert (told["torn"], len(told["runs"])) == ([message], 3)
    sweep = ("-m", *TINY, "seed=4,5,6", "sweep=mixed")
    for process in (
        command("retry", MIXED),
        command("cancel", MIXED),
        launch(*sweep),
        launch(*sweep, "hydra.launcher.dry_run=true"),
    ):
        assert process.wait() == 1, process.output
        assert process.err.startswith(f"error: {message}") and process.err.count("\n") == 1


def test_a_config_that_names_a_class_which_has_moved_is_not_retried(
    mixed: Path, command: Command
) -> None:
    path = next((mixed / MIXED / ".submissions").glob("*/runs.jsonl"))
    text = path.read_text()
    path.write_text(
        text.replace('"logger": {"_target_": null}', '"logger": {"_target_": "memrl.a.B"}')
    )
    assert path.read_text() != text
    process = command("retry", MIXED)
    assert process.wait() == 2
    assert process.out == "" and process.err.count("\n") == 1
    assert "logger._target_=memrl.a.B: no module memrl.a; give the sweep's own" in process.err


def test_a_retry_runs_only_code_that_is_trusted(
    mixed: Path, command: Command, tmp_path: Path
) -> None:
    """Neither what a config names, nor a package beside it that has the name of a library."""
    foreign, marker = tmp_path / "foreign", tmp_path / "marker"
    foreign.mkdir()
    text = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    for name in ("evil.py", "numpy.py"):
        (foreign / name).write_text(text)
    none, named = '"logger": {"_target_": null}', '"logger": {"_target_": "evil.Logger"}'
    for path in (mixed / MIXED / ".submissions").glob("*/submission.json"):
        record = json.loads(path.read_text())
        record["python_path"].append(str(foreign))
        path.write_text(json.dumps(record))
        runs = path.with_name("runs.jsonl")
        runs.write_text(runs.read_text().replace(none, named))
        assert named in runs.read_text()
    process = command("retry", MIXED)
    assert process.wait() == 2
    assert process.out == "" and process.err.count("\n") == 1
    assert process.err.endswith(
        "logger._target_=evil.Logger: not a class of memrl; if you trust it, add --trust evil "
        '(in Python, trusted=["evil"])\n'
    )
    assert not marker.exists()
    process = command("retry", MIXED, "--trust", "evil")
    assert process.wait() == 2 and marker.exists()
    assert "logger._target_=evil.Logger: no class Logger there" in process.err

    for path in (mixed / MIXED / ".submissions").glob("*/submission.json"):
        record = json.loads(path.read_text())
        record["settings"]["setup"] = ["touch marker"]
        path.write_text(json.dumps(record))
    process = command("retry", MIXED, "--trust", "evil")
    assert process.wait() == 2
    assert process.err.endswith("runs shell lines; if you trust them, add --trust setup\n")


def test_the_arguments_are_checked(mixed: Path, command: Command) -> None:
    for arguments in (["dance", MIXED], ["retry"], ["logs", MIXED], []):
        process = command(*arguments)
        assert process.wait() == 2
        assert "usage: " in process.err and " sweep " in process.err


@pytest.mark.parametrize(("change", "code"), [("batch_size: 5", 2), ("batch_size: [", 1)])
def test_a_folder_with_another_config_is_refused_before_anything_starts(
    change: str, code: int, mixed: Path, launch: Launch
) -> None:
    """Also one that cannot be read."""
    path = mixed / MIXED / name_of(mixed, 2) / "config.yaml"
    path.write_text(path.read_text().replace("batch_size: 4", change))
    before = {path: path.stat().st_mtime_ns for path in mixed.rglob("*")}
    process = launch("-m", *TINY, "seed=4,5,6", "sweep=mixed")
    assert process.wait() == code, process.output
    assert process.err.startswith(f"error: {path.relative_to(mixed).parent}")
    assert "Traceback" not in process.err and process.out == ""
    assert {path: path.stat().st_mtime_ns for path in mixed.rglob("*")} == before


# --- retry, cancel -------------------------------------------------------------------------------


def test_a_retry_starts_all_that_is_not_done_as_it_was_started_last(
    mixed: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "lib")  # relative to where it is typed
    done = status(mixed / MIXED / name_of(mixed, 0))
    elsewhere = mixed / "elsewhere"
    elsewhere.mkdir()
    process = command("retry", mixed / MIXED, cwd=elsewhere)
    assert process.wait() == 1, process.output  # one fails again
    assert "outputs/mixed: 4 runs (1 done, 1 failed, 2 stopped); to start: 3\n" in process.out
    assert "outputs/mixed: 4 runs (3 done, 1 failed)\n" in process.out
    assert status(mixed / MIXED / name_of(mixed, 0)) == done
    attempts = [status(mixed / MIXED / name_of(mixed, n))["attempt"] for n in (1, 2, 3)]
    assert attempts == [2, 2, 1]
    assert "1 of 4 runs are not done:" in process.err
    assert list(elsewhere.iterdir()) == []
    assert (mixed / MIXED / "lengths.png").exists()
    last = max(mixed.glob("outputs/*/.submissions/*/submission.json"), key=created)
    assert str(elsewhere / "lib") in json.loads(last.read_text())["python_path"]


def test_retry_failed_is_a_key_of_the_sweeps_own_command(mixed: Path, launch: Launch) -> None:
    sweep = ("-m", *TINY, "algo.lr=3e-4,1e30", "sweep=mixed")
    left = launch(*sweep)
    assert left.wait() == 1
    assert "outputs/mixed: 2 runs (1 done, 1 failed); to start: 0\n" in left.out
    tried = launch(*sweep, "hydra.launcher.retry_failed=true")
    assert tried.wait() == 1
    assert "to start: 1\n" in tried.out
    assert status(mixed / MIXED / name_of(mixed, 1))["attempt"] == 2


def test_nothing_is_cancelled_where_nothing_is_going_on(mixed: Path, command: Command) -> None:
    process = command("cancel", MIXED)
    assert (process.wait(), process.out.split(":")[0]) == (0, "nothing to cancel")
    assert [
        r["state"] for r in json.loads(command("status", "--json", MIXED).out)["runs"]
    ] == STATES


def test_a_run_of_another_machine_cannot_be_cancelled_from_here(
    mixed: Path, command: Command
) -> None:
    folder = mixed / MIXED / name_of(mixed, 2)
    owner = this_process() | {"host": "elsewhere"}
    (folder / "lock").write_text(json.dumps(owner))
    content = status(folder) | {"state": "running", "cause": None, "updated": time.time()}
    (folder / "status.json").write_text(json.dumps(content))
    process = command("cancel", MIXED, "2")
    assert process.wait() == 2
    assert process.err.startswith("error: ") and "elsewhere" in process.err


def test_only_the_runs_own_process_is_told_to_stop(mixed: Path, command: Command) -> None:
    """A run's process was killed, and its number given to another one."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        record = next((mixed / MIXED / ".submissions").glob("*/submission.json"))
        content = json.loads(record.read_text())
        record.write_text(json.dumps(content | {"driver": this_process(), "created": 2e9}))
        for folder in (mixed / MIXED).glob("tmaze*/"):
            owner = this_process() | {"pid": other.pid, "started": 0.0}
            (folder / "lock").write_text(json.dumps(owner))
        process = command("cancel", MIXED)
        assert process.wait() == 0, process.output
        assert not process.out.startswith("nothing to cancel")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


# --- what is imported ----------------------------------------------------------------------------


def imported(*arguments: str, cwd: Path) -> tuple[set[str], str]:
    """What a new interpreter imports, and all that it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"},
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return set(re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE)), done.stdout + "".join(lines)


HEAVY = {"torch", "submitit", "gymnasium", "matplotlib", "wandb"}


def test_a_sweep_is_looked_at_without_importing_torch(mixed: Path) -> None:
    modules, out = imported("-m", "memrl", "sweep", "status", "--json", str(MIXED), cwd=mixed)
    assert json.loads(out)["counts"] == {"done": 1, "failed": 1, "stopped": 2}
    assert "memrl.sweep.states" in modules
    assert not modules & HEAVY


def test_what_every_command_and_every_job_imports_is_light(tmp_path: Path) -> None:
    """Hydra imports the plugins at each start, a single run's too."""
    light = {"hydra_plugins.memrl_plugins", "memrl.sweep.pool"}
    modules, _ = imported("-c", f"import {', '.join(light)}", cwd=tmp_path)
    assert modules >= light
    assert not modules & HEAVY


def test_what_a_job_imports_besides_submitit_is_light(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    modules, _ = imported("-c", "import memrl.sweep.slurm", cwd=tmp_path)
    assert modules & HEAVY == {"submitit"}


def test_a_launcher_is_checked_before_torch_is_imported(tmp_path: Path) -> None:
    """After that, composing a sweep builds an agent of each kind, which needs torch."""
    command = (str(ROOT / "run.py"), "-m", "hydra/launcher=local", "hydra.launcher.n_jobs=0")
    modules, said = imported(*command, cwd=tmp_path)
    assert said == "error: hydra.launcher.n_jobs must be at least 1, got 0"
    assert not modules & HEAVY
