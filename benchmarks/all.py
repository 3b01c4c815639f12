"""All benchmarks, one after another, into a dated Markdown file; about an hour on a quiet machine.

python benchmarks/all.py [FILE]        # default: outputs/benchmarks-<date>.md
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
COMMANDS = (
    "updates.py",
    "updates.py --threads 2 --lengths 50,250,1000 --kinds fast,bf16",
    "acting.py",
    "tasks.py",
    "solve.py",
    "long.py",
    "seeds.py",
    "results.py",
    "gpu.py --expected",
    "gpu.py",
)


def main() -> None:
    """Write the file, as far as it has got, after every command."""
    default = Path("outputs") / f"benchmarks-{time.strftime('%Y-%m-%d')}.md"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"# Benchmarks, {time.strftime('%Y-%m-%d')}\n"
    for command in COMMANDS:
        print(f"python benchmarks/{command}", flush=True)
        name, *arguments = command.split()
        done = subprocess.run(
            [sys.executable, str(HERE / name), *arguments], capture_output=True, text=True
        )
        outcome = done.stdout if not done.returncode else f"failed: {done.stderr.strip()[-500:]}"
        text += f"\n## `python benchmarks/{command}`\n\n{outcome.strip()}\n"
        path.write_text(text)
    print(path)


if __name__ == "__main__":
    main()
