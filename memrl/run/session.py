"""Training in a run's folder: lock it, start or continue, save, finish."""

from __future__ import annotations

import contextlib
import logging
import math
import operator
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from memrl.interfaces import Logger
from memrl.run import checkpoint, files
from memrl.run.identity import differences, read_config
from memrl.run.learning_curve import LEARNING_CURVE, learning_curve, random_episodes
from memrl.run.lock import Lock, locked
from memrl.run.outcome import START_OVER, Busy, CannotContinue, ConfigError, in_one_line, show
from memrl.run.progress import Progress, clock
from memrl.run.signals import Signals, Stopped
from memrl.run.status import EXACT, Status, heartbeat, is_done, says_done, settle, tidy
from memrl.run.tables import TABLES, CsvTables, Table, read_table

if TYPE_CHECKING:
    from memrl.trainer import Trainer


log = logging.getLogger("memrl")
LoggerOpener = Callable[[int], Logger | None]  # takes the env step from which rows follow


def already_done(folder: Path, config: Mapping[str, Any]) -> bool:
    """Return True if the folder holds this run, done; do what its process did not get to.

    Raises:
        ConfigError: it holds another run.
        CannotContinue: it was done, and its weights were lost since.
    """
    refuse_other_config(folder, config)
    if settle(folder):
        return True
    was_done = says_done(folder) or (folder / checkpoint.WEIGHTS).exists()
    if was_done and not checkpoint.exists(folder):
        problem = f"{checkpoint.WEIGHTS} {checkpoint.weights_problem(folder)}"
        advice = f"its csv files still count; {START_OVER}"
        raise CannotContinue(f"{folder}: the run is done, but {problem}; {advice}")
    return False


def say_already_done(folder: Path, config: Mapping[str, Any]) -> None:
    """Log the result of a run that is done, as far as its ``eval.csv`` can be read."""
    result = ""
    with contextlib.suppress(OSError, ValueError, LookupError):
        result = f"{in_words(read_table(folder / 'eval.csv'), config['budget'])[1]}: "
    log.info(f"already done: {result}{folder}")


def in_words(table: Table, budget: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether a run that is done ended because it was solved, and its result in words.

    Args:
        table: its ``eval.csv``.
        budget: the section of its config; it holds the scores at which the run ends.

    Raises:
        LookupError, ValueError: no row, or a column is missing or not finite.
    """
    last = {name: float(column[-1]) for name, column in table.items()}
    stops = {name: budget.get(f"stop_at_{name}") for name in ("return", "success")}
    least = {name: stop for name, stop in stops.items() if stop is not None}
    solved = bool(least) and all(last[f"eval/{name}"] >= least[name] for name in least)
    scores = []
    for name in stops:
        if not math.isnan(last[f"eval/{name}"]):
            recent = table[f"eval/{name}"][-10:]
            count = f"last {len(recent)} evaluations: " if name == "return" else ""
            note = f" ({count}{fmean(recent):.2f})"
            if solved:
                stop = f" (>= {show(stops[name])}, budget.stop_at_{name})"
                note = stop if name in least else ""
            scores.append(f"{name} {last[f'eval/{name}']:.2f}{note}")
    episodes, env_steps, updates = (int(last[k]) for k in ("episodes", "env_steps", "updates"))
    return solved, (
        f"{', '.join(scores)} after {episodes:,} episodes, {env_steps:,} env steps, "
        f"{updates:,} updates in {clock(last['time/seconds'])}"
    )


def refuse_other_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ConfigError if the folder holds a run whose identity differs."""
    try:
        saved = read_config(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except files.Unreadable as error:
        raise CannotContinue(f"{folder}/{error}; {START_OVER}") from None
    changed = differences(saved, config)
    if changed:
        lines = "\n  ".join(changed)
        raise ConfigError(f"{folder} holds a run with another config (there -> here):\n  {lines}")


def train_in_folder(
    folder: Path,
    trainer: Trainer,
    config: Mapping[str, Any],
    versions: Mapping[str, Any],
    resume: str,
    open_logger: LoggerOpener,
) -> None:
    """Train to the end in the run's folder, which is locked meanwhile.

    ``versions`` and ``resume`` are for its status: what results depend on, and whether a continued
    run is bit-identical to one that was not interrupted.

    Raises:
        Busy: another process holds the lock, or has taken it over.
        Stopped: by a signal; everything is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as lock, log_file(folder / "run.log", lock.is_held):
        try:
            refuse_other_config(folder, config)
            if is_done(folder):  # by another process, in the meantime
                tidy(folder)
                say_already_done(folder, config)
                return
            text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
            files.write_whole(folder / "config.yaml", text.encode())
            status = Status(folder, versions)
            status.update(resume=resume)
            status.write()
            with Signals() as signals:
                session = Session(lock, config, trainer, status, signals)
                with heartbeat(session.record):
                    session.train(open_logger)
        except (Stopped, KeyboardInterrupt, Busy):
            raise
        except BaseException:
            log.debug("failed", exc_info=True)  # for run.log; the console shows one line
            raise


def keep_traceback(folder: Path) -> None:
    """Write the current exception's traceback to ``run.log`` of a run that could not start.

    If another process is working on the run, the file is that process's.
    """
    with contextlib.suppress(OSError, Busy):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as lock, log_file(folder / "run.log", lock.is_held):
            log.debug("failed", exc_info=True)


@contextlib.contextmanager
def log_file(path: Path, is_ours: Callable[[], bool]) -> Iterator[None]:
    """Copy what is logged into a file, with times, debugging lines and tracebacks.

    ``is_ours`` tells for each entry whether this process may still write it.
    """
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.addFilter(lambda _: is_ours())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with contextlib.suppress(OSError):  # a full disk must not hide an earlier error
            handler.close()


@dataclass(eq=False, repr=False)
class Session:
    """One process's training of a run: what happens around the trainer and at its boundaries."""

    lock: Lock  # of the run's folder
    config: Mapping[str, Any]
    trainer: Trainer
    status: Status
    signals: Signals
    extra: Logger | None = None  # besides the csv files

    def __post_init__(self) -> None:
        self.folder = self.lock.folder
        self.interval_s = self.config["checkpoint_minutes"] * 60
        self.progress = Progress(self.trainer)
        self.next_save = time.monotonic() + self.interval_s

    def restore(self) -> dict[str, int]:
        """Load the newest readable checkpoint, if any; return the sizes its csv files had."""
        newest = checkpoint.load(self.folder, self.config)
        if newest is None:
            return {}
        state, name = newest
        if name != checkpoint.NEWEST:
            log.warning(f"{checkpoint.NEWEST} is missing or damaged; continuing from {name}")
            # The next save must not put it in place of the one before.
            self.lock.require_held()
            (self.folder / checkpoint.NEWEST).unlink(missing_ok=True)
        with checkpoint.fitting(self.folder / name):
            self.trainer.load_state_dict(state["trainer"])
            return {table: operator.index(state["csv_sizes"][table]) for table in TABLES}

    def train(self, open_logger: LoggerOpener) -> None:
        """Train to the end, and leave the run done, stopped or failed."""
        trainer = self.trainer
        try:
            self.tables = CsvTables(self.lock, self.restore())
            # Within a cycle the row of the current step is still to come.
            self.extra = open_logger(trainer.counters.env_steps + (not trainer.counters.in_cycle))
            self.progress.begin()
            trainer.logger = self
            self.describe()
            trainer.fit(self.boundary)
            self.finish()
        except BaseException as error:
            self.progress.end()
            stopped = isinstance(error, Stopped | KeyboardInterrupt)
            log.debug(str(error) or type(error).__name__)
            # On a full disk the error to be raised says so.
            with contextlib.suppress(OSError, Busy):
                if not is_done(self.folder):
                    state = "stopped" if stopped else "failed"
                    self.record(state=state, cause=in_one_line(error), **self.progress.fields())
            self.lock.require_held()  # what failed may have failed because of another process
            self.close(1)
            raise
        self.close(0)

    def write(self, table: str, row: Mapping[str, float]) -> None:
        self.tables.write(table, row)
        if self.extra:
            self.extra.write(table, row)

    def close(self, exit_code: int) -> None:
        if self.extra:
            try:
                self.extra.close(exit_code)
            except Exception as error:  # changes nothing about how the run ended
                log.warning(f"the logger failed to close: {in_one_line(error)}")

    def record(self, **fields: Any) -> None:
        """Write the status; raise Busy instead if the lock is lost."""
        self.lock.require_held()
        self.status.write(**fields)

    def describe(self) -> None:
        """Log what is about to run, and on what."""
        trainer, counters, fields = self.trainer, self.trainer.counters, self.status.fields
        replay, weights = trainer.replay, dict(trainer.agent.named_parameters()).values()
        log.info(f"run: {self.folder}")
        log.info(
            f"{sum(w.numel() for w in weights):,} parameters on {trainer.device}; "
            f"replay {replay.capacity:,} slots, {replay.nbytes / 2**20:.1f} MiB; "
            f"{trainer.total_steps:,} env steps"
        )
        log.debug(f"process {fields.pid} on {fields.host}; {fields.versions}")
        if counters.env_steps:
            log.info(f"continuing at env step {counters.env_steps:,}, update {counters.updates:,}")
        for name in getattr(trainer.env, "left_out", ()):
            log.warning(f"warning: {name} is text, which is left out")
        if fields.resume not in (None, EXACT):
            log.warning(f"warning: a continued run will be {fields.resume}")
        if self.status.changed:
            log.warning(f"since this run began: {'; '.join(self.status.changed)}")

    def boundary(self) -> None:
        """Save if it is time; after a signal save and stop; show progress."""
        stopped = self.signals.stopped()
        if stopped or time.monotonic() >= self.next_save:
            self.save()
        if stopped:
            raise stopped
        if self.progress():
            self.status.update(**self.progress.fields())

    def save(self) -> None:
        """Save a checkpoint that the csv files on disk agree with."""
        self.trainer.check_finite()  # a checkpoint of NaNs must not replace a good one
        self.tables.sync()
        checkpoint.save(self.lock, self.config, self.trainer.state_dict(), self.tables.sizes)
        self.next_save = time.monotonic() + self.interval_s

    def finish(self) -> None:
        """Write learning curve and weights; with these the run is done, and its status says so."""
        trainer = self.trainer
        self.tables.sync()
        table, env = read_table(self.folder / "eval.csv"), self.config["env"]
        path = self.folder / LEARNING_CURVE
        picture: Path | None = path
        try:
            train = read_table(self.folder / "train.csv")
            random = random_episodes(train, trainer.warmup_episodes, trainer.num_envs)
            learning_curve(table, random, self.folder.name, env, path)
        except OSError:
            raise
        except Exception as error:  # a plot that fails must not lose a trained agent
            picture = None
            log.warning(f"no learning curve: {error}")
        checkpoint.save_weights(self.lock, self.config, trainer.agent.weights())
        self.progress.end()
        self.record(**self.progress.fields() | {"state": "done", "eta_s": 0})
        checkpoint.remove(self.folder)
        solved, result = in_words(table, self.config["budget"])
        log.info(f"{'solved' if solved else 'done'}: {result}; curve: {picture}")
