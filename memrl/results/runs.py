"""From folders to runs: what ran, how it ended, what it measured.

Only files are read; where a sweep was submitted to SLURM, ``squeue`` is asked once.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from memrl.run.console import printable
from memrl.run.files import Unreadable
from memrl.run.identity import ABSENT, canonical, completed, identity, read_config, task_name
from memrl.run.outcome import in_one_line, show
from memrl.run.tables import Table, TornTable, read_table
from memrl.sweep import submissions
from memrl.sweep.states import ONGOING, State, read_sweep

RUN_FILES = ("status.json", "config.yaml", "eval.csv")  # a folder with any of these is a run's

FOREIGN = "foreign"  # a folder without a run
UNREADABLE = State.UNREADABLE.value  # also a run's folder that does not say what ran
DUPLICATE = "duplicate"  # a copy of a run that is in the list, as of a copied sweep

# Named wherever they differ; other keys only where these do not determine them.
MAIN_KEYS = ("env.name", "env.length", "algo.name", "seq_model.name", "seq_model.n_layer", "seed")

# Text that would look like a value of another type.
NOT_TEXT = re.compile(r"(null|true|false|-?(nan|inf|[\d.].*)|\[.*|)$")


@dataclass(repr=False)
class Run(submissions.Run):
    """A run and what it measured, or a folder in the place of one.

    Attributes:
        state: as ``python -m memrl sweep status`` says, or ``unreadable``, ``foreign``, or
            ``duplicate``: a copy of a run that is in the list.
        problem: one line if a file of it is torn; what could be read is there.
        eval: columns of ``eval.csv`` by name, (evaluations,) float64 each.
        command: what was typed to start it, or the sweep that it is part of, if that is known.
    """

    problem: str | None = None
    eval: Table = field(default_factory=dict)
    command: str | None = None

    def __repr__(self) -> str:
        """Return its name, state and last evaluation, short enough for a line."""
        name = printable(self.name)
        if len(name) > 50:  # its end has the seed
            name = f"{name[:30]}...{name[-17:]}"
        last = {
            goal: self.eval[f"eval/{goal}"][-1:]
            for goal in ("return", "success")
            if f"eval/{goal}" in self.eval
        }
        scores = [f"{goal} {v:.3g}" for goal, values in last.items() for v in values if v == v]
        return f"<Run {name}: {', '.join([str(self.state), *scores])}>"

    @cached_property
    def train(self) -> Table:
        """Columns of ``train.csv`` by name, one row for each collection of episodes."""
        return _read_rows(self.folder / "train.csv")[0]

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The config by dotted keys; ``sweep`` is the name of the folder that it is in."""
        return completed(self.config) | {"sweep": printable(self.folder.absolute().parent.name)}

    @property
    def task(self) -> str:
        """Its ``env.name``, and which of a package's tasks it is."""
        return printable(task_name(self.config.get("env", {})))

    @property
    def length(self) -> float | None:
        """Its ``env.length``; None if that is no number, and so no place on an axis."""
        value = self.flat.get("env.length")
        return value if type(value) in (int, float) else None

    @property
    def lengths(self) -> list[float]:
        """Those of its episodes: its ``env.length``, or the numbers of that if it is a list."""
        value = self.flat.get("env.length")
        values: list[Any] = value if isinstance(value, list) else [value]
        return [n for n in values if type(n) in (int, float)]

    @property
    def env_steps(self) -> int:
        """How far its evaluations go."""
        return int(self.highest("env_steps"))

    @property
    def total_env_steps(self) -> int | None:
        """Its planned number of environment steps, or the last one if its budget ended it early."""
        done, progress = self.number("env_steps"), self.number("progress")
        total = done / progress if done and progress else math.inf
        return round(total) if math.isfinite(total) else None

    def highest(self, name: str) -> float:
        """Return the highest finite value of a column of ``eval.csv``; 0 if there is none."""
        column = self.eval.get(name, np.empty(0))
        return float(max(column[np.isfinite(column)], default=0.0))


# --- reading -------------------------------------------------------------------------------------


def load(*folders: Path | str) -> list[Run]:
    """Read all runs of sweeps, of folders of sweeps, or single ones.

    Runs that have not begun are in the list, and so are folders that cannot be read or hold no run.
    Of a run and its copies the one that went furthest counts.

    Raises:
        OSError: there is no such folder.
    """
    runs: dict[Path, Run] = {}
    for folder in map(Path, folders):
        runs |= {run.folder.resolve(): run for run in _walk(folder, set())}
    _mark_copies(list(runs.values()))
    return list(runs.values())


def _mark_copies(runs: Sequence[Run]) -> None:
    """Of runs with the same identity, started under the same sweep's name, leave one to count.

    Imported logs have no sweep: there, the same seed again is another run.
    """
    counted: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run.state != State.DONE, -run.env_steps)):
        values = {key: canonical(value) for key, value in identity(run.config).items()}
        key = repr((run.config.get("sweep"), values))
        if {"seed", "sweep"} <= run.config.keys() and (
            first := counted.setdefault(key, run)
        ) is not run:
            run.state, run.cause = DUPLICATE, f"of {first.folder}"


def _walk(folder: Path, seen: set[Path]) -> list[Run]:
    seen.add(folder.resolve())
    if _has_files(folder):
        return _read_runs(folder.parent, [submissions.Run({}, folder)])
    try:
        children = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except PermissionError as error:
        return [Run({}, folder, state=UNREADABLE, cause=in_one_line(error))]
    runs = _read_runs(folder)
    known = {run.name for run in runs}
    for child in children:
        if child.name not in known and child.resolve() not in seen:  # a link may lead back
            below = _walk(child, seen)
            if all(run.state == FOREIGN for run in below):
                below = [Run({}, child, state=FOREIGN, cause="not a run")]
            runs += below
    return runs


def _read_runs(folder: Path, requested: Sequence[submissions.Run] = ()) -> list[Run]:
    sweep = read_sweep(folder, requested)
    commands = {
        run.name: submission.command
        for submission in reversed(sweep.submissions)  # of a run in several, the first counts
        if submission.command
        for run in submission.runs
    }
    runs = []
    for seen in sweep.runs:
        if requested and seen.submission:
            seen.config = seen.submission.runs[seen.index].config
        command = commands.get(seen.name, seen.status.get("command"))
        runs.append(Run(**vars(seen), command=command))
        _read_files(runs[-1])
    if sweep.torn and not requested:
        record = folder / submissions.FOLDER
        runs.append(Run({}, record, state=UNREADABLE, cause="; ".join(sweep.torn)))
    return runs


def _read_files(run: Run) -> None:
    if not run.status and run.state not in (*ONGOING, UNREADABLE) and _has_files(run.folder):
        run.state, run.cause = UNREADABLE, "no status.json that can be read"
    if not run.config:
        try:
            run.config = read_config(run.folder)
        except (OSError, Unreadable) as error:
            run.problem = in_one_line(error)
            if run.state == State.DONE:
                run.state, run.cause = UNREADABLE, run.problem
    run.eval, problem = _read_rows(run.folder / "eval.csv")
    if run.eval or run.state == State.DONE:  # another run need not have evaluations
        run.problem = problem or run.problem


def _read_rows(path: Path) -> tuple[Table, str | None]:
    """Return the rows that can be read, and what is wrong."""
    try:
        return read_table(path), None
    except TornTable as error:
        return error.table, str(error)
    except OSError as error:
        return {}, in_one_line(error)


def _has_files(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in RUN_FILES)


# --- what differs --------------------------------------------------------------------------------


def varying(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the keys that a sweep varied, and their values, sorted.

    A key that some runs lack has the value ABSENT there. Of keys that others determine, as
    ``env.length`` determines ``budget.train_episodes``, only the main ones are named, and of these
    none that differs only in that some models lack it. ``sweep`` counts as a key; it only tells
    runs apart that nothing else does. Copies do not count.
    """
    known = [run for run in runs if run.config and run.state != DUPLICATE]
    keys = {key for run in known for key in identity(run.config)} - {*MAIN_KEYS}
    # Classes last: most follow from other keys.
    others = sorted(keys, key=lambda key: (key.endswith("._target_"), key))
    varied: dict[str, list[Any]] = {}
    groups: list[tuple[str, ...]] = [()] * len(known)
    models = [canonical(run.flat.get("seq_model.name", ABSENT)) for run in known]
    # The seed after all others: what goes with a seed must not be taken for chance.
    for key in (*MAIN_KEYS[:-1], *others, MAIN_KEYS[-1], "sweep"):
        values = [run.flat.get(key, ABSENT) for run in known]
        texts = list(map(canonical, values))  # 1 is 1.0 but not "1", null is not absent
        distinct = dict(zip(texts, values, strict=True))
        finer = [(*group, text) for group, text in zip(groups, texts, strict=True)]
        new = len(set(finer)) > len(set(groups))
        differs = len(distinct.keys() - {canonical(ABSENT)}) > 1
        # That a key is absent may follow from the model: one without layers has no n_layer.
        follows = len(set(zip(models, texts, strict=True))) == len(set(models))
        if new or (key in MAIN_KEYS and (differs or not follows)):
            varied[key] = sorted(distinct.values(), key=order)
            groups = finer
    return varied


def order(value: Any) -> tuple[int, float, str]:
    """Return what values of all types sort by: None and ABSENT, numbers, the rest as text."""
    if value is None or value is ABSENT:
        return 0, 0.0, show(value)
    return (1, value, show(value)) if type(value) in (int, float) else (2, 0.0, show(value))


def labels(runs: Sequence[Run]) -> list[str]:
    """Return what to call each run's series: its model, and all else that varies within its task.

    The seed and a length that is a number are left out, and a list of lengths is always named; a
    run whose config is not known gets an empty label.
    """
    keys = {}
    for task in {run.task for run in runs}:
        members = [run for run in runs if run.task == task and run.config]
        keys[task] = [key for key in varying(members) if key not in ("seed", "seq_model.name")]
    return [_label(run, _own_keys(run, keys[run.task])) if run.config else "" for run in runs]


def _own_keys(run: Run, keys: Sequence[str]) -> list[str]:
    """Return the keys that a run's label names, out of those that vary within its task."""
    others = [key for key in keys if key != "env.length"]
    is_list = isinstance(run.flat.get("env.length"), list)
    is_named = is_list or ("env.length" in keys and run.length is None)
    return ["env.length", *others] if is_named else others


def _quoted(value: Any) -> str:
    """Write a value such that two different ones never look alike, which would make one series."""
    if isinstance(value, list):
        return f"[{','.join(map(_quoted, value))}]"
    return repr(value) if isinstance(value, str) and NOT_TEXT.match(value) else show(value)


def _label(run: Run, keys: Sequence[str]) -> str:
    parts = [str(run.flat.get("seq_model.name"))]
    ends = Counter(key.rpartition(".")[2] for key in keys)
    for key in keys:
        if key in run.flat:
            end, text = key.rpartition(".")[2], _quoted(run.flat[key])
            short = ends[end] == 1 and end != "_target_"
            parts.append(text if end == "name" else f"{end if short else key}={text}")
    return printable(", ".join(parts))
