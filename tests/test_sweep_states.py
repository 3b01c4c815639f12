"""What every run of a sweep is said to be doing, from all that may be known of it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memrl.__main__ import main
from memrl.run.lock import SILENT_S, this_process
from memrl.run.outcome import CannotContinue
from memrl.run.status import Status
from memrl.sweep import submissions
from memrl.sweep.pool import visible_gpus
from memrl.sweep.queue import Job, query_queue
from memrl.sweep.states import ONGOING, Facts, State, Sweep, is_due, judge, read_sweep
from memrl.sweep.submissions import Run, Submission

# A run was submitted at 100; what its files say is from 50, before, or from 150, after.
BEFORE, SUBMITTED, AFTER = 50, 100, 150
PENDING = Job("7_0", "PENDING", reason="Priority")
RUNNING = Job("7_0", "RUNNING", node="n1")
COMPLETING = Job("7_0", "COMPLETING", node="n1")
SUSPENDED = Job("7_0", "SUSPENDED", node="n1")


def status(state: str, cause: str | None = None, at: float = AFTER, **more: Any) -> dict[str, Any]:
    return {"state": state, "cause": cause, "updated": at, "host": "n1", **more}


def on_slurm(content: dict[str, Any] | None = None, job: Job | None = None, **more: Any) -> Facts:
    return Facts(content or {}, submitted=SUBMITTED, slurm=True, job=job, **more)


def here(content: dict[str, Any] | None = None, **more: Any) -> Facts:
    return Facts(content or {}, submitted=SUBMITTED, **more)


SAVED = "stopped by SIGUSR2 (preempted)"
LIMIT = "stopped by SIGUSR2 (time limit)"
TERM = "stopped by SIGTERM"
KILLED = "killed by SIGKILL (out of memory, or kill -9)"

TABLE = [  # with what the cause has to contain
    # asked for, and no more than that
    (Facts(), State.MISSING, ""),
    # not to be known
    (Facts(problem="no JSON"), State.UNREADABLE, "no JSON"),
    (on_slurm(problem="no JSON"), State.UNREADABLE, "no JSON"),
    (on_slurm(problem="no JSON", alive=True), State.RUNNING, ""),
    (on_slurm(job=PENDING, problem="no JSON"), State.QUEUED, ""),
    # submitted, nothing of it seen yet
    (on_slurm(job=PENDING), State.QUEUED, "Priority"),
    (on_slurm(job=RUNNING), State.QUEUED, "starting"),
    (on_slurm(submitting=True), State.QUEUED, ""),
    (on_slurm(queue_known=False), State.QUEUED, "squeue does not answer"),
    (on_slurm(), State.LOST, "never started"),
    (on_slurm(cancelled=True), State.CANCELLED, "before it started"),
    (here(submitting=True), State.QUEUED, ""),
    (here(), State.STOPPED, "not started"),
    (here(cancelled=True), State.CANCELLED, "before it started"),
    # at work
    (Facts(status("running"), alive=True), State.RUNNING, ""),
    (on_slurm(status("running"), RUNNING, alive=True), State.RUNNING, ""),
    (on_slurm(status("running"), alive=True, queue_known=False), State.RUNNING, ""),
    (on_slurm(status("failed", at=BEFORE), RUNNING, alive=True), State.RUNNING, ""),
    (on_slurm(status("running"), RUNNING), State.RUNNING, "no sign of life"),
    (on_slurm(status("running"), SUSPENDED), State.RUNNING, "suspended"),
    # done, whatever else there is
    (Facts(status("done")), State.DONE, ""),
    (on_slurm(status("done", at=BEFORE), PENDING, alive=True), State.DONE, ""),
    (on_slurm(status("done"), cancelled=True, queue_known=False), State.DONE, ""),
    # requeued, and waiting
    (on_slurm(status("stopped", SAVED), PENDING), State.QUEUED, "Priority"),
    (on_slurm(status("stopped", LIMIT), PENDING), State.QUEUED, ""),
    (on_slurm(status("running"), PENDING), State.QUEUED, ""),
    (on_slurm(status("stopped", SAVED), RUNNING), State.QUEUED, "starting"),
    (on_slurm(status("stopped", SAVED), COMPLETING), State.QUEUED, "ending"),
    # interrupted
    (on_slurm(status("stopped", SAVED)), State.PREEMPTED, SAVED),
    (on_slurm(status("stopped", LIMIT)), State.TIMEOUT, LIMIT),
    (on_slurm(status("stopped", f"{TERM} (time limit)", job_id="7_0")), State.TIMEOUT, ""),
    (on_slurm(status("stopped", TERM, job_id="7_0")), State.CANCELLED, TERM),
    (on_slurm(status("stopped", TERM, job_id="7_0"), cancelled=True), State.CANCELLED, ""),
    (on_slurm(status("running"), cancelled=True), State.CANCELLED, ""),
    (on_slurm(status("running")), State.LOST, "n1"),
    (on_slurm(status("stopped", KILLED)), State.LOST, KILLED),
    (on_slurm(status("stopped", KILLED), RUNNING), State.LOST, KILLED),  # others share its job
    (here(status("stopped", KILLED), submitting=True), State.LOST, KILLED),
    (here(status("stopped", TERM)), State.STOPPED, TERM),
    (here(status("stopped", TERM), cancelled=True), State.CANCELLED, ""),
    (here(status("stopped", "stopped by SIGINT")), State.STOPPED, "SIGINT"),
    (Facts(status("stopped", "stopped by SIGINT")), State.STOPPED, "SIGINT"),
    (Facts(status("running")), State.LOST, ""),
    # failed, at its last attempt
    (Facts(status("failed", "loss is nan")), State.FAILED, "loss is nan"),
    (on_slurm(status("failed", "loss is nan")), State.FAILED, "loss is nan"),
    (on_slurm(status("failed", "loss is nan"), RUNNING), State.FAILED, "loss is nan"),
    (on_slurm(status("failed", "loss is nan"), COMPLETING), State.FAILED, "loss is nan"),
    (on_slurm(status("failed", "loss is nan"), cancelled=True), State.FAILED, "loss is nan"),
    # failed or killed, and submitted again since
    (on_slurm(status("failed", "nan", at=BEFORE), PENDING), State.QUEUED, ""),
    (on_slurm(status("stopped", KILLED, at=BEFORE), PENDING), State.QUEUED, ""),
    (on_slurm(status("running", at=BEFORE), PENDING), State.QUEUED, ""),
    (here(status("failed", "nan", at=BEFORE), submitting=True), State.QUEUED, ""),
    (on_slurm(status("failed", "nan", at=BEFORE)), State.FAILED, "nan"),  # it never ran again
    (on_slurm(status("stopped", SAVED, at=BEFORE)), State.PREEMPTED, SAVED),
]


def test_every_state_is_in_the_table() -> None:
    assert {state for _, state, _ in TABLE} == set(State)


@pytest.mark.parametrize(("facts", "state", "cause"), TABLE)
def test_what_a_run_is_said_to_be_doing(facts: Facts, state: State, cause: str) -> None:
    said, why = judge(facts)
    assert (said, cause in why) == (state, True), why


DUE = {  # without and with hydra.launcher.retry_failed
    State.MISSING: (True, True),
    State.QUEUED: (False, False),
    State.RUNNING: (False, False),
    State.DONE: (False, False),
    State.FAILED: (False, True),
    State.STOPPED: (True, True),
    State.PREEMPTED: (True, True),
    State.TIMEOUT: (True, True),
    State.CANCELLED: (True, True),
    State.LOST: (True, True),
    State.UNREADABLE: (True, True),
}


@pytest.mark.parametrize("state", State)
def test_what_a_sweep_that_is_issued_again_starts(state: State) -> None:
    assert (is_due(state, False), is_due(state, True)) == DUE[state]


def everything() -> Iterator[Facts]:
    """Every combination of what may be known."""
    causes = [SAVED, LIMIT, TERM, KILLED, "stopped by SIGINT"]
    contents = [{}] + [
        status(state, cause, at, job_id=job_id)
        for state, cause in [*((s, None) for s in ("running", "done", "failed"))]
        + [("stopped", cause) for cause in causes]
        for at in (BEFORE, AFTER)
        for job_id in (None, "7_0")
    ]
    jobs = [None, PENDING, RUNNING, COMPLETING, SUSPENDED]
    yes = (False, True)
    for content, alive, submitting, job in itertools.product(contents, yes, yes, jobs):
        for slurm, known, cancelled in itertools.product(yes, yes, yes):
            if (job and not (slurm and known)) or (submitting and job):
                continue
            more = {"submitting": submitting, "queue_known": known, "cancelled": cancelled}
            yield Facts(content, alive, SUBMITTED, slurm=slurm, job=job, **more)
        yield Facts(content, alive)


def test_nothing_is_started_twice_and_nothing_is_lost_whatever_is_known() -> None:
    for facts in everything():
        state, _ = judge(facts)
        due = is_due(state, False)
        said = facts.status.get("state")
        ended = said == "failed" or str(facts.status.get("cause")).startswith("killed by")
        ended = ended and facts.status["updated"] == AFTER
        if said == "done":
            assert state == State.DONE, facts
        elif facts.alive:
            assert state == State.RUNNING, facts
        elif facts.job and not ended and not facts.cancelled:
            assert state in ONGOING, facts
        elif not facts.job and not facts.submitting and facts.queue_known and said != "failed":
            assert due, facts
        assert not (due and said == "failed" and facts.submitted is None), facts
        assert is_due(state, True) or state in (*ONGOING, State.DONE), facts


# --- squeue --------------------------------------------------------------------------------------


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``squeue`` that prints what is written into this file, and fails if there is none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "squeue"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\nexec cat {folder}/answer\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return folder / "answer"


SWEEP = Path("outputs", "sweep")


def submit(*names: str, launcher: str = "slurm", per_job: int = 1, **changes: Any) -> Submission:
    """Write down a submission as a driver does that has ended since."""
    runs = [Run({"threads": 1}, SWEEP / name) for name in names]
    drafted = submissions.draft(runs, launcher, {}, {}, [], per_job)
    record = replace(drafted, **({"driver": this_process() | {"started": 0.0}} | changes))
    record.write()
    return record


def states() -> dict[str, State]:
    return {row.name: row.state for row in read_sweep(SWEEP).runs}


def test_the_queue_by_submission_and_index(squeue: Path) -> None:
    one, many = submit("x"), submit("a", "b", "c")
    squeue.write_text(
        f"6|N/A|RUNNING|6|n2|{one.name}|None\n"
        f"7|0|RUNNING|7_0|n1|{many.name}|None\n"
        f"7|1|PENDING|7_1||{many.name}|(launch failed | held)\n"
        f"8|N/A|RUNNING|8|n2|somebody's|None\n"
        "CLUSTER: one\n"
    )
    assert query_queue({one.name: None, many.name: None}) == {
        (one.name, 0): Job("6", "RUNNING", "n2", "None"),
        (many.name, 0): Job("7_0", "RUNNING", "n1", "None"),
        (many.name, 1): Job("7_1", "PENDING", "", "(launch failed | held)"),
    }
    assert states() == {
        "x": State.QUEUED,
        "a": State.QUEUED,
        "b": State.QUEUED,
        "c": State.LOST,  # gone from the queue, and never began
    }


def test_a_renamed_job_is_recognized_by_its_id(squeue: Path) -> None:
    submit("a", "b").save("7")
    squeue.write_text("7|1|PENDING|7_1||renamed|Priority\n77|0|PENDING|77_0||renamed|Priority\n")
    assert states() == {"a": State.LOST, "b": State.QUEUED}


def test_runs_that_share_a_job_are_in_its_state(squeue: Path) -> None:
    record = submit("a", "b", "c", per_job=2)
    squeue.write_text(f"7|0|PENDING|7_0||{record.name}|Priority\n")
    assert states() == {"a": State.QUEUED, "b": State.QUEUED, "c": State.LOST}


def test_one_squeue_answers_for_all_and_none_is_asked_without_a_need(squeue: Path) -> None:
    submit("here", launcher="local")
    submit("finished")
    folder = SWEEP / "finished"
    folder.mkdir()
    Status(folder, {}).write(state="done")
    assert states() == {"here": State.STOPPED, "finished": State.DONE}
    assert not (squeue.parent / "asked").exists()

    for n in range(3):
        submit(f"run{n}")
    squeue.write_text("")
    assert set(states().values()) == {State.STOPPED, State.DONE, State.LOST}
    assert len((squeue.parent / "asked").read_text().splitlines()) == 1


def test_a_squeue_that_fails_or_is_not_there_is_no_empty_queue(
    squeue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = submit("a")
    assert query_queue({record.name: None}) is None
    sweep = read_sweep(SWEEP)
    assert not sweep.queue_known
    assert [row.state for row in sweep.runs] == [State.QUEUED]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert query_queue({record.name: None}) is None


# --- records -------------------------------------------------------------------------------------


def test_the_last_submission_of_a_run_counts(squeue: Path) -> None:
    first = submit("a", "b")
    second = submit("b", created=first.created + 1)
    squeue.write_text(
        f"7|1|RUNNING|7_1|n1|{first.name}|None\n8|0|PENDING|8||{second.name}|Priority\n"
    )
    rows = {row.name: row for row in read_sweep(SWEEP).runs}
    assert rows["b"].submission == second and rows["b"].job_id == "8"
    assert rows["a"].state == State.LOST


def test_a_submission_counts_once_it_is_complete(squeue: Path) -> None:
    record = submit("a")
    squeue.write_text("")
    assert states() == {"a": State.LOST}
    (record.folder / "submission.json").unlink()  # its driver was killed just before
    assert states() == {}


def test_a_driver_that_is_at_work_keeps_its_runs(squeue: Path) -> None:
    squeue.write_text("")
    submit("a", driver=this_process())
    assert states() == {"a": State.QUEUED}


def test_a_run_that_never_started_is_explained_by_the_log_of_its_job(squeue: Path) -> None:
    squeue.write_text("")
    record = submit("a", "b", "c")
    record.save("7")
    ends = ["slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some ...", "Killed"]
    for task, end in enumerate(ends):
        (record.folder / f"7_{task}").mkdir()
        (record.folder / f"7_{task}" / f"7_{task}_0_log.out").write_text(f"{end}\n")
    assert [(row.state, row.cause) for row in read_sweep(SWEEP).runs] == [
        (State.LOST, "its job ran out of memory before the run started"),
        (State.LOST, "its job ended before the run started; see sweep logs"),
        (State.LOST, "never started"),
    ]


def test_once_the_job_is_noted_its_driver_does_not_matter(squeue: Path) -> None:
    squeue.write_text("")
    submit("a", driver=this_process()).save("7")
    assert states() == {"a": State.LOST}


def test_a_driver_elsewhere_is_believed_to_be_at_work_for_a_while(squeue: Path) -> None:
    squeue.write_text("")
    elsewhere = this_process() | {"host": "login2"}
    record = submit("a", driver=elsewhere)
    assert states() == {"a": State.QUEUED}
    long_ago = time.time() - SILENT_S - 1
    os.utime(record.folder / "submission.json", (long_ago, long_ago))
    assert states() == {"a": State.LOST}


def test_a_record_is_read_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings, code = {"partition": "gpu"}, {"commit": "c0ffee", "changed": True, "diff": "+ x\n"}
    sweep = Path("outputs", "my sweep")
    runs = [Run({"seed": n}, sweep / f"r{n}") for n in range(3)]
    monkeypatch.setenv("MEMRL_COMMAND", "python run.py -m 'seed=range(3)'")
    record = submissions.draft(runs, "slurm", settings, code, ["/tree"], 2)
    record.write()
    ((again,), _) = submissions.load_all(sweep)
    assert [(r.config, r.folder) for r in again.runs] == [(r.config, r.folder) for r in runs]
    assert (again.jobs, again.cwd, again.job_id) == (2, tmp_path, None)
    assert again.command == "python run.py -m 'seed=range(3)'"
    assert again == replace(record, code={"commit": "c0ffee", "changed": True})
    assert (again.folder / "changes.diff").read_text() == "+ x\n"
    shutil.copytree(tmp_path, tmp_path / "moved")
    assert (
        submissions.load(tmp_path / "moved" / again.folder.relative_to(tmp_path)).cwd.name
        == "moved"
    )
    again.save("77")
    again.cancel([2])
    again.cancel([0, 2])
    ((last,), _) = submissions.load_all(sweep)
    assert (last.job_id, last.cancelled) == ("77", [0, 2])


def test_results_elsewhere_know_where_their_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    here.mkdir()
    monkeypatch.chdir(here)
    record = submissions.draft([Run({}, scratch / "s" / "r")], "slurm", {}, {}, ["/tree"])
    record.write()
    scratch.rename(tmp_path / "larger")
    moved = tmp_path / "larger" / record.folder.relative_to(scratch)
    again = submissions.load(moved)
    assert (again.cwd, again.runs[0].folder) == (here, tmp_path / "larger" / "s" / "r")
    monkeypatch.chdir(tmp_path)
    here.rmdir()
    again = submissions.load(moved)
    assert (again.cwd, again.runs[0].folder) == (tmp_path, Path("larger", "s", "r"))


def test_a_record_of_an_older_version_has_no_command_and_no_number_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [Run({"seed": 0}, Path("outputs", "s", "r"))]
    record = submissions.draft(runs, "local", {}, {}, ["/tree"])
    record.write()
    path = record.folder / "submission.json"
    content = json.loads(path.read_text())
    first = {
        "launcher",
        "settings",
        "code",
        "python_path",
        "per_job",
        "created",
        "driver",
        "job_id",
    }
    content = {key: content[key] for key in first}  # what the first version wrote
    path.write_text(json.dumps(content))
    assert submissions.load(record.folder) == replace(record, command=None, import_path=[])
    (record.folder / "runs.jsonl").write_text("")
    with pytest.raises(CannotContinue, match="it holds 0 runs; some were lost"):
        submissions.load(record.folder)


def test_what_is_torn_costs_no_other_submission(squeue: Path) -> None:
    squeue.write_text("")
    whole, lines, number, torn = submit("a"), submit("b", "c"), submit("d"), submit("e", "f")
    path = lines.folder / "runs.jsonl"
    path.write_text(path.read_text().replace('{"run": "b"', '["run'))
    (number.folder / "submission.json").write_text("7")
    (torn.folder / "submission.json").write_bytes(b'{"launcher": "sl\xff')
    for content in ("null", "5", "{", '["b"]'):
        (whole.folder / "cancelled.json").write_text(content)
        assert whole.cancelled == []
    (SWEEP / "e").mkdir()
    (SWEEP / "e" / "status.json").write_text('{"state": "failed", "updated": null}')
    sweep = read_sweep(SWEEP)
    assert sweep.submissions == [whole]
    assert {row.name: str(row.state) for row in sweep.runs} == {"a": "lost", "e": "failed"}
    assert sweep.progress() == 0
    for name in (f"{path}: ", f"{number.name}/submission", f"{torn.name}/submission"):
        assert sum(name in line for line in sweep.torn) == 1
    with pytest.raises(CannotContinue, match=r"runs\.jsonl: "):
        submissions.load(lines.folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("submission.json", '"command": null', '"command": 7', "command=7: must be text or null"),
        ("submission.json", '"per_job": ', '"per_jobs": ', "per_job is missing"),
        ("submission.json", '"per_job": 1', '"per_job": 0', "per_job and created must be above 0"),
        ("runs.jsonl", '"run": "a"', '"run": ".."', "line 1 holds no run"),
        ("runs.jsonl", '"run": "a"', '"run": "../../a"', "line 1 holds no run"),
        ("runs.jsonl", '"config": {', '"config": [], "no": {', "line 1 holds no run"),
        ("runs.jsonl", '{"run": "a", "config": {"threads": 1}}\n', "", "it holds 0 of 1 runs"),
    ],
)
def test_a_record_of_another_kind_is_refused_in_one_line(
    squeue: Path, file: str, old: str, new: str, message: str
) -> None:
    path = submit("a").folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CannotContinue, match=re.escape(f"{path.name}: {message}")):
        submissions.load(path.parent)
    assert read_sweep(SWEEP).runs == []


def test_names_of_submissions_differ_and_suit_a_shell() -> None:
    runs = [Run({}, Path("outputs", "a b%c", "r"))]
    names = {submissions.draft(runs, "slurm", {}, {}, []).name for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("a-b-c-") for name in names)


@pytest.mark.parametrize(
    ("variable", "printed", "gpus"),
    [
        ("2,3", "", ["2", "3"]),
        ("GPU-1f, GPU-2e", "", ["GPU-1f", "GPU-2e"]),
        ("", "0\n", []),
        (None, "0\n1\nWARNING: infoROM is corrupted at gpu 0000:3B:00.0\n", ["0", "1"]),
        (None, "No devices were found\n", []),
    ],
)
def test_gpus_are_those_of_the_variable_or_of_the_driver(
    variable: str | None,
    printed: str,
    gpus: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == gpus


def test_the_end_of_a_sweep_is_estimated_from_what_its_runs_have_trained() -> None:
    def run(
        state: State,
        progress: float | None = None,
        seconds: float | None = None,
        eta: float | None = None,
    ) -> Run:
        status = {"progress": progress, "seconds": seconds, "eta_s": eta}
        return Run({}, SWEEP / str(next(number)), state=state, status=status)

    number = itertools.count()
    done = [run(State.DONE, 1.0, 100.0, 0), run(State.DONE, 1.0, 300.0, 0), run(State.DONE, 1.0)]
    running, new = run(State.RUNNING, 0.5, 300.0, 300.0), run(State.RUNNING)
    queued, failed = run(State.QUEUED), run(State.FAILED, 0.5, 1.0)

    def eta(*runs: Run) -> float | None:
        return Sweep(SWEEP, [*runs], [], [], True).eta_s()

    assert eta(*done) is None
    assert eta(*done[:2], running) == 300
    mean = (100 + 300 + 600) / 3
    assert eta(*done, running, queued, queued) == pytest.approx(300 + mean)
    assert eta(*done, running, new, queued) == pytest.approx((300 + 2 * mean) / 2)
    assert eta(running, new) == 600  # the longest
    resumed = run(State.RUNNING, 0.75, 900.0)  # its new process has not measured anything yet
    assert eta(resumed, *done) == pytest.approx(200 / 4)
    assert eta(queued, *done) is None and eta(new, queued) is None and eta(*done, failed) is None


def test_all_sweeps_are_listed_with_one_question_to_slurm(
    squeue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit("a").save("7")
    shutil.copytree(SWEEP, "outputs/copy")
    submit("b", "c").save("8")
    squeue.write_text("8|0|RUNNING|8_0|n1|x|\n8|1|PENDING|8_1||x|Priority\n")
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "status"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert (ended.value.code, [row[:2] for row in rows]) == (
        0,
        [["outputs/sweep", "3"], ["outputs/copy", "1"]],
    )
    assert rows[0][-4:] == ["2", "queued,", "1", "lost"]
    assert len(squeue.with_name("asked").read_text().splitlines()) == 1
