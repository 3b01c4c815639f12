"""Runs of the memory chain, scored as bsuite scores its experiment "memory_len".

    python benchmarks/memory_chain.py outputs/memory_chain

bsuite trains an agent for 10,000 episodes at each of 23 memory lengths, 1 to 100, and counts the
wrong answers of all of these episodes, exploration included. A length is learned if they are fewer
than 0.75 of the 5,000 that guessing makes; the score is the share of lengths that are. Here, the
answers are those of ``train.csv``; of a shorter run, all episodes count, as in bsuite.
"""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

import numpy as np
from common import table

from memrl import results
from memrl.results.runs import Run, labels, order

EPISODES = 10_000
THRESHOLD = 0.75  # of a guess's wrong answers


def wrong_answers(run: Run) -> tuple[float, float]:
    """Return a run's number of episodes, at most 10,000, and of wrong answers in them."""
    ends = run.train["episodes"]
    wrong = np.cumsum((1 - run.train["train/success"]) * np.diff(ends, prepend=0))
    n = min(float(EPISODES), ends[-1])
    return n, float(np.interp(n, [0, *ends], [0, *wrong]))


def main() -> None:
    """Print a line for each series and length, and the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="+", help="a sweep or a run")
    runs = [run for run in results.load(*parser.parse_args().folder) if run.task == "memory_chain"]
    runs = [run for run in runs if "train/success" in run.train and run.flat["env.num_bits"] == 1]
    keys = {id(run): (label, run.length) for run, label in zip(runs, labels(runs), strict=True)}
    runs.sort(key=lambda run: (keys[id(run)][0], order(run.length)))
    learned: dict[str, list[bool]] = {}
    rows = []
    for (label, length), group in groupby(runs, lambda run: keys[id(run)]):
        counts = [wrong_answers(run) for run in group]
        ratios = [wrong / (0.5 * n) for n, wrong in counts]
        ok = bool(np.mean(ratios) < THRESHOLD)
        learned.setdefault(label, []).append(ok)
        episodes = ", ".join(f"{n:,.0f}" for n in sorted({n for n, _ in counts}))
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        rows.append([label, length, len(counts), episodes, shown, "yes" if ok else "no"])
    table(["series", "length", "seeds", "episodes", "wrong / guessing", "learned"], rows)
    for label, each in learned.items():
        print(f"score of {label}: {np.mean(each):.2f} over {len(each)} lengths")


if __name__ == "__main__":
    main()
