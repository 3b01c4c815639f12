"""Play many greedy episodes of runs, done or still training, in their task or at other lengths; a
sweep stands for its runs that are done. Print the mean return and success with 95 % intervals, and
write them into evaluation.csv in each run's folder. With several lengths, print the longest one
that each run solved, and draw evaluation.png: success, or return, over evaluation length, a line
for all seeds of a config."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from memrl.commands.arguments import load_folders, number_between, output_folder
from memrl.commands.sweep import add_trust
from memrl.interfaces import Agent
from memrl.results.agents import CannotAct, change_env, changed_keys, fit_to_env, load_run
from memrl.results.evaluation import (
    FIGURE_FILE,
    TABLE_FILE,
    Evaluation,
    expand,
    figure,
    group,
    longest_solved,
    play,
    read_rows,
    write_row,
)
from memrl.results.runs import FOREIGN, Run
from memrl.run.files import write_whole
from memrl.run.identity import Config, length_name, task_name
from memrl.run.outcome import ConfigError, plural

OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w./@]*=")


class Task(NamedTuple):
    """A run, and the configs of the tasks that its agent is to play."""

    run: Run
    saved: Config
    agent: Agent
    weights: str  # the file that holds the agent
    configs: list[Config]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    what = "a run's folder, outputs/<sweep>/<run>, or a sweep's, outputs/<sweep>; or several"
    parser.add_argument("run", nargs="+", metavar="RUN", help=what)
    changes = "keys of the task, such as env.length=10,20,50: all combinations are evaluated"
    parser.add_argument("override", nargs="*", metavar="env.KEY=VALUE[,VALUE]", help=changes)
    episodes, seed = number_between(int, 1, 100_000), number_between(int, 0, 2**63)
    number = "of each evaluation (default: %(default)s)"
    parser.add_argument("--episodes", type=episodes, default=1000, help=number)
    parser.add_argument("--seed", type=seed, default=0, help="the task's (default: %(default)s)")
    devices = ("auto", "cpu", "cuda")
    parser.add_argument("--device", choices=devices, default="auto", help="default: %(default)s")
    add_trust(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate every run; rows of an earlier identical command are replaced.

    Evaluations that an agent cannot play, because they are too long for it, are left out.

    Raises:
        ConfigError: a run has no agent, or none can play such a task; nothing was played.
        CannotContinue: what a run saved cannot be read.
        OSError: a file cannot be written.
    """
    words = [*args.run, *args.override]
    overrides = [word for word in words if OVERRIDE.match(word) and not Path(word).exists()]
    folders = [Path(word) for word in dict.fromkeys(words) if word not in overrides]
    if not folders:
        raise ConfigError("name at least one folder, outputs/<sweep>/<run> or outputs/<sweep>")
    runs = _select(folders)
    tasks = _prepare(runs, expand(overrides), args.trust, args.device)
    evaluations: list[tuple[Run, Evaluation]] = []
    for task in tasks:
        print(f"{task.run.folder}: {task.weights}", flush=True)
        for config in task.configs:
            length = config["env"].get("length")
            evaluation = Evaluation(
                changed_keys(task.saved, config),
                length if type(length) in (int, float) else None,
                args.seed,
                task.weights,
                *play(config, fit_to_env(task.agent, task.saved, config), args.episodes, args.seed),
            )
            write_row(task.run.folder, evaluation)
            evaluations.append((task.run, evaluation))
            _print(evaluation, task_name(config["env"]) + length_name(config["env"]))
    print("95 % intervals over episodes: bootstrap for the return, Wilson for success")
    cells = group(evaluations)
    for line in longest_solved(cells):
        print(line)
    picture = figure(cells)
    if picture:
        write_whole(output_folder(folders) / FIGURE_FILE, picture)
    if len(tasks) == 1:
        print(tasks[0].run.folder / TABLE_FILE)
    else:
        print(f"{TABLE_FILE} in the folders of {plural(len(tasks), 'run')}")
    if picture:
        print(output_folder(folders) / FIGURE_FILE)


def _select(folders: Sequence[Path]) -> list[Run]:
    """Return the runs of these folders: each one that is named, and of others those that are done.

    Raises:
        ConfigError: there is no such folder, or no run.
    """
    runs = [run for run in load_folders(folders) if run.state != FOREIGN]
    named = {folder.resolve() for folder in folders}
    chosen = [run for run in runs if run.state == "done" or run.folder.resolve() in named]
    states = Counter(str(run.state) for run in runs if run not in chosen)
    others = ", ".join(f"{n} {state}" for state, n in states.items())
    if not chosen:
        places = ", ".join(map(str, folders))
        raise ConfigError(f"{places}: no run that is done{f' ({others})' if others else ''}")
    if others:
        print(f"{plural(len(chosen), 'run')}; not done, so left out: {others}")
    return chosen


def _prepare(
    runs: Sequence[Run], combinations: Sequence[list[str]], trusted: Sequence[str], device: str
) -> list[Task]:
    """Load the agents, and say which tasks they cannot play.

    Raises:
        ConfigError: none can play any, or an override or a run is refused.
        Failure: what a run saved, or its table, cannot be read.
    """
    tasks: list[Task] = []
    refused: dict[str, CannotAct] = {}  # by the line that says it
    for run in runs:
        saved, agent, weights = load_run(run.folder, trusted, device)
        read_rows(run.folder)
        configs: list[Config] = []
        errors: list[CannotAct] = []
        for combination in combinations:
            try:
                config = change_env(saved, combination)
                fit_to_env(agent, saved, config)
                configs.append(config)
            except CannotAct as error:
                errors.append(error)
            except ConfigError as error:
                place = f"{run.folder}: " if len(runs) > 1 else ""
                raise ConfigError(f"{place}{error}") from None
        if errors:
            share = f"{len(errors)} of {plural(len(combinations), 'evaluation')}"
            refused[f"{run.folder}: {errors[0]}; left out: {share}"] = errors[0]
        if configs:
            tasks.append(Task(run, saved, agent, weights, configs))
    if not tasks:
        raise next(iter(refused.values()))
    for line in refused:
        print(line)
    return tasks


def _print(evaluation: Evaluation, task: str) -> None:
    others = [o for o in evaluation.overrides.split() if not o.startswith("env.length=")]
    success = "" if evaluation.success is None else f", success {evaluation.success}"
    print(
        f"{' '.join([task, *others])}: return {evaluation.mean_return}{success} in "
        f"{plural(len(evaluation.returns), 'episode')} of {evaluation.steps.mean():.1f} steps",
        flush=True,
    )
