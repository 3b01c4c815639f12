"""Updates on a CUDA device: eager, compiled and graphed, compared with the reference.

    python benchmarks/gpu.py               # needs a CUDA device
    python benchmarks/gpu.py --expected    # needs no device: counted operations and bytes

First it checks that compiled and graphed updates have the same losses as eager ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

from common import in_turn, machine, ratio, table
from updates import BATCH, SHARED, operations, windows

KINDS = {
    "eager": [],
    "eager, tf32": ["precision=tf32"],
    "eager, bf16": ["precision=bf16"],
    "compiled, bf16": ["precision=bf16", "update=compiled"],
    "graphed, bf16": ["precision=bf16", "update=graphed"],
}
MODELS = ("lstm", "gpt")
LENGTHS = (50, 250, 1000, 1500)
CHECKED = 8  # updates; the graph replays the last ones
# Per card: dense bfloat16 operations and bytes per second, from the vendor's data sheets.
CARDS = {"H100 SXM": (989e12, 3.35e12), "H200": (989e12, 4.8e12)}
# Bytes per embedded step, counted: MOVED is written and read in an update (about 60 passes over
# vectors of 128; those of the MLP count four times), HELD is kept until the backward pass.
MOVED = {"gpt": 60 * 128 * 4, "lstm": 50 * 128 * 4}
HELD = {"gpt": 16 * 1024, "lstm": 10 * 1024}
LSTM_STEP_S = 10e-6  # per time step and pass, whatever the batch: a kernel's latency


def reference(model: str, length: int) -> Callable[[], Any]:
    """Return an update of the reference."""
    from reference import Reference

    update = Reference(model, length, device="cuda").update
    batch = type(windows(1))(*(column.cuda() for column in windows(length)))
    return lambda: update(batch)


def update_of(model: str, length: int, overrides: list[str]) -> Callable[[Any], Any]:
    """Return the update of a configured agent on the device."""
    from memrl.algos.graphs import update_function
    from memrl.experiment import build_agent, resolve
    from memrl.run.config import compose_config

    given = ["env=tmaze_passive", f"env.length={length}", f"seq_model={model}", "device=cuda"]
    config = resolve(compose_config([*given, "budget.train_episodes=10", *SHARED, *overrides]))
    return update_function(build_agent(config)[0], config["update"])


def ours(model: str, length: int, overrides: list[str]) -> Callable[[], Any]:
    """Return an update of a configured agent, past compilation and capture."""
    update = update_of(model, length, overrides)
    batch = type(windows(1))(*(column.cuda() for column in windows(length)))
    for _ in range(CHECKED):
        update(batch)
    return lambda: update(batch)


def check(model: str) -> None:
    """Exit with a message unless eager, compiled and graphed updates have the same losses."""
    batch = type(windows(1))(*(column.cuda() for column in windows(50)))
    losses = {}
    for kind in ("eager", "compiled", "graphed"):
        update = update_of(model, 50, ["dropout=0", f"update={kind}"])
        losses[kind] = [update(batch)["loss"].item() for _ in range(CHECKED)]
    for kind, values in losses.items():
        for value, eager in zip(values, losses["eager"], strict=True):
            if abs(value - eager) > 1e-3 * abs(eager):
                sys.exit(f"{model}, {kind}: losses {values}, eager {losses['eager']}")
    print(f"{model}: compiled and graphed losses of {CHECKED} updates are the eager ones")


def expected() -> None:
    """Print a table of the time of an update at the limits of a card."""
    rows = []
    for model in MODELS:
        for length in LENGTHS:
            tokens = BATCH * (length + 2)
            times = []
            for rate, bandwidth in CARDS.values():
                seconds = operations(model, length) / rate + tokens * MOVED[model] / bandwidth
                seconds += 4 * (length + 2) * LSTM_STEP_S if model == "lstm" else 0
                times.append(f"{1e3 * seconds:.1f}")
            rows.append([model.upper(), length, *times, f"{tokens * HELD[model] / 2**20:,.0f}"])
    table(["model", "length", *(f"{card}, ms" for card in CARDS), "MiB"], rows)


def measure(model: str, length: int, repetitions: int) -> list[list[Any]]:
    """Return the rows of one model and length."""
    made = [(reference, model, length), *((ours, model, length, more) for more in KINDS.values())]
    times, _ = in_turn(made, repetitions)
    rows = []
    for kind, own in zip(["reference", *KINDS], times, strict=True):
        rate = f"{1 / statistics.median(own):,.1f}"
        rows.append([model.upper(), length, kind, rate, f"{ratio(times[0], own):.1f}"])
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--expected", action="store_true")
    parser.add_argument("--repetitions", type=int, default=10)
    given = parser.parse_args()
    if given.expected:
        expected()
        return
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device here; --expected works without one")
    print(machine())
    for model in MODELS:
        check(model)
    print()
    each = given.repetitions
    rows = (row for model in MODELS for n in LENGTHS for row in measure(model, n, each))
    table(["model", "length", "update", "updates/s", "times faster"], rows)


if __name__ == "__main__":
    main()
