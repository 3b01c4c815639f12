"""SLURM's queue, by way of ``squeue``.

``sacct`` is not used: where it exists it lags, and many clusters have none.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
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


def squeue(*options: str) -> list[str] | None:
    """Return the lines that ``squeue`` prints, hidden partitions included; None if it fails."""
    command = ["squeue", "--noheader", "--all", *options]
    plain = {k: v for k, v in os.environ.items() if not k.startswith("SQUEUE_")}  # a user's filters
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SQUEUE_S, env=plain)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def query_queue(names: Collection[str]) -> Queue | None:
    """Return the jobs with these names, of any array; None if SLURM does not answer."""
    if not names:
        return {}
    options = ["--array", "--user", str(os.getuid()), "--name", ",".join(sorted(names))]
    lines = squeue(*options, "--format", "%j|%K|%T|%i|%N|%r")
    if lines is None:
        return None
    queue: Queue = {}
    for line in lines:
        name, index, state, job, node, reason = (part.strip() for part in line.split("|", 5))
        key = (name, int(index) if index.isdecimal() else 0)  # N/A: no array
        queue[key] = Job(job, state, node, reason)
    return queue
