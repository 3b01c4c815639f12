"""Loggers besides the csv files: TensorBoard and Weights & Biases."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from memrl.run.tables import TABLES

PACKAGES = {"TensorBoard": "tensorboard", "WandB": "wandb"}  # an extra of that name installs it


class TensorBoard:
    """Scalars over ``env_steps``, in ``<run>/tensorboard``.

    Rows that an interrupted process wrote at or after ``next_step`` are hidden.
    """

    def __init__(self, folder: Path, next_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=next_step)

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Add each finite value of the row; the tag of a time says of which table it is."""
        for key, value in row.items():
            if "/" in key and math.isfinite(value):
                tag = key.replace("time/", f"time/{table}_")
                self.writer.add_scalar(tag, value, int(row["env_steps"]))
        self.writer.flush()

    def close(self, exit_code: int) -> None:
        self.writer.close()


class WandB:
    """One W&B run per memrl run, however often it was interrupted.

    The id is fixed by the run's identity. The axis is ``env_steps``, not W&B's own step, which
    would refuse the rows that a continued run repeats.

    Args:
        run_id: letters and digits, the same for the same sweep and run.
        entity: None is the user's default.
        mode: "offline" keeps everything on disk, for ``wandb sync``.

    Raises:
        ConnectionError: W&B cannot be reached, or nobody is logged in.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        config: Mapping[str, Any],
        project: str,
        entity: str | None,
        mode: Literal["online", "offline"],
    ) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            self.run = wandb.init(
                id=run_id,
                resume="allow",
                name=folder.name,
                group=folder.parent.name,
                dir=str(folder),
                config=dict(config),
                project=project,
                entity=entity,
                mode=mode,
            )
        except wandb.errors.Error as error:
            raise ConnectionError(f"W&B: {error}; logger.mode=offline needs no account") from error
        self.run.define_metric("env_steps")
        for table in TABLES:
            self.run.define_metric(f"{table}/*", step_metric="env_steps")
        self.run.define_metric("time/*", step_metric="env_steps")

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Log the row; NaN cells are left out."""
        self.run.log({key: value for key, value in row.items() if not math.isnan(value)})

    def close(self, exit_code: int) -> None:
        self.run.finish(exit_code=exit_code)
