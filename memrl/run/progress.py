"""A run's progress: the line on the console, and fields of ``status.json``."""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from typing import Any

from memrl.trainer import Trainer

LIVE_S, PLAIN_S = 0.2, 10.0  # between lines on a terminal, and elsewhere

log = logging.getLogger("memrl")


class Progress:
    """Measures a trainer's speed and shows it as one line, live on a terminal.

    To be called at the trainer's boundaries; between lines that costs a clock reading.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.live = sys.stdout.isatty()
        self.shown = False
        self.loss: float | None = None  # of the last cycle that had an update
        self.begin()

    def begin(self) -> None:
        """Measure from where the trainer stands now."""
        trainer = self.trainer
        self.start = time.perf_counter()
        self.start_steps, self.start_updates = trainer.counters.env_steps, trainer.counters.updates
        self.start_progress = trainer.progress
        self.next = self.start + (LIVE_S if self.live else PLAIN_S)

    def __call__(self) -> bool:
        """Write a line if it is time; return True if one was written."""
        if time.perf_counter() < self.next:
            return False
        if self.live:
            width = shutil.get_terminal_size().columns
            sys.stdout.write("\r\x1b[2K" + self.line()[: width - 1])
            sys.stdout.flush()
            self.shown = True
        else:
            log.info(self.line())
        self.next = time.perf_counter() + (LIVE_S if self.live else PLAIN_S)
        return True

    def end(self) -> None:
        """End the live line."""
        if self.shown:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def fields(self) -> dict[str, Any]:
        """Return the fields of ``status.json`` that change as training goes on."""
        t = self.trainer
        seconds = max(time.perf_counter() - self.start, 1e-9)
        gained = t.progress - self.start_progress
        return {
            "progress": round(t.progress, 4),
            "env_steps": t.counters.env_steps,
            "episodes": t.counters.episodes,
            "updates": t.counters.updates,
            "last_return": t.counters.last_return,
            "env_steps_per_s": round((t.counters.env_steps - self.start_steps) / seconds, 2),
            "eta_s": round((1 - t.progress) / gained * seconds, 1) if gained > 0 else None,
        }

    def line(self) -> str:
        """Return episode, speed, loss, last return and remaining time."""
        t, fields = self.trainer, self.fields()
        seconds = max(time.perf_counter() - self.start, 1e-9)
        if "loss" in t.counters.cycle_metrics:
            self.loss = t.counters.cycle_metrics["loss"].item() / t.counters.cycle_updates
        last, eta = fields["last_return"], fields["eta_s"]
        parts = [
            f"{fields['progress']:4.0%}",
            f"episode {t.counters.episodes:,}",
            f"{fields['env_steps_per_s']:,.0f} env steps/s",
            f"{(t.counters.updates - self.start_updates) / seconds:,.1f} updates/s",
            "loss -" if self.loss is None else f"loss {self.loss:.2g}",
            "return -" if last is None else f"return {last:.2f}",
            *(
                []
                if math.isnan(t.counters.last_success)
                else [f"success {t.counters.last_success:.2f}"]
            ),
            "ETA -" if eta is None else f"ETA {clock(eta)}",
        ]
        return " | ".join(parts)


def clock(seconds: float) -> str:
    """Write a duration as m:ss, or h:mm:ss."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
