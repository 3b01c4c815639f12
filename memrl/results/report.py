"""A sweep as one page: ``python -m memrl report outputs/<sweep>``."""

from __future__ import annotations

import base64
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from memrl.experiment import default_config
from memrl.results import figures, text
from memrl.results.comparison import aggregates
from memrl.results.drawing import Look
from memrl.results.runs import DUPLICATE, Run, varying
from memrl.results.scores import SOLVED, Cell
from memrl.results.stats import Estimate
from memrl.run.identity import NAMED, changes
from memrl.run.outcome import below_cwd, show
from memrl.run.tables import Column
from memrl.sweep.states import ONGOING, State


class Value(NamedTuple):
    """A cell of a table: what is shown, and what it is sorted by."""

    text: str
    key: float | str


def number(value: float | None, form: str = ",.0f") -> Value:
    """Return a cell with a number, or a dash where there is none, which sorts last."""
    if value is None or value != value:
        return Value("-", float("-inf"))
    return Value(format(value, form), value)


def estimate(value: Estimate) -> Value:
    """Return a cell with an estimate, which sorts by its value."""
    return Value(str(value), float(value.value) if value.n else float("-inf"))


# --- parts of the page ---------------------------------------------------------------------------


def score_table(found: Sequence[Cell]) -> list[list[Value | str]]:
    """Return the table of scores, its header first."""
    name = found[0].protocol.name
    mean = [] if name == "mean" else ["mean [95 %]"]
    header = ["task", "length", "series", "metric", f"{name} [95 %]", *mean]
    rows: list[list[Value | str]] = [[*header, "n", "requested", f"solved (≥ {SOLVED})"]]
    for cell in found:
        where: list[Value | str] = [cell.task, number(cell.length, "g"), cell.label]
        where.append(cell.metric.removeprefix("eval/"))
        estimates = [estimate(cell.estimate), *([estimate(cell.mean)] if mean else [])]
        n, asked = len(cell.counted), len(cell.members)
        solved = number(None)
        if cell.solved is not None:
            solved = Value(f"{cell.solved} of {n}", cell.solved / n)
        rows.append([*where, *estimates, number(n), number(asked), solved])
    return rows


def cost_table(found: Sequence[Cell]) -> list[list[Value | str]]:
    """Return what the runs of each cell, and all together, have cost so far."""
    head = ["task", "length", "series", "runs", "hours", "GPU hours", "env steps/s", "updates/s"]
    rows: list[list[Value | str]] = [[*head]]
    for cell in found:
        where: list[Value | str] = [cell.task, number(cell.length, "g"), cell.label]
        rows.append([*where, *_cost([member.run for member in cell.members])])
    every = [member.run for cell in found for member in cell.members]
    return [*rows, ["all", number(None), "", *_cost(every)]]


def _cost(runs: Sequence[Run]) -> list[Value]:
    runs = [run for run in runs if run.state != DUPLICATE]
    timed = [run for run in runs if _seconds(run)]
    seconds = sum(map(_seconds, timed))
    devices = [_versions(run).get("device") for run in timed]
    gpu = sum(_seconds(run) for run, device in zip(timed, devices, strict=True) if device == "cuda")
    updates = [max(found) for run in timed if len(found := _finite(run, "updates"))]
    steps = sum(run.env_steps for run in timed)
    return [
        number(len(runs)),
        number(seconds / 3600 if timed else None, ",.2f"),
        number(gpu / 3600 if any(devices) else None, ",.2f"),
        number(steps / seconds if timed else None, ",.0f"),
        number(sum(updates) / seconds if updates else None, ",.1f"),
    ]


def _seconds(run: Run) -> float:
    """Return how long a run has trained, up to its last evaluation."""
    return float(max(_finite(run, "time/seconds"), default=0.0))


def _finite(run: Run, name: str) -> Column:
    column = run.eval.get(name, np.empty(0))
    return column[np.isfinite(column)]


def _versions(run: Run) -> dict[str, Any]:
    versions = run.status.get("versions")
    return versions if isinstance(versions, dict) else {}


def run_table(found: Sequence[Cell], runs: Sequence[Run]) -> list[list[Value | str]]:
    """Return a line for each run and each folder in the place of one."""
    scores = {id(m.run): m.score for cell in found for m in cell.members}
    ordered = [m.run for cell in found for m in cell.members]
    ordered += [run for run in runs if id(run) not in scores]
    head = ["run", "state", "score", "progress", "env steps", "minutes", "host", "job", "cause"]
    rows: list[list[Value | str]] = [[*head]]
    for run in ordered:
        progress, seconds = run.number("progress"), _seconds(run)
        rows.append(
            [
                run.name,
                str(run.state),
                number(scores.get(id(run)), ".2f"),
                number(progress, ".0%"),
                number(run.env_steps or None),
                number(seconds / 60 if seconds else None, ",.1f"),
                str(run.status.get("host") or "-"),
                str(run.status.get("job_id") or "-"),
                run.problem or run.cause or "-",
            ]
        )
    return rows


def failures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the runs that neither are done nor go on, by state and cause, and how to see more."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.problem or run.state not in (State.DONE, DUPLICATE, *ONGOING):
            state = str(run.state) if run.state != State.DONE else "torn"
            groups.setdefault((state, run.problem or run.cause), []).append(run)
    found = []
    for (state, cause), members in sorted(groups.items()):
        names = [run.name for run in members]
        log = members[0].folder / "run.log"
        log_path = below_cwd(log) if os.path.exists(log) else None
        found.append({"state": state, "cause": cause, "names": names, "log": log_path})
    return found


def version_table(runs: Iterable[Run]) -> list[tuple[str, str]]:
    """Return what the runs ran on, and how many did where it was not the same for all."""
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        if run.state == DUPLICATE:
            continue
        for key, value in _versions(run).items():
            values = value if isinstance(value, list) else [value]
            for each in values:
                counts.setdefault(key, Counter())[show(each)] += 1
    return [(key, _spread(values)) for key, values in counts.items()]


def _spread(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{value} ({n} run{'s' * (n > 1)})" for value, n in values.most_common())


def changed_keys(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Return the keys whose values are not the defaults: key, default, value."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for run in runs:
        if run.config and run.state != DUPLICATE:
            default = default_config(run.config)
            changed = {} if default is None else changes(default, run.config)
            for key in changed.keys() - {*NAMED}:
                before, value = map(show, changed[key])
                counts.setdefault((key, before), Counter())[value] += 1
    return [(key, default, _spread(values)) for (key, default), values in sorted(counts.items())]


def commands(runs: Iterable[Run]) -> list[str]:
    """Return the commands that were typed for these runs, each once, in the order of their runs."""
    begun: dict[str, float] = {}
    for run in runs:
        if run.command:
            started = run.number("started") or math.inf
            begun[run.command] = min(started, begun.get(run.command, math.inf))
    return sorted(begun, key=begun.__getitem__)


# --- the page ------------------------------------------------------------------------------------


def page(runs: Sequence[Run], found: Sequence[Cell], title: str) -> str:
    """Return the report as HTML that needs no other file and no network."""
    pictures = {
        heading: base64.b64encode(content).decode()
        for name, heading in figures.FIGURES.items()
        if (content := figures.draw(name, found, Look(), "svg"))
    }
    name = found[0].protocol.name
    known = [run for run in runs if run.config]
    states = Counter(str(run.state) for run in runs)
    updated = max((run.number("updated") or 0 for run in runs), default=0)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=title,
        updated=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(updated)) if updated else None,
        states=states.most_common(),
        counted=text.how_many(found),
        pictures=pictures,
        protocol=found[0].protocol,
        scores=score_table(found),
        together=[
            (f"{one.task}, {text.lengths_of(one)}", text.together(one, name))
            for one in aggregates(found)
        ],
        varied=[(key, ", ".join(map(show, values))) for key, values in varying(runs).items()],
        changed=changed_keys(runs),
        config=yaml.safe_dump(dict(known[0].config), sort_keys=False) if known else None,
        costs=cost_table(found),
        versions=version_table(runs),
        failures=failures(runs),
        commands=commands(known),
        unrecorded=sum(run.command is None for run in known),
        others=len(runs) - len(known),
        runs=run_table(found, runs),
        is_value=lambda cell: isinstance(cell, Value),
    )
