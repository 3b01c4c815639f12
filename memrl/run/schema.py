"""Checks a config before anything is built: the constructor is the schema."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from memrl.run.identity import ADDED
from memrl.run.outcome import ConfigError, in_one_line, show, suggest

Parameters = dict[str, Any]  # name -> annotation

TOP_LEVEL: Parameters = {  # the keys that belong to no group
    "seed": int,
    "device": Literal["auto", "cpu", "cuda"],
    "threads": int,
    "precision": Literal["float32", "tf32", "bf16", "auto"],
    "update": Literal["eager", "compiled", "graphed"],
    "batch_size": int,
    "num_envs": int,
    "updates_per_step": float | None,
    "updates_per_round": int | None,
    "context_len": int | None,
    "replay_capacity": int | None,
    "replay_episodes": int | None,
    "replay_best": float,
    "init_from": str | None,
    "dropout": float,
    "attention_dropout": float,
    "checkpoint_minutes": float,
    "outputs": str,
    "sweep": str | None,
    "objective": Literal["eval/return", "eval/success", "eval/length"] | None,
}
# Configs of older versions lack these, and ``outputs``.
OPTIONAL = {k: v for k, v in ADDED.items() if k in TOP_LEVEL} | {"objective": None}
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda v: 0 <= v < 2**32, "at least 0 and below 2**32"),
    "threads": (lambda v: 1 <= v <= 1024, "at least 1 and at most 1024"),
    "batch_size": (lambda v: v >= 1, "at least 1"),
    "num_envs": (lambda v: v >= 1, "at least 1"),
    "updates_per_step": (lambda v: v is None or 0 < v < math.inf, "null or above 0"),
    "updates_per_round": (lambda v: v is None or v >= 1, "null or at least 1"),
    "context_len": (lambda v: v is None or v >= 1, "null (the whole episode) or at least 1"),
    "replay_capacity": (lambda v: v is None or v >= 1, "null or at least 1"),
    "replay_episodes": (lambda v: v is None or v >= 1, "null or at least 1"),
    "replay_best": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "init_from": (
        lambda v: v is None or v == os.path.normpath(v) != ".",
        "null or a run's folder in its shortest spelling, such as outputs/runs/NAME",
    ),
    "dropout": (lambda v: 0 <= v < 1, "in [0, 1)"),
    "attention_dropout": (lambda v: 0 <= v < 1, "in [0, 1)"),
    "checkpoint_minutes": (lambda v: 0 < v < math.inf, "above 0"),
    "outputs": (lambda v: v and "\0" not in v, "the path of a folder, not empty"),
    "sweep": (
        lambda v: (
            (v is None or (Path(v).name == v and v and v[0] != "." and len(v) <= 150))
            and len(os.fsencode(v or "")) <= 255
        ),  # the limit of file systems
        "a folder's name of at most 150 characters and 255 bytes, without slash or leading dot",
    ),
}

PLAIN_SECTIONS = {"budget": "memrl.trainer.Trainer"}  # without a ``_target_``: their readers
WHERE = "in the current folder, beside the folder of -cd, or on PYTHONPATH"
# Of environments, which memrl's own tasks import too.
MODULES = ("minigrid", "popgym", "pybullet_envs_gymnasium")
LABELS = ("name", "_target_")  # keys of a section that its constructor does not take
# More such keys, of a task: the value of its metric at which it counts as solved; levels that
# figures show, by their names; and the keys that tell tasks of one name apart.
TASK_FACTS: Parameters = {
    "solved_at": float | None,
    "reference": None | Mapping[str, float],
    "task_keys": None | Sequence[str],
}

BUILT = {  # parameters that memrl passes: they are not keys of the section
    "env": {"num_envs", "render_mode"},
    "encoder": {"action_width", "spec"},
    "seq_model": {"attention_dropout", "context_len", "dropout", "input_dim"},
    "algo": {"horizon", "memory", "new_memory", "train_steps"},
    "budget": {
        *("agent", "agent_update", "batch_size", "device", "horizon", "make_env", "num_envs"),
        *("replay", "seed", "updates_per_round", "updates_per_step"),
    },
    "logger": {"config", "folder", "next_step", "run_id"},
}
KINDS = {  # of a section's ``_target_``: what it must have, and how that is said
    "env": ((), "a gymnasium.vector.VectorEnv"),
    "encoder": (("forward",), "a torch.nn.Module with forward(obs, prev_action, prev_reward)"),
    "seq_model": (("initial_state",), "a torch.nn.Module with initial_state(batch_size)"),
    "algo": (
        ("act", "update", "weights", "load_weights", "named_parameters", "initial_state"),
        "an agent with the methods of memrl.interfaces.Agent",
    ),
    "logger": (("write", "close"), "a logger with write(table, row) and close(exit_code)"),
}


def check_types(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check every key of a config against the annotation of the parameter that reads it.

    It imports torch. Text that begins with "${" is not resolved yet, and is skipped.

    Returns:
        The config with integers as floats where the annotation says float.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type.
    """
    top = check_top_level(config)
    return {
        key: check_group(key, value) if isinstance(value, Mapping) else top[key]
        for key, value in (OPTIONAL | dict(config)).items()
    }


def check_top_level(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check the keys that belong to no group, and return them, as ``check_types`` does."""
    top = OPTIONAL | {k: v for k, v in config.items() if not isinstance(v, Mapping)}
    return _check_keys("", top, TOP_LEVEL, complete=True)


def check_group(path: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """Check the keys of one section, and return it, as ``check_types`` does.

    ``make`` says which keys are missing.
    """
    target = PLAIN_SECTIONS.get(path, section.get("_target_"))
    if target is None:
        if section.keys() != {"_target_"}:
            if path in BUILT:
                raise ConfigError(
                    f"{path}._target_ is missing: the option's file must name a class"
                )
            raise ConfigError(f"{path}: no such group")
        return dict(section)
    if path in PLAIN_SECTIONS and "_target_" in section:
        raise ConfigError(f"{path}._target_={show(section['_target_'])}: no such key")
    if not isinstance(target, str):
        raise ConfigError(f"{path}._target_={show(target)}: must be text, module.Class")
    try:
        parameters = parameters_of(target)
    except LookupError as error:
        raise ConfigError(f"{path}._target_={target}: {error}") from None
    check_kind(path, target, find(target))
    values = {k: v for k, v in section.items() if k not in LABELS}
    facts = {k: values.pop(k) for k in labels_of(path) if k in values}
    checked = dict(section) | _check_keys(f"{path}.", facts, TASK_FACTS)
    keys = facts.get("task_keys")
    for key in keys if isinstance(keys, list) else ():  # it may be an interpolation
        if key not in section:
            raise ConfigError(f"{path}.task_keys={key}: no such key; {suggest(key, values)}")
    if parameters is None:
        return checked
    known = {k: v for k, v in parameters.items() if k not in BUILT.get(path, ())}
    return checked | _check_keys(f"{path}.", values, known)


def labels_of(path: str) -> tuple[str, ...]:
    """Return the keys that a section may have and its constructor does not take."""
    return (*LABELS, *TASK_FACTS) if path == "env" else LABELS


def check_ranges(config: Mapping[str, Any]) -> None:
    """Check the ranges of the keys that belong to no group; constructors check all others."""
    for key, (allowed, text) in RANGES.items():
        if key in config and not allowed(config[key]):
            raise ConfigError(f"{key} must be {text}, got {show(config[key])}")


def check_section(prefix: str, values: Mapping[str, Any], cls: type) -> None:
    """Check values against the parameters of a class, all of which must be given.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type.
    """
    known = parameters_of(f"{cls.__module__}.{cls.__name__}") or {}
    _check_keys(prefix, values, known, complete=True)


def _check_keys(
    prefix: str, values: Mapping[str, Any], known: Parameters, complete: bool = False
) -> dict[str, Any]:
    for key, value in values.items():
        if key not in known:
            hint = suggest(prefix + key, [prefix + name for name in known])
            no_such = "no such key" if prefix else "no such key or group"
            raise ConfigError(f"{prefix}{key}={show(value)}: {no_such}; {hint}")
        if isinstance(value, str) and value.startswith("${"):
            continue
        if allowed := _refusal(value, known[key]):
            raise ConfigError(f"{prefix}{key}={show(value)}: must be {allowed}")
    for missing in sorted(known.keys() - values.keys() - {"outputs"}) if complete else ():
        raise ConfigError(f"{prefix}{missing} is missing")
    return {key: _typed(value, known[key]) for key, value in values.items()}


def _typed(value: Any, hint: Any) -> Any:
    """Return a value that fits the annotation, its integers as floats where that says float."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        options = [option for option in arguments if _refusal(value, option) is None]
        return value if int in options or not options else _typed(value, options[0])
    if origin in (Sequence, list) and isinstance(value, list) and arguments:
        return [_typed(item, arguments[0]) for item in value]
    # Adding 0 turns -0.0 into 0.0.
    return value + 0.0 if hint is float and isinstance(value, int | float) else value


# --- classes -------------------------------------------------------------------------------------


def check_kind(path: str, target: str, code: Any) -> None:
    """Check that what a section names can be what it is for, before it is called.

    A function may return anything; what it returns is checked by its class.

    Raises:
        ConfigError: it cannot.
    """
    if path not in KINDS:
        return
    methods, text = KINDS[path]
    if isinstance(code, functools.partial):
        code = code.func
    if isinstance(code, type):
        ok = _is_module_or_env(path, code)
        ok = ok and all(callable(getattr(code, method, None)) for method in methods)
    else:  # memrl and the standard library have no function that returns such an object
        top = str(getattr(code, "__module__", None)).partition(".")[0]
        ok = callable(code) and top not in ("None", "memrl", *sys.stdlib_module_names)
    if not ok:
        raise ConfigError(f"{path}._target_={target}: must be {text}")


def _is_module_or_env(path: str, cls: type) -> bool:
    """Return whether a class has the base that its section requires, and an encoder its inputs."""
    if path == "env":
        from gymnasium.vector import VectorEnv

        return issubclass(cls, VectorEnv)
    if path not in ("encoder", "seq_model"):
        return True
    from torch import nn

    if not issubclass(cls, nn.Module):
        return False
    try:
        inspect.signature(cls.forward).bind(*range(4 if path == "encoder" else 2))
    except TypeError:
        return False
    return True


def check_origin(config: Mapping[str, Any], trusted: Collection[str], folder: Path) -> None:
    """Check that a config, which somebody else may have written, runs no code of theirs.

    Every ``_target_`` at any depth, and every module that registers environments, must belong to
    memrl, to a trusted package or to one that lies in the folder; Gymnasium's wrappers are
    accepted too, except the one that writes files. Nothing else is imported.

    Raises:
        ConfigError: one does not.
    """
    for path, target in _targets(config, ""):
        package = str(target).partition(".")[0]
        if path == "env.module" and target in MODULES:
            continue
        is_wrapper = re.fullmatch(r"gymnasium\.wrappers\.(?!RecordVideo)\w+", str(target))
        accepted = (*trusted, "gymnasium") if is_wrapper else trusted
        if not _is_trusted(package, accepted, folder):
            if package.isidentifier() and not _exists(package):
                advice = "give the command in the folder that has it"
                raise ConfigError(f"{path}={target}: no package {package} here; {advice}")
            advice = f'if you trust it, add --trust {package} (in Python, trusted=["{package}"])'
            advice = advice if package.isidentifier() else ""
            kind = "class" if path.endswith("_target_") else "module"
            raise ConfigError(
                f"{path}={show(target)}: not a {kind} of memrl; {advice}".rstrip("; ")
            )
        if not path.endswith("_target_"):  # a module
            continue
        with contextlib.suppress(LookupError):  # ``check_types`` says what is wrong
            # It must not be something else that its module imports.
            module = str(getattr(find(str(target)), "__module__", None))
            if not _is_trusted(module.partition(".")[0], accepted, folder):
                raise ConfigError(f"{path}={target}: not defined in {package}, but in {module}")


def _is_trusted(package: str, trusted: Collection[str], folder: Path) -> bool:
    return package in ("memrl", *trusted) or _lies_in(folder, package)


def _exists(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def _targets(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield whatever is imported by name, at any depth, with its dotted path.

    That is every ``_target_``, and the modules that register environments.
    """
    items = list(node.items()) if isinstance(node, Mapping) else []
    items = list(enumerate(node)) if isinstance(node, list) else items
    for key, value in items:
        below = f"{path}.{key}" if path else str(key)
        if key == "_target_" and value is not None:
            yield below, value
        elif below == "env.module" and value is not None:
            yield below, value
        elif below == "env.id" and ":" in str(value):
            yield below, str(value).partition(":")[0]
        yield from _targets(value, below)


def _lies_in(folder: Path, package: str) -> bool:
    """Return whether a package would be imported from a folder; nothing is imported."""
    if not package.isidentifier() or package in sys.stdlib_module_names:
        return False
    spec = importlib.machinery.PathFinder.find_spec(package)
    if spec is None:
        return False
    places = spec.submodule_search_locations or [str(spec.origin)]
    return all(Path(place).resolve().parent == folder.resolve() for place in places)


def find(target: str) -> Any:
    """Import and return what a ``_target_`` names, a class or function of a module.

    Raises:
        LookupError: there is no such module or name, or the module cannot be imported.
    """
    module, _, name = target.rpartition(".")
    try:
        code = importlib.import_module(module)
    except Exception as error:  # a user's own module may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and missing == module.partition(".")[0]:
            raise LookupError(f"no package {missing} {WHERE}") from None
        if not module or f"{module}.".startswith(f"{missing}."):
            raise LookupError(f"no module {module}") from None
        raise LookupError(f"{module} cannot be imported: {in_one_line(error)}") from error
    if not hasattr(code, name):
        local = [k for k, v in vars(code).items() if getattr(v, "__module__", None) == module]
        known = sorted(key for key in local if not key.startswith("_"))
        raise LookupError(f"no class {name} there; it has {', '.join(known)}")
    return getattr(code, name)


# --- signatures ----------------------------------------------------------------------------------


@functools.cache  # a sweep asks for the same few a thousand times
def parameters_of(target: str) -> Parameters | None:
    """Return the parameters of a class or function; None if it takes any or has no signature.

    Raises:
        LookupError: there is no such module or name, or the module cannot be imported.
    """
    code = find(target)
    try:
        parameters = inspect.signature(code).parameters.values()
    except (TypeError, ValueError):  # not callable, or written in C
        return None
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return None
    module = sys.modules[target.rpartition(".")[0]]
    return {parameter.name: _evaluated(parameter.annotation, module) for parameter in parameters}


def _evaluated(annotation: Any, code: ModuleType) -> Any:
    """Return an annotation that may be text; Any if only type checkers can read it."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, vars(code))
    except Exception:
        return Any


def _refusal(value: Any, hint: Any) -> str | None:
    """Return what is allowed if the value does not fit the annotation, else None."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        refusals = [_refusal(value, option) for option in arguments]
        return None if None in refusals else " or ".join(map(str, refusals))
    if origin is Literal:
        return None if value in arguments else "one of " + ", ".join(map(show, arguments))
    if origin in (Sequence, list) and isinstance(value, list):
        wrong = [r for r in (_refusal(v, *arguments) for v in value) if r] if arguments else []
        return f"a list, each {wrong[0]}" if wrong else None
    if origin in (Mapping, dict) and isinstance(value, Mapping) and arguments:
        parts = (("key", list(value)), ("value", list(value.values())))
        for (name, items), each in zip(parts, arguments, strict=True):
            if wrong := [r for r in (_refusal(item, each) for item in items) if r]:
                return f"a mapping, {{key: value}}, each {name} {wrong[0]}"
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    finite = number and abs(value) <= sys.float_info.max
    if hint in (None, NoneType):
        fits, text = value is None, "null"
    elif hint is bool:
        fits, text = isinstance(value, bool), "true or false"
    elif hint is int:
        fits, text = number and isinstance(value, int), f"an integer{_whole(value)}"
    elif hint is float:
        fits, text = finite, f"a finite number{_decimal(value)}"
    elif hint is str:
        fits, text = isinstance(value, str), "text"
    elif origin in (Sequence, list):
        fits, text = False, "a list"
    elif origin in (Mapping, dict):
        fits, text = isinstance(value, Mapping), "a mapping, {key: value}"
    else:  # the constructor will tell
        return None
    return None if fits else text


def _whole(value: Any) -> str:
    """Return how to write a float such as 1e4 as an integer."""
    return f", such as {int(value)}" if isinstance(value, float) and value.is_integer() else ""


def _decimal(value: Any) -> str:
    """Return how to write a fraction as a decimal: neither YAML nor Hydra computes one."""
    parts = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(value))
    return f" ({value} is {int(parts[1]) / int(parts[2])})" if parts and int(parts[2]) else ""
