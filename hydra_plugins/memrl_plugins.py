"""What Hydra needs to find memrl's sweeps: the sweeper, and a launcher for each place to run.

There is no ``__init__.py`` beside this file: it would hide the plugins of other packages. Hydra
imports the file at every start, so all that is heavy is imported where it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from memrl.sweep import launchers

if TYPE_CHECKING:
    from pathlib import Path

    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class Sweeper(BasicSweeper):
    """Composes the runs of a sweep and starts those that are missing, with any launcher.

    Args:
        params: values of keys, as on the command line; a sweep file sets it.
    """

    def __init__(self, params: dict[str, str], **_: Any) -> None:
        super().__init__(max_batch_size=None, params=params)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check the keys of the sweeper, and those of a launcher of memrl.

        Raises:
            ConfigError: a key, its value and what is allowed.
        """
        from memrl.run.outcome import ConfigError, show

        for key in config.hydra.sweeper.keys() - {"_target_", "params"}:
            line = f"hydra.sweeper.{key}={show(config.hydra.sweeper[key])}"
            raise ConfigError(f"{line}: no such key; hydra/sweeper=memrl takes only params")
        self.chosen = read_launcher(config)
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> NoReturn:
        """Start the sweep, and end the process with its exit status."""
        from memrl.commands.start import start, start_elsewhere
        from memrl.sweep.compose import Composer, compose_sweep

        assert self.config is not None and self.hydra_context is not None
        composer = Composer(self.hydra_context.config_loader, self.config)
        runs = compose_sweep(composer, [*self._parse_config(), *arguments])
        if self.chosen is not None:
            sys.exit(start(runs, self.chosen))
        self.config.sweep = runs[0].config["sweep"]  # in hydra.sweep.dir, which launchers may use
        sys.exit(start_elsewhere(runs, launcher_name(self.config), self._launch))

    def _launch(
        self, job_overrides: Sequence[Sequence[str]], record: Path
    ) -> Iterable[JobReturn] | None:
        from memrl.commands.start import Job

        assert self.config is not None and self.hydra_context is not None
        return (
            Plugins.instance()
            .instantiate_launcher(
                hydra_context=self.hydra_context, task_function=Job(record), config=self.config
            )
            .launch(job_overrides, initial_job_idx=0)
        )


class MemrlLauncher(Launcher):
    """A choice of ``hydra/launcher``.

    memrl's sweeper reads its keys and does the work. Of another sweeper it takes overrides, and
    returns what each run scored.
    """

    KEYS: ClassVar[type[launchers.Launcher]]

    def __init__(self, **_: Any) -> None:
        """Take the keys, which ``setup`` reads from the config."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check the keys.

        Raises:
            ConfigError: a key, its value and what is allowed.
        """
        from memrl.run.outcome import ConfigError
        from memrl.sweep.compose import Composer

        chosen = read_launcher(config)
        assert chosen is not None
        if chosen.dry_run:
            line = f"hydra/sweeper={config.hydra.runtime.choices['hydra/sweeper']}"
            raise ConfigError(f"hydra.launcher.dry_run=true needs hydra/sweeper=memrl, not {line}")
        self.chosen, self.composer = chosen, Composer(hydra_context.config_loader, config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Start what is missing of these runs, wait for them, and return their objectives.

        Raises:
            ConfigError: the config of one of them; none was started.
        """
        from memrl.commands.start import launch_and_wait

        return launch_and_wait(self.composer, job_overrides, self.chosen)


class SerialLauncher(MemrlLauncher):
    KEYS = launchers.Serial


class LocalLauncher(MemrlLauncher):
    KEYS = launchers.Local


class SlurmLauncher(MemrlLauncher):
    """The keys of hydra-submitit-launcher, for runs that outlive the command.

    Jobs form an array that ``sweep status`` knows, run a copy of the code, and may share a GPU.
    """

    KEYS = launchers.Slurm


HYDRAS_OWN = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # hydra/launcher=basic
KEYS_BY_TARGET: dict[str, type[launchers.Launcher]] = {
    HYDRAS_OWN: launchers.Serial,
    **{f"{__name__}.{c.__name__}": c.KEYS for c in (SerialLauncher, LocalLauncher, SlurmLauncher)},
}


def launcher_name(config: DictConfig) -> str:
    """Return the name of the option that a command chose for ``hydra/launcher``."""
    return str(config.hydra.runtime.choices["hydra/launcher"])


def read_launcher(config: DictConfig) -> launchers.Launcher | None:
    """Return the chosen launcher, its keys checked; None if it is another package's.

    Raises:
        ConfigError: a key, its value and what is allowed.
    """
    from memrl.run.outcome import ConfigError
    from memrl.run.schema import check_section

    node = config.hydra.launcher
    keys: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_dict(node) else {}
    target = keys.pop("_target_", None)
    if target not in KEYS_BY_TARGET:
        return None
    if target == HYDRAS_OWN:  # it has no keys
        keys = {"retry_failed": False, "dry_run": False, **keys}
    check_section("hydra.launcher.", keys, KEYS_BY_TARGET[target])
    try:
        return KEYS_BY_TARGET[target](**keys)
    except ValueError as error:
        raise ConfigError(f"hydra.launcher.{error}") from None
