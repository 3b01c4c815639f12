"""SLURM: arrays of jobs, submitted with submitit; a job executes a pool of runs."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from memrl.run.console import print_optionally
from memrl.run.lock import job_id
from memrl.run.outcome import CannotContinue, Failure, in_one_line
from memrl.run.signals import EARLY_S, Signals, Stopped
from memrl.run.status import read_status
from memrl.sweep.pool import Pool, visible_gpus
from memrl.sweep.queue import environment_without, query_queue, squeue
from memrl.sweep.snapshot import ROOT, label
from memrl.sweep.submissions import Submission, load

MAX_ARRAY_SIZE = 1001  # SLURM's own default
OPTIONS = (  # keys that are options of sbatch as they are
    *("partition", "account", "qos", "constraint", "comment", "exclude", "gres"),
    *("cpus_per_task", "cpus_per_gpu", "gpus_per_node", "gpus_per_task"),
    *("mem_per_gpu", "mem_per_cpu"),
)
# Starts Python with both signals ignored: SLURM requeues a preempted job that is still running, but
# not one that the signal killed before Python could handle it.
IGNORE_SIGNALS = 'sh -c \'trap "" USR2 TERM; exec "$0" "$@"\''


# --- on the login node ---------------------------------------------------------------------------


def max_array_size() -> int:
    """Return how many tasks an array of this cluster may have."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "show", "config"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if match := re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.M):
            return max(int(match[1]), 1)
    return MAX_ARRAY_SIZE


# What sbatch says when it did not reach SLURM: no daemon, or no configuration that names one.
NOTHING_SENT = ("connect failure", "configuration source", "process configuration file")


class Executor(submitit.SlurmExecutor):
    """submitit's executor: writes the script, calls ``sbatch``, requeues jobs."""

    @classmethod
    def affinity(cls) -> int:
        """Claim to be usable anywhere: a dry run needs no SLURM."""
        return 2

    def script(self, jobs: int) -> str:
        """Return the script that ``sbatch`` gets for an array of ``jobs`` jobs."""
        if jobs > 1:
            self.parameters["map_count"] = jobs
        return self._make_submission_file_text(self._submitit_command_str, "")


def executor(submission: Submission, parallel: int) -> Executor:
    """Return the executor for a submission's jobs, of which ``parallel`` run at a time."""
    settings = submission.settings
    tree = submission.python_path[0]
    result = Executor(
        submission.submitit_folder,
        max_num_timeout=settings["max_num_timeout"],
        python=f"{IGNORE_SIGNALS} {shlex.quote(sys.executable)}",
    )
    options = {key: settings[key] for key in OPTIONS if settings[key] is not None}
    if settings["mem_gb"] is not None:
        options["mem"] = f"{math.ceil(settings['mem_gb'] * 1024)}MB"  # 0 would be all
    if settings["cpus_per_gpu"] is None:
        threads = max(run.config["threads"] for run in submission.runs) * submission.per_job
        options.setdefault("cpus_per_task", threads)
    result.update_parameters(
        job_name=submission.name,
        time=settings["timeout_min"],
        nodes=1,
        ntasks_per_node=1,
        signal_delay_s=settings["signal_delay_s"],
        array_parallelism=parallel,
        stderr_to_stdout=settings["stderr_to_stdout"],
        wckey=None,  # submitit sets one, which some clusters reject
        setup=[
            f"export PYTHONPATH={shlex.quote(tree)}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export SLURM_EXPORT_ENV=ALL",  # even if sbatch is told to export nothing
            # Since SLURM 22.05 srun does not inherit it from sbatch.
            '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
            *(settings["setup"] or []),
        ],
        additional_parameters={
            "chdir": tree,
            "requeue": True,
            # The one that runs handle, whatever signal submitit is told to use.
            "signal": f"USR2@{settings['signal_delay_s']}",
            **{k: v for k, v in settings["additional_parameters"].items() if v is not None},
        },
        **options,
    )
    return result


def start(submission: Submission, executor: Executor) -> str:
    """Submit all jobs of a submission as one array; return the id of that job.

    If this process is in a job itself, it loses that job's variables, and the user's defaults for
    ``sbatch``, which would override what the script says.

    Raises:
        Failure: it was not submitted, and its record is removed; or it is unknown whether it was,
            which the message says.
    """
    # The submitted jobs would inherit them.
    for name in os.environ.keys() - {"SLURM_CONF", "SLURM_CLUSTERS"}:
        if name.startswith(("SLURM_", "SBATCH_", "SUBMITIT_")):
            del os.environ[name]
    try:
        # submitit prints sbatch's message, which the error holds as well.
        with contextlib.redirect_stderr(io.StringIO()):
            first, *_ = executor.map_array(Task(str(submission.folder)), range(submission.jobs))
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        lines = re.findall(r"sbatch: (?:error: )?(.*)", str(error)) or [in_one_line(error)]
        message = f"sbatch: {'; '.join(dict.fromkeys(lines))}"
        # After these nothing was sent; after others, such as a time-out, SLURM may have the job.
        sent = not any(text in message for text in NOTHING_SENT)
        if sent and not _withdrawn(submission):
            doubt = f"it may have been submitted all the same: squeue --name={submission.name}"
            raise Failure(f"{message}; {doubt}") from None
        (submission.folder / "submission.json").unlink(missing_ok=True)  # it counts: first
        shutil.rmtree(submission.folder, ignore_errors=True)
        raise Failure(message) from None
    array = str(first.job_id).split("_")[0]
    submission.save(array)
    return array


def _withdrawn(submission: Submission) -> bool:
    """Cancel what a failed ``sbatch`` submitted all the same; tell whether nothing is left of it.

    Such a job could not train: submitit writes what a job executes once ``sbatch`` has succeeded.
    """
    queue = query_queue({submission.name: None})
    try:
        if queue:
            cancel(sorted({job.id for job in queue.values()}))
    except Failure:
        return False
    return queue is not None


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs by their ids, such as 17 or 17_3; raise Failure if ``scancel`` fails."""
    plain = environment_without("SCANCEL_")
    try:
        done = subprocess.run(
            ["scancel", *jobs], capture_output=True, text=True, timeout=300, env=plain
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"scancel: {error}") from None
    if done.returncode:
        raise Failure(" ".join(done.stderr.split()))


# --- in a job ------------------------------------------------------------------------------------


@dataclass
class Task:
    """What a job of the submission in this folder executes; submitit pickles it."""

    folder: str

    def checkpoint(self, job: int) -> submitit.helpers.DelayedSubmission:
        """Tell submitit to execute the same task after a requeue: runs resume by themselves."""
        return submitit.helpers.DelayedSubmission(self, job)

    def __call__(self, job: int) -> None:
        """Execute the unfinished runs of a job, all at the same time.

        Exits with 1 if one failed. If it is told to stop it waits until all runs have saved; after
        SIGUSR2 submitit requeues the job.
        """
        print_optionally()
        try:
            with Signals() as signals:
                submission = load(Path(self.folder))
                print(f"code: {label(submission.code)} in {ROOT}", flush=True)
                submission.check_code()
                unfinished, failed = _unfinished_and_failed(submission, job)
                settings = submission.settings
                seconds = settings["timeout_min"] * 60 - settings["signal_delay_s"] - EARLY_S
                os.environ["MEMRL_LIMIT_AT"] = str(time.time() + seconds)
                gpus = visible_gpus() if len(unfinished) > 1 else []
                pool = Pool(submission, unfinished, len(unfinished), gpus)
                pool.run(signals)
        except CannotContinue as error:
            sys.exit(f"error: {error}")
        except Stopped as stopped:
            print(f"{stopped}; runs to be continued: {len(pool.unfinished)}", flush=True)
            if stopped.signum == signal.SIGTERM and _is_still_running():
                stopped = Stopped(signal.SIGUSR2, signals.previous.get(signal.SIGUSR2))
            stopped.leave()
        if failed or pool.failed or pool.unfinished:
            sys.exit(1)


def _unfinished_and_failed(submission: Submission, job: int) -> tuple[list[int], list[int]]:
    """Return a job's runs that are to be executed, and those that failed before it was requeued."""
    restarted = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    first = job * submission.per_job
    unfinished, failed = [], []
    for run in submission.runs[first : first + submission.per_job]:
        run.status, log = read_status(submission.cwd / run.folder), "finished before"
        state, updated = run.status.get("state"), run.number("updated") or 0
        if restarted and state == "failed" and updated >= submission.created:
            failed.append(run.index)
        elif state != "done":
            unfinished.append(run.index)
            log = str(submission.log(run.index))
        print(f"{run.folder}: {log}", flush=True)
    return unfinished, failed


def _is_still_running() -> bool:
    """Return whether SLURM shows this job as running, although it was sent SIGTERM.

    Many clusters announce a preemption that way, and a job that exits then is not requeued. A job
    that was cancelled, requeued or out of time is shown as completing.
    """
    # SLURM_JOB_ID does not do: in an array's last task it is the id of the whole array.
    lines = squeue("--jobs", job_id() or "", "--format=%T")
    return lines is not None and [line.strip() for line in lines] == ["RUNNING"]
