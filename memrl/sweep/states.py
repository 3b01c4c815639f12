"""The state of every run of a sweep, from its own files, the submissions and one ``squeue``.

``sacct`` is not asked: where it exists it lags, and on many clusters it does not.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from memrl.run.lock import holder
from memrl.run.status import number, read_status, state_of
from memrl.sweep.submissions import Run, Submission, load_all

SQUEUE_S = 60.0  # a busy controller answers late
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


class State(StrEnum):
    """What a run is."""

    MISSING = "missing"  # asked for, never submitted
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"  # died without a word, or was never started


ONGOING = (State.QUEUED, State.RUNNING)


def is_due(state: State, retry_failed: bool) -> bool:
    """Tell whether a sweep that is issued again starts a run that is in this state."""
    if state == State.FAILED:
        return retry_failed
    return state not in (State.DONE, *ONGOING)


# --- SLURM's queue -------------------------------------------------------------------------------


class Job(NamedTuple):
    """A job in SLURM's queue."""

    id: str
    state: str
    node: str = ""
    reason: str = ""

    @property
    def waiting(self) -> bool:
        """It has not begun, or not begun again."""
        return self.state in WAITING


Queue = dict[tuple[str, int], Job]  # by the submission's name and the index in its array


def squeue(*options: str) -> list[str] | None:
    """Return the lines that ``squeue`` prints, of hidden partitions too; None if it fails."""
    command = ["squeue", "--noheader", "--all", *options]
    plain = {k: v for k, v in os.environ.items() if not k.startswith("SQUEUE_")}  # a user's filters
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SQUEUE_S, env=plain)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def ask_queue(submissions: Iterable[Submission]) -> Queue | None:
    """Return the jobs of these submissions that SLURM knows; None if it does not answer."""
    names = sorted({s.name for s in submissions if s.launcher == "slurm"})
    if not names:
        return {}
    options = ["--array", "--user", str(os.getuid()), "--name", ",".join(names)]
    lines = squeue(*options, "--format", "%j|%K|%T|%i|%N|%r")
    if lines is None:
        return None
    queue: Queue = {}
    for line in lines:
        name, index, state, job, node, reason = (part.strip() for part in line.split("|", 5))
        key = (name, int(index) if index.isdecimal() else 0)  # N/A: no array
        queue[key] = Job(job, state, node, reason)
    return queue


# --- one run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """All that is known of a run.

    Attributes:
        status: its ``status.json``, empty if there is none.
        alive: a process that lives, or may live, holds its lock.
        submitted: when it was submitted last, or None.
        submitting: the driver that submitted it last is still at work.
        slurm: it was submitted to SLURM last.
        job: its job in the queue, or None.
        queue_known: SLURM answered.
        cancelled: it was cancelled since it was submitted.
    """

    status: Mapping[str, Any] = field(default_factory=dict)
    alive: bool = False
    submitted: float | None = None
    submitting: bool = False
    slurm: bool = False
    job: Job | None = None
    queue_known: bool = True
    cancelled: bool = False


def judge(facts: Facts) -> tuple[State, str]:
    """Return a run's state, and its cause or what is to be known, in a few words."""
    state, cause = facts.status.get("state"), str(facts.status.get("cause") or "")
    if state == "done":
        return State.DONE, ""
    if facts.alive:
        return State.RUNNING, ""
    # What its files say may be older than the last submission, which then decides.
    begun = state is not None
    current = begun and (number(facts.status, "updated") or 0) >= (facts.submitted or 0)
    if facts.cancelled and state == "failed":
        return State.FAILED, cause
    if facts.cancelled:
        return State.CANCELLED, "" if begun else "before it started"
    ended = current and (state == "failed" or _was_killed(cause))
    if facts.job and not ended:
        if current and state == "running" and not facts.job.waiting:
            job = facts.job.state.lower()  # suspended, say
            return State.RUNNING, "no sign of life" if job == "running" else job
        if facts.job.waiting:
            return State.QUEUED, facts.job.reason
        return State.QUEUED, "its job is ending" if facts.job.state == "COMPLETING" else "starting"
    if facts.submitted is not None and not current:
        if facts.submitting:
            return State.QUEUED, ""
        if facts.slurm and not facts.queue_known:
            return State.QUEUED, "unless it is lost: squeue does not answer"
        if not begun:
            if facts.slurm:
                return State.LOST, "never started"
            return State.STOPPED, "its sweep ended before it began"
    if not begun:
        return State.MISSING, ""
    if state == "failed":
        return State.FAILED, cause
    return _interrupted(str(state), cause, facts)


def _interrupted(state: str, cause: str, facts: Facts) -> tuple[State, str]:
    if state == "running":
        host = facts.status.get("host")
        return State.LOST, f"died without a word on {host}: node failure, or kill -9"
    if _was_killed(cause):
        return State.LOST, cause
    if "time limit" in cause:
        return State.TIMEOUT, cause
    if "SIGUSR2" in cause:
        return State.PREEMPTED, cause
    if "SIGTERM" in cause and facts.status.get("job_id"):
        return State.CANCELLED, cause
    return State.STOPPED, cause


def _was_killed(cause: str) -> bool:
    return cause.startswith("killed by")


# --- all runs ------------------------------------------------------------------------------------


@dataclass
class Row:
    """A run in a sweep's table.

    Attributes:
        run: its config (empty if no submission names it) and its folder.
        state, cause: what ``judge`` says.
        status: its ``status.json``.
        submission: the last one that names it, or None.
        index: its place there.
        job: its job in the queue.
    """

    run: Run
    state: State
    cause: str
    status: Mapping[str, Any]
    submission: Submission | None
    index: int
    job: Job | None

    @property
    def name(self) -> str:
        """The run's folder, without the sweep's."""
        return self.run.folder.name

    @property
    def job_id(self) -> str:
        """SLURM's job, as ``squeue`` shows it."""
        return self.job.id if self.job else str(self.status.get("job_id") or "")

    @property
    def node(self) -> str:
        """Where it runs, or ran last."""
        host = str(self.status.get("host") or "")
        return (self.job.node if self.job and not self.job.waiting else "") or host


@dataclass
class Sweep:
    """A sweep as it is now.

    Attributes:
        folder: ``outputs/<sweep>``.
        rows: its runs.
        submissions: what was submitted, the oldest first.
        queue_known: SLURM answered, or was not asked.
    """

    folder: Path
    rows: list[Row]
    submissions: list[Submission]
    queue_known: bool

    @property
    def torn(self) -> list[str]:
        """A line for each record that cannot be read: of a submission, or of a run in one."""
        return [line for submission in self.submissions for line in submission.torn]

    def count(self) -> dict[State, int]:
        """Return how many runs are in each state."""
        counts = {state: sum(row.state == state for row in self.rows) for state in State}
        return {state: n for state, n in counts.items() if n}

    def progress(self) -> float:
        """Return the share of the work that is done, 0 to 1."""
        done = sum(number(row.status, "progress") or 0 for row in self.rows)
        return done / max(len(self.rows), 1)


def look(folder: Path, asked: Sequence[Run] = (), others: bool = False) -> Sweep:
    """Find out the state of every run that a sweep's folder or its submissions know, or asked for.

    Args:
        folder: ``outputs/<sweep>``.
        asked: runs to look at; empty: all there are.
        others: look at all others there are as well.
    """
    submissions = load_all(folder)
    latest: dict[str, tuple[Submission, int]] = {}
    for submission in submissions:
        for index, run in submission.known.items():
            latest[run.folder.name] = submission, index
    runs = _known(folder, latest) if others or not asked else {}
    runs |= {run.folder.name: run for run in asked}
    open_names = {name for name in runs if state_of(folder / name) != "done"}
    # The queue before the files: a job that ends meanwhile has left its word there.
    queue = ask_queue(
        {latest[n][0].name: latest[n][0] for n in open_names & latest.keys()}.values()
    )
    driven = {s.name: s.job_id is None and s.driver_alive() for s in submissions}
    cancelled = {s.name: set(s.cancelled) for s in submissions}
    rows = [_row(run, latest.get(name), queue, driven, cancelled) for name, run in runs.items()]
    return Sweep(folder, rows, submissions, queue is not None)


def _known(folder: Path, latest: Mapping[str, tuple[Submission, int]]) -> dict[str, Run]:
    # Below the folder that was asked for: the sweep may have been moved, or be seen from elsewhere.
    runs = {
        name: Run(submission.known[index].config, folder / name)
        for name, (submission, index) in latest.items()
    }
    by_hand = [p.name for p in folder.glob("*") if os.path.exists(p / "status.json")]
    runs |= {name: Run({}, folder / name) for name in sorted({*by_hand} - runs.keys())}
    return runs


def _held(folder: Path) -> bool:
    try:
        return holder(folder) is not None
    except OSError:  # a folder that is closed to us
        return False


def _row(
    run: Run,
    latest: tuple[Submission, int] | None,
    queue: Queue | None,
    driven: Mapping[str, bool],
    cancelled: Mapping[str, set[int]],
) -> Row:
    submission, index = latest or (None, 0)
    facts = Facts()
    status = read_status(run.folder)
    if status.get("state") != "done":
        job = None
        if submission:
            job = (queue or {}).get((submission.name, index // submission.per_job))
        alive = _held(run.folder)
        status = read_status(run.folder)  # after the lock: one that is gone has left its word
        facts = Facts(
            status=status,
            alive=alive and status.get("state") != "done",
            submitted=(submission.created or None) if submission else None,
            submitting=submission is not None and driven[submission.name],
            slurm=submission is not None and submission.launcher == "slurm",
            job=job,
            queue_known=queue is not None,
            cancelled=submission is not None and index in cancelled[submission.name],
        )
    else:
        facts = Facts(status=status)
    return Row(run, *judge(facts), status, submission, index, facts.job)
