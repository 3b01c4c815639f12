"""What ``sweeps/paper_small.yaml`` solved, and after how many steps, by task and length.

    python -m memrl export outputs/paper_small --last --output paper_small.csv
    python benchmarks/paper_small.py [FILE]    # default: docs/results/paper_small.csv

A run ends with the first evaluation, of 100 episodes, that solves the task. The steps until then
are compared between the models by an exact permutation test of the difference in mean ranks,
two-sided; a run that never solved its task ranks behind all others.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from common import table
from fidelity import SOLVED, p_value, steps_text

FILE = Path(__file__).resolve().parents[1] / "docs" / "results" / "paper_small.csv"
MODELS = ("lstm", "gpt")


def row(name: str, length: float, runs: pandas.DataFrame) -> list[Any]:
    """Return one row of the table."""
    score = runs["eval/success"].fillna(runs["eval/return"])
    steps = runs["env_steps"].where(score >= SOLVED, np.inf).astype(float)
    by_model = [steps[runs["seq_model.name"] == model].tolist() for model in MODELS]
    minutes = [runs["time/seconds"][runs["seq_model.name"] == model] / 60 for model in MODELS]
    return [
        name,
        f"{length:g}",
        *(f"{sum(np.isfinite(values))} of {len(values)}" for values in by_model),
        *(steps_text(values) if values else "" for values in by_model),
        _p_text(p_value(*by_model)) if all(by_model) else "",
        *(f"{values.median():.1f}" for values in minutes),
    ]


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else "< 0.001"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=FILE)
    runs = pandas.read_csv(parser.parse_args().file)
    runs = runs[runs["state"] == "done"]
    head = ["task", "length", *(f"solved, {model.upper()}" for model in MODELS)]
    head += [*(f"steps, {model.upper()}" for model in MODELS), "p"]
    head += [f"minutes, {model.upper()}" for model in MODELS]
    cells = runs.groupby(["env.name", "env.length"])
    table(head, (row(*key, group) for key, group in cells))
    minutes = runs["time/seconds"].sum() / 60
    print(f"\n{len(runs)} runs, {minutes:.0f} minutes of training")


if __name__ == "__main__":
    main()
