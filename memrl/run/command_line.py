"""The command line as Hydra reads it, and which of Hydra's own keys memrl obeys."""

from __future__ import annotations

import argparse
import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from memrl.run.config import CONF, explain
from memrl.run.identity import ABSENT, flatten
from memrl.run.outcome import ConfigError, show

LAUNCHERS = sorted(path.stem for path in (CONF / "hydra" / "launcher").glob("*.yaml"))
POPULATED = (  # by Hydra: they differ without being set
    *("hydra.runtime", "hydra.overrides", "hydra.mode", "hydra.searchpath"),
    *("hydra.job.override_dirname", "hydra.job.config_name"),
)
FOLDER = "results go to outputs/<sweep>/<run>/, and sweep=NAME chooses the folder"
ADVICE = {
    "hydra.run": FOLDER,
    "hydra.sweep": FOLDER,
    "hydra.job.chdir": "results go to outputs/ in the folder where the command is given",
    "hydra.job.env_set": "for a sweep, set variables in the shell before the command",
    "hydra.job.env_copy": "runs have all variables of the command",
    "hydra.sweeper": "a sweep takes only hydra.sweeper.params",
    "hydra/sweeper": "only hydra/sweeper=memrl starts sweeps",
}


class CommandLine:
    """What Hydra composes from: a search path, a primary config and overrides.

    Args:
        args: what Hydra's own parser returned.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.config_name: str = args.config_name or "config"
        self.overrides: list[str] = [*args.overrides]
        self.multirun: bool = args.multirun
        self.run: bool = args.run
        self.shows: bool = args.cfg is not None
        self.hydra = Hydra.create_main_hydra2("memrl", _search_path(args))

    @property
    def task_overrides(self) -> list[str]:
        """The overrides of what is run, not of Hydra."""
        parsed = OverridesParser.create().parse_overrides(self.overrides)
        return [str(o.input_line) for o in parsed if not o.is_hydra_override()]

    def compose(self) -> DictConfig:
        """Return the config with its node ``hydra``; in a sweep without what is swept.

        Later compositions use the same search path.

        Raises:
            ConfigError: Hydra refused it, or memrl does not obey one of its keys.
        """
        config: DictConfig | None = None
        try:
            parsed = OverridesParser.create().parse_overrides(self.overrides)
            if self.multirun:
                if any(o.key_or_group == "hydra.mode" and o.value() != "MULTIRUN" for o in parsed):
                    raise ConfigError("hydra.mode: -m already says MULTIRUN; give one of the two")
                self.overrides.append("hydra.mode=MULTIRUN")
            of_path = [str(o.input_line) for o in parsed if o.key_or_group == "hydra.searchpath"]

            def options(group: str) -> list[str]:
                loader = self.hydra.config_loader
                return loader.get_group_options(
                    group, config_name=self.config_name, overrides=of_path
                )

            check_choices(parsed, options)
            values = [o for o in parsed if not o.is_hydra_override() and not is_choice(o, options)]
            texts = [o.input_line for o in values]
            rest = [text for text in self.overrides if text not in texts]
            config = self._load(rest)
            sweep = config.hydra.mode == RunMode.MULTIRUN
            if sweep and self.run:
                raise ConfigError("--run: the config says hydra.mode=MULTIRUN, a sweep")
            mode = RunMode.MULTIRUN if sweep else RunMode.RUN
            ConfigLoaderImpl.validate_sweep_overrides_legal(parsed, mode, from_shell=True)
            if not self.shows:
                _refuse_hydra_keys(config, [o for o in parsed if o.is_hydra_override()], sweep)
            self._keep_search_path(config)
            for override in values:
                # Each run of a sweep is composed by itself: its group options may have other keys.
                with contextlib.suppress(*[ConfigCompositionException] if sweep else []):
                    if not override.is_sweep_override():
                        # Hydra has no public function for this.
                        ConfigLoaderImpl._apply_overrides_to_config([override], config)
            return config
        except ConfigError:
            raise
        except Exception as error:  # Hydra raises whatever a bad value leads to
            if "HYDRA_FULL_ERROR" in os.environ:
                raise
            raise ConfigError(explain(error, self.overrides, config)) from None

    def show(self, kind: str, package: str | None, resolve: bool) -> None:
        """Print the config, as ``--cfg`` of Hydra does."""
        try:
            self.hydra.show_cfg(self.config_name, self.overrides, kind, package, resolve)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, self.overrides, None)) from None

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        with warnings.catch_warnings(action="ignore"):  # about folders that are not there
            config = self.hydra.config_loader.load_configuration(
                self.config_name,
                list(overrides),
                RunMode.MULTIRUN,
                validate_sweep_overrides=False,
            )
        for source in config.hydra.runtime.config_sources:
            if source.schema == "file" and not Path(source.path).is_dir():
                raise ConfigError(f"{source.provider}: there is no folder {source.path}")
        return config

    def _keep_search_path(self, config: DictConfig) -> None:
        """Make ``hydra.searchpath`` part of the search path: a default's config has no such key."""
        path = ConfigSearchPathImpl()
        for source in config.hydra.runtime.config_sources:
            path.append(source.provider, f"{source.schema}://{source.path}")
        GlobalHydra.instance().clear()
        self.hydra = Hydra.create_main_hydra2("memrl", path)


def _search_path(args: argparse.Namespace) -> Any:
    for flag, folder in (("-cp", args.config_path), ("-cd", args.config_dir)):
        if folder and not folder.startswith("pkg://") and not os.path.isdir(folder):
            raise ConfigError(f"{flag} {folder}: there is no such folder")
    main = args.config_path or str(CONF)
    path = create_config_search_path(main if "://" in main else os.path.abspath(main))
    if args.config_dir:
        anchor = SearchPathQuery(provider="schema")
        path.prepend("command-line", f"file://{os.path.abspath(args.config_dir)}", anchor)
    return path


@contextlib.contextmanager
def open_command_line(args: argparse.Namespace) -> Iterator[CommandLine]:
    """Let Hydra compose from a command line for as long as this is open."""
    GlobalHydra.instance().clear()
    try:
        yield CommandLine(args)
    finally:
        GlobalHydra.instance().clear()


# --- choices of groups ---------------------------------------------------------------------------


def is_choice(override: Override, options: Callable[[str], Sequence[str]]) -> bool:
    """Return whether it chooses an option of a group; others set, add or delete a key."""
    if override.package:
        return True
    # env={length:5} is merged into the group
    sets_keys = not override.is_sweep_override() and isinstance(override.value(), dict)
    return bool(options(override.key_or_group)) and not sets_keys


def check_choices(overrides: Sequence[Override], options: Callable[[str], Sequence[str]]) -> None:
    """Raise ConfigError unless each group's choice is a name: Hydra merges a list's options."""
    for override in overrides:
        if override.is_sweep_override() or override.is_delete():
            continue
        known = options(override.key_or_group)
        if known and isinstance(override.value(), list | None):
            group = override.key_or_group
            if group.startswith("hydra/"):
                continue  # refused by name
            line = override.input_line
            raise ConfigError(f"{line}: choose one option of {', '.join(known)}")


# --- Hydra's own keys ----------------------------------------------------------------------------


def differing_keys(old: DictConfig, new: DictConfig) -> dict[str, Any]:
    """Return the keys below ``hydra`` with other values than in the old config, and these.

    What Hydra itself fills in at each composition is left out, and so is what chooses the mode.
    """
    a, b = (
        flatten({"hydra": OmegaConf.to_container(config.hydra, resolve=False)})
        for config in (old, new)
    )
    keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key, ABSENT) != b.get(key, ABSENT)]
    return {key: b.get(key, ABSENT) for key in keys if not _below(key, POPULATED)}


def _below(key: str, sections: Sequence[str]) -> bool:
    return any(f"{key}.".startswith(f"{section}.") for section in sections)


def _refuse_hydra_keys(config: DictConfig, typed: Sequence[Override], sweep: bool) -> None:
    """Raise ConfigError if a key of Hydra's is set that has no effect in memrl.

    That is a key on the command line, or one in a file that differs from ``conf/config.yaml``.
    """
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    standard = loader.load_configuration("config", [], RunMode.MULTIRUN)
    choices, usual = (dict(c.hydra.runtime.choices) for c in (config, standard))
    lines = {o.key_or_group: str(o.input_line) for o in typed}
    for group in sorted(name for name in {*choices, *usual, *lines} if name.startswith("hydra/")):
        if group == "hydra/launcher" and choices.get(group) == "basic" and group not in lines:
            continue  # a primary config that chooses none: Hydra's own
        if group in lines or choices.get(group) != usual.get(group):
            text = lines.get(group) or f"{group}={show(choices.get(group))}"
            _check_hydra_choice(group, choices.get(group), text, sweep)
    differing = differing_keys(standard, config)
    keys = {key: f"{key}={show(value)}" for key, value in differing.items()} | {
        key: line for key, line in lines.items() if "/" not in key
    }
    for key, text in keys.items():
        _check_hydra_key(key, text, sweep)
    params = OmegaConf.select(config, "hydra.sweeper.params")
    if not OmegaConf.is_dict(params):
        raise ConfigError(
            f"hydra.sweeper.params={show(params)}: must be a mapping, {{key: values}}"
        )
    for key, value in params.items_ex(resolve=False):
        if OmegaConf.is_config(value) or value is None:
            wanted = "must be text, as on the command line"
            raise ConfigError(f"hydra.sweeper.params.{key}={show(value)}: {wanted}")


def _check_hydra_choice(group: str, choice: Any, text: str, sweep: bool) -> None:
    if group == "hydra/launcher" and choice not in (*LAUNCHERS, "basic"):
        raise ConfigError(f"{text}: memrl's launchers are {', '.join(LAUNCHERS)}")
    if group == "hydra/launcher" or (group == "hydra/sweeper" and choice == "memrl"):
        if not sweep:
            raise ConfigError(f"{text} is for sweeps: add -m (a sweep may have one run)")
        return
    raise ConfigError(f"{text}: {ADVICE.get(group, 'it has no effect in memrl')}; leave it out")


def _check_hydra_key(key: str, text: str, sweep: bool) -> None:
    if _below(key, ("hydra.mode", "hydra.searchpath")):
        return
    if _below(key, ("hydra.launcher", "hydra.sweeper.params")):
        if not sweep:
            raise ConfigError(f"{text} is for sweeps: add -m (a sweep may have one run)")
        return
    if _below(key, ("hydra.job.env_set",)) and not sweep:
        return  # by Hydra
    advice = [advice for section, advice in ADVICE.items() if _below(key, (section,))]
    raise ConfigError(f"{text}: {(advice or ['it has no effect in memrl'])[0]}; leave it out")


def refuse_own_hydra_keys(sweep: DictConfig, run: DictConfig, choices: Sequence[str]) -> None:
    """Raise ConfigError if a run's choices change what is one for the whole sweep."""
    for key, value in differing_keys(sweep, run).items():
        advice = "a sweep has one; give it on the command line"
        raise ConfigError(f"{' '.join(choices)} sets {key}={show(value)}: {advice}")
