"""Time and memory of one update compared with the reference, by model and length.

    python benchmarks/updates.py
    python benchmarks/updates.py --models gpt --lengths 50,250 --threads 2

Each kind of update runs in its own process. Measurements are interleaved; ratios are medians of
paired ratios. Batch 64, Passive T-Maze, dropout 0.1. ``faithful`` is the default config;
``shared`` has ``algo.shared_forward=true attention_dropout=0``; ``bf16`` also has
``precision=bf16``. The floor is the time for 8 x parameters x tokens operations and the causal
half of attention, at the rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import common
from common import in_turn, machine, products_per_second, ratio, table

BATCH = 64
SHARED = ["attention_dropout=0", "algo.shared_forward=true"]
KINDS = {
    "faithful": [],
    "shared": SHARED,
    "bf16": [*SHARED, "precision=bf16"],
    "compiled": [*SHARED, "update=compiled"],
}
WIDTH = 128  # of GPT
WEIGHTS = {"lstm": 191_156, "gpt": 298_884}  # parameters of the whole network


def windows(length: int, batch: int = BATCH) -> Any:
    """Return random windows of whole Passive T-Maze episodes."""
    import torch

    from memrl.interfaces import Episodes

    torch.manual_seed(0)
    T = length + 1
    return Episodes(
        obs=torch.randn(T + 1, batch, 2),
        action=torch.randint(4, (T, batch)),
        reward=torch.randn(T, batch),
        terminated=(torch.arange(T).unsqueeze(1) == T - 1).repeat(1, batch),
        mask=torch.ones(T, batch, dtype=torch.bool),
    )


def reference(model: str, length: int, threads: int) -> Callable[[], Any]:
    """Return an update of the reference."""
    import torch
    from reference import Reference

    torch.set_num_threads(threads)
    update, batch = Reference(model, length).update, windows(length)
    return lambda: update(batch)


def ours(model: str, length: int, threads: int, overrides: list[str]) -> Callable[[], Any]:
    """Return an update of a configured agent."""
    from memrl.algos.graphs import update_function
    from memrl.experiment import build_agent, resolve
    from memrl.run.config import compose_config

    short = ["budget.train_episodes=10", "device=cpu", f"threads={threads}"]
    given = ["env=tmaze_passive", f"env.length={length}", f"seq_model={model}", *short, *overrides]
    config = resolve(compose_config(given))
    update, batch = update_function(build_agent(config)[0], config["update"]), windows(length)
    return lambda: update(batch)


def operations(model: str, length: int) -> float:
    """Count an update's operations."""
    T = length + 2
    return common.operations(BATCH * T, T, WEIGHTS[model], int(model == "gpt"), WIDTH)


def measure(
    model: str, length: int, kinds: list[str], threads: int, repetitions: int
) -> list[list[Any]]:
    """Return the rows of one model and length."""
    each = model, length, threads
    made = [(reference, *each), *((ours, *each, KINDS[kind]) for kind in kinds)]
    times, memory = in_turn(made, repetitions)
    rates = {"float32": RATES["float32"] * threads, "bfloat16": RATES["bfloat16"] * threads}
    rows = []
    for kind, own, held in zip(["reference", *kinds], times, memory, strict=True):
        floor = operations(model, length) / rates["bfloat16" if kind == "bf16" else "float32"]
        median = statistics.median(own)
        share = "" if kind in ("reference", "faithful") else f"{floor / median:.0%}"
        speed = f"{ratio(times[0], own):.2f}"
        name = model.upper()
        rows.append([name, length, kind, f"{1e3 * median:,.0f}", speed, f"{held:,.0f}", share])
    return rows


RATES = {"float32": 0.0, "bfloat16": 0.0}  # set once, before anything else runs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="lstm,gpt")
    parser.add_argument("--lengths", default="10,50,250,1000,1500")
    parser.add_argument(
        "--kinds", default="faithful,shared,bf16", help=f"some of {', '.join(KINDS)}"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    kinds, lengths = given.kinds.split(","), [int(length) for length in given.lengths.split(",")]
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds {', '.join(sorted(unknown))}: choose from {', '.join(KINDS)}")
    import torch

    torch.set_num_threads(1)
    RATES.update({dtype: products_per_second(dtype) for dtype in RATES})
    print(f"{machine()}; {given.threads} thread(s), medians of {given.repetitions}; one core's ")
    print(", ".join(f"{dtype} product {rate / 1e9:,.0f} GFLOP/s" for dtype, rate in RATES.items()))
    head = [
        "model",
        "length",
        "update",
        "ms",
        "times faster",
        "MiB beyond the start",
        "floor / time",
    ]
    print()
    rows = (
        row
        for model in given.models.split(",")
        for length in lengths
        for row in measure(model, length, kinds, given.threads, given.repetitions)
    )
    table(head, rows)


if __name__ == "__main__":
    main()
