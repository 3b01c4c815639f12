"""Log folders of the original program (Ni et al. 2023) as run folders of ours.

A log folder has ``flags.txt``, which holds the settings, and ``progress.csv``.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from memrl.results.export import COUNTERS
from memrl.results.paper import EXTRA_STEPS
from memrl.run.files import write_whole
from memrl.run.outcome import Failure
from memrl.run.status import read_status
from memrl.run.tables import Table, TornTable, read_table

LIMIT = 2**18  # bytes of a file of flags; real ones have two thousand
SOURCE = "imported_from"  # the key of status.json that tells an imported run from any other

EVAL = {"eval/return": "return", "eval/success": "success", "eval/length": "length"}
EVAL |= {"time/env_steps_per_s": "FPS"}  # memrl's column; the original's
MODEL = "config_seq.model.seq_model_config"
HEADS = "config_rl.config_critic.hidden_dims config_rl.config_actor.hidden_dims"

# memrl's key; the original's, which must agree if several; type; the options that have it, if few
KEYS: tuple[tuple[str, str, type, str], ...] = (
    ("env.name", "config_env.env_type", str, ""),
    ("env.length", "config_env.env_name", int, ""),
    ("env.distract_reward", "config_env.distract_reward", float, "tmaze_passive tmaze_active"),
    ("algo.name", "config_rl.algo", str, ""),
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

# Flags that change no result: of files, and of the libraries that parse the others.
NO_SETTING = re.compile(
    r"(alsologtostderr|debug|log_dir|logger_levels|logtostderr|only_check_args|profile_file|run_name"
    r"|save_dir|showprefixforinfo|stderrthreshold|submit_time|v|verbosity|xml_output_file|\?)"
    r"|config_env\.save_interval|(chex_|help|pdb|run_with_|test_|use_cprofile_).*"
)


class Log(NamedTuple):
    """A run of the original program.

    Attributes:
        config: nested, under memrl's names; settings without an exact counterpart are under
            ``original``, by the original's names.
        eval: the columns of ``eval.csv``, (evaluations,) each; NaN where nothing is known.
            ``eval/success`` is NaN for T-Mazes, where the original writes 0.
        train: the columns of ``train.csv``, (training rows,) each.
        status: what ``status.json`` says of state, cause and progress.
    """

    config: dict[str, Any]
    eval: Table
    train: Table
    status: dict[str, Any]


# --- log folders to run folders ------------------------------------------------------------------


def find_logs(folder: Path) -> list[Path]:
    """Return the folders that have a file of a log: this one, and all below."""
    files = [path for name in ("flags.txt", "progress.csv") for path in folder.rglob(name)]
    return sorted({path.parent for path in files})


def import_log(folder: Path, output: Path) -> Path:
    """Write a log folder as a run folder, ``<output>/<name of the log folder>``, and return that.

    Its model is called ``lstm (original program)``, say, so that it is a series of its own beside
    runs of memrl. A run that was imported from the same folder before is overwritten.

    Raises:
        Failure: the log cannot be read, or the run folder holds something else.
        OSError: a file cannot be read or written.
    """
    source = os.path.abspath(folder)
    run = output / os.path.basename(source)
    if run.exists() and any(run.iterdir()) and (known := read_status(run).get(SOURCE)) != source:
        content = f"the run imported from {known}" if known else "no imported run"
        raise Failure(f"{folder}: not imported: {run} holds {content}; delete it, or use --output")
    log = read_log(folder)
    model = log.config.get("seq_model", {})
    name = f"{model.get('name', 'unknown model')} (original program)"
    config = {**log.config, "seq_model": {**model, "name": name}}
    run.mkdir(parents=True, exist_ok=True)
    # The status first: by it an import that was interrupted can be done again.
    status = json.dumps({**log.status, SOURCE: source}, indent=1)
    write_whole(run / "status.json", f"{status}\n".encode())
    write_whole(run / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    write_whole(run / "eval.csv", _csv(log.eval))
    write_whole(run / "train.csv", _csv(log.train))
    return run


def _csv(table: Table) -> bytes:
    columns = [
        [f"{value:.0f}" if name in COUNTERS else repr(value) for value in column.tolist()]
        for name, column in table.items()
    ]
    lines = [tuple(table), *zip(*columns, strict=True)]
    return "".join(f"{','.join(line)}\n" for line in lines).encode()


# --- one log folder ------------------------------------------------------------------------------


def read_log(folder: Path) -> Log:
    """Read a log folder.

    Raises:
        OSError: ``flags.txt`` or ``progress.csv`` cannot be opened.
        Failure: one of them holds something else.
    """
    config = _config(read_flags(folder / "flags.txt"))
    table, problem = _progress(folder / "progress.csv")
    steps, unknown = table["env_steps"], np.full_like(table["env_steps"], np.nan)
    name, length = str(config.get("env.name")), config.get("env.length", 0)
    horizon = length + EXTRA_STEPS[name] if name in EXTRA_STEPS and length > 0 else 0
    episodes = steps // horizon if horizon else unknown
    counters = {"env_steps": steps, "episodes": episodes, "updates": unknown}
    if name.startswith("tmaze"):
        table["success"] = unknown
    scores = {ours: table.get(original, unknown) for ours, original in EVAL.items()}
    others = [key for key in table if key not in ("env_steps", *EVAL.values())]
    losses = {f"train/{key}": table[key] for key in others}
    is_eval = ~np.isnan(scores["eval/return"])
    budget = {"budget.train_episodes", "budget.warmup_episodes"}
    total = horizon * sum(config[key] for key in budget) if budget <= config.keys() else 0
    return Log(
        _nest(config),
        {key: column[is_eval] for key, column in (counters | scores).items()},
        {key: column[~is_eval] for key, column in (counters | losses).items()},
        _status(int(max(steps, default=0)), total, problem),
    )


def _status(env_steps: int, total: int, problem: str | None) -> dict[str, Any]:
    """Return how far a run got: ``total`` is the planned number of steps, 0 if not known."""
    state, cause = "stopped", f"at env step {env_steps:,} of {total:,}"
    if problem:
        state, cause = "failed", problem
    elif total <= 0:
        cause = "how long it was to run is not known"
    elif env_steps >= total:
        state, cause = "done", ""
    progress = {"progress": min(env_steps / total, 1.0)} if total > 0 else {}
    return {"state": state, "cause": cause or None, **progress, "env_steps": env_steps}


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
        raise Failure(f"{path} has no column env_steps")
    known = np.isfinite(table["env_steps"])
    if not known.all():
        problem = problem or f"{path.name} has a row without env_steps"
    return {name: column[known] for name, column in table.items()}, problem


def _config(flags: dict[str, Any]) -> dict[str, Any]:
    """Return what is known under memrl's dotted names, and all other settings as ``original``."""
    settings = _flatten(flags)
    if settings.get("config_rl.algo") == "sacd":
        shared = settings.pop("shared_encoder", None)
        settings["config_rl.algo"] = {True: "sacd", False: "sacd_separate"}.get(shared)
    config: dict[str, Any] = {}
    used: set[str] = set()
    for key, paths, kind, few in KEYS:
        values = [settings[path] for path in paths.split() if settings.get(path) is not None]
        options = {config.get(f"{group}.name") for group in ("env", "algo", "seq_model")}
        if few and not options & set(few.split()):
            continue
        if values and all(_fits(value, kind) and value == values[0] for value in values):
            config[key] = values[0]
            used |= {*paths.split()}
    rest = {k: value for k, value in settings.items() if k not in used and _is_setting(value)}
    return config | ({"original": rest} if rest else {})


def _flatten(flags: dict[str, Any]) -> dict[str, Any]:
    """Return flags by their dotted names; each part of them once, as aliases can multiply them."""
    flat: dict[str, Any] = {}
    parts, seen = [("", flags)], {id(flags)}
    for prefix, part in parts:
        for name, value in part.items():
            if not _fits(name, str) or NO_SETTING.fullmatch(path := f"{prefix}{name}"):
                continue
            if not isinstance(value, dict):
                flat[path] = value
            elif id(value) not in seen:
                seen.add(id(value))
                parts.append((f"{path}.", value))
    return flat


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        group, _, last = key.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[last] = value
    return nested


def _is_setting(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(type(v) in (bool, int, float, str, type(None)) and _fits(v, type(v)) for v in items)


def _fits(value: Any, kind: type) -> bool:
    """Say whether a value is of a type, to which no bool is a number, and of a sane size."""
    if type(value) in (int, float):
        return abs(value) < 2**53 and kind in (type(value), float)
    if kind is list and type(value) is list:
        return all(_fits(each, int) for each in value)
    return type(value) is kind and (not isinstance(value, str) or value.isprintable())


def read_flags(path: Path) -> dict[str, Any]:
    """Return the flags in a ``flags.txt``.

    Raises:
        OSError: there is no such file.
        Failure: it has no flags, or is too large.
    """
    with open(path, "rb") as file:
        content = file.read(LIMIT + 1)
    try:
        if len(content) > LIMIT:
            raise OverflowError
        flags = _parse(content.decode())
        if not flags:
            raise ValueError
    except Exception as error:  # of YAML: of any kind
        raise Failure(f"{path}: no flags can be read ({type(error).__name__})") from error
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
