"""Run all benchmarks and write a dated Markdown file; takes about an hour on an idle machine.

python benchmarks/all.py [FILE]        # default: outputs/benchmarks-<date>.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
COMMANDS = (
    "updates.py",
    "updates.py --threads 2 --lengths 50,250,1000 --kinds shared,bf16",
    "continuous.py",
    "acting.py",
    "tasks.py",
    "solve.py",
    "long.py",
    "memories.py",
    "seeds.py",
    "results.py",
    "gpu.py --expected",
    "continuous.py --expected",
)
GPU_COMMANDS = ("gpu.py", "continuous.py --device cuda")


def main() -> None:
    """Run the benchmarks, and append each result to the file at once."""
    default = Path("outputs") / f"benchmarks-{time.strftime('%Y-%m-%d')}.md"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=default)
    path, failed = parser.parse_args().file, []
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        print(f"# Benchmarks, {time.strftime('%Y-%m-%d')}", file=file, flush=True)
        for command in (*COMMANDS, *(GPU_COMMANDS if torch.cuda.is_available() else ())):
            print(f"python benchmarks/{command}", flush=True)
            print(f"\n## `python benchmarks/{command}`\n", file=file, flush=True)
            name, *arguments = command.split()
            call = [sys.executable, str(HERE / name), *arguments]
            done = subprocess.run(call, stdout=file, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"\nfailed: {done.stderr.strip()[-500:]}", file=file, flush=True)
                failed.append(command)
    print(path)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
