"""SLURM: arrays of jobs by way of submitit, each job a pool of runs that is requeued as a whole."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from memrl.run.lock import job_id
from memrl.run.outcome import CannotContinue, Failure
from memrl.run.signals import EARLY_S, Signals, Stopped
from memrl.run.status import number, read_status
from memrl.sweep.pool import Pool, visible_gpus
from memrl.sweep.queue import query_queue, squeue
from memrl.sweep.snapshot import ROOT, label
from memrl.sweep.submissions import Submission, load

MAX_ARRAY_SIZE = 1001  # SLURM's own default
# A job that a signal ends while Python starts would not be requeued at a preemption. One that lives
# on is, by SLURM.
DEAF = 'sh -c \'trap "" USR2 TERM; exec "$0" "$@"\''
OPTIONS = ("partition", "account", "qos", "constraint")  # of sbatch, passed on by their names


class SbatchError(Failure):
    """The cluster refused a submission."""


# --- on the login node ---------------------------------------------------------------------------


def max_array_size() -> int:
    """Return how many tasks an array of this cluster may have."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "show", "config"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if found := re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.M):
            return max(int(found[1]), 1)
    return MAX_ARRAY_SIZE


class Executor(submitit.SlurmExecutor):
    """submitit's, which writes the script, calls ``sbatch`` and requeues."""

    @classmethod
    def affinity(cls) -> int:
        """Claim to be usable anywhere: a dry run needs no SLURM."""
        return 2

    def script(self, jobs: int) -> str:
        """Return what ``sbatch`` would be given for an array of so many jobs."""
        if jobs > 1:
            self.parameters["map_count"] = jobs
        return self._make_submission_file_text(self._submitit_command_str, "")


def executor(submission: Submission, parallel: int) -> Executor:
    """Return what submits a submission's jobs, of which so many run at a time."""
    settings = submission.settings
    tree = submission.python_path[0]
    made = Executor(
        submission.folder / "%j",
        max_num_timeout=settings["max_num_timeout"],
        python=f"{DEAF} {shlex.quote(sys.executable)}",
    )
    given = {key: settings[key] for key in (*OPTIONS, "gpus_per_node") if settings[key] is not None}
    if settings["mem_gb"] is not None:
        given["mem"] = f"{round(settings['mem_gb'] * 1024)}MB"
    threads = max(run.config["threads"] for run in submission.runs.values()) * submission.per_job
    made.update_parameters(
        job_name=submission.name,
        time=settings["timeout_min"],
        nodes=1,
        ntasks_per_node=1,
        cpus_per_task=settings["cpus_per_task"] or threads,
        signal_delay_s=settings["signal_delay_s"],
        array_parallelism=parallel,
        stderr_to_stdout=True,
        wckey=None,  # submitit sets one, which some clusters refuse
        setup=[
            f"export PYTHONPATH={shlex.quote(tree)}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export SLURM_EXPORT_ENV=ALL",  # also where sbatch is told to export nothing
            # Since SLURM 22.05 srun does not take it over from sbatch by itself.
            'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
            *settings["setup"],
        ],
        additional_parameters={
            "chdir": tree,
            "requeue": True,
            **settings["additional_parameters"],
        },
        **given,
    )
    return made


def start(submission: Submission, made: Executor) -> Submission:
    """Submit all jobs of a submission as one array; return it with its job's id.

    Raises:
        SbatchError: the cluster refused it, and the submission is forgotten; unless a job of it is
            in the queue all the same, or nobody knows.
    """
    jobs = range(submission.jobs)
    try:
        # submitit repeats what sbatch says
        with contextlib.redirect_stderr(io.StringIO()), _outside_of_jobs():
            first, *_ = made.map_array(Task(submission.folder), list(jobs))
    except (FailedJobError, FailedSubmissionError) as error:
        if query_queue([submission.name]) == {}:
            submission.remove()
        raise SbatchError(_sbatch_says(str(error))) from None
    job_id = str(first.job_id).split("_")[0]
    submission.save(job_id)
    return replace(submission, job_id=job_id)


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide that this process may be in a job itself, whose variables its jobs would inherit."""
    before = dict(os.environ)
    for name in before:
        ours = name not in ("SLURM_CONF", "SLURM_CLUSTERS")
        if ours and name.startswith(("SLURM_", "SUBMITIT_")):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _sbatch_says(text: str) -> str:
    lines = re.findall(r"sbatch: (?:error: )?(.*)", text)
    return "; ".join(dict.fromkeys(lines)) or " ".join(text.split())


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs by their ids, such as 17 or 17_3.

    Raises:
        SbatchError: ``scancel`` refused.
    """
    for begin in range(0, len(jobs), 500):  # a command line has its limit
        command = ["scancel", *jobs[begin : begin + 500]]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SbatchError(f"scancel: {error}") from None
        if done.returncode:
            raise SbatchError(" ".join(done.stderr.split()))


def available() -> bool:
    """Tell whether jobs can be submitted from here."""
    return shutil.which("sbatch") is not None


# --- in a job ------------------------------------------------------------------------------------


class Task:
    """What a job does: its runs, each a process. submitit pickles it by its name.

    Args:
        folder: of the submission.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def checkpoint(self, job: int) -> submitit.helpers.DelayedSubmission:
        """Tell submitit what a requeued job does: the same; runs continue by themselves."""
        return submitit.helpers.DelayedSubmission(self, job)

    def __call__(self, job: int) -> None:
        """Do the runs of a job that are not done, all at a time.

        Exits with 1 if one failed. If it is told to stop it waits until all have saved; after
        SIGUSR2 submitit requeues the job.
        """
        with Signals() as signals:
            submission = load(Path(self.folder))
            print(f"code: {label(submission.code)} in {ROOT}", flush=True)
            try:
                submission.check_code()
            except CannotContinue as error:
                sys.exit(f"error: {error}")
            left, failed = _remaining(submission, job)
            settings = submission.settings
            warned_s = settings["signal_delay_s"] + EARLY_S
            limit = time.time() + settings["timeout_min"] * 60 - warned_s
            gpus = visible_gpus() if len(left) > 1 else []
            environment = {"MEMRL_CODE": label(submission.code), "MEMRL_LIMIT_AT": str(limit)}
            pool = Pool(submission, left, max(len(left), 1), gpus, environment)
            stopped = None
            try:
                pool.run(signals)
            except Stopped as error:
                stopped = error
        if stopped:
            print(f"{stopped}; runs to be continued: {len(pool.unfinished)}", flush=True)
            if stopped.signum == signal.SIGTERM and _goes_on():
                stopped = Stopped(signal.SIGUSR2, signals.previous.get(signal.SIGUSR2))
            stopped.leave()
        if failed or pool.failed or pool.killed or pool.unfinished:
            sys.exit(1)


def _remaining(submission: Submission, job: int) -> tuple[list[int], list[int]]:
    """Return a job's runs that are to be done, and those that failed before it was requeued."""
    restarted = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    first = job * submission.per_job
    left, failed = [], []
    for n in range(first, min(first + submission.per_job, len(submission.runs))):
        folder, where = submission.runs[n].folder, "finished before"
        status = read_status(submission.cwd / folder)
        state, updated = status.get("state"), number(status, "updated") or 0
        if restarted and state == "failed" and updated >= submission.created:
            failed.append(n)
        elif state != "done":
            left.append(n)
            where = str(submission.log(n))
        print(f"{folder}: {where}", flush=True)
    return left, failed


def _goes_on() -> bool:
    """Tell whether this job was sent SIGTERM though it is not ending.

    That is how many clusters announce a preemption. A job that just leaves is over then; one that
    was cancelled, requeued or out of time shows as completing.
    """
    # Of an array's last task SLURM_JOB_ID is the whole array's.
    lines = squeue("--jobs", job_id() or "", "--format=%T")
    return lines is not None and [line.strip() for line in lines] == ["RUNNING"]
