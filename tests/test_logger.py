"""Where rows go: what the csv files, TensorBoard's and W&B's hold, also after an interruption."""

import csv
import errno
import importlib
import json
import logging
import math
import multiprocessing
import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest
from conftest import at, wait_until

from memrl import experiment
from memrl.run import config, logger, session
from memrl.run.lock import Lock
from memrl.run.logger import TensorBoard, WandB, shorten
from memrl.run.outcome import CannotContinue, ConfigError
from memrl.run.status import Status, record_end
from memrl.run.tables import CsvTables

TINY = ["device=cpu", "env.length=5", "batch_size=4", "seq_model.hidden_dim=8"]
TINY += ["algo.hidden_dims=[8]", "budget=smoke"]


def read(path):
    """Rows of a csv file, as floats."""
    with open(path, newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


# --- csv -----------------------------------------------------------------------------------------


def open_tables(folder, sizes):
    """The tables of a folder that this process has locked."""
    (folder / "lock").write_bytes(b"ours")
    return CsvTables(Lock(folder / "lock", b"ours"), sizes)


def test_both_files_are_there_from_the_start(tmp_path):
    open_tables(tmp_path, {})
    assert {path.name for path in tmp_path.glob("*.csv")} == {"train.csv", "eval.csv"}
    assert (tmp_path / "train.csv").read_bytes() == b""


def test_the_header_stands_once_and_the_tables_apart(tmp_path):
    tables = open_tables(tmp_path, {})
    tables.write("train", {"env_steps": 4, "train/loss": 0.5})
    tables.write("eval", {"env_steps": 4, "eval/return": 1.0})
    tables.write("train", {"env_steps": 8, "train/loss": 0.25})
    assert (tmp_path / "train.csv").read_text() == "env_steps,train/loss\n4,0.5\n8,0.25\n"
    assert (tmp_path / "eval.csv").read_text() == "env_steps,eval/return\n4,1.0\n"


def test_floats_come_back_exactly(tmp_path):
    values = [0.1, 1 / 3, 1e-300, -2.5e17, 5e-324, math.pi, math.inf, -0.0]
    tables = open_tables(tmp_path, {})
    for value in values:
        tables.write("train", {"x": value})
    again = [row["x"] for row in read(tmp_path / "train.csv")]
    assert list(map(repr, again)) == list(map(repr, values))


def test_integers_stay_integers_and_nan_is_written(tmp_path):
    open_tables(tmp_path, {}).write("train", {"env_steps": 10**15, "eval/success": math.nan})
    assert (tmp_path / "train.csv").read_text() == "env_steps,eval/success\n1000000000000000,nan\n"


def test_a_row_is_on_disk_once_written(tmp_path):
    tables = open_tables(tmp_path, {})
    for n in range(1, 4):
        tables.write("train", {"x": n})
        assert len(read(tmp_path / "train.csv")) == n
        assert tables.sizes["train"] == (tmp_path / "train.csv").stat().st_size
    assert tables.sizes["eval"] == 0
    tables.sync()
    assert len(read(tmp_path / "train.csv")) == 3


def test_a_continued_run_is_cut_at_its_checkpoint(tmp_path):
    tables = open_tables(tmp_path, {})
    tables.write("train", {"x": 1})
    sizes = dict(tables.sizes)
    tables.write("train", {"x": 2})
    tables.write("eval", {"y": 3})
    with open(tmp_path / "train.csv", "a") as file:
        file.write("4")  # torn
    again = open_tables(tmp_path, sizes)
    assert (tmp_path / "train.csv").read_text() == "x\n1\n"
    assert (tmp_path / "eval.csv").read_text() == ""
    again.write("train", {"x": 5})
    again.write("eval", {"y": 6})
    assert (tmp_path / "train.csv").read_text() == "x\n1\n5\n"
    assert (tmp_path / "eval.csv").read_text() == "y\n6\n"


def test_a_run_without_a_checkpoint_begins_anew(tmp_path):
    open_tables(tmp_path, {}).write("train", {"x": 1})
    open_tables(tmp_path, {}).write("train", {"x": 2})
    assert (tmp_path / "train.csv").read_text() == "x\n2\n"


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_shorter_than_its_checkpoint_is_an_error_and_is_left_alone(tmp_path, exists):
    if exists:
        (tmp_path / "train.csv").write_text("x\n")
    have = 2 if exists else 0
    with pytest.raises(CannotContinue) as error:
        open_tables(tmp_path, {"train": 7})
    path = tmp_path / "train.csv"
    assert str(error.value).startswith(f"{path} has {have} bytes, the checkpoint counts 7; ")
    assert path.exists() == exists
    assert not exists or path.read_text() == "x\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    tables = open_tables(tmp_path, {})
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train.csv").symlink_to("/dev/full")
    with pytest.raises(OSError) as error:
        tables.write("train", {"x": 1})
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(tmp_path / "train.csv")
    assert tables.sizes["train"] == 0


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path):
    tables = open_tables(tmp_path, {})
    for path in tmp_path.iterdir():
        path.unlink()
    tmp_path.rmdir()
    with pytest.raises(FileNotFoundError) as error:
        tables.write("eval", {"x": 1})
    assert error.value.filename == str(tmp_path / "eval.csv")


# --- what is refused before anything is created --------------------------------------------------


@pytest.mark.parametrize("option", ["tensorboard", "wandb_tensorboard"])
def test_a_missing_package_is_a_config_error_before_anything_is_created(
    option, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    cfg = config.compose_config([*TINY, f"logger={option}"])
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        experiment.run(cfg)
    assert list(tmp_path.iterdir()) == []


NO_ACCOUNT = "; logger.mode=offline needs no account"
BY_WANDB = {  # variables, keys and what is said; nobody is logged in
    "no login": (
        {},
        [],
        f"logger: nobody is logged in to W&B: run `wandb login`, or .*{NO_ACCOUNT}",
    ),
    "no server": (
        {"WANDB_API_KEY": 40 * "a", "WANDB_HTTP_TIMEOUT": "1"},
        [],
        f"logger: W&B: Failed to authenticate with http://127.0.0.1:9: .*{NO_ACCOUNT}",
    ),
    "mode": ({"WANDB_MODE": "foo"}, [], "WANDB_MODE=foo: Input should be 'online', 'offline', .*"),
    "the key wins": (
        {"WANDB_MODE": "offline"},
        ["logger.mode=online"],
        f"logger: nobody is logged in .*{NO_ACCOUNT}",
    ),
    "tags": (
        {"WANDB_MODE": "offline"},
        ["logger.tags=[a,'']"],
        r"logger.tags=\[a,\]: Tag at index 1 is empty.*",
    ),
    "project": (
        {"WANDB_MODE": "offline"},
        ["logger.project=a/b"],
        "logger.project=a/b: Invalid project name 'a/b'.*",
    ),
}


@pytest.mark.parametrize("case", BY_WANDB)
def test_what_wandb_refuses_is_a_config_error_before_anything_is_created(
    case, tmp_path_factory, tmp_path, monkeypatch
):
    pytest.importorskip("wandb", reason="wandb is not installed")
    variables, keys, expected = BY_WANDB[case]
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    quiet = {"WANDB_SILENT": "true", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    home = {"HOME": str(tmp_path_factory.mktemp("home"))}
    for name, value in (quiet | home | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    logger.wandb_refusal.cache_clear()
    for _ in range(2):  # a sweep asks for each of its runs
        with pytest.raises(ConfigError) as error:
            run(["logger=wandb", *keys])
        assert re.fullmatch(expected, str(error.value))
    assert logger.wandb_refusal.cache_info().misses == 1
    logger.wandb_refusal.cache_clear()
    assert "WANDB_SERVICE" not in os.environ
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_is_closed_if_wandb_cannot_begin(tmp_path):
    import_wandb()
    keys = {"folder": tmp_path, "run_id": "x", "config": {}, "project": "a/b", "mode": "offline"}
    threads = {*threading.enumerate()}
    with pytest.raises(ConnectionError, match="Invalid project name"):
        logger.WandBTensorBoard(**keys, next_step=0)
    assert {*threading.enumerate()} <= threads and "WANDB_SERVICE" not in os.environ


# --- TensorBoard ---------------------------------------------------------------------------------


@pytest.fixture
def scalars(monkeypatch):
    """A reader of event files: ``scalars(folder) -> {tag: [(step, value), ...]}``."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer

    # Files of one second are read in the order of their names, which end with this counter.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))

    def read(folder):
        events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
        events.Reload()
        tags = events.Tags()["scalars"]
        return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}

    return read


def test_rows_with_other_columns_are_refused(tmp_path):
    open_tables(tmp_path, {}).write("train", {"env_steps": 1, "train/loss": 0.5})
    size = (tmp_path / "train.csv").stat().st_size
    tables = open_tables(tmp_path, {"train": size})
    with pytest.raises(CannotContinue, match=r"train\.csv has other columns than env_"):
        tables.write("train", {"env_steps": 2, "train/q": 0.5})
    assert (tmp_path / "train.csv").stat().st_size == size


def test_tensorboard_has_each_metric_over_env_steps(tmp_path, scalars):
    board = TensorBoard(tmp_path, {}, 1)
    counters = {"episodes": 2, "updates": 3}
    board.write("train", {"env_steps": 4, **counters, "train/loss": 0.5, "time/seconds": 1.5})
    board.write("eval", {"env_steps": 4, "eval/return": 1.0, "eval/success": math.nan})
    board.write("train", {"env_steps": 8, **counters, "train/loss": 0.25, "time/seconds": 2.5})
    shown = scalars(tmp_path)  # without a close: each row is flushed
    board.close(0)
    assert shown == {
        "train/loss": [(4, 0.5), (8, 0.25)],
        "time/train_seconds": [(4, 1.5), (8, 2.5)],
        "eval/return": [(4, 1.0)],
    }


def test_tensorboard_hides_what_an_interrupted_process_wrote_past_the_checkpoint(tmp_path, scalars):
    dead = TensorBoard(tmp_path, {}, 1)
    for step in (4, 8, 12, 16):
        dead.write("train", {"env_steps": step, "train/loss": step})
    alive = TensorBoard(tmp_path, {}, 12)  # the next row is the one of env step 12
    alive.write("train", {"env_steps": 12, "train/loss": 0.5})
    shown = scalars(tmp_path)
    dead.close(1)
    alive.close(0)
    assert shown == {"train/loss": [(4, 4), (8, 8), (12, 0.5)]}


def test_tensorboard_has_config_and_learning_curve_in_one_folder(tmp_path, scalars):
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    Image.new("RGBA", (6, 4)).save(tmp_path / "learning_curve.png")
    for step, exit_code in ((1, 1), (7, 0)):
        content = {"seed": 3, "env": {"sizes": [1, 2], "rule": None}, "device": "cpu"}
        TensorBoard(tmp_path, content, step).close(exit_code)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert not [path for path in folder.iterdir() if path.is_dir()]
    events = EventAccumulator(str(folder))
    events.Reload()
    text = [event.tensor_proto.string_val[0] for event in events.Tensors("config/text_summary")]
    assert b"seed: 3\nenv:\n  sizes:\n  - 1\n" in text[-1]
    (image,) = events.Images("learning_curve")
    assert (image.width, image.height) == (6, 4)
    plugin = {}
    for tag in ("experiment", "session_start_info", "session_end_info"):
        data = events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
        plugin |= {tag: getattr(HParamsPluginData.FromString(data), tag)}
    values = {key: str(v).split(": ")[1] for key, v in plugin["session_start_info"].hparams.items()}
    expected = {
        "env.rule": '"null"\n',
        **{k: '"null"\n' for k in ("init_from", "updates_per_round", "replay_episodes")},
        "replay_best": "0\n",
        **{f"budget.{k}": '"null"\n' for k in ("train_steps", "warmup_steps", "discounts")},
        "env.sizes": '"[1,2]"\n',
        "seed": "3\n",
    }
    assert {key: value.replace("3.0", "3") for key, value in values.items()} == expected
    metrics = [metric.name.tag for metric in plugin["experiment"].metric_infos]
    assert metrics == ["eval/return", "eval/success"]


def run(overrides):
    return experiment.run(config.compose_config([*TINY, *overrides]))


def assert_shows_the_csv_files(shown, folder):
    for table, column in (("train", "train/loss"), ("train", "train/q"), ("eval", "eval/return")):
        rows = read(folder / f"{table}.csv")
        steps = [step for step, _ in shown[column]]
        assert steps == [row["env_steps"] for row in rows], column
        values = [value for _, value in shown[column]]
        assert values == pytest.approx([row[column] for row in rows], rel=1e-6), column


class Crash(Exception):
    pass


@pytest.mark.parametrize("in_cycle", [True, False], ids=["within a cycle", "between cycles"])
def test_rows_repeated_after_a_crash_stand_once_in_tensorboard(
    in_cycle, tmp_path, monkeypatch, scalars
):
    monkeypatch.chdir(tmp_path)
    boundary, seen = session.Session.boundary, []

    def crash_later(running):
        """Save once, at env step 90 or a little later; crash four cycles on."""
        trainer = running.trainer
        if trainer.counters.env_steps >= 90 and trainer.counters.in_cycle == in_cycle and not seen:
            running.save()
            seen.append(trainer.counters.env_steps)
        if trainer.counters.env_steps > 110:
            raise Crash
        boundary(running)

    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "boundary", crash_later)
        with pytest.raises(Crash):
            run(["logger=tensorboard"])
    assert seen == [90]
    folder = run(["logger=tensorboard"])
    assert [row["env_steps"] for row in read(folder / "train.csv")] == list(range(60, 181, 6))
    shown = scalars(folder)
    assert_shows_the_csv_files(shown, folder)
    assert len(shown["eval/return"]) == 4
    assert "eval/success" not in shown  # never a number
    assert not any(tag in shown for tag in ("env_steps", "episodes", "updates"))


# --- Weights & Biases ----------------------------------------------------------------------------


def records(path):
    """The records of a ``.wandb`` file: what ``wandb sync`` would send.

    Blocks of 32 KiB after a header of 7 bytes, as LevelDB's log: checksum (4), length (2), whole
    (1) or first, middle or last part (2, 3, 4), content.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if at % 32768 > 32768 - 7:
            at += -at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def begun_runs(folder):
    """What W&B was told of a memrl run, one entry for each time it was begun or continued."""
    entries = []
    files = folder.glob("wandb/offline-run-*/*.wandb")
    for path in sorted(files, key=lambda path: path.stat().st_mtime):
        entry = {"file": str(path), "rows": [], "axes": {}}
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = record.run
                entry |= {"id": run.run_id, "name": run.display_name, "group": run.run_group}
                entry |= {"project": run.project, "job_type": run.job_type, "notes": run.notes}
                entry["tags"] = [*run.tags]
                entry["config"] = {u.key: json.loads(u.value_json) for u in run.config.update}
            elif kind == "history":
                items = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
                entry["rows"].append({k: json.loads(v) for k, v in items.items() if k[0] != "_"})
            elif kind == "metric":
                metric = record.metric
                entry["axes"][metric.name or metric.glob_name] = metric.step_metric
            elif kind == "exit":
                entry["exit"] = record.exit.exit_code
        entries.append(entry)
    return entries


def use_wandb(cwd):
    """Begin and continue one run by hand, then train another one; write down what was told."""
    screen = os.open(cwd / "screen.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(screen, 1)
    os.dup2(screen, 2)
    os.chdir(cwd)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY"):
        os.environ[name] = "http://127.0.0.1:9"  # nobody there: any use of the network fails
    os.environ["HOME"] = str(cwd)
    os.environ["WANDB_MODE"] = "disabled"  # the key below wins
    import wandb

    folder = Path("outputs", "some", "unit")
    folder.mkdir(parents=True)
    config = {"seed": 3, "env": {"length": 5}}
    for step, exit_code in ((4, 1), (8, 0)):
        entry = WandB(
            folder=folder,
            run_id="abc0123",
            config=config,
            project="maze",
            mode="offline",
            job_type="test",
            tags=["a", "b"],
            notes="Why.",
            group=None if step == 4 else "other",
        )
        entry.write("train", {"env_steps": step, "train/loss": 0.5, "time/seconds": 1.5})
        entry.write("eval", {"env_steps": step, "eval/return": 1.0, "eval/success": math.nan})
        entry.close(exit_code)
    wandb.teardown()
    os.environ["WANDB_MODE"] = "offline"
    logging.getLogger("memrl").setLevel(logging.INFO)
    logging.getLogger("memrl").addHandler(logging.StreamHandler(os.fdopen(1, "w")))
    trained = run(["logger=wandb_tensorboard", "logger.animation=true"])
    wandb.teardown()
    told = {"unit": begun_runs(folder), "run": begun_runs(trained), "folder": str(trained)}
    (cwd / "told.json").write_text(json.dumps(told))


def import_wandb():
    """Import what ``wandb.init`` imports, which no fork of this process has to do then."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    importlib.import_module("wandb.sdk.launch")


@pytest.fixture(scope="module")
def wandb(tmp_path_factory):
    """What W&B was told, in a process of its own: it starts threads and a service."""
    import_wandb()
    cwd = tmp_path_factory.mktemp("wandb")
    process = multiprocessing.get_context("fork").Process(
        target=use_wandb, args=(cwd,), daemon=True
    )
    process.start()
    process.join()
    screen = (cwd / "screen.txt").read_text()
    assert process.exitcode == 0, screen
    return json.loads((cwd / "told.json").read_text()) | {"cwd": cwd, "screen": screen}


@pytest.mark.processes
def test_wandb_continues_one_run_by_its_fixed_id(wandb):
    first, second = wandb["unit"]
    for begun in (first, second):
        assert begun["file"].startswith("outputs/some/unit/wandb/offline-run-")
        assert {"id": "abc0123", "name": "unit", "project": "maze"}.items() <= begun.items()
        assert {"job_type": "test", "notes": "Why.", "tags": ["a", "b"]}.items() <= begun.items()
        assert begun["config"]["seed"] == 3
        assert begun["config"]["env"] == {"length": 5}
    assert first["file"] != second["file"]
    assert [first["group"], second["group"]] == ["some", "other"]


def test_names_that_wandb_would_refuse_are_shortened_and_stay_apart():
    for name in ("a" * 128, "a,seed=0"):
        assert shorten(name) == name
    names = {shorten(f"{'a' * 70}{n}{'b' * 70},seed=0") for n in range(50)}
    assert len(names) == 50
    assert all(len(name) <= 128 and name.endswith("b,seed=0") for name in names)


def test_a_run_has_an_id_of_its_own_for_all_its_attempts(tmp_path):
    """In another folder, and after the folder was deleted, it is another run."""
    ids = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        for _ in range(2):
            status = Status(tmp_path / name, {})
            status.write()
            ids.append(status.fields.id)
    (tmp_path / "here" / "status.json").unlink()
    record_end(tmp_path / "here", "failed", "no memory")  # before it could begin
    ids.append(Status(tmp_path / "here", {}).fields.id)
    ids.append(Status(tmp_path / "here", {}).fields.id)
    assert [ids.index(n) for n in ids] == [0, 0, 2, 2, 4, 4]


@pytest.mark.processes
def test_wandb_is_told_how_the_run_ended(wandb):
    assert [begun["exit"] for begun in wandb["unit"]] == [1, 0]
    assert [begun["exit"] for begun in wandb["run"]] == [0]


@pytest.mark.processes
def test_wandb_has_rows_over_env_steps_without_nan(wandb):
    assert [begun["rows"] for begun in wandb["unit"]] == [
        [
            {"env_steps": step, "train/loss": 0.5, "time/seconds": 1.5},
            {"env_steps": step, "eval/return": 1.0},
        ]
        for step in (4, 8)
    ]
    axes = {"env_steps": "", "train/*": "env_steps", "eval/*": "env_steps", "time/*": "env_steps"}
    assert wandb["unit"][0]["axes"] == axes


@pytest.mark.processes
def test_a_run_with_wandb_offline(wandb):
    (begun,) = wandb["run"]
    folder = wandb["cwd"] / wandb["folder"]
    assert (folder / "agent.pt").exists()
    assert [begun["group"], begun["name"]] == ["runs", shorten(folder.name)]
    assert len(begun["id"]) == 16 and begun["id"].isalnum()
    assert begun["id"] == json.loads((folder / "status.json").read_text())["id"]
    assert begun["config"]["env"]["length"] == 5
    for table, column in (("train", "train/loss"), ("eval", "eval/return")):
        rows = read(folder / f"{table}.csv")
        told = [row for row in begun["rows"] if column in row]
        assert [row["env_steps"] for row in told] == [row["env_steps"] for row in rows]
        assert [row[column] for row in told] == [row[column] for row in rows]


@pytest.mark.processes
def test_tensorboard_has_the_same_run_as_wandb(wandb, scalars):
    folder = wandb["cwd"] / wandb["folder"]
    assert_shows_the_csv_files(scalars(folder), folder)


@pytest.mark.processes
def test_wandb_has_pictures_of_a_run_that_is_done(wandb):
    folder = wandb["cwd"] / wandb["folder"]
    (media,) = folder.glob("wandb/offline-run-*/files/media")
    assert sorted(path.suffix for path in media.rglob("*.*")) == [".gif", ".png"]
    assert {"learning_curve", "animation"} <= {
        key for row in wandb["run"][0]["rows"] for key in row
    }


@pytest.mark.processes
def test_wandb_writes_into_the_runs_folder_alone_and_says_how_to_upload_it(wandb):
    upload = f"wandb sync '{wandb['folder']}/wandb'/offline-run-*"
    assert wandb["screen"].count("wandb") == 2 * upload.count("wandb")
    assert wandb["screen"].count(f"W&B is offline; to upload this run: {upload}\n") == 2
    assert not (wandb["cwd"] / "wandb").exists()


def alone(do):
    """Return a ``first`` for a process whose W&B cannot reach anybody, nor find an account."""

    def first():
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            del os.environ[name]
        for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY"):
            os.environ[name] = "http://127.0.0.1:9"
        os.environ["HOME"] = os.getcwd()
        do()

    return first


@pytest.mark.processes
def test_a_run_that_is_stopped_and_killed_stays_one_run_of_wandb(launch, tmp_path):
    """W&B has blocks of 32 KiB, some thirty rows; the last one is lost in a kill."""
    import_wandb()
    command = (*TINY, "budget.train_episodes=90", "logger=wandb", "logger.mode=offline")
    command += ("sweep=many", "updates_per_step=0.1")
    stopped = launch(*command, first=alone(at("open train.csv", signal.SIGTERM, 10)))
    assert stopped.wait() == 143, stopped.output
    killed = launch(*command, first=alone(at("open train.csv", signal.SIGSTOP, 75)))
    killed.wait_paused()
    pattern = "outputs/many/*/wandb/offline-run-*/*.wandb"
    wait_until(lambda: max(tmp_path.glob(pattern), key=os.path.getmtime).stat().st_size >= 2**15)
    assert killed.kill() == -signal.SIGKILL
    process = launch(*command, first=alone(lambda: None))
    assert process.wait() == 0, process.output

    (folder,) = tmp_path.glob("outputs/many/*/")
    parts = begun_runs(folder)
    assert [part.get("exit") for part in parts] == [1, None, 0]
    for part in parts:
        assert part["id"] == parts[0]["id"]
        assert (part["group"], part["name"]) == ("many", shorten(folder.name))

    def values(row):
        return {key: value for key, value in row.items() if not key.startswith("time/")}

    told = {}
    repeated = 0
    rows = [row for part in parts for row in part["rows"] if "env_steps" in row]  # no pictures
    for row in map(values, rows):
        key = row["env_steps"], "eval/return" in row
        repeated += key in told
        assert told.setdefault(key, row) == row
    assert repeated > 10  # what was killed had got further than its checkpoint
    written = [row for table in ("train", "eval") for row in read(folder / f"{table}.csv")]
    assert len(told) == len(written)
    for row in written:
        row = {key: value for key, value in values(row).items() if not math.isnan(value)}
        assert row.items() <= told[row["env_steps"], "eval/return" in row].items()
