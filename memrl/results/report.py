"""A sweep as one page: ``python -m memrl report outputs/<sweep>``."""

from __future__ import annotations

import base64
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from jinja2 import StrictUndefined, Template

from memrl.experiment import default_config
from memrl.results import figures
from memrl.results.drawing import DEFAULTS
from memrl.results.runs import DUPLICATE, Run, varying
from memrl.results.scores import Cell
from memrl.results.text import TextTable, compare, how_many, name_intervals, score_table, unequal
from memrl.run.identity import NAMED, changes
from memrl.run.outcome import below_cwd, show
from memrl.sweep.states import ONGOING, State


def cost_table(cells: Sequence[Cell]) -> TextTable:
    """Return what the runs of each cell, and all runs of all cells, have cost so far."""
    columns = {"task": None, "length": "", "series": None, "runs": ",", "hours": ",.2f"}
    columns |= {"GPU hours": ",.2f", "env steps/s": ",.0f", "updates/s": ",.1f"}
    groups = [(cell, [member.run for member in cell.members]) for cell in cells]
    values = [[cell.task, cell.length, cell.label, *_cost(runs)] for cell, runs in groups]
    total = _cost([run for _, runs in groups for run in runs])
    return TextTable(columns, [*values, ["all", None, "", *total]])


def _cost(runs: Sequence[Run]) -> list[float | None]:
    runs = [run for run in runs if run.state != DUPLICATE]
    timed = [run for run in runs if run.highest("time/seconds")]
    total = sum(run.highest("time/seconds") for run in timed)
    devices = [run.versions.get("device") for run in timed]
    on_gpu = [run for run, device in zip(timed, devices, strict=True) if device == "cuda"]
    updates = sum(run.highest("updates") for run in timed)
    return [
        len(runs),
        total / 3600 if timed else None,
        sum(run.highest("time/seconds") for run in on_gpu) / 3600 if any(devices) else None,
        sum(run.env_steps for run in timed) / total if timed else None,
        updates / total if updates else None,
    ]


def run_table(cells: Sequence[Cell], runs: Sequence[Run]) -> TextTable:
    """Return a line for each run and each folder that holds none."""
    columns = {"run": None, "state": None, "score": ".2f", "progress": ".0%", "env steps": ",.0f"}
    table = TextTable(columns | {"minutes": ",.1f", "host": None, "job": None, "cause": None}, [])
    scored = [(member.run, member.score) for cell in cells for member in cell.members]
    for run, score in scored + [(run, math.nan) for run in runs if not run.config]:
        minutes = run.highest("time/seconds") / 60 or None
        measured = [score, run.number("progress"), run.env_steps or None, minutes]
        place = [str(run.status.get(key) or "-") for key in ("host", "job_id")]
        cause = run.problem or run.cause or "-"
        table.values.append([run.name, str(run.state), *measured, *place, cause])
    return table


def failures(runs: Sequence[Run]) -> list[tuple[str, list[Run], str | None]]:
    """Return the runs that are neither done nor active: state and cause, runs, path of a log."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.problem or run.state not in (State.DONE, DUPLICATE, *ONGOING):
            state = run.state if run.state != State.DONE else "torn"
            cause = run.problem or run.cause
            groups.setdefault(f"{state}: {cause}" if cause else str(state), []).append(run)
    return [(heading, groups[heading], _log(groups[heading][0])) for heading in sorted(groups)]


def _log(run: Run) -> str | None:
    path = run.folder / "run.log"
    return below_cwd(path) if os.path.exists(path) else None


def version_table(runs: Iterable[Run]) -> list[tuple[str, str]]:
    """Return what the runs ran on, and how many did where it was not the same for all."""
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for key, value in run.versions.items() if run.state != DUPLICATE else ():
            values = value if isinstance(value, list) else [value]
            counts.setdefault(key, Counter()).update(map(show, values))
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
    ordered = sorted(runs, key=lambda run: run.number("started") or math.inf)
    return list(dict.fromkeys(run.command for run in ordered if run.command))


def page(runs: Sequence[Run], cells: Sequence[Cell], title: str) -> str:
    """Return the report as HTML that needs no other file and no network."""
    pictures = {
        heading: base64.b64encode(content).decode()
        for name, heading in figures.FIGURES.items()
        if (content := figures.draw(name, cells, DEFAULTS, "svg"))
    }
    known = [run for run in runs if run.config]
    updated = max((run.number("updated") or 0 for run in runs), default=0)
    template = Template(
        Path(__file__).with_suffix(".html").read_text("utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return template.render(  # type: ignore[no-any-return]
        title=title,
        updated=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(updated)) if updated else None,
        states=Counter(str(run.state) for run in runs).most_common(),
        counted=how_many(cells),
        pictures=pictures,
        protocol=cells[0].protocol,
        scores=score_table(cells),
        intervals=name_intervals(cells),
        unequal=unequal(cells),
        comparisons=compare(cells),
        varied=[(key, ", ".join(map(show, values))) for key, values in varying(runs).items()],
        changed=changed_keys(runs),
        config=yaml.safe_dump(dict(known[0].config), sort_keys=False) if known else None,
        costs=cost_table(cells),
        versions=version_table(runs),
        failures=failures(runs),
        commands=commands(known),
        unrecorded=sum(run.command is None for run in known),
        others=len(runs) - len(known),
        runs=run_table(cells, runs),
    )
