"""Log folders of the original program: what they say is read, and what they hide does not run."""

from __future__ import annotations

import builtins
import copyreg
import functools
import importlib
import io
import operator
import os
import pickle
import shutil
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrl.results import original
from memrl.results.original import Log, Stub, Unpickler, is_log, read_flags, read_log
from memrl.results.runs import labels, load, varying

GOLDEN = Path(__file__).parent / "golden" / "original_log"
LSTM1 = GOLDEN / "tmaze_passive_L10_lstm_ep600_seed1"
LSTM2 = GOLDEN / "tmaze_passive_L10_lstm_ep600_seed2"
GPT = GOLDEN / "tmaze_passive_L10_gpt_ep600_seed1"
ACTIVE = GOLDEN / "tmaze_active_L5_gpt_ep1500_seed1"
VISUAL = GOLDEN / "visual_match_L1_lstm64_batch24_ep4000_stopped_seed1"
FOLDERS = [LSTM1, LSTM2, GPT, ACTIVE, VISUAL]
every_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
many = settings(max_examples=60, deadline=None, derandomize=True)

DQN = {"name": "dqn", "gamma": 0.99, "tau": 0.005, "lr": 3e-4, "hidden_dims": [256, 256]}
GPT1 = {"name": "gpt", "n_layer": 1, "n_head": 1, "position": "sine"}
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


def refused(read: Callable[[Path], object], path: Path) -> str:
    """Return what reading is refused with: one line that names the file."""
    with pytest.raises(ValueError) as caught:
        read(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and path.name in message
    return message


# What the folders say ------------------------------------------------------------------------


@every_folder
def test_every_folder_reads(folder: Path) -> None:
    log = read_log(folder)
    assert is_log(folder)
    assert log.problem is None
    for table in (log.eval, log.train):
        assert {len(column) for column in table.values()} == {len(table["env_steps"])}
        assert (np.diff(table["env_steps"]) > 0).all()
        assert all(np.isfinite(v).all() for k, v in table.items() if k != "eval/success")
    rows = len((folder / "progress.csv").read_text().splitlines()) - 1
    assert len(log.eval["env_steps"]) + len(log.train["env_steps"]) == rows


@every_folder
def test_either_file_of_flags_gives_the_same_config(
    folder: Path, copy: Callable[..., Path]
) -> None:
    made = copy(folder)
    (made / "flags.txt").unlink()
    pickled = read_log(made).config
    shutil.copy(folder / "flags.txt", made)
    (made / "flags.pkl").unlink()
    assert read_log(made).config == pickled == read_log(folder).config


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
def test_planned_steps_count_the_random_episodes(folder: Path, total: int) -> None:
    assert read_log(folder).total_env_steps == total


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
    assert {name: column[-1] for name, column in log.eval.items() if name != "eval/success"} == {
        "env_steps": 6710,
        "episodes": 610,
        "eval/return": 1.0,
        "eval/length": 11.0,
        "time/env_steps_per_s": 63.2304,
    }
    assert {name: column[0] for name, column in log.train.items()} == {
        "env_steps": 110,
        "train/critic_loss": 0.0021,
        "train/q": -0.0826,
        "train/critic_grad_norm": 0.0035,
        "train/critic_seq_grad_norm": 0.0001,
    }


# Other flags ---------------------------------------------------------------------------------


def with_text(copy: Callable[..., Path], *edits: tuple[str, str], of: Path = LSTM1) -> Log:
    """Read a folder without its pickle, after changes to its text."""
    folder = copy(of)
    (folder / "flags.pkl").unlink()
    for old, new in edits:
        edit(folder / "flags.txt", old, new)
    return read_log(folder)


def test_unknown_task_is_kept_as_it_is(copy: Callable[..., Path]) -> None:
    log = with_text(copy, ("env_type: tmaze_passive", "env_type: pomdp"))
    assert log.config["env"] == {"name": "pomdp", "length": 10}
    assert log.total_env_steps is None
    assert "episodes" not in log.eval
    assert (log.eval["eval/success"] == 0).all()


def test_unknown_tmaze_has_no_success_either(copy: Callable[..., Path]) -> None:
    log = with_text(copy, ("env_type: tmaze_passive", "env_type: tmaze_other"))
    assert log.total_env_steps is None
    assert np.isnan(log.eval["eval/success"]).all()


@pytest.mark.parametrize("name", ["HopperBLT-V-v0", "'10'", "true", "10.0", "null", "[10]"])
def test_length_is_an_int_or_absent(copy: Callable[..., Path], name: str) -> None:
    log = with_text(copy, ("env_name: 10", f"env_name: {name}"))
    assert log.config["env"] == {"name": "tmaze_passive", "distract_reward": 0.0}
    assert log.total_env_steps is None


@pytest.mark.parametrize("value", ["true", "'1'", "1.0", "one", "null", "[1]"])
def test_layers_are_an_int_or_absent(copy: Callable[..., Path], value: str) -> None:
    log = with_text(copy, ("n_layer: 1", f"n_layer: {value}"))
    assert log.config["seq_model"] == {"name": "lstm", "hidden_dim": 128}


@pytest.mark.parametrize("value", ["=True", "=1.0", "=one", "=", ""])
def test_seed_is_an_int_or_absent(copy: Callable[..., Path], value: str) -> None:
    assert "seed" not in with_text(copy, ("--seed=1", f"--seed{value}")).config


def test_missing_flags_leave_their_keys_out(copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / "flags.pkl").write_bytes(pickle.dumps({"seed": 7, "start_training": 10}))
    log = read_log(folder)
    assert log.config == {"seed": 7, "budget": {"warmup_episodes": 10}}
    assert log.total_env_steps is None
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


def test_learning_rates_that_differ_are_left_out(copy: Callable[..., Path]) -> None:
    log = with_text(copy, ("actor_lr: 0.0003", "actor_lr: 0.001"), of=VISUAL)
    assert "lr" not in log.config["algo"]


def test_layers_heads_and_dropout_of_gpt(copy: Callable[..., Path]) -> None:
    edits = ("n_head: 1", "n_head: 4"), ("n_layer: 1", "n_layer: 2"), ("pdrop: 0.1", "pdrop: 0")
    config = with_text(copy, *edits, of=GPT).config
    assert config["seq_model"] == {**GPT1, "n_layer": 2, "n_head": 4}
    assert config["dropout"] == 0


def test_settings_without_a_counterpart_are_kept(copy: Callable[..., Path]) -> None:
    rest = read_log(VISUAL).config["original"]
    assert rest["config_rl.init_temperature"] == 0.1 and rest["config_rl.target_entropy"] is None
    assert not {"config_rl.algo", "shared_encoder", "config_rl.tau"} & rest.keys()
    folder = copy(LSTM1)
    (folder / "flags.pkl").unlink()
    assert varying(load(folder, LSTM1)) == {}
    edit(folder / "flags.txt", "schedule_end: 0.1", "schedule_end: 0.5")
    assert labels(load(folder, LSTM1)) == ["lstm, schedule_end=0.5", "lstm, schedule_end=0.1"]


@pytest.mark.parametrize("folder", [LSTM1, VISUAL], ids=["lstm", "visual_match"])
def test_where_and_how_a_run_was_logged_is_no_setting(
    folder: Path, copy: Callable[..., Path]
) -> None:
    other = read_flags(folder / "flags.pkl") | {"save_dir": "x", "run_name": "2023+7", "v": 9}
    made = copy(folder)
    (made / "flags.pkl").write_bytes(pickle.dumps(other))
    assert read_log(made).config == read_log(folder).config


# Torn files ----------------------------------------------------------------------------------


def test_is_log_needs_progress_and_flags(copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / "flags.pkl").unlink()
    assert is_log(folder)
    (folder / "flags.txt").rename(folder / "flags.pkl")
    assert is_log(folder)
    (folder / "flags.pkl").unlink()
    assert not is_log(folder)
    shutil.copy(LSTM1 / "flags.txt", folder)
    (folder / "progress.csv").unlink()
    assert not is_log(folder)
    assert not is_log(folder / "nowhere")


def test_torn_last_line_is_left_out(copy: Callable[..., Path]) -> None:
    path = copy() / "progress.csv"
    path.write_bytes(path.read_bytes()[:-9])
    log = read_log(path.parent)
    assert log.problem is None
    assert log.eval["env_steps"][-1] == 6600
    assert log.train["env_steps"][-1] == 6710


@pytest.mark.parametrize("garbage", [b"12,0.5", b"\0" * 20, b"\xff\xfe,,,,,,,,", b"a,,,,,,,,"])
def test_rows_before_a_torn_line_are_read(copy: Callable[..., Path], garbage: bytes) -> None:
    path = copy() / "progress.csv"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:301], garbage, *lines[301:]]))
    log = read_log(path.parent)
    assert len(log.eval["env_steps"]) + len(log.train["env_steps"]) == 300
    assert log.problem and "progress.csv, line 302" in log.problem
    assert len(log.problem.splitlines()) == 1


def test_row_without_steps_is_left_out(copy: Callable[..., Path]) -> None:
    path = copy() / "progress.csv"
    path.write_text("env_steps,q,return\n11,0.5,\n,0.5,\n22,,1.0\n")
    log = read_log(path.parent)
    assert (log.eval["env_steps"].tolist(), log.train["env_steps"].tolist()) == ([22], [11])
    assert log.problem == "progress.csv has a row without env_steps"


@pytest.mark.parametrize("content", [b"", b"env_steps,crit", b"\0" * 4096])
def test_empty_progress_has_no_rows(copy: Callable[..., Path], content: bytes) -> None:
    path = copy() / "progress.csv"
    path.write_bytes(content)
    log = read_log(path.parent)
    assert [*map(len, log.eval.values())] == [0, 0] and len(log.train["env_steps"]) == 0
    assert log.problem == "progress.csv is empty"
    assert (log.config, log.total_env_steps) == (read_log(LSTM1).config, 6_710)


def test_header_alone_is_a_run_that_begins(copy: Callable[..., Path]) -> None:
    path = copy() / "progress.csv"
    path.write_text("env_steps,critic_loss\n")
    log = read_log(path.parent)
    assert log.problem is None
    assert log.eval.keys() == {"env_steps", "episodes"}
    assert log.train.keys() == {"env_steps", "train/critic_loss"}


def test_runs_before_their_first_evaluation_have_training_rows(copy: Callable[..., Path]) -> None:
    path = copy() / "progress.csv"
    path.write_text("env_steps,critic_loss\n110,0.5\n121,0.25\n")
    log = read_log(path.parent)
    assert len(log.eval["env_steps"]) == 0
    assert log.train["train/critic_loss"].tolist() == [0.5, 0.25]


def test_absent_columns_are_left_out(copy: Callable[..., Path]) -> None:
    path = copy() / "progress.csv"
    path.write_text("env_steps,return\n110,0.5\n")
    assert read_log(path.parent).eval.keys() == {"env_steps", "episodes", "eval/return"}


@pytest.mark.parametrize("content", [b"steps,return\n1,2\n", b"\x89PNG\r\n\x1a\n\0\0\n"])
def test_other_files_are_no_progress(copy: Callable[..., Path], content: bytes) -> None:
    path = copy() / "progress.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"progress\.csv has no column env_steps"):
        read_log(path.parent)
    path.unlink()
    with pytest.raises(OSError, match=r"progress\.csv"):
        read_log(path.parent)


def test_text_stands_in_for_a_torn_pickle(copy: Callable[..., Path]) -> None:
    path = copy() / "flags.pkl"
    path.write_bytes(path.read_bytes()[:-20])
    assert read_log(path.parent).config == read_log(LSTM1).config


def test_no_flags_are_refused_in_one_line(copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / "flags.pkl").write_bytes(b"torn")
    (folder / "flags.txt").unlink()
    message = refused(read_log, folder)
    assert "flags.pkl" in message and "flags.txt" in message


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
        "--seed=1\n" * 30_000,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_other_texts_are_no_flags(tmp_path: Path, text: str) -> None:
    path = tmp_path / "flags.txt"
    path.write_text(text)
    refused(read_flags, path)


def test_merges_do_not_explode(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 10)}]}}" for i in range(30)]
    (tmp_path / "flags.txt").write_text("--config_env=" + "\n".join(lines))
    refused(read_flags, tmp_path / "flags.txt")


def test_names_of_code_in_a_text_are_strings(tmp_path: Path) -> None:
    path = tmp_path / "flags.txt"
    path.write_text("--config_env=f: !!python/name:os.system ''\n--noon\n--x=a=b\n--y=2.5e-05\n")
    assert read_flags(path) == {
        "config_env": {"f": "os.system"},
        "on": False,
        "x": "a=b",
        "y": 2.5e-5,
    }


# Pickles that would run code -----------------------------------------------------------------


class Lazy:
    """Is pickled as a call of a function, which may be one of these itself."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self) -> None: ...

    def __reduce__(self) -> Any:
        return self.function, self.arguments


class LazyEx(Lazy):
    """The same by another method."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.function, self.arguments


class State:
    """Touches a file when its state is set."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["marker"]).touch()


class Slots:
    """Touches a file when the slots of its state are set."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __getstate__(self) -> Any:
        return None, {"slot": self.marker}

    slot = property(fset=lambda self, value: Path(value).touch())


class New:
    """Touches a file when it is made, unless by ``object.__new__``."""

    marker = ""

    def __new__(cls, marker: str) -> New:
        Path(marker).touch()
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> Any:
        return (), {"marker": self.marker}


class Items(list[str]):
    """Touches files when items are appended."""

    def append(self, item: str) -> None:
        Path(item).touch()

    def extend(self, items: Any) -> None:
        for item in items:
            self.append(item)


class Keys(dict[str, str]):
    """Touches files when items are set."""

    def __setitem__(self, key: str, value: str) -> None:
        Path(key).touch()


def objects(marker: str) -> dict[str, Any]:
    """Objects whose unpickling touches a file."""
    touch, code = f"touch {marker}", f"open({marker!r}, 'w').close()"
    new, items, keys = object.__new__(New), Items(), Keys()
    new.marker = marker
    list.append(items, marker)
    dict.__setitem__(keys, marker, "")
    module = Lazy(importlib.import_module, "os")
    return {
        "system": Lazy(os.system, touch),
        "reduce_ex": LazyEx(os.system, touch),
        "exec": Lazy(builtins.exec, code),
        "eval": Lazy(builtins.eval, code),
        "Popen": Lazy(subprocess.Popen, ["touch", marker]),
        "partial": Lazy(functools.partial(functools.partial(os.system), touch)),
        "call of a call": Lazy(Lazy(functools.partial, Lazy(functools.partial, os.system), touch)),
        "methodcaller": Lazy(operator.methodcaller("touch"), Path(marker)),
        "getattr": Lazy(Lazy(builtins.getattr, module, "system"), touch),
        "map": Lazy(builtins.list, Lazy(builtins.map, os.system, [touch])),
        "setstate": State(marker),
        "slots": Slots(marker),
        "new": new,
        "items": items,
        "keys": keys,
    }


def opcodes(marker: str) -> dict[str, bytes]:
    """Pickles that do the same as no object's pickle does."""
    touch = f"touch {marker}".encode()
    return {
        "GLOBAL": b"cos\nsystem\n(V" + touch + b"\ntR.",
        "INST": b"(V" + touch + b"\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nV" + touch + b"\no.",
        "dotted name": b"\x80\x04V" + b"pathlib\nVos.system\n\x93V" + touch + b"\n\x85R.",
        "beside the flags": b"}Vseed\nI1\nscos\nsystem\n(V" + touch + b"\ntR0.",
        "in a key": b"}cos\nsystem\n(V" + touch + b"\ntRI1\ns.",
        "by the memo": b"cos\nsystem\np7\n0g7\nV" + touch + b"\n\x85R.",
    }


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(map(is_plain, [*value.keys(), *value.values()]))
    if isinstance(value, list):
        return type(value) is list and all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str, bytes)


def attack(path: Path, content: bytes, marker: Path) -> None:
    """Read a pickle which, where it is really unpickled, is seen to touch the marker."""
    made = pickle.loads(content)
    getattr(made.get("x") if isinstance(made, dict) else made, "wait", int)()  # for a process
    assert marker.exists(), "this pickle is harmless"
    marker.unlink()
    path.write_bytes(content)
    try:
        assert is_plain(read_flags(path))
    except ValueError as error:
        assert path.name in str(error)
    assert not marker.exists()


NEED_PROTOCOL_2 = {"new", "items", "keys"}  # copyreg._reconstructor calls no method of theirs
CASES = [(kind, n) for kind in objects("") for n in (0, 2, 5) if n or kind not in NEED_PROTOCOL_2]


@pytest.mark.parametrize(("kind", "protocol"), CASES)
def test_no_pickled_object_runs_code(tmp_path: Path, kind: str, protocol: int) -> None:
    marker = tmp_path / "marker"
    payload = {"seed": 1, "x": objects(str(marker))[kind]}
    attack(tmp_path / "flags.pkl", pickle.dumps(payload, protocol), marker)


@pytest.mark.parametrize("kind", opcodes(""))
def test_no_opcode_runs_code(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    attack(tmp_path / "flags.pkl", opcodes(str(marker))[kind], marker)


def test_no_extension_code_runs_code(tmp_path: Path) -> None:
    """Not even once another unpickler has put the real object into the common cache."""
    marker = tmp_path / "marker"
    copyreg.add_extension("os", "system", 240)
    try:
        attack(tmp_path / "flags.pkl", b"\x82\xf0(Vtouch %b\ntR." % bytes(marker), marker)
    finally:
        copyreg.remove_extension("os", "system", 240)
        copyreg.clear_extension_cache()  # type: ignore[attr-defined]


def test_no_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "hidden_module.py").write_text(f"open({str(marker)!r}, 'w').close()\nx = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    attack(tmp_path / "flags.pkl", b"chidden_module\nx\n.", marker)


def test_objects_that_would_run_code_leave_the_other_flags(tmp_path: Path) -> None:
    path = tmp_path / "flags.pkl"
    path.write_bytes(pickle.dumps({"seed": 1, "x": Lazy(os.system, "exit"), "f": os.getcwd}))
    assert read_flags(path) == {"seed": 1, "x": f"{os.name}.system", "f": f"{os.name}.getcwd"}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "dict"),
        ("builtins", "object"),
        ("copyreg", "_reconstructor"),
        ("collections", "OrderedDict"),
        ("pathlib", "os.system"),
        ("memrl.results.original", "Stub"),
        ("memrl.results.original", "read_log"),
        ("nowhere", "nothing"),
        ("", ""),
        ("os", "\0"),
        ("os", "\ud800"),
        ("os", "system.__globals__"),
        ("__main__", "x" * 10_000),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_find_class_returns_nothing_real(module: str, name: str) -> None:
    unpickler = Unpickler(io.BytesIO())
    found = unpickler.find_class(module, name)
    assert type(found) is type and found.__bases__ == (Stub,)
    assert found is not unpickler.find_class(module, name)
    assert found.name == f"{module}.{name}"
    assert vars(found).keys() == {"name", "__module__", "__doc__"}
    assert {k for k in vars(Stub) if callable(getattr(Stub, k))} == {"__init__", "__setstate__"}
    made = found(1, x=2)
    assert type(made) is found and made.state is None


# Pickles that would not end, or be too large -------------------------------------------------


def pickled(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "flags.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"N.",
        b"].",
        b"}.",
        b"I1\n.",
        b"}",
        b"\x80\x09}.",
        b"\x80\x04X",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff}.",
        b"Pan id\n.",
        b"\x80\x04\x8c\x02idQ.",
        b"\x80\x05\x97.",
        b"\x80\x05\x97\x98.",
        b"cbuiltins\ndict\n.",
        b"}}I1\ns.",  # a dict as key
        b"}NNs(I1\nd.",
        b"I1\n)R.",
        b"I1\n)\x81.",
        b"})b.",
        b"}}Vx\nI1\nsb.",  # the state of a dict
        b"}]}Vx\nI1\ns\x86b.",
        b"cx\ny\n)\x81)R.",  # the call of a stub
        b"cx\ny\n}b.",  # the state of a class
        b"cx\ny\n)\x81]I1\na.",
        b"cx\ny\n)\x81I1\nI1\ns.",
        b"cx\ny\nI1\nI1\n\x92.",
        b"g9\n.",
        b"I" + b"9" * 5_000 + b"\n.",
        b"}Vx\nS'y'\ns.",  # of Python 2
        b"}Vx\n\x8fs.",  # a set
    ],
)
def test_other_pickles_are_no_flags(tmp_path: Path, content: bytes) -> None:
    refused(read_flags, pickled(tmp_path, content))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = (GPT / "flags.pkl").read_bytes()
    for length in range(0, len(whole), 41):
        refused(read_flags, pickled(tmp_path, whole[:length]))


def test_large_file_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps({"seed": 1}).ljust(original.LIMIT, b"\0")
    assert read_flags(pickled(tmp_path, content)) == {"seed": 1}
    refused(read_flags, pickled(tmp_path, content + b"\0"))


ODD = {
    "huge": {"env_name": 10**400},
    "zero": {"env_name": 0},
    "negative": {"env_name": -1},
    "infinite": {"env_name": float("inf")},
    "half a character": {"env_type": "tmaze_passive\ud800"},
    "two lines": {"env_type": "tmaze\npassive"},
    "list": {"env_type": ["tmaze_passive"]},
    "dict": {"env_type": {"tmaze_passive": 1}},
    "nan": {"distract_reward": float("nan"), "env_type": None},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_values_are_no_settings(copy: Callable[..., Path], odd: dict[str, Any]) -> None:
    path = copy() / "flags.pkl"
    env = {"env_type": "tmaze_passive", "env_name": 10} | odd
    path.write_bytes(pickle.dumps({"config_env": env, "train_episodes": 1, "start_training": 1}))
    log = read_log(path.parent)
    assert log.total_env_steps is None
    assert "episodes" not in log.eval
    assert "distract_reward" not in log.config["env"]
    assert log.config["env"].get("name") in (None, "tmaze_passive")


def test_cycles_are_kept(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"seed": 1, "list": []}
    flags["self"] = flags
    flags["list"] += [flags["list"], flags]
    read = read_flags(pickled(tmp_path, pickle.dumps(flags)))
    assert read["self"] is read and read["list"][0] is read["list"] and read["list"][1] is read


def test_config_that_holds_itself_does_not_hang(copy: Callable[..., Path]) -> None:
    fields = b"Vconfig_env\ncx\nConfigDict\n)\x81p1\n}V_fields\n}Venv_name\nI7\nsVme\ng1\nssbs"
    heads = b"Vconfig_rl\n}Vconfig_critic\n}Vhidden_dims\n]p2\ng2\nasss"
    path = copy() / "flags.pkl"
    path.write_bytes(b"}" + fields + heads + b"Vself\ncx\ny\n)\x81p3\n}V_fields\ng3\nsbs.")
    read = read_flags(path)
    assert read["config_env"]["me"] is read["config_env"]
    assert read_log(path.parent).config == {"env": {"length": 7}, "original": {"self": "x.y"}}


def test_shared_parts_do_not_multiply(tmp_path: Path) -> None:
    """Each list holds the one before ten times; written out, the last would have 10**60 items."""
    content = b"]p0\n0" + b"".join(
        b"(" + b"g%d\n" % i * 10 + b"lp%d\n0" % (i + 1) for i in range(60)
    )
    read = read_flags(pickled(tmp_path, content + b"}Vx\ng60\ns."))
    assert len(read["x"]) == 10 and read["x"][0] is read["x"][9]


@pytest.mark.parametrize(
    "content",
    [
        b"}Vx\n" + b"]" * 150_000 + b"a" * 149_999 + b"s.",
        b"}Vx\n" + b")" + b"\x85" * 150_000 + b"s.",
        b"})" + b"\x85" * 150_000 + b"Ns.",  # a deep tuple as a key is hashed
        b"(" * 150_000,
        b"}Vx\ncx\ny\n)\x81p0\n" + b"cx\ny\n)\x81}V_fields\n}Vx\ng0\nssbp0\n" * 5_000 + b"s.",
    ],
    ids=["lists", "tuples", "key", "marks", "stubs"],
)
def test_deep_nesting_is_refused(tmp_path: Path, content: bytes) -> None:
    refused(read_flags, pickled(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        b"Nr" + struct.pack("<I", 10**7) + b".",
        b"\x96" + struct.pack("<Q", 10**8) + b".",
        b"\x8e" + struct.pack("<Q", 10**8) + b".",
        b"B" + struct.pack("<I", 10**8) + b".",
        b"\x8b" + struct.pack("<i", 10**8) + b".",
        b"\x95" + struct.pack("<Q", 10**8) + b".",
    ],
    ids=["memo", "bytearray", "bytes8", "bytes", "long", "frame"],
)
def test_announced_sizes_are_not_allocated(tmp_path: Path, content: bytes) -> None:
    path = pickled(tmp_path, content)
    tracemalloc.start()
    try:
        refused(read_flags, path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


# Whatever the files hold ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def read_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bytes], Log | None]:
    """Read a folder with other content of a file: a log, or None for a refusal."""
    folder = tmp_path_factory.mktemp("log")
    rows = b"".join((LSTM1 / "progress.csv").read_bytes().splitlines(keepends=True)[:20])

    def read(name: str, content: bytes) -> Log | None:
        for path in folder.iterdir():
            path.unlink()
        (folder / "progress.csv").write_bytes(rows)
        (folder / name).write_bytes(content)
        if name == "progress.csv":
            shutil.copy(LSTM1 / "flags.pkl", folder)
        try:
            log = read_log(folder)
        except ValueError as error:
            assert len(str(error).splitlines()) == 1 and name in str(error)
            return None
        for key in ("seed", "batch_size"):
            assert type(log.config.get(key, 0)) is int
        assert type(log.config.get("seq_model", {}).get("n_layer", 0)) is int
        assert log.total_env_steps is None or log.total_env_steps > 0
        for table in (log.eval, log.train):
            assert np.isfinite(table["env_steps"]).all()
            assert {len(column) for column in table.values()} == {len(table["env_steps"])}
        return log

    return read


Reader = Callable[[str, bytes], Log | None]


@st.composite
def mutated(draw: st.DrawFn, path: Path) -> bytes:
    """A file with a few pieces replaced, cut out or put in."""
    content = path.read_bytes()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.integers(0, 3))
        content = content[:start] + draw(st.binary(max_size=3)) + content[end:]
    return content


@many
@given(st.binary(max_size=200))
def test_any_bytes_read_or_are_refused(read_with: Reader, content: bytes) -> None:
    read_with("flags.pkl", content)
    read_with("flags.txt", b"--config_env=" + content)
    read_with("progress.csv", content)


OPCODES = [bytes([code]) for code in pickle._Unpickler.dispatch]  # type: ignore[attr-defined]
PIECES = [
    b"(",
    b"}",
    b"]",
    b")",
    b"Vx\n",
    b"I1\n",
    b"cos\nsystem\n",
    b"V_fields\n",
    b"p1\n",
    b"g1\n",
]


@many
@given(st.lists(st.sampled_from(PIECES * 3 + OPCODES), max_size=40))
def test_any_opcodes_read_or_are_refused(read_with: Reader, codes: list[bytes]) -> None:
    read_with("flags.pkl", b"}Vseed\n" + b"".join(codes) + b".")


@many
@given(mutated(VISUAL / "flags.pkl"))
def test_any_pickle_near_a_real_one_reads_or_is_refused(read_with: Reader, content: bytes) -> None:
    read_with("flags.pkl", content)


@settings(many, max_examples=40)  # the slow one
@given(mutated(VISUAL / "flags.txt"))
def test_any_text_near_a_real_one_reads_or_is_refused(read_with: Reader, content: bytes) -> None:
    read_with("flags.txt", content)


@many
@given(mutated(LSTM2 / "progress.csv"))
def test_any_progress_near_a_real_one_reads_or_is_refused(
    read_with: Reader, content: bytes
) -> None:
    read_with("progress.csv", content)
