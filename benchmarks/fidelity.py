"""Runs with the paper's settings beside recorded ones of the original program.

    python run.py -cn fidelity        # and the other commands in sweeps/fidelity.yaml
    python benchmarks/fidelity.py [FOLDER]    # default: outputs/fidelity

A run has solved its task at the first evaluation at which the mean over the last 100 evaluated
episodes is at least 0.95. The steps until then, and the mean of all evaluations of a run, are
compared by an exact permutation test of the difference in mean ranks, two-sided. A run that never
solved its task ranks behind all others. All runs of a row are cut to the shortest.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import table
from scipy.stats import rankdata

from memrl.results import original
from memrl.results.runs import Run, load
from memrl.run.tables import read_table

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
SOLVED, EPISODES = 0.95, 100
TRAINING = "visual_match 1, doors of training"  # evaluated in the training environment


class Curve(NamedTuple):
    """The evaluations of one run: environment steps and scores, (N,) each, and episodes a point."""

    steps: np.ndarray
    scores: np.ndarray
    episodes: int

    @property
    def solved_at(self) -> float:
        """Steps until the task was solved; infinite if it never was."""
        n = EPISODES // self.episodes
        means = np.convolve(self.scores, np.ones(n) / n, "valid")
        (solved,) = np.nonzero(means >= SOLVED - 1e-9)
        return float(self.steps[n - 1 + solved[0]]) if len(solved) else np.inf


def cell(run: Run) -> tuple[str, str]:
    """Return the task and the model of a run."""
    shared = run.flat.get("env.colours") == "shared"
    name = run.flat["seq_model.name"].split()[0].upper()
    return (TRAINING if shared else f"{run.task} {run.length:g}", name)


def curves(runs: Sequence[Run]) -> dict[tuple[str, str], list[Curve]]:
    """Return the curves of runs that have any, by task and model."""
    found: dict[tuple[str, str], list[Curve]] = {}
    for run in runs:
        metric = "eval/success" if run.task == "visual_match" else "eval/return"
        scores = run.eval.get(metric, ())
        if len(scores):
            curve = Curve(
                run.eval["env_steps"], np.asarray(scores), run.flat["budget.eval_episodes"]
            )
            found.setdefault(cell(run), []).append(curve)
    return found


def recorded() -> dict[tuple[str, str], list[Curve]]:
    """Return the curves of the original program."""
    with tempfile.TemporaryDirectory() as folder:
        for log in original.find_logs(GOLDEN / "original_log"):
            original.import_log(log, Path(folder))
        found = curves(load(folder))
    rows = read_table(GOLDEN / "visual_match_training.csv")
    seeds = np.asarray(rows["seed"])
    parts = [
        [np.asarray(rows[name])[seeds == s] for name in ("env_steps", "success")] for s in (1, 2)
    ]
    return found | {(TRAINING, "LSTM"): [Curve(*part, 20) for part in parts]}


def p_value(a: Sequence[float], b: Sequence[float]) -> float:
    """Return how likely a difference in mean ranks at least as large is, if all runs are alike."""
    ranks = rankdata([*a, *b])
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(a))]
    middle = len(a) * float(ranks.mean())  # what a's sum of ranks is on average
    observed = abs(sums[0] - middle)
    return statistics.fmean(abs(value - middle) >= observed - 1e-9 for value in sums)


def steps_text(values: Sequence[float]) -> str:
    """Return ``median (smallest to largest)``, in steps; ``-`` if no run solved its task."""
    if not np.isfinite(values).any():
        return "-"
    low, middle, high = (
        f"{value:,.0f}" if np.isfinite(value) else "not"
        for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def row(key: tuple[str, str], theirs: list[Curve], ours: list[Curve]) -> list[Any]:
    """Return one row of the table."""
    end = min(curve.steps[-1] for curve in [*theirs, *ours])  # the same steps of all
    cut = [
        [Curve(c.steps[c.steps <= end], c.scores[c.steps <= end], c.episodes) for c in group]
        for group in (theirs, ours)
    ]
    solved = [[curve.solved_at for curve in group] for group in cut]
    means = [[float(curve.scores.mean()) for curve in group] for group in cut]
    return [
        *key,
        f"{len(theirs)}, {len(ours)}",
        *(f"{sum(np.isfinite(values))} of {len(values)}" for values in solved),
        *map(steps_text, solved),
        f"{p_value(*solved):.2f}",
        *(f"{np.mean(values):.2f}" for values in means),
        f"{p_value(*means):.2f}",
    ]


def draw(path: Path, cells: dict[tuple[str, str], tuple[list[Curve], list[Curve]]]) -> None:
    """Draw a panel for each task and model, as means over the last 100 episodes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = 3
    grid = -(-len(cells) // columns), columns
    figure, axes = plt.subplots(
        *grid, figsize=(9, 2.4 * grid[0]), layout="constrained", squeeze=False
    )
    for panel in axes.flat[len(cells) :]:
        panel.remove()
    for panel, (key, (theirs, ours)) in zip(axes.flat, cells.items(), strict=False):
        for group, colour, width in ((ours, "#56B4E9", 0.8), (theirs, "#D55E00", 1.6)):
            for curve in group:
                n = EPISODES // curve.episodes
                smooth = np.convolve(curve.scores, np.ones(n) / n, "valid")
                panel.plot(curve.steps[n - 1 :], smooth, color=colour, linewidth=width)
            if group:  # for the legend, in which the numbers of runs differ by panel
                name = "original program" if group is theirs else "memrl"
                panel.plot([], [], color=colour, linewidth=width, label=f"{name}, {len(group)}")
        panel.set_title(", ".join(key).replace("_", " "), fontsize=9)
        panel.tick_params(labelsize=8)
        panel.legend(fontsize=7, frameon=False)
    figure.supxlabel("environment steps", fontsize=9)
    figure.supylabel("return, or success of Visual Match", fontsize=9)
    figure.savefig(path, dpi=120)
    print(path)


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs/fidelity"))
    parser.add_argument("--output", type=Path, default=Path("fidelity.png"), metavar="FILE")
    given = parser.parse_args()
    done = [run for run in load(given.folder) if run.state == "done"]
    theirs, ours = recorded(), curves(done)
    cells = {key: (theirs[key], ours[key]) for key in sorted(theirs) if key in ours}
    if not cells:
        sys.exit(f"{given.folder}: no run of these tasks: {', '.join(map(' '.join, theirs))}")
    head = ["task", "model", "runs: original, memrl", "solved: original", "memrl"]
    head += ["steps until solved: original", "memrl", "p"]
    head += ["mean of evaluations: original", "memrl", "p"]
    table(head, (row(key, *cells[key]) for key in cells))
    draw(given.output, cells)


if __name__ == "__main__":
    main()
