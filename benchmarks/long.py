"""Cost of an update of GPT against the length, up to 10,000, batch 64.

    python benchmarks/long.py

Time and memory of a few updates, each configuration in its own process. The cost of attention grows
with the square of the length; the rest, and memory, grow linearly.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from common import in_turn, machine, table
from updates import KINDS, ours


def measure(given: argparse.Namespace, length: int, kind: str) -> list[Any]:
    """Return one row."""
    made = (ours, given.model, length, given.threads, KINDS[kind])
    (times,), (held,) = in_turn([made], given.repetitions)
    seconds = statistics.median(times)
    each = f"{1e6 * seconds / (length + 2):,.0f}"
    return [given.model.upper(), length, kind, f"{seconds:.1f}", f"{held:,.0f}", each]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="1250,2500,5000,10000")
    parser.add_argument("--model", default="gpt")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(f"{machine()}; {given.threads} thread(s), medians of {given.repetitions} updates\n")
    lengths = [int(length) for length in given.lengths.split(",")]
    table(
        ["model", "length", "update", "s", "MiB beyond the start", "us per step"],
        (measure(given, length, kind) for length in lengths for kind in ("shared", "bf16")),
    )


if __name__ == "__main__":
    main()
