"""From the command line of a sweep to the configs of its runs, a thousand in seconds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig, open_dict
from tqdm import tqdm

from memrl.experiment import build_agent, check_replay, folder_of, resolve
from memrl.run.config import explain
from memrl.run.identity import Config
from memrl.run.outcome import ConfigError
from memrl.sweep.submissions import Run

SHOWN = 5  # refused runs that are named


class Composer:
    """Composes once for each set of group choices, and applies all else to copies of that.

    Hydra composes every run of a sweep from its files, 50 ms each.

    Args:
        loader: of the command line that is running.
        master: its composed config, with the ``hydra`` node.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader = loader
        self.master = master
        self.parser = OverridesParser.create(config_loader=loader)
        self.parsed: dict[str, Override | None] = {}  # None: a choice, composing has to see it
        self.groups: dict[str, bool] = {}  # whether a key is a group's, which is found on disk
        self.composed: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}

    def product(self, arguments: Sequence[str]) -> list[list[str]]:
        """Return the overrides of every run; a later argument replaces one for the same key.

        Raises:
            HydraException: an argument that cannot be parsed, or that only some sweepers know.
        """
        overrides = self.parser.parse_overrides(list(arguments))
        for override in overrides:
            if override.is_discrete_sweep() and not list(override.sweep_string_iterator()):
                raise ConfigError(f"{override.input_line}: no value, so the sweep has no run")
        (batch,) = BasicSweeper.split_arguments(overrides, None)
        return batch

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """Return what Hydra would compose from these, without the ``hydra`` node."""
        for text in set(overrides) - self.parsed.keys():
            parsed = self.parser.parse_override(text)
            self.parsed[text] = None if self._is_choice(parsed) else parsed
        others = [override for text in overrides if (override := self.parsed[text])]
        choices = tuple(text for text in overrides if not self.parsed[text])
        if choices not in self.composed:
            whole = self.loader.load_sweep_config(self.master, list(choices))
            config = copy.deepcopy(whole)
            with open_dict(config):
                del config["hydra"]
            self.composed[choices] = whole, config
        whole, config = self.composed[choices]
        known: object = HydraConfig.instance().cfg
        if known is not whole:  # for interpolations of ${hydra:...}
            HydraConfig.instance().set_config(whole)
        config = copy.deepcopy(config)
        ConfigLoaderImpl._apply_overrides_to_config(others, config)
        return config

    def _is_choice(self, override: Override) -> bool:
        """Tell whether it chooses a group's option, and does not set, add or delete a key."""
        key = override.key_or_group
        if key not in self.groups:
            self.groups[key] = bool(self.loader.get_group_options(key))
        by_value = isinstance(override.value(), dict)  # {...} is merged, even of a group
        return bool(override.package) or (self.groups[key] and not by_value)


def compose_runs(loader: ConfigLoader, master: DictConfig, arguments: Sequence[str]) -> list[Run]:
    """Compose, resolve and check every run of a sweep; the same run asked for twice is one.

    Raises:
        ConfigError: one line for each thing that is wrong, and the runs it concerns.
    """
    composer = Composer(loader, master)
    runs: dict[Path, Run] = {}
    refused: dict[str, list[str]] = {}
    agents: dict[str, ConfigError | None] = {}
    product = composer.product(arguments)
    for overrides in tqdm(product, "composing", unit="run", leave=False, disable=None):
        try:
            config = resolve(composer(overrides))
            _check_agent(config, agents)
            run = Run(config, folder_of(config))
        except (ConfigError, ConfigCompositionException) as error:
            if isinstance(error, MissingConfigException):  # a group's option, by its own name
                raise
            text = str(error) if isinstance(error, ConfigError) else explain(error)
            refused.setdefault(text, []).append(" ".join(overrides))
            continue
        runs[run.folder] = run
    if refused:
        raise ConfigError("\n  ".join(_complaints(refused, len(product))))
    if len({run.folder.parent for run in runs.values()}) > 1:
        raise ConfigError("sweep: one sweep has one name; give sweep=NAME once")
    return list(runs.values())


def _complaints(refused: dict[str, list[str]], total: int) -> list[str]:
    """Return one line for each kind of error, and just that if it is the same in all runs."""
    count = sum(map(len, refused.values()))
    if len(refused) == 1 and count == total:
        return list(refused)
    lines = [f"{count} of {total} runs are refused, and nothing was started:"]
    for text, overrides in list(refused.items())[:SHOWN]:
        more = f" and {len(overrides) - 1} more" if len(overrides) > 1 else ""
        lines.append(f"{text} ({overrides[0]}{more})")
    if len(refused) > SHOWN:
        lines.append(f"and {len(refused) - SHOWN} other errors")
    return lines


def _check_agent(config: Config, known: dict[str, ConfigError | None]) -> None:
    """Build the agent of each kind once: constructors know what no annotation says."""
    left_out = ("seed", "sweep", "device")
    key = repr({name: value for name, value in config.items() if name not in left_out})
    if key not in known:
        known[key] = None
        try:
            _, spec, _ = build_agent(config | {"device": "cpu"})
            check_replay(config, spec)
        except ConfigError as error:
            known[key] = error
    if refusal := known[key]:
        raise refusal
