"""Checks a config before anything heavy is imported: the constructor is the schema.

Signatures are read from source files (``ast``), so that no torch is imported to find a typo.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

Checks = dict[str, str | None]  # parameter -> annotation as written


class ConfigError(Exception):
    """A key, its value, and what is allowed, in one line."""


class TopLevel(TypedDict):
    """The keys that belong to no group."""

    seed: int
    device: Literal["auto", "cpu", "cuda"]
    threads: int
    precision: Literal["float32", "tf32", "bf16", "auto"]
    update: Literal["eager", "compiled", "graphed"]
    batch_size: int
    num_envs: int
    updates_per_step: float
    context_len: int | None
    replay_capacity: int | None
    dropout: float
    attention_dropout: float
    checkpoint_minutes: float
    sweep: str


class Absent:
    """Stands for the value of a key that is not there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda v: 0 <= v < 2**32, "at least 0 and below 2**32"),
    "threads": (lambda v: 1 <= v <= 1024, "at least 1 and at most 1024"),
    "batch_size": (lambda v: v >= 1, "at least 1"),
    "num_envs": (lambda v: v >= 1, "at least 1"),
    "updates_per_step": (lambda v: 0 < v < math.inf, "above 0"),
    "context_len": (lambda v: v is None or v >= 2, "null (the whole episode) or at least 2"),
    "replay_capacity": (lambda v: v is None or v >= 1, "null or at least 1"),
    "dropout": (lambda v: 0 <= v < 1, "in [0, 1)"),
    "attention_dropout": (lambda v: 0 <= v < 1, "in [0, 1)"),
    "checkpoint_minutes": (lambda v: 0 < v < math.inf, "above 0"),
    "sweep": (
        lambda v: Path(v).name == v and v and v[0] != "." and len(v) <= 150,
        "the name of one folder, not a hidden one",
    ),
}
PLAIN_SECTIONS = {"budget": "memrl.trainer.Trainer"}  # sections whose reader is fixed
LABELS = ("name", "_target_")  # keys of a section that its constructor does not take
BUILT = {  # parameters that are no keys of their section: memrl gives them
    "env": {"num_envs", "render_mode"},
    "encoder": {"action_width", "spec"},
    "seq_model": {"attention_dropout", "context_len", "dropout", "input_dim"},
    "algo": {"horizon", "memory", "new_memory", "train_steps"},
    "budget": {
        *("agent", "batch_size", "device", "horizon", "make_env", "num_envs"),
        *("replay", "seed", "updates_per_step"),
    },
    "logger": {"config", "folder", "next_step", "run_id"},
}


def check_types(config: Mapping[str, Any]) -> None:
    """Check every key of a config against the annotation of the parameter that reads it.

    Args:
        config: plain nested values; strings that begin with "${" are still to be resolved, and
            are passed over.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type.
    """
    top = {k: v for k, v in config.items() if not isinstance(v, Mapping)}
    _check_section("", top, _signature("memrl.schema.TopLevel") or {})
    for missing in sorted(TopLevel.__annotations__.keys() - top.keys()):
        raise ConfigError(f"{missing} is missing")
    for path, section in config.items():
        if not isinstance(section, Mapping):
            continue
        target = PLAIN_SECTIONS.get(path, section.get("_target_"))
        if target is None:
            if section.keys() != {"_target_"}:
                raise ConfigError(f"{path}: no such group, or no _target_ in it")
            continue
        try:
            signature = _signature(target)
        except LookupError as error:
            raise ConfigError(f"{path}._target_={target}: {error}") from None
        if signature is not None:
            values = {k: v for k, v in section.items() if k not in LABELS}
            known = {k: v for k, v in signature.items() if k not in BUILT.get(path, ())}
            _check_section(f"{path}.", values, known)


def check_ranges(config: Mapping[str, Any]) -> None:
    """Check the values of the keys that belong to no group; constructors check all others."""
    for key, (allowed, text) in RANGES.items():
        if not allowed(config[key]):
            raise ConfigError(f"{key} must be {text}, got {show(config[key])}")


def check_section(prefix: str, values: Mapping[str, Any], target: str) -> None:
    """Check values against the parameters of a class, all of which must be given.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type.
    """
    signature = _signature(target) or {}
    _check_section(prefix, values, signature)
    for missing in sorted(signature.keys() - values.keys()):
        raise ConfigError(f"{prefix}{missing} is missing")


def _check_section(prefix: str, values: Mapping[str, Any], signature: Checks) -> None:
    for key, value in values.items():
        if key not in signature:
            hint = suggest(prefix + key, [prefix + name for name in signature])
            raise ConfigError(f"{prefix}{key}={show(value)}: no such key; {hint}")
        if isinstance(value, str) and value.startswith("${"):
            continue
        annotation = signature[key]
        allowed = _refusal(value, annotation) if annotation is not None else None
        if allowed:
            raise ConfigError(f"{prefix}{key}={show(value)}: must be {allowed}")


def suggest(key: str, known: Collection[str]) -> str:
    """Name the known key whose last part is most like this one's, or all keys."""
    ends = {name.rpartition(".")[2]: name for name in known}
    close = difflib.get_close_matches(key.rpartition(".")[2], ends, n=1)
    return f"did you mean {ends[close[0]]}?" if close else f"there are {', '.join(sorted(known))}"


def show(value: Any) -> str:
    """Write a value as it stands in YAML and on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(show, value))}]"
    return str(value)


# --- signatures, from source ---------------------------------------------------------------------


@functools.cache  # a sweep asks for the same few a thousand times
def _signature(target: str) -> Checks | None:
    """Return the parameters of a class or function; None if its source does not tell.

    Raises:
        LookupError: there is no such module or name.
    """
    module, _, name = str(target).rpartition(".")
    try:
        spec = importlib.util.find_spec(module) if module else None
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise LookupError(f"no module {module}")
    if not spec.origin or not spec.origin.endswith(".py"):
        return None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return _parameters(tree, name)


def _parameters(tree: ast.Module, name: str) -> Checks | None:
    nodes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    if name not in nodes:
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        if any(name == (a.asname or a.name) for node in imports for a in node.names):
            return None
        raise LookupError(f"no class {name} there; it has {', '.join(sorted(nodes))}")
    node = nodes[name]
    if isinstance(node, ast.ClassDef):
        marks = " ".join(ast.unparse(mark) for mark in [*node.bases, *node.decorator_list])
        fields = {
            n.target.id: ast.unparse(n.annotation)
            for n in node.body
            if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
            if any(kind in marks for kind in ("TypedDict", "NamedTuple", "dataclass"))
        }
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not inits:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            return dict(fields) or (
                _parameters(tree, bases[0]) if bases and bases[0] in nodes else None
            )
        node = inits[0]
    arguments = node.args
    if arguments.kwarg:
        return None
    every = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    return {
        a.arg: ast.unparse(a.annotation) if a.annotation else None for a in every if a.arg != "self"
    }


def _refusal(value: Any, annotation: str) -> str | None:
    """Return what is allowed if the value does not fit the annotation, else None."""
    texts = []
    for node in _union(ast.parse(annotation, mode="eval").body):
        fits, text = _fits(value, node)
        if fits:
            return None
        texts.append(text)
    return " or ".join(texts)


def _union(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union(node.left) + _union(node.right)
    return [node]


def _fits(value: Any, node: ast.expr) -> tuple[bool, str]:
    name = ast.unparse(node)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "None":
        return value is None, "null"
    if name == "bool":
        return isinstance(value, bool), "true or false"
    if name == "int":
        return number and isinstance(value, int), "an integer"
    if name == "float":
        return number and math.isfinite(value), f"a finite number{_decimal(value)}"
    if name == "str":
        return isinstance(value, str), "text"
    if isinstance(node, ast.Subscript):
        base = ast.unparse(node.value).rpartition(".")[2]
        if base == "Literal":
            options = ast.literal_eval(node.slice)
            options = options if isinstance(options, tuple) else (options,)
            return value in options, "one of " + ", ".join(map(show, options))
        if base in ("Sequence", "list"):
            if not isinstance(value, list):
                return False, "a list"
            wrong = [r for r in (_refusal(v, ast.unparse(node.slice)) for v in value) if r]
            return not wrong, f"a list, each {wrong[0]}" if wrong else ""
        if base in ("Mapping", "dict"):
            return isinstance(value, Mapping), "a mapping, {key: value}"
    return True, name  # an annotation of somebody's own: the constructor will tell


def _decimal(value: Any) -> str:
    """Say how to write a fraction: neither YAML nor Hydra computes one."""
    parts = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(value))
    return f" ({value} is {int(parts[1]) / int(parts[2])})" if parts and int(parts[2]) else ""
