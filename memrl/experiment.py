"""One run: compose -> validate -> build -> fit. The learning core never sees a config."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

import memrl
from memrl.checks import require, require_at_least
from memrl.interfaces import Agent, Logger, TaskSpec
from memrl.run import checkpoint, identity, schema, session
from memrl.run.config import TABLE, NoEntry, compose_config, explain_budget, leaves
from memrl.run.files import Unreadable
from memrl.run.identity import GROUPS, NAMED_GROUPS, SINGLE_RUNS, Config, outputs_folder
from memrl.run.logger import check_logger, wandb_refusal
from memrl.run.outcome import CannotContinue, ConfigError, Failure, in_one_line, show
from memrl.run.status import read_status

if TYPE_CHECKING:
    import torch
    from torch import nn

    from memrl.run.law import Verdict
    from memrl.trainer import Trainer


log = logging.getLogger("memrl")

# Keys that decide how much memory is needed; ``env.`` stands for all keys of that section.
SIZES = (
    *("env.", "encoder.", "seq_model.", "algo.", "num_envs", "batch_size"),
    *("context_len", "replay_capacity", "replay_episodes", "budget.eval_episodes"),
)
ANY_MACHINE = 2**40  # bytes of memory that another machine may have


def resolve(cfg: DictConfig, sweep: str = SINGLE_RUNS) -> Config:
    """Return the config as plain resolved values, checked as far as possible before it is built.

    ``sweep`` is the name of its sweep if it chooses none.

    Raises:
        ConfigError: one line with the key, its value and what is allowed.
    """
    plain: Config = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    if isinstance(plain.get("budget"), dict):
        plain["budget"].pop(TABLE, None)
    schema.check_types(plain)
    for group in GROUPS:
        if not isinstance(plain.get(group), dict):
            raise ConfigError(f"{group}={show(plain.get(group))}: must be a group's option")
        if group in NAMED_GROUPS and not isinstance(plain[group].get("name"), str):
            advice = "the option's file must have it, as lstm.yaml has name: lstm"
            raise ConfigError(f"{group}.name is missing: {advice}")
    if plain["env"].get("length", 0) is None:  # a run is named after it
        raise ConfigError("env.length=null: must be an integer")
    # The task's own ranges first: a table has no entry for a length that is out of range.
    task = {"env": schema.check_group("env", dict(leaves(cfg.env, "env")))}
    with enough_memory(task), closing(make_env(task, 1)):
        pass
    try:
        values = dict(leaves(cfg, ""))
    except NoEntry as error:
        raise ConfigError(explain_budget(error, plain | task)) from None
    config = schema.check_types(values)
    schema.check_ranges(config)
    logger = config["logger"]
    if logger["_target_"] is not None:
        check_logger(schema.find(logger["_target_"]), logger)
    return config | {"sweep": config["sweep"] or sweep}


def check_names(config: Config, choices: Mapping[str, Any]) -> None:
    """Check that options of groups have the names of their files, after which runs are named.

    Args:
        choices: the chosen options, by group.

    Raises:
        ConfigError: a name is no option.
    """
    for group in (*NAMED_GROUPS, "budget"):
        name, choice = config[group].get("name"), choices.get(group)
        if name is None or choice is None or name == choice:
            continue
        file = f"{group}/{choice}.yaml"
        if _compose_default((f"{group}={name}",)) is None:
            raise ConfigError(f"{group}.name={name}: must be {choice}, as its file is {file}")
        _warn(f"warning: {file} has name: {name}, so runs and figures say {name}, not {choice}")


@functools.cache  # a sweep has it in many runs
def _warn(text: str) -> None:
    log.warning(text)


def folder_of(config: Config) -> Path:
    """Return the folder of a resolved config, ``<outputs>/<sweep>/<run>``, which need not exist."""
    default = default_config(config)
    if default is None:
        groups = (*NAMED_GROUPS, *(["budget"] if "name" in config["budget"] else []))
        names = {group: config[group]["name"] for group in groups}
        wrong = [g for g, name in names.items() if _compose_default((f"{g}={name}",)) is None]
        group = (wrong or groups)[0]
        file = f"{group}/{names[group]}.yaml"
        raise ConfigError(f"{group}.name={names[group]}: must be its file's; there is no {file}")
    name, older_name = identity.run_names(config, default)
    sweep = outputs_folder(config) / (config["sweep"] or SINGLE_RUNS)
    folder, older = (sweep / text for text in (name, older_name))
    return older if older != folder and older.exists() and not folder.exists() else folder


def default_config(config: Mapping[str, Any]) -> Config | None:
    """Return the config of the same env, length, algo and seq_model with nothing else changed.

    A budget that has a name, as ``fast`` has, is chosen too: its keys are no changes. The result
    is None if one of them is no option in ``conf/``. The result is shared: do not change it.
    """
    flat = identity.flatten(config)
    choices = [f"{group}={flat.get(f'{group}.name')}" for group in NAMED_GROUPS]
    if "budget.name" in flat:
        choices.append(f"budget={flat['budget.name']}")
    length = flat.get("env.length")  # the config of a run that was read may hold anything
    if isinstance(length, list) and all(isinstance(n, int) for n in length):
        return _compose_default(tuple(choices), tuple(length))
    return _compose_default(tuple(choices), length if isinstance(length, int) else None)


@functools.cache
def _compose_default(
    choices: tuple[str, ...], length: int | tuple[int, ...] | None = None
) -> Config | None:
    try:
        config = _compose_choices(choices)
        if length is not None:
            config = copy.deepcopy(config)
            config.env.length = length
        return dict(leaves(config, "", strict=False))
    except (HydraException, ConfigAttributeError):
        return None


@functools.cache  # from files, which takes much longer than all lengths of a sweep
def _compose_choices(choices: tuple[str, ...]) -> DictConfig:
    return compose_config(choices)


def clear_caches() -> None:
    """Forget what was read or checked before: files, modules and logins may have changed since."""
    caches = (_compose_default, _compose_choices, _warn, schema.parameters_of, wandb_refusal)
    for function in caches:
        function.cache_clear()
    _broken_laws.clear()


# --- build ---------------------------------------------------------------------------------------


def arguments(
    path: str, section: Mapping[str, Any], available: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what ``make`` calls a section's ``_target_`` with.

    Raises:
        ConfigError: a missing key.
    """
    signature = inspect.signature(schema.find(section["_target_"]))
    labels = schema.labels_of(path)
    keys = {key: value for key, value in section.items() if key not in labels}
    result = {k: v for k, v in available.items() if k in signature.parameters} | keys
    try:
        signature.bind(**result)
    except TypeError as error:
        raise ConfigError(f"{option(path, section)}: {error}") from None
    return result


def make(path: str, section: Mapping[str, Any], **available: Any) -> Any:
    """Construct a section's ``_target_`` from its keys and from what memrl provides.

    Of ``available`` the constructor gets what it has a parameter for.

    Raises:
        ConfigError: a missing key, or a value that the constructor refused.
    """
    target = schema.find(section["_target_"])
    try:
        made = target(**arguments(path, section, available))
    except ValueError as error:
        first = str(error).split(" ")[0]
        prefix = "" if first in schema.RANGES else f"{option(path, section)}: "
        prefix = f"{path}." if first in section else prefix
        raise ConfigError(prefix + str(error)) from error
    schema.check_kind(path, section["_target_"], type(made))  # what a function returned
    return made


def option(path: str, section: Mapping[str, Any]) -> str:
    """Return a group with its option, as it is chosen: algo=dqn."""
    return f"{path}={section['name']}" if isinstance(section.get("name"), str) else path


@contextlib.contextmanager
def enough_memory(config: Mapping[str, Any]) -> Iterator[None]:
    """Turn a failed allocation into one line that names the largest size in the config.

    Raises:
        Failure: out of memory.
    """
    from memrl.run import machine

    with machine.within_free_memory() as free:
        try:
            yield
        except Exception as error:
            if not machine.is_out_of_memory(error):
                raise
            sizes = [
                (max(value) if isinstance(value, list) else value, key, value)
                for key, value in identity.flatten(config).items()
                if key.startswith(SIZES) and _is_size(value)
            ]
            _, key, value = max(sizes, default=(0, "env", config["env"].get("name")))
            room = f"{free / 2**30:.1f} GiB are free"
            raise Failure(f"{key}={show(value)}: out of memory, {room}") from error


def _is_size(value: Any) -> bool:
    values = value if isinstance(value, list) and value else [value]
    return all(type(item) is int for item in values)


@contextlib.contextmanager
def refusals(prefix: str) -> Iterator[None]:
    """Turn a ValueError into a ConfigError, its message after the prefix."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(prefix + str(error)) from None


@contextlib.contextmanager
def closing(resource: Any) -> Iterator[Any]:
    """Close an environment, or what has some; that it fails to close is no failure of a run."""
    try:
        yield resource
    finally:
        try:
            resource.close()
        except Exception:
            log.debug("an environment failed to close", exc_info=True)


def make_env(config: Config, num_envs: int, render_mode: str | None = None) -> Any:
    """Build the task's vector environment; one that draws nothing does not get ``render_mode``."""
    from memrl.actions import actions_of
    from memrl.rollout import check_env

    env = make("env", config["env"], num_envs=num_envs, render_mode=render_mode)
    with refusals(f"{option('env', config['env'])}: "):
        check_env(env, num_envs)
        actions_of(env.single_action_space)
    return env


def build_agent(config: Config) -> tuple[Agent, TaskSpec, torch.device]:
    """Build the agent of a resolved config; return also its task and where it computes."""
    import torch

    from memrl.actions import actions_of
    from memrl.memory import Memory
    from memrl.rollout import check_first_step
    from memrl.run import machine

    with refusals(""):
        keys = ("threads", "precision", "device", "update")
        device = machine.prepare(**{key: config[key] for key in keys})
    torch.manual_seed(config["seed"])
    with closing(make_env(config, 1)) as env:
        spec = TaskSpec(env.single_observation_space, env.single_action_space, env.horizon)
        with refusals(f"{option('env', config['env'])}: "):
            check_first_step(env)
    window = config["context_len"] or spec.horizon
    if window > spec.horizon:
        allowed = f"null (the whole episode) or at most the horizon, {spec.horizon}"
        raise ConfigError(f"context_len must be {allowed}, got {window}")
    actions = actions_of(spec.action_space)

    def new_memory() -> Memory:
        encoder = make("encoder", config["encoder"], spec=spec, action_width=actions.width)
        seq_model = make_seq_model(config, encoder.output_dim, window)
        precision = machine.window_format(config["precision"], device)
        return Memory(encoder, seq_model, actions, precision).to(device)

    agent = make(
        "algo",
        config["algo"],
        memory=new_memory(),
        new_memory=new_memory,
        horizon=spec.horizon,
        train_steps=train_steps(config, spec),
    )
    return agent, spec, device


def train_steps(config: Config, spec: TaskSpec) -> int:
    """Return the environment steps of a run's budget; its warm-up may be among them."""
    budget = config["budget"]
    steps = budget.get("train_steps")  # absent in a submission of an older version
    return max(steps or (budget["train_episodes"] or 0) * spec.horizon, 0)


def make_seq_model(config: Config, input_dim: int, context_len: int) -> nn.Module:
    """Build the sequence model of a resolved config, for inputs of a width and windows.

    Raises:
        ConfigError: its constructor refused a value, it does not say how wide its outputs are, or
            it names a parameter of its recurrence that it does not have.
    """
    dropout = {key: config[key] for key in ("dropout", "attention_dropout")}
    available = {"input_dim": input_dim, "context_len": context_len, **dropout}
    model: nn.Module = make("seq_model", config["seq_model"], **available)
    target = f"seq_model._target_={config['seq_model']['_target_']}"
    if not isinstance(width := getattr(model, "output_dim", None), int):
        raise ConfigError(f"{target}: output_dim must be the width of its outputs, got {width}")
    for part in model.modules():
        names = getattr(part, "recurrence_parameters", ())
        own = [name for name, _ in part.named_parameters(remove_duplicate=False)]
        if not (isinstance(names, tuple) and {*names} <= {*own}):
            allowed = f"a tuple of names of parameters of {type(part).__name__}: {', '.join(own)}"
            raise ConfigError(f"{target}: recurrence_parameters must be {allowed}; got {names!r}")
    return model


def refuse_lawless(config: Config, agent: Agent, spec: TaskSpec, device: torch.device) -> None:
    """Check the agent's sequence model, each one once in a process: a sweep has a thousand runs.

    Raises:
        ConfigError: it breaks a law; the cause is what the model raised, if it did.
    """
    from memrl.run.law import SHORT, check_laws

    memory = agent.memory
    window = config["context_len"] or spec.horizon
    inputs = memory.encoder.output_dim, device, memory.precision, min(SHORT, window + 1)
    choices = [config[key] for key in ("seq_model", "dropout", "attention_dropout")]
    key = repr((choices, window, inputs))
    if key not in _broken_laws:
        verdicts = check_laws(memory.seq_model, *inputs)
        _broken_laws[key] = next((verdict for verdict in verdicts if not verdict.ok), None)
    if verdict := _broken_laws[key]:
        model = f"seq_model={config['seq_model']['name']}"
        advice = "`memrl check` with the same -cd and seq_model keys says more"
        line = f'{model} breaks the law "{verdict.law}": {verdict.text}; {advice}'
        raise ConfigError(line) from verdict.error


_broken_laws: dict[str, Verdict | None] = {}


def initialize(agent: Agent, config: Config) -> None:
    """Load the weights of the run that ``init_from`` names, if it names one.

    They are what acting needs: except for DQN, the policy and its memory. Critics, optimizers and
    exploration start anew.

    Raises:
        ConfigError: that run is not done, or its weights do not fit.
    """
    source = config.get("init_from")  # absent in a submission of an older version
    if source is None:
        return
    folder = Path(source)
    with refusals(f"init_from={source}: "):
        if problem := checkpoint.weights_problem(folder):
            raise ValueError(
                f"not the folder of a run that is done: {checkpoint.WEIGHTS} {problem}"
            )
        try:
            theirs = identity.read_config(folder)
            weights = checkpoint.load_weights(folder, theirs)
        except (OSError, Unreadable, CannotContinue) as error:
            raise ValueError(in_one_line(error)) from None
        there, here = (identity.flatten(c).get("algo._target_") for c in (theirs, config))
        if there != here:
            raise ValueError(f"its algo is {show(there)}, here it is {show(here)}")
        if misfit := checkpoint.misfit(weights, agent.weights()):
            raise ValueError(f"its weights do not fit: {misfit}")
    options = [
        difference
        for difference in identity.differences(theirs, config)
        if difference.startswith(("encoder.", "seq_model.")) and ".name:" not in difference
    ]
    if options:
        _warn(f"warning: init_from: the weights fit, but options differ: {'; '.join(options)}")
    agent.load_weights(weights)


def own_weights(config: Config, folder: Path) -> Config:
    """Return a config without ``init_from`` if its run has weights: where it began may be gone."""
    begun = checkpoint.exists(folder) or (folder / checkpoint.WEIGHTS).exists()
    return config | {"init_from": None} if begun else config


def build(config: Config) -> Trainer:
    """Build everything a run needs from a resolved config; nothing is written.

    Raises:
        ConfigError: a value that something refused.
        Failure: out of memory.
    """
    from memrl.replay import free_memory

    with enough_memory(config):
        agent, spec, device = build_agent(config)
        refuse_lawless(config, agent, spec, device)
        initialize(agent, config)
        free = free_memory(device)
        return _build_trainer(config, agent, spec, device, check_sizes(config, spec, free))


def check(config: Config, here: bool) -> None:
    """Raise what ``build`` would, on this machine or, unless ``here``, on a larger one.

    The replay is the smallest that holds a round, and nothing is built on a GPU.
    """
    import torch

    from memrl.replay import free_memory

    may_use_gpu = config["device"] != "cpu" and (not here or torch.cuda.is_available())
    if not here or torch.cuda.is_available():  # what another machine, or the GPU, may have
        config = config | {"update": "eager", "precision": "float32"}
    with enough_memory(config):
        agent, spec, device = build_agent(config | {"device": "cpu"})
        try:
            refuse_lawless(config, agent, spec, device)
        except ConfigError as error:
            if error.__cause__ is None or not may_use_gpu:  # which the model may need
                raise
        initialize(agent, config)
        check_sizes(config, spec, free_memory() if here else ANY_MACHINE)
        slots = config["num_envs"] * (spec.horizon + 1)
        with closing(_build_trainer(config, agent, spec, device, slots)):
            pass


def _build_trainer(
    config: Config, agent: Agent, spec: TaskSpec, device: torch.device, slots: int
) -> Trainer:
    from memrl.algos.graphs import update_function
    from memrl.replay import Replay

    logger = config["logger"]
    if logger["_target_"] is not None:  # it is opened once the run has a folder
        arguments("logger", logger, dict.fromkeys(schema.BUILT["logger"]))
    with refusals("replay_"):
        window, cut = config["context_len"] or spec.horizon, config["update"] == "eager"
        best = config.get("replay_best", 0.0)  # absent in a submission of an older version
        replay = Replay(spec, window, slots, device, cut, best)  # other updates need fixed shapes
    return make(  # type: ignore[no-any-return]
        "budget",
        {**config["budget"], "_target_": "memrl.trainer.Trainer"},
        make_env=lambda num_envs: make_env(config, num_envs),
        agent=agent,
        replay=replay,
        device=device,
        horizon=spec.horizon,
        agent_update=update_function(agent, config["update"]),
        **{key: config[key] for key in ("seed", "num_envs", "batch_size", "updates_per_step")},
        updates_per_round=config.get("updates_per_round"),  # absent in an older submission
    )


def check_sizes(config: Config, spec: TaskSpec, free: int) -> int:
    """Check that replay and batches fit into ``free`` bytes; return the replay's slots.

    Raises:
        ConfigError: they do not.
    """
    from memrl.replay import check_memory, slot_bytes

    slots, each = replay_capacity(config, spec), slot_bytes(spec)
    length = config["env"].get("length")
    cause = "" if length is None else f"env.length={show(length)}: "
    given = [key for key in ("replay_episodes", "replay_capacity") if config.get(key) is not None]
    name = given[0] if given else f"{cause}the default replay_capacity"
    with refusals(""):
        check_memory(name, slots, each, free)
    window = config["context_len"] or spec.horizon
    with refusals(""):
        check_memory("batch_size", config["batch_size"], (window + 1) * each, free)
    return slots


def replay_capacity(config: Config, spec: TaskSpec) -> int:
    """Return the configured number of slots, or the published one, capped at what a run fills.

    Raises:
        ConfigError: they cannot hold a round of episodes.
    """
    from memrl.replay import check_capacity

    slots: int | None = config["replay_capacity"]
    episodes: int | None = config.get("replay_episodes")
    if episodes is not None:
        with refusals(""):
            require(slots is None, "replay_capacity", "null where replay_episodes is set", slots)
            require_at_least(config["num_envs"], replay_episodes=episodes)
        return episodes * (spec.horizon + 1)
    if slots is None:
        budget = config["budget"]
        warmup = budget.get("warmup_steps") or (budget["warmup_episodes"] or 0) * spec.horizon
        last = config["num_envs"] * spec.horizon  # of the last round
        steps = max(train_steps(config, spec) + warmup + last, spec.horizon)
        slots = min(max(10**6, 1000 * spec.horizon), 2 * steps)  # n take n + 1, at most twice n
    with refusals("replay_"):
        check_capacity(slots, spec, config["num_envs"])
    return slots


def versions(config: Config, device: str) -> dict[str, Any]:
    """Return what may change the results of one config: software, machine, threads."""
    import torch

    from memrl.run.machine import cpuinfo

    machine = torch.cuda.get_device_name() if device == "cuda" else cpuinfo("model name")
    code = os.environ.get("MEMRL_CODE")  # set where a sweep runs a snapshot of the code
    return {
        "memrl": memrl.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numpy", "gymnasium")},
        **({"code": code} if code else {}),
        "machine": f"{platform.machine()} {machine}".strip(),
        "device": device,
        "threads": config["threads"],
    }


# --- run -----------------------------------------------------------------------------------------


def run(cfg: DictConfig, choices: Mapping[str, Any] | None = None) -> Path:
    """Train the run of a composed config to its end, from where it stands; return its folder.

    Args:
        choices: the chosen options by group, if they are known, to check their names.

    Raises:
        ConfigError: nothing was created.
        Busy: another process is working on this run.
        Stopped: by a signal; everything is saved.
    """
    with contextlib.suppress(ConfigError, CannotContinue, KeyError, TypeError, OSError):
        config = dict(leaves(cfg, ""))
        schema.check_top_level(config)  # what is no part of a run's identity
        schema.check_group("logger", config["logger"])
        schema.check_ranges(config)
        folder = folder_of(config)
        if session.already_done(folder, config):  # before torch is imported
            session.say_already_done(folder, config)
            return folder
    config = resolve(cfg)
    check_names(config, choices or {})
    folder = folder_of(config)
    train(config, folder)
    return folder


def train(config: Config, folder: Path) -> None:
    """Train a resolved config in its folder, to the end; raises what ``run`` does."""
    if session.already_done(folder, config):
        session.say_already_done(folder, config)
        return
    with _traceback_kept(folder):
        trainer = build(own_weights(config, folder))
    from memrl.run.seeds import compare_episodes

    def open_logger(next_step: int) -> Logger | None:
        if config["logger"]["_target_"] is None:
            return None
        run_id = read_status(folder)["id"]
        available = {"folder": folder, "run_id": run_id, "config": config, "next_step": next_step}
        return make("logger", config["logger"], **available)  # type: ignore[no-any-return]

    with closing(trainer):
        with _traceback_kept(folder), closing(make_env(config, 1)) as env:
            resume = compare_episodes(env)
        software = versions(config, trainer.device.type)
        session.train_in_folder(folder, trainer, config, software, resume, open_logger)


@contextlib.contextmanager
def _traceback_kept(folder: Path) -> Iterator[None]:
    """Write what goes wrong before a run starts into its ``run.log``, except what one line says."""
    try:
        yield
    except (ConfigError, Failure):
        raise
    except Exception:
        session.keep_traceback(folder)
        raise
