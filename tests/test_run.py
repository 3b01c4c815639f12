"""Laws of a run and its folder, held by real processes, real signals and a real full disk.

The first of all: a run that is interrupted anywhere, any number of times, and continued by the
same command ends bit for bit like one that is not. Only columns named ``time/...`` may differ.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Process, after, at, file_events, wait_until
from omegaconf import OmegaConf

from memrl.experiment import build
from memrl.rollout import rollout
from memrl.run import checkpoint, lock, session
from memrl.run import status as status_file
from memrl.run.lock import SILENT_S, locked, this_process
from memrl.run.outcome import Busy, CannotContinue
from memrl.run.signals import NOTICE

FILES = {
    "agent.pt",
    "config.yaml",
    "eval.csv",
    "learning_curve.png",
    "run.log",
    "status.json",
    "train.csv",
}
ALWAYS = "checkpoint_minutes=1e-9"  # a checkpoint at every boundary
OFTEN = "checkpoint_minutes=0.0005"  # at some
SELDOM = "checkpoint_minutes=5"  # only at a signal

Launch = Callable[..., Process]
Reference = Callable[[tuple[str, ...]], Path]


def tiny(seq_model: str, *more: str) -> tuple[str, ...]:
    """The arguments of a run of about a second."""
    width = ["encoder.obs_dim=8", "encoder.action_dim=8"]
    if "hidden_dim" in OmegaConf.load(ROOT / "conf" / "seq_model" / f"{seq_model}.yaml"):
        width = ["seq_model.hidden_dim=8"]
    return (
        *("device=cpu", "env.length=5", "batch_size=4", "algo.hidden_dims=[8]"),
        *("budget=smoke", "budget.train_episodes=10", f"seq_model={seq_model}", *width, *more),
    )


TINY = tiny("lstm")
LEARNING = ("algo.explore_fraction=0.5", "budget.warmup_episodes=3")  # for most of the run
VARIANTS = {  # each way of storing and training; the cells of one class stand for one another
    "many-updates-of-windows": tiny(
        *("gpt", *LEARNING, "context_len=4", "updates_per_step=2", "budget.train_episodes=3"),
        "env.length=[2,5]",  # some episodes are shorter than a window
    ),
    "a-new-arrangement-every-episode": tiny(
        *("gru", "env=visual_match", "env.frames=[2,5,3]", "env.colours=per_episode", "algo=dqn"),
        *("budget.warmup_episodes=3", "num_envs=3"),
    ),
    "separate-memories-and-a-learned-temperature": tiny(
        *("lstm", "env=key_to_door", "env.frames=[4,5,3]", "algo=sacd_separate"),
        *("algo.target_entropy=0.5", "algo.memory_lr=1e-4", "algo.weight_decay=0.1"),
        *("budget.warmup_episodes=3", "budget.train_episodes=5"),
    ),
}


# --- what a folder holds -------------------------------------------------------------------------


def run_in(cwd: Path, sweep: str = "*") -> Path:
    """The folder of the only run below a directory's ``outputs``, or of its only run of a sweep."""
    (folder,) = cwd.glob(f"outputs/{sweep}/[!.]*/")
    return folder


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def status(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "status.json").read_text())
    assert isinstance(content, dict)
    return content


def table(folder: Path, name: str) -> list[list[str]]:
    """A csv file without its ``time/`` columns."""
    with open(folder / name, newline="") as file:
        header, *rows = csv.reader(file)
    keep = [i for i, column in enumerate(header) if not column.startswith("time/")]
    return [[row[i] for i in keep] for row in (header, *rows)]


def weights(folder: Path) -> dict[str, list[Any]]:
    content = torch.load(folder / "agent.pt", weights_only=True)
    return {name: tensor.tolist() for name, tensor in content.items()}


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file's time of change and bytes."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def assert_ended_like(folder: Path, uninterrupted: Path) -> None:
    assert status(folder)["state"] == "done"
    for name in ("train.csv", "eval.csv"):
        assert table(folder, name) == table(uninterrupted, name)
    assert weights(folder) == weights(uninterrupted)
    assert names(folder) == FILES


def assert_one_line(process: Process, *words: str) -> None:
    """It complained in one line, and that contains these words."""
    line = process.err.removesuffix("\n")
    assert line.startswith("error: ") and "\n" not in line, process.err
    for word in words:
        assert word in line


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The folder of an uninterrupted run, by its arguments."""
    done: dict[tuple[str, ...], Path] = {}

    def folder_of(arguments: tuple[str, ...]) -> Path:
        if arguments not in done:
            cwd = tmp_path_factory.mktemp("reference")
            process = Process(arguments, cwd, composed=True)
            assert process.wait() == 0, process.output
            done[arguments] = run_in(cwd)
        return done[arguments]

    return folder_of


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("killed")
    kill = at("open .checkpoint.pt.tmp", signal.SIGKILL, 40)
    process = Process((*TINY, ALWAYS), cwd, kill, composed=True)
    assert process.wait() == -signal.SIGKILL, process.output
    assert names(run_in(cwd)) >= {"checkpoint.pt", "checkpoint.prev.pt", "lock"}
    return cwd


@pytest.fixture
def killed(killed_once: Path, tmp_path: Path) -> Path:
    """The folder of a TINY run killed towards its end, with both checkpoints and its lock."""
    shutil.copytree(killed_once, tmp_path, dirs_exist_ok=True)
    return run_in(tmp_path)


@pytest.fixture
def train(launch: Launch) -> Launch:
    """Start a single run as the command line does once Hydra has composed its config."""
    return functools.partial(launch, composed=True)


# --- the folder of a run that is done ------------------------------------------------------------


def run_py(cwd: Path, *arguments: str, python: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run the command line in a new interpreter: exit status, standard output and error."""
    command = [sys.executable, *python, str(ROOT / "run.py"), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("done")
    code, out, err = run_py(cwd, *TINY)
    assert code == 0, out + err
    return run_in(cwd)


def test_a_new_interpreter_gives_what_a_forked_one_gives(done: Path, reference: Reference) -> None:
    assert_ended_like(done, reference(TINY))


def test_a_run_that_is_done_leaves_these_files(done: Path) -> None:
    assert names(done) == FILES


def test_a_run_has_the_name_of_what_distinguishes_it(done: Path) -> None:
    assert done.parent.name == "runs"
    assert done.name == (
        "tmaze_passive-5,dqn,lstm,algo.hidden_dims=[8],batch_size=4,budget.eval_every=5,"
        "budget.train_episodes=10,seq_model.hidden_dim=8,seed=0"
    )


COLUMNS = {
    "eval.csv": "eval/return eval/success eval/length time/seconds",
    "train.csv": "train/return train/success train/loss train/q train/epsilon train/grad_norm "
    "train/seq_grad_norm time/updates_per_s time/seconds",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns(name: str, done: Path) -> None:
    header = (done / name).read_text().splitlines()[0].split(",")
    assert header == ["env_steps", "episodes", "updates", *COLUMNS[name].split(" ")]


def test_status_keys(done: Path) -> None:
    content = status(done)
    assert list(content) == (
        "id state cause command progress env_steps episodes updates last_return env_steps_per_s "
        "eta_s seconds started updated host pid job_id attempt resume versions"
    ).split(" ")
    expected = {"state": "done", "cause": None, "progress": 1.0, "attempt": 1, "eta_s": 0}
    assert {key: content[key] for key in expected} == expected
    last = [float(cell) for cell in table(done, "eval.csv")[-1][:4]]
    assert [content[k] for k in ("env_steps", "episodes", "updates", "last_return")] == last


def test_the_weights_are_those_that_were_evaluated(done: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(done / "config.yaml"))
    assert isinstance(config, dict)
    fresh = build(config)
    fresh.agent.load_weights(torch.load(done / "agent.pt", weights_only=True))
    header, *rows = table(done, "eval.csv")
    for _ in rows[:-1]:  # earlier evaluations drew from the same generator
        fresh.eval_env.reset()
    episodes, _ = rollout(fresh.eval_env, fresh.agent, explore=False, device=fresh.device)
    mean_return = float((episodes.reward * episodes.mask).sum(0).mean())
    assert dict(zip(header, rows[-1], strict=True))["eval/return"] == repr(mean_return)


def test_a_bad_value_is_refused_for_a_run_that_is_done_too(done: Path, launch: Launch) -> None:
    for bad in ("device=bogus", "checkpoint_minutes=-1", "num_envs=1.0"):
        process = launch(*TINY, bad, cwd=done.parents[2])
        assert process.wait() == 2, bad
        assert_one_line(process, bad.partition("=")[0])


def test_the_same_command_again_changes_nothing_and_imports_no_torch(done: Path) -> None:
    before = contents(done)
    code, out, err = run_py(done.parents[2], *TINY, python=("-X", "importtime"))
    assert code == 0
    result = r"already done: return .* after 20 episodes, 120 env steps, 35 updates in 0:\d\d: "
    assert re.fullmatch(result + re.escape(f"{Path(*done.parts[-3:])}\n"), out)
    assert contents(done) == before
    imported = set(re.findall(r"\| +(\S+)$", err, re.MULTILINE))
    assert "memrl.experiment" in imported
    assert "torch" not in imported


# --- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_at_random_and_continued_is_uninterrupted(
    variant: str, train: Launch, tmp_path: Path, reference: Reference
) -> None:
    arguments = VARIANTS[variant]
    dice = random.Random(variant)
    first = train(*arguments, ALWAYS, first=after(dice.randint(150, 300), signal.SIGKILL))
    assert first.wait() == -signal.SIGKILL

    second = train(*arguments, OFTEN)  # killed from outside, in the midst of anything
    wait_until(lambda: status(run_in(tmp_path))["pid"] == second.pid, second)
    time.sleep(dice.uniform(0, 0.1))
    assert second.kill() in (-signal.SIGKILL, 0)

    last = train(*arguments, OFTEN)
    assert last.wait() == 0, last.output
    assert_ended_like(run_in(tmp_path), reference(arguments))


def test_killed_before_the_first_checkpoint_begins_anew(
    train: Launch, tmp_path: Path, reference: Reference
) -> None:
    process = train(*TINY, first=at("open train.csv", signal.SIGKILL, 5))
    assert process.wait() == -signal.SIGKILL
    assert len((run_in(tmp_path) / "train.csv").read_text().splitlines()) == 4
    again = train(*TINY)
    assert again.wait() == 0
    assert "continuing" not in again.out
    assert_ended_like(run_in(tmp_path), reference(TINY))
    assert status(run_in(tmp_path))["attempt"] == 2


SHORT = tiny("lstm", "budget.train_episodes=2")
MOMENTS = [  # just before the n-th such operation of an attempt
    ("link lock", 1),  # which must not be in the way, empty
    ("open run.log", 1),
    ("rename config.yaml", 1),
    ("rename checkpoint.pt", 1),
    ("link .claim.tmp", 1),  # while it takes over the lock of the one before
    ("rename lock", 1),
    ("rename .claim.tmp", 1),  # takes the right of a process that was killed just there
    ("rename lock", 1),  # with that right
    ("remove .claim.tmp", 1),
    ("rename checkpoint.prev.pt", 1),
    ("rename checkpoint.pt", 2),  # between the two renames
    ("open train.csv", 9),
    ("rename agent.pt", 1),
    ("rename learning_curve.png", 1),
    ("rename status.json", 2),
]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """An uninterrupted run of two episodes, and its operations on files."""
    cwd = tmp_path_factory.mktemp("short")
    show = file_events(lambda name: print(name, file=sys.stderr))
    process = Process((*SHORT, ALWAYS), cwd, show, composed=True)
    assert process.wait() == 0, process.output
    return run_in(cwd), process.err.splitlines()


def test_the_moments_include_every_rename(short: tuple[Path, list[str]]) -> None:
    renames = {event for event in short[1] if event.startswith("rename")}
    assert renames <= {event for event, _ in MOMENTS}


def test_killed_at_every_moment_and_continued_is_uninterrupted(
    train: Launch, tmp_path: Path, short: tuple[Path, list[str]]
) -> None:
    for event, nth in MOMENTS:
        process = train(*SHORT, ALWAYS, first=at(event, signal.SIGKILL, nth))
        assert process.wait() == -signal.SIGKILL, (event, process.output)

    # Once it is done, the same command tidies up.
    process = train(*SHORT, ALWAYS, first=at("remove checkpoint.prev.pt", signal.SIGKILL))
    assert process.wait() == -signal.SIGKILL
    assert status(run_in(tmp_path))["state"] == "done"
    assert names(run_in(tmp_path)) == FILES | {"checkpoint.prev.pt", "lock"}
    last = train(*SHORT, ALWAYS)
    assert last.wait() == 0, last.output
    assert_ended_like(run_in(tmp_path), short[0])


# --- signals -------------------------------------------------------------------------------------

SIGNALS = {  # in this order, on one run; the first comes before anything was played
    signal.SIGTERM: 143,
    signal.SIGHUP: 129,
    signal.SIGINT: 130,
    signal.SIGUSR2: 75,
}


def test_a_signal_stops_the_run_once_it_has_saved(
    launch: Launch, tmp_path: Path, reference: Reference
) -> None:
    rows = 0
    for signum, code in SIGNALS.items():
        nth = 1 if signum == signal.SIGTERM else 4
        process = launch(*TINY, first=at("open train.csv", signal.SIGSTOP, nth))
        process.wait_paused()
        assert status(run_in(tmp_path))["state"] == "running"
        process.send(signum, signal.SIGCONT)
        assert process.wait() == code, process.output
        notice = NOTICE.decode() if signum == signal.SIGINT else ""
        said = f"{notice}stopped by {signum.name}; the same command continues this run\n"
        assert process.err == said
        assert ("continuing at env step" in process.out) == (rows > 1)

        stopped = status(run_in(tmp_path))
        assert (stopped["state"], stopped["cause"]) == ("stopped", f"stopped by {signum.name}")
        expected = {"checkpoint.pt", "config.yaml", "eval.csv"}
        expected |= {"run.log", "status.json", "train.csv"}
        expected |= {"checkpoint.prev.pt"} if signum != signal.SIGTERM else set()
        assert names(run_in(tmp_path)) == expected
        before, rows = rows, len((run_in(tmp_path) / "train.csv").read_text().splitlines())
        assert rows > before or signum == signal.SIGTERM

    again = launch(*TINY)
    assert again.wait() == 0, again.output
    assert_ended_like(run_in(tmp_path), reference(TINY))


def test_a_failed_start_writes_no_log_of_a_run_that_another_process_works_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "memrl")
    try:
        raise RuntimeError("at the start")
    except RuntimeError:
        with locked(tmp_path) as held:
            session.keep_traceback(tmp_path)
            assert not (tmp_path / "run.log").exists()
        session.keep_traceback(tmp_path)
    assert "RuntimeError: at the start" in (tmp_path / "run.log").read_text()
    assert not held.path.exists()
    held.path.mkdir()  # which cannot be read
    assert not held.is_held()


def test_ctrl_c_before_the_run_begins_is_no_traceback(launch: Launch, tmp_path: Path) -> None:
    process = launch(*TINY, first=at("open .lock.tmp", signal.SIGSTOP))
    process.wait_paused()
    process.send(signal.SIGINT, signal.SIGCONT)
    assert process.wait() == 130
    assert process.output == "error: interrupted\n"
    assert names(run_in(tmp_path)) == set()


def test_usr2_calls_the_handler_that_stood_before_when_all_is_saved_and_unlocked(
    train: Launch, tmp_path: Path
) -> None:
    pause = at("open train.csv", signal.SIGSTOP, 6)

    def first() -> None:
        def requeue(signum: int, frame: object) -> None:
            print("requeue:", *sorted(names(run_in(Path.cwd()))))

        signal.signal(signal.SIGUSR2, requeue)
        pause()

    process = train(*TINY, first=first)
    process.wait_paused()
    process.send(signal.SIGUSR2, signal.SIGCONT)
    assert process.wait() == 75
    (called,) = (line for line in process.out.splitlines() if line.startswith("requeue:"))
    assert called == "requeue: checkpoint.pt config.yaml eval.csv run.log status.json train.csv"


# --- a checkpoint that cannot be read ------------------------------------------------------------


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    """Flip a bit of the largest tensor: torch would not notice."""
    with zipfile.ZipFile(path) as archive:
        tensors = [member for member in archive.infolist() if "/data/" in member.filename]
    header = max(tensors, key=lambda member: member.file_size).header_offset
    content = bytearray(path.read_bytes())
    name, extra = struct.unpack_from("<HH", content, header + 26)
    content[header + 30 + name + extra] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [halve, flip, Path.unlink])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: Callable[[Path], None], killed: Path, train: Launch, reference: Reference
) -> None:
    damage(killed / "checkpoint.pt")
    process = train(*TINY)
    assert process.wait() == 0, process.output
    assert "continuing from checkpoint.prev.pt" in process.out
    assert_ended_like(killed, reference(TINY))


def damage_both(folder: Path) -> None:
    flip(folder / "checkpoint.pt")
    zero(folder / "checkpoint.prev.pt")


def lose_rows(folder: Path) -> None:
    halve(folder / "train.csv")


@pytest.mark.parametrize(
    ("damage", "named"), [(damage_both, "checkpoint.pt: archive/data/"), (lose_rows, "train.csv")]
)
def test_a_run_that_cannot_be_continued_says_why_and_is_left_as_it_is(
    damage: Callable[[Path], None], named: str, killed: Path, train: Launch
) -> None:
    damage(killed)
    kept = ("checkpoint.pt", "checkpoint.prev.pt", "train.csv", "eval.csv", "config.yaml")
    before = {name: (killed / name).read_bytes() for name in kept}
    process = train(*TINY, ALWAYS)
    assert process.wait() == 1
    assert_one_line(process, named)
    assert {name: (killed / name).read_bytes() for name in kept} == before
    assert status(killed)["state"] == "failed"
    assert process.err == f"error: {status(killed)['cause']}\n"
    assert "lock" not in names(killed)


def test_a_damaged_checkpoint_never_replaces_a_sound_one(
    killed: Path, train: Launch, reference: Reference
) -> None:
    halve(killed / "checkpoint.pt")
    process = train(*TINY, ALWAYS, first=at("rename checkpoint.pt", signal.SIGKILL))
    assert process.wait() == -signal.SIGKILL  # its new checkpoint has not got its name yet
    last = train(*TINY)
    assert last.wait() == 0, last.output
    assert_ended_like(killed, reference(TINY))


def test_every_bit_that_flips_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    """In an archive of an older version a bit of its padding may flip unnoticed."""
    state, config = {"weight": torch.arange(7.0), "bias": torch.arange(3)}, {"seed": 0, "x": None}
    path, dice = tmp_path / "agent.pt", random.Random(0)
    with locked(tmp_path) as held:
        checkpoint.save_weights(held, config, state)
    new = path.read_bytes()
    torch.save(state, path)
    for content in (new, path.read_bytes()):
        size = 8 * len(content)
        flips = [(bit // 8, bytes([content[bit // 8] ^ 1 << bit % 8])) for bit in range(size)]
        pages = [(start, bytes(n)) for n in (16, 512) for start in range(0, len(content) - n, 128)]
        unnoticed = 0
        for start, other in (*dice.sample(flips, 400), *pages):
            damaged = content[:start] + other + content[start + len(other) :]
            path.write_bytes(damaged)
            try:
                loaded = checkpoint.load_weights(tmp_path, config)
            except CannotContinue as error:
                assert "agent.pt" in str(error)
                continue
            unnoticed += damaged != content
            assert all(torch.equal(loaded[name], state[name]) for name in state)
        assert (unnoticed == 0) == (content is new)


def test_a_checkpoint_that_does_not_fit_the_run_is_refused_in_one_line(
    killed: Path, train: Launch, reference: Reference
) -> None:
    newest, other = killed / "checkpoint.pt", killed.with_name(f"{killed.name[:-1]}1")
    shutil.copytree(killed, other)
    edit(other / "config.yaml", "seed: 0\n", "seed: 1\n")
    process = train(*TINY, "seed=1")
    assert process.wait() == 1
    assert_one_line(process, f"{other.name}/checkpoint.pt is of another run", "seed: 0 -> 1")

    def replace(*keys: str, value: object) -> None:
        part = state = torch.load(killed / "checkpoint.prev.pt", weights_only=True)
        for key in keys[:-1]:
            part = part[key]
        part.pop(keys[-1])
        part |= {} if value is None else {keys[-1]: value}
        torch.save(state, newest)

    before = (killed / "train.csv").read_bytes()
    for keys, value in (
        (("csv_sizes", "eval"), None),
        (("trainer", "agent"), None),
        (("trainer", "replay", "reward"), torch.zeros(1)),
    ):
        replace(*keys, value=value)
        process = train(*TINY)
        assert process.wait() == 1, keys
        assert_one_line(process, "checkpoint.pt: it does not hold what this version expects")
        assert (killed / "train.csv").read_bytes() == before

    torch.save(torch.load(killed / "checkpoint.prev.pt", weights_only=True), newest)
    last = train(*TINY)  # from an archive as older versions wrote it
    assert last.wait() == 0, last.output
    assert "continuing at env step" in last.out and "damaged" not in last.out
    assert_ended_like(killed, reference(TINY))


def test_broken_weights_are_never_saved(train: Launch, tmp_path: Path) -> None:
    process = train(*TINY, ALWAYS, "algo.lr=1e38")  # the first update gives a finite loss
    assert process.wait() == 1
    assert_one_line(process, "the weights ", "are not finite at env step 60, by update 1")
    saved = torch.load(run_in(tmp_path) / "checkpoint.pt", weights_only=True)
    assert saved["trainer"]["updates"] == 0


# --- done, whatever its status says --------------------------------------------------------------


@pytest.mark.parametrize("said", ["", '{"state": "stopped", "cause": "killed by SIGSEGV"}'])
def test_a_run_whose_weights_are_whole_is_done_and_its_status_is_corrected(
    said: str, reference: Reference, train: Launch, tmp_path: Path
) -> None:
    shutil.copytree(reference(TINY).parents[2], tmp_path, dirs_exist_ok=True)
    folder = run_in(tmp_path)
    before, known = contents(folder), status(folder)
    (folder / "status.json").write_text(said)
    process = train(*TINY)
    assert (process.wait(), process.err) == (0, "")
    assert process.out.startswith("already done: ")
    keys = ("state", "cause", "progress", "env_steps", "episodes", "updates", "last_return")
    assert {key: status(folder)[key] for key in keys} == {key: known[key] for key in keys}
    assert status(folder).keys() == known.keys()
    after = contents(folder)
    assert after.pop("status.json") != before.pop("status.json")
    assert after == before


def test_a_run_that_is_done_and_has_lost_its_weights_says_so_and_is_left_as_it_is(
    reference: Reference, launch: Launch, tmp_path: Path
) -> None:
    shutil.copytree(reference(TINY).parents[2], tmp_path, dirs_exist_ok=True)
    folder = run_in(tmp_path)
    for damage, what in ((flip, "is damaged"), (Path.unlink, "is missing")):
        damage(folder / "agent.pt")
        before = contents(folder)
        process = launch(*TINY)
        assert process.wait() == 1
        assert_one_line(process, f"{folder.name}: the run is done, but agent.pt {what}")
        assert contents(folder) == before
    sweep = launch("-m", *TINY, "sweep=runs")
    assert sweep.wait() == 0, sweep.output
    assert "1 run (1 done); to start: 0" in sweep.out


# --- another config ------------------------------------------------------------------------------


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_folder_with_another_config_is_refused(killed: Path, launch: Launch) -> None:
    edit(killed / "config.yaml", "batch_size: 4\n", "batch_size: 5\n")
    edit(killed / "config.yaml", "  gamma: 0.99\n", "")
    before = contents(killed)
    process = launch(*TINY)
    assert process.wait() == 2
    assert process.out == ""
    assert process.err == (
        f"error: {Path(*killed.parts[-3:])} holds a run with another config (there -> here):\n"
        "  algo.gamma: absent -> 0.99\n"
        "  batch_size: 5 -> 4\n"
    )
    assert contents(killed) == before


def test_a_run_that_is_done_with_another_config_is_refused_too(
    done: Path, launch: Launch, tmp_path: Path
) -> None:
    folder = tmp_path / Path(*done.parts[-3:])
    shutil.copytree(done, folder)
    edit(folder / "config.yaml", "batch_size: 4\n", "batch_size: 5\n")
    before = contents(folder)
    process = launch(*TINY)
    assert process.wait() == 2
    assert "batch_size: 5 -> 4" in process.err
    assert contents(folder) == before


def test_device_checkpoint_minutes_and_logger_may_change(
    killed: Path, launch: Launch, reference: Reference
) -> None:
    edit(killed / "config.yaml", "device: cpu\n", "device: cuda\n")
    edit(killed / "config.yaml", "checkpoint_minutes: 1.0e-09\n", "checkpoint_minutes: 7\n")
    logger = "  _target_: memrl.run.logger.WandB\n  project: memrl\n"
    edit(killed / "config.yaml", "logger:\n  _target_: null\n", f"logger:\n{logger}")
    process = launch(*TINY)
    assert process.wait() == 0, process.output
    assert_ended_like(killed, reference(TINY))
    config = OmegaConf.load(killed / "config.yaml")
    assert (config.device, config.checkpoint_minutes, config.logger._target_) == ("cpu", 5, None)


# --- two processes -------------------------------------------------------------------------------


def lock_of(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "lock").read_text())
    assert isinstance(content, dict)
    return content


def change_lock(folder: Path, **fields: object) -> None:
    (folder / "lock").write_text(json.dumps(lock_of(folder) | fields))


def change_ages(folder: Path, lock: float, updated: float) -> None:
    """Make the lock and the status look as old as that, in seconds."""
    content = status(folder) | {"updated": time.time() - updated}
    (folder / "status.json").write_text(json.dumps(content))
    change_times(folder, lock, updated)


def change_times(folder: Path, lock: float, status: float) -> None:
    for name, age in (("lock", lock), ("status.json", status)):
        os.utime(folder / name, (time.time() - age,) * 2)


def clock_a_day_ahead() -> None:
    now = time.time
    time.time = lambda: now() + 86400


def test_the_lock_tells_whose_it_is(killed: Path) -> None:
    place = ["host", "boot_id", "pid_namespace"]
    assert list(lock_of(killed)) == [*place, "pid", "started", "job_id", "token"]


def test_a_second_process_on_the_same_run_is_sent_away(
    train: Launch, tmp_path: Path, reference: Reference
) -> None:
    working = train(*TINY, first=at("open train.csv", signal.SIGSTOP, 4))
    working.wait_paused()
    before = contents(run_in(tmp_path))
    for first in (None, clock_a_day_ahead):
        second = train(*TINY, first=first)
        assert second.wait() == 3
        assert second.out == ""
        assert_one_line(second, str(run_in(tmp_path).name), f"process {working.pid}")
        assert contents(run_in(tmp_path)) == before
    working.send(signal.SIGCONT)
    assert working.wait() == 0
    assert_ended_like(run_in(tmp_path), reference(TINY))
    assert status(run_in(tmp_path))["attempt"] == 1


def other_process(folder: Path) -> None:
    started = lock.this_process()["started"]  # of this process, which is alive
    change_lock(folder, pid=os.getpid(), started=started - 1000)


def other_boot(folder: Path) -> None:
    own = lock.this_process()
    change_lock(folder, pid=own["pid"], started=own["started"], boot_id="another")
    change_ages(folder, lock=1000, updated=1000)


def other_container(folder: Path) -> None:
    own = lock.this_process()
    change_lock(folder, pid=own["pid"], started=own["started"], pid_namespace="pid:[1]")
    change_ages(folder, lock=1000, updated=1000)


def silent_elsewhere(folder: Path) -> None:
    change_lock(folder, host="elsewhere")
    change_ages(folder, lock=1000, updated=1000)


def silent_elsewhere_by_a_clock_ahead(folder: Path) -> None:
    silent_elsewhere(folder)
    content = status(folder) | {"updated": time.time() + 1e5}
    (folder / "status.json").write_text(json.dumps(content))
    change_times(folder, lock=1000, status=1000)


def torn_long_ago(folder: Path) -> None:
    halve(folder / "lock")
    change_ages(folder, lock=1000, updated=1000)


def empty_since_long_ago(folder: Path) -> None:
    (folder / "lock").write_bytes(b"")
    change_ages(folder, lock=1000, updated=1000)


GONE = [
    other_process,
    other_boot,
    other_container,
    silent_elsewhere,
    silent_elsewhere_by_a_clock_ahead,
    torn_long_ago,
    empty_since_long_ago,
]


@pytest.mark.parametrize("change", GONE)
def test_the_lock_of_a_process_that_is_gone_is_taken_over(
    change: Callable[[Path], None], killed: Path
) -> None:
    """What a run does with it then, those tests show in which a process was killed."""
    change(killed)
    with locked(killed):
        assert lock_of(killed).items() > this_process().items()


def test_the_lock_of_an_older_version_is_judged_like_others(killed: Path) -> None:
    content = lock_of(killed) | {"pid": os.getpid(), "started": this_process()["started"]}
    older = {k: v for k, v in content.items() if k not in ("token", "pid_namespace")}
    (killed / "lock").write_text(json.dumps(older))
    change_times(killed, lock=1000, status=1000)
    with pytest.raises(Busy, match=f"process {os.getpid()}"), locked(killed):
        pass
    (killed / "lock").write_text(json.dumps(older | {"started": 0.0}))
    with locked(killed):
        assert lock_of(killed)["pid"] == os.getpid()


@pytest.mark.parametrize("ahead", [0, 86400])
@pytest.mark.parametrize("ages", [{"lock": 1000, "status": 100}, {"lock": 100, "status": 1000}])
@pytest.mark.parametrize("place", ["host", "boot_id", "pid_namespace"])
def test_the_lock_of_a_process_that_cannot_be_seen_is_respected_for_three_minutes(
    place: str,
    ages: dict[str, float],
    ahead: float,
    killed: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On another host or in another container, whatever the clocks of the two hosts say."""
    change_lock(killed, **{"job_id": "7_1", place: "elsewhere"})
    change_ages(killed, lock=1000, updated=1000)
    change_times(killed, **ages)
    before = contents(killed)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)
    who = rf"host \S+, process {lock_of(killed)['pid']}, job 7_1"
    with pytest.raises(Busy, match=who), locked(killed):
        pass
    assert contents(killed) == before


def test_a_lock_beside_no_status_counts_by_its_age(tmp_path: Path) -> None:
    """As that of a command which submits a sweep, on another login node."""
    owner = this_process() | {"host": "login2"}
    (tmp_path / "lock").write_text(json.dumps(owner))
    with pytest.raises(Busy, match="login2"), locked(tmp_path):
        pass
    old = time.time() - SILENT_S - 1
    os.utime(tmp_path / "lock", (old, old))
    with locked(tmp_path):
        assert lock_of(tmp_path)["pid"] == os.getpid()


def test_a_lock_that_is_just_being_written_is_respected(killed: Path) -> None:
    (killed / "lock").write_text("")
    before = contents(killed)
    with pytest.raises(Busy, match=re.escape(killed.name)), locked(killed):
        pass
    assert contents(killed) == before


def test_a_process_that_finds_a_stale_lock_gives_way_to_one_that_took_it(
    killed: Path, train: Launch, reference: Reference
) -> None:
    slow = train(*TINY, first=at("link .claim.tmp", signal.SIGSTOP))  # it has found it stale
    slow.wait_paused()
    quick = train(*TINY, first=at("open .agent.pt.tmp", signal.SIGSTOP))
    quick.wait_paused()
    slow.send(signal.SIGCONT)
    assert slow.wait() == 3, slow.output
    assert_one_line(slow, f"process {quick.pid}")
    assert lock_of(killed)["pid"] == quick.pid
    quick.send(signal.SIGCONT)
    assert quick.wait() == 0, quick.output
    assert_ended_like(killed, reference(TINY))


def test_a_process_that_is_taking_a_stale_lock_over_is_respected(
    killed: Path, train: Launch, reference: Reference
) -> None:
    dead = train(*TINY, first=at("rename lock", signal.SIGKILL))  # it had the right to
    assert dead.wait() == -signal.SIGKILL
    slow = train(*TINY, first=at("rename lock", signal.SIGSTOP))  # it has that of the dead one
    slow.wait_paused()
    quick = train(*TINY)
    assert quick.wait() == 3, quick.output
    assert_one_line(quick, f"process {slow.pid}")
    slow.send(signal.SIGCONT)
    assert slow.wait() == 0, slow.output
    assert_ended_like(killed, reference(TINY))


def test_a_torn_lock_and_a_torn_right_to_replace_it_are_both_replaced(
    killed: Path, train: Launch, reference: Reference
) -> None:
    """As a loss of power may leave them: empty."""
    empty_since_long_ago(killed)
    dead = train(*TINY, first=at("rename lock", signal.SIGKILL))
    assert dead.wait() == -signal.SIGKILL
    (right,) = killed.glob(".claim.*.tmp")
    right.write_bytes(b"")
    os.utime(right, (1, 1))
    process = train(*TINY)
    assert process.wait() == 0, process.output
    assert_ended_like(killed, reference(TINY))


def test_of_many_processes_at_once_one_holds_the_lock_whoever_is_killed(tmp_path: Path) -> None:
    """Each holds it for a moment, again and again, and some die holding it."""

    def work(seed: int) -> None:
        dice = random.Random(seed)
        while True:
            with contextlib.suppress(Busy), locked(tmp_path):
                alone = tmp_path / f"alone.{os.getpid()}"
                alone.touch()
                if len(list(tmp_path.glob("alone.*"))) > 1:
                    (tmp_path / "two at once").touch()
                time.sleep(dice.uniform(0, 0.002))
                alone.unlink()
                if dice.random() < 0.3:
                    os.kill(os.getpid(), signal.SIGKILL)  # with the lock

    def start(seed: int) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                work(seed)
            finally:
                (tmp_path / "failed").touch()
                os._exit(1)
        return pid

    dice, deaths = random.Random(0), 0
    processes = [start(seed) for seed in range(4)]
    try:
        while deaths < 20:
            pid, _ = os.wait()
            deaths += 1
            processes.remove(pid)
            processes.append(start(4 + deaths))
            time.sleep(dice.uniform(0, 0.01))
    finally:
        for signum in (signal.SIGSTOP, signal.SIGKILL):  # none may go on without the others
            for pid in processes:
                os.kill(pid, signum)
        for pid in processes:
            os.waitpid(pid, 0)
    left = {re.sub(r"\d+$", "", path.name) for path in tmp_path.glob("[!.]*")}
    assert left <= {"lock", "alone."}
    with locked(tmp_path):
        assert not list(tmp_path.glob(".*"))


def test_a_process_that_finds_a_stale_lock_may_meet_a_run_that_is_done(
    killed: Path, train: Launch, reference: Reference
) -> None:
    slow = train(*TINY, first=at("link .claim.tmp", signal.SIGSTOP))
    slow.wait_paused()
    assert train(*TINY).wait() == 0
    slow.send(signal.SIGCONT)
    assert slow.wait() == 0, slow.output
    assert "already done" in slow.out
    assert_ended_like(killed, reference(TINY))


def test_a_run_that_another_process_has_just_done_is_not_done_again(
    train: Launch, tmp_path: Path
) -> None:
    slow = train(*SHORT, first=at("open .lock.tmp", signal.SIGSTOP))  # it was not done a moment ago
    slow.wait_paused()
    assert train(*SHORT).wait() == 0
    result = ("train.csv", "eval.csv", "agent.pt", "status.json")
    before = {name: contents(run_in(tmp_path))[name] for name in result}
    slow.send(signal.SIGCONT)
    assert slow.wait() == 0, slow.output
    assert {name: contents(run_in(tmp_path))[name] for name in result} == before
    assert names(run_in(tmp_path)) == FILES


def on_another_host() -> None:
    socket.gethostname = lambda: "elsewhere"


def test_a_process_that_was_silent_for_too_long_writes_nothing_once_another_took_over(
    train: Launch, tmp_path: Path, reference: Reference
) -> None:
    first = train(*TINY, first=at("open train.csv", signal.SIGSTOP, 4))
    first.wait_paused()
    folder = run_in(tmp_path)
    change_times(folder, lock=SILENT_S + 1, status=SILENT_S + 1)

    def pause() -> None:
        on_another_host()
        at("open train.csv", signal.SIGSTOP, 6)()

    second = train(*TINY, first=pause)
    second.wait_paused()
    before = contents(folder)
    first.send(signal.SIGCONT)
    assert first.wait() == 3, first.output
    assert_one_line(first, folder.name, "lost the run's lock: another process took it over")
    assert contents(folder) == before
    second.send(signal.SIGCONT)
    assert second.wait() == 0, second.output
    assert_ended_like(folder, reference(TINY))


def test_a_process_whose_folder_was_deleted_writes_nothing(
    train: Launch, tmp_path: Path, reference: Reference
) -> None:
    for event, again in (("open train.csv", False), ("open .checkpoint.pt.tmp", True)):
        first = train(*TINY, ALWAYS, first=at(event, signal.SIGSTOP, 4))
        first.wait_paused()
        folder = run_in(tmp_path)
        shutil.rmtree(folder)
        if again:
            second = train(*TINY)
            assert second.wait() == 0, second.output
        first.send(signal.SIGCONT)
        assert first.wait() == 3, first.output
        assert_one_line(first, folder.name, "lost the run's lock: it was deleted")
        assert folder.exists() == again
    assert_ended_like(folder, reference(TINY))


def test_the_status_is_touched_while_the_run_goes_on(train: Launch, tmp_path: Path) -> None:
    def first() -> None:
        status_file.HEARTBEAT_S = 0.02

    process = train(*TINY, "budget.train_episodes=20000", first=first)
    wait_until(lambda: list(tmp_path.glob("outputs/*/*/status.json")), process)
    seen = set()

    def beaten() -> bool:
        content = status(run_in(tmp_path))  # whole at any time
        assert (content["state"], content["pid"]) == ("running", process.pid)
        seen.add(content["updated"])
        return len(seen) == 4

    wait_until(beaten, process)
    assert process.kill() == -signal.SIGKILL
    assert max(seen) <= time.time()


# --- failures ------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_fails_the_run(launch: Launch, tmp_path: Path) -> None:
    process = launch(*TINY, "algo.lr=1e30")
    assert process.wait() == 1
    assert re.fullmatch(
        r"error: train/\w+ is -?(nan|inf) at env step \d+, by update \d+\n", process.err
    )
    failed = status(run_in(tmp_path))
    assert f"error: {failed['cause']}\n" == process.err
    assert failed["state"] == "failed"
    log = (run_in(tmp_path) / "run.log").read_text()
    assert "Traceback" in log and failed["cause"] in log
    assert names(run_in(tmp_path)).isdisjoint({"lock", "agent.pt", "checkpoint.pt"})


def test_outputs_that_cannot_be_made_are_named(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    process = launch(*TINY)
    assert process.wait() == 1
    assert_one_line(process, "outputs/runs")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """``outputs`` on a disk of its own."""
    path = tmp_path / "outputs"
    path.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if mounted.returncode:
        pytest.skip(f"cannot mount a disk to fill: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte; return the file to remove."""
    path = disk / "filler"
    with open(path, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    return path


@pytest.mark.parametrize(
    ("event", "nth", "interval", "named"),
    [
        ("open .config.yaml.tmp", 1, ALWAYS, "config.yaml"),
        ("open train.csv", 2, SELDOM, "train.csv"),
        ("open .checkpoint.pt.tmp", 20, ALWAYS, "checkpoint.pt"),
    ],
)
def test_a_full_disk_is_named_and_loses_nothing(
    event: str,
    nth: int,
    interval: str,
    named: str,
    small_disk: Path,
    train: Launch,
    tmp_path: Path,
    short: tuple[Path, list[str]],
) -> None:
    process = train(*SHORT, interval, first=at(event, signal.SIGSTOP, nth))
    process.wait_paused()
    filler = fill(small_disk)
    process.send(signal.SIGCONT)
    assert process.wait() == 1
    assert_one_line(
        process, f"No space left on device: {Path(*run_in(tmp_path).parts[-3:])}/{named}"
    )
    folder = run_in(tmp_path)
    assert not [name for name in names(folder) if name == "lock" or name.endswith(".tmp")]
    for path in folder.glob("checkpoint*.pt"):
        torch.load(path, weights_only=True)

    filler.unlink()
    last = train(*SHORT, interval)
    assert last.wait() == 0, last.output
    assert_ended_like(folder, short[0])


# --- several runs --------------------------------------------------------------------------------


def test_a_run_that_fails_does_not_stop_the_sweep_and_is_named(
    launch: Launch, tmp_path: Path
) -> None:
    process = launch("-m", *TINY, "sweep=runs", "algo.lr=1e30,1e-3")
    assert process.wait() == 1
    states = {status(path)["state"]: path.name for path in tmp_path.glob("outputs/runs/[!.]*/")}
    assert states.keys() == {"done", "failed"}
    *_, total, line = process.err.splitlines()
    assert total == "1 of 2 runs are not done:"
    assert line.startswith(f"  {states['failed']}: failed: train/")
    assert "at env step" in line
    assert "Traceback" not in process.output


@pytest.mark.parametrize("before", ["{", "[]", '{"versions": null, "attempt": "two"}'])
def test_a_status_that_says_nonsense_is_begun_anew(before, tmp_path):
    (tmp_path / "status.json").write_text(before)
    status = status_file.Status(tmp_path, {"torch": "2.13"})
    assert status.fields.attempt == 1
    assert status.fields.versions == {"torch": "2.13", "changed": []}
