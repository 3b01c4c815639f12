"""From folders to runs: what ran, what became of it, what it measured.

Only files are read; where a sweep was submitted to SLURM, ``squeue`` is asked once.
"""

from __future__ import annotations

import errno
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from memrl.run.identity import ABSENT, NOT_IDENTITY, flatten, identity
from memrl.run.outcome import in_one_line, show
from memrl.run.status import number, read_status
from memrl.run.tables import Table, TornTable, read_table
from memrl.sweep.states import ONGOING, State, look
from memrl.sweep.submissions import FOLDER as SUBMISSIONS

RUN_FILES = ("status.json", "config.yaml", "eval.csv")  # any of them makes a folder a run's


FOREIGN = "foreign"  # a folder without a run
UNREADABLE = "unreadable"  # a run's folder that does not say what ran
DUPLICATE = "duplicate"  # a copy of a run that is in the list, as of a copied sweep
NO_STATUS = "no status.json that can be read"

# Named wherever they differ; other keys only where these do not determine them.
MAIN_KEYS = (
    "env.name",
    "env.length",
    "algo.name",
    "seq_model.name",
    "seq_model.n_layer",
    "seed",
)

NOT_TEXT = re.compile(r"(null|true|false|-?(nan|inf|[\d.].*)|\[.*|)$")
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Run:
    """One run, or a folder in the place of one.

    Attributes:
        folder: where it is.
        config: its resolved config, nested; empty if nobody knows it.
        state: done, running, failed, ... as ``python -m memrl sweep status`` says, ``unreadable``,
            ``foreign``, or ``duplicate``: a copy of a run that is in the list.
        cause: why it is in that state, or empty.
        status: its ``status.json``.
        problem: one line if a file of it is torn; what could be read is there.
        eval: columns of ``eval.csv`` by name, (evaluations,) float64 each.
        command: what was typed to start it, or the sweep that it is part of, if that is known.
    """

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    state: str = FOREIGN
    cause: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    eval: Table = field(default_factory=dict)
    command: str | None = None

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    @cached_property
    def train(self) -> Table:
        """Columns of ``train.csv`` by name, one row for each collection of episodes."""
        try:
            return read_table(self.folder / "train.csv")
        except TornTable as error:
            return error.table
        except OSError:
            return {}

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The config by dotted keys; ``sweep`` is the name of the folder that it is in."""
        return flatten(self.config) | {"sweep": self.folder.absolute().parent.name}

    @property
    def length(self) -> float | None:
        """Its ``env.length``; None if that is no number, and so no place on an axis."""
        value = self.flat.get("env.length")
        return value if type(value) in (int, float) else None

    @property
    def env_steps(self) -> int:
        """How far its evaluations go."""
        steps = reversed(self.eval.get("env_steps", ()))
        return next((int(step) for step in steps if math.isfinite(step)), 0)

    @property
    def total_env_steps(self) -> int | None:
        """How many environment steps it was to have, or had when it ended early by its budget."""
        done, progress = self.number("env_steps"), self.number("progress")
        return round(done / progress) if done and progress else None

    def number(self, key: str) -> float | None:
        """Return a number of its status; None if it has none, whatever else stands there."""
        return number(self.status, key)


# --- reading -------------------------------------------------------------------------------------


def load(*folders: Path | str) -> list[Run]:
    """Read all runs of sweeps, of folders of sweeps, or single ones.

    Runs that were asked for and have not begun are in the list, and so are folders that cannot be
    read or hold no run. Of a run and its copies the one that went furthest counts.

    Raises:
        OSError: there is no such folder.
    """
    runs: dict[Path, Run] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            code = errno.ENOTDIR if folder.exists() else errno.ENOENT
            raise OSError(code, os.strerror(code), str(folder))
        runs |= {run.folder.resolve(): run for run in _walk(folder, set())}
    _mark_copies(list(runs.values()))
    return list(runs.values())


def _mark_copies(runs: Sequence[Run]) -> None:
    """Of each run that is there several times, leave one, and say of the others which that is."""
    same: dict[Any, list[Run]] = {}
    for run in runs:
        if "seed" in run.config:
            same.setdefault(repr(identity(run.config)), []).append(run)
    for alike in same.values():
        kept: list[Run] = []
        for run in sorted(alike, key=lambda run: (run.state != State.DONE, -run.env_steps)):
            first = next((other for other in kept if _is_copy(run, other)), None)
            if first is None:
                kept.append(run)
            else:
                run.state, run.cause = DUPLICATE, f"of {first.folder}"


def _is_copy(run: Run, other: Run) -> bool:
    """Say whether a run with the identity of another is that run, or nothing tells them apart.

    A run that was done again did not measure the same speed; what another sweep did again has that
    sweep's name.
    """
    begun = [str(column[0]) for column in run.eval.values() if len(column)]
    same = begun == [str(column[0]) for column in other.eval.values() if len(column)]
    at_home = run.config.get("sweep") == other.config.get("sweep")
    return run.flat["sweep"] == other.flat["sweep"] or (at_home and (same or not begun))


def _walk(folder: Path, seen: set[Path]) -> list[Run]:
    seen.add(folder.resolve())
    if _has_files(folder):
        return list(_read_sweep(folder.parent, folder.name)) or [_read_lone(folder)]
    try:
        children = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except PermissionError as error:
        return [Run(folder, state=UNREADABLE, cause=in_one_line(error))]
    runs = []
    if (folder / SUBMISSIONS).is_dir() or any(os.path.exists(c / "status.json") for c in children):
        runs = list(_read_sweep(folder))
    known = {run.name for run in runs}
    for child in children:
        if child.name not in known and child.resolve() not in seen:  # a link may lead back
            found = _walk(child, seen)
            foreign = all(run.state == FOREIGN for run in found)
            runs += [Run(child, cause="holds no run")] if foreign else found
    return runs


def _read_sweep(folder: Path, only: str | None = None) -> Iterator[Run]:
    sweep = look(folder)
    commands = {
        run.name: submission.command
        for submission in reversed(sweep.submissions)  # of a run in several, the first counts
        for run in submission.runs.values()
        if submission.command
    }
    for seen in sweep.runs:
        if only in (None, seen.name):
            run = Run(folder / seen.name, seen.config, seen.state, seen.cause, seen.status)
            run.command = commands.get(seen.name)
            yield _read(run)
    if only is None and sweep.torn:
        yield Run(folder / SUBMISSIONS, state=UNREADABLE, cause="; ".join(sweep.torn))


def _read_lone(folder: Path) -> Run:
    """Read a run that no sweep knows, without a lock or a queue to be asked."""
    status = read_status(folder)
    state = str(status.get("state") or UNREADABLE)
    cause = str(status.get("cause") or ("" if status else NO_STATUS))
    return _read(Run(folder, {}, state, cause, status))


def _read(run: Run) -> Run:
    """Add what the run's own files say."""
    status = run.status
    if run.command is None and isinstance(typed := status.get("command"), str):
        run.command = typed
    closed = os.path.isdir(run.folder) and not os.access(run.folder, os.X_OK)
    if not status and run.state not in ONGOING and (closed or _has_files(run.folder)):
        run.state, run.cause = UNREADABLE, NO_STATUS
    elif not isinstance(status.get("state", ""), str):
        run.state, run.cause = UNREADABLE, f"status.json: state is {show(status['state'])}"
    elif run.state != State.DONE and "updated" in status and run.number("updated") is None:
        run.state, run.cause = UNREADABLE, f"status.json: updated is {show(status['updated'])}"
    if not run.config and run.state != State.MISSING:
        try:
            config = yaml.load((run.folder / "config.yaml").read_bytes(), Loader)
            if not isinstance(config, dict):
                raise ValueError("config.yaml holds no config")
            run.config = config
        except (OSError, ValueError, yaml.YAMLError) as error:
            run.problem = " ".join(in_one_line(error).split())
            if run.state in (State.DONE, UNREADABLE):
                run.state, run.cause = UNREADABLE, run.problem
    try:
        run.eval = read_table(run.folder / "eval.csv")
    except TornTable as error:
        run.eval, run.problem = error.table, str(error)
    except OSError as error:
        if run.state == State.DONE:
            run.problem = in_one_line(error)
    return run


def _has_files(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in RUN_FILES)


# --- what differs --------------------------------------------------------------------------------


def varying(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the keys that a sweep varied, and their values, sorted.

    A key that some runs lack has the value ABSENT there. Of keys that others determine, as
    ``env.length`` determines ``budget.train_episodes``, only the main ones are named. ``sweep``
    counts as a key; it only tells runs apart that nothing else does. Copies do not count.
    """
    flats = [run.flat for run in runs if run.config and run.state != DUPLICATE]
    others = sorted({key for flat in flats for key in flat} - {*MAIN_KEYS, "sweep"})
    others = [k for k in others if k.split(".")[0] not in NOT_IDENTITY]
    others.sort(key=lambda key: key.endswith("._target_"))  # most classes follow from other keys
    found: dict[str, list[Any]] = {}
    groups: list[tuple[str, ...]] = [()] * len(flats)
    # The seed after all others: what goes with a seed must not be taken for chance.
    for key in (*MAIN_KEYS[:-1], *others, MAIN_KEYS[-1], "sweep"):
        # By repr: 1 is not "1", and null is not absent.
        values = {repr(value): value for flat in flats for value in [flat.get(key, ABSENT)]}
        finer = [(*g, repr(flat.get(key, ABSENT))) for g, flat in zip(groups, flats, strict=True)]
        new = len(set(finer)) > len(set(groups))
        if len(values) > 1 and (new or key in MAIN_KEYS):
            found[key] = sorted(values.values(), key=order)
            groups = finer
    return found


def order(value: Any) -> tuple[bool, bool, float, str]:
    """Return what values of all types sort by: None and ABSENT, numbers, the rest as text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (
        value is not None and value is not ABSENT,
        not number,
        float(value) if number else 0.0,
        show(value),
    )


def labels(runs: Sequence[Run]) -> list[str]:
    """Return what to call each run's series: its model, and all else that varies within its task.

    The seed and a length that is a number are left out; a run whose config is not known gets an
    empty label.
    """
    by_task: dict[str, list[Run]] = {}
    for run in runs:
        by_task.setdefault(str(run.flat.get("env.name")), []).append(run)
    keys = {}
    for task, mine in by_task.items():
        apart = {"seed", "seq_model.name"}
        if all(run.length is not None for run in mine if run.config):
            apart.add("env.length")
        keys[task] = [key for key in varying(mine) if key not in apart]
    return [_label(run, keys[str(run.flat.get("env.name"))]) if run.config else "" for run in runs]


def _distinct(value: Any) -> str:
    """Write a value; text that looks like a value of another type has quotes."""
    if isinstance(value, list):
        return f"[{','.join(map(_distinct, value))}]"
    return repr(value) if isinstance(value, str) and NOT_TEXT.match(value) else show(value)


def _label(run: Run, keys: Sequence[str]) -> str:
    parts = [str(run.flat.get("seq_model.name"))]
    ends = Counter(key.rpartition(".")[2] for key in keys)
    for key in keys:
        value, end = run.flat.get(key), key.rpartition(".")[2]
        if key not in run.flat:
            continue
        if end == "name":  # of an algorithm, say
            parts.append(_distinct(value))
        else:
            short = ends[end] == 1 and end != "_target_"
            parts.append(f"{end if short else key}={_distinct(value)}")
    return ", ".join(parts)
