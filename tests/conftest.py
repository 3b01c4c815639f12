"""What several test files need."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # forks of a process that used a GPU cannot differentiate
os.environ.pop("MEMRL_OUTPUTS", None)

import torch
from torch.utils._python_dispatch import TorchDispatchMode

torch.set_num_threads(1)  # a fork has none of the other threads

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
# There are no wheels of PyBullet for every version of Python.
needs_pybullet = pytest.mark.skipif(find_spec("pybullet") is None, reason="without PyBullet")
DEADLINE_S = 60.0  # of every wait; far more than needed


# --- the command line in a process of its own ----------------------------------------------------


class Process:
    """The command line, running in a fork of this process: no import to wait for.

    Args:
        arguments: what stands after ``run.py``.
        cwd: where it runs, and so where its ``outputs`` are.
        first: called in the new process before anything else.
        composed: start with the composed config of a single run: Hydra takes longer than the run.
    """

    def __init__(
        self,
        arguments: tuple[str, ...],
        cwd: Path,
        first: Callable[[], object] | None = None,
        composed: bool = False,
    ) -> None:
        _warm_up()
        main = _train_composed(arguments) if composed else _command_line
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._code: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
            self.pid = os.fork()
        if self.pid == 0:
            sys.argv = [str(ROOT / "run.py"), *arguments]
            calls = [first, main] if first else [main]
            _execute(calls, cwd, self._out.fileno(), self._err.fileno())

    def __del__(self) -> None:
        self._out.close()  # not left to the garbage collector, which warns, of any test's code
        self._err.close()

    @property
    def out(self) -> str:
        """What it wrote to its standard output so far."""
        return os.pread(self._out.fileno(), 2**20, 0).decode()

    @property
    def err(self) -> str:
        """What it wrote to its standard error so far."""
        return os.pread(self._err.fileno(), 2**20, 0).decode()

    @property
    def output(self) -> str:
        """Both."""
        return self.out + self.err

    def poll(self) -> int | None:
        """Return its exit status, minus the signal that killed it, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> int:
        """Return its exit status once it has ended."""
        wait_until(lambda: self.poll() is not None, self)
        assert self._code is not None
        return self._code

    def wait_paused(self) -> None:
        """Return once SIGSTOP has stopped it."""

        def paused() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid and not os.WIFSTOPPED(status):
                self._code = os.waitstatus_to_exitcode(status)
                pytest.fail(f"ended with {self._code} before its pause\n{self.output}")
            return bool(pid)

        wait_until(paused, self)

    def send(self, *signals: int) -> None:
        """Send it signals, in order."""
        for signum in signals:
            os.kill(self.pid, signum)

    def kill(self) -> int:
        """Kill it if it runs; return its exit status, in any case."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert self._code is not None
        return self._code


def wait_until(condition: Callable[[], object], process: Process | None = None) -> None:
    """Poll until the condition holds; at the deadline kill the process and fail."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            if process is not None:
                process.kill()
            pytest.fail(f"nothing within {DEADLINE_S} s\n{process.output if process else ''}")
        time.sleep(0.002)


@functools.cache
def _warm_up() -> None:
    """Do a run and a sweep's figure in this process, so that no fork has to import and set up.

    An optimiser's first step alone imports for seconds, and so do the statistics of a figure. The
    run is as short as the tests' own, whose defaults are then composed already.
    """
    from hydra.core.utils import JobRuntime

    from memrl.commands import plot, report, start, sweep, train  # noqa: F401
    from memrl.experiment import run
    from memrl.run.command_line import standard_config
    from memrl.run.config import compose_config
    from memrl.sweep import child, compose, launch  # noqa: F401

    JobRuntime.instance().set("name", "memrl")  # as a command does
    standard_config()

    overrides = ["device=cpu", "env.length=5", "budget=smoke", "budget.train_episodes=1"]
    with tempfile.TemporaryDirectory() as cwd, contextlib.chdir(cwd), torch.random.fork_rng():
        folder = run(compose_config(overrides))
        with contextlib.redirect_stdout(io.StringIO()):
            start.draw_scores(folder.parent)


def _execute(calls: Sequence[Callable[[], object]], cwd: Path, out: int, err: int) -> NoReturn:
    """Be a new process, although a fork: call these, one after the other, and end."""
    code = 1
    gc.freeze()  # what the parent imported need not be searched for garbage
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for signum in (signal.SIGTERM, signal.SIGUSR2, signal.SIGALRM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        os.chdir(cwd)
        logging.getLogger("memrl").handlers.clear()
        code = _exit_status(calls)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_status(calls: Sequence[Callable[[], object]]) -> int:
    """Call these; return what Python would make of the way they end."""
    try:
        for call in calls:
            call()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _command_line() -> None:
    from hydra.core.global_hydra import GlobalHydra

    from memrl.commands.train import main

    GlobalHydra.instance().clear()
    main()


@functools.cache
def _train_composed(overrides: tuple[str, ...]) -> Callable[[], None]:
    """Return what the command line does after Hydra."""
    from memrl.experiment import run
    from memrl.run.command import remember_command
    from memrl.run.outcome import exit_status, log_to_console

    config = compose_quickly(overrides)

    def train() -> None:
        remember_command(overrides)
        log_to_console()
        sys.exit(exit_status(lambda: run(config) and 0))

    return train


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start the command line: ``launch(*arguments, cwd=tmp_path, **options) -> Process``."""
    processes: list[Process] = []

    def start(*arguments: str, cwd: Path = tmp_path, **options: Any) -> Process:
        processes.append(Process(arguments, cwd, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


class ForkedRun:
    """What a sweep's pool needs of ``subprocess.Popen``: a run in a fork of the sweep's process.

    Like a new interpreter it begins with the ``sitecustomize.py`` of ``PYTHONPATH``.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path,
        env: dict[str, str],
        stdin: int,
        stdout: IO[bytes],
        stderr: int,
    ) -> None:
        from memrl.sweep.child import main

        *options, folder, index = command
        assert options[1:] == ["-P", "-u", "-m", "memrl.sweep.child"]
        assert stdin == subprocess.DEVNULL and stderr == subprocess.STDOUT
        self.returncode: int | None = None
        sys.stdout.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
            self.pid = os.fork()
        if self.pid == 0:
            output = stdout.fileno()
            calls = [lambda: _begin(command, env), lambda: sys.exit(main(folder, index))]
            _execute(calls, cwd, output, output)

    def poll(self) -> int | None:
        """Return its exit status, minus the signal that killed it, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""
        self.send_signal(signal.SIGTERM)


def _begin(command: Sequence[str], env: dict[str, str]) -> None:
    """Do what Python does at its start, as far as runs depend on it."""
    os.environ.clear()
    os.environ.update(env)
    sys.orig_argv = [*command]
    paths = [Path(path, "sitecustomize.py") for path in env["PYTHONPATH"].split(os.pathsep)]
    for path in [path for path in paths if path.exists()][:1]:
        exec(path.read_text(), {"__file__": str(path)})


@pytest.fixture
def forked_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of ``hydra/launcher=local`` import nothing: seconds for each of them."""
    from memrl.sweep import pool

    class Subprocess:
        DEVNULL, STDOUT, Popen = subprocess.DEVNULL, subprocess.STDOUT, ForkedRun

    monkeypatch.setattr(pool, "subprocess", Subprocess)


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of the original program, imported: eleven runs, two of them stopped."""
    from memrl.results.original import find_logs, import_log

    output = tmp_path_factory.mktemp("originals") / "original"
    for log in find_logs(GOLDEN / "original_log"):
        import_log(log, output)
    return output


# --- configs -------------------------------------------------------------------------------------


@functools.cache
def _composer() -> Any:
    """Every further config takes a tenth of the time in which Hydra composes one from files."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from memrl.run.config import CONF
    from memrl.sweep.compose import Composer

    with initialize_config_dir(str(CONF), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        assert running is not None
        master = running.compose_config("config", [], run_mode=RunMode.MULTIRUN)
        return Composer(GlobalHydra.instance().config_loader(), master)


def compose_quickly(overrides: Sequence[str]) -> Any:
    """What ``compose_config`` gives: tests/test_sweep_compose.py compares the two."""
    from hydra.core.utils import JobRuntime

    composer = _composer()
    # A command that ran in this process may have set another one, in a global of Hydra's.
    JobRuntime.instance().set("name", composer.master.hydra.job.name)
    return composer(list(overrides))


# --- moments of a run, exact ones ----------------------------------------------------------------


def file_events(do: Callable[[str], object]) -> Callable[[], None]:
    """Return a ``first`` that has ``do`` called just before each operation on a run's files.

    Operations are named like "open train.csv", "rename checkpoint.prev.pt" (the new name),
    "remove lock", "link lock", "mkdir runs"; a temporary file is named without its number.
    """
    # After the prefix: the argument that says which file is meant.
    kinds = {"open": 0, "os.rename": 1, "os.link": 1, "os.remove": 0, "os.mkdir": 0}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in kinds and isinstance(path := arguments[kinds[event]], str | os.PathLike):
            if "outputs/" in str(path):
                name = re.sub(r"\.[0-9a-f]+\.tmp$", ".tmp", Path(path).name)
                do(f"{event.removeprefix('os.')} {name}")

    return lambda: sys.addaudithook(hook)


def at(event: str, signum: int, nth: int = 1) -> Callable[[], None]:
    """Return a ``first`` by which the process sends itself a signal before the n-th such event."""
    seen = 0

    def count(name: str) -> None:
        nonlocal seen
        seen += name == event
        if name == event and seen == nth:
            os.kill(os.getpid(), signum)

    return file_events(count)


def after(events: int, signum: int) -> Callable[[], None]:
    """Return a ``first`` by which the process sends itself a signal after so many events."""
    seen = 0

    def count(name: str) -> None:
        nonlocal seen
        seen += 1
        if seen == events + 1:
            os.kill(os.getpid(), signum)

    return file_events(count)


# --- what waits for a device ---------------------------------------------------------------------

SYNCS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique")


class NoSync(TorchDispatchMode):
    """Refuses every operation whose result the host would have to wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith(SYNCS):
            raise AssertionError(f"{name} waits for the device")
        if name == "index" and any(i.dtype == torch.bool for i in args[1] if i is not None):
            raise AssertionError("indexing with a mask waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_sync(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("waits for the device")

    for name in ("numpy", "tolist", "item", "cpu", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    with NoSync():
        yield
