"""Figures: what they show, that they stay the same, and what the command says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT, Process
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from made import make_run, make_sweep
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from memrl.__main__ import main
from memrl.commands import start
from memrl.results import figures
from memrl.results.comparison import aggregates
from memrl.results.drawing import FORMATS, SCALES, SERIES, FigureOptions, in_style, series_styles
from memrl.results.figures import FIGURES, arrange, draw, write
from memrl.results.runs import Run, load
from memrl.results.scores import PROTOCOLS, Cell, score
from memrl.run.facts import PYBULLET
from memrl.run.learning_curve import random_episodes
from memrl.run.outcome import ConfigError

Launch = Callable[..., Process]
MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lengths, two models, four seeds; one run is failed and one still running."""
    cwd = tmp_path_factory.mktemp("sweep")
    folder = make_sweep(cwd)
    status = {"state": "failed", "cause": "disk full", "progress": 0.5, "env_steps": 3000}
    make_run(cwd, [0.1] * 5, "env.length=10", "seed=8", "sweep=made", status=status)
    status |= {"state": "stopped", "cause": "stopped by SIGTERM"}
    make_run(cwd, [0.2] * 5, "env.length=10", "seed=9", "sweep=made", status=status)
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> FigureOptions:
    """Options with which an SVG has its text as text."""
    style = tmp_path_factory.mktemp("style") / "words.mplstyle"
    style.write_text("svg.fonttype: none\n")
    return FigureOptions(style=str(style))


@pytest.fixture(scope="module")
def cells(sweep: Path) -> list[Cell]:
    return score(load(sweep), PROTOCOLS["last"])


@pytest.fixture(scope="module")
def svgs(cells: list[Cell], words: FigureOptions) -> dict[str, bytes]:
    """Every figure of that sweep."""
    return {name: draw(name, cells, words, "svg") or b"" for name in FIGURES}


def command(launch: Launch, *arguments: object) -> Process:
    """``python -m memrl plot``, in a fork; it has ended."""
    process = launch(first=lambda: sys.exit(main(["plot", *map(str, arguments)])))
    process.wait()
    return process


def texts(svg: bytes) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg.decode())


# --- what they show ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_how_many_runs_it_shows_and_which_are_missing(
    name: str, svgs: dict[str, bytes]
) -> None:
    said = " ".join(texts(svgs[name]))
    assert "16 of 18 runs counted (1 failed, 1 stopped)." in said
    n = {"lengths": 4, "curves": 4, "profiles": 8}[name]
    assert f"gpt (n = {n})" in said and f"lstm (n = {n})" in said
    assert "95 % bootstrap intervals" in said
    assert (name == "profiles") == ("in common (tmaze passive: lengths 5, 10)" in said)


def test_a_figure_says_how_it_was_made(
    sweep: Path, words: FigureOptions, svgs: dict[str, bytes]
) -> None:
    paper = draw("lengths", score(load(sweep), PROTOCOLS["paper"]), words, "svg")
    for protocol, center, svg in (("last", "IQM", svgs["lengths"]), ("paper", "mean", paper)):
        said = " ".join(texts(svg or b""))
        assert PROTOCOLS[protocol].text in said
        assert f"Large marks: {center} with" in said


REFERENCES = {
    "tmaze_passive": {"best without memory": 0.5},
    "tmaze_active": {"best without credit assignment": 0.5},
    "visual_match": {"best without memory": 1 / 3},
    "key_to_door": {"best without credit assignment": 0.0},
}


def test_the_level_without_the_ability_is_drawn(tmp_path: Path, words: FigureOptions) -> None:
    for task in REFERENCES:
        success = [0.5, 0.5] if task in ("visual_match", "key_to_door") else None
        make_run(tmp_path, [0.5, 0.5], f"env={task}", success=success, steps=[10, 20])
    found = score(load(tmp_path / "outputs"), PROTOCOLS["last"])
    assert {cell.task: cell.facts.reference for cell in found} == REFERENCES
    for name in ("lengths", "curves"):
        said = texts(draw(name, found, words, "svg") or b"")
        for line in ("best without memory", "best without credit assignment"):
            assert line in said


def test_a_task_with_other_returns_has_its_own_levels_and_range(
    tmp_path: Path, words: FigureOptions
) -> None:
    env = {"name": "cartpole", "_target_": "tasks.CartPole", "length": 1, "solved_at": 190}
    for seed, level in enumerate((60, 80)):
        folder = make_run(tmp_path, [150, 195], f"seed={seed}", steps=[10, 20])
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["env"] = env | {"reference": {"random": 20, "without memory": level}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for n, levels in ((1, [20, 60]), (2, [])):  # the two runs do not say the same
        found = score(load(tmp_path / "outputs")[:n], PROTOCOLS["last"])
        (panel,), (aggregate,) = figures.length_panels(found), aggregates(found)
        assert aggregate.levels[0] > 100
        with in_style(words):
            (axes,) = arrange("lengths", found, words).axes
        flat = [line.get_ydata() for line in axes.lines if len({*line.get_ydata()}) == 1]
        assert sorted({y[0] for y in flat} & {20, 60, 80}) == levels
        assert axes.get_ylim()[0] > (0 if levels else 100)
        assert panel.cells[0].solved == (0 if levels else None)


def pybullet_runs(algos: Sequence[dict[str, str]], scale: float = 1.0) -> list[Run]:
    """Two seeds of each algorithm in each of the paper's tasks."""
    runs = []
    for task, algo, seed in product(PYBULLET, algos, range(2)):
        name, robot = task.split()
        env = {"name": name, "robot": robot, "task_keys": ["robot"]}
        config = {"env": env, "algo": algo, "seq_model": {"name": "lstm"}, "seed": seed}
        values = {"env_steps": np.linspace(5e3, 1.5e6, 4), "eval/return": scale * np.arange(4.0)}
        status = {"env_steps": 1_500_000, "progress": 1.0}
        runs.append(Run(config, Path("x"), state="done", status=status, eval=values))
    return runs


TD3 = {"name": "td3", "policy_gradient": "freeze_all"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_robot_has_a_panel_with_the_published_level(protocol: str) -> None:
    found = score(pybullet_runs([TD3]), PROTOCOLS[protocol])
    with in_style(FigureOptions()):
        figure = arrange("curves", found, FigureOptions())
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == [task.replace("_", " ") for task in sorted(PYBULLET)]
    for task, level in PYBULLET.items():
        axes = panels[task.replace("_", " ")]
        levels = [line for line in axes.lines if line.get_color() == "0.45"]
        assert [line.get_ydata()[0] for line in levels] == [level]
        bottom, top = axes.get_ylim()
        assert bottom < 0 and top > level
        assert max(x for line in axes.lines for x in line.get_xdata()) == 1_500_000
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["lstm (n = 2)", "Ni et al. 2022"]
    assert "Continued" not in figure.get_supxlabel()


def test_a_figure_says_how_many_curves_are_continued() -> None:
    runs = pybullet_runs([TD3])
    for run in runs[:3]:
        run.eval = {name: column[:-1] for name, column in run.eval.items()}
        run.eval["env_steps"] = np.array([5e3, 1e6, 1.4e6])
    with in_style(FigureOptions()):
        figure = arrange("curves", score(runs, PROTOCOLS["paper"]), FigureOptions())
    said = figure.get_supxlabel().replace("\n", " ")
    assert "Continued with the last value to the figure's end: 3." in said


def test_ways_to_share_an_encoder_are_series_of_their_own() -> None:
    gradients = ("attached", "freeze_critic", "freeze_all")
    algos = [{"name": "td3", "policy_gradient": gradient} for gradient in gradients]
    runs = pybullet_runs([*algos, {"name": "td3_separate"}])
    names = {"lstm, td3_separate"} | {f"lstm, td3, policy_gradient={each}" for each in gradients}
    found = score(runs, PROTOCOLS["last"])
    for panel in figures.curve_panels(found):
        assert {cell.label for cell in panel.cells} == names
    with in_style(FigureOptions()):
        figure = arrange("curves", found, FigureOptions())
    (legend,) = figure.legends
    colours = {
        text.get_text(): handle.get_color()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert colours.keys() == {f"{name} (n = 2)" for name in names} | {"Ni et al. 2022"}
    assert len({*colours.values()}) == 5


@pytest.mark.parametrize("scale", [-1600 / 3, 1000])
def test_returns_of_any_size_are_inside_their_axes(scale: float) -> None:
    found = score(pybullet_runs([TD3], scale), PROTOCOLS["last"])
    with in_style(FigureOptions()):
        figure = arrange("curves", found, FigureOptions())
        for axes in (axes for axes in figure.axes if axes.get_visible()):
            shown = [y for line in axes.lines for y in line.get_ydata()]
            bottom, top = axes.get_ylim()
            assert bottom <= min(shown) and max(shown) <= top
            assert top - bottom < 1.2 * (max(shown) - min(shown))


def test_a_dollar_in_a_name_is_shown(tmp_path: Path, words: FigureOptions) -> None:
    folder = make_run(tmp_path, [0.5, 0.5])
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("name: lstm", "name: $a_b$"))
    svg = draw("lengths", score(load(folder), PROTOCOLS["last"]), words, "svg")
    assert "$a_b$ (n = 1)" in texts(svg)


def test_another_metric_has_no_such_level(tmp_path: Path, words: FigureOptions) -> None:
    make_run(tmp_path, [0.5, 0.5], "env=visual_match", success=[0.5, 0.5], steps=[10, 20])
    found = score(load(tmp_path / "outputs"), PROTOCOLS["last"], "eval/return")
    assert "best without memory" not in texts(draw("lengths", found, words, "svg"))


def test_single_runs_are_seen_and_those_that_do_not_count_are_hollow(cells: list[Cell]) -> None:
    (panel,) = figures.length_panels(cells)
    ten = next(cell for cell in panel.cells if (cell.label, cell.length) == ("lstm", 10))
    others = sorted(member.score for member in ten.uncounted)
    assert (len(ten.counted), others) == (4, pytest.approx([0.1, 0.2]))
    assert ten.estimate.n == 4
    five, ten = figures.curve_panels(cells)
    counts = {cell.label: (len(cell.counted), len(cell.uncounted)) for cell in ten.cells}
    assert counts["lstm"] == (4, 2)
    assert [len(cell.counted) for cell in five.cells] == [4, 4]


def test_a_series_has_one_colour_in_all_figures(svgs: dict[str, bytes]) -> None:
    for svg in svgs.values():
        lines = re.findall(r"stroke: (#[0-9a-f]{6})", svg.decode())
        assert {"#0072b2", "#d55e00"} <= set(lines)
        assert "#009e73" not in lines


def test_a_task_without_a_length_has_curves(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [0.5, 0.6])
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("  length: 10\n", ""))
    found = score(load(folder), PROTOCOLS["last"])
    assert draw("lengths", found, FigureOptions(), "svg") is None
    assert draw("curves", found, FigureOptions(), "svg")
    assert [path.name for path in start.draw_scores(folder)] == ["curves.png"]


# --- how they look -------------------------------------------------------------------------------


def made_cells(n_series: int, label: str, lengths: Sequence[Any], scale: float) -> list[Cell]:
    """Cells of two runs each, the second one unfinished."""
    rng = np.random.default_rng(n_series)
    runs = []
    for n, length, seed in product(range(n_series), lengths, range(2)):
        env = {"name": "tmaze_passive", "length": length}
        config = {"env": env, "seq_model": {"name": f"{label}{n}"}, "seed": seed}
        values = {"env_steps": np.arange(1.0, 4.0) * 5e6, "eval/return": rng.normal(size=3) * scale}
        status = {"env_steps": 3, "progress": 1.0}
        state = "running" if seed else "done"
        runs.append(Run(config, Path("x"), state=state, status=status, eval=values))
    return score(runs, PROTOCOLS["last"])


def boxes(figure: Any, renderer: Any) -> tuple[dict[str, Bbox], list[list[Bbox]], list[Bbox]]:
    """The boxes of legend, caption and titles, the labels of each axis, and the axes themselves."""
    panels = [axes for axes in figure.axes if axes.get_visible()]
    alone = {"legend": figure.legends[0], "caption": figure._supxlabel}
    alone |= {f"title {n}": axes.title for n, axes in enumerate(panels)}
    alone |= {f"label {n}": axes.xaxis.label for n, axes in enumerate(panels)}
    ticks = [
        [
            tick.label1
            for tick in axis.get_major_ticks()
            if tick.label1.get_visible() and tick.label1.get_text()
            if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        ]
        for axes in panels
        for axis in (axes.xaxis, axes.yaxis)
    ]
    found = {name: artist.get_window_extent(renderer) for name, artist in alone.items()}
    shown = [[tick.get_window_extent(renderer) for tick in labels] for labels in ticks]
    return found, shown, [axes.get_window_extent(renderer) for axes in panels]


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    st.sampled_from([*FIGURES]),
    st.integers(1, 30),
    st.sampled_from(("m", "gpt, n_layer=2, lr=0.0001, ", "x" * 90)),
    st.sampled_from(((5,), (5, 10, 20), (1, 2, 3, 100, 1_000, 1_001, 1_500))),
    st.sampled_from(((6.5, 9.0), (3.25, 8.0), (12.0, 20.0))),
    st.sampled_from(SCALES),
)
@example("curves", 2, "m", (5, 10), (3.25, 8.0), "even")
@example("curves", 8, "gpt, n_layer=2, ", (1, 2, 3, 100, 1_000, 1_001, 1_500), (12.0, 20.0), "log")
@example("lengths", 13, "gpt, lr=0.0017000000000000001, ", (5, 10, 20), (6.5, 9.0), "linear")
def test_nothing_overlaps_and_nothing_is_cut(
    name: str,
    n_series: int,
    label: str,
    lengths: tuple[int, ...],
    size: tuple[float, float],
    scale: str,
) -> None:
    options = FigureOptions(width=size[0], font_size=size[1], scale=scale)
    with in_style(options):
        figure = figures.arrange(name, made_cells(n_series, label, lengths, 1.0), options)
        figure.draw_without_rendering()
        renderer = FigureCanvasAgg(figure).get_renderer()
        alone, ticks, axes = boxes(figure, renderer)
        whole = figure.bbox.padded(1)
        for key, box in [*alone.items(), *(("tick", box) for labels in ticks for box in labels)]:
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1, key
            assert whole.y0 <= box.y0 and box.y1 <= whole.y1, key
        apart = [*alone.items(), *(("axes", box) for box in axes)]
        for (key, box), (other, its) in combinations(apart, 2):
            assert not box.padded(-1).overlaps(its.padded(-1)), (key, other)
        for labels in ticks:
            for box, its in combinations(labels, 2):
                assert not box.padded(-0.5).overlaps(its.padded(-0.5))
        assert all(box.height > 3 * size[1] * figure.dpi / 72 for box in axes)
        figure.set_dpi(figure.dpi * 0.37)  # --dpi, and the dots of a pdf
        figure.draw_without_rendering()
        for key, box in boxes(figure, FigureCanvasAgg(figure).get_renderer())[0].items():
            assert box.x1 <= figure.bbox.x1 + 1, key


@pytest.mark.parametrize("scale", SCALES)
def test_marks_stand_at_their_length(scale: str) -> None:
    options = FigureOptions(scale=scale)
    with in_style(options):
        figure = figures.arrange("lengths", made_cells(13, "m", (5, 10, 20), 1.0), options)
        (axes,) = figure.axes
        ticks = axes.get_xticks()
        for line in axes.get_lines():
            x = np.asarray(line.get_xdata())
            if line.get_linestyle() != "None" and len(x) == 3:
                away = abs(x - ticks) / np.diff(ticks).min()
                assert away.max() < (0.2 if scale == "even" else 0.08)


def test_series_are_distinct() -> None:
    styles = series_styles([str(n) for n in range(SERIES)]).values()
    for keys in (("color", "marker"), ("color", "linestyle")):
        assert len({tuple(style[key] for key in keys) for style in styles}) == SERIES


def test_what_is_too_much_for_a_figure_is_said() -> None:
    options = FigureOptions()
    no_place = "Not drawn for lack of a single length: 2."
    for name, cells, line in (
        ("lengths", made_cells(1, "m", (5, [5, 10]), 1.0), no_place),
        ("profiles", made_cells(30, "m", (5,), 1.0), "The first 28 of 30 series are shown."),
        ("curves", made_cells(1, "m", range(1, 26), 1.0), "24 of 25 panels are shown."),
    ):
        with in_style(options):
            figure = figures.arrange(name, cells, options)
        assert line in figure.get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize("scale", [0.0, 1e300, -1e9])
def test_any_finite_score_is_drawn(scale: float) -> None:
    for name in FIGURES:
        assert draw(name, made_cells(2, "m", (5,), scale), FigureOptions(dpi=20), "png")


@pytest.mark.parametrize(
    "options", [FigureOptions(height=1.0), FigureOptions(width=1.0, font_size=20.0)]
)
def test_a_figure_that_is_too_small_is_refused(options: FigureOptions) -> None:
    with pytest.raises(ConfigError, match=r"--width [\d.]+( --height 1)? --font-size"):
        draw("lengths", made_cells(13, "m", (5, 10), 1.0), options, "png")


# --- that they stay the same ---------------------------------------------------------------------

CODE = """
import sys
from pathlib import Path
from memrl.results.drawing import FORMATS, FigureOptions
from memrl.results.figures import FIGURES, write
from memrl.results.runs import load
from memrl.results.scores import PROTOCOLS, score
cells, folder = score(load(sys.argv[1]), PROTOCOLS["last"]), Path(sys.argv[2])
write(cells, folder, FIGURES, ["svg"], FigureOptions())
write(cells, folder, ["lengths"], [form for form in FORMATS if form != "svg"], FigureOptions())
"""


def test_the_same_data_give_the_same_bytes_in_another_process(
    sweep: Path, cells: list[Cell], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    write(cells, here, FIGURES, ["svg"], FigureOptions())
    others = [form for form in FORMATS if form != "svg"]
    write(cells, here, ["lengths"], others, FigureOptions())
    subprocess.run(
        [sys.executable, "-c", CODE, sweep, there],
        check=True,
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
    )
    made = {path.name: path.read_bytes() for path in here.iterdir()}
    assert made == {path.name: path.read_bytes() for path in there.iterdir()}
    assert len(made) == len(FIGURES) + len(FORMATS) - 1
    for name, content in made.items():
        assert content.startswith(MAGIC[name.rpartition(".")[2]])


BACKEND = """
import os, sys
from pathlib import Path
import memrl.results
from memrl.results.drawing import DEFAULTS
from memrl.results.figures import draw
from memrl.results.runs import load
from memrl.results.scores import PROTOCOLS, score
from memrl.run.learning_curve import learning_curve
assert "matplotlib" not in sys.modules
run = load(sys.argv[1])[0]
learning_curve(run.eval, {}, run.name, run.config["env"], Path(sys.argv[2]))
assert draw("curves", score([run], PROTOCOLS["last"]), DEFAULTS, "png")
import matplotlib.pyplot
print(os.environ["MPLBACKEND"], matplotlib.pyplot.get_backend())
"""


def test_the_level_of_random_actions_is_that_of_the_warm_up() -> None:
    """Its row is missing if it owed no update: the first one then has another round as well."""
    table = {"episodes": np.array([16.0, 24.0]), "train/return": np.array([-0.5, 0.5])}
    row = {"episodes": 16.0, "train/return": -0.5}
    for warmup_episodes, num_envs, expected in (
        (10, 8, row),
        (16, 8, row),
        (8, 8, {}),
        (0, 16, row),
        (0, 8, {}),
        (None, 8, row),
    ):
        assert random_episodes(table, warmup_episodes, num_envs) == expected
    assert random_episodes({}, 10, 8) == {}


def test_pictures_need_no_backend_and_change_none(tmp_path: Path) -> None:
    """As in a notebook, whose kernel names a backend for all its child processes."""
    named = "module://matplotlib_inline.backend_inline"
    folder, path = make_run(tmp_path, [0.5, 0.6], success=[0.5, 0.6]), tmp_path / "curve.png"
    done = subprocess.run(
        [sys.executable, "-c", BACKEND, folder, path],
        env=os.environ | {"MPLBACKEND": named, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [named, "agg"], done.stderr
    assert path.read_bytes().startswith(MAGIC["png"])


# --- the command ---------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_what_is_missing(launch: Launch, sweep: Path) -> None:
    process = command(launch, sweep, "--figures", "lengths", "--format", "svg,png", "--dpi", "50")
    assert process.wait() == 0, process.output
    lines = process.out.splitlines()
    assert lines[0].split()[:4] == ["task", "length", "series", "metric"]
    row = next(line for line in lines if line.startswith("tmaze_passive  10      lstm"))
    assert re.search(r"return  0\.\d\d \[0\.\d\d, 0\.\d\d\]  .*  4  6 +\d$", row), row
    assert "16 of 18 runs counted (1 failed, 1 stopped)." in lines
    assert "  tmaze_passive-10,dqn,lstm,seed=8: failed: disk full" in lines
    assert any("probability that a run of gpt beats one of lstm: 0." in line for line in lines)
    for form in ("svg", "png"):
        path = sweep / f"lengths.{form}"
        assert path.read_bytes().startswith(MAGIC[form])
        path.unlink()
    assert not list(sweep.glob("*.pdf"))


def test_imported_and_new_runs_come_into_one_figure(
    launch: Launch, sweep: Path, originals: Path, tmp_path: Path
) -> None:
    output = tmp_path / "figures"
    process = command(
        launch, sweep, originals, "--output", output, "--protocol", "paper", "--dpi", 50
    )
    assert process.wait() == 0, process.output
    assert "lstm (original program)" in process.out
    assert len(list(output.iterdir())) == 6
    assert not list(sweep.glob("*.png"))


def test_a_sweep_in_which_nothing_was_evaluated_yet_has_no_figure(
    launch: Launch, tmp_path: Path
) -> None:
    folder = make_run(tmp_path, [], status={"state": "running", "progress": 0.0})
    process = command(launch, folder.parent)
    assert process.wait() == 0, process.output
    assert "no figure: no run has been evaluated yet" in process.out
    assert "0 of 1 runs counted" in process.out
    assert not list(folder.parent.glob("*.png"))


def test_a_figure_that_has_nothing_to_draw_is_not_blamed_on_missing_evaluations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = {"state": "running", "progress": 0.5}  # and a task without lengths
    folder = make_run(tmp_path, [0.5], "env=pendulum_p", status=running)
    with pytest.raises(SystemExit) as ended:
        main(["plot", str(folder), "--figures", "lengths,profiles"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "no figure: lengths shows tasks that have one; profiles shows runs that count" in text


@pytest.mark.parametrize(
    "arguments, code, line",
    [
        (["nowhere"], 2, "error: nowhere: no such folder"),
        (["empty"], 2, "error: empty: no run"),
        (["foreign"], 2, "error: foreign: no run (notes: not a run)"),
        (
            ["outputs", "--metric", "eval/regret"],
            2,
            "metric must be one of eval/length, eval/return, eval/success, got eval/regret",
        ),
        (["outputs", "--style", "nice"], 2, "error: --style nice: neither a file nor one of "),
        (["outputs", "--width", "0"], 2, "argument --width: must be 1 to 50, got 0"),
        (["outputs", "--dpi", "1e9"], 2, "argument --dpi: invalid int value: '1e9'"),
        (["outputs", "--font-size", "nan"], 2, "argument --font-size: must be 2 to 50, got nan"),
        (["outputs", "--format", "png,jpg"], 2, "must be one or more of png,pdf,svg, got png,jpg"),
        (["outputs", "--figures", ""], 2, "must be one or more of lengths,curves,profiles, got "),
        (["outputs", "--protocol", "best"], 2, "invalid choice: 'best'"),
        ([], 2, "the following arguments are required: folder"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(
    arguments: list[str], code: int, line: str, launch: Launch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign" / "notes").mkdir(parents=True)
    make_run(tmp_path, [0.5, 0.6])
    before = sorted(tmp_path.rglob("*"))
    process = command(launch, *arguments)
    assert process.wait() == code, process.output
    assert line in process.err.splitlines()[-1]
    assert "Traceback" not in process.output
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []


def test_scores_are_printed_even_if_no_figure_can_be_written(
    launch: Launch, tmp_path: Path
) -> None:
    make_run(tmp_path, [0.5, 0.6])
    (tmp_path / "file").touch()
    process = command(launch, "outputs", "--output", "file/figures")
    assert process.wait() == 1, process.output
    assert process.err == "error: Not a directory: file/figures\n"
    assert process.out.startswith("task ") and "0.55" in process.out
