"""The command line as Hydra reads it, and which of Hydra's own keys memrl obeys."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Hydra's public ``initialize`` and ``compose`` take neither -cd nor the sweeps of a command line.
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from memrl.run.config import CONF, SWEEPS, explain
from memrl.run.identity import ABSENT, flatten
from memrl.run.outcome import ConfigError, below_cwd, show

POPULATED = (  # by Hydra: they differ without being set
    *("hydra.runtime", "hydra.overrides", "hydra.mode", "hydra.searchpath"),
    *("hydra.job.override_dirname", "hydra.job.config_name"),
)
OF_SWEEPS = ("hydra.launcher", "hydra.sweeper")
OBEYED = (*OF_SWEEPS, "hydra.mode", "hydra.searchpath", "hydra.job.env_set")
FOLDER = "results go to outputs/<sweep>/<run>/; outputs=FOLDER and sweep=NAME choose others"
ADVICE = {
    "hydra.run": FOLDER,
    "hydra.sweep": FOLDER,
    "hydra.job.chdir": "results go to outputs/ in the folder where the command is given",
    "hydra.job.env_copy": "runs have all variables of the command",
}


class SweepError(ConfigError):
    """A run's choices change what is one for the whole sweep."""


class CommandLine:
    """What Hydra composes from: a search path, a primary config and overrides.

    Args:
        args: what Hydra's own parser returned.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.config_name: str = args.config_name or "config"
        self.overrides: list[str] = [*args.overrides]
        self.task_overrides: list[str] = []  # those that are not of Hydra's own keys
        self.multirun: bool = args.multirun
        self.run: bool = args.run
        self.shows: bool = args.cfg is not None
        # Nothing but memrl's own files, unless it is typed.
        self.is_standard = not (args.config_path or args.config_dir or args.config_name)
        self.hydra = Hydra.create_main_hydra2("memrl", _search_path(args))

    def compose(self) -> DictConfig:
        """Return the config with its node ``hydra``; in a sweep without what is swept.

        Later compositions use the same search path.

        Raises:
            ConfigError: Hydra refused it, or memrl does not obey one of its keys.
        """
        choices: list[str] = []
        try:
            with warnings.catch_warnings():
                # A folder of the search path that does not exist.
                warnings.filterwarnings("error", "provider=.* is not available")
                return self._compose(choices)
        except ConfigError:
            raise
        except Exception as error:  # Hydra raises whatever a bad value leads to
            config = None
            with contextlib.suppress(Exception):  # the options were refused, not a key
                config = self._load(choices)
            raise ConfigError(explain(error, self.overrides, config)) from None

    def show(self, kind: str, package: str | None, resolve: bool) -> None:
        """Print the config, as ``--cfg`` of Hydra does."""
        try:
            self.hydra.show_cfg(self.config_name, self.overrides, kind, package, resolve)
        except Exception as error:
            raise ConfigError(explain(error, self.overrides, None)) from None

    def _compose(self, choices: list[str]) -> DictConfig:
        parsed = OverridesParser.create().parse_overrides(self.overrides)
        typed = {
            o.key_or_group: str(o.input_line)
            for o in parsed
            if o.is_hydra_override() or o.key_or_group == "hydra"
        }
        self.task_overrides = [str(o.input_line) for o in parsed if not o.is_hydra_override()]
        if not self.shows:
            refuse_ignored(typed)
        if self.multirun:
            if typed.get("hydra.mode", "hydra.mode=MULTIRUN") != "hydra.mode=MULTIRUN":
                raise ConfigError(f"{typed['hydra.mode']}: -m already says MULTIRUN")
            self.overrides.append("hydra.mode=MULTIRUN")
        path = [text for key, text in typed.items() if key == "hydra.searchpath"]

        @functools.cache  # Hydra composes to answer
        def options(group: str) -> list[str]:
            loader = self.hydra.config_loader
            return loader.get_group_options(group, config_name=self.config_name, overrides=path)

        check_choices(parsed, options)
        choices += [str(o.input_line) for o in parsed if is_choice(o, options)] + path
        # Then no key of Hydra's can differ: to find that out takes half a second.
        is_plain = self.is_standard and not typed
        stands_in = not is_plain and self._choose_serial(choices, options)
        values = [o for o in parsed if not (o.is_hydra_override() or is_choice(o, options))]
        texts = [o.input_line for o in values]
        config = self._load([text for text in self.overrides if text not in texts])
        sweep = config.hydra.mode == RunMode.MULTIRUN
        sweeper = config.hydra.runtime.choices.get("hydra/sweeper")
        if sweep and self.run:
            raise ConfigError("--run: the config says hydra.mode=MULTIRUN, a sweep")
        mode = RunMode.MULTIRUN if sweep else RunMode.RUN
        ConfigLoaderImpl.validate_sweep_overrides_legal(parsed, mode, from_shell=True)
        if not (self.shows or is_plain):
            _check_hydra_keys(config, typed, sweep)
        if stands_in:
            config.hydra.runtime.choices["hydra/launcher"] = "basic"
        self._keep_search_path(config, choices)
        if sweep and not is_plain:
            self._refuse_late_sweeper(config)
        for override in values:
            # Each run of a sweep is composed by itself: its group options may have other keys.
            with contextlib.suppress(*[ConfigCompositionException] if sweep else []):
                if not override.is_sweep_override():
                    # Hydra has no public function for this.
                    ConfigLoaderImpl._apply_overrides_to_config([override], config)
        objective = config.get("objective")
        if objective is not None and not (self.shows or (sweep and sweeper != "memrl")):
            reason = "only a sweeper such as hydra/sweeper=optuna reads it"
            raise ConfigError(f"objective={show(objective)}: {reason}; leave it out")
        return config

    def _choose_serial(self, choices: list[str], options: Callable[[str], Sequence[str]]) -> bool:
        """Let ``serial`` stand for Hydra's default, ``basic``, which has no keys.

        An override in ``conf/config.yaml`` would win over that of an experiment.
        """
        loader = self.hydra.config_loader
        launcher = _launcher_of(loader, self.config_name, choices)
        if launcher != "basic" or "serial" not in options("hydra/launcher"):
            return False
        for texts in (choices, self.overrides):
            texts[:] = [text for text in texts if not text.startswith("hydra/launcher")]
            texts.append("hydra/launcher=serial")
        return True

    def _refuse_late_sweeper(self, config: DictConfig) -> None:
        """Raise ConfigError if a group's file chooses a sweeper: the primary config's wins."""
        loader, choices = self.hydra.config_loader, dict(config.hydra.runtime.choices)
        assert isinstance(loader, ConfigLoaderImpl)
        for group, option in choices.items():
            # Hydra has no public function for this.
            file = loader.repository.load_config(f"{group}/{option}")
            for default in (file and file.defaults_list) or ():
                if not isinstance(default, GroupDefault) or default.group != "/hydra/sweeper":
                    continue
                sweeper = default.value if default.override else None
                if sweeper not in (None, choices["hydra/sweeper"]):
                    text = f"{group}={option} sets hydra/sweeper={sweeper}, which comes too late"
                    raise ConfigError(f"{text}; give it on the command line")

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        return self.hydra.config_loader.load_configuration(
            self.config_name, [*overrides], RunMode.MULTIRUN, validate_sweep_overrides=False
        )

    def _keep_search_path(self, config: DictConfig, choices: Sequence[str]) -> None:
        """Make ``hydra.searchpath`` part of the search path: a default's config has no such key."""
        path = ConfigSearchPathImpl()
        for source in config.hydra.runtime.config_sources:
            path.append(source.provider, f"{source.schema}://{source.path}")
        sources = config.hydra.runtime.config_sources
        folders = [Path(source.path) for source in sources if source.schema == "file"]
        for name, folder in _hidden(folders, CONF):
            _refuse_hidden(name, folder)
        for name, folder in _hidden(folders, SWEEPS):
            # Those in use only: a folder may hold other programs' files of such names.
            if name.stem in _files_of(self.hydra.config_loader, self.config_name, choices):
                _refuse_hidden(name, folder)
        GlobalHydra.instance().clear()
        self.hydra = Hydra.create_main_hydra2("memrl", path)


def _search_path(args: argparse.Namespace) -> Any:
    for flag, folder in (("-cp", args.config_path), ("-cd", args.config_dir)):
        if folder and not folder.startswith("pkg://") and not os.path.isdir(folder):
            raise ConfigError(f"{flag} {folder}: there is no such folder")
    main = args.config_path or str(CONF)
    path = create_config_search_path(main if "://" in main else os.path.abspath(main))
    folders = {} if args.config_path else {"sweeps": SWEEPS}
    if args.config_dir:
        folders["command-line"] = Path(args.config_dir).absolute()
    for provider, folder in folders.items():  # Hydra's own schema must stay last
        path.prepend(provider, f"file://{folder}", SearchPathQuery(provider="schema"))
    return path


def _hidden(folders: Sequence[Path], own: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the files of memrl's own that hide another one in a folder that comes later."""
    after = folders[folders.index(own) + 1 :] if own in folders else []
    for file in own.rglob("*.yaml"):
        name = file.relative_to(own)
        for folder in after:
            if (folder / name).is_file() and (folder / name).read_bytes() != file.read_bytes():
                yield name, folder


def _refuse_hidden(name: Path, folder: Path) -> None:
    text = f"memrl's own {name} comes first, so this file has no effect"
    raise ConfigError(f"{below_cwd(folder / name)}: {text}; give it another name")


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
    return not sets_keys and _has_options(override, options)


def _has_options(override: Override, options: Callable[[str], Sequence[str]]) -> bool:
    return "." not in override.key_or_group and bool(options(override.key_or_group))


def check_choices(overrides: Sequence[Override], options: Callable[[str], Sequence[str]]) -> None:
    """Raise ConfigError unless each group's choice is a name: Hydra merges a list's options."""
    for override in overrides:
        if override.is_sweep_override() or override.is_delete():
            continue
        group = override.key_or_group
        if not isinstance(override.value(), str | dict) and _has_options(override, options):
            names = ", ".join(options(group))
            raise ConfigError(f"{override.input_line}: choose one option of {names}")


# --- Hydra's own keys ----------------------------------------------------------------------------


def _below(key: str, sections: Sequence[str]) -> bool:
    """Return whether a key, or a group with slashes, is one of these sections or below one."""
    return any(f"{key}.".replace("/", ".").startswith(f"{section}.") for section in sections)


def _is_of_launcher(text: str) -> bool:
    return text.lstrip("+~").startswith(("hydra/launcher", "hydra.launcher"))


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


def refuse_ignored(texts: Mapping[str, str]) -> None:
    """Raise ConfigError if one of these keys or groups of Hydra has no effect in any command."""
    for key, text in texts.items():
        if not _below(key, OBEYED):
            advice = [advice for section, advice in ADVICE.items() if _below(key, (section,))]
            reason = (advice or ["it has no effect in memrl"])[0]
            raise ConfigError(f"{text}: {reason}; leave it out")


@functools.cache
def standard_config() -> DictConfig:
    """Return what ``conf/config.yaml`` composes to; it is shared: do not change it."""
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    return loader.load_configuration("config", [], RunMode.MULTIRUN)


def _check_hydra_keys(config: DictConfig, typed: dict[str, str], sweep: bool) -> None:
    """Raise ConfigError if a key of Hydra's is set that has no effect in this command.

    That is a key on the command line, or one in a file that differs from ``conf/config.yaml``.
    """
    standard = standard_config()
    old, new = (dict(c.hydra.runtime.choices) for c in (standard, config))
    groups = [name for name in new if name.startswith("hydra/") and new[name] != old.get(name)]
    texts = {group: f"{group}={show(new[group])}" for group in groups if new[group] != "serial"}
    # A launcher and a sweeper of a sweep check their own keys; else name the option, not its keys.
    covered = OF_SWEEPS if sweep else [group.replace("/", ".") for group in groups]
    differing = differing_keys(standard, config).items()
    texts |= {key: f"{key}={show(value)}" for key, value in differing if not _below(key, covered)}
    texts |= typed
    refuse_ignored(texts)
    for key, text in texts.items():
        if not sweep and _below(key, OF_SWEEPS):
            raise ConfigError(f"{text} is for sweeps: add -m (a sweep may have one run)")
        if sweep and _below(key, ("hydra.job.env_set",)):
            raise ConfigError(f"{text}: for a sweep, set variables in the shell before the command")
    params: Any = config.hydra.sweeper.get("params")
    if params is None:  # so in sweepers of other packages
        return
    if not OmegaConf.is_dict(params):
        raise ConfigError(
            f"hydra.sweeper.params={show(params)}: must be a mapping, {{key: values}}"
        )
    for key, value in params.items_ex(resolve=False):
        if OmegaConf.is_config(value) or value is None:
            line = f"hydra.sweeper.params.{key}={show(value)}"
            raise ConfigError(f"{line}: must be text, as on the command line")


def refuse_own_hydra_keys(
    loader: ConfigLoader, sweep: DictConfig, run: DictConfig, choices: Sequence[str]
) -> None:
    """Raise SweepError if a run's choices change what is one for the whole sweep."""
    differing = differing_keys(sweep, run)
    if sweep.hydra.runtime.choices["hydra/launcher"] == "basic":  # the command chose none
        texts = [text for text in sweep.hydra.overrides.hydra if not _is_of_launcher(text)]
        launcher = _launcher_of(loader, sweep.hydra.job.config_name, [*texts, *choices])
        if launcher != "basic":
            differing = {"hydra/launcher": launcher}
    for key, value in differing.items():
        advice = "a sweep has one; give it on the command line"
        raise SweepError(f"{' '.join(choices)} sets {key}={show(value)}: {advice}")


def _files_of(loader: ConfigLoader, config_name: str, overrides: Sequence[str]) -> set[str]:
    """Return the primary config and the files that its defaults name, without their endings."""
    defaults = loader.compute_defaults_list(config_name, [*overrides], RunMode.MULTIRUN)
    return {str(default.config_path).removesuffix(".yaml") for default in defaults.defaults}


def _launcher_of(loader: ConfigLoader, config_name: str, overrides: Sequence[str]) -> str | None:
    """Return the launcher that files and overrides choose."""
    defaults = loader.compute_defaults_list(config_name, [*overrides], RunMode.MULTIRUN)
    choice: str | None = defaults.overrides.known_choices.get("hydra/launcher")
    return choice
