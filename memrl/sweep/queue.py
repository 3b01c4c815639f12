"""SLURM's queue, by way of ``squeue``.

``sacct`` is not used: where it exists it lags, and many clusters have none.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from typing import NamedTuple

SQUEUE_S = 60.0  # a busy controller answers late
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


class Job(NamedTuple):
    """A job in SLURM's queue."""

    id: str
    state: str
    node: str = ""
    reason: str = ""

    @property
    def waiting(self) -> bool:
        """It has not started, or not started again."""
        return self.state in WAITING


Queue = dict[tuple[str, int], Job]  # by the submission's name and the index in its array


def environment_without(prefix: str) -> dict[str, str]:
    """Return this process's environment without a user's defaults for one of SLURM's commands."""
    return {key: value for key, value in os.environ.items() if not key.startswith(prefix)}


def squeue(*options: str) -> list[str] | None:
    """Return the lines that ``squeue`` prints, hidden partitions included; None if it fails."""
    command = ["squeue", "--noheader", "--all", *options]
    plain = environment_without("SQUEUE_")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SQUEUE_S, env=plain)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def list_jobs() -> list[str] | None:
    """Return a line for each of the user's jobs, tasks of arrays apart; None if SLURM is silent."""
    options = ["--array", "--user", str(os.getuid())]
    return squeue(*options, "--format", "%F|%K|%T|%i|%N|%j|%r")


def query_queue(
    submissions: Mapping[str, str | None], jobs: Callable[[], list[str] | None] = list_jobs
) -> Queue | None:
    """Return the jobs of these submissions; None if SLURM does not answer.

    Args:
        submissions: the job id of each submission by its name, or None if the process that
            submitted it could not record one. Jobs are then recognized by their name, which they
            share with the submission unless the cluster or its user renamed them.
        jobs: lists all jobs; not called if there is no submission.
    """
    if not submissions:
        return {}
    names = {job_id: name for name, job_id in submissions.items() if job_id}
    if (lines := jobs()) is None:
        return None
    queue: Queue = {}
    for line in lines:
        parts = [part.strip() for part in line.split("|", 6)]
        if len(parts) < 7:  # "CLUSTER: ..." where there are several
            continue
        array, index, state, job, node, name, reason = parts
        name = names.get(array, name)
        if name in submissions:
            key = (name, int(index) if index.isdecimal() else 0)  # N/A: no array
            queue[key] = Job(job, state, node, reason)
    return queue
