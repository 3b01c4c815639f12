"""Play greedy episodes of a run, done or still training, and write them as an animation or image:
the task, the rewards, the actions and what the agent gives them, and for models with attention the
earlier step that each decision attends to most (mean over layers and heads)."""

from __future__ import annotations

import argparse
from pathlib import Path

from memrl.commands.arguments import file_ending, number_between
from memrl.commands.sweep import add_trust
from memrl.results.agents import load_run
from memrl.results.films import animation, play, strip, video
from memrl.run.files import write_whole
from memrl.run.identity import length_name, task_name
from memrl.run.outcome import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", type=Path, help="a run's folder, outputs/<sweep>/<run>")
    output = "a .gif, .mp4 or .png file (default: watch.gif in the run's folder)"
    parser.add_argument(
        "--output", type=file_ending(".gif", ".mp4", ".png"), metavar="FILE", help=output
    )
    episodes, seed = number_between(int, 1, 1000), number_between(int, 0, 2**63)
    parser.add_argument(
        "--episodes", type=episodes, default=3, help="number of them (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=seed, help="the task's (default: that of the run's evaluation)"
    )
    fps = number_between(float, 0.01, 100)
    parser.add_argument(
        "--fps", type=fps, default=6, help="steps per second (default: %(default)s)"
    )
    add_trust(parser)
    steps = "for .png: the steps to show, such as 0,14,75 (default: six steps)"
    parser.add_argument("--steps", type=_steps, help=steps)


def _steps(text: str) -> list[int]:
    if not all(step.isdecimal() for step in text.split(",")):
        raise argparse.ArgumentTypeError(f"must be integers separated by commas, got {text}")
    return sorted(map(int, text.split(",")))


def run(args: argparse.Namespace) -> None:
    """Play episodes, print how they ended, and write the file.

    Raises:
        ConfigError, CannotContinue: the run has nothing to watch.
        OSError: the file cannot be written.
    """
    from memrl.trainer import EVAL_SEED_OFFSET

    output = args.output or args.folder / "watch.gif"
    if args.steps and output.suffix != ".png":
        raise ConfigError(f"--steps needs an --output that ends with .png, got {output}")
    config, agent, source = load_run(args.folder, args.trust)
    seed = config["seed"] + EVAL_SEED_OFFSET if args.seed is None else args.seed
    films = play(config, agent, args.episodes, seed)
    print(f"{args.folder}: {source}")
    for n, film in enumerate(films, start=1):
        success = "" if film.success is None else f", {'' if film.success else 'no '}success"
        print(f"episode {n}: return {film.reward.sum():.2f}{success}")
    length = length_name(config["env"])
    title = f"{task_name(config['env'])}{length}, {config['seq_model']['name']}"
    if output.suffix == ".gif":
        write_whole(output, animation(films, title, args.fps))
    elif output.suffix == ".mp4":
        write_whole(output, video(films, title, args.fps))
    else:
        write_whole(output, strip(films, title, args.steps))
    print(output)
