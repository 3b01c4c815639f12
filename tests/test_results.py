"""From folders to runs: nothing is lost, whatever state it is in, and nothing is guessed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, needs_pybullet
from made import make_config, make_run, make_sweep

from memrl import results
from memrl.__main__ import main
from memrl.results.export import export, frame
from memrl.results.runs import Run, labels, load, varying
from memrl.results.scores import PROTOCOLS, score
from memrl.run.identity import ABSENT
from memrl.run.lock import this_process
from memrl.run.tables import TornTable, read_table
from memrl.sweep import submissions
from memrl.sweep.submissions import Run as Asked


def by_name(runs: list[Run]) -> dict[str, Run]:
    found = {run.name: run for run in runs}
    assert len(found) == len(runs)
    return found


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, columns",
    [
        ("", {}),
        ("a,b\n", {"a": [], "b": []}),
        ("a,b\n1,2\n3,4\n", {"a": [1, 3], "b": [2, 4]}),
        ("a,b\n1,nan\n", {"a": [1], "b": [np.nan]}),
        ("a,b\n1,\n,4\n", {"a": [1, np.nan], "b": [np.nan, 4]}),
        ("a,b\r\n1,2\r\n", {"a": [1], "b": [2]}),
        ("a,b\n1,2\n3,4", {"a": [1], "b": [2]}),  # a row that is being written
        ("a,b\n1,2\n3", {"a": [1], "b": [2]}),
        ("a,b", {}),
    ],
)
def test_a_table_is_read_as_far_as_it_is_written(text: str, columns: dict, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    table = read_table(path)
    assert table.keys() == columns.keys()
    for name, values in columns.items():
        np.testing.assert_array_equal(table[name], np.array(values, dtype=float))


@pytest.mark.parametrize(
    "text, line, rows",
    [
        ("a,b\n1,2\n3,x\n5,6\n", 3, 1),
        ("a,b\n1,2\n3\n5,6\n", 3, 1),
        ("a,b\n1,2,3\n", 2, 0),
        ("a,b\n1\n2\n", 2, 0),
        ("a,b\n1,2\n\0\0\0\0\n", 3, 1),
    ],
)
def test_a_torn_table_says_where_and_keeps_the_rows_before(
    text: str, line: int, rows: int, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    with pytest.raises(TornTable, match=rf"^t.csv, line {line}: 2 numbers expected, got ") as error:
        read_table(path)
    assert {len(column) for column in error.value.table.values()} == {rows}


# --- what becomes of a folder --------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep in which everything has happened; the folder above its outputs."""
    cwd = tmp_path_factory.mktemp("mixed")
    make_run(cwd, [0.5, 1.0], "seed=0", "sweep=mixed")
    make_run(cwd, [0.5], "seed=1", "sweep=mixed", status={"state": "failed", "cause": "disk full"})
    make_run(cwd, [], "seed=2", "sweep=mixed", status={"state": "running", "progress": 0.0})
    torn = make_run(cwd, [0.5, 0.6, 0.7], "seed=3", "sweep=mixed")
    lines = (torn / "eval.csv").read_text().splitlines(keepends=True)
    (torn / "eval.csv").write_text("".join([*lines[:2], "12,x\n", *lines[2:]]))
    running = make_run(cwd, [0.1, 0.2], "seed=4", "sweep=mixed", status={"state": "running"})
    (running / "lock").write_text(json.dumps(this_process()))
    with open(running / "eval.csv", "a") as file:
        file.write("99,9,")  # a row that is being written
    lost = make_run(cwd, [0.3], "seed=5", "sweep=mixed")
    (lost / "config.yaml").write_text("{{{ torn")
    empty = make_run(cwd, [0.3], "seed=6", "sweep=mixed")
    (empty / "eval.csv").unlink()
    status = make_run(cwd, [0.3], "seed=7", "sweep=mixed")
    (status / "status.json").write_text('{"state": "do')
    sweep = cwd / "outputs" / "mixed"
    (sweep / "notes" / "deep").mkdir(parents=True)
    (sweep / "notes" / "todo.txt").write_text("buy milk")
    (sweep / ".hidden").mkdir()
    (sweep / "lengths.png").write_bytes(b"")
    asked = [make_config(f"seed={seed}", "sweep=mixed") for seed in (0, 8)]
    runs = [
        Asked(config, Path("outputs", "mixed", f"tmaze_passive-10,dqn,lstm,seed={config['seed']}"))
        for config in asked
    ]
    before = Path.cwd()
    os.chdir(cwd)
    record = submissions.draft(runs, "slurm", {}, {}, [str(ROOT)])
    record.write()
    os.chdir(before)
    return cwd


def test_every_folder_is_listed_with_its_state(mixed: Path) -> None:
    runs = by_name(load(mixed / "outputs" / "mixed"))
    said = {name.rpartition("=")[2]: (str(run.state), run.cause) for name, run in runs.items()}
    assert said["0"] == ("done", "")
    assert said["1"] == ("failed", "disk full")
    assert said["2"][0] == "lost"
    assert said["3"] == ("done", "")
    assert said["4"] == ("running", "")
    assert said["5"][0] == "unreadable"
    assert said["6"] == ("done", "")
    assert said["7"] == (
        "unreadable",
        "status.json: no JSON: Unterminated string starting at: line 1 column 11 (char 10)",
    )
    assert said["8"][0] == "missing" or said["8"][0] == "queued"
    assert said["notes"] == ("foreign", "not a run")
    assert len(said) == 10


def test_what_is_torn_says_so_and_keeps_what_can_be_read(mixed: Path) -> None:
    runs = by_name(load(mixed / "outputs" / "mixed"))
    name = "tmaze_passive-10,dqn,lstm,seed={}".format
    assert runs[name(3)].problem == "eval.csv, line 3: 7 numbers expected, got '12,x'"
    assert runs[name(3)].eval["eval/return"].tolist() == [0.5]
    assert runs[name(4)].problem is None
    assert runs[name(4)].eval["eval/return"].tolist() == [0.1, 0.2]
    assert "eval.csv" in str(runs[name(6)].problem)
    assert runs[name(5)].problem and runs[name(5)].config == {}
    assert runs[name(0)].problem is None
    assert runs[name(8)].config["seed"] == 8  # asked for, and known though nothing began


def test_reading_changes_nothing(mixed: Path) -> None:
    def content() -> dict[str, float]:
        return {str(path): path.stat().st_mtime_ns for path in mixed.rglob("*")}

    before = content()
    load(mixed / "outputs" / "mixed")
    assert content() == before


def test_a_single_run_is_read_as_in_its_sweep(mixed: Path) -> None:
    folder = mixed / "outputs" / "mixed" / "tmaze_passive-10,dqn,lstm,seed=1"
    (run,) = load(folder)
    assert (run.folder, str(run.state), run.cause) == (folder, "failed", "disk full")


def test_a_single_run_that_failed_before_it_wrote_its_config_has_it_from_its_sweep(
    tmp_path: Path,
) -> None:
    folder = make_run(tmp_path, [], "sweep=s", status={"state": "failed"})
    (folder / "config.yaml").unlink()
    runs = [Asked(make_config("sweep=s"), folder)]
    submissions.draft(runs, "local", {}, {}, [str(ROOT)]).write()
    (run,) = load(folder)
    assert (run.config["seed"], run.problem) == (0, None)


def test_sweeps_are_found_below_and_none_twice(tmp_path: Path) -> None:
    for sweep in ("a", "b"):
        make_run(tmp_path, [1.0], f"sweep={sweep}")
    outputs = tmp_path / "outputs"
    runs = load(outputs, outputs / "a")
    assert sorted(run.flat["sweep"] for run in runs) == ["a", "b"]


def test_a_link_that_leads_back_ends(tmp_path: Path) -> None:
    make_run(tmp_path, [1.0], "sweep=a")
    (tmp_path / "outputs" / "round").symlink_to(tmp_path / "outputs")
    assert [run.flat["sweep"] for run in load(tmp_path / "outputs")] == ["a"]


def test_a_sweep_that_was_moved_is_read_where_it_is(tmp_path: Path, mixed: Path) -> None:
    copied = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", mixed / "outputs" / "mixed", copied], check=True)
    runs = load(copied)
    assert len(runs) == 10
    assert {run.folder.parent for run in runs} == {copied}
    assert by_name(runs)["tmaze_passive-10,dqn,lstm,seed=0"].eval["eval/return"].tolist() == [
        0.5,
        1.0,
    ]


def test_a_folder_that_is_closed_to_us_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = make_run(tmp_path, [1.0], "sweep=a")
    open_run = make_run(tmp_path, [1.0], "sweep=b")

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *more: Any, **named: Any) -> Any:
            if isinstance(path, str | Path) and closed in Path(path).parents:
                raise PermissionError(13, "Permission denied", str(path))
            if real is LISTDIR and Path(path) == closed:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *more, **named)

        return call

    LISTDIR = os.listdir
    for name in ("stat", "lstat", "listdir", "open"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    runs = load(tmp_path / "outputs")
    said = {run.folder: (run.state, run.cause) for run in runs}
    assert said[closed] == ("unreadable", f"Permission denied: {closed}")
    assert said[open_run][0] == "done" and len(frame(runs)) == 2


@pytest.mark.parametrize("name, text", [("none", "No such file"), ("file", "Not a directory")])
def test_what_is_no_folder_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=text):
        load(tmp_path / name)


# --- what varies ---------------------------------------------------------------------------------


def made(*choices: tuple[str, ...]) -> list[Run]:
    return [Run(make_config(*c), Path("outputs/x", str(n))) for n, c in enumerate(choices)]


def test_what_a_sweep_varied_is_found(tmp_path: Path) -> None:
    runs = load(make_sweep(tmp_path, seeds=2))
    assert varying(runs) == {
        "env.length": [5, 10],
        "seq_model.name": ["gpt", "lstm"],
        "seed": [0, 1],
    }


def test_what_another_key_determines_is_not_named() -> None:
    """Each task's own algorithm is; its encoder, and all keys of models and tasks, are not."""
    runs = made(("env=tmaze_passive",), ("env=visual_match",), ("env=visual_match", "seed=1"))
    assert list(varying(runs)) == ["env.name", "env.length", "algo.name", "seed"]


def test_models_that_go_with_one_length_each_are_still_told_apart() -> None:
    runs = made(("env.length=5", "seq_model=lstm"), ("env.length=10", "seq_model=gpt"))
    assert list(varying(runs)) == ["env.length", "seq_model.name"]
    assert labels(runs) == ["lstm", "gpt"]


def test_environments_of_a_package_are_tasks_of_their_own() -> None:
    package = ("env=gym", "env.id=CartPole-v1"), ("env=gym", "env.id=Acrobot-v1")
    runs = made(*package, ("env=minigrid_memory",), ("env=popgym",), ("env=cartpole_p",))
    tasks = ["gym CartPole-v1", "gym Acrobot-v1", "minigrid_memory 7", "popgym RepeatPrevious easy"]
    assert [run.task for run in runs] == [*tasks, "cartpole_p"]
    assert labels(runs) == ["lstm"] * 5


def test_any_key_that_varies_is_in_the_label() -> None:
    runs = made(("algo.lr=1e-3",), ("algo.lr=1e-4",), ("algo.lr=1e-4", "seq_model.n_layer=2"))
    assert labels(runs) == [
        "lstm, n_layer=1, lr=0.001",
        "lstm, n_layer=1, lr=0.0001",
        "lstm, n_layer=2, lr=0.0001",
    ]


@needs_pybullet
def test_what_trains_a_shared_memory_is_in_the_label() -> None:
    separate = make_config("env=pybullet_p", "algo=td3_separate")
    shared = ("attached", "freeze_critic", "freeze_all")
    runs = made(*(("env=pybullet_p", f"algo.policy_gradient={each}") for each in shared))
    runs.append(Run(separate, Path("x")))
    assert labels(runs) == [
        *(f"lstm, td3, policy_gradient={each}" for each in shared),
        "lstm, td3_separate",
    ]
    assert labels(runs[2:]) == ["lstm, td3", "lstm, td3_separate"]


def test_a_list_of_lengths_is_in_the_label() -> None:
    runs = made(("env.length=[5,10]",), ("env.length=[10]",), ("env.length=10",))
    assert labels(runs) == ["lstm, length=[5,10]", "lstm, length=[10]", "lstm"]
    assert labels(runs[:1]) == ["lstm, length=[5,10]"]


def test_a_key_that_a_model_lacks_is_no_distinction_of_the_others() -> None:
    models = made(*((f"seq_model={name}",) for name in ("lstm", "gpt", "mlp", "gru")))
    models[3].config["seq_model"] = {"name": "ema", "_target_": "my_pkg.Ema", "decay": 0.9}
    assert labels(models) == ["lstm", "gpt", "mlp", "ema"]
    deeper = made(("seq_model=lstm", "seq_model.n_layer=2"))
    assert labels([models[0], *deeper, models[3]]) == ["lstm, n_layer=1", "lstm, n_layer=2", "ema"]


def test_classes_of_one_name_are_told_apart_where_nothing_else_does() -> None:
    runs = made(("seed=0",), ("seed=1",), ("seed=2", "algo.lr=0.01"))
    runs[1].config["seq_model"] = runs[1].config["seq_model"] | {"_target_": "mine.LSTM"}
    assert list(varying(runs)) == ["algo.lr", "seq_model._target_", "seed"]
    assert labels(runs)[1] == "lstm, lr=0.0003, seq_model._target_=mine.LSTM"


def test_what_goes_with_a_seed_is_not_taken_for_chance() -> None:
    """Each setting has seeds of its own: they are no seeds of one series."""
    runs = made(("algo.lr=1e-3", "seed=0"), ("algo.lr=1e-4", "seed=1"), ("algo.lr=1e-4", "seed=2"))
    assert varying(runs) == {"algo.lr": [1e-4, 1e-3], "seed": [0, 1, 2]}
    assert labels(runs) == ["lstm, lr=0.001", "lstm, lr=0.0001", "lstm, lr=0.0001"]


def test_values_that_look_alike_are_told_apart() -> None:
    model = {"name": "m"}
    values = [{"a": 1}, {"a": "1"}, {"a": None}, {"a": "null"}, {"a": [1]}, {"a": ["1"]}, {}]
    runs = [Run({"seq_model": model | more}, Path("x")) for more in values]
    assert varying(runs)["seq_model.a"] == [ABSENT, None, 1, "1", [1], ["1"], "null"]
    shown = ["=1", "='1'", "=null", "='null'", "=[1]", "=['1']"]
    assert labels(runs) == [*(f"m, a{text}" for text in shown), "m"]


def test_runs_of_older_versions_are_one_series_however_a_number_was_spelled(tmp_path: Path) -> None:
    """Their config.yaml holds 0 where that was typed, and 0.0 elsewhere; a copy is not counted."""
    spellings = {"0": "seed=0", "0.0": "seed=1", "0 ": "seed=1"}
    for spelling, seed in spellings.items():
        folder = make_run(tmp_path, [1.0], "dropout=0", seed)
        text = (folder / "config.yaml").read_text()
        assert "\ndropout: 0.0\n" in text
        (folder / "config.yaml").write_text(text.replace("dropout: 0.0", f"dropout: {spelling}"))
        folder.rename(folder.with_name(f"dropout={spelling},{seed}"))
    runs = load(tmp_path / "outputs")
    assert varying(runs) == {"seed": [0, 1]}
    assert sorted(run.state for run in runs) == ["done", "done", "duplicate"]
    apart = [*runs, *made(("dropout=0.1",))]
    assert labels(apart) == 3 * ["lstm, dropout=0"] + ["lstm, dropout=0.1"]


def test_keys_with_the_same_end_are_named_whole() -> None:
    runs = [
        Run(
            {"env": {"name": "e"}, "algo": {"width": a}, "seq_model": {"name": "m", "width": b}},
            Path("x", f"{a}{b}"),
        )
        for a in (1, 2)
        for b in (1, 2)
    ]
    assert labels(runs)[1] == "m, algo.width=1, seq_model.width=2"


def test_keys_that_cannot_change_a_result_do_not_count() -> None:
    assert varying(made(("device=cpu",), ("device=auto", "checkpoint_minutes=1"))) == {}


def test_the_same_runs_in_two_sweeps_are_told_apart(tmp_path: Path) -> None:
    """Taken together they would count twice."""
    for sweep in ("a", "b"):
        make_run(tmp_path, [1.0], f"sweep={sweep}", "seed=0")
    assert labels(load(tmp_path / "outputs")) == ["lstm, sweep=a", "lstm, sweep=b"]


def test_a_copy_of_a_sweep_does_not_count_and_says_of_what_it_is_one(tmp_path: Path) -> None:
    make_run(tmp_path, [0.5], "seed=0", "sweep=a")
    make_run(tmp_path, [], "seed=1", "sweep=a", status={"state": "failed"})
    first = tmp_path / "outputs" / "a"
    for copied in (tmp_path / "copy", tmp_path / "elsewhere" / "a"):
        shutil.copytree(first, copied)
        runs = load(copied, first)  # they are equally far: the first counts
        for protocol in PROTOCOLS.values():
            (cell,) = score(runs, protocol)
            assert (cell.label, len(cell.members), len(cell.counted)) == ("lstm", 4, 1)
        said = {run.folder: run.cause for run in runs if run.state == "duplicate"}
        assert said == {first / run.name: f"of {copied / run.name}" for run in runs}


def test_of_a_run_and_an_older_copy_the_run_counts(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [0.5, 1.0], "sweep=a")
    older = shutil.copytree(folder.parent, tmp_path / "copy") / folder.name
    (older / "status.json").write_text('{"state": "stopped"}')
    (older / "eval.csv").write_text("env_steps,eval/return\n")
    states = {run.folder: str(run.state) for run in load(older.parent, folder.parent)}
    assert states == {older: "duplicate", folder: "done"}


def test_the_same_sweep_done_again_elsewhere_is_a_copy(tmp_path: Path) -> None:
    """The name of the sweep tells series apart; the folder above does not."""
    make_run(tmp_path / "first", [0.5], "sweep=a", steps=[11], status={"state": "stopped"})
    further = make_run(tmp_path / "second", [0.75, 1.0], "sweep=a")
    runs = load(tmp_path / "first", tmp_path / "second")
    assert [run.state for run in runs] == ["duplicate", "done"]
    assert runs[0].cause == f"of {further}"


def test_more_seeds_in_another_sweep_are_taken_together(tmp_path: Path) -> None:
    for seed, sweep in enumerate("ab"):
        make_run(tmp_path, [1.0], f"sweep={sweep}", f"seed={seed}")
    assert labels(load(tmp_path / "outputs")) == ["lstm", "lstm"]


def test_one_torn_status_or_record_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [0.5], "seed=0", "sweep=s")
    (folder / "status.json").write_text('{"state": "fai')
    asked = [make_config(f"seed={seed}", "sweep=s") for seed in (0, 1)]
    names = [folder.name, "tmaze_passive-10,dqn,lstm,seed=1"]
    runs = [Asked(c, folder.with_name(name)) for c, name in zip(asked, names, strict=True)]
    record = submissions.draft(runs, "slurm", {}, {}, [str(ROOT)])
    record.write()
    said = {run.name: run.state for run in load(folder.parent)}
    assert said == {names[0]: "queued", names[1]: "queued"}
    (record.folder / "submission.json").write_text("[]")
    said = {run.name: run.state for run in load(folder.parent)}
    assert said == {names[0]: "unreadable", ".submissions": "unreadable"}


# --- one tidy table ------------------------------------------------------------------------------


def test_a_tidy_table_has_every_row_of_every_run(mixed: Path, tmp_path: Path) -> None:
    runs = load(mixed / "outputs" / "mixed")
    export(runs, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} == {run.name for run in runs}
    counts = Counter(row["run"] for row in rows)
    for run in runs:
        measured = run.eval.get("eval/return", np.empty(0)).tolist()
        mine = [row["eval/return"] for row in rows if row["run"] == run.name]
        assert mine == ([repr(value) for value in measured] or [""])
        assert counts[run.name] == max(len(measured), 1)
    one = next(row for row in rows if row["run"].endswith("seed=1"))
    assert (one["state"], one["cause"], one["env.length"], one["seed"]) == (
        "failed",
        "disk full",
        "10",
        "1",
    )
    assert one["env_steps"] == "6710" and one["eval/success"] == ""
    last = {row["run"]: row for row in rows}  # of repeated keys the last value stays
    export(runs, tmp_path / "last.csv", only_last=True)
    with open(tmp_path / "last.csv", newline="") as file:
        assert [*csv.DictReader(file)] == [last[run.name] for run in runs]


def test_csv_and_parquet_hold_the_same(originals: Path, tmp_path: Path) -> None:
    import pandas

    make_run(tmp_path, [0.25, 1.0], "algo.hidden_dims=[64]", "sweep=s")
    make_run(tmp_path, [], "seq_model=gpt", "sweep=s", status={"state": "running"})
    runs = load(tmp_path / "outputs" / "s", originals)
    for form in ("csv", "parquet"):
        export(runs, tmp_path / f"t.{form}")
    text = pandas.read_csv(tmp_path / "t.csv")
    binary = pandas.read_parquet(tmp_path / "t.parquet")
    assert list(text) == list(binary)
    assert len(text) == len(binary) == len(frame(runs))
    for name in text:
        left, right = text[name], binary[name]
        if left.dtype.kind in "fi":
            np.testing.assert_allclose(left, right.astype(float), rtol=1e-15, err_msg=name)
        else:
            assert left.fillna("").astype(str).tolist() == right.fillna("").astype(str).tolist()


def test_training_rows_are_exported_too(originals: Path) -> None:
    runs = load(originals / "tmaze_passive_L10_lstm_ep600_seed1")
    columns = frame(runs, "train")
    assert len(columns["train/q"]) == 601 == len(columns["seed"])


@needs_pybullet
def test_columns_that_only_some_tasks_have_are_empty_for_the_others(tmp_path: Path) -> None:
    make_run(tmp_path, [0.5, 1.0], "sweep=s")
    folder = make_run(tmp_path, [-1600.0, 3000.0], "env=pybullet_v", "env.robot=ant", "sweep=s")
    head, *rows = (folder / "eval.csv").read_text().splitlines()
    lines = [f"{head},eval/return_0.99", *(f"{row},{n}.5" for n, row in enumerate(rows))]
    (folder / "eval.csv").write_text("\n".join(lines) + "\n")
    (folder / "train.csv").write_text("env_steps,train/rank_1\n1000,7\n")
    data = frame(load(tmp_path / "outputs")).set_index("env.name")
    assert data.loc["pybullet_v", "eval/return_0.99"].tolist() == [0.5, 1.5]
    assert data.loc["tmaze_passive", "eval/return_0.99"].isna().all()
    assert data.loc["pybullet_v", "eval/return"].tolist() == [-1600.0, 3000.0]
    trained = frame(load(tmp_path / "outputs"), "train").set_index("env.name")
    assert trained.loc["pybullet_v", "train/rank_1"] == 7
    cells = score(load(tmp_path / "outputs"), PROTOCOLS["last"], "eval/return_0.99")
    found = {cell.task: (cell.scores.tolist(), cell.members[0].excluded) for cell in cells}
    assert found == {
        "pybullet_v ant": ([1.0], None),
        "tmaze_passive": ([], "no eval/return_0.99"),
    }


def test_a_frame_has_a_type_for_each_column(tmp_path: Path) -> None:
    for choice in ("algo.hidden_dims=[64]", "algo.lr=1", "context_len=7"):
        make_run(tmp_path, [1.0, 1.0], choice, "sweep=s")
    make_run(tmp_path, [], "seed=1", "sweep=s", status={"state": "running"})
    data = results.frame(load(tmp_path / "outputs" / "s"))
    assert sorted(data["seed"]) == [0] * 6 + [1]
    kinds = {"seed": "Int64", "env.length": "Int64", "context_len": "Int64", "env_steps": "Int64"}
    kinds |= {"algo.lr": "Float64", "eval/return": "float64", "algo.hidden_dims": "string"}
    assert {name: str(data[name].dtype) for name in kinds} == kinds
    assert "[64]" in set(data["algo.hidden_dims"])


def test_counters_that_are_not_whole_stay_as_they_are(tmp_path: Path) -> None:
    for seed, steps in enumerate(["5", "2.5", "inf", "1e300"]):
        folder = make_run(tmp_path, [1.0], f"seed={seed}", f"sweep=s{seed}")
        (folder / "eval.csv").write_text(f"env_steps,episodes\n{steps},7\n")
        data = results.frame(load(folder))
        assert data["env_steps"].tolist() == [float(steps)] and data["episodes"].tolist() == [7]
        assert str(data["env_steps"].dtype) == ("Int64" if steps == "5" else "Float64")


@pytest.mark.parametrize("package", ["pandas", "pyarrow"])
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    folder, path = make_run(tmp_path, [1.0]), tmp_path / "t.parquet"
    with pytest.raises(SystemExit) as ended:
        main(["export", str(folder), "--output", str(path)])
    assert ended.value.code == 2
    install = "pip install pandas pyarrow"
    assert capsys.readouterr().err == f"error: {package} is not installed; {install}\n"
    assert not path.exists()


def test_another_ending_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "folder", "--output", "t.xlsx"])
    assert ended.value.code == 2
    assert "--output: must end with .csv or .parquet, got t.xlsx" in capsys.readouterr().err


# --- what is imported ----------------------------------------------------------------------------


def test_reading_results_imports_no_torch() -> None:
    heavy = "{'torch', 'gymnasium', 'wandb', 'submitit', 'pandas', 'pyarrow'}"
    code = "import sys; from memrl.commands import export, plot, report; "
    code += f"print(*({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


# --- files of others -----------------------------------------------------------------------------


BROKEN = [
    ("status.json", '{"state": "done", "progress": "x", "env_steps": [], "versions": null}'),
    ("status.json", '{"state": "done", "updated": "yesterday", "host": 7}'),
    ("status.json", '{"state": "running", "updated": "yesterday"}'),
    ("status.json", '{"state": 5}'),
    ("status.json", "[]"),
    ("config.yaml", "env: null\nseed: x\n"),
    ("config.yaml", "env: {name: e, length: far}\nseq_model: 7\nseed: [1]\n"),
    ("config.yaml", "env: {name: e, length: 0.5}\nseq_model: {name: m}\n"),
    ("config.yaml", "- 1\n"),
    ("eval.csv", "a,b\n1,2\n"),
    ("eval.csv", "env_steps,eval/return\n1,nan\n2,nan\n"),
    ("eval.csv", "env_steps,eval/return\n9,1\n2,0.5\n"),
    ("eval.csv", "env_steps\n5\n"),
    ("eval.csv", "env_steps,eval/return,time/seconds\nnan,0.5,\ninf,1,\n"),
]


def break_runs(cwd: Path, broken: list[tuple[str, str]]) -> list[Run]:
    """Two runs, and one more for each file with this content."""
    for seed in range(2 + len(broken)):
        folder = make_run(cwd, [0.5, 0.75], f"seed={seed}", "sweep=s")
        if seed > 1:
            name, content = broken[seed - 2]
            (folder / name).write_text(content)
    runs = load(cwd / "outputs" / "s")
    assert len(runs) == 2 + len(broken)
    return runs


@pytest.mark.parametrize("broken", BROKEN)
def test_whatever_stands_in_its_files_the_others_are_scored(
    broken: tuple[str, str], tmp_path: Path
) -> None:
    runs = break_runs(tmp_path, [broken])
    for protocol in PROTOCOLS.values():
        assert sum(len(cell.counted) for cell in score(runs, protocol)) >= 2
    assert len(frame(runs)) >= 5


def test_whatever_stands_in_their_files_all_runs_are_shown(tmp_path: Path) -> None:
    from memrl.commands import plot
    from memrl.results.report import page

    runs = break_runs(tmp_path, BROKEN)
    for protocol in PROTOCOLS.values():
        found = score(runs, protocol)
        assert plot.as_text(found)
        text = page(runs, found, "s")
        assert [run.name for run in runs if run.name not in text] == []
