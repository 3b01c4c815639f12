"""Whatever happens to a sweep on a cluster, issuing it again ends with each run done once.

The cluster is a model: a queue, printed by a real ``squeue``, and runs that write their files with
memrl's own writers. Drivers, runs, nodes and SLURM itself die at any moment.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from memrl.run.files import write_whole
from memrl.run.lock import SILENT_S, holder, this_process
from memrl.run.status import Status, record_end
from memrl.sweep import submissions
from memrl.sweep.states import State, Sweep, is_due, read_sweep
from memrl.sweep.submissions import Run, Submission, load_all

SWEEP = Path("outputs", "sweep")
RUNS = {f"run{n}": Run({"threads": 1}, SWEEP / f"run{n}") for n in range(5)}
NAMES = set(RUNS)
ARRAY = 2  # jobs that one submission may have
KILLED = "killed by SIGKILL (out of memory, or kill -9)"
STEPS = 40  # of a history


@dataclass
class Job:
    """A job in the queue: some runs of a submission."""

    record: Submission
    index: int
    id: str
    state: str = "PENDING"
    restarts: int = 0
    waiting: set[str] = field(default_factory=set)  # for the lock of a process on a dead node
    ended: set[str] = field(default_factory=set)  # runs that failed or were killed in this job

    @property
    def indices(self) -> list[int]:
        first = self.index * self.record.per_job
        return list(range(len(self.record.runs)))[first : first + self.record.per_job]

    @property
    def names(self) -> set[str]:
        return {self.record.runs[n].folder.name for n in self.indices}

    def __repr__(self) -> str:
        return f"{self.id} {self.state} {self.names}"


@dataclass
class Process:
    """A run that is being trained."""

    status: Status
    host: str
    job: Job | None


class Cluster:
    """A cluster, the files of a sweep, and someone who issues it again and again.

    Args:
        cwd: where the sweep is issued.
        dice: decides what happens.
        per_job: how many runs share a job.
    """

    def __init__(self, cwd: Path, dice: random.Random, per_job: int) -> None:
        self.cwd, self.dice, self.per_job = cwd, dice, per_job
        self.jobs: list[Job] = []
        self.at_work: dict[str, Process] = {}
        self.silent: set[str] = set()  # runs whose node died a moment ago: nobody can know yet
        self.failed: set[str] = set()  # at their last attempt
        self.cancelled: set[str] = set()  # by ``memrl.sweep cancel``, since they were submitted
        self.done: Counter[str] = Counter()
        self.submitted = 0  # arrays
        self.latest: dict[str, Submission] = {}  # of each run

    def live(self) -> None:
        """Let one thing happen of those that can."""
        working = [name for name, process in self.at_work.items() if process.job]
        by_hand = [name for name, process in self.at_work.items() if not process.job]
        free = sorted(NAMES - set(self.done) - set(self.at_work) - self.silent)
        lists: list[tuple[int, Callable[[Any], None], Sequence[Any]]] = [
            (3, self.issue, [self.some(), sorted(NAMES)]),
            (1, self.issue_while_squeue_fails, [self.some()]),
            (1, self.check_status, [None]),
            (1, self.pass_time, [None]),
            (4, self.start, self.in_state("PENDING")),
            (5, self.finish, working),
            (2, self.preempt, self.in_state("RUNNING")),
            (1, self.lose_node, self.in_state("RUNNING")),
            (1, self.cancel, [job for job in self.jobs if job.state != "COMPLETING"]),
            (3, self.complete, self.in_state("COMPLETING")),
            (1, self.train_by_hand, free),
            (1, self.finish, by_hand),
            (1, self.press_ctrl_c, by_hand),
        ]
        possible = [(weight, do, what) for weight, do, what in lists if what]
        ((_, do, what),) = self.dice.choices(possible, [weight for weight, *_ in possible])
        chosen = self.dice.choice(what)
        print(do.__name__, chosen or "")  # pytest shows it if the history ends badly
        do(chosen)

    def some(self) -> list[str]:
        return self.dice.sample(sorted(NAMES), self.dice.randint(1, len(NAMES)))

    def in_state(self, state: str) -> list[Job]:
        return [job for job in self.jobs if job.state == state]

    def coin(self) -> bool:
        return self.dice.random() < 0.5

    # --- what SLURM says -------------------------------------------------------------------------

    def look(self, names: Collection[str], answers: bool = True) -> Sweep:
        lines = []
        for job in self.jobs:
            index = job.index if job.record.jobs > 1 else "N/A"
            array = job.id.partition("_")[0]
            words = (array, index, job.state, job.id, "n1", job.record.name, "None")
            lines.append("|".join(map(str, words)) + "\n")
        answer = self.cwd / "answer"
        answer.write_text("".join(lines)) if answers else answer.unlink(missing_ok=True)
        return read_sweep(SWEEP, [RUNS[name] for name in names])

    # --- the command of the sweep ----------------------------------------------------------------

    def issue(self, names: Collection[str]) -> None:
        """The driver may be killed before ``sbatch``, or just after it."""
        dies = self.dice.choice(["never", "never", "before", "after"])
        self.submit(names, self.dice.random() < 0.3, dies)

    def submit(
        self, names: Collection[str] = NAMES, retry: bool = False, dies: str = "never"
    ) -> set[str]:
        """Submit what is due, and return it."""
        sweep = self.look(names)
        assert sweep.queue_known
        due = [row.name for row in sweep.runs if is_due(row.state, retry)]
        self.check_plan(names, due, retry)
        size = ARRAY * self.per_job
        for part in [due[n : n + size] for n in range(0, len(due), size)]:
            runs = [RUNS[name] for name in part]
            record = submissions.draft(runs, "slurm", {}, {}, [], self.per_job)
            record.write()
            self.latest |= dict.fromkeys(part, record)
            assert {row.state for row in self.look(part).runs} == {State.QUEUED}
            if dies != "before":
                self.submitted += 1
                ids = [f"{self.submitted}_{n}" for n in range(record.jobs)]
                self.jobs += [Job(record, n, job_id) for n, job_id in enumerate(ids)]
                self.cancelled -= set(part)
            if dies != "never":
                dead = replace(record, driver=record.driver | {"started": 0.0})
                dead.save(None)
                break
            record.save(str(self.submitted))
        return set(due)

    def check_plan(self, names: Collection[str], due: Collection[str], retry: bool) -> None:
        for name in names:
            jobs = [job for job in self.jobs if name in job.names]
            last = [job for job in jobs if job.record is self.latest[name]]
            if name in self.done or name in self.at_work or name in self.silent:
                assert name not in due
            elif any(name in job.ended for job in jobs) or (name in self.cancelled and jobs):
                continue  # its job may end, or be requeued with others and do it again
            elif len(jobs) > len(last) and self.per_job > 1:
                continue  # so did an older one; what starts second finds it locked or done
            elif name in self.cancelled & self.failed:
                continue  # it was to be retried
            elif last:
                assert name not in due
            else:
                assert (name in due) == (retry or name not in self.failed)

    def issue_while_squeue_fails(self, names: list[str]) -> None:
        """It is refused, unless nothing was ever submitted that is not done."""
        if self.look(names, answers=False).queue_known:
            submitted = {run.folder.name for record in load_all(SWEEP)[0] for run in record.runs}
            assert not submitted & (set(names) - set(self.done))

    def check_status(self, _: None) -> None:
        for row in self.look([]).runs:
            if row.name in self.done:
                assert row.state == State.DONE
            elif row.name in self.at_work or row.name in self.silent:
                assert row.state == State.RUNNING

    # --- jobs ------------------------------------------------------------------------------------

    def start(self, job: Job) -> None:
        self.start_job(job, self.dice.choice(["here", "n1"]))

    def start_job(self, job: Job, host: str) -> None:
        job.state = "RUNNING"
        for name in sorted(job.names):
            busy = holder(SWEEP / name) is not None
            assert busy == (name in self.at_work or name in self.silent)
            skipped = [run.name for run in job.record.runs].index(name) in job.record.cancelled
            skipped |= name in self.done or (job.restarts > 0 and name in job.ended & self.failed)
            if busy and job.restarts and not skipped:
                job.waiting.add(name)
            elif not busy and not skipped:
                self.train(name, host, job)
        self.leave_if_over(job)

    def train(self, name: str, host: str, job: Job | None) -> None:
        folder = SWEEP / name
        folder.mkdir(exist_ok=True)
        owner = this_process() | ({"host": host} if host != "here" else {})
        write_whole(folder / "lock", json.dumps(owner).encode())
        status = Status(folder, {})
        status.update(host=owner["host"], job_id=job.id if job else None)
        status.write()
        self.at_work[name] = Process(status, host, job)
        self.failed.discard(name)
        if job:
            job.ended.discard(name)

    def end(self, name: str, **fields: Any) -> Process:
        """Let a run's process write its last word and go."""
        process = self.at_work.pop(name)
        process.status.write(**fields)
        (SWEEP / name / "lock").unlink()
        return process

    def leave_if_over(self, job: Job) -> None:
        if not job.waiting and all(p.job is not job for p in self.at_work.values()):
            self.leave(job)

    def leave(self, job: Job) -> None:
        """It may be seen in the queue for a while, ending."""
        if self.coin():
            job.state = "COMPLETING"
        else:
            self.jobs.remove(job)

    def complete(self, job: Job) -> None:
        self.jobs.remove(job)

    def stop(self, job: Job, cause: str, requeue: bool) -> None:
        """All that the job does saves; then SLURM takes the job away or puts it back."""
        for name in [name for name, p in self.at_work.items() if p.job is job]:
            self.end(name, state="stopped", cause=cause)
        self.put_back(job, requeue)

    def put_back(self, job: Job, requeue: bool) -> None:
        job.waiting.clear()
        if requeue:
            job.state, job.restarts = "PENDING", job.restarts + 1
        else:
            self.leave(job)

    def preempt(self, job: Job) -> None:
        why = self.dice.choice(["time limit", "preempted"])
        self.stop(job, f"stopped by SIGUSR2 ({why})", requeue=self.coin())

    def lose_node(self, job: Job) -> None:
        for name in [name for name, p in self.at_work.items() if p.job is job]:
            self.die(self.at_work.pop(name), name)
        self.put_back(job, requeue=self.coin())

    def cancel(self, job: Job) -> None:
        """By ``memrl.sweep cancel``, which takes notes, or by ``scancel`` alone."""
        if self.coin():
            job.record.cancel(job.indices)
            self.cancelled |= job.names
        if job.state == "PENDING":
            self.jobs.remove(job)
        else:
            self.stop(job, "stopped by SIGTERM", requeue=False)

    # --- runs ------------------------------------------------------------------------------------

    def finish(self, name: str) -> None:
        self.finish_run(name, self.dice.choice(["done", "done", "failed", "killed"]))

    def finish_run(self, name: str, how: str) -> None:
        job = self.at_work[name].job
        if how == "done":
            self.end(name, state="done", progress=1.0)
            self.done[name] += 1
        elif how == "failed":
            self.end(name, state="failed", cause="train/loss is nan")
            self.failed.add(name)
            for other in self.jobs:
                other.ended |= other.names & {name}
        elif job:  # which notices, and notes it
            self.end(name)
            record_end(SWEEP / name, "stopped", KILLED)
            job.ended.add(name)
        else:
            self.die(self.at_work.pop(name), name)
        if job:
            self.leave_if_over(job)

    def die(self, process: Process, name: str) -> None:
        """Nothing is saved or said; a process on another host may be alive for all we know."""
        if process.host == "here":
            owner = json.loads((SWEEP / name / "lock").read_text()) | {"started": 0.0}
            write_whole(SWEEP / name / "lock", json.dumps(owner).encode())
        else:
            self.silent.add(name)

    def train_by_hand(self, name: str) -> None:
        """Without any launcher: ``python run.py``, on the login node."""
        (SWEEP / name).mkdir(parents=True, exist_ok=True)
        self.train(name, "here", None)

    def press_ctrl_c(self, name: str) -> None:
        self.end(name, state="stopped", cause="stopped by SIGINT")

    def pass_time(self, _: None = None) -> None:
        """Longer than a process on another host may be silent: make all that is written older."""
        for record in load_all(SWEEP)[0]:
            replace(record, created=record.created - SILENT_S - 1).save(record.job_id)
        for path in SWEEP.glob("*/status.json"):
            content = json.loads(path.read_text())
            content["updated"] -= SILENT_S + 1
            write_whole(path, json.dumps(content).encode())
        for path in (*SWEEP.glob("*/status.json"), *SWEEP.glob("*/lock")):
            os.utime(path, (path.stat().st_mtime - 2 * SILENT_S,) * 2)
        for process in self.at_work.values():
            process.status.write()  # the heartbeat
        self.silent.clear()
        for job in self.jobs:
            for name in sorted(job.waiting):
                if holder(SWEEP / name) is None and name not in self.done:
                    self.train(name, "n1", job)
            job.waiting.clear()
        for job in self.in_state("RUNNING"):
            self.leave_if_over(job)

    # --- the end ---------------------------------------------------------------------------------

    def settle(self) -> None:
        """In the end all is well, and it takes one more command to make it so."""
        self.work_off()
        self.submit()
        self.work_off()
        states = {row.name: row.state for row in self.look(NAMES).runs}
        assert {name for name, state in states.items() if state == State.FAILED} == self.failed
        assert {name for name, state in states.items() if state == State.DONE} == set(self.done)
        assert set(self.done) | self.failed == NAMES
        assert self.submit() == set()
        assert self.submit(retry=True) == self.failed
        self.work_off()
        assert self.done == dict.fromkeys(NAMES, 1)
        assert {path.name for path in SWEEP.glob("[!.]*")} == NAMES
        assert self.submit(retry=True) == set()

    def work_off(self) -> None:
        """Nothing more goes wrong: all that is queued or at work is done."""
        while self.jobs or self.at_work or self.silent:
            self.pass_time()
            for name in list(self.at_work):
                self.finish_run(name, "done")
            for job in list(self.jobs):
                if job.state == "COMPLETING":
                    self.jobs.remove(job)
                elif job.state == "PENDING":
                    self.start_job(job, "n1")


@pytest.mark.parametrize("per_job", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_any_history_ends_with_each_run_done_once(
    seed: int, per_job: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\nexec cat {tmp_path}/answer\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    cluster = Cluster(tmp_path, random.Random(seed), per_job)
    for _ in range(STEPS):
        cluster.live()
    cluster.settle()
