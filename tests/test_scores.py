"""From runs to numbers: the two protocols, and what counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import TOTAL, make_run, make_sweep

from memrl.results import stats
from memrl.results.comparison import aggregates, differences
from memrl.results.runs import Run, load
from memrl.results.scores import LAST, PROTOCOLS, curve, metric_of, score
from memrl.results.text import as_text, compare, how_many, score_table
from memrl.run.outcome import ConfigError

DONE = {"env_steps": TOTAL, "progress": 1.0}


def run_with(steps: list[int], returns: list[float], length: int | list[int] = 10, **more) -> Run:
    config = {"env": {"name": "tmaze_passive", "length": length}, "seq_model": {"name": "lstm"}}
    table = {"env_steps": np.array(steps, float), "eval/return": np.array(returns, float)}
    return Run(
        config | {"seed": 0}, Path("x"), eval=table, **{"state": "done", "status": DONE, **more}
    )


def score_of(run: Run, protocol: str) -> float:
    (cell,) = score([run], PROTOCOLS[protocol])
    (member,) = cell.members
    return member.score


PYBULLET_END = 1_500_000
LEVELS = {  # of Ni et al. 2022
    "pybullet_p": {"ant": 348, "halfcheetah": 2693, "hopper": 2133, "walker": 982},
    "pybullet_v": {"ant": 1113, "halfcheetah": 1980, "hopper": 1495, "walker": 121},
}


def pybullet_run(steps: list[int], returns: list[float], task: str = "pybullet_p ant", **more):
    """A run of 1.5 M steps, as far as it got."""
    status = {"env_steps": steps[-1], "progress": min(steps[-1] / PYBULLET_END, 1.0)}
    run = run_with(steps, returns, status=status, **more)
    name, robot = task.split()
    run.config["env"] = {"name": name, "robot": robot, "task_keys": ["robot"]}
    return run


def papers_score(
    steps: list[int], returns: list[float], end: int, points: int = 300, filled: bool = False
) -> float:
    """The paper's own procedure, in pandas."""
    smooth = pandas.Series(returns).rolling(10, min_periods=1).mean()
    at = np.linspace(0, end, points).astype(int)
    right = smooth.iloc[-1] if filled else np.nan
    aligned = pandas.Series(np.interp(at, steps, smooth, left=smooth.iloc[0], right=right), at)
    return float(aligned.dropna().tail(points // 20).mean())


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_a_curve_is_a_trailing_average(returns: list[float]) -> None:
    steps, values = curve(run_with(list(range(len(returns))), returns), "eval/return")
    assert steps.tolist() == list(range(len(returns)))
    expected = pandas.Series(returns).rolling(LAST, min_periods=1).mean()
    np.testing.assert_allclose(values, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("state", "stop_at", "expected"),
    [
        ("done", {"stop_at_return": 0.95, "stop_at_success": None}, 1.0),
        ("done", {"stop_at_return": None, "stop_at_success": None}, 0.25),
        ("done", {"stop_at_return": 0.95, "stop_at_success": 0.95}, 0.25),  # it reports none
        ("running", {"stop_at_return": 0.95, "stop_at_success": None}, 0.25),
        ("done", {"stop_at_return": 1.5, "stop_at_success": None}, 0.25),  # its budget ended it
    ],
)
def test_a_run_that_an_evaluation_ended_ends_with_it(state, stop_at, expected) -> None:
    ended = {"env_steps": 4, "progress": 1.0}
    run = run_with([1, 2, 3, 4], [0.0, 0.0, 0.0, 1.0], state=state, status=ended)
    run.config["budget"] = stop_at
    last, paper = PROTOCOLS["last"], PROTOCOLS["paper"]
    assert last.curve(run, "eval/return")[1].tolist() == [0.0, 0.0, 0.0, expected]
    (cell,) = score([run], last)
    assert cell.members[0].score == expected
    # The paper stops nothing early.
    assert paper.curve(run, "eval/return")[1].tolist() == [0.0, 0.0, 0.0, 0.25]
    assert paper.score(run, "eval/return") < 0.25
    (cell,) = score([run], paper)
    early = "budget.stop_at_return: the paper stops nothing early"
    if state == "done":
        assert cell.members[0].excluded == (early if stop_at["stop_at_return"] else None)


def test_evaluations_without_a_value_are_left_out() -> None:
    run = run_with([10, 20, 30], [0.5, np.nan, 1.0])
    steps, values = curve(run, "eval/return")
    assert (steps.tolist(), values.tolist()) == ([10, 30], [0.5, 0.75])


def test_an_infinite_or_huge_value_spoils_no_average_without_it() -> None:
    returns = [0.5, 1e17, np.inf, -np.inf, *[0.5] * 20]
    _, values = curve(run_with(list(range(24)), returns), "eval/return")
    assert values[0] == 0.5 and values[13:].tolist() == [0.5] * 11
    (cell,) = score([run_with([5, 9], [0.5, np.inf])] * 2, PROTOCOLS["last"])
    assert [member.excluded for member in cell.members] == ["its score is inf"] * 2
    assert cell.estimate.n == 0 and not cell.uncounted


def test_evaluations_without_a_step_are_left_out() -> None:
    run = run_with([10, 20], [0.5, 1.0])
    del run.eval["env_steps"]
    assert [len(column) for column in curve(run, "eval/return")] == [0, 0]


def test_rows_without_the_metric_do_not_make_a_run_long_enough() -> None:
    run = run_with([5, 8, 10], [0.5, 0.5, np.nan], status={"env_steps": 10, "progress": 1.0})
    (cell,) = score([run], PROTOCOLS["paper"])
    assert cell.members[0].excluded == "done: 8 of 10 env steps, fewer than 90 %"


def test_a_score_is_the_mean_of_the_last_ten_evaluations() -> None:
    returns = np.linspace(0, 1, 30).tolist()
    assert score_of(run_with(list(range(30)), returns), "last") == pytest.approx(
        np.mean(returns[-10:])
    )
    assert score_of(run_with([5, 9], [0.5, 1.0]), "last") == 0.75


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=60),
    st.floats(0.9, 1.1),
    st.integers(400, 20_000),
)
def test_the_papers_score_is_that_of_its_own_procedure(
    returns: list[float], reached: float, end: int
) -> None:
    steps = (
        np.linspace(end * reached / len(returns), end * reached, len(returns)).astype(int).tolist()
    )
    run = run_with(steps, returns, status={"env_steps": end, "progress": 1.0})
    assert score_of(run, "paper") == pytest.approx(papers_score(steps, returns, end), abs=1e-9)


@given(st.lists(st.floats(-1600, 3000), min_size=2, max_size=60), st.floats(0.9, 1.1))
def test_a_run_of_pybullet_is_filled_up_to_the_end_of_its_figure(
    returns: list[float], reached: float
) -> None:
    last = round(PYBULLET_END * reached)
    steps = np.linspace(last / len(returns), last, len(returns)).astype(int).tolist()
    expected = papers_score(steps, returns, PYBULLET_END, points=100, filled=True)
    for state in ("done", "failed"):
        run = pybullet_run(steps, returns, state=state)
        (cell,) = score([run], PROTOCOLS["paper"])
        assert cell.scores.tolist() == [pytest.approx(expected)]
        assert cell.n_filled == (reached < 1 and steps[-1] < PYBULLET_END)


def test_curves_of_pybullet_end_together() -> None:
    ends = (PYBULLET_END, 1_400_000, 1_300_000)
    runs = [
        pybullet_run([5000, end], [0.0, level], state="failed")
        for level, end in zip((100.0, 300.0, 999.0), ends, strict=True)
    ]
    (cell,) = score(runs, PROTOCOLS["paper"])
    assert [member.excluded for member in cell.members] == [
        None,
        None,
        "failed: 1,300,000 of 1,500,000 env steps, fewer than 90 %",
    ]
    at, band = cell.band
    assert (at[0], at[-1], band.value[-1]) == (0, PYBULLET_END, 100.0)  # of 50 and 150
    assert cell.n_filled == 1
    steps, _ = PROTOCOLS["paper"].curve(runs[2], "eval/return")
    assert steps[-1] == 1_300_000  # it is drawn as far as it got
    (cell,) = score(runs, PROTOCOLS["last"])
    assert not cell.counted and PROTOCOLS["last"].curve(runs[1], "eval/return")[0][-1] == 1_400_000


def test_each_robot_has_the_level_of_its_own() -> None:
    tasks = [f"{name} {robot}" for name, levels in LEVELS.items() for robot in levels]
    runs = [pybullet_run([PYBULLET_END], [50.0], task) for task in [*tasks, "pybullet_f ant"]]
    for run in runs:
        run.eval["eval/return_0.99"] = run.eval["eval/return"]
    cells = {cell.task: cell for cell in score(runs, PROTOCOLS["last"])}
    for task in tasks:
        name, robot = task.split()
        assert cells[task].facts.reference == {"Ni et al. 2022": LEVELS[name][robot]}
        assert cells[task].solved is None and not cells[task].in_unit_interval
    assert cells["pybullet_f ant"].facts.reference == {}
    discounted = score(runs, PROTOCOLS["last"], "eval/return_0.99")
    assert all(cell.facts.reference == {} for cell in discounted)
    assert "pybullet_v walker" in as_text(discounted) and "return_0.99" in as_text(discounted)


@pytest.mark.parametrize("length, end", [(50, 1_000_000), (1500, 10_000_000), (10, 1_020_510)])
def test_the_papers_figures_end_where_they_end(length: int, end: int) -> None:
    """A run of the paper goes a little further, and what it does there is not seen."""
    steps = np.linspace(0, max(end, 1_020_510), 500).astype(int).tolist()
    returns = [0.0 if s <= end else -1.0 for s in steps]
    returns[100:-20] = np.linspace(0, 1, 380).tolist()
    status = {"env_steps": steps[-1], "progress": 1.0}
    run = run_with(steps, returns, length, status=status)
    assert score_of(run, "paper") == pytest.approx(papers_score(steps, returns, end), abs=1e-9)


@pytest.mark.parametrize(
    "state, progress, last, paper",
    [
        ("done", 1.0, True, True),
        ("running", 0.95, False, True),
        ("running", 0.85, False, False),
        ("failed", 0.91, False, True),
        ("stopped", 0.5, False, False),
    ],
)
def test_what_counts(state: str, progress: float, last: bool, paper: bool) -> None:
    reached = round(progress * 10_000)
    status = {"env_steps": reached, "progress": progress}
    run = run_with([reached // 2, reached], [0.0, 1.0], state=state, cause="why", status=status)
    for protocol, counts in (("last", last), ("paper", paper)):
        (cell,) = score([run], PROTOCOLS[protocol])
        (member,) = cell.members
        assert (member.excluded is None) == counts
        assert len(cell.counted) == cell.estimate.n == counts
    if not paper:
        assert member.excluded == f"{state}: {reached:,} of 10,000 env steps, fewer than 90 %"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_torn_run_does_not_count_and_says_why(protocol: str) -> None:
    run = run_with([TOTAL], [1.0], problem="eval.csv, line 7: torn")
    (cell,) = score([run], PROTOCOLS[protocol])
    assert [member.excluded for member in cell.members] == ["eval.csv, line 7: torn"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_that_is_done_without_an_evaluation_does_not_count(protocol: str) -> None:
    (cell,) = score([run_with([], [])], PROTOCOLS[protocol])
    assert len(cell.counted) == 0 and cell.members[0].excluded
    assert cell.estimate.n == 0 and cell.band is None


def test_a_task_is_judged_by_its_success_if_it_reports_any(tmp_path: Path) -> None:
    make_run(tmp_path, [2.0, 3.0], "env=visual_match", success=[0.25, 0.75], steps=[10, 20])
    make_run(tmp_path, [0.5], "env=tmaze_passive")
    runs = load(tmp_path / "outputs")
    judged = {
        cell.task: (cell.metric, cell.scores.tolist()) for cell in score(runs, PROTOCOLS["last"])
    }
    assert judged["visual_match"] == ("eval/success", [0.5])
    assert judged["tmaze_passive"] == ("eval/return", [0.5])
    asked = {c.task: c.scores.tolist() for c in score(runs, PROTOCOLS["last"], "eval/return")}
    assert asked["visual_match"] == [2.5]
    assert metric_of([]) == "eval/return"


def test_a_metric_that_nobody_has_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, [0.5])
    with pytest.raises(
        ConfigError, match="metric must be one of eval/length, eval/return, eval/suc"
    ):
        score(load(tmp_path / "outputs"), PROTOCOLS["last"], "eval/regret")


def test_a_cell_has_the_seeds_of_its_length_and_model(tmp_path: Path) -> None:
    found = score(load(make_sweep(tmp_path, lengths=(5, 20, 10))), PROTOCOLS["last"])
    assert [(cell.length, cell.label) for cell in found] == [
        (5, "gpt"),
        (5, "lstm"),
        (10, "gpt"),
        (10, "lstm"),
        (20, "gpt"),
        (20, "lstm"),
    ]
    for cell in found:
        seeds = [member.run.flat["seed"] for member in cell.members]
        assert seeds == [0, 1, 2, 3]
        assert cell.estimate == stats.estimate([cell.scores], stats.iqm)
        at, band = cell.band
        curves = [curve(member.run, "eval/return") for member in cell.members]
        assert at[-1] == TOTAL and len(at) == 100
        assert band.value[-1] == pytest.approx(stats.iqm(np.array([v[-1] for _, v in curves])))


def test_a_done_run_carries_its_last_value_to_the_end_of_the_longest() -> None:
    runs = [run_with([10, 100], [0.0, 0.0]), run_with([20, 60], [0.0, 1.0])]
    for run in runs:
        run.config["budget"] = {"stop_at_return": 0.95}
    (cell,) = score(runs, PROTOCOLS["last"])
    at, band = cell.band
    assert (at[0], at[-1]) == (20, 100)
    assert band.value[at >= 60] == pytest.approx(0.5)
    status = {"env_steps": 92, "progress": 0.92}
    runs = [
        run_with([10, 100], [0.0, 1.0], status={"env_steps": 100, "progress": 1.0}),
        run_with([10, 92], [0.0, 1.0], state="running", status=status),
    ]
    (cell,) = score(runs, PROTOCOLS["paper"])
    assert (len(cell.counted), cell.band[0][-1]) == (2, 92)  # what it will measure is not known


def test_a_curve_of_the_paper_begins_at_zero() -> None:
    (cell,) = score(
        [run_with([10, 100], [0.0, 1.0], status={"env_steps": 100, "progress": 1.0})] * 2,
        PROTOCOLS["paper"],
    )
    at, band = cell.band
    assert (at[0], band.value[0]) == (0, 0.0)  # left of the first evaluation, its value


def test_lengths_are_put_together_where_all_models_have_them(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, lengths=(5, 10))
    make_run(tmp_path, [1.0], "env.length=20", "sweep=made")
    (one,) = aggregates(score(load(folder), PROTOCOLS["last"]))
    assert one.lengths == [5, 10]
    assert {label: estimate.n for label, estimate in one.overall.items()} == {"gpt": 8, "lstm": 8}
    assert one.better["gpt", "lstm"].value < 0.2  # made so
    assert one.profile["lstm"].value[0] == 1 and one.profile["lstm"].value[-1] == 0


def test_models_without_a_length_in_common_are_not_compared(tmp_path: Path) -> None:
    make_run(tmp_path, [1.0], "env.length=5")
    make_run(tmp_path, [1.0], "env.length=10", "seq_model=gpt")
    cells = score(load(tmp_path / "outputs"), PROTOCOLS["last"])
    (one,) = aggregates(cells)
    assert (one.lengths, one.overall, one.better, one.profile) == ([], {}, {}, {})
    assert one.left_out == {"lstm": [5], "gpt": [10]}
    assert compare(cells) == {
        "tmaze_passive, no length in common": [
            "lstm is not compared: it has no length in common with all others (only 5)",
            "gpt is not compared: it has no length in common with all others (only 10)",
        ]
    }


def test_a_model_without_a_length_in_common_leaves_the_others_to_be_compared() -> None:
    places = [("a", 5), ("a", 10), ("b", 10), ("b", 5), ("c", 20), ("d", 5), ("d", 20)]
    runs = [run_with([TOTAL], [1.0], length) for _, length in places]
    for run, (model, _) in zip(runs, places, strict=True):
        run.config = {**run.config, "seq_model": {"name": model}}
    found = score(runs, PROTOCOLS["last"])
    (one,) = aggregates(found)
    assert (one.lengths, list(one.better)) == ([5], [("a", "b"), ("a", "d"), ("b", "d")])
    assert one.left_out == {"c": [20]}
    lists = [run_with([TOTAL], [1.0], length) for length in ([5, 10], [5], [10], [20])]
    beside = score([*runs, *lists], PROTOCOLS["last"])
    (same,) = aggregates(beside)
    assert (same.lengths, same.better) == (one.lengths, one.better)
    assert "length=[5,10] is not compared: its runs have no single length" in as_text(beside)
    assert "lengths 5" not in as_text(found) and "length 5: c is not compared" in as_text(found)


def test_solved_is_said_only_where_the_task_says_from_where_on() -> None:
    def solved(metric: str = "eval/return", **env: object) -> tuple[int | None, list[str]]:
        run = run_with([TOTAL], [9.2])
        run.config["env"] |= env
        if metric == "eval/success" or env.get("name") == "visual_match":
            run.eval["eval/success"] = np.array([1.0])
        (cell,) = score([run], PROTOCOLS["last"], metric)
        return cell.solved, [c for c in score_table([cell]).columns if "solved" in c]

    tmaze, image = "memrl.envs.tmaze.TMazePassiveVec", "memrl.envs.visual_match.VisualMatchVec"
    own = {"_target_": "tasks.CartPole", "name": "cartpole"}
    assert solved(_target_=tmaze, goal_reward=1.0) == solved() == (1, ["solved (>= 0.95)"])
    assert solved(_target_=tmaze, goal_reward=10.0) == (None, [])
    assert solved(goal_reward=10.0, solved_at=9) == (1, ["solved (>= 9)"])
    assert solved(**own) == solved(**own, solved_at=None) == (None, [])
    assert solved(**own, solved_at=190.0) == (0, ["solved (>= 190)"])
    assert solved(**own, solved_at="easy", reference=3) == (None, [])  # keys of something else
    assert solved("eval/success", **own, solved_at=0.5) == (1, ["solved (>= 0.5)"])
    assert solved(_target_="tasks.TMaze") == (None, [])
    assert solved(_target_=image, name="visual_match") == (None, [])
    assert solved("eval/success", _target_=image, name="visual_match") == (1, ["solved (>= 0.95)"])


def test_a_column_that_some_runs_lack_is_scored_where_it_is() -> None:
    runs = [run_with([10, TOTAL], [0.5, 1.0]) for _ in range(2)]
    runs[0].eval["eval/extra"] = np.array([0.25, 0.75])
    (cell,) = score(runs, PROTOCOLS["last"], "eval/extra")
    assert [member.excluded for member in cell.members] == [None, "no eval/extra"]
    assert cell.scores.tolist() == [0.5]


def test_equal_scores_are_not_certainty(tmp_path: Path) -> None:
    for seed in range(3):
        for model in ("gpt", "lstm"):
            make_run(tmp_path, [1.0], f"seq_model={model}", f"seed={seed}")
        make_run(tmp_path, [0.0], "seq_model=gru", f"seed={seed}")
    text = as_text(score(load(tmp_path / "outputs"), PROTOCOLS["last"]))
    assert "1.00  " in text and "[1.00" not in text and "[0.00" not in text
    assert "none for a single run, or where both ends coincide" in text
    assert "all runs of gpt and lstm have the same score (n = 3 and 3)" in text
    assert "probability that a run of gpt beats one of gru: 1.00 (n = 3 and 3)" in text


def test_of_many_series_the_best_pairs_are_compared() -> None:
    runs = []
    for n in range(13):
        runs.append(run_with([TOTAL], [n / 13]))
        runs[-1].config["seq_model"] = {"name": f"m{n}"}
    cells = score(runs, PROTOCOLS["last"])
    (one,) = aggregates(cells)
    assert [*one.better][:2] == [("m12", "m11"), ("m12", "m10")]
    assert (len(one.better), one.more_pairs) == (15, 63)
    assert "and 63 more pairs of series" in as_text(cells)


@pytest.mark.parametrize(
    ("runs", "lines"),
    [
        (["env.length=20 budget=paper", "env.length=50 budget=paper"], {}),
        (["env.length=5 budget=paper", "env.length=20 budget=paper"], {}),
        (["env.length=20", "env.length=50"], {}),  # a quick budget at both
        (["env.length=10", "env.length=20 budget=paper"], {}),  # 10 has the same in both budgets
        (
            ["env.length=20 budget=paper", "env.length=50"],
            {"budget.train_episodes": "4000 at length 20, 600 at length 50"},
        ),
        (
            ["env.length=5 budget=fast", "env.length=10 budget=paper"],
            {"budget.name": "fast at length 5, none at length 10"},
        ),
        (
            ["seq_model=gpt algo.lr=0.01", "seq_model=lstm"],
            {"algo.lr": "0.01 for gpt, 0.0003 for lstm"},
        ),
    ],
)
def test_what_differs_beyond_the_budget_and_the_labels_is_named(
    runs: list[str], lines: dict[str, str], tmp_path: Path
) -> None:
    for overrides in runs:
        make_run(tmp_path, [0.5], *overrides.split())
    cells = score(load(tmp_path / "outputs"), PROTOCOLS["last"])
    assert differences(cells).get("tmaze_passive", {}) == lines
    assert all(f"{key}: {where}" in as_text(cells) for key, where in lines.items())


def test_only_a_metric_of_the_goal_is_beaten_and_solved() -> None:
    runs = [run_with([TOTAL], [1.0]), run_with([TOTAL], [0.5])]
    runs[1].config = {**runs[1].config, "seq_model": {"name": "gpt"}}
    for run, steps in zip(runs, (11.0, 12.0), strict=True):
        run.eval["eval/length"] = np.array([steps])
    text = as_text(score(runs, PROTOCOLS["last"], "eval/length"))
    assert "gpt has a higher eval/length than one of lstm" in text and "beats" not in text
    assert all(cell.solved is None for cell in score(runs, PROTOCOLS["last"], "eval/length"))
    assert "gpt beats one of lstm" in as_text(score(runs, PROTOCOLS["last"]))


def test_reasons_are_counted_by_their_kind_and_not_cut() -> None:
    torn = [f"No such file or directory: /{n}: eval.csv" for n in range(2)]
    runs = [run_with([TOTAL], [1.0], problem=problem) for problem in (None, *torn)]
    runs += [run_with([TOTAL // 2], [1.0]), run_with([], []), run_with([9], [1.0], state="lost")]
    kinds = "2 torn, 2 fewer than 90 % of its steps, 1 lost"
    assert how_many(score(runs, PROTOCOLS["paper"])) == f"1 of 6 runs counted ({kinds})."


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_imported_runs_are_scored(protocol: str, originals: Path) -> None:
    table = score(load(originals), PROTOCOLS[protocol])
    found = {(cell.task, cell.length, cell.label.split()[0]): cell for cell in table}
    solved = found["tmaze_passive", 10, "lstm"]
    assert solved.scores == pytest.approx([1.0, 1.0, 1.0]) and solved.solved == 3
    assert found["tmaze_active", 5, "gpt"].scores == pytest.approx([0.5], abs=0.1)
    stopped = found["visual_match", 1, "lstm"]
    assert (stopped.metric, len(stopped.counted), len(stopped.members)) == ("eval/success", 0, 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_task_or_length_that_is_a_list_is_shown(protocol: str) -> None:
    runs = [run_with([TOTAL], [1.0], length=[1]), run_with([TOTAL], [1.0])]
    runs[1].config["env"]["name"] = ["x"]
    found = score(runs, PROTOCOLS[protocol])
    assert [(cell.task, len(cell.counted)) for cell in found] == [
        ("['x']", 1),
        ("tmaze_passive", 1),
    ]


def test_seeds_of_all_kinds_are_sorted() -> None:
    runs = [run_with([TOTAL], [1.0]) for _ in range(5)]
    for run, seed in zip(runs, (10, None, 2, "x", None), strict=True):
        run.config = {**run.config, "seed": seed}
    (cell,) = score(runs, PROTOCOLS["last"])
    assert [member.run.flat["seed"] for member in cell.members] == [None, None, 2, 10, "x"]
