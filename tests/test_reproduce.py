"""Command lines that give the same runs again: composed again, they are the same."""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Sequence
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import PLAIN, make_config

from memrl.experiment import folder_of, resolve
from memrl.results.reproduce import changes, commands, text_of
from memrl.run.config import CONF, compose_config
from memrl.run.identity import ABSENT, Config, identity


def run_of(config: Config) -> tuple[str, str]:
    """What makes two runs the same: folder and identity."""
    return str(folder_of(config, PLAIN)), repr(sorted(identity(config).items()))


def composed_again(line: str) -> list[Config]:
    """The configs of a command line, as Hydra and the shell read it."""
    python, program, *arguments = shlex.split(line)
    assert (python, program) == ("python", "run.py")
    several = arguments[:1] == ["-m"]
    parsed = OverridesParser.create().parse_overrides(arguments[several:])
    assert any(override.is_sweep_override() for override in parsed) == several
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return [_again(tuple(sorted(o for o in every if "seed=" not in o)), every) for every in batch]


def _again(choices: tuple[str, ...], every: Sequence[str]) -> Config:
    """Seeds cost no composing."""
    seeds = [int(o.partition("=")[2]) for o in every if o.startswith("seed=")]
    return _composed(choices) | {"seed": seeds[0]}


@functools.cache
def _composed(choices: tuple[str, ...]) -> Config:
    return resolve(compose_config(choices))


def assert_again(configs: Sequence[Config], lines: int | None = None) -> list[str]:
    found = commands(configs)
    assert found.left_out == 0
    again = [run_of(config) for line in found.lines for config in composed_again(line)]
    assert len(again) == len(set(again))
    assert set(again) == {run_of(config) for config in configs}
    assert lines is None or len(found.lines) == lines
    return found.lines


@pytest.mark.parametrize(
    "choice",
    [
        (),
        ("env.length=50", "budget=paper"),
        ("env.length=7",),
        ("env=tmaze", "env.ambiguous_position=true", "env.penalty=null"),
        ("env=visual_match", "env.colours=shared", "env.frames=[3,60,4]"),
        ("env=visual_match", "encoder=mlp"),
        ("env=key_to_door", "algo=sacd_separate", "algo.target_entropy=0.7"),
        ("env=visual_match", "algo=dqn", "algo.hidden_dims=[64]"),
        ("algo=sacd", "algo.target_entropy=0.7", "algo.alpha=0.5"),
        ("seq_model=gpt", "seq_model.n_layer=2"),
        ("seq_model=gpt", "seq_model.n_layer=2", "seq_model.n_head=1"),
        ("algo.lr=1e-05", "dropout=0", "context_len=5"),
        ("budget.stop_at_return=0.95", "budget.eval_episodes=100"),
        ("budget.train_episodes=601",),
        ("+env.name=tmaze_passive", "threads=2"),
    ],
    ids=" ".join,
)
def test_one_run_is_given_again(choice: tuple[str, ...]) -> None:
    plain = [c.removeprefix("+") for c in choice]
    (line,) = assert_again([make_config(*plain, "seed=3", "sweep=s")], 1)
    assert "-m" not in shlex.split(line) and "seed=3 sweep=s" in line


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml")))
def test_a_sweep_of_the_paper_is_one_line_or_two(name: str) -> None:
    sweep = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())
    params = sweep["hydra"]["sweeper"]["params"] | {"seed": "0"}
    params["env.length"] = ",".join(str(params["env.length"]).split(",")[:2])  # the rest is alike
    parsed = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()])
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    configs = []
    for overrides in batch:
        with initialize_config_dir(str(ROOT / "sweeps"), version_base="1.3"):
            search = [f"hydra.searchpath=[{CONF}]"]
            configs.append(resolve(compose(name, overrides=[*overrides, *search])))
    found = commands(configs)
    assert found.left_out == 0 and len(found.lines) <= 2, found.lines
    again = {run_of(config) for line in found.lines for config in composed_again(line)}
    assert again == {run_of(config) for config in configs}


def test_a_product_is_one_line_though_one_length_needs_its_budget_named() -> None:
    """Of 5 and 10 the default is 600 episodes, of 20 it is 4,000."""
    choices = itertools.product((5, 10, 20), ("lstm", "gpt"), range(3))
    configs = [make_config(f"env.length={n}", f"seq_model={m}", f"seed={s}") for n, m, s in choices]
    (line,) = assert_again(configs, 1)
    assert "env.length=5,10,20 seq_model=gpt,lstm budget=quick 'seed=range(3)'" in line


def test_a_value_that_is_the_default_is_written_where_that_makes_one_line() -> None:
    choices = itertools.product((5, 10), ("3e-4", "1e-3"), range(3))
    configs = [make_config(f"env.length={n}", f"algo.lr={x}", f"seed={s}") for n, x, s in choices]
    (line,) = assert_again(configs, 1)
    assert "algo.lr=0.0003,0.001" in line


def test_what_is_no_product_gives_no_run_more() -> None:
    choices = list(itertools.product((5, 10), ("lstm", "gpt"), range(3)))
    configs = [make_config(f"env.length={n}", f"seq_model={m}", f"seed={s}") for n, m, s in choices]
    for missing in (0, 7):
        lines = assert_again(configs[:missing] + configs[missing + 1 :])
        assert len(lines) <= 3
    assert_again([configs[0], configs[-1]], 2)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(st.tuples(st.sampled_from([5, 10]), st.integers(0, 3)), min_size=1, max_size=8))
def test_any_set_of_runs_is_given_exactly(chosen: set[tuple[int, int]]) -> None:
    assert_again([make_config(f"env.length={n}", f"seed={s}") for n, s in chosen])


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(st.characters(codec="utf-8", exclude_characters="$", min_codepoint=32)),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
def test_any_value_is_read_back(value: Any) -> None:
    word = shlex.split(shlex.quote(f"key={text_of(value)}"))
    (override,) = OverridesParser.create().parse_overrides(word)
    read = override.value()
    assert (type(read), read) == (type(value), value) or repr(read) == repr(value)
    assert not override.is_sweep_override()


@pytest.mark.parametrize("name", ["2024", "null", "a,b", "it's", "true", "1e5"])
def test_a_sweep_keeps_its_name(name: str) -> None:
    config = make_config() | {"sweep": name}
    (line,) = commands([config]).lines
    (again,) = composed_again(line)
    assert again["sweep"] == name


def test_each_sweep_has_a_command_of_its_own() -> None:
    configs = [make_config(f"seed={n}", f"sweep={s}") for s in "ab" for n in range(2)]
    lines = assert_again(configs, 2)
    assert [line.rpartition(" ")[2] for line in lines] == ["sweep=a", "sweep=b"]


def test_numbers_of_another_type_are_other_values() -> None:
    config = make_config("env.goal_reward=1")
    assert changes(config) == {"env.goal_reward": (1.0, 1)}
    (line,) = assert_again([config], 1)
    assert "env.goal_reward=1 " in line


@pytest.mark.parametrize("change", [{"device": "${seed}"}, {"threads": ["${a}"]}, {"seed": None}])
def test_what_no_command_can_say_is_left_out(change: dict[str, Any]) -> None:
    config = make_config() | change
    if config["seed"] is None:
        del config["seed"]
    assert commands([config]) == ([], 1)


def test_changes_are_against_the_defaults_of_the_same_task_and_model() -> None:
    assert changes(make_config("env=visual_match", "seq_model=gpt", "budget=paper", "seed=5")) == {}
    assert changes(make_config("algo.lr=0.01", "env.length=20")) == {
        "algo.lr": (0.0003, 0.01),
        "budget.train_episodes": (4000, 600),
    }


def test_a_key_that_is_new_or_gone_is_said() -> None:
    config = make_config()
    config["algo"]["width"] = 3
    del config["algo"]["tau"]
    assert changes(config) == {"algo.tau": (0.005, ABSENT), "algo.width": (ABSENT, 3)}
    (line,) = commands([config]).lines
    assert "+algo.width=3" in line and "'~algo.tau'" in line


@pytest.mark.parametrize("group", ["env", "algo", "seq_model"])
def test_what_is_not_known_here_is_left_out_and_counted(group: str) -> None:
    config = make_config()
    config[group]["name"] = "of_mine"
    assert changes(config) is None
    found = commands([config, make_config()])
    assert (len(found.lines), found.left_out) == (1, 1)
    assert commands([{}]) == ([], 1) and commands([]) == ([], 0)
