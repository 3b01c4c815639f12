"""One run of a submission, in its own process: ``python -m memrl.sweep.child FOLDER INDEX``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def main(folder: str, index: str) -> int:
    """Do the run; return the exit status that ``run.py`` would have.

    A signal before there is anything to save kills: a handler that raised would do so amid an
    import of native code, which may make an ``ImportError`` of it or swallow it.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)  # a job script may have it ignored
    from memrl.experiment import work
    from memrl.run.outcome import BUSY, attempt, log_to_console
    from memrl.run.status import note_failure
    from memrl.sweep.submissions import load

    submission = load(Path(folder))
    run = submission.runs[int(index)]
    log_to_console()
    wait_for_previous_attempt(run.folder)
    try:
        failure = attempt(submission.check_code) or attempt(lambda: work(run.config, run.folder))
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # the job passes on what SLURM sent already
    if failure is None:
        return 0
    line, code = failure
    print(f"error: {line}", file=sys.stderr)
    if code != BUSY:
        note_failure(run.folder, line)
    return code


def wait_for_previous_attempt(folder: Path) -> None:
    """In a job that SLURM restarted, wait until the lock of its previous attempt is stale.

    That process was killed, perhaps on another node, where only its silence tells.
    """
    from memrl.run.lock import SILENT_S, holder

    patience = SILENT_S + 30 if os.environ.get("SLURM_RESTART_COUNT", "0") != "0" else 0
    end = time.monotonic() + patience
    while time.monotonic() < end and (who := holder(folder)):
        print(f"waiting until the previous attempt has ended: {who}", flush=True)
        time.sleep(5)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
