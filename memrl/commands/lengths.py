"""Compute what a finite task demands: the memory lengths of its rewards, transitions, optimal
policies and values, and its credit-assignment length, as Ni et al. 2023 define them. Exact, over
all histories. Several values of a key, as in env.length=5,10,20, are several tasks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memrl.commands.arguments import add_config, file_ending
from memrl.run.outcome import ConfigError, in_one_line, show
from memrl.run.tables import align

if TYPE_CHECKING:
    from memrl.lengths.finite import Model
    from memrl.lengths.histories import Step
    from memrl.lengths.measure import Lengths

KEYS = ("env", "algo.gamma")  # that have an effect
NAMES = {
    "reward_memory": "reward memory",
    "transition_memory": "transition memory",
    "policy_memory": "policy memory",
    "value_memory": "value memory",
    "credit": "credit",
}
ROWS = 512  # environments that are stepped together
EXACT = 10**6  # larger counts of histories are rounded


class Task(NamedTuple):
    """A task, and what was computed of it."""

    name: str
    length: float | None
    gamma: float
    model: Model
    graph: list[Step]
    lengths: Lengths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser, "env=tmaze_active env.length=5,10", KEYS)
    text = "show also the tasks in a file that --json printed"
    parser.add_argument("--also", type=Path, action="append", default=[], metavar="FILE", help=text)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    figure = file_ending(".png", ".pdf", ".svg")
    text = "draw the tasks in the plane of policy memory and credit-assignment length"
    parser.add_argument("--figure", type=figure, metavar="FILE", help=text)


def run(args: argparse.Namespace) -> None:
    """Print a line for each task; of a single one also two histories that demand its memory.

    Raises:
        ConfigError: the config is refused, or a task is not finite or too large.
    """
    if args.figure and not args.figure.parent.is_dir():
        raise ConfigError(f"--figure {args.figure}: there is no such folder")
    earlier = [row for file in args.also for row in _read(file)]
    composed = _compose(args)
    names = _tell_apart(composed)
    tasks = [_compute(*task, name) for task, name in zip(composed, names, strict=True)]
    rows = earlier + [_as_dict(task) for task in tasks]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print(_table(rows))
        if len(rows) == 1:
            print(_reason(tasks[0]))
        for line in _closed_forms(rows):
            print(line)
    if args.figure:
        from memrl.results.plane import draw

        draw(args.figure, rows)


def _compose(args: argparse.Namespace) -> list[tuple[dict[str, Any], float, str]]:
    """Return each different task's section of the config, gamma, and the overrides that give it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from memrl.run import schema
    from memrl.run.command_line import open_command_line
    from memrl.run.config import explain, leaves
    from memrl.run.import_path import add_user_folders
    from memrl.sweep.compose import Composer

    add_user_folders(args)
    try:
        parsed = OverridesParser.create().parse_overrides([*args.overrides])
    except HydraException as error:
        raise ConfigError(explain(error, args.overrides, None)) from None
    for override in parsed:
        key = override.key_or_group
        if not _has_effect(key):
            reason = f"it has no effect in memrl lengths, which reads {', '.join(KEYS)}"
            raise ConfigError(f"{override.input_line}: {reason}; leave it out")
    flags = argparse.Namespace(**vars(args), multirun=True, run=False, cfg=None)
    found: dict[str, tuple[dict[str, Any], float, str]] = {}
    with open_command_line(flags) as line:
        composer = Composer(line.hydra.config_loader, line.compose())
        params = composer.master.hydra.sweeper.get("params") or {}
        texts = [f"{key}={show(value)}" for key, value in params.items() if _has_effect(key)]
        for overrides in composer.product([*texts, *args.overrides]):
            try:
                config = composer(overrides)
            except HydraException as error:
                raise ConfigError(composer.explain(error, overrides)) from None
            section = schema.check_group("env", dict(leaves(config.env, "env")))
            gamma = config.algo.gamma
            if not isinstance(gamma, int | float):
                raise ConfigError(f"algo.gamma={show(gamma)}: must be a number in [0, 1]")
            found.setdefault(repr((section, gamma)), (section, gamma, " ".join(overrides)))
    return [*found.values()]


def _has_effect(key: str) -> bool:
    return key in KEYS or key.startswith("env.")


def _tell_apart(composed: Sequence[tuple[dict[str, Any], float, str]]) -> list[str]:
    """Return a name of each task, with the keys, other than its length, that differ."""
    from memrl.run.identity import task_name

    names = [task_name(section) for section, _, _ in composed]
    for name in {*names}:
        some = [i for i, other in enumerate(names) if other == name]
        values = [composed[i][0] | {"gamma": composed[i][1]} for i in some]
        keys = [key for key in values[0] if key != "length"]
        differ = [key for key in keys if any(v[key] != values[0][key] for v in values)]
        for i, value in zip(some, values, strict=True):
            names[i] = " ".join([name, *(f"{key}={show(value[key])}" for key in differ)])
    return names


def _compute(section: dict[str, Any], gamma: float, overrides: str, name: str) -> Task:
    """Compute the lengths of one task."""
    from memrl.envs.lockstep import Lockstep
    from memrl.experiment import closing, make_env
    from memrl.lengths.finite import NotFinite, TooLarge, model_of
    from memrl.lengths.histories import histories
    from memrl.lengths.measure import measure

    config = {"env": section}
    with closing(make_env(config, 1)) as env:
        rows = ROWS if isinstance(env, Lockstep) else 1
    try:
        with closing(make_env(config, rows)) as env:
            model = model_of(env)
        graph = histories(model)
        lengths = measure(graph, gamma)
    except NotFinite as error:
        text = f"{overrides}: must be a task whose states and transitions are known, and {error}"
        raise ConfigError(f"{text}; see docs/lengths.md") from None
    except TooLarge as error:
        raise ConfigError(f"{overrides}: too large to be computed: {error}") from None
    except ValueError as error:
        key = str(error).split()[0]
        path = "env." if key in section else "algo." if key == "gamma" else ""
        raise ConfigError(f"{overrides or 'the default task'}: {path}{error}") from None
    return Task(name, section.get("length"), gamma, model, graph, lengths)


def _as_dict(task: Task) -> dict[str, Any]:
    lengths = {name: getattr(task.lengths, name) for name in NAMES}
    facts = {"task": task.name, "length": task.length, "horizon": len(task.graph)}
    size = {"histories": task.lengths.histories, "beliefs": task.lengths.nodes}
    return facts | {"gamma": task.gamma} | lengths | size


def _read(file: Path) -> list[dict[str, Any]]:
    """Return the tasks in a file that an earlier command printed."""
    try:
        rows = json.loads(file.read_text())
        whole = ("horizon", *NAMES, "histories", "beliefs")
        ok = all(
            isinstance(row["task"], str) and "length" in row and type(row[key]) is int
            for row in rows
            for key in whole
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"--also {file}: {in_one_line(error)}") from None
    except (KeyError, TypeError):
        ok = False
    if not ok:
        raise ConfigError(f"--also {file}: must be what memrl lengths --json printed")
    return list(rows)


def _table(tasks: Sequence[Mapping[str, Any]]) -> str:
    rows = [["task", "length", "horizon", *NAMES.values(), "histories", "beliefs"]]
    for task in tasks:
        n = task["histories"]
        texts = [task["task"], "-" if task["length"] is None else show(task["length"])]
        texts += [str(task[name]) for name in ("horizon", *NAMES)]
        # Too large a number is no float.
        count = str(n) if n < EXACT else f"{str(n)[0]}.{str(n)[1]}e{len(str(n)) - 1}"
        rows.append([*texts, count, f"{task['beliefs']:,}"])
    return align(rows)


def _closed_forms(tasks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Return, for tasks of three lengths or more, what is linear in the length."""
    for name in dict.fromkeys(task["task"] for task in tasks):
        some = [t for t in tasks if t["task"] == name and isinstance(t["length"], int)]
        some.sort(key=lambda task: int(task["length"]))
        lengths = [task["length"] for task in some]
        if len({*lengths}) < 3:
            continue
        forms = []
        for field, title in NAMES.items():
            values = [task[field] for task in some]
            slope = (values[-1] - values[0]) // (lengths[-1] - lengths[0])
            offset = values[0] - slope * lengths[0]
            fits = [slope * n + offset == value for n, value in zip(lengths, values, strict=True)]
            forms.append(f"{title} {_linear(slope, offset) if all(fits) else 'not linear'}")
        yield f"{name}, L = {', '.join(map(str, lengths))}: {', '.join(forms)}"


def _linear(slope: int, offset: int) -> str:
    if not slope:
        return str(offset)
    factor = "L" if slope == 1 else f"{slope} L"
    return factor if not offset else f"{factor} {'-' if offset < 0 else '+'} {abs(offset)}"


def _reason(task: Task) -> str:
    """Return two histories that agree in all but the oldest step, and demand different actions."""
    from memrl.lengths.measure import example

    pair = task.lengths.policy_pair
    if task.lengths.policy_memory > (pair.common if pair else 0) + 1:
        return "three or more histories together demand this memory; no two of them do"
    if pair is None:
        return "histories with the same last observation always have an optimal action in common"
    rows: list[tuple[str, ...]] = []
    first, second = example(task.graph, pair)
    seen: dict[int, str] = {}
    for one, other in zip(first, second, strict=True):
        texts = [_observation(obs, task.model, seen) for obs, _ in (one, other)]
        actions = [task.model.actions[a] if a is not None else "" for _, a in (one, other)]
        if one[1] is None:
            actions = [_best(task, pair, i) for i in (0, 1)]
        rows.append((texts[0], actions[0], texts[1], actions[1]))
    lines: list[tuple[str, ...]] = [("step", "one history", "", "another one", "")]
    start = 0
    for row, group in groupby(rows):
        end = start + len([*group])
        lines.append((str(end) if end == start + 1 else f"{start + 1}-{end}", *row))
        start = end
    last = "observation" if pair.common == 1 else f"{pair.common} observations"
    head = f"these agree in the last {last}, but not in what is optimal then:"
    return f"{head}\n{align(lines)}"


def _best(task: Task, pair: Any, i: int) -> str:
    from memrl.lengths.measure import find_optimal

    q = task.lengths.values[pair.t - 1][pair.nodes[i]]
    names = [task.model.actions[a] for a in find_optimal(q).nonzero()[0].tolist()]
    return f"{' or '.join(names)}!"


def _observation(number: int, model: Model, seen: dict[int, str]) -> str:
    """Return an observation as text; images are numbered in the order in which they are seen."""
    value = model.observations[number]
    if getattr(value, "size", 0) > 8:
        return seen.setdefault(number, f"image {len(seen) + 1}")
    if hasattr(value, "tolist"):
        return f"({', '.join(f'{x:g}' for x in value.ravel().tolist())})"
    return str(value)
