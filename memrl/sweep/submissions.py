"""What was submitted: a folder ``outputs/<sweep>/.submissions/<name>/`` for each submission.

It is complete before anything starts, so whatever dies, it is known which runs belong to the sweep.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from memrl.run.command import typed_command
from memrl.run.files import write_whole
from memrl.run.identity import Config
from memrl.run.lock import SILENT_S, is_alive, this_process
from memrl.run.outcome import CannotContinue
from memrl.run.status import get_number
from memrl.sweep.queue import Job

FOLDER = ".submissions"
RECORD: dict[str, Any] = {  # the keys of submission.json, and their types
    "launcher": str,
    "settings": dict,
    "code": dict,
    "python_path": list,
    "created": (int, float),
    "driver": dict,
    "per_job": int,
    "command": (str, NoneType),
    "job_id": (str, NoneType),
}


@dataclass
class Run:
    """A run: its config, its folder, and what is known of it.

    Attributes:
        config: resolved, nested; empty if it is unknown.
        folder: ``outputs/<sweep>/<run>``, which need not exist.
        submission: the last one that names it, or None.
        index: its place there.
        state, cause: what it does and why, as ``states.read_sweep`` last saw it.
        status: its ``status.json``, empty if there is none.
        job: its job in SLURM's queue, or None.
    """

    config: Config
    folder: Path
    submission: Submission | None = field(default=None, repr=False, compare=False)
    index: int = 0
    state: str = "missing"
    cause: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    job: Job | None = None

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

    def number(self, key: str) -> float | None:
        """Return a number of its status; None if it is missing or no number."""
        return get_number(self.status, key)


@dataclass(frozen=True)
class Submission:
    """One call of ``sbatch``, or one local sweep.

    Attributes:
        folder: its own, absolute; the last part is its name, and the job's.
        launcher: basic, local or slurm.
        settings: the keys below ``hydra.launcher``.
        code: what ran: commit, whether it was changed, snapshot.
        python_path: folders that the runs import from, the snapshot first.
        created: UTC seconds.
        driver: the process that submitted it.
        per_job: how many consecutive runs form one job.
        command: what was typed; None of a retry, whose runs were submitted before.
        job_id: SLURM's, once ``sbatch`` has returned.
        runs: by their index; their folders are as seen from ``cwd``.
        torn: a line for each part of its record that cannot be read.
    """

    folder: Path
    launcher: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)
    python_path: list[str] = field(default_factory=list)
    created: float = 0.0
    driver: dict[str, Any] = field(default_factory=dict)
    per_job: int = 1
    command: str | None = None
    job_id: str | None = None
    runs: dict[int, Run] = field(default_factory=dict, repr=False, compare=False)
    torn: list[str] = field(default_factory=list, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The submission's name, which no other one has."""
        return self.folder.name

    @property
    def cwd(self) -> Path:
        """The folder that has ``outputs``, where runs work."""
        return self.folder.parents[3]

    def check_code(self) -> None:
        """Raise CannotContinue unless this process has imported the code that was submitted."""
        tree, here = Path(self.python_path[0]), Path(__file__).parents[2]
        if tree.resolve() != here.resolve():
            raise CannotContinue(f"{tree} is gone, this would be {here}; give the command again")

    @property
    def jobs(self) -> int:
        """How many jobs it has; of ``basic`` and ``local`` that is the number of runs."""
        return -(-len(self.runs) // self.per_job)

    def log(self, index: int) -> Path:
        """Return where the output of a run's processes goes, all attempts of this submission."""
        return self.folder / "log" / f"{index}.txt"

    def write(self) -> None:
        """Write it down, its runs first: the last file makes it count."""
        (self.folder / "log").mkdir(parents=True)
        runs = self.runs.values()
        lines = (json.dumps({"run": run.name, "config": run.config}) for run in runs)
        write_whole(self.folder / "runs.jsonl", ("\n".join(lines) + "\n").encode())
        if self.code.get("diff"):
            write_whole(self.folder / "changes.diff", self.code["diff"].encode())
        self.save(None)

    def save(self, job_id: str | None) -> None:
        """Write the record itself, with its job once there is one."""
        content = {key: getattr(self, key) for key in RECORD} | {"job_id": job_id}
        content["code"] = {key: value for key, value in self.code.items() if key != "diff"}
        write_whole(self.folder / "submission.json", json.dumps(content, indent=1).encode())

    def driver_alive(self) -> bool:
        """Tell whether the process that submits it is still at it."""
        try:
            seen = (self.folder / "submission.json").stat().st_mtime
            return is_alive(self.driver, time.time() - seen < SILENT_S)
        except (OSError, KeyError, TypeError, ValueError):  # no process is described there
            return False

    def cancel(self, indices: Sequence[int]) -> None:
        """Note that these runs were cancelled."""
        path = self.folder / "cancelled.json"
        write_whole(path, json.dumps(sorted({*self.cancelled, *indices})).encode())

    @property
    def cancelled(self) -> list[int]:
        """Indices of the runs that were cancelled."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            content = json.loads((self.folder / "cancelled.json").read_text())
            return [n for n in content if type(n) is int]
        return []

    def remove(self) -> None:
        """Forget a submission that came to nothing."""
        (self.folder / "submission.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def draft(
    runs: Sequence[Run],
    launcher: str,
    settings: Mapping[str, Any],
    code: Mapping[str, Any],
    python_path: Sequence[str],
    per_job: int = 1,
) -> Submission:
    """Return a submission with a name of its own, which is written nowhere yet."""
    sweep = runs[0].folder.parent
    name = re.sub("[^A-Za-z0-9._=+-]", "-", sweep.name)  # what SLURM accepts as a job's name
    return Submission(
        folder=(sweep / FOLDER / f"{name}-{secrets.token_hex(3)}").absolute(),
        launcher=launcher,
        settings=dict(settings),
        code=dict(code),
        python_path=list(python_path),
        created=time.time(),
        driver=this_process(),
        per_job=per_job,
        command=typed_command(),
        runs=dict(enumerate(runs)),
    )


def load(folder: Path) -> Submission:
    """Read one back, whole.

    Raises:
        OSError: there is none.
        CannotContinue: a part of it cannot be read.
    """
    submission = _read(folder)
    if submission.torn:
        raise CannotContinue(submission.torn[0])
    return submission


def load_all(sweep_folder: Path) -> list[Submission]:
    """Return the submissions of a sweep: those that cannot be read, then from old to new."""
    submissions = []
    for path in (sweep_folder / FOLDER).glob("*/submission.json"):
        with contextlib.suppress(FileNotFoundError):  # it came to nothing just now
            submissions.append(_read(path.parent))
    return sorted(submissions, key=lambda submission: submission.created)


def _read(folder: Path) -> Submission:
    """Read what can be read; ``torn`` says what cannot. Raises OSError if there is nothing."""
    folder = folder.absolute()
    path = folder / "submission.json"
    try:
        submission = Submission(folder, **_read_record(path))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError) as error:
        submission = Submission(folder, torn=[f"{path}: {error}"])
    path, sweep = folder / "runs.jsonl", folder.parents[1].relative_to(submission.cwd)
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        submission.torn.append(f"{path}: {error}")
        return submission
    for n, line in enumerate(lines):
        try:
            content = json.loads(line)
            config, name = content["config"], content["run"]
            if not isinstance(config, dict) or not name or Path(name).name != name:
                raise ValueError("no run")
            submission.runs[n] = Run(config, sweep / name, submission, n)
        except (ValueError, KeyError, TypeError) as error:
            submission.torn.append(f"{path}, line {n + 1}: {error}")
    return submission


def _read_record(path: Path) -> dict[str, Any]:
    content = {"command": None} | json.loads(path.read_text())  # older versions had none
    for key, kinds in RECORD.items():
        if key not in content:
            raise ValueError(f"no {key}; was it written by another version?")
        if not isinstance(content[key], kinds) or content[key] == 0:
            raise ValueError(f"{key} cannot be {content[key]!r}")
    return {key: content[key] for key in RECORD}
