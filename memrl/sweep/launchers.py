"""Where the runs of a sweep start: the keys below ``hydra.launcher``, one class for each option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

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
    **dict.fromkeys(("job-name", "output", "error", "open-mode", "chdir", "nodes", "ntasks")),
    **dict.fromkeys(("ntasks-per-node", "tasks-per-node", "requeue", "no-requeue", "clusters")),
    **dict.fromkeys(("parsable", "quiet", "test-only", "wrap", "help", "usage", "version")),
}


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """The keys that every launcher has."""

    name: ClassVar[str]  # of the option, hydra/launcher=<name>
    retry_failed: bool  # start runs that failed as well
    dry_run: bool  # print the table of runs, and start nothing


@dataclass(frozen=True, kw_only=True)
class Serial(Launcher):
    """One run after another, in this process."""

    name = "serial"


@dataclass(frozen=True, kw_only=True)
class Local(Launcher):
    """Several runs at a time on this machine."""

    name = "local"
    n_jobs: int
    snapshot: bool  # run a copy of the code, taken when the sweep is started

    def __post_init__(self) -> None:
        require(self.n_jobs >= 1, "n_jobs", "at least 1", self.n_jobs)


@dataclass(frozen=True, kw_only=True)
class Slurm(Launcher):
    """Jobs of a SLURM cluster; ``conf/hydra/launcher/slurm.yaml`` explains each key."""

    name = "slurm"
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    timeout_min: int
    cpus_per_task: int | None
    gpus_per_node: int | str | None
    mem_gb: float | None
    additional_parameters: dict[str, Any]
    setup: list[str]
    runs_per_job: int
    array_parallelism: int
    signal_delay_s: int
    max_num_timeout: int
    wait: bool
    snapshot: bool

    def __post_init__(self) -> None:
        for key in ("timeout_min", "runs_per_job", "array_parallelism", "signal_delay_s"):
            value = getattr(self, key)
            require(value >= 1, key, "at least 1", value)
        for key in ("cpus_per_task", "mem_gb"):
            value = getattr(self, key)
            require(value is None or value > 0, key, "null or above 0", value)
        # SLURM takes 0 MB for all memory of a node.
        ok = self.mem_gb is None or self.mem_gb * 1024 >= 1
        require(ok, "mem_gb", "null or at least 0.001 (1 MB)", self.mem_gb)
        require(self.max_num_timeout >= 0, "max_num_timeout", "at least 0", self.max_num_timeout)
        for option, value in self.additional_parameters.items():
            _refuse_own_option(str(option), value)
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


LAUNCHERS: dict[str, type[Launcher]] = {cls.name: cls for cls in (Serial, Local, Slurm)}
