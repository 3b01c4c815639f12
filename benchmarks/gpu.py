"""Updates on a CUDA device: are they the eager ones, how fast are they, and who can share a card.

    python benchmarks/gpu.py losses updates sharing    # needs a CUDA device
    python benchmarks/gpu.py --expected                # needs none: counted operations and bytes
    python benchmarks/gpu.py --device cpu --lengths 10 --models lstm    # tries the script itself

``losses``: compiled and graphed updates have the losses of eager ones (compiled: LSTM and GPT).
``updates``: updates of 64 windows per second, beside the reference, which has the LSTM and GPT
only; other models are compared with its LSTM. ``sharing``: updates per second of all processes
together when 1, 2, 4 and 8 of them train on one device. benchmarks/gpu_check.sh runs all of this.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from common import machine, table
from updates import BATCH, operations, windows

MODELS = ("lstm", "gpt", "gru", "rnn", "lru", "min_gru", "mamba2", "deltanet", "mlp")
REFERENCES = ("lstm", "gpt")
LENGTHS = (50, 250, 1000, 1500)
SHARED_BY = (1, 2, 4, 8)  # processes
CHECKED = 8  # updates; the graph replays the last ones
TURN_S = 0.4  # an update is repeated for this long
# Per card: dense bfloat16 operations and bytes per second, from the vendor's data sheets.
CARDS = {"H100 SXM": (989e12, 3.35e12), "H200": (989e12, 4.8e12)}
# Bytes per embedded step, counted: MOVED is written and read in an update (about 60 passes over
# vectors of 128; those of the MLP count four times), HELD is kept until the backward pass.
MOVED = {"gpt": 60 * 128 * 4, "lstm": 50 * 128 * 4}
HELD = {"gpt": 16 * 1024, "lstm": 10 * 1024}
LSTM_STEP_S = 10e-6  # per time step and pass, whatever the batch: a kernel's latency


def reference(model: str, length: int, device: str) -> Callable[[], Any]:
    """Return an update of the reference."""
    from reference import Reference

    update, batch = Reference(model, length, device=device).update, on(device, length)
    return lambda: update(batch)


def on(device: str, length: int) -> Any:
    """Return a batch of windows on a device."""
    batch = windows(length)
    return type(batch)(*(column.to(device) for column in batch))


def ours(model: str, length: int, device: str, overrides: list[str]) -> Callable[[], Any]:
    """Return an update of a configured agent."""
    from memrl.algos.graphs import update_function
    from memrl.experiment import build_agent, resolve
    from memrl.run.config import compose_config

    given = ["env=tmaze_passive", f"env.length={length}", f"seq_model={model}", f"device={device}"]
    given += ["budget.train_episodes=10", "algo.shared_forward=true"]
    given += ["attention_dropout=0"] if model == "gpt" else []
    config = resolve(compose_config([*given, *overrides]))
    update = update_function(build_agent(config)[0], config["update"])
    batch = on(device, length)
    return lambda: update(batch)


def losses(models: list[str], device: str) -> None:
    """Print how compiled and graphed updates differ from eager ones; exit if they do."""
    import torch

    graphed = [["update=graphed"]] if device == "cuda" else []
    rows, wrong = [], []
    for model in models:
        kinds = [[], *([["update=compiled"]] if model in REFERENCES else []), *graphed]
        found = []
        for kind in kinds:
            torch.manual_seed(0)
            update = ours(model, 50, device, ["dropout=0", *kind] if model == "gpt" else kind)
            found.append([update()["loss"].item() for _ in range(CHECKED)])
        for kind, own in zip(kinds[1:], found[1:], strict=True):
            pairs = zip(own, found[0], strict=True)
            worst = max(abs(a - b) / abs(b) for a, b in pairs)
            name = kind[0].removeprefix("update=")
            rows.append([model, name, f"{worst:.1e}"])
            if not worst < 1e-3:
                wrong.append(f"{model}, {name}: losses {own}, eager {found[0]}")
    table(["model", "update", "largest relative difference of 8 losses from eager ones"], rows)
    if wrong:
        sys.exit("\n".join(wrong))


def per_second(call: Callable[[], Any]) -> float:
    """Return how often per second the function can be called, after a few calls to warm up."""
    import torch

    def synchronized(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            call()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / times

    synchronized(5)  # captures a graph too
    once = synchronized(1)
    return 1 / synchronized(max(1, min(round(TURN_S / once), 500)))


def measure(model: str, length: int, device: str) -> Iterator[list[Any]]:
    """Yield the rows of one model and length."""
    own = model in REFERENCES
    base = per_second(reference(model if own else "lstm", length, device))
    if own:
        yield [model, length, "reference", f"{base:,.1f}", "1.0"]
    kinds = {"eager, float32": [], "eager, bf16": ["precision=bf16"]}
    if device == "cuda":
        kinds |= {"graphed, bf16": ["precision=bf16", "update=graphed"]}
    for name, overrides in kinds.items():
        rate = per_second(ours(model, length, device, overrides))
        yield [model, length, name, f"{rate:,.1f}", f"{rate / base:.1f}"]


def _train(model: str, length: int, device: str, ready: Any, rates: Any) -> None:
    more = ["precision=bf16", *(["update=graphed"] if device == "cuda" else [])]
    call = ours(model, length, device, more)
    per_second(call)
    ready.wait()
    rates.put(per_second(call))


def sharing(model: str, length: int, device: str, n: int) -> list[Any]:
    """Return the row of ``n`` processes that train at the same time."""
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(n), context.Queue()
    given = model, length, device, ready, rates
    processes = [context.Process(target=_train, args=given, daemon=True) for _ in range(n)]
    for process in processes:
        process.start()
    total = sum(rates.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    return [model, length, n, f"{total:,.1f}"]


def expected() -> None:
    """Print a table of the time of an update at the limits of a card."""
    rows = []
    for model in REFERENCES:
        for length in LENGTHS:
            tokens = BATCH * (length + 2)
            times = []
            for rate, bandwidth in CARDS.values():
                seconds = operations(model, length) / rate + tokens * MOVED[model] / bandwidth
                seconds += 4 * (length + 2) * LSTM_STEP_S if model == "lstm" else 0
                times.append(f"{1e3 * seconds:.1f}")
            rows.append([model.upper(), length, *times, f"{tokens * HELD[model] / 2**20:,.0f}"])
    table(["model", "length", *(f"{card}, ms" for card in CARDS), "MiB"], rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="some of losses, updates, sharing; default: all")
    parser.add_argument("--expected", action="store_true")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--shared-by", default=",".join(map(str, SHARED_BY)))
    given = parser.parse_args()
    if given.expected:
        expected()
        return
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --expected works without one")
    parts = given.parts or ["losses", "updates", "sharing"]
    if unknown := set(parts) - {"losses", "updates", "sharing"}:
        parser.error(f"{', '.join(sorted(unknown))}: choose from losses, updates, sharing")
    device, models = given.device, given.models.split(",")
    lengths = [int(length) for length in given.lengths.split(",")]
    print(machine())
    if "losses" in parts:
        print()
        losses(models, device)
    if "updates" in parts:
        print()
        rows = (row for model in models for n in lengths for row in measure(model, n, device))
        table(["model", "length", "update", "updates/s", "times the reference"], rows)
    if "sharing" in parts:
        print()
        cells = ((m, lengths[0], int(n)) for m in REFERENCES for n in given.shared_by.split(","))
        shared = (sharing(model, length, device, n) for model, length, n in cells)
        table(["model", "length", "processes", "updates/s, all together"], shared)


if __name__ == "__main__":
    main()
