"""Cost of each sequence model against the length of histories, beside an LSTM.

    python benchmarks/memories.py [--models gpt,lru] [--lengths 51,251]

One thread, float32, no dropout, the models and widths of a Passive T-Maze. A forward pass is one
without gradients, as for targets; an update is a forward and a backward pass; a step of acting
continues histories of that length. Each in its own process, in turn with that of an LSTM; the
numbers in parentheses are medians of paired ratios. Memory is the peak of an update beyond what its
process held before.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import in_turn, machine, ratio, table

ROWS = 16  # windows of an update
ENVS = (1, 64)  # histories of a step
BASE = "lstm"


def build(name: str, length: int) -> tuple[Any, int]:
    """Return a model for windows of so many inputs, and the width of the inputs."""
    from memrl.experiment import build_agent, resolve
    from memrl.run.config import compose_config

    fixed = ["env=tmaze_passive", f"env.length={max(length - 2, 1)}", "budget=quick", "device=cpu"]
    choice = [f"seq_model={name}", "dropout=0", "attention_dropout=0"]
    agent, _, _ = build_agent(resolve(compose_config([*fixed, *choice])))
    return agent.memory.seq_model.train(), agent.memory.encoder.output_dim


def windows(name: str, length: int, has_gradient: bool) -> Callable[[], Any]:
    """Return a function that processes a batch of windows."""
    import torch

    model, width = build(name, length)
    x = torch.randn(length, ROWS, width)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def update() -> None:
        model(x)[0].square().mean().backward()

    return update if has_gradient else forward


def step(name: str, length: int, num_envs: int) -> Callable[[], Any]:
    """Return a function that continues histories by one step, always the same one."""
    import torch

    model, width = build(name, length)
    model.eval()
    x = torch.randn(length, num_envs, width)
    with torch.no_grad():
        state = model(x[:-1], model.initial_state(num_envs))[1]

    def act() -> None:
        with torch.no_grad():
            model(x[-1:], state)

    return act


def measure(length: int, name: str, repetitions: int) -> list[Any]:
    """Return one row."""
    work: list[tuple[Any, ...]] = [(windows, length, False), (windows, length, True)]
    work += [(step, length, n) for n in ENVS]
    made = [(do, model, *rest) for do, *rest in work for model in (name, BASE)]
    times, memory = in_turn(made, repetitions)
    cells = []
    for i, (own, base) in enumerate(zip(times[::2], times[1::2], strict=True)):
        seconds = statistics.median(own)
        scaled = f"{seconds * 1e3:,.1f}" if i < 2 else f"{seconds * 1e6:,.0f}"
        cells.append(f"{scaled} ({ratio(own, base):.2g})")
    forward, update, *acting = cells
    mib = f"{memory[2]:,.0f} ({memory[2] / memory[3]:.2g})"
    return [name, length, forward, update, mib, *acting]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    from memrl.run.config import CONF

    names = sorted(path.stem for path in Path(CONF / "seq_model").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(names))
    parser.add_argument("--lengths", default="51,251,1001,4001")
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args(arguments)
    print(f"{machine()}; one thread, {ROWS} windows, medians of {given.repetitions}\n")
    lengths = [int(length) for length in given.lengths.split(",")]
    head = ["model", "inputs", "forward, ms", "update, ms", "MiB"]
    head += [f"step of {n}, us" for n in ENVS]
    rows = (
        measure(n, name, given.repetitions) for n in lengths for name in given.models.split(",")
    )
    table(head, rows)


if __name__ == "__main__":
    main()
