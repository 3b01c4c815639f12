"""Play many greedy episodes of runs, done or still training, in their task or at other lengths.
Print the mean return and success with 95 % intervals, and write them into evaluation.csv in the
run's folder. With several lengths, draw evaluation.png: success, or return, over evaluation
length."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from memrl.commands.arguments import number_between, output_folder
from memrl.commands.sweep import add_trust
from memrl.results.agents import change_env, changed_keys, fit_to_env, load_run
from memrl.results.evaluation import (
    FIGURE_FILE,
    TABLE_FILE,
    Evaluation,
    expand,
    figure,
    play,
    read_rows,
    write_row,
)
from memrl.results.runs import Run, load
from memrl.run.files import write_whole
from memrl.run.identity import length_name, task_name
from memrl.run.outcome import ConfigError, plural

OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w./@]*=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    what = "a run's folder, outputs/<sweep>/<run>, or several"
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

    Raises:
        ConfigError: a run has no agent, or one that cannot play such a task; nothing was played.
        CannotContinue: what a run saved cannot be read.
        OSError: a file cannot be written.
    """
    words = [*args.run, *args.override]
    overrides = [word for word in words if OVERRIDE.match(word) and not Path(word).exists()]
    folders = [Path(word) for word in dict.fromkeys(words) if word not in overrides]
    if not folders:
        raise ConfigError("name at least one run's folder, outputs/<sweep>/<run>")
    tasks = []
    for folder in folders:
        saved, agent, weights = load_run(folder, args.trust, args.device)
        read_rows(folder)
        for combination in expand(overrides):
            config = change_env(saved, combination)
            tasks.append((folder, saved, config, fit_to_env(agent, saved, config), weights))
    records = {folder: load(folder)[0] for folder in folders}
    evaluations: list[tuple[Run, Evaluation]] = []
    for folder, saved, config, agent, weights in tasks:
        if not evaluations or evaluations[-1][0] is not records[folder]:
            print(f"{folder}: {weights}", flush=True)
        length = config["env"].get("length")
        evaluation = Evaluation(
            changed_keys(saved, config),
            length if type(length) in (int, float) else None,
            args.seed,
            weights,
            *play(config, agent, args.episodes, args.seed),
        )
        write_row(folder, evaluation)
        evaluations.append((records[folder], evaluation))
        _print(evaluation, task_name(config["env"]) + length_name(config["env"]))
    print("95 % intervals over episodes: bootstrap for the return, Wilson for success")
    print(*(folder / TABLE_FILE for folder in folders), sep="\n")
    if picture := figure(evaluations):
        path = output_folder(folders) / FIGURE_FILE
        write_whole(path, picture)
        print(path)


def _print(evaluation: Evaluation, task: str) -> None:
    others = [o for o in evaluation.overrides.split() if not o.startswith("env.length=")]
    success = "" if evaluation.success is None else f", success {evaluation.success}"
    print(
        f"{' '.join([task, *others])}: return {evaluation.mean_return}{success} in "
        f"{plural(len(evaluation.returns), 'episode')} of {evaluation.steps.mean():.1f} steps",
        flush=True,
    )
