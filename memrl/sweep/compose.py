"""Composes the configs of a sweep's runs from its command line, a thousand in seconds."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, open_dict
from tqdm import tqdm

from memrl.experiment import check, check_names, folder_of, own_weights, resolve
from memrl.run.command_line import SweepError, check_choices, is_choice, refuse_own_hydra_keys
from memrl.run.config import explain
from memrl.run.identity import SINGLE_RUNS, Config, flatten, sweep_name
from memrl.run.outcome import ConfigError, Failure, show
from memrl.sweep.submissions import Run

MAX_ERRORS = 5  # that are printed
ONE = {"outputs": ("folder", "FOLDER"), "sweep": ("name", "NAME")}  # in all runs of a sweep
# Launchers whose runs have no more memory than this process.
ON_THIS_MACHINE = ("basic", "serial", "local", "joblib", "submitit_local")


class Composer:
    """Composes from files once per choice of config groups; other overrides apply to copies.

    Hydra itself composes each run of a sweep from its files, which takes 50 ms.

    Args:
        loader: Hydra's, of the running command.
        master: the command's composed config, with the ``hydra`` node.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader = loader
        self.master = master
        self.parser = OverridesParser.create(config_loader=loader)
        self.parse = functools.cache(self.parser.parse_override)
        self.options = functools.cache(loader.get_group_options)  # reads the disk
        self.compose = functools.cache(self._compose)

    def product(self, arguments: Sequence[str]) -> list[list[str]]:
        """Return the overrides of every run; of several arguments for a key the last one counts.

        Raises:
            HydraException: an argument cannot be parsed, or this sweeper does not support it.
        """
        overrides = self.parser.parse_overrides(list(arguments))
        for override in overrides:
            if override.is_interval_sweep():
                reason = (
                    "an interval is for sweepers such as hydra/sweeper=optuna; give values, as a,b"
                )
                raise ConfigError(f"{override.input_line}: {reason}")
            if override.is_discrete_sweep() and not list(override.sweep_string_iterator()):
                raise ConfigError(f"{override.input_line}: no value, so the sweep has no run")
        (batch,) = BasicSweeper.split_arguments(overrides, None)
        return batch

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """Return what Hydra would compose from these overrides, without the ``hydra`` node."""
        choices = self.choices(overrides)
        values = [self.parse(text) for text in overrides if text not in choices]
        whole, base = self.compose(choices)
        # Interpolations such as ${hydra:runtime.choices.env} read it.
        HydraConfig.instance().set_config(whole)
        config = copy.deepcopy(base)
        # Hydra has no public function for this.
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return config

    def choices(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """Return the overrides that choose options of groups."""
        return tuple(text for text in overrides if is_choice(self.parse(text), self.options))

    def explain(self, error: Exception, overrides: Sequence[str]) -> str:
        """Return one line about what Hydra refused in a run, with that run's own keys."""
        config = None
        with contextlib.suppress(HydraException, ValueError):
            config = self.compose(self.choices(overrides))[0]
        return explain(error, overrides, config)

    def _compose(self, choices: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
        """Return the config composed from files with these choices, with and without ``hydra``."""
        whole = self.loader.load_sweep_config(self.master, list(choices))
        refuse_own_hydra_keys(self.loader, self.master, whole, choices)
        base = copy.deepcopy(whole)
        with open_dict(base):
            del base["hydra"]
        return whole, base


def name_after(overrides: Sequence[str], config_name: str | None = "config") -> str:
    """Return the name of a sweep whose command does not choose one.

    How and in which order a key is written makes no difference; of several overrides for it the
    last one counts.

    Args:
        overrides: as on the command line, those of ``hydra.sweeper.params`` first.
        config_name: of the primary config.
    """
    keys: dict[str, str | None] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group + (f"@{override.package}" if override.package else "")
        if override.is_delete():
            keys[f"~{key}"] = None
        elif override.is_sweep_override():
            keys[key] = None
        else:
            keys |= {k: show(value) for k, value in flatten({key: override.value()}).items()}
    return sweep_name(keys, config_name or "config")


def choose_sweep(name: str) -> str:
    """Return the override that chooses the name of a sweep."""
    return f"sweep={QuotedString(name, Quote.single).with_quotes()}"


def compose_sweep(composer: Composer, arguments: Sequence[str]) -> list[Run]:
    """Compose every run of a sweep, as ``compose_runs`` does; repeated runs are returned once."""
    name = name_after(arguments, composer.master.hydra.job.config_name)
    runs = compose_runs(composer, composer.product(arguments), name)
    return list({run.folder: run for run in runs}.values())


def compose_runs(
    composer: Composer, jobs: Sequence[Sequence[str]], name: str = SINGLE_RUNS
) -> list[Run]:
    """Compose, resolve and check a run for each job's overrides.

    ``name`` is that of the sweep, if the overrides choose none.

    Raises:
        ConfigError: a line for each kind of error, with the runs that it concerns.
    """
    runs: list[Run] = []
    refused: dict[str, list[str]] = {}
    checked: dict[str, ConfigError | None] = {}
    here = composer.master.hydra.runtime.choices["hydra/launcher"] in ON_THIS_MACHINE
    for overrides in tqdm(jobs, "composing", unit="run", leave=False, disable=None):
        try:
            check_choices([*map(composer.parse, overrides)], composer.options)
            config = resolve(composer(overrides), name)
            check_names(config, HydraConfig.get().runtime.choices)
            folder = folder_of(config)
            _check(own_weights(config, folder), checked, here)
            complete = (*overrides, choose_sweep(config["sweep"]))
            runs.append(Run(config, folder, overrides=complete))
        except MissingConfigException as error:  # an option that does not exist
            raise ConfigError(composer.explain(error, overrides)) from None
        except SweepError:
            raise
        except Failure as error:  # out of memory
            raise Failure(f"{error} ({' '.join(overrides)})") from None
        except (ConfigError, HydraException) as error:
            is_ours = isinstance(error, ConfigError)
            text = str(error) if is_ours else composer.explain(error, overrides)
            refused.setdefault(text, []).append(" ".join(overrides))
    if refused:
        raise ConfigError("\n  ".join(_error_lines(refused, len(jobs))))
    for key in ONE:
        if len({run.config.get(key) for run in runs}) > 1:
            raise _several(key)
    return runs


def _several(key: str) -> ConfigError:
    thing, value = ONE[key]
    return ConfigError(f"{key}: one sweep has one {thing}; give {key}={value} once")


def refuse_several_names(overrides: Sequence[str]) -> None:
    """Raise ConfigError if a sweeper is to choose the sweep's name, or the folder of results."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_sweep_override() and override.key_or_group in ONE:
            raise _several(override.key_or_group)


def check_one(composer: Composer, arguments: Sequence[str]) -> None:
    """Check the config of one run that a sweeper of another package may propose.

    Of choices it has the first, of intervals the middle. Thus a bad value of a key that is not
    swept is refused before the sweeper begins.

    Raises:
        ConfigError: one line with the key, its value and what is allowed.
    """
    overrides = {}
    for override in composer.parser.parse_overrides(list(arguments)):
        text, key = str(override.input_line), override.get_key_element()
        if override.is_discrete_sweep():
            text = f"{key}={next(override.sweep_string_iterator(), '')}"
        elif override.is_interval_sweep():
            interval: Any = override.value()
            text = f"{key}={type(interval.start)((interval.start + interval.end) / 2)}"
        overrides[key] = text
    compose_runs(composer, [[*overrides.values()]])


def _error_lines(refused: dict[str, list[str]], total: int) -> list[str]:
    """Return a line for each error and its runs; only the error if it is the same in all runs."""
    count = sum(map(len, refused.values()))
    if len(refused) == 1 and count == total:
        return list(refused)
    verb = "was" if count == 1 else "were"
    lines = [f"{count} of {total} runs {verb} refused; nothing was started:"]
    for text, overrides in list(refused.items())[:MAX_ERRORS]:
        more = f" and {len(overrides) - 1} more" if len(overrides) > 1 else ""
        lines.append(f"{text} ({overrides[0]}{more})")
    if len(refused) > MAX_ERRORS:
        lines.append(f"and {len(refused) - MAX_ERRORS} other errors")
    return lines


def _check(config: Config, checked: dict[str, ConfigError | None], here: bool) -> None:
    """Check what a single run checks, once per distinct config."""
    irrelevant = ("seed", "outputs", "sweep", "device")
    key = repr({name: value for name, value in config.items() if name not in irrelevant})
    if key not in checked:
        try:
            check(config, here)
            checked[key] = None
        except ConfigError as error:
            checked[key] = error
    if refusal := checked[key]:
        raise refusal
