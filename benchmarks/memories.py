"""Cost of each sequence model against the length of histories, beside an LSTM.

    python benchmarks/memories.py [--models gpt,lru] [--lengths 51,251]

One thread, float32, no dropout, the models and widths of a Passive T-Maze. A forward pass is one
without gradients, as for targets; an update is a forward and a backward pass; a step of acting
continues histories of that length. Each has a process of its own, and they take turns. The numbers
in parentheses are medians of ratios to the LSTM of the same turn. Memory is the peak of an update
beyond what its process held before.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from common import in_turn, machine, ratio, table

ROWS = 16  # windows of an update
ENVS = (1, 64)  # histories of a step
BASE = "lstm"
NO_DROPOUT = ("dropout=0", "attention_dropout=0")
UNITS = ((1e3, 1), (1e3, 1), (1e6, 0), (1e6, 0))  # of the columns of times, and their digits
VARIANTS = {  # keys of options of GPT
    "gpt none": ("seq_model.position=none", "seq_model.scale=log"),
    "gpt window": ("seq_model.position=rope", "seq_model.window=64", "seq_model.sinks=1"),
}


def build(name: str, length: int) -> tuple[Any, int]:
    """Return a model for windows of so many inputs, and the width of the inputs."""
    from memrl.experiment import build_agent, resolve
    from memrl.run.config import compose_config

    fixed = ["env=tmaze_passive", f"env.length={max(length - 2, 1)}", "budget=quick", "device=cpu"]
    choice = [f"seq_model={name.split()[0]}", *VARIANTS.get(name, ()), *NO_DROPOUT]
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


def measure(length: int, names: Sequence[str], repetitions: int) -> Iterator[list[Any]]:
    """Yield a row for each model; the first one is what the others are compared with."""
    kinds: list[tuple[Any, ...]] = [(windows, length, False), (windows, length, True)]
    kinds += [(step, length, n) for n in ENVS]
    measured = [
        in_turn([(make, name, *rest) for name in names], repetitions) for make, *rest in kinds
    ]
    for i, name in enumerate(names):
        cells = []
        for (times, _), (unit, digits) in zip(measured, UNITS, strict=True):
            text = f"{statistics.median(times[i]) * unit:,.{digits}f}"
            cells.append(f"{text} ({ratio(times[i], times[0]):.1f})")
        memory = measured[1][1]
        cells.insert(2, f"{memory[i]:,.0f} ({memory[i] / memory[0]:.1f})")
        yield [name, length, *cells]


def main() -> None:
    """Print the table."""
    from memrl.run.config import CONF

    options = sorted(path.stem for path in (CONF / "seq_model").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join([*options, *VARIANTS]))
    parser.add_argument("--lengths", default="51,251,1001,4001")
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    print(f"{machine()}; one thread, {ROWS} windows, medians of {given.repetitions}\n")
    names = [BASE, *(name for name in given.models.split(",") if name != BASE)]
    lengths = [int(length) for length in given.lengths.split(",")]
    head = ["model", "inputs", "forward, ms", "update, ms", "MiB"]
    head += [f"step of {n}, us" for n in ENVS]
    table(head, (row for n in lengths for row in measure(n, names, given.repetitions)))


if __name__ == "__main__":
    main()
