"""How a command ends: a pipe that is closed early, and what fails to close."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from memrl.experiment import closing

PRINT = "from memrl.run.console import console\nwith console():\n    print('x')\n"


def with_no_reader(*arguments: str) -> tuple[int, str]:
    """Run Python with a standard output that nobody reads; return exit status and errors."""
    read, write = os.pipe()
    os.close(read)
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=plain,
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr


@pytest.mark.parametrize("status", [0, 1, 75, 143])
def test_an_exit_status_is_kept_when_nobody_reads(status: int) -> None:
    assert with_no_reader("-c", f"{PRINT}    raise SystemExit({status})") == (status, "")


@pytest.mark.parametrize("arguments", [["--help"], ["plot", "--help"], ["train", "--help"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    assert with_no_reader("-m", "memrl", *arguments) == (0, "")
    assert with_no_reader("-u", "-m", "memrl", *arguments) == (0, "")


def test_what_fails_to_close_hides_nothing_and_fails_nothing() -> None:
    class Broken:
        def close(self) -> None:
            raise RuntimeError("the display is gone")

    with closing(Broken()):
        pass
    with pytest.raises(KeyError), closing(Broken()):
        raise KeyError
