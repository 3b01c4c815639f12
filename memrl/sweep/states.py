"""The state of every run of a sweep, from its own files, the submissions and one ``squeue``."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from memrl.run.files import Unreadable
from memrl.run.lock import holder
from memrl.run.outcome import in_one_line
from memrl.run.status import END_OF_TIME, get_number, load_status, read_status
from memrl.sweep.queue import Job, list_jobs, query_queue
from memrl.sweep.submissions import Run, Submission, load_all


class State(StrEnum):
    """The state of a run."""

    MISSING = "missing"  # requested, never submitted
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"  # died unexpectedly, or was never started
    UNREADABLE = "unreadable"  # its status.json exists but cannot be read


ONGOING = (State.QUEUED, State.RUNNING)
NEVER_STARTED = "never started"
LOG_END = 2**16  # bytes of a job's log that may say how it ended


def is_due(state: str, retry_failed: bool) -> bool:
    """Return True if the same command again starts a run that is in this state."""
    if state == State.FAILED:
        return retry_failed
    return state not in (State.DONE, *ONGOING)


# --- one run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What a run's state is judged by."""

    status: Mapping[str, Any] = field(default_factory=dict)  # status.json, empty if there is none
    alive: bool = False  # a process that lives, or may live, holds its lock
    submitted: float | None = None  # the last time, UTC seconds
    submitting: bool = False  # the process that last submitted it is still at work
    slurm: bool = False  # it was last submitted to SLURM
    job: Job | None = None  # in the queue
    queue_known: bool = True  # SLURM answered
    cancelled: bool = False  # since it was submitted
    problem: str = ""  # why status.json cannot be read, if it is there


def judge(facts: Facts) -> tuple[State, str]:
    """Return a run's state, and its cause or what else is worth knowing, in a few words."""
    state, cause = facts.status.get("state"), str(facts.status.get("cause") or "")
    if state == "done":
        return State.DONE, ""
    if facts.alive:
        return State.RUNNING, ""
    if facts.cancelled:
        if state == "failed":
            return State.FAILED, cause
        return State.CANCELLED, "before it started" if state is None else ""
    # What its files say may be older than the last submission, which then decides.
    updated = get_number(facts.status, "updated") or 0
    current = state is not None and updated >= (facts.submitted or 0)
    has_ended = current and (state == "failed" or cause.startswith("killed by"))
    if facts.job and not has_ended:
        return _in_queue(facts.job, has_started=current and state == "running")
    if facts.submitted is not None and not current:
        if facts.submitting:
            return State.QUEUED, ""
        if facts.slurm and not facts.queue_known:
            return State.QUEUED, "unless it is lost: squeue does not answer"
        if state is None and not facts.problem:
            if facts.slurm:
                return State.LOST, NEVER_STARTED
            return State.STOPPED, "not started: its sweep ended first"
    if facts.problem:
        return State.UNREADABLE, facts.problem
    if state is None:
        return State.MISSING, ""
    if state == "running":
        host = facts.status.get("host")
        return State.LOST, f"died unexpectedly on {host}: node failure, or kill -9"
    return _ended(str(state), cause, in_job=bool(facts.status.get("job_id")))


def _in_queue(job: Job, has_started: bool) -> tuple[State, str]:
    if job.waiting:
        return State.QUEUED, job.reason
    if has_started:  # but no process holds its lock
        state = job.state.lower()  # suspended, say
        return State.RUNNING, "no sign of life" if state == "running" else state
    return State.QUEUED, "its job is ending" if job.state == "COMPLETING" else "starting"


def _ended(state: str, cause: str, in_job: bool) -> tuple[State, str]:
    if state == "failed":
        return State.FAILED, cause
    if cause.startswith("killed by"):
        return State.LOST, cause
    if "time limit" in cause:
        return State.TIMEOUT, cause
    if "SIGUSR2" in cause:
        return State.PREEMPTED, cause
    if "SIGTERM" in cause and in_job:
        return State.CANCELLED, cause
    return State.STOPPED, cause


# --- all runs ------------------------------------------------------------------------------------


@dataclass
class Sweep:
    """A sweep as it is now."""

    folder: Path  # <outputs>/<sweep>
    runs: list[Run]  # and their states
    submissions: list[Submission]  # the oldest first
    torn: list[str]  # a line for each submission that cannot be read
    queue_known: bool  # SLURM answered, or did not have to

    @property
    def is_active(self) -> bool:
        """True if a run is queued or running."""
        return any(run.state in ONGOING for run in self.runs)

    def count(self) -> dict[State, int]:
        """Return how many runs are in each state."""
        counts = Counter(run.state for run in self.runs)
        return {state: counts[state] for state in State if state in counts}

    def progress(self) -> float:
        """Return the share of the work that is done, 0 to 1."""
        done = sum(run.number("progress") or 0 for run in self.runs)
        return done / max(len(self.runs), 1)

    def seconds(self) -> float | None:
        """Return how long its runs have trained, as far as they say; None if none says it."""
        known = [seconds for run in self.runs if (seconds := run.number("seconds")) is not None]
        return sum(known) if known else None

    def eta_s(self) -> float | None:
        """Estimate the seconds until no run is queued or running; None if nothing tells.

        What is left of these runs is divided among those that are running now. A run that does not
        say what is left of it counts as the mean of those that are running or done.
        """
        running = [run for run in self.runs if run.state == State.RUNNING]
        etas = {run.name: eta for run in self.runs if (eta := run.number("eta_s")) is not None}
        whole = [
            seconds + etas[run.name]
            for run in self.runs
            if run.state in (State.RUNNING, State.DONE)
            if run.name in etas and (seconds := run.number("seconds"))
        ]
        if not running or not whole:
            return None
        mean = sum(whole) / len(whole)
        work = {
            run.name: etas.get(run.name, mean * (1 - (run.number("progress") or 0)))
            for run in self.runs
            if run.state in ONGOING
        }
        eta = max(sum(work.values()) / len(running), *(work[run.name] for run in running))
        return eta if math.isfinite(eta) else None

    def last_activity(self) -> float | None:
        """Return when a run last wrote its status, or was submitted; in UTC seconds."""
        times = [run.number("updated") or 0 for run in self.runs]
        times += [s.created for s in self.submissions if s.created < END_OF_TIME]
        return max(times, default=0) or None


def read_sweep(
    folder: Path,
    requested: Sequence[Run] = (),
    others: bool = False,
    jobs: Callable[[], list[str] | None] = list_jobs,
) -> Sweep:
    """Return the state of the requested runs of ``<outputs>/<sweep>``, or of all there are.

    With ``others``, runs that were not requested are read too. ``jobs`` lists SLURM's queue; it is
    not called where no run can be in it.
    """
    submissions, torn = load_all(folder)
    latest = {run.name: run for submission in submissions for run in submission.runs}
    # Below the folder as it is named here: the sweep may have been moved.
    runs = {name: replace(run, folder=folder / name) for name, run in latest.items()}
    if requested and not others:
        runs = {}
    else:
        by_hand = [path.name for path in folder.glob("*") if os.path.lexists(path / "status.json")]
        runs |= {name: Run({}, folder / name) for name in sorted({*by_hand} - runs.keys())}
    for run in requested:
        known = latest.get(run.name, run)
        runs[run.name] = replace(run, submission=known.submission, index=known.index)
    for run in runs.values():
        run.status, run.state = read_status(run.folder), State.DONE
    unfinished = [run for run in runs.values() if run.status.get("state") != "done"]
    submitted = [run.submission for run in unfinished if run.submission]
    # The queue before the files: a job that ends in between has written them by then.
    queue = query_queue({s.name: s.job_id for s in submitted if s.launcher == "slurm"}, jobs)
    submitting = {
        s.name: s.job_id is None and s.ended is None and s.driver_alive() for s in submissions
    }
    cancelled = {s.name: s.cancelled for s in submissions}
    for run in unfinished:
        alive = _has_holder(run.folder)
        run.status, problem = _load(run.folder)  # after the lock: written before it is released
        facts = Facts(run.status, alive, queue_known=queue is not None, problem=problem)
        if s := run.submission:
            run.job = (queue or {}).get((s.name, run.index // s.per_job))
            facts = replace(
                facts,
                submitted=s.created,
                submitting=submitting[s.name],
                slurm=s.launcher == "slurm",
                job=run.job,
                cancelled=run.index in cancelled[s.name],
            )
        run.state, run.cause = judge(facts)
        if run.cause == NEVER_STARTED and run.submission:
            run.cause = _end_of_job(run.submission, run.index) or NEVER_STARTED
    return Sweep(folder, list(runs.values()), submissions, torn, queue is not None)


def _end_of_job(submission: Submission, index: int) -> str | None:
    """Return how the job of a run that never started ended, by its log; None without one."""
    paths = [path for path in submission.job_logs(index) if path.is_file()]
    for path in paths[-2:]:  # its .err, if that is apart, and its .out
        text = ""
        with contextlib.suppress(OSError), open(path, "rb") as file:
            file.seek(max(path.stat().st_size - LOG_END, 0))
            text = file.read(LOG_END).decode(errors="replace")
        if re.search(r"^(slurmstepd|srun)\S* .*(oom.kill|out of memory)", text, re.M | re.I):
            return "its job ran out of memory before the run started"
    return "its job ended before the run started; see sweep logs" if paths else None


def _load(folder: Path) -> tuple[Mapping[str, Any], str]:
    """Return a run's status, and why it cannot be read if it is there."""
    try:
        return load_status(folder), ""
    except (FileNotFoundError, NotADirectoryError):
        return {}, ""
    except (OSError, Unreadable) as error:
        return {}, in_one_line(error)


def _has_holder(folder: Path) -> bool:
    try:
        return holder(folder) is not None
    except OSError:  # a folder that is closed to us
        return False
