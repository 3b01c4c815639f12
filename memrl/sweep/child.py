"""One run of a submission, in its own process: ``python -m memrl.sweep.child FOLDER INDEX``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def main(folder: str, index: str) -> int:
    """Execute the run; return the exit status that ``run.py`` would have.

    Until there is something to save, a signal kills the process. A handler that raised could do so
    during an import of native code, which may swallow the exception or raise ``ImportError``.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)  # a job's script ignores it
    from memrl.experiment import train
    from memrl.run.console import print_optionally
    from memrl.run.import_path import extend_import_path
    from memrl.run.outcome import log_to_console
    from memrl.run.status import execute
    from memrl.sweep.snapshot import label
    from memrl.sweep.submissions import load

    submission = load(Path(folder))
    run = submission.runs[int(index)]
    extend_import_path(submission.import_path)

    def train_submitted() -> None:
        submission.check_code()
        train(run.config, run.folder)

    os.environ["MEMRL_CODE"] = label(submission.code)
    print_optionally()
    log_to_console()
    wait_for_previous_attempt(run.folder)
    try:
        return execute(train_submitted, run.folder)
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # SLURM and the job both send it


def wait_for_previous_attempt(folder: Path) -> None:
    """In a job that SLURM restarted, wait until the previous attempt's lock is stale.

    That attempt was killed, perhaps on another node, where only a lock that is no longer renewed
    shows that it has ended.
    """
    from memrl.run.lock import SILENT_S, holder

    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return
    deadline = time.monotonic() + SILENT_S + 30
    while time.monotonic() < deadline and (who := holder(folder)):
        print(f"waiting for the previous attempt to end: {who}", flush=True)
        time.sleep(5)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
