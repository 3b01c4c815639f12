"""Where the runs of a sweep start: the keys below ``hydra.launcher``, one class for each option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf  # type: ignore[import-untyped]

from memrl.checks import require

# Options of sbatch that memrl sets, with the launcher's key for them, if there is one. Others lose
# the id of the job, which is read from what sbatch prints.
SBATCH_OPTIONS = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "time": "timeout_min",
    "cpus-per-task": "cpus_per_task",
    "gpus-per-node": "gpus_per_node",
    "mem": "mem_gb",
    "array": "array_parallelism",
    "signal": "signal_delay_s",
    "wait": "wait",
    "job-name": "name",
    **dict.fromkeys(("output", "error", "open-mode", "chdir", "nodes", "ntasks")),
    **dict.fromkeys(("ntasks-per-node", "tasks-per-node", "requeue", "no-requeue", "clusters")),
    **dict.fromkeys(("parsable", "quiet", "test-only", "wrap", "help", "usage", "version")),
}


@dataclass(kw_only=True)
class Launcher:
    """The keys that every launcher has."""

    option: ClassVar[str]  # hydra/launcher=<option>
    retry_failed: bool  # start runs that failed as well
    dry_run: bool  # print the table of runs, and start nothing


@dataclass(kw_only=True)
class Serial(Launcher):
    """One run after another, in this process."""

    option = "serial"


@dataclass(kw_only=True)
class Local(Launcher):
    """Several runs at a time on this machine."""

    option = "local"
    n_jobs: int
    snapshot: bool  # run a copy of the code, taken when the sweep is started

    def __post_init__(self) -> None:
        require(self.n_jobs >= 1, "n_jobs", "at least 1", self.n_jobs)


@dataclass(kw_only=True)
class Slurm(SlurmQueueConf, Launcher):  # type: ignore[misc]
    """Jobs of a SLURM cluster: the keys of hydra-submitit-launcher, and memrl's.

    ``conf/hydra/launcher/slurm.yaml`` has the defaults and explains each key.
    """

    option = "slurm"
    _target_: ClassVar[str] = "hydra_plugins.memrl_plugins.SlurmLauncher"
    # What null means stands beside the defaults.
    submitit_folder: str | None = None
    name: str | None = None
    gpus_per_node: int | str | None = None
    mem_gb: float | None = None
    stderr_to_stdout: bool = True
    runs_per_job: int
    wait: bool
    snapshot: bool

    def __post_init__(self) -> None:
        for key in ("nodes", "tasks_per_node"):
            value = getattr(self, key)
            require(value == 1, key, "1 (runs_per_job is how many runs share a job)", value)
        for key in ("timeout_min", "runs_per_job", "array_parallelism", "signal_delay_s"):
            value = getattr(self, key)
            require(value >= 1, key, "at least 1", value)
        for key in ("cpus_per_task", "cpus_per_gpu", "gpus_per_task", "mem_gb"):
            value = getattr(self, key)
            require(value is None or value > 0, key, "null or above 0", value)
        # SLURM takes 0 MB for all memory of a node.
        ok = self.mem_gb is None or self.mem_gb * 1024 >= 1
        require(ok, "mem_gb", "null or at least 0.001 (1 MB)", self.mem_gb)
        both = self.cpus_per_gpu is not None and self.cpus_per_task is not None
        require(not both, "cpus_per_task", "null beside cpus_per_gpu", self.cpus_per_task)
        require(self.max_num_timeout >= 0, "max_num_timeout", "at least 0", self.max_num_timeout)
        folder = self.submitit_folder
        ok = folder is None or not {"%", "\\"} & {*folder.replace("%j", "")}
        require(ok, "submitit_folder", "a folder without \\ and without % but in %j", folder)
        for option, value in self.additional_parameters.items():
            _refuse_own_option(str(option), value)
            key = str(option).replace("-", "_")
            if getattr(self, key, None) is not None:
                raise ValueError(f"additional_parameters.{option}={value}: {key} is set as well")
        # SLURM may send the signal up to a minute early: a sound limit is far above.
        limit_s = self.timeout_min * 60
        room = f"below timeout_min in seconds, {limit_s}"
        require(self.signal_delay_s < limit_s, "signal_delay_s", room, self.signal_delay_s)


def _refuse_own_option(option: str, value: object) -> None:
    text = option.replace("_", "-")
    for own, key in SBATCH_OPTIONS.items():
        if own.startswith(text) and text != "gpus":  # sbatch takes abbreviations
            instead = f"set hydra.launcher.{key} instead" if key else "memrl decides this option"
            raise ValueError(f"additional_parameters.{option}={value}: {instead}")


LAUNCHERS: dict[str, type[Launcher]] = {cls.option: cls for cls in (Serial, Local, Slurm)}
