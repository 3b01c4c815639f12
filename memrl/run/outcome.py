"""How a command ends: errors with a message of one line, and exit statuses."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from memrl.run.console import printable
from memrl.run.signals import Stopped

FAILED, BAD_CONFIG, BUSY, INTERRUPTED = 1, 2, 3, 130  # exit statuses
START_OVER = "to start over, delete the folder"

log = logging.getLogger("memrl")


class ConfigError(Exception):
    """An error in the config: the key, its value and what is allowed, in one line."""


class Failure(Exception):
    """Something outside the program failed; the message is one line that says what to do."""


class CannotContinue(Failure):
    """What is on disk does not suffice to continue the run; its rows were not touched."""


class Busy(Exception):
    """Another process is working on this run."""


WHOLE_SENTENCES = (FloatingPointError, OSError, Failure)  # their messages need no traceback


def catch_failure(do: Callable[[], object]) -> tuple[str, int] | None:
    """Call ``do``; return why it failed, in one line, and the exit status, or None.

    If a signal stopped it, the process ends.
    """
    try:
        do()
        return None
    except ConfigError as error:
        return str(error), BAD_CONFIG
    except Busy as error:
        return str(error), BUSY
    except Stopped as error:
        print(f"{error}; the same command continues this run", file=sys.stderr)
        error.leave()
    except Exception as error:
        if not isinstance(error, WHOLE_SENTENCES):
            traceback.print_exc()
        return in_one_line(error), FAILED


def exit_status(do: Callable[[], int | None]) -> int:
    """Call ``do``; return the exit status. A failure is one line on standard error."""
    status: list[int | None] = []
    failure: tuple[str, int] | None
    try:
        failure = catch_failure(lambda: status.append(do()))
    except KeyboardInterrupt:
        failure = "interrupted", INTERRUPTED
    if failure is None:
        return status[0] or 0
    print(printable(f"error: {failure[0]}"), file=sys.stderr)
    return failure[1]


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_console() -> None:
    """Send what memrl logs to standard output, and nowhere else."""
    log.setLevel(logging.DEBUG)
    log.propagate = False
    logging.raiseExceptions = False  # a full disk must not bury its own message
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.INFO)
    console.setFormatter(_Printable())
    log.handlers = [console]


@contextlib.contextmanager
def logging_to_console() -> Iterator[None]:
    """Send what memrl logs to standard output; afterwards log as before."""
    before = log.level, log.propagate, log.handlers, logging.raiseExceptions
    log_to_console()
    try:
        yield
    finally:
        log.level, log.propagate, log.handlers, logging.raiseExceptions = before


# --- in words ------------------------------------------------------------------------------------


def in_one_line(error: BaseException) -> str:
    """Return what went wrong; the error's kind too, unless its message was written to be read."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    kind = type(error)
    if kind.__module__.startswith("memrl.") or isinstance(error, WHOLE_SENTENCES):
        return text or kind.__name__
    return f"{kind.__name__}: {text}" if text else kind.__name__


def suggest(key: str, known: Collection[str]) -> str:
    """Name the known keys with the same last part, or the one beside it most like it, or all."""
    section, _, last = key.rpartition(".")
    if same := sorted(name for name in known if name.rpartition(".")[2] == last):
        return f"did you mean {' or '.join(same)}?"
    beside = [name for name in known if name.rpartition(".")[0] == section] or known
    ends = {name.rpartition(".")[2]: name for name in beside}
    close = difflib.get_close_matches(last, ends, n=1)
    if not close and not section:  # of a group, perhaps
        ends = {name.rpartition(".")[2]: name for name in known}
        close = difflib.get_close_matches(last, ends, n=1)
    if close:
        return f"did you mean {ends[close[0]]}?"
    return f"there {'is only' if len(beside) == 1 else 'are'} {', '.join(sorted(beside))}"


def show(value: Any) -> str:
    """Return a value as YAML and the command line write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(show, value))}]"
    if isinstance(value, float) and value.is_integer():
        return str(value).removesuffix(".0")  # equal numbers look alike: 0 and 0.0
    return str(value)


def plural(n: int, noun: str) -> str:
    """Return a number of things in words, as "1 run" or "2 runs"."""
    return f"{n} {noun}{'s' * (n != 1)}"


def below_cwd(path: Path) -> str:
    """Return the shortest spelling of a path from the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
