"""What Hydra needs to find memrl's sweeps: the sweeper, and a launcher for each place to run.

There is no ``__init__.py`` beside this file: it would hide the plugins of other packages. Hydra
imports the file at every start, so all that is heavy is imported where it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from memrl.sweep import launchers

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class Sweeper(BasicSweeper):
    """Composes the runs of a sweep and starts those that are missing.

    Args:
        params: values of keys, as on the command line; a sweep file sets it.
    """

    def __init__(self, params: dict[str, str]) -> None:
        super().__init__(max_batch_size=None, params=params)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check the launcher's keys.

        Raises:
            ConfigError: a key, its value and what is allowed; or it is no launcher of memrl.
        """
        from memrl.run.outcome import ConfigError
        from memrl.run.schema import check_section

        keys: dict[str, Any]
        keys = OmegaConf.to_container(config.hydra.launcher, resolve=True)  # type: ignore[assignment]
        name = keys.pop("_target_").rpartition(".")[2]
        if name not in KEYS_BY_CLASS:
            known = ", ".join(launchers.LAUNCHERS)
            raise ConfigError(f"hydra/launcher: {name} is not memrl's; choose from {known}")
        check_section("hydra.launcher.", keys, KEYS_BY_CLASS[name])
        try:
            self.chosen = KEYS_BY_CLASS[name](**keys)
        except ValueError as error:
            raise ConfigError(f"hydra.launcher.{error}") from None
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> NoReturn:
        """Start the sweep, and end the process with its exit status."""
        from memrl.commands.start import start
        from memrl.sweep.compose import compose_runs

        assert self.config is not None and self.hydra_context is not None
        runs = compose_runs(
            self.hydra_context.config_loader, self.config, [*self._parse_config(), *arguments]
        )
        sys.exit(start(runs, self.chosen))


class MemrlLauncher(Launcher):
    """A choice of ``hydra/launcher``; memrl's sweeper reads its keys and does the work."""

    KEYS: ClassVar[type[launchers.Launcher]]

    def __init__(self, **_: Any) -> None:
        """Take the keys, which only memrl's sweeper reads."""

    def setup(self, **_: Any) -> NoReturn:
        """Refuse: called by a sweeper other than memrl's, which composes runs in its own way."""
        from memrl.run.outcome import ConfigError

        raise ConfigError(f"hydra/launcher={self.KEYS.name} needs hydra/sweeper=memrl")

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Refuse, as ``setup`` does before."""
        self.setup()


class BasicLauncher(MemrlLauncher):
    KEYS = launchers.Basic


class LocalLauncher(MemrlLauncher):
    KEYS = launchers.Local


class SlurmLauncher(MemrlLauncher):
    KEYS = launchers.Slurm


KEYS_BY_CLASS = {cls.__name__: cls.KEYS for cls in (BasicLauncher, LocalLauncher, SlurmLauncher)}

# A file in conf/ would clash with Hydra's own entry of this name, which this one replaces.
ConfigStore.instance().store(
    group="hydra/launcher",
    name="basic",
    node={"_target_": f"{__name__}.BasicLauncher", "retry_failed": False, "dry_run": False},
    provider="memrl",
)
