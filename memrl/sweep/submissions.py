"""What was submitted: a folder ``<outputs>/<sweep>/.submissions/<name>/`` for each submission.

It is complete before anything starts, so whatever dies, it is known which runs belong to the sweep.
"""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from memrl.run.command import typed_command
from memrl.run.files import TABLE, parse_json, read_bytes, write_whole
from memrl.run.identity import Config
from memrl.run.import_path import import_path
from memrl.run.lock import SILENT_S, is_alive, this_process
from memrl.run.outcome import CannotContinue, ConfigError, in_one_line
from memrl.run.schema import check_section
from memrl.run.status import get_number
from memrl.sweep.queue import Job

FOLDER = ".submissions"


@dataclass
class Run:
    """A run: its config, its folder, and what is known of it."""

    config: Config  # empty if it is unknown
    folder: Path  # <outputs>/<sweep>/<run>, which need not exist
    # The last one that names it, and its place there.
    submission: Submission | None = field(default=None, repr=False, compare=False)
    index: int = 0
    state: str = "missing"  # as states.read_sweep last saw it
    cause: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)  # status.json, empty if there is none
    job: Job | None = None  # in SLURM's queue
    # What Hydra composes the config from, while a sweep is being started.
    overrides: Sequence[str] = field(default=(), repr=False, compare=False)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    @property
    def job_id(self) -> str:
        """SLURM's job, as ``squeue`` shows it; empty if there is none."""
        return self.job.id if self.job else str(self.status.get("job_id") or "")

    @property
    def node(self) -> str:
        """The host it runs on, or ran on last; empty if it is unknown."""
        host = str(self.status.get("host") or "")
        return (self.job.node if self.job and not self.job.waiting else "") or host

    @property
    def versions(self) -> Mapping[str, Any]:
        """What its results may depend on; empty if that is unknown."""
        return self.status.get("versions") or {}

    def number(self, key: str) -> float | None:
        """Return a number of its status; None if it is missing or no number."""
        return get_number(self.status, key)


@dataclass(frozen=True)
class Submission:
    """One call of ``sbatch``, or one local sweep."""

    folder: Path  # absolute; the last part is its name, and the job's
    runs: list[Run] = field(repr=False, compare=False)  # below cwd their folders are relative to it
    launcher: str  # serial, local, slurm, or the name of another package's
    settings: dict[str, Any]  # the keys below hydra.launcher
    code: dict[str, Any]  # what ran: commit, whether it was changed, snapshot
    python_path: list[str]  # folders that the runs import from, the snapshot first
    per_job: int  # how many consecutive runs form one job
    cwd: Path = field(default_factory=Path.cwd)  # where runs work: the folder of the command
    created: float = field(default_factory=time.time)  # UTC seconds
    driver: dict[str, Any] = field(default_factory=this_process)  # the process that submitted it
    # What was typed; None of a retry, whose runs were submitted before.
    command: str | None = field(default_factory=typed_command)
    # Folders that the runs import from if nothing else has a module.
    import_path: list[str] = field(default_factory=import_path)
    job_id: str | None = None  # SLURM's, once sbatch has returned
    ended: float | None = None  # when another package's launcher returned, UTC seconds

    @property
    def name(self) -> str:
        """The submission's name, which no other one has."""
        return self.folder.name

    @property
    def submitit_folder(self) -> Path:
        """The folder of a SLURM job's own files, absolute; ``%j`` stands for the job's id."""
        return self.cwd / (self.settings.get("submitit_folder") or self.folder / "%j")

    def check_code(self) -> None:
        """Raise CannotContinue unless this process has imported the code that was submitted."""
        tree, here = Path(self.python_path[0]), Path(__file__).parents[2]
        if tree.resolve() != here.resolve():
            raise CannotContinue(f"{tree} is gone, this would be {here}; give the command again")
        copy = self.python_path[1:2]  # of a user's packages, unless they were not copied
        if copy and Path(copy[0]).name == self.code.get("packages_snapshot"):
            for package in self.code["packages"]:
                if PathFinder.find_spec(package, copy) is None:
                    gone = f"the copy of {package} in {copy[0]} is gone"
                    raise CannotContinue(f"{gone}; give the command again")

    @property
    def jobs(self) -> int:
        """How many jobs it has; of ``serial`` and ``local`` that is the number of runs."""
        return -(-len(self.runs) // self.per_job)

    def log(self, index: int) -> Path:
        """Return where the output of a run's processes goes, all attempts of this submission."""
        return self.folder / "log" / f"{index}.txt"

    def job_logs(self, index: int) -> list[Path]:
        """Return the log files of a run's job, those that exist."""
        job = f"{self.job_id or '*'}{f'_{index // self.per_job}' if self.jobs > 1 else ''}"
        folder = glob.escape(str(self.submitit_folder)).replace("%j", job)
        return sorted(map(Path, glob.glob(f"{folder}/{job}_*_log.*")))  # .err before .out

    def write(self) -> None:
        """Write it down, its runs first: the last file makes it count."""
        (self.folder / "log").mkdir(parents=True)
        lines = [json.dumps({"run": run.name, "config": run.config}) + "\n" for run in self.runs]
        write_whole(self.folder / "runs.jsonl", "".join(lines).encode())
        if self.code.get("diff"):
            write_whole(self.folder / "changes.diff", self.code["diff"].encode())
        self.save(None)

    def save(self, job_id: str | None) -> None:
        """Write the record itself, with its job once there is one."""
        content = {key: getattr(self, key) for key in RECORDED}
        # From here, where the results are below it: then they may be moved or copied together.
        below = self.folder.is_relative_to(self.cwd)
        cwd = os.path.relpath(self.cwd, self.folder) if below else str(self.cwd)
        content |= {"cwd": cwd, "job_id": job_id, "n_runs": len(self.runs)}
        content["code"] = {key: value for key, value in self.code.items() if key != "diff"}
        write_whole(self.folder / "submission.json", json.dumps(content, indent=1).encode())

    def end(self) -> None:
        """Note that another package's launcher has returned: what has not begun never will."""
        replace(self, ended=time.time()).save(None)

    def driver_alive(self) -> bool:
        """Tell whether the process that submits it is still at work."""
        try:
            touched = (self.folder / "submission.json").stat().st_mtime
            return is_alive(self.driver, time.time() - touched < SILENT_S)
        except (OSError, KeyError, TypeError, ValueError):  # no process is described there
            return False

    def cancel(self, indices: Sequence[int]) -> None:
        """Note that these runs were cancelled."""
        path = self.folder / "cancelled.json"
        write_whole(path, json.dumps(sorted({*self.cancelled, *indices})).encode())

    @property
    def cancelled(self) -> list[int]:
        """Indices of the runs that were cancelled."""
        try:
            content = parse_json(read_bytes(self.folder / "cancelled.json"))
            return [n for n in content if type(n) is int]
        except (OSError, ValueError, TypeError):  # none was
            return []


# What older versions did not record.
OLDER: dict[str, Any] = {"command": None, "import_path": [], "ended": None}
# The keys of submission.json, besides the number of runs.
RECORDED = [f.name for f in fields(Submission) if f.name not in ("folder", "runs")]


def draft(
    runs: Sequence[Run],
    launcher: str,
    settings: dict[str, Any],
    code: dict[str, Any],
    python_path: list[str],
    per_job: int = 1,
) -> Submission:
    """Return a submission with a name of its own, which is written nowhere yet."""
    sweep = runs[0].folder.parent
    # What SLURM accepts as a job's name.
    name = re.sub("[^A-Za-z0-9._=+-]", "-", settings.get("name") or sweep.name)
    folder = (sweep / FOLDER / f"{name}-{secrets.token_hex(3)}").absolute()
    return Submission(folder, list(runs), launcher, settings, code, python_path, per_job)


def load(folder: Path) -> Submission:
    """Read one back.

    Raises:
        OSError: there is none.
        CannotContinue: it cannot be read.
    """
    folder = folder.absolute()
    path = folder / "submission.json"
    content = read_bytes(path)
    try:
        written: dict[str, Any] = {**OLDER, **parse_json(content)}
        record = {key: written[key] for key in RECORDED if key in written}
        if record.get("launcher") == "basic":  # the former name of serial
            record["launcher"] = "serial"
        record |= {"folder": folder, "runs": [], "cwd": _working_folder(written.get("cwd"), folder)}
        check_section("", record, Submission)
        if not (record["per_job"] > 0 < record["created"]):
            raise ValueError("per_job and created must be above 0")
        submission = Submission(**record)
        path = folder / "runs.jsonl"
        sweep = folder.parents[1]
        if sweep.is_relative_to(submission.cwd):
            sweep = sweep.relative_to(submission.cwd)
        for n, line in enumerate(read_bytes(path, TABLE).decode().splitlines()):
            entry = parse_json(line)
            config, name = entry["config"], entry["run"]
            if not isinstance(config, dict) or Path(name).name != name or name in ("", ".."):
                raise ValueError(f"line {n + 1} holds no run")
            submission.runs.append(Run(config, sweep / name, submission, n))
        n_runs = written.get("n_runs")  # an older version wrote none
        if not submission.runs or n_runs not in (None, len(submission.runs)):
            expected = f" of {n_runs}" if n_runs else ""
            raise ValueError(f"it holds {len(submission.runs)}{expected} runs; some were lost")
    except ConfigError as error:
        message = f"{path}: {error}; was it written by another version?"
        raise CannotContinue(message) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CannotContinue(f"{path}: {error}") from None
    return submission


def _working_folder(recorded: Any, folder: Path) -> Path:
    """Return where a submission's runs work; where that is not known or gone, above all results."""
    if isinstance(recorded, str):
        path = Path(os.path.normpath(folder / recorded))
        if os.path.isdir(path) and os.access(path, os.X_OK):
            return path
    return folder.parents[3]


def load_all(sweep_folder: Path) -> tuple[list[Submission], list[str]]:
    """Return a sweep's submissions, the oldest first, and a line for each that cannot be read."""
    submissions, torn = [], []
    for path in (sweep_folder / FOLDER).glob("*/submission.json"):
        try:
            submissions.append(load(path.parent))
        except FileNotFoundError:  # it came to nothing just now
            continue
        except (OSError, CannotContinue) as error:
            torn.append(in_one_line(error))
    return sorted(submissions, key=lambda submission: submission.created), torn
