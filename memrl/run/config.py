"""The config of a run: composed by Hydra from ``conf/`` and the command line."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import shlex
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from memrl.run.identity import flatten
from memrl.run.outcome import ConfigError, in_one_line, show, suggest
from memrl.run.schema import BUILT, LABELS, labels_of, parameters_of

PACKAGE = Path(__file__).parents[1]
# A wheel has them in the package, a checkout beside it.
CONF, SWEEPS = (
    PACKAGE / name if (PACKAGE / name).is_dir() else PACKAGE.parent / name
    for name in ("conf", "sweeps")
)


def lookup(table: Mapping[Any, Any], *keys: Any) -> Any:
    """Resolve ``${lookup:{...},key,...}``: walk nested tables.

    ``pybullet_*`` stands for any key that begins like it, ``other`` for any key. A list, as of
    lengths, counts as its largest number.
    """
    keys = tuple(max(key) if isinstance(key, list | ListConfig) else key for key in keys)
    for depth, key in enumerate(keys):
        if key not in table:
            like = [k for k in table if str(k).endswith("*") and str(key).startswith(k[:-1])]
            key = like[0] if like else "other"
        if key not in table:
            known = ", ".join(map(str, table))
            raise ValueError(f"no entry for {' '.join(map(str, keys[: depth + 1]))}, only {known}")
        table = table[key]
    return ListConfig(table) if isinstance(table, list) else table  # which can be printed


def episodes(table: Any, *keys: Any, _parent_: DictConfig) -> Any:
    """Resolve ``${episodes:{...},key,...}`` as ``lookup``, to null if ``train_steps`` is set."""
    return None if _parent_.get("train_steps") is not None else lookup(table, *keys)


def unless(key: str, value: Any, *, _parent_: DictConfig) -> Any:
    """Resolve ``${unless:key,value}``, to null if this sibling was given a value of its own."""
    given = not OmegaConf.is_interpolation(_parent_, key) and _parent_.get(key) is not None
    return None if given else value


def row(column: str, *default: Any, _root_: DictConfig) -> Any:
    """Resolve ``${row:column}``: what the budget's table has for the task and its length.

    The table is ``budget.table``: tasks, lengths, columns, and where these differ by sequence model
    their names. ``${row:column,default}`` is the default where there is no such entry.
    """
    value = OmegaConf.select(_root_, f"budget.{TABLE}")
    if value is not None:
        value = lookup(
            value, *(OmegaConf.select(_root_, key) for key in ("env.name", "env.length"))
        )
        for key in (column, _root_.seq_model.name):
            if isinstance(value, DictConfig) and (key in value or not default):
                value = lookup(value, key)
    if default and (value is None or isinstance(value, DictConfig)):
        value = default[0]
    return ListConfig(value) if isinstance(value, list) else value


OmegaConf.register_new_resolver("row", row, replace=True)
OmegaConf.register_new_resolver("lookup", lookup, replace=True)
OmegaConf.register_new_resolver("episodes", episodes, replace=True)
OmegaConf.register_new_resolver("unless", unless, replace=True)
OmegaConf.register_new_resolver("expanduser", os.path.expanduser, replace=True)  # ~ in a path


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose ``conf/config.yaml`` with overrides as they are written on the command line.

    Within a command the folders of its search path come first.
    """
    if GlobalHydra.instance().is_initialized():
        path = copy.deepcopy(GlobalHydra.instance().config_loader().get_search_path())
        path.prepend("memrl", f"file://{CONF}", SearchPathQuery(provider="schema"))
        # Hydra's public ``compose`` takes no search path.
        config = ConfigLoaderImpl(path).load_configuration("config", [*overrides], RunMode.RUN)
        with open_dict(config):
            del config["hydra"]
        return config
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


TABLE = "table"  # a key of a budget that other keys are read from, by ``${row:...}``


class NoEntry(ConfigError):
    """A table in the config has no entry for what was chosen."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}; give it as {key}=...")
        self.key, self.text = key, text


def leaves(node: DictConfig, path: str, strict: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the node at a dotted path with their resolved values.

    Unless ``strict``, what cannot be resolved is left out, such as an entry that a table lacks.

    Raises:
        ConfigError: a value that cannot be resolved, with its key.
    """
    for key in node:
        name = f"{path}.{key!s}" if path else str(key)
        if name == f"budget.{TABLE}":
            continue
        try:
            value = node[key]
        except InterpolationResolutionError as error:
            if strict:
                text = str(error).splitlines()[0].split("resolving interpolation: ")[-1]
                if text.startswith("no entry for"):
                    raise NoEntry(name, text) from None
                raise ConfigError(f"{name}: {text}; give it as {name}=...") from None
            continue
        except OmegaConfBaseException as error:
            raise ConfigError(f"{name}: {str(error).splitlines()[0]}") from None
        if isinstance(value, DictConfig):
            yield str(key), dict(leaves(value, name, strict))
        else:
            yield str(key), OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


def explain_budget(error: NoEntry, config: Mapping[str, Any]) -> str:
    """Return one line about the budget if it is the task or length that a table of it lacks."""
    env, budget = config["env"], config["budget"].get("name")
    length = env.get("length")
    longest = max(length) if isinstance(length, list) else length
    where = f"env.length={show(length)}: " if isinstance(length, list) else ""
    for entry in (f"{env['name']}", f"{env['name']} {longest}"):
        if error.text.startswith(f"no entry for {entry}, only "):
            what = error.text.removeprefix("no ").replace(", only ", ", only for ")
            if budget:
                return f"{where}budget={budget} has no {what}: use budget=quick or smoke"
            if error.key == "budget.train_episodes":
                what = what.replace("entry", "published budget", 1)
                advice = f"use budget=quick, {error.key}=N or budget.train_steps=N"
                return f"{where}no {what}: {advice}"
    return str(error)


# --- what Hydra refuses --------------------------------------------------------------------------


def explain(error: Exception, overrides: Sequence[str], config: DictConfig | None) -> str:
    """Return one line: which override was refused, and what is allowed.

    Args:
        error: what Hydra raised.
        overrides: those of the command line, or of one run of a sweep.
        config: what the chosen groups compose to, with the node ``hydra``, if it is known.
    """
    if "HYDRA_FULL_ERROR" in os.environ:
        traceback.print_exception(error)
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException):
        return _missing(error)
    if match := re.search(r"Could not override '(\w+)@\w+\.\1'", text):
        advice = f"for another group write: override /{match[1]}@_global_.{match[1]}"
        return f"{text.splitlines()[0].rstrip('.')}; {advice}"
    if match := re.match(r"Could not (override|delete from config\.) '([^']*)'", text):
        key = match[2]
        typed = next((o for o in overrides if re.split("[=@]", o.lstrip("+~"))[0] == key), key)
        if "To append to your default list use" in text:
            return f"{typed}: a group that is new needs a + in front"
        is_delete = match[1] != "override"
        if config is not None and _has(config, key):
            if is_delete:
                return f"{typed}: it is null, which Hydra cannot delete; set it with {key}=VALUE"
            return f"{typed}: its keys are merged into those of {key}; a new one needs a + in front"
        known = _known(key, config, not is_delete)
        if not (is_delete or known.startswith("did you mean")) and _is_accepted(key, config):
            return f"{typed}: a key that is not in its file needs a + in front, +{key}=VALUE"
        return f"{typed}: no such key; {known}"
    if match := re.match(r"Could not append to config\. An item is already at '([^']*)'", text):
        key = match[1]
        typed = next((o for o in overrides if o.lstrip("+").split("=")[0] == key), key)
        return f"{typed}: there is such a key already; leave out the +"
    if match := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '([^']*)'", text):
        return f"{match[1]}: several values are a sweep; add -m, or quote a list as [1,2]"
    if match := re.match(r"provider=(.*), path=(.*) is not available", text):
        return f"{match[1]}: there is no folder or package {match[2]}"
    cause = str(error.__cause__)
    if text.startswith("Error merging override ") and cause.startswith("Cannot merge "):
        kind = "a list" if "object_type=list" in cause else "a mapping, {key: value}"
        return f"{text.removeprefix('Error merging override ')}: must be {kind}"
    lines = [text, cause] if error.__cause__ else [text]
    if isinstance(error, HydraException | OmegaConfBaseException | ValueError):
        return " ".join(" ".join(lines).split())
    return in_one_line(error)


def _unreadable(error: OverrideParseException) -> str:
    """Return what to write for text that Hydra's grammar does not accept."""
    if not error.override:
        return "'': must be key=value or group=option"
    key, equals, value = error.override.partition("=")
    quoted = f"{key}={QuotedString(value, Quote.double).with_quotes()}"
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return f"{error.override}: must be key=value or group=option"
    if not equals:
        return f"{error.override}: a value is missing, as in {error.override}=VALUE"
    return f"{error.override}: Hydra reads such a value only in quotes: {shlex.quote(quoted)}"


def _missing(error: MissingConfigException) -> str:
    name = str(error.missing_cfg_file)
    group, _, option = name.rpartition("/")
    if error.options is not None:
        options = ", ".join(error.options)
        return f"{group}={option}: no such option; choose from {options}{_package(name)}"
    if str(error).startswith("Cannot find primary config"):
        loader = GlobalHydra.instance().config_loader()
        known = [n for n in loader.get_group_options("") if not n.startswith("_")]  # Hydra's own
        places = "conf/, sweeps/ or the folder of -cd"
        return f"-cn {name}: no such config in {places}; {suggest(name, known)}"
    return " ".join(str(error).split())


def _package(name: str) -> str:
    """Return how to install the package that has an option of Hydra, if that is known."""
    if name == "hydra/sweeper/optuna":
        return "; to have it: pip install hydra-optuna-sweeper"
    kind = name.removeprefix("hydra/").partition("/")[0]
    return f", or install the package that has this {kind}" if name.startswith("hydra/") else ""


def _has(config: DictConfig, key: str) -> bool:
    section, _, name = key.rpartition(".")
    node = OmegaConf.select(config, section) if section else config
    return OmegaConf.is_dict(node) and name in node


def _is_accepted(key: str, config: DictConfig | None) -> bool:
    """Return whether a group of memrl's own takes a key that its file leaves out."""
    group, _, name = key.partition(".")
    if config is None or group not in BUILT or name == "length":  # only a task's file has that
        return False
    if name in labels_of(group):
        return True
    plain: Any = OmegaConf.to_container(config, resolve=False)
    target = plain[group].get("_target_")
    if not str(target).startswith("memrl."):  # nobody else's code is imported for a better text
        return False
    with contextlib.suppress(LookupError):
        return name in (parameters_of(target) or {}).keys() - BUILT[group]
    return False


def _known(key: str, config: DictConfig | None, elsewhere: bool) -> str:
    """Return what may have been meant by a key: of the chosen options, or also ``elsewhere``."""
    if config is None:
        return "--cfg job shows all keys"
    plain: Any = OmegaConf.to_container(config, resolve=False)
    hydra = {"hydra": plain.pop("hydra", {})}
    section, _, name = key.rpartition(".")
    group = section.replace(".", "/")
    if elsewhere and group in ("hydra/launcher", *BUILT):
        files = sorted((CONF / group).glob("*.yaml"))
        if others := [path.stem for path in files if name in OmegaConf.load(path)]:
            return f"{group}={' or '.join(others)} has it"
    if section == "hydra.sweeper":
        return (
            "hydra/sweeper=memrl has only params; others, such as hydra/sweeper=optuna, have more"
        )
    if key.startswith(("hydra.launcher.additional_parameters.", "hydra.sweeper.params.")):
        return "a key that is new needs a + in front"
    flat = flatten(hydra if key.startswith("hydra.") else plain)
    groups = [] if "." in key else [name for name, node in plain.items() if isinstance(node, dict)]
    return suggest(key, [*(n for n in flat if n.rpartition(".")[2] not in LABELS), *groups])
