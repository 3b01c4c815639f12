"""A sweep's composer gives, copy by copy, what Hydra composes from its files run by run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from memrl.experiment import resolve
from memrl.run.config import CONF
from memrl.run.outcome import ConfigError, show
from memrl.sweep.compose import (
    Composer,
    check_one,
    compose_sweep,
    name_after,
    refuse_several_names,
)


@pytest.fixture(scope="module")
def master() -> Iterator[DictConfig]:
    """The config of a command line ``-m`` with nothing else, as a sweeper is given it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        assert running is not None
        yield running.compose_config("config", [], run_mode=RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def composer(master: DictConfig) -> Composer:
    """One for all tests of this file, so that each meets what the others left in its memory."""
    return Composer(GlobalHydra.instance().config_loader(), master)


def content(do: Any) -> str:
    """All that is in a config, resolved too, if it can be; or the error that there is none."""
    try:
        cfg = do()
    except Exception as error:  # of Hydra or OmegaConf; both have to give the same
        return f"{type(error).__name__}: {error}"
    text = repr(OmegaConf.to_container(cfg, resolve=False))
    try:
        return text + repr(OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        return f"{text}{type(error).__name__}: {error}"


def assert_same(composer: Composer, overrides: Sequence[str]) -> str:
    expected = content(lambda: compose("config", list(overrides)))
    assert content(lambda: composer(overrides)) == expected, overrides
    return expected


# --- the same as Hydra ---------------------------------------------------------------------------

SWEEPS = {  # what stands on the command line, and of how many runs
    # what interpolations and lookups give: episodes by length, widths and heads by model
    "env.length=50,1500 budget=paper,smoke": 4,
    "env=visual_match seq_model=gpt,lstm seq_model.n_layer=4 encoder.obs_dim=${batch_size}": 2,
    # an option of a group and a key that it sets, in both orders
    "budget=quick budget.train_episodes=7,8": 2,
    "budget.train_episodes=7,8 budget=quick": 2,
    "algo=sacd,dqn env=key_to_door encoder=mlp encoder.obs_dim=3": 2,
    # kinds of values
    "dropout=1e-3 context_len=null algo.hidden_dims=[8],[16,16] algo.shared_forward=true": 2,
    "sweep='a,b','c=d' algo.lr=nan algo.gamma=inf logger=wandb logger.project=null": 2,
    'sweep="${env.name}-${seed}" seed=3,4 env={length:5}': 2,
    # functions
    "algo.hidden_dims=choice([8],[16,16]) seed=str(3) batch_size=int(4.0)": 2,
    "seed=sort(3,1,2)": 3,
    "seq_model=glob([l*,g*],exclude=[gru,lru])": 2,
    # additions, deletions, packages
    "+note.author=me,you +note.year=1 ++algo.gamma=0.5": 2,
    "~algo.gamma +algo.gamma=0.5 ~logger seed=1,2": 2,
    "+encoder@other=cnn +seq_model@second.memory=gpt second.memory.n_layer=2,3": 2,
}
REFUSED = [
    "encoder@encoder=cnn",
    "env.lenght=3",
    "seq_model=foo",
    "seq_model=lstm seq_model.n_head=2",
    "~seed=1",
    "+algo.gamma=0.5",
    "algo.hidden_dims.7=3",
]
ORDERS = [  # the later one counts
    ["algo.gamma=0.7", "++algo.gamma=0.5"],
    ["++algo.gamma=0.5", "algo.gamma=0.7"],
    ["algo.gamma=0.7", "~algo.gamma"],
    ["~algo.gamma", "algo.gamma=0.7"],
    ["+note={a:1}", "note.a=2", "++note.a=3"],
]


@pytest.mark.parametrize("line", SWEEPS)
def test_every_run_is_what_hydra_composes(line: str, composer: Composer) -> None:
    runs = composer.product(line.split())
    assert len(runs) == SWEEPS[line]
    found = {assert_same(composer, overrides) for overrides in runs}
    assert len(found) == len(runs)  # no two runs of these are the same
    assert all(text.startswith("{") and text.endswith("}") for text in found)  # nor an error


@pytest.mark.parametrize("line", REFUSED)
def test_what_hydra_refuses_is_refused_in_the_same_words(line: str, composer: Composer) -> None:
    assert not assert_same(composer, line.split()).startswith("{")


@pytest.mark.parametrize("overrides", ORDERS, ids=" ".join)
def test_overrides_of_one_key_apply_in_the_order_they_are_given(
    overrides: list[str], composer: Composer
) -> None:
    assert_same(composer, overrides)


CHOICES = {
    "env": ["tmaze_passive", "visual_match", "key_to_door"],
    "seq_model": ["lstm", "gpt"],
    "budget": ["paper", "smoke"],
    "algo": ["dqn", "sacd"],
    "encoder": ["mlp", "cnn"],
}
VALUES = {
    "env.length": ["50", "60", "7", "null"],
    "seq_model.n_layer": ["1", "2", "${env.length}"],
    "seq_model.n_head": ["2"],
    "encoder.obs_dim": ["3", "${seq_model.name}"],
    "algo": ["{gamma:0.5}"],
    "algo.gamma": ["0.5", "1e-3", "text", "[1,2]"],
    "budget.train_episodes": ["5", "null"],
    "budget.train_steps": ["5", "null"],
    "sweep": ["a", "'b,c'", '"d e"', "${seq_model.name}"],
    "seed": ["1", "2"],
    "context_len": ["null", "8"],
}
one_override = st.one_of(
    st.sampled_from([f"{key}={v}" for key, values in CHOICES.items() for v in values]),
    st.sampled_from([f"{key}={v}" for key, values in VALUES.items() for v in values]),
    st.sampled_from([f"{p}{k}=9" for p in ("+", "++") for k in ("note.a", "algo.gamma", "seed")]),
    st.sampled_from(["~algo.gamma", "~env", "~seed", "~note.a", "+encoder@other=cnn"]),
)


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # six overrides can be read as they are; shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(overrides=st.lists(one_override, max_size=6, unique_by=lambda text: text.split("=")[0]))
def test_any_overrides_in_any_order_give_what_hydra_gives(
    overrides: list[str], composer: Composer
) -> None:
    assert_same(composer, overrides)


def test_configs_are_copies_that_do_not_share_anything(composer: Composer) -> None:
    line = ["seq_model=gpt", "seed=3"]
    before = content(lambda: composer(line))
    changed = composer(line)
    changed.algo.hidden_dims.append(7)
    changed.env.length = 99
    changed.seed = 4
    assert content(lambda: composer(line)) == before
    assert content(lambda: composer(["seq_model=gpt", "seed=4"])) == before.replace(
        "'seed': 3", "'seed': 4"
    )


def test_what_comes_from_hydras_config_is_of_the_run_itself(master: DictConfig) -> None:
    """Also where runs with the same choices do not follow one another."""
    loader = GlobalHydra.instance().config_loader()
    project = "logger.project=${hydra:runtime.choices.env}"
    arguments = [
        "seed=1,2",
        "env=tmaze_active,tmaze_passive",
        "logger=wandb",
        "logger.mode=offline",
        project,
    ]
    for run in compose_sweep(Composer(loader, master), arguments):
        assert run.config["logger"]["project"] == run.config["env"]["name"]


# --- runs ----------------------------------------------------------------------------------------


def test_runs_are_the_resolved_configs_in_order_each_in_its_folder(master: DictConfig) -> None:
    loader = GlobalHydra.instance().config_loader()
    runs = compose_sweep(Composer(loader, master), ["seq_model=lstm,gpt", "seed=1,0", "sweep=mine"])
    names = [f"tmaze_passive-10,dqn,{m},seed={s}" for m in ("lstm", "gpt") for s in (1, 0)]
    assert [run.folder for run in runs] == [Path("outputs", "mine", name) for name in names]
    for run in runs:
        config = run.config
        given = [f"seq_model={config['seq_model']['name']}", f"seed={config['seed']}", "sweep=mine"]
        assert config == resolve(compose("config", given))


def test_the_same_run_asked_for_twice_is_one(master: DictConfig) -> None:
    loader = GlobalHydra.instance().config_loader()
    runs = compose_sweep(Composer(loader, master), ["seed=1,1", "algo.gamma=0.99,0.990"])
    assert [run.folder.name for run in runs] == ["tmaze_passive-10,dqn,lstm,seed=1"]


def test_a_later_argument_replaces_an_earlier_one(master: DictConfig) -> None:
    """So that the command line narrows what a sweep's file says."""
    loader = GlobalHydra.instance().config_loader()
    runs = compose_sweep(Composer(loader, master), ["seed=range(9)", "env.length=5,10", "seed=7"])
    assert [(r.config["env"]["length"], r.config["seed"]) for r in runs] == [(5, 7), (10, 7)]


@pytest.mark.parametrize("values", [(0.7, 0.5), (0.5, 0.7)])
def test_the_order_of_arguments_is_that_of_overrides(
    values: tuple[float, float], master: DictConfig
) -> None:
    loader = GlobalHydra.instance().config_loader()
    plain, forced = f"algo.gamma={values[0]}", f"++algo.gamma={values[1]}"
    for arguments in ([plain, forced], [forced, plain]):
        (run,) = compose_sweep(Composer(loader, master), arguments)
        assert run.config["algo"]["gamma"] == values[arguments[0] == plain]


# --- a sweep's name ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("env.length=5,10 seq_model=lstm,gpt seed=range(3)", "env.length,seed,seq_model"),
        ("budget=smoke seq_model=lstm,gpt env.length=5,10", "budget=smoke,env.length,seq_model"),
        ("seed=3 algo.lr=1e-3 dropout=0.0", "algo.lr=0.001,dropout=0,seed"),
        ("algo.lr=interval(0,1) env={length:5}", "algo.lr,env.length=5"),
        ("device=cpu,cuda logger=none outputs=x logger.mode=y checkpoint_minutes=1", "default"),
        ("algo.hidden_dims=[8,8] context_len=null", "algo.hidden_dims=[8,8],context_len=null"),
        ("~env.length init=a/b", "init=a-b,-env.length,3c58bb5d"),
    ],
)
def test_a_sweep_is_named_after_what_its_command_sets(arguments: str, name: str) -> None:
    assert name_after(arguments.split()) == name
    assert name_after([*arguments.split(), "hydra/launcher=local", "device=cpu"]) == name


VALUES = st.one_of(
    st.integers(-99, 99), st.booleans(), st.floats(0.01, 9), st.text("abcxyz", min_size=1)
)
SETTINGS = st.dictionaries(
    st.sampled_from(["env.length", "seq_model", "algo.lr", "dropout", "seed", "budget", "x.y"]),
    st.lists(VALUES, min_size=1, max_size=3, unique_by=show),
    min_size=1,
)


@settings(deadline=None, max_examples=25)
@given(SETTINGS, st.randoms(), VALUES)
def test_the_name_of_a_sweep_depends_on_keys_and_fixed_values_alone(
    keys: dict[str, list[Any]], random: Random, value: Any
) -> None:
    def command(spaced: bool = False) -> list[str]:
        plus, comma = ("++", ", ") if spaced else ("", ",")
        return [f"{plus}{key}={comma.join(map(show, values))}" for key, values in keys.items()]

    name = name_after(command())
    shuffled = command(spaced=True)
    random.shuffle(shuffled)
    assert name_after([*command()[:1], *shuffled]) == name
    assert name_after(command(), "mine") != name
    assert re.fullmatch(r"[A-Za-z0-9._=,+\[\]-]{1,150}", name)
    key, values = random.choice(list(keys.items()))
    if len(values) > 1 or key == "seed":
        keys[key] = [*values, value]
        assert name_after(command()) == name
    else:
        keys[key] = [value]
        assert (name_after(command()) == name) is (show(value) == show(values[0]))


def test_long_names_of_sweeps_are_shortened_and_stay_distinct() -> None:
    many = [f"section.key{n}=1" for n in range(20)]
    one, other = name_after([*many, "z=1"]), name_after([*many, "z=2"])
    assert len(one) == len(other) == 150 and one != other and one[:141] == other[:141]


def test_a_sweep_has_the_name_that_it_is_given_or_one_of_its_own(master: DictConfig) -> None:
    loader = GlobalHydra.instance().config_loader()
    (run, _) = compose_sweep(Composer(loader, master), ["seed=1,2", "env.length=5"])
    assert run.folder.parent == Path("outputs", "env.length=5,seed")
    assert run.config["sweep"] == "env.length=5,seed"
    (run,) = compose_sweep(Composer(loader, master), ["outputs=/scratch", "sweep=runs"])
    assert run.folder.parent == Path("/scratch/runs")
    for key in ("outputs", "sweep"):
        assert refusal(master, f"{key}=a,b")[0].startswith(f"{key}: one sweep has one ")


# --- refused -------------------------------------------------------------------------------------


def refusal(master: DictConfig, *arguments: str) -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    with pytest.raises(ConfigError) as caught:
        compose_sweep(Composer(loader, master), list(arguments))
    return str(caught.value).split("\n  ")


def test_each_kind_of_error_is_one_line_with_the_runs_it_concerns(master: DictConfig) -> None:
    """Type, range, table, and what only building an agent shows."""
    arguments = ["env.length=10,7", "seq_model=gpt", "seq_model.n_layer=1,3,x", "seed=0,1"]
    assert refusal(master, *arguments) == [
        "10 of 12 runs were refused; nothing was started:",
        "seq_model.n_head must divide the width 128, got 3"
        " (env.length=10 seq_model=gpt seq_model.n_layer=3 seed=0 and 1 more)",
        "seq_model.n_layer=x: must be an integer"
        " (env.length=10 seq_model=gpt seq_model.n_layer=x seed=0 and 3 more)",
        "no published budget for tmaze_passive 7, only for 5, 10, 20, 50, 100, 250, 500,"
        " 750, 1000, 1250, 1500: use budget=quick, budget.train_episodes=N or"
        " budget.train_steps=N"
        " (env.length=7 seq_model=gpt seq_model.n_layer=1 seed=0 and 3 more)",
    ]


def test_many_kinds_of_errors_are_counted(master: DictConfig) -> None:
    lines = refusal(master, "seed=-1,-2,-3,-4,-5,-6,-7,0")
    assert lines[0] == "7 of 8 runs were refused; nothing was started:"
    assert lines[1] == "seed must be at least 0 and below 2**32, got -1 (seed=-1)"
    assert lines[-1] == "and 2 other errors"
    assert len(lines) == 7


def test_a_sweep_of_one_is_refused_like_a_single_run(master: DictConfig) -> None:
    assert refusal(master, "algo.gamma=2") == ["algo.gamma must be in [0, 1], got 2"]


def test_runs_that_have_weights_need_no_more_where_they_began(
    master: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["init_from=gone", "env.length=5", "seed=0,1", "sweep=s"]
    name = "tmaze_passive-5,dqn,lstm,init_from=gone,seed={}"
    for seed, file in enumerate(("checkpoint.pt", "agent.pt")):
        assert refusal(master, *arguments)[-1].startswith("init_from=gone: not the folder of a run")
        folder = tmp_path / "outputs" / "s" / name.format(seed)
        folder.mkdir(parents=True)
        (folder / file).touch()
    loader = GlobalHydra.instance().config_loader()
    runs = compose_sweep(Composer(loader, master), arguments)
    assert [run.config["init_from"] for run in runs] == ["gone", "gone"]
    assert [run.folder.name for run in runs] == [name.format(0), name.format(1)]


@pytest.mark.parametrize(
    "key", ["eval_every", "eval_episodes", "warmup_episodes", "train_episodes"]
)
def test_a_sweep_is_refused_where_only_the_trainer_of_a_run_would_be(
    key: str, master: DictConfig
) -> None:
    expected = [f"budget.{key} must be at least 1, got 0"]
    assert refusal(master, "budget=smoke", f"budget.{key}=0", "seed=0,1") == expected


@pytest.mark.parametrize("size", ["replay_capacity", "env.length", "batch_size"])
def test_a_sweep_is_refused_if_no_machine_has_the_memory(size: str, master: DictConfig) -> None:
    (line,) = refusal(master, "budget=smoke", f"{size}={10**15}", "seed=0,1")
    assert line.startswith((f"{size} must fit into memory", f"{size}={10**15}: the default"))


def test_what_another_sweeper_does_not_choose_is_checked_before_it_begins(
    master: DictConfig,
) -> None:
    composer = Composer(GlobalHydra.instance().config_loader(), master)
    choices = ["seq_model=choice(gpt,lstm)", "seq_model.n_layer=2"]
    swept = [*choices, "algo.lr=tag(log,interval(0,1))", "env.length=range(5,9)", "seed=-1"]
    with pytest.raises(ConfigError, match=r"^seed must be at least 0 and below .*, got -1$"):
        check_one(composer, swept)
    check_one(composer, [*swept, "seed=int(interval(1,4))"])  # a later argument counts
    for key in ("sweep", "outputs"):
        with pytest.raises(ConfigError, match=f"^{key}: one sweep has one "):
            refuse_several_names(["seed=1", f"{key}=a,b"])
