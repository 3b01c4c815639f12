"""Signals stop a run at its next boundary, once it has saved.

Before a run has its folder they end the process as usual: there is nothing to save yet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, NoReturn

HANDLED = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP}
NOTICE = b"\nstopping at the next update, to save first; Ctrl-C again ends at once, unsaved\n"
DELAY_S, EARLY_S = 120.0, 90.0  # `--signal=USR2@120`, and how much earlier it may arrive
CONTINUE_ME = 75  # exit status after SIGUSR2, if it had no other handler


class Stopped(Exception):
    """Stopped by a signal: everything is saved, and the same command continues the run."""

    def __init__(self, signum: int, previous: Any) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}{_reason(signum)}")
        self.signum = signum
        self.previous = previous

    def leave(self) -> NoReturn:
        """End the process as the sender of the signal expects.

        After SIGUSR2 the previous handler is called (submitit's requeues the job); without one the
        exit status is 75. It is 130 after SIGINT, 143 after SIGTERM, 129 for a closed terminal.
        """
        if self.signum == signal.SIGUSR2:
            if callable(self.previous):
                self.previous(self.signum, None)
            raise SystemExit(CONTINUE_ME)
        raise SystemExit(128 + self.signum)


class Signals:
    """Records the first signal that arrives; a second Ctrl-C ends the process at once.

    Handlers can be set in the main thread only; in another one nothing is recorded.
    """

    def __enter__(self) -> Signals:
        self.caught: int | None = None
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            handled = HANDLED - {signal.SIGHUP} if nohup else HANDLED
            self.previous = {signum: signal.signal(signum, self._record) for signum in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.previous.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)

    def stopped(self) -> Stopped | None:
        """Return what to raise, if a signal has arrived."""
        if self.caught is None:
            return None
        return Stopped(self.caught, self.previous.get(self.caught))

    def _record(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT == self.caught:
            raise KeyboardInterrupt
        if self.caught is None:  # SLURM sends SIGTERM right after SIGUSR2
            self.caught = signum
        if signum == signal.SIGINT:  # one update may take half a minute
            with contextlib.suppress(OSError):
                os.write(2, NOTICE)


def _reason(signum: int) -> str:
    """Return why SLURM sent a signal: the time limit is near, or another job needs the node.

    SIGTERM before the limit has many reasons, and SLURM gives none.
    """
    ends = os.environ.get("SLURM_JOB_END_TIME")  # SLURM 23.02 and later
    near = os.environ.get("MEMRL_LIMIT_AT") or (float(ends) - DELAY_S - EARLY_S if ends else None)
    if signum not in (signal.SIGUSR2, signal.SIGTERM) or near is None:
        return ""
    if time.time() >= float(near):
        return " (time limit)"
    return " (preempted)" if signum == signal.SIGUSR2 else ""
