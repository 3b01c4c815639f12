"""Log folders of the original program: what they say becomes runs, and nothing they hold runs."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from made import make_config, make_run

from memrl.__main__ import main
from memrl.experiment import closing, make_env
from memrl.results import original
from memrl.results.original import Log, import_log, read_flags, read_log
from memrl.results.paper import EXTRA_STEPS
from memrl.results.runs import Run, labels, load, varying
from memrl.results.scores import PROTOCOLS, score
from memrl.results.text import left_out
from memrl.run.outcome import Failure

LOGS = GOLDEN / "original_log"
LSTM1 = LOGS / "tmaze_passive_L10_lstm_ep600_seed1"
LSTM2 = LOGS / "tmaze_passive_L10_lstm_ep600_seed2"
GPT = LOGS / "tmaze_passive_L10_gpt_ep600_seed1"
ACTIVE = LOGS / "tmaze_active_L5_gpt_ep1500_seed1"
VISUAL = LOGS / "visual_match_L1_lstm64_batch24_ep4000_stopped_seed1"
FOLDERS = [LSTM1, LSTM2, GPT, ACTIVE, VISUAL]
every_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)

DQN = {"name": "dqn", "gamma": 0.99, "tau": 0.005, "lr": 3e-4, "hidden_dims": [256, 256]}
GPT1 = {"name": "gpt", "n_layer": 1, "n_head": 1, "position": "sine"}
UNKNOWN = {
    "state": "stopped",
    "cause": "its planned number of steps is not known",
    "env_steps": 6710,
}
TMAZE_BUDGET = {"warmup_episodes": 10, "eval_every": 10, "eval_episodes": 10}


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """Copy a folder: ``copy(of)``."""

    def make(of: Path = LSTM1) -> Path:
        return Path(shutil.copytree(of, tmp_path / of.name))

    return make


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refused(path: Path) -> None:
    """A file of flags is refused in one line that names it."""
    with pytest.raises(Failure) as caught:
        read_flags(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and str(path) in message


def imported(folder: Path, tmp_path: Path) -> Run:
    """The run that a log folder becomes, as results read it."""
    (run,) = load(import_log(folder, tmp_path / "outputs" / "original"))
    return run


# What the folders say ------------------------------------------------------------------------


@every_folder
def test_every_folder_reads(folder: Path) -> None:
    log = read_log(folder)
    for table in (log.eval, log.train):
        assert {len(column) for column in table.values()} == {len(table["env_steps"])}
        assert (np.diff(table["env_steps"]) > 0).all()
        known = table.keys() - {"eval/success", "updates"}
        assert all(np.isfinite(table[name]).all() for name in known)
    rows = len((folder / "progress.csv").read_text().splitlines()) - 1
    assert len(log.eval["env_steps"]) + len(log.train["env_steps"]) == rows


def ours(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in read_log(folder).config.items() if key != "original"}


def test_config_has_our_names() -> None:
    assert ours(LSTM2) == {
        "env": {"name": "tmaze_passive", "length": 10, "distract_reward": 0.0},
        "algo": DQN,
        "seq_model": {"name": "lstm", "n_layer": 1, "hidden_dim": 128},
        "seed": 2,
        "batch_size": 64,
        "updates_per_step": 0.25,
        "budget": {"train_episodes": 600, **TMAZE_BUDGET},
    }
    assert ours(ACTIVE) == {
        "env": {"name": "tmaze_active", "length": 5, "distract_reward": 0.0},
        "algo": DQN,
        "seq_model": GPT1,
        "dropout": 0.1,
        "seed": 1,
        "batch_size": 64,
        "updates_per_step": 0.25,
        "budget": {"train_episodes": 1500, **TMAZE_BUDGET},
    }
    assert ours(VISUAL) == {
        "env": {"name": "visual_match", "length": 1},
        "algo": {**DQN, "name": "sacd", "freeze_critic": True},
        "seq_model": {"name": "lstm", "n_layer": 1, "hidden_dim": 64},
        "seed": 1,
        "batch_size": 24,
        "updates_per_step": 0.25,
        "budget": {
            "train_episodes": 4000,
            "warmup_episodes": 10,
            "eval_every": 50,
            "eval_episodes": 20,
        },
    }


@pytest.mark.parametrize("folder", [LSTM1, GPT, VISUAL], ids=["lstm", "gpt", "visual_match"])
def test_config_keys_are_those_of_our_own_configs(folder: Path) -> None:
    from omegaconf import OmegaConf

    from memrl.run.config import compose_config

    config = ours(folder)
    options = [config["env"]["name"], config["algo"]["name"], config["seq_model"]["name"]]
    groups = zip(("env", "algo", "seq_model"), options, strict=True)
    known = OmegaConf.to_container(compose_config([f"{k}={v}" for k, v in groups]), resolve=False)
    assert isinstance(known, dict)
    for key, value in config.items():
        assert key in known
        if isinstance(value, dict):
            assert value.keys() <= known[key].keys()


@pytest.mark.parametrize(
    ("folder", "total"), [(LSTM1, 6_710), (GPT, 6_710), (ACTIVE, 12_080), (VISUAL, 124_310)]
)
def test_planned_steps_count_the_random_episodes(folder: Path, total: int, tmp_path: Path) -> None:
    assert imported(folder, tmp_path).total_env_steps == total


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        (LSTM1, [-0.05, 0.00, 0.34, 1.00, 1.00, 1.00, 1.00]),
        (LSTM2, [-0.25, 0.55, 0.47, 0.35, 0.58, 1.00, 1.00]),
        (GPT, [0.05, 0.38, 0.47, 0.45, 0.89, 1.00, 1.00]),
    ],
    ids=["lstm-1", "lstm-2", "gpt-1"],
)
def test_returns_are_the_known_ones(folder: Path, expected: list[float]) -> None:
    """Means over the evaluations in the 600 steps before a step."""
    table = read_log(folder).eval
    steps, returns = table["env_steps"], table["eval/return"]
    means = [
        returns[(steps > end - 600) & (steps <= end)].mean()
        for end in (1000, 2000, 3000, 4000, 5000, 6000, 6710)
    ]
    np.testing.assert_allclose(means, expected, atol=0.005 + 1e-9)


def test_success_is_the_known_one_in_visual_match() -> None:
    expected = """.25 .40 .25 .10 .10 .55 .65 .50 .25 .40 .25 .35 .00 .00 .35 .20 .20 .25 .15"""
    assert read_log(VISUAL).eval["eval/success"].tolist() == list(map(float, expected.split()))


@pytest.mark.parametrize("folder", [LSTM1, GPT, ACTIVE], ids=["lstm", "gpt", "active"])
def test_success_is_nan_in_tmazes(folder: Path) -> None:
    log = read_log(folder)
    assert len(log.eval["eval/success"]) == len(log.eval["env_steps"]) > 0
    assert np.isnan(log.eval["eval/success"]).all()


def test_first_and_last_rows() -> None:
    log = read_log(LSTM1)
    last = {name: column[-1] for name, column in log.eval.items()}
    assert np.isnan([last.pop("eval/success"), last.pop("updates")]).all()
    assert last == {
        "env_steps": 6710,
        "episodes": 610,
        "eval/return": 1.0,
        "eval/length": 11.0,
        "time/env_steps_per_s": 63.2304,
    }
    first = {name: column[0] for name, column in log.train.items()}
    assert np.isnan(first.pop("updates"))
    assert first == {
        "env_steps": 110,
        "episodes": 10,
        "train/critic_loss": 0.0021,
        "train/q": -0.0826,
        "train/critic_grad_norm": 0.0035,
        "train/critic_seq_grad_norm": 0.0001,
    }


@pytest.mark.parametrize("task", EXTRA_STEPS)
def test_an_episode_has_as_many_extra_steps_as_the_task(task: str) -> None:
    config = make_config(f"env={task}", "env.length=20")
    with closing(make_env(config, 1)) as env:
        assert env.horizon == 20 + EXTRA_STEPS[task]


# Other flags ---------------------------------------------------------------------------------


def with_text(copy: Callable[..., Path], *edits: tuple[str, str], of: Path = LSTM1) -> Log:
    """Read a folder after changes to its flags."""
    folder = copy(of)
    for old, new in edits:
        edit(folder / "flags.txt", old, new)
    return read_log(folder)


def test_unknown_task_is_kept_as_it_is(copy: Callable[..., Path], tmp_path: Path) -> None:
    log = with_text(copy, ("env_type: tmaze_passive", "env_type: pomdp"))
    assert log.config["env"] == {"name": "pomdp", "length": 10, "distract_reward": 0.0}
    assert log.status == UNKNOWN
    assert np.isnan(log.eval["episodes"]).all()
    assert (log.eval["eval/success"] == 0).all()
    edit(tmp_path / LSTM1.name / "flags.txt", "env_type: pomdp", "env_type: tmaze_other")
    log = read_log(tmp_path / LSTM1.name)
    assert log.status == UNKNOWN and np.isnan(log.eval["eval/success"]).all()


@pytest.mark.parametrize("name", ["HopperBLT-V-v0", "'10'", "10.0", "null", "[10]"])
def test_length_is_an_int_or_absent(copy: Callable[..., Path], name: str) -> None:
    log = with_text(copy, ("env_name: 10", f"env_name: {name}"))
    assert log.config["env"] == {"name": "tmaze_passive", "distract_reward": 0.0}
    assert log.status == UNKNOWN


@pytest.mark.parametrize("value", ["'1'", "1.0", "one", "null", "[1]"])
def test_layers_are_an_int_or_absent(copy: Callable[..., Path], value: str) -> None:
    log = with_text(copy, ("n_layer: 1", f"n_layer: {value}"))
    assert log.config["seq_model"] == {"name": "lstm", "hidden_dim": 128}


@pytest.mark.parametrize("value", ["=1.0", "=one", "="])
def test_seed_is_an_int_or_absent(copy: Callable[..., Path], value: str) -> None:
    assert "seed" not in with_text(copy, ("--seed=1", f"--seed{value}")).config


def test_missing_flags_leave_their_keys_out(copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / "flags.txt").write_text("--seed=7\n--start_training=10\n")
    log = read_log(folder)
    assert log.config == {"seed": 7, "budget": {"warmup_episodes": 10}}
    assert log.status == UNKNOWN
    assert len(log.eval["env_steps"]) == 60


@pytest.mark.parametrize(
    ("flag", "name", "frozen"),
    [("--shared_encoder", "sacd", True), ("--noshared_encoder", "sacd_separate", None)],
)
def test_memories_tell_the_two_sacd_apart(
    copy: Callable[..., Path], flag: str, name: str, frozen: bool | None
) -> None:
    algo = with_text(copy, ("--shared_encoder", flag), of=VISUAL).config["algo"]
    assert (algo["name"], algo.get("freeze_critic")) == (name, frozen)


PYBULLET = (
    ("env_type: visual_match", "env_type: pomdp/bullet_v"),
    ("env_name: 1", "env_name: cheetah"),
    ("algo: sacd", "algo: td3"),
    ("train_episodes=4000", "train_episodes=125"),
)


@pytest.mark.parametrize(
    ("flags", "algo"),
    [
        ("--shared_encoder\n--freeze_critic\n--freeze_all", ("td3", "freeze_all")),
        ("--shared_encoder\n--nofreeze_critic\n--freeze_all", ("td3", "freeze_all")),
        ("--shared_encoder\n--freeze_critic\n--nofreeze_all", ("td3", "freeze_critic")),
        ("--shared_encoder\n--nofreeze_critic\n--nofreeze_all", ("td3", "attached")),
        ("--noshared_encoder\n--nofreeze_critic\n--freeze_all", ("td3_separate", None)),
    ],
)
def test_runs_of_pybullet_have_our_names(
    copy: Callable[..., Path], flags: str, algo: tuple[str, str | None]
) -> None:
    shared = ("--shared_encoder\n--freeze_critic", flags)
    config = with_text(copy, *PYBULLET, shared, of=VISUAL).config
    env = {"name": "pybullet_v", "robot": "halfcheetah", "task_keys": ["robot"]}
    assert config["env"] == env and "robot" not in config["original"]
    assert (config["algo"]["name"], config["algo"].get("policy_gradient")) == algo
    assert "freeze_critic" not in config["algo"]
    budget = {"train_episodes": 115, "warmup_steps": 10_000, "eval_every": 50, "eval_episodes": 20}
    assert config["budget"] == budget  # 125 in all


def test_runs_of_pybullet_are_scored_by_the_discounted_returns_too(
    copy: Callable[..., Path], tmp_path: Path
) -> None:
    folder = copy(VISUAL)
    for old, new in PYBULLET:
        edit(folder / "flags.txt", old, new)
    head = "env_steps,critic_loss,rank-1,length,return,return-0.99,return-0.999,FPS"
    rows = ["120000,0.5,9,,,,,", "120000,,,1000.0,1500.0,99.5,700.0,80", "124999,0.25,8,,,,,"]
    (folder / "progress.csv").write_text("\n".join([head, *rows, ""]))
    (run,) = load(import_log(folder, tmp_path / "runs"))
    assert (run.state, run.cause) == ("stopped", "at env step 124,999 of 125,000")
    assert (run.task, run.total_env_steps) == ("pybullet_v halfcheetah", 125_000)
    assert run.train["train/rank_1"].tolist() == [9, 8]
    assert np.isnan(run.eval["episodes"]).all()  # which need not last 1,000 steps
    for metric, value in (("return", 1500), ("return_0.99", 99.5), ("return_0.999", 700)):
        (cell,) = score([run], PROTOCOLS["paper"], f"eval/{metric}")
        assert cell.scores.tolist() == [value] and cell.label == "lstm (original program)"


def test_learning_rates_that_differ_are_left_out(copy: Callable[..., Path]) -> None:
    log = with_text(copy, ("actor_lr: 0.0003", "actor_lr: 0.001"), of=VISUAL)
    assert "lr" not in log.config["algo"]


def test_settings_without_a_counterpart_are_kept(copy: Callable[..., Path], tmp_path: Path) -> None:
    rest = read_log(VISUAL).config["original"]
    assert rest["config_rl.init_temperature"] == 0.1 and rest["config_rl.target_entropy"] is None
    assert not {"config_rl.algo", "shared_encoder", "config_rl.tau"} & rest.keys()
    edit(copy(LSTM1) / "flags.txt", "schedule_end: 0.1", "schedule_end: 0.5")
    runs = [imported(tmp_path / LSTM1.name, tmp_path / "a"), imported(LSTM2, tmp_path / "b")]
    assert varying(runs).keys() == {"original.config_rl.schedule_end", "seed"}
    name = "lstm (original program), schedule_end="
    assert labels(runs) == [f"{name}0.5", f"{name}0.1"]


@pytest.mark.parametrize("folder", [LSTM1, VISUAL], ids=["lstm", "visual_match"])
def test_where_and_how_a_run_was_logged_is_no_setting(
    folder: Path, copy: Callable[..., Path]
) -> None:
    made = copy(folder)
    with open(made / "flags.txt", "a") as file:
        file.write("--save_dir=x\n--run_name=2023+7\n--v=9\n--nochex_assert_multiple_cpu_devices\n")
        file.write("--config_env.env_name=99\n")  # its group has the value that counts
    assert read_log(made).config == read_log(folder).config


# Torn files ----------------------------------------------------------------------------------


def test_torn_last_line_is_left_out(copy: Callable[..., Path]) -> None:
    path = copy() / "progress.csv"
    path.write_bytes(path.read_bytes()[:-9])
    log = read_log(path.parent)
    assert log.status["state"] == "done"
    assert log.eval["env_steps"][-1] == 6600
    assert log.train["env_steps"][-1] == 6710


@pytest.mark.parametrize("garbage", [b"12,0.5", b"\0" * 20, b"\xff\xfe,,,,,,,,", b"a,,,,,,,,"])
def test_rows_before_a_torn_line_are_read(copy: Callable[..., Path], garbage: bytes) -> None:
    path = copy() / "progress.csv"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:301], garbage, *lines[301:]]))
    log = read_log(path.parent)
    assert len(log.eval["env_steps"]) + len(log.train["env_steps"]) == 300
    assert log.status["state"] == "failed" and log.status["progress"] < 0.5
    assert log.status["cause"].startswith("progress.csv, line 302")
    assert len(log.status["cause"].splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"env_steps,crit", b"\0" * 4096])
def test_empty_progress_has_no_rows(copy: Callable[..., Path], content: bytes) -> None:
    path = copy() / "progress.csv"
    path.write_bytes(content)
    log = read_log(path.parent)
    assert {len(column) for column in [*log.eval.values(), *log.train.values()]} == {0}
    assert log.status == {
        "state": "stopped",
        "cause": "at env step 0 of 6,710",
        "progress": 0.0,
        "env_steps": 0,
    }


def test_runs_before_their_first_evaluation_have_training_rows(copy: Callable[..., Path]) -> None:
    path = copy() / "progress.csv"
    path.write_text("env_steps,critic_loss\n110,0.5\n121,0.25\n")
    log = read_log(path.parent)
    assert log.eval.keys() == read_log(LSTM1).eval.keys()
    assert len(log.eval["env_steps"]) == 0
    assert log.train.keys() == {"env_steps", "episodes", "updates", "train/critic_loss"}
    assert log.train["train/critic_loss"].tolist() == [0.5, 0.25]
    assert log.status["cause"] == "at env step 121 of 6,710"


@pytest.mark.parametrize(
    "content", [b"steps,return\n1,2\n", b"env_steps,q\n,2\n", b"\x89PNG\r\n\x1a\n\0\0\n"]
)
def test_other_files_are_no_progress(copy: Callable[..., Path], content: bytes) -> None:
    path = copy() / "progress.csv"
    path.write_bytes(content)
    with pytest.raises(Failure, match=r"progress\.csv has rows without env_steps"):
        read_log(path.parent)
    path.unlink()
    with pytest.raises(OSError, match=r"progress\.csv"):
        read_log(path.parent)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seed=1",
        "\0\0\0",
        "--config_env=[",
        "--config_env=" + "[" * 700,
        "--config_env=!!python/object/apply:os.system [exit]",
        "--config_env=!!python/object/new:os.system [exit]",
        "--config_env=!!python/module:os",
        "--config_env=&a !!python/tuple [*a]",
        "--config_env=&a\n  me: *a\n",
    ],
    ids=lambda text: repr(text[:30]),
)
def test_other_texts_are_no_flags(tmp_path: Path, text: str) -> None:
    path = tmp_path / "flags.txt"
    path.write_text(text)
    refused(path)


def test_names_of_code_in_a_text_are_strings(tmp_path: Path) -> None:
    path = tmp_path / "flags.txt"
    path.write_text("--config_env=f: !!python/name:os.system ''\n--noon\n--x=a=b\n--y=2.5e-05\n")
    assert read_flags(path) == {
        "config_env.f": "os.system",
        "on": False,
        "x": "a=b",
        "y": 2.5e-5,
    }


# Whatever the files hold ---------------------------------------------------------------------


def near(path: Path) -> st.SearchStrategy[bytes]:
    """Any bytes, and a file with a piece replaced, cut out or put in."""
    content = path.read_bytes()
    places = st.tuples(st.integers(0, len(content)), st.integers(0, 3), st.binary(max_size=3))
    edited = places.map(lambda p: content[: p[0]] + p[2] + content[p[0] + p[1] :])
    return st.binary(max_size=200) | edited


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(LSTM1, tmp_path_factory.mktemp("log") / "log"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(flags=near(VISUAL / "flags.txt"))
def test_any_flags_are_read_or_refused(scratch: Path, flags: bytes) -> None:
    path = scratch.with_name("flags.txt")
    path.write_bytes(flags)
    with contextlib.suppress(Failure):
        assert read_flags(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=near(LSTM2 / "progress.csv"))
def test_any_progress_is_read_or_refused(scratch: Path, rows: bytes) -> None:
    (scratch / "progress.csv").write_bytes(rows)
    with contextlib.suppress(Failure):
        log = read_log(scratch)
        assert 0 <= log.status["progress"] <= 1
        for table in (log.eval, log.train):
            assert np.isfinite(table["env_steps"]).all()
            assert {len(column) for column in table.values()} == {len(table["env_steps"])}


# As runs -------------------------------------------------------------------------------------


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """``memrl import-original ...`` in ``tmp_path``: its exit status, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["import-original", *map(str, arguments)])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


Command = Callable[..., tuple[int, str, str]]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_logs_become_runs_and_importing_again_changes_nothing(
    command: Command, tmp_path: Path
) -> None:
    assert command(LOGS) == (0, "outputs/original: 11 runs\n", "")
    before = contents(tmp_path)
    assert {path.name for path in before} == {"config.yaml", "status.json", "eval.csv", "train.csv"}
    assert len(before) == 44
    assert command(LOGS, LSTM1) == (0, "outputs/original: 11 runs\n", "")
    assert contents(tmp_path) == before


@every_folder
def test_a_run_has_all_that_its_log_says(folder: Path, tmp_path: Path) -> None:
    run, log = imported(folder, tmp_path), read_log(folder)
    name = f"{log.config['seq_model']['name']} (original program)"
    assert run.config == {**log.config, "seq_model": {**log.config["seq_model"], "name": name}}
    for read, written in ((run.eval, log.eval), (run.train, log.train)):
        assert list(read) == list(written)
        for key in read:
            np.testing.assert_array_equal(read[key], written[key])
    head = (run.folder / "eval.csv").read_text().split("\n")[0]
    assert head.startswith("env_steps,episodes,updates,eval/return,eval/success,eval/length,time/")
    assert "." not in (run.folder / "train.csv").read_text().split("\n")[1].split(",")[0]


def test_imported_runs_are_scored_and_unfinished_ones_listed(
    command: Command, tmp_path: Path
) -> None:
    command(LOGS)
    runs = load(tmp_path / "outputs")
    table = score(runs, PROTOCOLS["last"])
    scores = {(cell.task, cell.length, cell.label): cell.scores.tolist() for cell in table}
    assert scores == {
        ("tmaze_active", 5, "gpt (original program)"): [pytest.approx(0.51)],
        ("tmaze_active", 5, "lstm (original program)"): [pytest.approx(0.87), pytest.approx(0.51)],
        ("tmaze_passive", 10, "gpt (original program)"): [1.0, 1.0, 1.0],
        ("tmaze_passive", 10, "lstm (original program)"): [1.0, 1.0, 1.0],
        ("visual_match", 1, "lstm (original program)"): [],
    }
    stopped = "stopped: at env step"
    assert left_out(table, runs) == [
        f"{VISUAL.name}: {stopped} 30,287 of 124,310",
        f"{VISUAL.name[:-1]}2: {stopped} 30,318 of 124,310",
    ]


def test_imported_runs_are_a_series_of_their_own_beside_ours(
    command: Command, tmp_path: Path
) -> None:
    command(LSTM1, LSTM2, GPT)
    make_run(tmp_path, [1.0], "seed=1", "sweep=new")
    runs = load(tmp_path / "outputs")
    assert sorted(labels(runs)) == [
        "gpt (original program)",
        "lstm",
        "lstm (original program)",
        "lstm (original program)",
    ]
    assert {run.state for run in runs} == {"done"}


def test_a_log_that_goes_on_is_imported_again(
    command: Command, copy: Callable[..., Path], tmp_path: Path
) -> None:
    folder = copy()
    text = (folder / "progress.csv").read_text()
    (folder / "progress.csv").write_text("".join(text.splitlines(keepends=True)[:301]))
    command(folder)
    assert [run.state for run in load(tmp_path / "outputs")] == ["stopped"]
    (folder / "progress.csv").write_text(text)
    assert command(folder)[0] == 0
    assert [run.state for run in load(tmp_path / "outputs")] == ["done"]


def test_an_import_that_was_interrupted_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = original.write_whole
    for failing in ("status.json", "config.yaml", "eval.csv", "train.csv"):

        def write_or_fail(path: Path, content: bytes, failing: str = failing) -> None:
            if path.name == failing:
                raise OSError(28, "No space left on device", str(path))
            write(path, content)

        monkeypatch.setattr(original, "write_whole", write_or_fail)
        with pytest.raises(OSError):
            import_log(LSTM1, tmp_path / failing)
        monkeypatch.undo()
        (run,) = load(import_log(LSTM1, tmp_path / failing))
        assert (run.state, run.problem) == ("done", None)


@pytest.mark.parametrize("name", ["config.yaml", "notes.txt", "status.json"])
def test_what_is_no_imported_run_is_left_as_it_is(
    name: str, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "outputs" / "original" / LSTM1.name
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps({"state": "done"}))
    before = contents(tmp_path)
    status, out, err = command(LSTM1)
    assert (status, out) == (1, "")
    holds = f"outputs/original/{LSTM1.name} holds something else"
    assert err.splitlines() == [
        f"{LSTM1}: {holds}; delete it, or use --output",
        "error: no log could be imported",
    ]
    assert contents(tmp_path) == before


def test_of_two_logs_of_one_name_the_second_is_refused(
    command: Command, copy: Callable[..., Path], tmp_path: Path
) -> None:
    folder = copy()
    edit(folder / "flags.txt", "--seed=1", "--seed=5")
    status, out, err = command(LSTM1, folder)
    assert (status, out) == (0, "outputs/original: 1 run\n")
    assert f"{LSTM1.name} holds something else; delete it" in err
    assert [run.config["seed"] for run in load(tmp_path / "outputs")] == [1]
    assert command(folder, "--output", "outputs/more")[0] == 0


def test_what_is_no_log_is_named_and_the_rest_goes_on(command: Command, tmp_path: Path) -> None:
    for name in ("empty", "logs/torn", "logs/half"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copytree(LSTM1, tmp_path / "logs" / "good")
    (tmp_path / "logs/torn/flags.txt").write_text("--config_env=: : :")
    (tmp_path / "logs/torn/progress.csv").write_text("env_steps\n")
    (tmp_path / "logs/half/progress.csv").write_text("env_steps\n")
    nothing = "empty: no log here or below"
    assert command("empty") == (2, "", f"error: {nothing}\n")
    status, _, err = command("logs/torn")
    assert (status, err.splitlines()[-1]) == (1, "error: no log could be imported")
    status, out, err = command("empty", "logs")
    assert (status, out) == (0, "outputs/original: 1 run\n")
    *lines, torn = err.splitlines()
    assert lines == [nothing, "No such file or directory: logs/half/flags.txt"]
    assert torn.startswith("logs/torn/flags.txt: no flags can be read (while parsing a block ")
    assert [path.name for path in (tmp_path / "outputs" / "original").iterdir()] == ["good"]


def test_a_folder_that_does_not_exist_is_refused_before_anything_is_written(
    command: Command, tmp_path: Path
) -> None:
    assert command(LSTM1, "nowhere") == (2, "", "error: nowhere: no such folder\n")
    assert not (tmp_path / "outputs").exists()
    assert command()[0] == 2


def test_names_that_end_in_dots_stay_below_the_output(
    command: Command, copy: Callable[..., Path], tmp_path: Path
) -> None:
    (copy() / "inner").mkdir()
    assert command(f"{LSTM1.name}/inner/..")[0] == 0
    assert [path.name for path in (tmp_path / "outputs" / "original").iterdir()] == [LSTM1.name]


def test_the_same_seed_again_is_another_run(tmp_path: Path) -> None:
    for name in ("first", "again"):
        shutil.copytree(LOGS / "tmaze_passive_L10_lstm_ep600_seed1", tmp_path / "logs" / name)
        import_log(tmp_path / "logs" / name, tmp_path / "outputs" / "original")
    assert [run.state for run in load(tmp_path / "outputs" / "original")] == ["done", "done"]
