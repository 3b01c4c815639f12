"""Loggers besides the csv files: TensorBoard and Weights & Biases."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from memrl.run.tables import TABLES

PACKAGES = {"TensorBoard": "tensorboard", "WandB": "wandb"}  # an extra of that name installs it
WANDB_LIMIT = 128  # characters in a name


def shorten(name: str) -> str:
    """Return a name for W&B: in one that is too long a hash stands for the middle."""
    if len(name) <= WANDB_LIMIT:
        return name
    digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
    half = (WANDB_LIMIT - len(digest) - 2) // 2
    return f"{name[:half]}~{digest}~{name[-half:]}"


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

    Its id is that of ``status.json``. The axis is ``env_steps``, not W&B's own step, which
    would refuse the rows that a continued run repeats.

    Args:
        run_id: letters and digits that no other run has.
        entity: None is the user's default.
        mode: "offline" keeps everything on disk, for ``wandb sync``; "disabled" keeps nothing. None
            is what the variable ``WANDB_MODE`` says, else "online".

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
        mode: Literal["online", "offline", "disabled"] | None,
    ) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            self.run = wandb.init(
                id=run_id,
                resume="allow",
                name=shorten(folder.name),
                group=shorten(folder.parent.name),
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
