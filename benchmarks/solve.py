"""CPU time to solve tasks with budget=fast: whole processes, including imports and evaluations.

    python benchmarks/solve.py
    python benchmarks/solve.py --cells tmaze_passive:50:lstm --seeds 0,1 precision=float32

Runs are `python run.py budget=fast ...` with one thread, one after another. A task is solved once
an evaluation of 100 greedy episodes has a mean return of at least 0.95, or a success of 0.95 in
image tasks; the run ends there. Visual Match has the same colours in training and evaluation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import machine, table

ROOT = Path(__file__).resolve().parents[1]
MIDDLE = ("episodes", "updates")  # shown as medians
CELLS = (
    "tmaze_passive:50:lstm,tmaze_passive:50:gpt,tmaze_passive:100:gpt,tmaze_passive:250:gpt,"
    "tmaze_active:10:lstm,tmaze_active:20:lstm,key_to_door:5:lstm,key_to_door:20:lstm,"
    "visual_match:5:lstm,visual_match:20:lstm"
)


def solve(
    env: str, length: str, model: str, seed: str, more: Sequence[str]
) -> tuple[float, dict[str, str]]:
    """Do one run; return its CPU seconds and its last evaluation."""
    from memrl.run.tables import read_table

    given = ["budget=fast", f"env={env}", f"env.length={length}", f"seq_model={model}"]
    given += ["env.colours=shared"] if env == "visual_match" else []
    given += [f"seed={seed}", "device=cpu", *more]
    with tempfile.TemporaryDirectory() as cwd:
        command = [sys.executable, str(ROOT / "run.py"), *given]
        process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)}: status {status}")
        (path,) = Path(cwd).glob("outputs/*/*/eval.csv")
        rows = read_table(path)
        return used.ru_utime + used.ru_stime, {name: column[-1] for name, column in rows.items()}


def measure(cell: str, seeds: str, more: Sequence[str]) -> list[Any]:
    """Return one row."""
    env, length, model = cell.split(":")
    runs = [solve(env, length, model, seed, more) for seed in seeds.split(",")]
    seconds = [used for used, _ in runs]
    score = "eval/success" if env in ("key_to_door", "visual_match") else "eval/return"
    solved = sum(float(last[score]) >= 0.95 for _, last in runs)
    spread = f"{statistics.median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})"
    middle = [f"{statistics.median(last[key] for _, last in runs):,.0f}" for key in MIDDLE]
    return [env, length, model.upper(), seeds, f"{solved} of {len(runs)}", spread, *middle]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", default=CELLS, help="task:length:model, separated by commas")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("more", nargs="*", help="additional overrides, such as precision=float32")
    given = parser.parse_args()
    print(f"{machine()}; {' '.join(['budget=fast', *given.more])}\n")
    head = ["task", "length", "model", "seeds", "solved", "CPU s, median (range)", *MIDDLE]
    table(head, (measure(cell, given.seeds, given.more) for cell in given.cells.split(",")))


if __name__ == "__main__":
    main()
