"""Time and memory to read and draw 1,000 runs of 300 evaluations.

    python benchmarks/results.py

Each stage runs in its own process, including imports. The baseline reads the same files with
``csv`` and ``yaml.safe_load``, one run after another. The machine should be otherwise idle.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import scipy
import yaml
from common import help_only, machine, table

from memrl.experiment import folder_of, resolve
from memrl.run.config import compose_config

RUNS, EVALUATIONS = 1000, 300
LENGTHS = (50, 100, 250, 500, 750, 1000, 1250, 1500)
HEAD = "env_steps,episodes,updates,eval/return,eval/success,eval/length,time/seconds"
DRAW = """
from pathlib import Path
from memrl.results.figures import write
from memrl.results.runs import load
from memrl.results.scores import PROTOCOLS, score
write(score(load("{folder}"), PROTOCOLS["last"]), Path("{folder}"), ["{name}"], ["png"])
"""
COMMAND = """
import contextlib
from memrl.__main__ import main
with contextlib.suppress(SystemExit):
    main({arguments})
"""
STAGES = {
    "import memrl.results": "import memrl.results",
    "load": "from memrl.results.runs import load; load('{folder}')",
    "load, table": "from memrl.results.scores import PROTOCOLS, score; "
    "from memrl.results.runs import load; from memrl.results.text import as_text; "
    "as_text(score(load('{folder}'), PROTOCOLS['last']))",
    "load, lengths.png": DRAW.replace("{name}", "lengths"),
    "load, curves.png": DRAW.replace("{name}", "curves"),
    "load, profiles.png": DRAW.replace("{name}", "profiles"),
    "load, report.html": COMMAND.replace("{arguments}", "['report', '{folder}']"),
    "load, export to csv": COMMAND.replace(
        "{arguments}", "['export', '{folder}', '--output', '{folder}/all.csv']"
    ),
}


def generate(cwd: Path) -> Path:
    """Write the runs; return the sweep's folder."""
    rng = np.random.default_rng(0)
    versions = {"memrl": "0.1.0", "device": "cpu", "changed": []}
    status = {"state": "done", "cause": None, "progress": 1.0, "updated": 1.8e9, "host": "node"}
    for length in LENGTHS:
        for model in ("lstm", "gpt"):
            choice = [f"env.length={length}", f"seq_model={model}", "sweep=big"]
            config = resolve(compose_config(choice))
            for seed in range(RUNS // 2 // len(LENGTHS) + 1):
                config["seed"] = seed
                folder = cwd / folder_of(config)
                if len(list(folder.parent.glob("*"))) >= RUNS:
                    return folder.parent
                folder.mkdir(parents=True)
                (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
                returns = rng.normal(np.linspace(0, 0.9, EVALUATIONS), 0.1)
                rows = [
                    f"{n * 4000},{n * 80},{n * 1000},{r},nan,51.0,{n * 7.5}"
                    for n, r in enumerate(returns, start=1)
                ]
                (folder / "eval.csv").write_text("\n".join([HEAD, *rows]) + "\n")
                content = status | {"env_steps": EVALUATIONS * 4000, "versions": versions}
                (folder / "status.json").write_text(json.dumps(content))
    return folder.parent


def plainly(folder: Path) -> float:
    """Read everything with the baseline; return the seconds."""
    start = time.perf_counter()
    for run in folder.iterdir():
        yaml.safe_load((run / "config.yaml").read_text())
        json.loads((run / "status.json").read_text())
        with open(run / "eval.csv", newline="") as file:
            [[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]
    return time.perf_counter() - start


def measure(code: str) -> tuple[float, float]:
    """Run code in a new process; return its seconds and its peak memory in MiB."""
    code += "\nimport resource, sys"
    code += "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, int(done.stderr.split()[-1]) / 1024


def rows(folder: Path) -> Iterator[list[str]]:
    """Yield the rows, the baseline first."""
    reference = plainly(folder)
    yield ["csv, yaml.safe_load", f"{reference:.1f}", "", "1.00"]
    for name, code in STAGES.items():
        seconds, memory = measure(code.replace("{folder}", str(folder)))
        yield [name, f"{seconds:.1f}", f"{memory:.0f}", f"{seconds / reference:.2f}"]


def main() -> None:
    """Print the table."""
    help_only(__doc__)
    print(f"{machine()}, NumPy {np.__version__}, SciPy {scipy.__version__}", end="")
    print(f", matplotlib {matplotlib.__version__}", end="")
    with tempfile.TemporaryDirectory() as cwd:
        folder = generate(Path(cwd))
        print(f"; {RUNS} runs, {EVALUATIONS} evaluations each\n")
        table(["stage", "s", "MiB", "times the baseline"], rows(folder))


if __name__ == "__main__":
    main()
