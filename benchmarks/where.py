"""Where the time of an update goes: PyTorch's profiler over a few updates of any config.

python benchmarks/where.py env.length=250 seq_model=gpt precision=bf16
"""

from __future__ import annotations

import sys

from torch.profiler import profile

from memrl.experiment import build, resolve
from memrl.run.config import compose_config
from memrl.run.outcome import exit_status

UPDATES = 5


def main() -> None:
    """Collect the first episodes, then profile updates."""
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    trainer = build(resolve(compose_config(["budget=smoke", *sys.argv[1:]])))
    trainer.collect()
    for _ in range(2):
        trainer.update()
    with profile() as seen:
        for _ in range(UPDATES):
            trainer.update()
    where = "self_device_time_total" if trainer.device.type == "cuda" else "self_cpu_time_total"
    print(f"{UPDATES} updates of {trainer.batch_size} windows:")
    print(seen.key_averages().table(sort_by=where, row_limit=25, max_name_column_width=60))


if __name__ == "__main__":
    sys.exit(exit_status(main))
