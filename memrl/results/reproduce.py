"""What differs from the defaults, and the command lines that give the same runs again."""

from __future__ import annotations

import copy
import functools
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from memrl.run.config import CONF, compose_config, leaves
from memrl.run.identity import ABSENT, flatten, identity

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


NOT_PLAIN = ("null", "true", "false", "nan", "inf")  # which Hydra takes for something else
Arguments = dict[str, str]  # of a command line, by key


def changes(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]] | None:
    """Return the keys of a run that are not the defaults of its task, length, algorithm and model.

    Args:
        config: a resolved config, nested.

    Returns:
        default and value by dotted key, ABSENT where there is none; None if the task, the
        algorithm or the model is not known here.
    """
    base = _base(config)
    return None if base is None else _differences(base, config)


class Commands(NamedTuple):
    """Command lines, and how many runs none of them gives."""

    lines: list[str]
    left_out: int


def commands(configs: Sequence[Mapping[str, Any]]) -> Commands:
    """Return command lines that together give exactly these runs, from the default ``conf/``.

    One line if the runs are all combinations of the values of what varies, else a few; one or more
    for each sweep. Runs without a seed are left out, and so are those with an interpolation, which
    would be resolved once more.

    Args:
        configs: resolved configs, nested.
    """
    plain = [c for c in configs if "seed" in c and "${" not in repr(flatten(c))]
    bases = [(config, base) for config in plain if (base := _base(config)) is not None]
    fitting = [set(_fitting_budgets(base, config)) for config, base in bases]
    common = sorted(set.intersection(*fitting), key=_options("budget").index) if bases else []
    rows = [(_arguments(base, config, common[:1]), flatten(config)) for config, base in bases]
    found = [(row, flat) for row, flat in rows if row]
    short = _lines([row for row, _ in found])
    # A key that some were given is the default of others: written out, they may be one product.
    keys = {key for row, _ in found for key in row if "." in key and key[0] not in "+~"}
    full = _lines([_with(row, keys & flat.keys(), flat) for row, flat in found])
    return Commands(min(short, full, key=len), len(configs) - len(found))


def _with(row: Arguments, keys: set[str], flat: Mapping[str, Any]) -> Arguments:
    """Give these keys as well, before the seed and the sweep, which stay last."""
    last = {key: row[key] for key in ("seed", "sweep") if key in row}
    head = {key: row[key] for key in row if key not in keys | last.keys() or key == "env.length"}
    rest = {key: text_of(flat[key]) for key in sorted(keys - {"env.length"})}
    return head | rest | last


def _lines(rows: Sequence[Arguments]) -> list[str]:
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in rows:  # a command has one sweep
        groups.setdefault((row.get("sweep"), *row), set()).add(tuple(row.values()))
    return [
        _line(keys, product)
        for (_, *keys), values in groups.items()
        for product in _products(values)
    ]


# --- one run -------------------------------------------------------------------------------------


def _base(config: Mapping[str, Any]) -> Arguments | None:
    """Return what chooses task, length, algorithm and model; None if one is not known here."""
    flat = flatten(config)
    names = [flat.get(f"{group}.name") for group in ("env", "algo", "seq_model")]
    if not all(isinstance(name, str) for name in names):
        return None
    env, algo, model = map(str, names)
    base = {"env": env}
    if "env.length" in flat:
        base["env.length"] = text_of(flat["env.length"])
    if (default := _compose(_key(base))) is None:
        return None
    if default.algo.name != algo:
        base["algo"] = algo
    base["seq_model"] = model
    return None if _compose(_key(base)) is None else base


def _arguments(
    base: Arguments, config: Mapping[str, Any], budget: Sequence[str]
) -> Arguments | None:
    """Return the arguments that give a run; None if they would name an encoder not known here."""
    chosen = dict(base)
    target = config.get("encoder", {}).get("_target_")
    if (encoder := _encoder(_key(base), target)) is None:
        return None
    if encoder:
        chosen["encoder"] = encoder
    options = budget or _options("budget")
    chosen = min(
        (_with_budget(chosen, option) for option in options),
        key=lambda arguments: len(_differences(arguments, config)),
    )
    known = _raw(_key(chosen))
    for key, value in sorted(_given(dict(chosen), config).items()):
        if value is ABSENT:
            chosen[f"~{key}"] = ""
        else:
            chosen[key if key in known else f"+{key}"] = text_of(value)
    chosen["seed"] = text_of(config["seed"])
    if config.get("sweep", "runs") != "runs":
        chosen["sweep"] = text_of(config["sweep"])
    return chosen


def _encoder(base: tuple[str, ...], target: Any) -> str | None:
    """Return the option of this class: empty if it is the task's own, None if there is none."""
    options = ("", *_options("encoder"))
    for option in options:
        cfg = _compose((*base, f"encoder={option}") if option else base)
        if cfg is not None and cfg.encoder.get("_target_") == target:
            return option
    return None


def _with_budget(arguments: Arguments, option: str) -> Arguments:
    return arguments if option == _options("budget")[0] else arguments | {"budget": option}


def _fitting_budgets(base: Arguments, config: Mapping[str, Any]) -> list[str]:
    """Return the options of budget that need nothing of it to be given beside them."""
    return [
        option
        for option in _options("budget")
        if not any(
            key.startswith("budget.") for key in _differences(_with_budget(base, option), config)
        )
    ]


def _differences(arguments: Arguments, config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    named = {"env.name", "env.length", "algo.name", "seq_model.name", "seed"}
    default, mine = _resolved(_key(arguments)), identity(config)
    return {
        key: (default.get(key, ABSENT), mine.get(key, ABSENT))
        for key in sorted({*default, *mine} - named)
        if repr(default.get(key, ABSENT)) != repr(mine.get(key, ABSENT))  # 1 is not 1.0
    }


def _given(chosen: Arguments, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys to be given beside the choices, without those that follow from others.

    As ``seq_model.n_head`` follows from ``n_layer``, unless it was given as well.
    """
    raw, mine = _raw(_key(chosen)), identity(config)
    derived = {key for key in mine if "${" in str(raw.get(key))}
    found = {key: value for key, (_, value) in _differences(chosen, config).items()}
    given = {key: value for key, value in found.items() if key not in derived}
    if not (derived and found):
        return found
    cfg = copy.deepcopy(_compose(_key(chosen)))
    assert cfg is not None
    for key, value in given.items():
        if value is not ABSENT:
            OmegaConf.update(cfg, key, value, force_add=True)
    follows = identity(dict(leaves(cfg, "", strict=False)))
    return given | {
        key: mine[key] for key in derived if repr(follows.get(key, ABSENT)) != repr(mine[key])
    }


# --- what Hydra composes, once for each set of choices -------------------------------------------


def _key(arguments: Arguments) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in arguments.items())


@functools.cache
def _compose(overrides: tuple[str, ...]) -> DictConfig | None:
    try:
        return compose_config(overrides)
    except HydraException:
        return None


@functools.cache
def _resolved(overrides: tuple[str, ...]) -> dict[str, Any]:
    cfg = _compose(overrides)
    return {} if cfg is None else identity(dict(leaves(cfg, "", strict=False)))


@functools.cache
def _raw(overrides: tuple[str, ...]) -> dict[str, Any]:
    content = OmegaConf.to_container(_compose(overrides), resolve=False)
    assert isinstance(content, dict)
    return flatten(content)  # type: ignore[arg-type]


@functools.cache
def _options(group: str) -> list[str]:
    """Return a group's options, the default first."""
    defaults: dict[str, str] = {}
    for entry in OmegaConf.load(CONF / "config.yaml").defaults:
        defaults |= entry if OmegaConf.is_dict(entry) else {}
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return sorted(names, key=lambda name: name != defaults[group])


# --- several runs --------------------------------------------------------------------------------
Rows = set[tuple[str, ...]]


def _products(rows: Rows) -> list[list[list[str]]]:
    """Split rows into few products: for each, the values of every column."""
    columns = [sorted(set(column), key=_order) for column in zip(*rows, strict=True)]
    size = 1
    for values in columns:
        size *= len(values)
    if size == len(rows):
        return [columns]
    at = next(n for n, values in enumerate(columns) if len(values) > 1)
    rest: dict[str, Rows] = {}  # of the rows with each value, without it
    for row in rows:
        rest.setdefault(row[at], set()).add(row[:at] + row[at + 1 :])
    alike: dict[frozenset[tuple[str, ...]], list[str]] = {}
    for value in columns[at]:
        alike.setdefault(frozenset(rest[value]), []).append(value)
    return [
        [*product[:at], values, *product[at:]]
        for others, values in alike.items()
        for product in _products(set(others))
    ]


def _order(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _line(keys: Sequence[str], product: Sequence[Sequence[str]]) -> str:
    several = any(len(values) > 1 for values in product)
    words = ["python", "run.py", *(["-m"] if several else [])]
    for key, values in zip(keys, product, strict=True):
        text = ",".join(values)
        if len(values) > 2 and list(values) == [str(n) for n in range(len(values))]:
            text = f"range({len(values)})"
        words.append(shlex.quote(key if key.startswith("~") else f"{key}={text}"))
    return " ".join(words)


def text_of(value: Any) -> str:
    """Write a value as Hydra's command line reads it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{text_of(k)}:{text_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(text_of, value))}]"
    if not isinstance(value, str):
        return repr(value)
    if PLAIN.fullmatch(value) and value.lower() not in NOT_PLAIN:
        return value
    return str(QuotedString(value, Quote.single).with_quotes())
