"""Executes a submission's runs as child processes, several at a time.

SLURM jobs and ``hydra/launcher=local`` use it. A run that fails does not affect the others. This
module imports no torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from memrl.run.import_path import python_path
from memrl.run.outcome import BAD_CONFIG, BUSY
from memrl.run.signals import CONTINUE_ME, Signals
from memrl.run.status import get_number, note_failure, read_status, settle
from memrl.sweep.submissions import Submission

POLL_S = 0.1
CANCELLED_POLL_S = 2.0  # between checks for cancelled runs, each of which opens a shared file
TAIL_LINES = 60  # of a failed run's output, repeated in the job's own log
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
# Exit statuses of a run that was told to stop: it saved first, or had nothing to save yet.
STOP_STATUSES = (CONTINUE_ME, *(128 + s for s in STOP_SIGNALS), *(-s for s in STOP_SIGNALS))
LIKELY_REASONS = {"SIGKILL": "out of memory, or kill -9", "SIGSEGV": "a crash of native code"}


@dataclass
class Child:
    """A process that executes one run."""

    index: int  # of the run in its submission
    process: subprocess.Popen[bytes]
    start: int  # size of the log before this attempt, in bytes
    gpu: str | None  # its CUDA_VISIBLE_DEVICES; None: as this process
    began: float = field(default_factory=time.time)  # UTC seconds
    cancelled: bool = False  # told to stop because its run was cancelled


class Pool:
    """Runs of a submission, executed as child processes, ``n_jobs`` at a time.

    Args:
        indices: of the runs, in the order in which they start.
        gpus: as ``CUDA_VISIBLE_DEVICES`` names them. Each run gets the one that the fewest runs
            use. If empty, all runs see the devices that this process sees.

    Attributes:
        failed: indices of runs that failed by themselves, or that a signal killed from outside.
        unfinished: indices of runs that were told to stop.
    """

    def __init__(
        self, submission: Submission, indices: Sequence[int], n_jobs: int, gpus: Sequence[str]
    ) -> None:
        self.submission = submission
        self.waiting = list(indices)
        self.n_jobs = n_jobs
        self.gpus = gpus
        self.children: list[Child] = []
        self.next_cancelled_poll = 0.0
        self.failed: list[int] = []
        self.unfinished: list[int] = []

    def run(self, signals: Signals, tick: Callable[[], object] = lambda: None) -> None:
        """Execute all runs. Once a signal arrives, start no more and wait until all have saved.

        ``tick`` is called at every poll.

        Raises:
            Stopped: a signal arrived, and some runs are not finished.
            KeyboardInterrupt: a second Ctrl-C; the runs were killed.
        """
        stopped = None
        try:
            while self.children or (self.waiting and not stopped):
                while self.waiting and not stopped and len(self.children) < self.n_jobs:
                    index = self.waiting.pop(0)
                    if index not in self.submission.cancelled:
                        self._start(index)
                for child in [c for c in self.children if c.process.poll() is not None]:
                    self.children.remove(child)
                    self._handle_exit(child)
                self._stop_cancelled()
                if stopped is None and (stopped := signals.stopped()):
                    requeue = stopped.signum == signal.SIGUSR2
                    self._send(signal.SIGUSR2 if requeue else signal.SIGTERM)
                tick()
                time.sleep(POLL_S)
        except BaseException as error:  # a full disk, perhaps: leave no run without a parent
            self._send(signal.SIGKILL if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
            raise
        if stopped and (self.waiting or self.unfinished):
            raise stopped

    def _start(self, index: int) -> None:
        submission = self.submission
        paths = dict.fromkeys([*submission.python_path, *python_path()])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        used = [child.gpu for child in self.children]
        gpu = min(self.gpus, key=used.count, default=None)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        # -P: import from the snapshot, never from the current folder.
        command = [sys.executable, "-P", "-u", "-m", "memrl.sweep.child"]
        with open(submission.log(index), "ab") as output:
            start = output.tell()
            process = subprocess.Popen(
                [*command, str(submission.folder), str(index)],
                cwd=submission.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.children.append(Child(index, process, start, gpu))

    def _handle_exit(self, child: Child) -> None:
        code = child.process.returncode
        if code in (0, BUSY):
            return
        name, cause = self.submission.runs[child.index].folder, _cause(code)
        folder = self.submission.cwd / name
        if code != BAD_CONFIG and settle(folder):  # a crash, or a signal, after its last word
            warning = f"warning: {name} is done, although its process ended badly: {cause}"
            tqdm.write(warning, file=sys.stderr)
            return
        if code in STOP_STATUSES:
            if child.index not in self.submission.cancelled:
                self.unfinished.append(child.index)
            return
        self.failed.append(child.index)
        status = read_status(folder)
        ended = get_number(status, "updated") or 0
        if status.get("state") != "failed" or ended < child.began:  # else it says why itself
            note_failure(folder, cause, "stopped" if code < 0 else "failed")
        output = self.submission.log(child.index).read_bytes()[child.start :]
        lines = output.decode(errors="replace").splitlines()
        if code < 0:
            lines.append(cause)
        lines = [f"{name}:", *lines[-TAIL_LINES:]]
        tqdm.write("\n  ".join(lines), file=sys.stderr)  # above a progress bar, if there is one

    def _stop_cancelled(self) -> None:
        """Tell cancelled runs to save and stop; the others continue."""
        if time.monotonic() < self.next_cancelled_poll:
            return
        self.next_cancelled_poll = time.monotonic() + CANCELLED_POLL_S
        cancelled = self.submission.cancelled
        for child in self.children:
            if not child.cancelled and child.index in cancelled:
                child.cancelled = True
                child.process.terminate()

    def _send(self, signum: int) -> None:
        for child in self.children:  # a second signal does no harm
            child.process.send_signal(signum)


def _cause(code: int) -> str:
    """Say why a child ended with this ``returncode``."""
    if code >= 0:
        return f"exit status {code}"
    name = signal.Signals(-code).name
    reason = f" ({LIKELY_REASONS[name]})" if name in LIKELY_REASONS else ""
    return f"killed by {name}{reason}"


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, without importing torch."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if devices is not None:
        return devices.replace(",", " ").split()
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.split("\n") if line.isdecimal()]  # not its warnings
