"""What was submitted: a folder ``outputs/<sweep>/.submissions/<name>/`` for each submission.

It is complete before anything starts, so whatever dies, it is known which runs were asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from memrl.run.command import typed_command
from memrl.run.files import write_whole
from memrl.run.identity import Config
from memrl.run.lock import SILENT_S, is_alive, this_process
from memrl.run.outcome import CannotContinue, in_one_line
from memrl.run.status import HEARTBEAT_S


class Run(NamedTuple):
    """One run of a sweep: its resolved config and its folder, ``outputs/<sweep>/<run>``."""

    config: Config
    folder: Path


FOLDER = ".submissions"
KINDS: dict[str, Any] = {"launcher": str, "settings": dict, "code": dict, "python_path": list}
KINDS |= {"created": (int, float), "driver": dict, "per_job": int, "command": str | None}


@dataclass(frozen=True)
class Submission:
    """One call of ``sbatch``, or one local sweep.

    Attributes:
        folder: its own, absolute; the last part is its name, and the job's.
        launcher: basic, local or slurm.
        settings: what was under ``hydra.launcher``.
        code: what ran: commit, whether it was changed, snapshot.
        python_path: folders that the runs import from, the snapshot first.
        created: UTC seconds.
        driver: the process that submitted it.
        per_job: how many consecutive runs form one job.
        command: what was typed; None of a retry, whose runs were submitted before.
        job_id: SLURM's, once ``sbatch`` has returned.
        problem: what is wrong with its record, of which the folder is all that is known then.
    """

    folder: Path
    launcher: str
    settings: dict[str, Any]
    code: dict[str, Any]
    python_path: list[str]
    created: float
    driver: dict[str, Any]
    per_job: int = 1
    command: str | None = None
    job_id: str | None = None
    problem: str | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The submission's name, which no other one has."""
        return self.folder.name

    @property
    def sweep_folder(self) -> Path:
        """``outputs/<sweep>``, absolute."""
        return self.folder.parents[1]

    @property
    def cwd(self) -> Path:
        """Where ``outputs`` is, and where runs work."""
        return self.folder.parents[3]

    @cached_property
    def runs(self) -> list[Run]:
        """The runs, in order, with their folders as seen from ``cwd``."""
        if self.torn:
            raise CannotContinue(self.torn[0])
        return list(self.known.values())

    @property
    def known(self) -> dict[int, Run]:
        """Those that can be read, by their places."""
        return self._read[0]

    @property
    def torn(self) -> list[str]:
        """What cannot be read of it, a line for each."""
        return ([self.problem] if self.problem else []) + self._read[1]

    @cached_property
    def _read(self) -> tuple[dict[int, Run], list[str]]:
        path, sweep = self.folder / "runs.jsonl", self.sweep_folder.relative_to(self.cwd)
        known, torn = {}, []
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError as error:
            return {}, [f"{path}: {error.strerror}"]
        for n, line in enumerate(lines):
            try:
                content = json.loads(line)
                config, name = content["config"], content["run"]
                if not isinstance(config, dict) or not name or Path(name).name != name:
                    raise ValueError("no run")
                known[n] = Run(config, sweep / name)
            except (ValueError, KeyError, TypeError) as error:
                torn.append(f"{path}, line {n + 1}: {error}")
        return known, torn

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
        lines = (json.dumps({"run": run.folder.name, "config": run.config}) for run in self.runs)
        write_whole(self.folder / "runs.jsonl", ("\n".join(lines) + "\n").encode())
        if self.code.get("diff"):
            write_whole(self.folder / "changes.diff", self.code["diff"].encode())
        self.save(None)

    def save(self, job_id: str | None) -> None:
        """Write the record itself, with its job once there is one."""
        code = {key: value for key, value in self.code.items() if key != "diff"}
        content = asdict(self) | {"code": code, "job_id": job_id}
        del content["folder"], content["problem"]
        write_whole(self.folder / "submission.json", json.dumps(content, indent=1).encode())

    @contextlib.contextmanager
    def driven(self) -> Iterator[None]:
        """Show other hosts, until it is left, that the process that submitted it is at work."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT_S):
                with contextlib.suppress(OSError):
                    os.utime(self.folder / "submission.json")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def driver_alive(self) -> bool:
        """Tell whether the process that submits it is still at it."""
        seen = 0.0
        with contextlib.suppress(OSError):
            seen = (self.folder / "submission.json").stat().st_mtime
        with contextlib.suppress(KeyError, TypeError, ValueError):  # no process is described there
            return is_alive(self.driver, time.time() - seen < SILENT_S)
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
    folder = (sweep / FOLDER / f"{job_name(sweep.name)}-{secrets.token_hex(3)}").absolute()
    driver, now = this_process(), time.time()
    given = (dict(settings), dict(code), list(python_path), now, driver, per_job)
    record = Submission(folder, launcher, *given, typed_command())
    record.__dict__["runs"] = list(runs)  # which otherwise are read from its file
    return record


def job_name(sweep: str) -> str:
    """Return what a job's name begins with: what SLURM can take of the sweep's."""
    return re.sub("[^A-Za-z0-9._=+-]", "-", sweep)


def load(folder: Path) -> Submission:
    """Read one back.

    Raises:
        OSError: there is none.
        CannotContinue: it cannot be read, or lacks something.
    """
    path = folder / "submission.json"
    try:
        content = json.loads(path.read_text())
        content.setdefault("command", None)  # which older versions did not record
        keys = content.keys()
    except (ValueError, AttributeError) as error:
        raise CannotContinue(f"{path}: {error}") from None
    known = {field.name for field in fields(Submission)} - {"folder", "problem"}
    if missing := sorted(known - keys):
        raise CannotContinue(f"{path}: no {missing[0]}; was it written by another version?")
    for key, kinds in KINDS.items():
        if not isinstance(content[key], kinds) or content[key] == 0:
            raise CannotContinue(f"{path}: {key} cannot be {content[key]!r}")
    return Submission(folder.absolute(), **{key: content[key] for key in known})


def load_all(sweep_folder: Path) -> list[Submission]:
    """Return the submissions of a sweep, the oldest first; before them those that are torn."""
    found = []
    for path in (sweep_folder / FOLDER).glob("*/submission.json"):
        try:
            found.append(load(path.parent))
        except FileNotFoundError:  # it came to nothing just now
            continue
        except (CannotContinue, OSError) as error:
            problem = in_one_line(error)
            found.append(
                Submission(path.parent.absolute(), "", {}, {}, [], 0.0, {}, problem=problem)
            )
    return sorted(found, key=lambda submission: submission.created)
