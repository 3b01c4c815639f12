"""Loggers besides the csv files: TensorBoard and Weights & Biases."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import logging
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import OmegaConf

from memrl.run.identity import flatten, identity
from memrl.run.learning_curve import LEARNING_CURVE
from memrl.run.outcome import ConfigError, in_one_line, show
from memrl.run.tables import TABLES

WANDB_LIMIT = 128  # characters in a name
# W&B's settings that are keys of the logger, by the keys' names.
WANDB_SETTINGS = {
    **{key: key for key in ("project", "entity", "mode")},
    **{key: f"run_{key}" for key in ("group", "job_type", "tags", "notes")},
}

log = logging.getLogger("memrl")


def shorten(name: str) -> str:
    """Return a name for W&B: in one that is too long a hash stands for the middle."""
    if len(name) <= WANDB_LIMIT:
        return name
    digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
    half = (WANDB_LIMIT - len(digest) - 2) // 2
    return f"{name[:half]}~{digest}~{name[-half:]}"


class TensorBoard:
    """Scalars over ``env_steps``, config and learning curve, in ``<run>/tensorboard``.

    Rows that an interrupted process wrote at or after ``next_step`` are hidden.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], next_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.folder = folder
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=next_step)
        text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
        self.writer.add_text("config", f"```\n{text}```", next_step)
        values = {
            key: value if isinstance(value, int | float) else show(value)
            for key, value in identity(config).items()
        }
        # ``add_hparams`` would write them into a folder of their own, which shows as another run.
        metrics = dict.fromkeys(("eval/return", "eval/success"))
        experiment, start, self.end = hparams(values, metrics)  # type: ignore[no-untyped-call]
        self.file = cast(Any, self.writer.file_writer)  # never None while the writer is open
        for summary in (experiment, start):
            self.file.add_summary(summary)
        self.writer.flush()

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Add each finite value of the row; the tag of a time says of which table it is."""
        for key, value in row.items():
            if "/" in key and math.isfinite(value):
                tag = key.replace("time/", f"time/{table}_")
                self.writer.add_scalar(tag, value, int(row["env_steps"]))
        self.writer.flush()

    def close(self, exit_code: int) -> None:
        """Finish; of a run that is done also add the learning curve."""
        try:
            if exit_code == 0:
                self.file.add_summary(self.end)
                self._add_learning_curve()
        finally:
            self.writer.close()

    def _add_learning_curve(self) -> None:
        import numpy as np
        from PIL import Image

        if (path := self.folder / LEARNING_CURVE).exists():
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))  # (height, width, 3)
            self.writer.add_image("learning_curve", pixels, dataformats="HWC")


@dataclass(kw_only=True, eq=False, repr=False)
class WandB:
    """One W&B run per memrl run, however often it was interrupted.

    Its id is that of ``status.json``, its name that of the folder. The axis is ``env_steps``, not
    W&B's own step, which would refuse the rows that a continued run repeats.

    Raises:
        ConnectionError: W&B cannot be reached, or nobody is logged in.
    """

    folder: Path
    run_id: str  # letters and digits that no other run has
    config: Mapping[str, Any]
    project: str
    # For None W&B reads its variables, such as ``WANDB_MODE``, and its settings.
    entity: str | None = None
    mode: Literal["online", "offline", "disabled"] | None = None
    group: str | None = None  # None: the sweep's name
    job_type: str | None = None
    tags: Sequence[str] = ()
    notes: str | None = None
    animation: bool = False  # also log what ``memrl watch`` makes of a run that is done

    def __post_init__(self) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            self.run = wandb.init(
                id=self.run_id,
                resume="allow",
                reinit="create_new",  # a caller may have a W&B run of their own
                name=shorten(self.folder.name),
                group=self.group or shorten(self.folder.parent.name),
                dir=str(self.folder),
                config=dict(self.config),
                project=self.project,
                entity=self.entity,
                mode=self.mode,
                job_type=self.job_type,
                tags=self.tags or None,
                notes=self.notes,
            )
        except wandb.Error as error:
            raise ConnectionError(f"W&B: {error}; logger.mode=offline needs no account") from error
        self.run.define_metric("env_steps")
        for table in TABLES:
            self.run.define_metric(f"{table}/*", step_metric="env_steps")
        self.run.define_metric("time/*", step_metric="env_steps")
        if self.run.url:
            log.info(f"W&B: {self.run.url}")
        self._say_how_to_upload()

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Log the row; NaN cells are left out."""
        self.run.log({key: value for key, value in row.items() if not math.isnan(value)})

    def close(self, exit_code: int) -> None:
        """Finish; of a run that is done also log the pictures."""
        import wandb

        try:
            if exit_code == 0 and (curve := self.folder / LEARNING_CURVE).exists():
                self.run.log({"learning_curve": wandb.Image(str(curve))})
            if exit_code == 0 and self.animation and (film := animate(self.folder, self.config)):
                self.run.log({"animation": wandb.Video(str(film), format="gif")})
        finally:
            self.run.finish(exit_code=exit_code)
            self._say_how_to_upload()

    def _say_how_to_upload(self) -> None:
        if self.run.offline:  # each process that worked on the run has left a folder
            path = f"{shlex.quote(str(self.folder / 'wandb'))}/offline-run-*"
            log.info(f"W&B is offline; to upload this run: wandb sync {path}")


@dataclass(kw_only=True, eq=False, repr=False)
class WandBTensorBoard(WandB):
    """Both; the keys are those of W&B."""

    next_step: int

    def __post_init__(self) -> None:
        self.board = TensorBoard(self.folder, self.config, self.next_step)
        try:
            super().__post_init__()
        except BaseException:
            self.board.close(1)
            raise

    def write(self, table: str, row: Mapping[str, float]) -> None:
        """Write the row to both."""
        self.board.write(table, row)
        super().write(table, row)

    def close(self, exit_code: int) -> None:
        """Finish both."""
        try:
            self.board.close(exit_code)
        finally:
            super().close(exit_code)


def animate(folder: Path, config: Mapping[str, Any]) -> Path | None:
    """Let ``memrl watch`` draw a run that is done; return the file, or None if it cannot be drawn.

    It is a process of its own, with the code that this one has imported.
    """
    targets = [v for k, v in flatten(config).items() if k.endswith("._target_") and v is not None]
    packages = sorted({str(target).partition(".")[0] for target in targets} - {"memrl"})
    command = [sys.executable, "-m", "memrl", "watch", f"--trust={','.join(packages)}", str(folder)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environ = os.environ | {"PYTHONPATH": path}
    watch = subprocess.run(command, capture_output=True, text=True, env=environ)
    if watch.returncode == 0:
        return folder / "watch.gif"
    log.warning(f"no animation: {' '.join(watch.stderr.split())}")
    return None


# --- before a run has a folder -------------------------------------------------------------------


def check_logger(logger: Any, keys: Mapping[str, Any]) -> None:
    """Check that a logger can be opened on this machine.

    Args:
        logger: what the section's ``_target_`` names.
        keys: the section.

    Raises:
        ConfigError: TensorBoard is not installed; W&B refuses a key or one of its variables, cannot
            be reached, or nobody is logged in.
    """
    classes = inspect.getmro(logger) if isinstance(logger, type) else ()
    if TensorBoard in classes or WandBTensorBoard in classes:
        # A folder of that name is importable too, but has no origin.
        if getattr(importlib.util.find_spec("tensorboard"), "origin", None) is None:
            problem = "TensorBoard is not installed; pip install tensorboard"
            raise ConfigError(f"logger._target_={show(keys['_target_'])}: {problem}")
    if WandB in classes:
        values = {key: keys[key] for key in WANDB_SETTINGS if keys.get(key) is not None}
        refusal = wandb_refusal(
            tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in values.items())
        )
        if refusal:
            raise ConfigError(refusal)


@functools.cache  # a sweep has one answer, which may take ten seconds
def wandb_refusal(keys: tuple[tuple[str, Any], ...]) -> str | None:
    """Return why W&B cannot log a run with these keys, or None."""
    import wandb

    if wandb.run is not None:  # of this process: W&B works, and its settings are not ours
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    values = {WANDB_SETTINGS[key]: value for key, value in keys}
    from_keys = True
    try:
        settings = wandb.Settings(**values)
        from_keys = False
        mode = wandb.setup(settings).settings.mode  # reads variables and files
        if mode in ("offline", "dryrun", "disabled") or wandb.login(prompt=False, verify=True):
            return None
        problem = "nobody is logged in to W&B: run `wandb login`, or set WANDB_API_KEY"
    except ValueError as error:
        # W&B's settings are a model of pydantic's, whose errors say more than others.
        details: list[Any] = getattr(error, "errors", list)()
        if not details:
            return f"logger: W&B: {in_one_line(error)}"
        first = details[0]
        name, value = str(first["loc"][0]), first["input"]
        variable = f"WANDB_{name.upper()}"
        where = variable if variable in os.environ else f"W&B's setting {name}"
        where = f"logger.{name.removeprefix('run_')}" if from_keys else where
        shown = show([*value] if isinstance(value, tuple) else value)
        return f"{where}={shown}: {first['msg'].removeprefix('Value error, ')}"
    except wandb.Error as error:
        text = " ".join(str(error).split()).removesuffix(".")
        if from_keys:
            return f"logger.project={show(values['project'])}: {text}"
        problem = f"W&B: {text}"
    finally:
        wandb.teardown()  # its service, which a job on another host would look for
    return f"logger: {problem}; logger.mode=offline needs no account"
