"""Runs a submission's runs as child processes, some at a time; one failing leaves the others alone.

It imports no torch: it is what a SLURM job starts, and what ``hydra/launcher=local`` is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memrl.run.lock import locked
from memrl.run.outcome import BUSY, Busy
from memrl.run.signals import CONTINUE_ME, Signals
from memrl.run.status import number, read_status, record_end
from memrl.sweep.submissions import Submission

POLL_S = 0.1
CANCELLED_S = 2.0  # between looks at what was cancelled
TAIL = 60  # lines of a failed run's output that the job's own log repeats
ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)  # to save and end
STOPPED = (CONTINUE_ME, *(128 + s for s in ASKED), *(-s for s in ASKED))  # exit statuses then
DEATHS = {"SIGKILL": "out of memory, or kill -9", "SIGSEGV": "a crash of native code"}


@dataclass
class Child:
    """A process that does one run."""

    index: int
    process: subprocess.Popen[bytes]
    log: Path
    start: int  # of this attempt's output in the log, in bytes
    gpu: str | None
    began: float = field(default_factory=time.time)
    cancelled: bool = False


class Pool:
    """The runs of a submission, or some of them, as processes.

    Args:
        submission: what they belong to.
        indices: which of its runs, in the order they start in.
        n_jobs: how many at a time.
        gpus: devices as ``CUDA_VISIBLE_DEVICES`` names them, of which each run gets the one that
            the fewest runs use; empty: all runs see what this process sees.
        environment: variables to add to each run's.
    """

    def __init__(
        self,
        submission: Submission,
        indices: Sequence[int],
        n_jobs: int,
        gpus: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.submission = submission
        self.left = list(indices)
        self.n_jobs = n_jobs
        self.gpus = list(gpus)
        self.environment = dict(environment or {})
        self.children: list[Child] = []
        self.kills = _kills_for_memory()
        self.next_look = 0.0
        self.failed: list[int] = []  # runs that did not end well, by their own fault
        self.killed: list[int] = []  # runs that something killed
        self.unfinished: list[int] = []  # runs that were told to stop
        self.report: Callable[[str], object] = _to_stderr

    def run(self, signals: Signals, tick: Callable[[], object] = lambda: None) -> None:
        """Run all to their ends; or, once a signal arrives, until those that run have saved.

        Raises:
            Stopped: a signal arrived, and something is left to do.
            KeyboardInterrupt: a second Ctrl-C; the runs are killed.
        """
        stopped = None
        try:
            while self.children or (self.left and not stopped):
                while self.left and not stopped and len(self.children) < self.n_jobs:
                    index = self.left.pop(0)
                    if index not in self.submission.cancelled:
                        self._start(index)
                for child in [c for c in self.children if c.process.poll() is not None]:
                    self.children.remove(child)
                    self._end(child)
                self._stop_cancelled()
                if stopped is None and (stopped := signals.stopped()):
                    asked = signal.SIGUSR2 if stopped.signum == signal.SIGUSR2 else signal.SIGTERM
                    self._send(asked)
                tick()
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            self._send(signal.SIGKILL)
            raise
        except BaseException:  # a full disk, perhaps: no run goes on that nobody looks after
            self._send(signal.SIGTERM)
            raise
        if stopped and (self.left or self.unfinished):
            raise stopped

    def _start(self, index: int) -> None:
        submission = self.submission
        environment = os.environ | self.environment
        paths = [*submission.python_path, *_absolute(environment.get("PYTHONPATH"))]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        used = [child.gpu for child in self.children]
        gpu = min(self.gpus, key=used.count, default=None)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        log = submission.log(index)
        start = log.stat().st_size if log.exists() else 0
        # -P: the snapshot, and not what happens to lie in the current folder, is imported.
        command = [sys.executable, "-P", "-u", "-m", "memrl.sweep.child"]
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [*command, str(submission.folder), str(index)],
                cwd=submission.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.children.append(Child(index, process, log, start, gpu))

    def _end(self, child: Child) -> None:
        code, run = child.process.returncode, self.submission.runs[child.index]
        if code in (0, BUSY):
            return
        if code in STOPPED:
            if child.index not in self.submission.cancelled:
                self.unfinished.append(child.index)
            return
        cause = f"exit status {code}"
        if code < 0:
            name = signal.Signals(-code).name
            cause = f"killed by {name}" + (f" ({DEATHS[name]})" if name in DEATHS else "")
        if code == -signal.SIGKILL and _kills_for_memory() > self.kills:
            self.kills, code, cause = self.kills + 1, 1, "out of memory: the kernel killed it"
        (self.failed if code > 0 else self.killed).append(child.index)
        folder = self.submission.cwd / run.folder
        status = read_status(folder)
        if (
            status.get("state") != "failed" or (number(status, "updated") or 0) < child.began
        ):  # no word of its own
            with contextlib.suppress(Busy, OSError):
                folder.mkdir(parents=True, exist_ok=True)
                with locked(folder):
                    record_end(folder, "failed" if code > 0 else "stopped", cause)
        with open(child.log, "rb") as file:
            file.seek(child.start)
            lines = file.read().decode(errors="replace").splitlines()
        if child.process.returncode < 0:
            lines.append(cause)
        self.report("\n".join([f"{run.folder}:", *("  " + line for line in lines[-TAIL:])]))

    def _stop_cancelled(self) -> None:
        """Tell runs that were cancelled to save and end; the others go on."""
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + CANCELLED_S
        cancelled = self.submission.cancelled
        for child in self.children:
            if not child.cancelled and child.index in cancelled:
                child.cancelled = True
                child.process.terminate()

    def _send(self, signum: int) -> None:
        """Signal every child; it may have had the signal already, which does no harm."""
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signum)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _absolute(python_path: str | None) -> list[str]:
    return [str(Path(part).absolute()) for part in (python_path or "").split(os.pathsep) if part]


def _kills_for_memory() -> int:
    """Return how many processes of our control group the kernel killed for want of memory."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "memory":  # cgroup v1
                path = Path(f"/sys/fs/cgroup/memory{group}/memory.oom_control")
            elif not controllers:
                path = Path(f"/sys/fs/cgroup{group}/memory.events")
            else:
                continue
            words = path.read_text().split() if path.exists() else []
            if "oom_kill" in words:
                return int(words[words.index("oom_kill") + 1])
    return 0


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, without asking torch."""
    given: Any = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [part for part in given.split(",") if part.strip()]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
        lines = done.stdout.splitlines() if done.returncode == 0 else []
        return [str(n) for n in range(sum(line.startswith("GPU ") for line in lines))]
    return []
