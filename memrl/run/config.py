"""The config of a run: composed by Hydra from ``conf/`` and the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from memrl.run.identity import flatten
from memrl.run.outcome import ConfigError, suggest
from memrl.run.schema import LABELS

CONF = Path(__file__).parents[2] / "conf"


def lookup(table: Mapping[Any, Any], *keys: Any) -> Any:
    """Resolve ``${lookup:{...},key,...}``: walk nested tables; ``other`` stands for any key."""
    for depth, key in enumerate(keys):
        if key not in table and "other" not in table:
            known = ", ".join(map(str, table))
            raise ValueError(f"no entry for {' '.join(map(str, keys[: depth + 1]))}, only {known}")
        table = table.get(key, table.get("other"))
    return table


OmegaConf.register_new_resolver("lookup", lookup, replace=True)


def compose_config(overrides: Sequence[str], hydra: bool = False) -> DictConfig:
    """Compose ``conf/config.yaml`` with overrides as they are written on the command line.

    Args:
        overrides: such as ``seq_model=gpt`` or ``env.length=50``.
        hydra: keep the node ``hydra``, which has the launcher's keys.
    """
    if GlobalHydra.instance().is_initialized():  # keeps the search path of the command line
        return compose("config", overrides=list(overrides), return_hydra_config=hydra)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=hydra)


def leaves(node: DictConfig, path: str, strict: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield a node's keys with their resolved values.

    Args:
        path: the node's own key, dotted.
        strict: False leaves out what cannot be resolved, such as a table without this length.

    Raises:
        ConfigError: a value that cannot be resolved, with its key.
    """
    for key in node:
        name = f"{path}.{key!s}" if path else str(key)
        try:
            value = node[key]
        except InterpolationResolutionError as error:
            if strict:
                text = str(error).splitlines()[0].split("resolving interpolation: ")[-1]
                raise ConfigError(f"{name}: {text}; give it as {name}=...") from None
            continue
        except OmegaConfBaseException as error:
            raise ConfigError(f"{name}: {str(error).splitlines()[0]}") from None
        if isinstance(value, DictConfig):
            yield str(key), dict(leaves(value, name, strict))
        else:
            yield str(key), OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


# --- what Hydra refuses --------------------------------------------------------------------------


def explain(error: Exception) -> str:
    """Return one line: which key of the command line was refused, and what is allowed."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: no such option; choose from {', '.join(error.options)}"
    unknown = re.match(r"Could not override '([^']*)'", text)
    if isinstance(error, ConfigCompositionException) and unknown:
        key = unknown[1]
        names = {re.split("[=@]", given.lstrip("+~"))[0]: given for given in reversed(sys.argv[1:])}
        if key.startswith("hydra.launcher.additional_parameters"):
            return f"{names.get(key, key)}: an option that is new needs a + in front"
        return f"{names.get(key, key)}: no such key; {suggest(key, _known_keys(key))}"
    several = re.match(r"Ambiguous value for argument '([^']*)'", text)
    if several:
        return f"{several[1]}: several values are a sweep; add -m, or quote a list as [1,2]"
    lines = [text, str(error.__cause__)] if error.__cause__ else [text]
    return " ".join(" ".join(lines).split())


def _known_keys(key: str) -> list[str]:
    """Return the keys beside this one, for the groups' options that were chosen."""
    if key.startswith("hydra.launcher."):
        given = [a for a in sys.argv[1:] if a.startswith("hydra/launcher=")]
        launcher = compose_config(given[-1:], hydra=True).hydra.launcher
        return [f"hydra.launcher.{name}" for name in launcher if name not in LABELS]
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    chosen = []
    for argument in sys.argv[1:]:
        group, _, option = argument.partition("=")
        if group in groups and (CONF / group / f"{option}.yaml").exists():
            chosen.append(argument)
    section = key.rpartition(".")[0]
    names = flatten(dict(compose_config(chosen)))
    known = [name for name in names if name.rpartition(".")[2] not in LABELS]
    beside = [name for name in known if name.rpartition(".")[0] == section]
    return (beside or known) + ([] if section else groups)
