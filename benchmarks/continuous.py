"""Time of one update of TD3 and SAC compared with a plain TD3, by model; batches as in the paper.

    python benchmarks/continuous.py                 # on a CPU
    python benchmarks/continuous.py --device cuda
    python benchmarks/continuous.py --expected      # needs no device: counted operations

256 windows of 64 steps of Walker-P, dropout 0.1. Each kind of update runs in its own process.
Measurements are interleaved; ratios are medians of paired ratios. ``paper`` is the default config;
``bf16`` has ``precision=bf16``, ``separate`` and ``sac`` another algo; of ``compiled``, time and
memory are those after compilation. On a CPU it also prints the time for the counted operations at
the rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from common import in_turn, machine, products_per_second, ratio, table
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv

BATCH, T, N_OBS, N_ACTION = 256, 64, 13, 6  # of Walker-P
BF16 = ["precision=bf16"]
KINDS = {
    "paper": [],
    "bf16": BF16,
    "sac": ["algo=sac"],
    "separate": ["algo=td3_separate"],
    "sac, bf16": ["algo=sac", *BF16],
    "compiled": ["update=compiled"],
}
GPU_KINDS = {
    "paper": [],
    "bf16": BF16,
    "compiled, bf16": [*BF16, "update=compiled"],
    "graphed, bf16": [*BF16, "update=graphed"],
    "sac, graphed, bf16": ["algo=sac", *BF16, "update=graphed"],
}
RUN_UPDATES = 1_490_000  # of a run with budget=paper
CARDS = {"H100 SXM": (989e12, 3.35e12), "H200": (989e12, 4.8e12)}
MOVED_BYTES = {"gpt": 100 * 128 * 4, "lstm": 90 * 128 * 4}  # of each embedded step, by count
LSTM_STEP_S = 10e-6  # per time step and pass, whatever the batch: a kernel's latency


class Walker(VectorEnv[Any, Any, Any]):
    """Spaces and horizon of Walker-P, without PyBullet."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    horizon = 1000

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = Box(-5, 5, (N_OBS,), np.float32)
        self.single_action_space = Box(-1, 1, (N_ACTION,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros((self.num_envs, N_OBS), np.float32), {}

    def step(self, actions: Any) -> Any:
        no = np.zeros(self.num_envs, np.bool_)
        return self.reset()[0], np.zeros(self.num_envs), no, no, {}


def windows(device: str = "cpu") -> Any:
    """Return random windows of full length."""
    import torch

    from memrl.interfaces import Episodes

    torch.manual_seed(0)
    batch = Episodes(
        obs=torch.randn(T + 1, BATCH, N_OBS),
        action=torch.rand(T, BATCH, N_ACTION) * 2 - 1,
        reward=torch.randn(T, BATCH),
        terminated=torch.zeros(T, BATCH, dtype=torch.bool),
        mask=torch.ones(T, BATCH, dtype=torch.bool),
    )
    return Episodes(*(column.to(device) for column in batch))


def reference(model: str, device: str, threads: int) -> Callable[[], Any]:
    """Return an update of the reference."""
    import torch
    from reference import ReferenceTD3

    torch.set_num_threads(threads)
    update, batch = ReferenceTD3(model, N_OBS, N_ACTION, T, device).update, windows(device)
    return lambda: update(batch)


def ours(model: str, device: str, threads: int, overrides: list[str]) -> Callable[[], Any]:
    """Return an update of a configured agent, past compilation and capture."""
    from memrl.algos.graphs import update_function
    from memrl.experiment import build_agent
    from memrl.run.config import compose_config, leaves

    given = ["env=pybullet_p", f"seq_model={model}", f"device={device}", f"threads={threads}"]
    config = dict(leaves(compose_config([*given, *overrides]), ""))
    config["env"] = {"name": "walker", "_target_": "continuous.Walker"}
    update, batch = update_function(build_agent(config)[0], config["update"]), windows(device)
    for _ in range(5 if device == "cuda" or config["update"] != "eager" else 0):
        update(batch)
    return lambda: update(batch)


def operations(model: str) -> float:
    """Count an update's operations, two for each weight that an input meets.

    Encoder and sequence model meet each input once in the target and, with their gradients, three
    times in the online network; the policy's head too. Critics have three passes, the gradients of
    their weights in one of them and those of their inputs in two, and read a summary once.
    """
    head, read = 128 * 256 + 256 * 256, 2 * 128 * 256
    inner = 2 * (256 * 256 + 256 + N_ACTION * 256)
    memory = 48 * 512 + 128 * 512 if model == "lstm" else 12 * 128 * 128
    attention = 2 * T * 128 / 2 if model == "gpt" else 0  # the causal half
    each = 4 * (memory + attention) + 4 * head + (2 + 2) * read + (3 + 1 + 2) * inner
    return 2.0 * BATCH * (T + 1) * each


def measure(model: str, device: str, threads: int, repetitions: int) -> list[list[Any]]:
    """Return the rows of one model."""
    kinds = GPU_KINDS if device == "cuda" else KINDS
    each = model, device, threads
    made = [(reference, *each), *((ours, *each, more) for more in kinds.values())]
    times, memory = in_turn(made, repetitions)
    rows = []
    for kind, own, held in zip(["reference", *kinds], times, memory, strict=True):
        median = statistics.median(own)
        row = [model.upper(), kind, f"{1e3 * median:,.1f}", f"{ratio(times[0], own):.2f}"]
        rows.append([*row, f"{held:,.0f}", f"{median * RUN_UPDATES / 3600:,.0f}"])
    return rows


def expected() -> None:
    """Print a table of an update at the limits of a card, and of a run."""
    rows = []
    for model in ("lstm", "gpt"):
        for card, (rate, bandwidth) in CARDS.items():
            # Heads write and read about 40 vectors of 256 for each step, beside the memory's.
            moved = BATCH * (T + 1) * (MOVED_BYTES[model] + 40 * 256 * 4)
            seconds = operations(model) / rate + moved / bandwidth
            seconds += 4 * (T + 1) * LSTM_STEP_S if model == "lstm" else 0
            hours = seconds * RUN_UPDATES / 3600
            rows.append([model.upper(), card, f"{1e3 * seconds:.1f}", f"{hours:.1f}"])
    table(["model", "card", "ms", "hours of updates in a run"], rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="lstm,gpt")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--expected", action="store_true")
    given = parser.parse_args()
    if given.expected:
        expected()
        return
    import torch

    torch.set_num_threads(1)
    print(f"{machine()}; {given.threads} thread(s), medians of {given.repetitions}")
    if given.device == "cpu":
        rates = {dtype: products_per_second(dtype) for dtype in ("float32", "bfloat16")}
        print(", ".join(f"{dtype} product {r / 1e9:,.0f} GFLOP/s" for dtype, r in rates.items()))
        for model in given.models.split(","):
            limits = [f"{1e3 * operations(model) / rate:,.0f} ms" for rate in rates.values()]
            print(f"{model}: {operations(model) / 1e9:.0f} GFLOP, {' and '.join(limits)} at these")
    print()
    head = ["model", "update", "ms", "times faster", "MiB beyond the start", "hours in a run"]
    each = given.device, given.threads, given.repetitions
    table(head, (row for model in given.models.split(",") for row in measure(model, *each)))


if __name__ == "__main__":
    main()
