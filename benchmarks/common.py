"""What the benchmarks share: the machine's name, tables, and processes that are timed in turn."""

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

TURN_S = 0.5  # what is shorter is repeated within its turn: training does not stop after an update
Make = Callable[..., Callable[[], Any]]  # builds what is timed, in a process of its own


def machine() -> str:
    """Describe where this runs, in a line."""
    import torch

    from memrl.run.machine import cpuinfo

    cpu = f"{cpuinfo('model name') or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    device = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{time.strftime('%Y-%m-%d')}, {cpu}{device}, {versions}"


def help_only(text: str) -> None:
    """Read the command line of a script that takes nothing but --help."""
    argparse.ArgumentParser(description=text.splitlines()[0]).parse_args()


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a Markdown table, each row as soon as it is there."""
    for line in itertools.chain([head, ["---"] * len(head)], rows):
        print("| " + " | ".join(map(str, line)) + " |", flush=True)


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
    """Return the most memory that this process ever held, in MiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


class Worker:
    """A process that does one thing when it is told to, and says how long it took."""

    def __init__(self, make: Make, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_serve, args=(end, make, arguments), daemon=True)
        self.process.start()
        self.before_mib: float = self.pipe.recv()  # its peak before it began

    def seconds(self) -> float:
        """Do it in a turn; return how long once takes."""
        self.pipe.send("again")
        return self._answer()

    def close(self) -> float:
        """End the process; return its peak of memory, in MiB."""
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
    """Time each thing ``repetitions`` times, A B C A B C ..., after one round that does not count.

    So that a machine which slows down slows all of them down.

    Args:
        made: of each what builds it, and with which arguments; it gets a process of its own.
        repetitions: how often.

    Returns:
        Each one's seconds, and the memory it took at most beyond its start, in MiB.
    """
    workers = [Worker(*each) for each in made]
    rounds = [[worker.seconds() for worker in workers] for _ in range(repetitions + 1)][1:]
    memory = [worker.close() - worker.before_mib for worker in workers]
    return [list(times) for times in zip(*rounds, strict=True)], memory


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median of the paired ratios."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
