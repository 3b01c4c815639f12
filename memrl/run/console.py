"""Standard output and error: they may be closed, and nothing printed controls the terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

# Characters that a terminal obeys, marks that change the direction of text, and bytes of file names
# that are not UTF-8. Names and errors in somebody else's files may hold any of them.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return a text with its control characters written out, as in ``\\x1b``."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class OutputLost(SystemExit):
    """What is printed is lost; status 0 if nobody reads it, as where ``head`` closed the pipe.

    No handler of errors on the way to the console's end may report it as well.
    """


class _File(io.FileIO):
    """A descriptor to write to.

    Attributes:
        optional: what cannot be written, to a closed pipe or a full disk, is dropped.
    """

    optional = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.optional:
                return memoryview(data).nbytes
            if isinstance(error, BrokenPipeError):
                raise OutputLost(0) from None
            raise OutputLost(f"error: what was printed is lost: {error.strerror}") from None


class _Stream(io.TextIOWrapper):
    """Text for a descriptor; characters that the encoding lacks are escaped."""

    raw = False  # control characters too

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.replaced = stream  # which would close the descriptor if it were collected
        self.file = _File(stream.fileno(), "w", closefd=False)
        self.file.optional = stream.fileno() == 2  # a warning that is lost must not end a command
        super().__init__(
            io.BufferedWriter(self.file),
            stream.encoding,
            "backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str) -> int:
        return super().write(text if self.raw else printable(text))


@contextlib.contextmanager
def console() -> Iterator[None]:
    """Let a command print, until it ends or its reader leaves; either way its status is kept.

    Raises:
        OutputLost: on a full disk, say; not if nobody reads it.
    """
    _take_over()
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OutputLost as error:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                if error.code:
                    raise


def _take_over() -> None:
    # A closed descriptor would be the next opened file's, and libraries write to it by its number.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:  # not that of a notebook or a test
            stream.flush()
            setattr(sys, name, _Stream(stream))


def print_optionally() -> None:
    """From here on drop what cannot be printed: a run matters more than its messages.

    Control characters pass, since a user's own code may print during a run.
    """
    _take_over()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, _Stream):
            stream.file.optional = stream.raw = True


def clear_screen() -> None:
    """Clear the terminal, which a printed text cannot."""
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), b"\x1b[H\x1b[2J")
