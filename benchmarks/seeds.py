"""Several seeds in one process: stacked weights under vmap, compared with one seed after another.

    python benchmarks/seeds.py

Measures the gradient of one update's loss: forward and backward pass of the online network, batch
64, no dropout. ``stacked`` uses ``torch.func``: ``vmap`` of ``grad`` over weights that
``stack_module_state`` stacks. Recurrent layers have no batching rule for vmap, so there is no LSTM.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from common import help_only, in_turn, machine, ratio, table
from updates import windows

SEEDS = 4


def networks(model: str, length: int) -> list[Any]:
    """Return the online networks of several seeds."""
    import torch

    from memrl.experiment import build_agent, resolve
    from memrl.run.config import compose_config

    given = [f"env.length={length}", f"seq_model={model}", "budget.train_episodes=10"]
    given += ["dropout=0", "attention_dropout=0", "device=auto"]
    built = [
        build_agent(resolve(compose_config([*given, f"seed={seed}"])))[0] for seed in range(SEEDS)
    ]
    torch.set_num_threads(1)
    return [agent.online for agent in built]  # type: ignore[attr-defined]


def one_by_one(model: str, length: int) -> Callable[[], Any]:
    """Return a function that computes the gradients of all seeds, one after another."""
    online = networks(model, length)
    device = next(online[0].parameters()).device
    batch = [x.to(device) for x in windows(length)[:3]]

    def call() -> None:
        for network in online:
            network.zero_grad()
            network(*batch).square().mean().backward()

    return call


def stacked(model: str, length: int) -> Callable[[], Any]:
    """Return a function that computes the gradients of all seeds at once."""
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap

    online = networks(model, length)
    device = next(online[0].parameters()).device
    weights, buffers = stack_module_state(online)
    weights = {name: weight.detach() for name, weight in weights.items()}
    batch = [x.to(device).expand(SEEDS, *x.shape) for x in windows(length)[:3]]

    def loss(weights: Any, buffers: Any, *batch: torch.Tensor) -> torch.Tensor:
        return functional_call(online[0], (weights, buffers), batch).square().mean()  # type: ignore[no-any-return]

    return lambda: vmap(grad(loss))(weights, buffers, *batch)


def measure(model: str, length: int) -> list[Any]:
    """Return one row."""
    times, _ = in_turn([(make, model, length) for make in (one_by_one, stacked)], 5)
    ms = [f"{1e3 * statistics.median(own) / SEEDS:.1f}" for own in times]
    return [model.upper(), length, *ms, f"{ratio(*times):.2f}"]


def main() -> None:
    """Print the table."""
    help_only(__doc__)
    print(f"{machine()}; {SEEDS} seeds, one thread, medians of 5\n")
    cells = (("mlp", 10), ("mlp", 250), ("gpt", 10), ("gpt", 50), ("gpt", 250))
    head = ["model", "length", "one by one, ms per seed", "stacked, ms per seed", "times faster"]
    table(head, (measure(*cell) for cell in cells))


if __name__ == "__main__":
    main()
