"""How a command ends: a pipe that is closed early, and what fails to close."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Process, at
from made import make_run

from memrl.__main__ import main
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


@pytest.mark.parametrize("options", [[], ["-u"]])
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_a_reader_that_leaves_is_no_error(options: list[str], arguments: list[str]) -> None:
    assert with_no_reader(*options, "-m", "memrl", *arguments) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_that_output_is_lost_is_said_once() -> None:
    with open("/dev/full", "w") as full:
        code = "from memrl.__main__ import main; main(['sweep', '--help'])"
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == b"error: what was printed is lost: No space left on device\n"


def test_what_fails_to_close_hides_nothing_and_fails_nothing() -> None:
    class Broken:
        def close(self) -> None:
            raise RuntimeError("the display is gone")

    with closing(Broken()):
        pass
    with pytest.raises(KeyError), closing(Broken()):
        raise KeyError


# --- a run and its messages ----------------------------------------------------------------------

TINY = ("device=cpu", "env.length=5", "budget=smoke", "budget.train_episodes=1")
Launch = Callable[..., Process]


def closed() -> None:
    """Close standard output and error, as the shell does with ``>&- 2>&-``."""
    os.close(1)
    os.close(2)
    sys.stdout = sys.stderr = None  # type: ignore[assignment]


def unread() -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
    os.dup2(write, 2)


def full() -> None:
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, 1)
    os.dup2(device, 2)


def states(cwd: Path) -> list[str]:
    paths = cwd.glob("outputs/*/*/status.json")
    return [json.loads(path.read_text())["state"] for path in paths]


@pytest.mark.parametrize("output", [closed, unread, full])
def test_a_run_needs_nobody_to_read_what_it_prints(
    output: Callable[[], None], launch: Launch, tmp_path: Path
) -> None:
    assert launch(*TINY, first=output).wait() == 0
    assert states(tmp_path) == ["done"]
    (log,) = tmp_path.glob("outputs/*/*/run.log")  # a closed descriptor would be its own
    assert all(line[:2] == "20" for line in log.read_text().splitlines())


def test_a_stopped_run_says_so_where_it_is_recorded(launch: Launch, tmp_path: Path) -> None:
    stop = at("open eval.csv", signal.SIGTERM, 2)
    command = (*TINY, "budget.train_episodes=20")
    assert launch(*command, first=lambda: (unread(), stop())).wait() == 143
    assert states(tmp_path) == ["stopped"]
    (log,) = tmp_path.glob("outputs/*/*/run.log")
    assert "stopped by SIGTERM" in log.read_text()


def test_a_sweep_whose_reader_has_left_goes_on(launch: Launch, tmp_path: Path) -> None:
    assert launch("-m", *TINY, "seed=0,1", first=unread).wait() == 0
    assert states(tmp_path) == ["done", "done"]
    assert list(tmp_path.glob("outputs/*/runs.csv"))


def test_what_others_wrote_controls_no_terminal(launch: Launch, tmp_path: Path) -> None:
    """Nor does the encoding of the terminal, or of a name, matter."""
    cause = "\x1b]0;title\x07 \x9b2J \u202e evil, gr\u00fc\u00df"
    broken = {"state": "failed", "cause": cause, "host": "\x1b[8m", "command": "\x1b[2J"}
    folder = make_run(tmp_path, [0.5], "seed=0", "sweep=s", status=broken)
    (folder / "run.log").write_text("a\x1b[2Jb\n")
    make_run(tmp_path, [0.5], "seed=1", "sweep=s")
    name = os.fsdecode(b"outputs/s \xff\x1b[2J")
    (tmp_path / "outputs" / "s").rename(tmp_path / name)

    def with_ascii() -> None:
        sys.stdout.reconfigure(encoding="ascii")  # type: ignore[union-attr]
        sys.stderr.reconfigure(encoding="ascii")  # type: ignore[union-attr]
        for words in (["sweep", "status"], ["sweep", "logs"], ["plot", "--format", "png"]):
            with contextlib.suppress(SystemExit):
                main([*words, name, *(["seed=0"] if "logs" in words else [])])
        sys.exit()

    process = launch(first=with_ascii)
    assert process.wait() == 0
    text = process.output
    assert text.isascii()
    assert "Traceback" not in text, text
    assert not {*text} & {*map(chr, range(32)), "\x7f"} - {"\n"}
    assert text.count("\\x1b]0;title\\x07 \\x9b2J \\u202e evil, gr\\xfc\\xdf") >= 2, text
    assert "a\\x1b[2Jb" in text and "outputs/s \\udcff\\x1b[2J" in text
