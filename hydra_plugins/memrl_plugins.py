"""What Hydra needs to find memrl's sweeps: the sweeper, and a launcher for each place to run.

There is no ``__init__.py`` beside this file: it would hide the plugins of other packages. Hydra
imports the file at every start, so all that is heavy is imported where it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
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
        from memrl.run.outcome import ConfigError, show
        from memrl.run.schema import check_section

        node = config.hydra.launcher
        keys: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_dict(node) else {}
        target = keys.pop("_target_", None)
        if target not in KEYS_BY_TARGET:
            known = ", ".join(launchers.LAUNCHERS)
            raise ConfigError(
                f"hydra.launcher._target_={show(target)}: choose hydra/launcher={known}"
            )
        if target == HYDRAS_OWN:  # it has no keys
            keys = {"retry_failed": False, "dry_run": False, **keys}
        check_section("hydra.launcher.", keys, KEYS_BY_TARGET[target])
        try:
            self.chosen = KEYS_BY_TARGET[target](**keys)
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


class SerialLauncher(MemrlLauncher):
    KEYS = launchers.Serial


class LocalLauncher(MemrlLauncher):
    KEYS = launchers.Local


class SlurmLauncher(MemrlLauncher):
    KEYS = launchers.Slurm


HYDRAS_OWN = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # hydra/launcher=basic
KEYS_BY_TARGET: dict[str, type[launchers.Launcher]] = {
    HYDRAS_OWN: launchers.Serial,
    **{f"{__name__}.{c.__name__}": c.KEYS for c in (SerialLauncher, LocalLauncher, SlurmLauncher)},
}
