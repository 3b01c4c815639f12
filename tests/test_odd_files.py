"""Whatever a sweep's folder holds, every tool goes on for the other runs."""

import argparse
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from made import make_run, make_sweep

from memrl.commands import export, plot, report, start, sweep
from memrl.results.runs import load
from memrl.run.files import parse_yaml
from memrl.run.outcome import exit_status
from memrl.run.session import already_done
from memrl.sweep.states import State, read_sweep

BOMB = "a: &a [x, x, x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}]\n"
    for before, name in zip("abcdefghijklmn", "bcdefghijklmno", strict=True)
)

Oddity = Callable[[Path], object]


def put(name: str, content: str | bytes) -> Oddity:
    """Return what replaces a file of a run."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def link(name: str, target: str) -> Oddity:
    def replace(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return replace


def other(name: str, make: Callable[[Path], object]) -> Oddity:
    def replace(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return replace


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        server.bind(path.name)
        os.chdir(before)


def status(**fields: object) -> Oddity:
    """Return what changes fields of a run's status."""

    def change(folder: Path) -> None:
        path = folder / "status.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def config(**keys: object) -> Oddity:
    """Return what changes keys of a run's config; JSON is YAML."""

    def change(folder: Path) -> None:
        path = folder / "config.yaml"
        path.write_text(json.dumps(parse_yaml(path.read_bytes()) | keys))

    return change


# What happens to one run; whether it is then listed as unreadable.
ODDITIES: list[tuple[Oddity, bool]] = [
    *[(other(name, os.mkfifo), name != "train.csv") for name in ("status.json", "config.yaml")],
    (other("eval.csv", os.mkfifo), False),
    (other("lock", os.mkfifo), False),
    (link("status.json", "/dev/zero"), True),
    (link("config.yaml", "/dev/zero"), True),
    (link("eval.csv", "/dev/zero"), False),
    (link("status.json", "status.json"), True),
    (other("status.json", Path.mkdir), True),
    (other("config.yaml", listen), True),
    (put("status.json", b"\0" * 2**21), True),
    (put("status.json", ""), True),
    (put("status.json", "[]"), True),
    (put("status.json", "[" * 100_000), True),
    (put("status.json", '{"a":' * 500 + "1" + "}" * 500), True),
    (put("status.json", b"\xff\xfe"), True),
    (status(updated=1e300), True),
    (status(updated=10**400), True),
    (status(updated=float("nan")), True),
    (status(pid=-1), True),
    (status(host=["a"]), True),
    (status(host="\x1b]0;title\x07"), False),
    (status(versions=[1]), True),
    (status(versions={"torch": {"a": [1]}}), False),
    (status(state=["done"]), True),
    (status(state="lost in space", cause="=cmd|' /C calc'!A0"), False),
    (status(progress=1e-320, env_steps=10, seconds=1e300), False),
    (status(eta_s=1e300, last_return="x", job_id=[1], attempt={}), False),
    (put("config.yaml", BOMB), True),
    (put("config.yaml", "a: &a [*a]"), True),
    (put("config.yaml", "[" * 100_000), True),
    (put("config.yaml", "seed: !!set {a: null}"), True),
    (put("config.yaml", "a: !!binary aGk="), True),
    (put("config.yaml", "a: !!bool x"), True),
    (put("config.yaml", "{}"), False),
    (config(encoder=None), True),
    (config(env=None), True),
    (config(env={"name": ["a"], "length": {"x": 1}}), False),
    (config(seed=[1]), False),
    (config(seq_model={"name": "\ud800"}), True),
    (config(seq_model={"name": "\x1b[2J$x^{$"}), False),
    (config(sweep="2020-01-01", seed="=1+1"), False),
    (put("eval.csv", "env_steps,eval/return\ninf,nan\n1e308,1e308\n-1e308,-inf\n"), False),
    (put("eval.csv", ",\n,\n"), False),
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four good runs and many odd ones."""
    cwd = tmp_path_factory.mktemp("odd")
    folder = make_sweep(cwd, (5,), seeds=2)
    for n, (make_odd, _) in enumerate(ODDITIES):
        make_odd(make_run(cwd, [0.5, 0.6], f"seed={100 + n}", "sweep=made"))
    name = os.fsdecode(b"not \xff utf-8")
    make_run(cwd, [0.5], "seed=99", "sweep=made").rename(folder / name)
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "pipe")
    return folder


def test_odd_runs_are_listed_with_their_reasons(odd: Path) -> None:
    states = {run.name: run for run in load(odd)}
    shown = {run.name: run for run in read_sweep(odd).runs}
    for n, (_, unreadable) in enumerate(ODDITIES):
        (name,) = [name for name in states if name.endswith(f"seed={100 + n}")]
        assert (states[name].state == "unreadable") == unreadable, (n, states[name])
        assert states[name].cause or not unreadable
        assert (shown[name].state == State.UNREADABLE) <= unreadable, n
    assert sum(run.state == "done" and "seed=10" not in run.name for run in states.values()) >= 5
    assert not already_done(odd / "nothing", {})


def test_every_tool_goes_on_for_the_others(
    odd: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(odd.parents[1])
    folder = "outputs/made"

    def run(command: object, *arguments: str) -> str:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)  # type: ignore[attr-defined]
        args = parser.parse_args(list(arguments))
        result = exit_status(lambda: command.run(args))  # type: ignore[attr-defined]
        out, err = capfd.readouterr()
        assert result == 0, (arguments, err)
        return out

    assert "seed=0" in run(sweep, "status", folder)
    rows = json.loads(run(sweep, "status", folder, "--json"))["runs"]
    assert len(rows) > len(ODDITIES)
    run(sweep, "logs", folder, "tmaze_passive-5,dqn,lstm,seed=0")
    run(sweep, "cancel", folder)
    assert "gpt" in run(plot, folder, "--format", "png")
    run(report, folder)
    run(export, folder, "--output", "all.csv")
    run(export, folder, "--output", "train.csv", "--table", "train", "--last")
    start.write_table(read_sweep(Path(folder)))
    text = Path("all.csv").read_text()
    assert "'=cmd|" in text and ",=cmd|" not in text
