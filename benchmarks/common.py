"""Shared by the benchmarks: the machine's name, tables, and interleaved timing of processes."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

TURN_S = 0.5  # shorter calls are repeated within their turn, as updates are in training
Make = Callable[..., Callable[[], Any]]  # builds the timed function, in its own process


def machine() -> str:
    """Describe this machine in one line."""
    import torch

    from memrl.run.machine import cpuinfo

    cpu = f"{cpuinfo('model name') or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    device = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{time.strftime('%Y-%m-%d')}, {cpu}{device}, {versions}"


def help_only(text: str) -> None:
    """Parse the command line of a script whose only option is --help."""
    argparse.ArgumentParser(description=text.splitlines()[0]).parse_args()


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a Markdown table, each row as soon as it is available."""
    for line in itertools.chain([head, ["---"] * len(head)], rows):
        print("| " + " | ".join(map(str, line)) + " |", flush=True)


def operations(steps: int, length: int, weights: int, n_attention: int, width: int) -> float:
    """Count an update's operations: two forward passes and one backward pass.

    Args:
        steps: embedded ones, of all windows.
        length: of a window, in embedded steps.
        weights: parameters that each step meets.
        n_attention: layers of attention, of which the causal half counts.
        width: of the model.
    """
    return steps * (8 * weights + 4 * n_attention * 2 * length * width)


def products_per_second(dtype: str, n: int = 2048) -> float:
    """Return the rate of one large matrix product in this process, in floating-point operations."""
    import torch

    a = torch.randn(n, n).to(getattr(torch, dtype))
    best = min(_seconds(lambda: a @ a) for _ in range(7))
    return float(2 * n**3 / best)


def _seconds(call: Callable[[], Any], times: int = 1) -> float:
    import torch

    start = time.perf_counter()
    for _ in range(times):
        call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mib() -> float:
    """Return the peak memory of this process, in MiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


class Worker:
    """A process that calls one function on request, and returns how long the call took."""

    def __init__(self, make: Make, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_serve, args=(end, make, arguments), daemon=True)
        self.process.start()
        self.before_mib: float = self.pipe.recv()  # its peak memory before the first call

    def seconds(self) -> float:
        """Take one turn; return the seconds per call."""
        self.pipe.send("again")
        return self._answer()

    def close(self) -> float:
        """End the process; return its peak memory, in MiB."""
        self.pipe.send("end")
        peak = self._answer()
        self.process.join()
        return peak

    def _answer(self) -> float:
        return float(self.pipe.recv())


def _serve(pipe: Connection, make: Make, arguments: Sequence[Any]) -> None:
    call = make(*arguments)
    pipe.send(peak_mib())
    times = 1
    while pipe.recv() == "again":
        seconds = _seconds(call, times) / times
        times = max(1, round(TURN_S / seconds))
        pipe.send(seconds)
    pipe.send(peak_mib())


def in_turn(
    made: Sequence[tuple[Any, ...]], repetitions: int
) -> tuple[list[list[float]], list[float]]:
    """Time each function ``repetitions`` times, interleaved (A B C A B C), after a warm-up round.

    Interleaving makes sure that a slowdown of the machine affects all of them.

    Args:
        made: for each function its builder and the builder's arguments; each in its own process.
        repetitions: how often each is timed.

    Returns:
        The seconds of each, and its peak memory minus the memory at its start, in MiB.
    """
    workers = [Worker(*each) for each in made]
    rounds = [[worker.seconds() for worker in workers] for _ in range(repetitions + 1)][1:]
    memory = [worker.close() - worker.before_mib for worker in workers]
    return [list(times) for times in zip(*rounds, strict=True)], memory


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median of the paired ratios."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
