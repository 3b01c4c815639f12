"""Environment steps per second while exploring, against the reference's one environment.

    python benchmarks/acting.py

One thread, whole episodes of the Passive T-Maze including resets, no dropout on either side.
Measurements are interleaved; ratios are medians of paired ratios.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

from common import in_turn, machine, ratio, table

ENVS = (1, 32, 256)


def reference(model: str, length: int) -> Callable[[], Any]:
    """Return a function that plays one episode with the reference."""
    import gymnasium
    import torch
    from reference import Reference

    import memrl.envs  # noqa: F401  # registers the tasks

    torch.set_num_threads(1)
    agent = Reference(model, length, dropout=0.0)
    env = gymnasium.make("memrl/TMazePassive-v0", length=length)
    return lambda: agent.play(env, 0.1)


def ours(model: str, length: int, num_envs: int) -> Callable[[], Any]:
    """Return a function that plays one round of episodes in ``num_envs`` environments."""
    from memrl.experiment import build, resolve
    from memrl.rollout import rollout
    from memrl.run.config import compose_config

    short = ["budget.train_episodes=10", "device=cpu", f"num_envs={num_envs}"]
    model_of = [f"seq_model={model}", "dropout=0", "attention_dropout=0"]
    given = ["env=tmaze_passive", f"env.length={length}", *model_of, *short]
    trainer = build(resolve(compose_config(given)))
    return lambda: rollout(trainer.env, trainer.agent, True, trainer.device, trainer.horizon)


def measure(length: int, model: str, repetitions: int) -> list[Any]:
    """Return one row."""
    made = [(reference, model, length), *((ours, model, length, n) for n in ENVS)]
    times, _ = in_turn(made, repetitions)
    rates = [
        f"{n * (length + 1) / statistics.median(own):,.0f}"
        for n, own in zip((1, *ENVS), times, strict=True)
    ]
    gains = [f"{n * ratio(times[0], own):.1f}" for n, own in zip(ENVS, times[1:], strict=True)]
    return [model.upper(), length, *rates, ", ".join(gains)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="50,250,1000")
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    print(f"{machine()}; one thread, medians of {given.repetitions}\n")
    lengths = [int(length) for length in given.lengths.split(",")]
    envs = [f"{n} env{'s' if n > 1 else ''}" for n in ENVS]
    table(
        ["model", "length", "reference", *envs, "times faster"],
        (measure(n, model, given.repetitions) for model in ("lstm", "gpt") for n in lengths),
    )


if __name__ == "__main__":
    main()
