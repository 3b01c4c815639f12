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

    With ``hydra`` it keeps the node ``hydra``, which holds the launcher's keys.
    """
    if GlobalHydra.instance().is_initialized():  # keeps the search path of the command line
        return compose("config", overrides=list(overrides), return_hydra_config=hydra)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=hydra)


def leaves(node: DictConfig, path: str, strict: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the node at a dotted path with their resolved values.

    Unless ``strict``, what cannot be resolved is left out, such as an entry that a table lacks.

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
        typed = (text for text in sys.argv[1:] if re.split("[=@]", text.lstrip("+~"))[0] == key)
        if key.startswith("hydra.launcher.additional_parameters"):
            return f"{next(typed, key)}: an option that is new needs a + in front"
        return f"{next(typed, key)}: no such key; {suggest(key, _known_keys(key))}"
    several = re.match(r"Ambiguous value for argument '([^']*)'", text)
    if several:
        return f"{several[1]}: several values are a sweep; add -m, or quote a list as [1,2]"
    lines = [text, str(error.__cause__)] if error.__cause__ else [text]
    return " ".join(" ".join(lines).split())


def _known_keys(key: str) -> list[str]:
    """Return the keys beside this one, for the groups' options that were chosen."""
    options = {f"{path.parent.relative_to(CONF)}={path.stem}" for path in CONF.rglob("*.yaml")}
    chosen = [argument for argument in sys.argv[1:] if argument in options]
    if key.startswith("hydra.launcher."):
        launcher = compose_config(chosen, hydra=True).hydra.launcher
        return [f"hydra.launcher.{name}" for name in launcher if name not in LABELS]
    section = key.rpartition(".")[0]
    config: Any = OmegaConf.to_container(compose_config(chosen))
    known = [name for name in flatten(config) if name.rpartition(".")[2] not in LABELS]
    beside = [name for name in known if name.rpartition(".")[0] == section]
    return (beside or known) + ([] if section else [p.name for p in CONF.iterdir() if p.is_dir()])
