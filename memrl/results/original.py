"""Reads log folders of the original program (Ni et al. 2023), under memrl's names.

No code runs and no module is imported, whatever the folder's pickle holds.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import yaml

from memrl.results.paper import EXTRA_STEPS
from memrl.run.tables import Table, TornTable, read_table

LIMIT = 2**18  # bytes of a file of flags; real ones have two thousand


EVAL = {"env_steps": "env_steps", "episodes": "episodes", "return": "eval/return"}
EVAL |= {"success": "eval/success", "length": "eval/length", "FPS": "time/env_steps_per_s"}
MODEL = "config_seq.model.seq_model_config"
HEADS = "config_rl.config_critic.hidden_dims config_rl.config_actor.hidden_dims"

# memrl's key; the original's, which must agree if several; type; the options that have it, if few
KEYS: tuple[tuple[str, str, type, str], ...] = (
    ("env.name", "config_env.env_type", str, ""),
    ("env.length", "config_env.env_name", int, ""),
    ("env.distract_reward", "config_env.distract_reward", float, "tmaze_passive tmaze_active"),
    ("algo.name", "algo", str, ""),
    ("algo.gamma", "config_rl.discount", float, ""),
    ("algo.tau", "config_rl.tau", float, ""),
    ("algo.lr", "config_rl.critic_lr config_rl.actor_lr", float, ""),
    ("algo.hidden_dims", HEADS, list, ""),
    ("algo.freeze_critic", "freeze_critic", bool, "sacd"),
    ("seq_model.name", f"{MODEL}.name", str, ""),
    ("seq_model.n_layer", f"{MODEL}.n_layer", int, ""),
    ("seq_model.n_head", f"{MODEL}.n_head", int, "gpt"),
    ("seq_model.position", f"{MODEL}.position_encoding", str, "gpt"),
    ("seq_model.hidden_dim", f"{MODEL}.hidden_size", int, "rnn gru lstm mlp"),
    ("dropout", f"{MODEL}.pdrop", float, "gpt"),
    ("seed", "seed", int, ""),
    ("batch_size", "batch_size", int, ""),
    ("updates_per_step", "updates_per_step", float, ""),
    ("budget.train_episodes", "train_episodes", int, ""),
    ("budget.warmup_episodes", "start_training", int, ""),
    ("budget.eval_every", "config_env.eval_interval", int, ""),
    ("budget.eval_episodes", "config_env.eval_episodes", int, ""),
)

# Top-level flags that change no result: of files, and of the libraries that parse the others.
NO_SETTING = re.compile(
    r"(alsologtostderr|debug|log_dir|logger_levels|logtostderr|only_check_args|profile_file|run_name"
    r"|save_dir|showprefixforinfo|stderrthreshold|submit_time|v|verbosity|xml_output_file|\?)"
    r"|(chex_|help|pdb|run_with_|test_|use_cprofile_).*"
)


class Log(NamedTuple):
    """A run of the original program.

    Attributes:
        config: nested; settings without an exact counterpart are under ``original``, by the
            original's names.
        eval: what there is of ``EVAL``, (evaluations,) each. ``eval/success`` is NaN for T-Mazes,
            where the original writes 0; ``episodes`` need a known task.
        train: ``env_steps`` and ``train/<the original's name>``, (training rows,) each.
        total_env_steps: as planned; None if the task is not known.
        problem: one line if ``progress.csv`` is torn; the rows before are there.
    """

    config: dict[str, Any]
    eval: Table
    train: Table
    total_env_steps: int | None
    problem: str | None


def is_log(folder: Path) -> bool:
    """Say whether a folder is one of the original program."""
    # os.path.isfile, to which a closed folder has no file.
    flags = any(os.path.isfile(folder / name) for name in ("flags.pkl", "flags.txt"))
    return flags and os.path.isfile(folder / "progress.csv")


def read_log(folder: Path) -> Log:
    """Read a folder; its ``flags.txt`` only if its ``flags.pkl`` cannot be read.

    Raises:
        OSError: ``progress.csv`` cannot be opened.
        ValueError: one line: no flags can be read, or ``progress.csv`` is something else.
    """
    try:
        flags = read_flags(folder / "flags.pkl")
    except ValueError as error:
        try:
            flags = read_flags(folder / "flags.txt")
        except ValueError as other:
            raise ValueError(f"{error}; {other}") from other
    config = _config(flags)
    table, problem = _progress(folder / "progress.csv")
    steps, name, length = table["env_steps"], _get(config, "env.name"), _get(config, "env.length")
    horizon = length + EXTRA_STEPS[name] if name in EXTRA_STEPS and (length or 0) > 0 else 0
    if horizon:
        table["episodes"] = steps // horizon
    if "success" in table and str(name).startswith("tmaze"):
        table["success"] = np.full_like(steps, np.nan)
    is_eval = ~np.isnan(table.get("return", np.full_like(steps, np.nan)))
    scores = {new: table[old][is_eval] for old, new in EVAL.items() if old in table}
    train = {f"train/{k}": column[~is_eval] for k, column in table.items() if k not in EVAL}
    train = {"env_steps": steps[~is_eval], **train}
    episodes = [_get(config, f"budget.{key}_episodes") for key in ("train", "warmup")]
    total = horizon * sum(episodes) if None not in episodes else 0
    return Log(config, scores, train, total if total > 0 else None, problem)


def _progress(path: Path) -> tuple[Table, str | None]:
    """Return the rows that have ``env_steps``, and what is wrong."""
    problem = None
    try:
        table = read_table(path)
    except TornTable as error:
        table, problem = error.table, str(error)
    if not table:
        return {"env_steps": np.empty(0)}, f"{path.name} is empty"
    if "env_steps" not in table:
        raise ValueError(f"{path} has no column env_steps")
    known = np.isfinite(table["env_steps"])
    if not known.all():
        problem = problem or f"{path.name} has a row without env_steps"
    return {name: column[known] for name, column in table.items()}, problem


def _config(flags: dict[str, Any]) -> dict[str, Any]:
    """Return what is known under memrl's names."""
    algo, shared = _get(flags, "config_rl.algo"), flags.get("shared_encoder")
    if algo == "sacd" and shared is not True:
        algo = "sacd_separate" if shared is False else None
    known = flags | {"algo": algo}
    config: dict[str, Any] = {}
    used = {"config_rl.algo"} if algo is not None else set()
    used |= {"shared_encoder"} if algo in ("sacd", "sacd_separate") else set()
    for key, paths, kind, few in KEYS:
        values = [value for path in paths.split() if (value := _get(known, path)) is not None]
        options = {_get(config, f"{group}.name") for group in ("env", "algo", "seq_model")}
        if few and not options & set(few.split()):
            continue
        if values and all(_fits(value, kind) and value == values[0] for value in values):
            group, _, last = key.rpartition(".")
            (config.setdefault(group, {}) if group else config)[last] = values[0]
            used |= {*paths.split()}
    if rest := _rest(flags, used):
        config["original"] = rest
    return config


def _rest(flags: dict[str, Any], used: set[str]) -> dict[str, Any]:
    """Return all other settings by their dotted names; each part of the flags once."""
    rest: dict[str, Any] = {}
    parts, seen = [("", flags)], {id(flags)}
    for prefix, part in parts:
        for name, value in part.items():
            if not _fits(name, str) or (path := f"{prefix}{name}") in used:
                continue
            if not prefix and ("." in name or NO_SETTING.fullmatch(name)):
                continue  # what has dots stands in its group as well
            if isinstance(value, dict):
                if id(value) not in seen:
                    seen.add(id(value))
                    parts.append((f"{path}.", value))
            elif path != "config_env.save_interval" and _is_setting(value):
                rest[path] = value
    return rest


def _is_setting(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(type(v) in (bool, int, float, str, type(None)) and _fits(v, type(v)) for v in items)


def _get(nested: Any, path: str) -> Any:
    for part in path.split("."):
        nested = nested.get(part) if isinstance(nested, dict) else None
    return nested


def _fits(value: Any, kind: type) -> bool:
    """Say whether a value is of a type, to which no bool is a number, and of a sane size."""
    if type(value) in (int, float):
        return abs(value) < 2**53 and kind in (type(value), float)
    if kind is list and type(value) is list:
        return all(_fits(each, int) for each in value)
    return type(value) is kind and (not isinstance(value, str) or value.isprintable())


def read_flags(path: Path) -> dict[str, Any]:
    """Return the flags in a ``flags.pkl`` or ``.txt``; an object is its fields or its class's name.

    Raises:
        ValueError: one line: it is no file, or has no flags, or cannot be read to its end.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise OverflowError
        if path.suffix == ".txt":
            flags = _parse(content.decode())
        else:
            flags = _plain(Unpickler(io.BytesIO(content)).load(), {})
        if not isinstance(flags, dict) or not flags:
            raise TypeError
    except Exception as error:  # a torn pickle can raise anything
        raise ValueError(f"{path}: no flags can be read ({type(error).__name__})") from error
    return flags


def _parse(text: str) -> dict[str, Any]:
    """Read parts that begin with ``--``: ``name=value``, ``name`` or ``noname``."""
    flags: dict[str, Any] = {}
    for part in re.split("^--", text, flags=re.MULTILINE)[1:]:
        name, given, value = part.strip().partition("=")
        if not given:
            flags[name.removeprefix("no")] = not name.startswith("no")
        elif name.startswith("config_"):
            flags[name] = yaml.load(value, _Loader)
        elif re.fullmatch(r"-?\d+(\.\d*)?(e[-+]?\d+)?", value):
            flags[name] = float(value) if re.search(r"[.e]", value) else int(value)
        else:
            flags[name] = value
    return flags


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Takes tuples for lists and names of code for strings, and merges no mappings."""

    def flatten_mapping(self, node: Any) -> None: ...  # a few lines of merges fill the memory


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", yaml.SafeLoader.construct_sequence)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda _, name, node: name)


class Stub:
    """What a pickle names: it takes any arguments and any state, and does nothing."""

    name = ""
    state: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _fold(n: int, unpickler: Any) -> None:
    unpickler.stack[-n:] = [unpickler.stack[-n:]]


class Unpickler(pickle._Unpickler):
    """Unpickles with a stub for every name.

    It is the one in Python: in C it would know real objects by extension codes, and allocate as
    much as a number in the file says. Tuples become lists, which cannot be keys: hashing deep ones
    would overflow the stack.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    for _name in "EXT1 EXT2 EXT4 BYTEARRAY8 STRING EMPTY_SET ADDITEMS FROZENSET".split():
        del dispatch[getattr(pickle, _name)[0]]
    dispatch[pickle.EMPTY_TUPLE[0]] = dispatch[pickle.EMPTY_LIST[0]]
    dispatch[pickle.TUPLE[0]] = dispatch[pickle.LIST[0]]
    for _n in (1, 2, 3):
        dispatch[getattr(pickle, f"TUPLE{_n}")[0]] = partial(_fold, _n)

    def find_class(self, module: str, name: str) -> type[Stub]:
        """Return a new class that does nothing."""
        return type("Stub", (Stub,), {"name": f"{module}.{name}"})


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """Replace stubs, in depth; ``seen`` has what was made of each dict and list, for cycles."""
    is_stub = isinstance(value, Stub | type)
    if is_stub:
        fields = _get(value.state, "_fields")
        value = fields if isinstance(fields, dict) else value.name
    if isinstance(value, dict) and id(value) not in seen:
        new = seen[id(value)] = {}
        new.update((_plain(key, seen), _plain(each, seen)) for key, each in value.items())
    elif isinstance(value, list) and id(value) not in seen:
        items = seen[id(value)] = []
        items.extend(_plain(each, seen) for each in value)
    return seen.get(id(value), value)
