"""What Hydra needs to find memrl's sweeps: the sweeper, and a launcher for each place to run.

There is no ``__init__.py`` beside this file: it would hide the plugins of other packages. Hydra
imports the file at every start, so all that is heavy is imported where it is used.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class Sweeper(BasicSweeper):
    """Composes a sweep's runs and hands those that are missing to the launcher.

    Args:
        params: values of keys, as the command line would give them; a sweep file sets it.
    """

    def __init__(self, params: dict[str, str]) -> None:
        super().__init__(max_batch_size=None, params=params)

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        """Check the launcher's keys, and make it.

        Raises:
            ConfigError: a key, its value and what is allowed; or it is no launcher of memrl.
        """
        from memrl.schema import ConfigError, check_section

        section = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        assert isinstance(section, dict)
        name = section.pop("_target_").rpartition(".")[2]
        if name not in LAUNCHERS:
            known = ", ".join(launcher.NAME for launcher in LAUNCHERS.values())
            raise ConfigError(f"hydra/launcher: {name} is not memrl's; choose from {known}")
        given = {str(key): value for key, value in section.items()}
        check_section("hydra.launcher.", given, f"{__name__}.{name}")
        self.hydra_context, self.config = hydra_context, config
        self.launcher = LAUNCHERS[name](**given)

    def sweep(self, arguments: list[str]) -> Any:
        """Issue the sweep, and end the process with its exit status."""
        from memrl.sweep.compose import compose_runs
        from memrl.sweep.launch import issue

        assert self.config is not None and self.hydra_context is not None
        assert isinstance(self.launcher, Place)
        runs = compose_runs(
            self.hydra_context.config_loader, self.config, [*self._parse_config(), *arguments]
        )
        sys.exit(issue(runs, self.launcher.NAME, self.launcher.settings))


class Place(Launcher):
    """Where runs are started: a name and settings; ``memrl.sweep.launch`` does the work."""

    NAME = ""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, **_: Any) -> NoReturn:
        """Refuse: another sweeper than memrl's calls it, which composes runs in its own way."""
        from memrl.schema import ConfigError

        raise ConfigError(f"hydra/launcher={self.NAME} needs hydra/sweeper=memrl")

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Refuse, as ``setup`` does before."""
        self.setup()


class BasicLauncher(Place):
    """One run after another, in this process."""

    NAME = "basic"

    def __init__(self, retry_failed: bool, dry_run: bool) -> None:
        super().__init__(retry_failed=retry_failed, dry_run=dry_run)


class LocalLauncher(Place):
    """Several runs at a time on this machine."""

    NAME = "local"

    def __init__(self, n_jobs: int, retry_failed: bool, dry_run: bool, snapshot: bool) -> None:
        _check("n_jobs", n_jobs >= 1, "at least 1", n_jobs)
        super().__init__(
            n_jobs=n_jobs, retry_failed=retry_failed, dry_run=dry_run, snapshot=snapshot
        )


class SlurmLauncher(Place):
    """Jobs of a SLURM cluster; ``conf/hydra/launcher/slurm.yaml`` explains each key."""

    NAME = "slurm"

    def __init__(
        self,
        partition: str | None,
        account: str | None,
        qos: str | None,
        constraint: str | None,
        timeout_min: int,
        cpus_per_task: int | None,
        gpus_per_node: int | str | None,
        mem_gb: float | None,
        additional_parameters: dict[str, Any],
        setup: list[str],
        runs_per_job: int,
        array_parallelism: int,
        signal_delay_s: int,
        max_num_timeout: int,
        wait: bool,
        retry_failed: bool,
        dry_run: bool,
        snapshot: bool,
    ) -> None:
        settings = {key: value for key, value in locals().items() if key in keys_of("slurm")}
        for key in ("timeout_min", "runs_per_job", "array_parallelism", "signal_delay_s"):
            _check(key, settings[key] >= 1, "at least 1", settings[key])
        for key in ("cpus_per_task", "mem_gb"):
            value = settings[key]
            _check(key, value is None or value > 0, "null or above 0", value)
        _check("max_num_timeout", max_num_timeout >= 0, "at least 0", max_num_timeout)
        # SLURM may send the signal a minute early still: a sound limit is far above.
        room = f"below timeout_min in seconds, {timeout_min * 60}"
        _check("signal_delay_s", signal_delay_s < timeout_min * 60, room, signal_delay_s)
        super().__init__(**settings)


# A file in conf/ would clash with Hydra's own entry of this name, which this one replaces.
ConfigStore.instance().store(
    group="hydra/launcher",
    name="basic",
    node={"_target_": f"{__name__}.BasicLauncher", "retry_failed": False, "dry_run": False},
    provider="memrl",
)
LAUNCHERS = {c.__name__: c for c in (BasicLauncher, LocalLauncher, SlurmLauncher)}


def keys_of(name: str = "basic") -> list[str]:
    """Return the keys under ``hydra.launcher`` for the option ``hydra/launcher=<name>``."""
    chosen = [launcher for launcher in LAUNCHERS.values() if launcher.NAME == name]
    return [key for launcher in chosen for key in inspect.signature(launcher).parameters]


def _check(key: str, allowed: bool, text: str, value: Any) -> None:
    from memrl.schema import ConfigError, show

    if not allowed:
        raise ConfigError(f"hydra.launcher.{key} must be {text}, got {show(value)}")
