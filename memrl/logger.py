"""Where rows go: csv files always; TensorBoard and Weights & Biases if asked."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from memrl.checkpoint import START_OVER, CannotContinue, naming
from memrl.interfaces import Logger

TABLES = ("train", "eval")
PACKAGES = {"TensorBoard": "tensorboard", "WandB": "wandb"}  # an extra of that name installs it


class CsvTables:
    """``train.csv`` and ``eval.csv`` in a run's folder; every row is on disk once written.

    A run that continues cuts both where its checkpoint was taken, by ``sizes``.

    Raises:
        CannotContinue: a file is shorter than that.
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int]) -> None:
        self.paths = {table: folder / f"{table}.csv" for table in TABLES}
        for table, path in self.paths.items():
            size = sizes.get(table, 0)
            have = path.stat().st_size if path.exists() else 0
            if have < size:
                raise CannotContinue(
                    f"{path} has {have} bytes, the checkpoint counts {size}; {START_OVER}"
                )
        self.sizes = {table: sizes.get(table, 0) for table in TABLES}
        self.headers = dict.fromkeys(TABLES, "")
        for table, path in self.paths.items():
            with naming(path), open(path, "a+b") as file:
                file.truncate(self.sizes[table])
                file.seek(0)
                self.headers[table] = file.readline().decode()

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Append one row, the header first if the file is empty."""
        path, header = self.paths[table], ",".join(row) + "\n"
        if self.headers[table] not in ("", header):  # of another version of the program
            raise CannotContinue(f"{path} has other columns than {header.strip()}")
        text = "" if self.headers[table] else header
        data = (text + ",".join(_cell(value) for value in row.values()) + "\n").encode()
        with naming(path), open(path, "ab") as file:
            file.write(data)
        self.headers[table] = header
        self.sizes[table] += len(data)

    def sync(self) -> None:
        """Wait until all rows are on the disk itself, so that no checkpoint is ahead of them."""
        for path in self.paths.values():
            with naming(path), open(path, "ab") as file:
                os.fsync(file.fileno())

    def close(self, exit_code: int) -> None:
        """Nothing is left to write."""


def _cell(value: float) -> str:
    return repr(value) if isinstance(value, int) else repr(float(value))


class Loggers:
    """Sends every row to several loggers, in order."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = loggers

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Append one row everywhere."""
        for logger in self.loggers:
            logger.write(table, row)

    def close(self, exit_code: int) -> None:
        """Close all."""
        for logger in self.loggers:
            logger.close(exit_code)


class TensorBoard:
    """Scalars over ``env_steps``, in ``<run>/tensorboard``.

    Args:
        folder: the run's folder.
        next_step: least ``env_steps`` of a row to come; what an interrupted process wrote from
            there on is hidden.
    """

    def __init__(self, folder: Path, next_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=next_step)

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Add each finite value of the row as a scalar; both tables have times, so name whose."""
        for key, value in row.items():
            if "/" in key and math.isfinite(value):
                tag = key.replace("time/", f"time/{table}_")
                self.writer.add_scalar(tag, value, int(row["env_steps"]))
        self.writer.flush()

    def close(self, exit_code: int) -> None:
        """Write what is buffered."""
        self.writer.close()


class WandB:
    """One W&B run per memrl run, whatever number of times it was interrupted.

    The id is fixed by the run's identity. The axis is ``env_steps``, not W&B's own step, which
    would refuse the rows that a continued run repeats.

    Args:
        folder: the run's folder.
        run_id: letters and digits, the same for the same sweep and run.
        config: the resolved config.
        project: W&B project.
        entity: W&B entity; None is the user's default.
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
        """Finish; a non-zero exit code marks the W&B run as failed."""
        self.run.finish(exit_code=exit_code)
