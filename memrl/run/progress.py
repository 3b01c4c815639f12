"""A run's progress: the line on the console, and fields of ``status.json``."""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from memrl.trainer import Trainer

LIVE_S, PLAIN_S = 0.2, 10.0  # between lines on a terminal, and elsewhere
PLAIN_WIDTH = 79  # characters in a line, except on a wider or narrower terminal

log = logging.getLogger("memrl")


class Progress:
    """Measures a trainer's speed and shows it as one line, live on a terminal.

    To be called at the trainer's boundaries; between lines that costs a clock reading.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.live = sys.stdout.isatty()
        self.interval_s = LIVE_S if self.live else PLAIN_S
        self.shown = False
        self.loss: tuple[Tensor, int] | None = None  # of the last updates: their sum and number
        self.begin()

    def begin(self) -> None:
        """Measure from where the trainer stands now."""
        self._measure_from_here()
        self.next = self.start + self.interval_s

    def _measure_from_here(self) -> None:
        counters = self.trainer.counters
        self.start = time.perf_counter()
        self.start_steps, self.start_updates = counters.env_steps, counters.updates
        self.start_progress = self.trainer.progress

    def __call__(self) -> bool:
        """Write a line if it is time; return True if one was written."""
        c = self.trainer.counters
        if "loss" in c.cycle_metrics:  # the last cycle may have ended when a line is due
            self.loss = c.cycle_metrics["loss"], c.cycle_updates
        if not c.updates:  # random steps may owe none, and take much less time than others
            self._measure_from_here()
        if time.perf_counter() < self.next:
            return False
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print("\r\x1b[2K" + self.line(width)[:width], end="", flush=True)
            self.shown = True
        else:
            log.info(self.line(PLAIN_WIDTH))
        self.next = time.perf_counter() + self.interval_s
        return True

    def end(self) -> None:
        """End the live line."""
        if self.shown:
            print(flush=True)

    def fields(self) -> dict[str, Any]:
        """Return the fields of ``status.json`` that change as training goes on."""
        c, progress = self.trainer.counters, self.trainer.progress
        seconds = max(time.perf_counter() - self.start, 1e-9)
        gained = progress - self.start_progress
        return {
            "progress": round(progress, 4),
            "env_steps": c.env_steps,
            "episodes": c.episodes,
            "updates": c.updates,
            "last_return": c.last_return,
            "env_steps_per_s": round((c.env_steps - self.start_steps) / seconds, 2),
            "eta_s": round((1 - progress) / gained * seconds, 1) if gained > 0 else None,
            "seconds": round(self.trainer.seconds(), 1),
        }

    def line(self, width: int) -> str:
        """Return progress and remaining time, then as much else as fits into ``width``."""
        c, fields = self.trainer.counters, self.fields()
        seconds = max(time.perf_counter() - self.start, 1e-9)
        eta = "-" if fields["eta_s"] is None else clock(fields["eta_s"])
        line = f"{fields['progress']:4.0%} | ETA {eta}"
        parts = []  # the most important first
        if c.last_return is not None:
            parts.append(f"return {c.last_return:.2f}")
        if not math.isnan(c.last_success):
            parts.append(f"success {c.last_success:.2f}")
        parts.append(f"episode {c.episodes:,}")
        if self.loss is not None:
            parts.append(f"loss {self.loss[0].item() / self.loss[1]:.2g}")
        parts.append(f"{fields['env_steps_per_s']:,.0f} steps/s")
        parts.append(f"{(c.updates - self.start_updates) / seconds:,.1f} updates/s")
        for part in parts:
            if len(line) + len(part) + 3 > width:
                break
            line += f" | {part}"
        return line


def clock(seconds: float) -> str:
    """Write a duration as m:ss, or h:mm:ss."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
