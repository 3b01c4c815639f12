"""The command line: Hydra composes, ``experiment.run`` works, every failure is one line.

Exit status: 0 done; 1 failed; 2 bad config, nothing created; 3 the run is going on elsewhere;
75, 130, 143 stopped by SIGUSR2, SIGINT, SIGTERM, to be continued by the same command.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from memrl.checkpoint import CannotContinue
from memrl.experiment import CONF, compose_config, run
from memrl.interrupt import Stopped
from memrl.lock import BUSY, Busy
from memrl.run_folder import flatten, in_one_line
from memrl.schema import LABELS, ConfigError, suggest

FAILED, BAD_CONFIG = 1, 2
GROUPS = {
    "env": "the task; env.length is its one number: how long the agent must remember",
    "algo": "the algorithm; the env chooses it",
    "seq_model": "the memory, with seq_model.n_layer and more; mlp remembers nothing",
    "budget": "how long to train; smoke is 20 episodes, quick 600; fast solves T-Mazes in minutes",
    "encoder": "what embeds observations; the env chooses it",
    "logger": "besides csv files and the console",
}
HELP = """\
memrl: memory-based reinforcement learning, one run or a sweep

  python run.py [group=option ...] [key=value ...]

Groups, with their options (the default stands first):

{groups}

Keys: env.length=N  seed=N  device=auto|cpu|cuda  threads=N  batch_size=N  num_envs=N
  precision=float32|tf32|bf16|auto  update=eager|compiled|graphed  dropout=P  attention_dropout=P
  budget.train_episodes=N  algo.lr=X  seq_model.n_layer=N  checkpoint_minutes=X  sweep=NAME  ...
  python run.py --cfg job      shows every key and its value, with any of these

Examples:

  python run.py                                                   length 10, LSTM: a minute
  python run.py seq_model=mlp                                     the same without memory
  python run.py env=tmaze_passive env.length=1500 seq_model=gpt   a run of the paper
  python run.py env=tmaze_active env.length=20 seq_model=gpt seq_model.n_layer=2
  python run.py env=visual_match env.length=60 seq_model=gpt
  python run.py env=key_to_door env.length=120 seq_model.n_layer=2
  python run.py -m env.length=5,10 seq_model=lstm,gpt 'seed=range(3)'    a sweep
  python run.py -cd sweeps -cn tmaze_passive hydra/launcher=slurm    a figure of the paper

Sweeps run with hydra/launcher=basic (one by one), local (hydra.launcher.n_jobs=N at a time) or
slurm (docs/slurm.md). The same command again starts only what is missing. Also:
hydra.launcher.dry_run=true, hydra.launcher.retry_failed=true

  python -m memrl.sweep status|logs|retry|cancel outputs/<sweep>    looks after a sweep

Results go to outputs/<sweep>/<run>/. The same command again continues a run that was
interrupted, or returns at once when it is done. Exit status: 0 done, 1 failed, 2 bad config,
3 the run is going on elsewhere; 75, 130, 143 stopped by USR2, Ctrl-C, TERM, 129 by a closed
terminal, to be continued.

  python -m memrl.plot outputs/<sweep>       figures and a table, finished or not
  python -m memrl.report outputs/<sweep>     all about it in one HTML file
  python -m memrl.export outputs/<sweep> --output FILE.csv    all rows in one table; or .parquet
  python -m memrl.watch outputs/<sweep>/<run>    an animation of the trained agent

  python run.py --hydra-help   shows the flags of Hydra, which composes the config
"""

log = logging.getLogger("memrl")


def main() -> None:
    """Run the command line of ``run.py``."""
    if {"-h", "--help"} & set(sys.argv[1:]):  # Hydra's own takes a second
        print(help_text())
        return
    log_to_console()
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
    try:
        hydra.main(str(CONF), "config", version_base="1.3")(task)()
    except ConfigError as error:  # of a sweep
        sys.exit(_complain(str(error), BAD_CONFIG))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if wants_traceback:
            raise
        sys.exit(_complain(explain(error), BAD_CONFIG))
    except (CannotContinue, OSError) as error:  # of a sweep; a run's are caught by attempt
        sys.exit(_complain(in_one_line(error), FAILED))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", 130))


def log_to_console() -> None:
    """Send what memrl logs to the standard output, and nowhere else for now."""
    log.setLevel(logging.DEBUG)
    log.propagate = False
    logging.raiseExceptions = False  # a full disk must not bury its own message
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.INFO)
    log.handlers = [console]


def task(cfg: DictConfig) -> None:
    """Do one run; a failure ends the process."""
    failure = attempt(lambda: _run_here(cfg))
    if failure:
        sys.exit(_complain(*failure))


def _run_here(cfg: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    launcher = hydra_config.runtime.choices["hydra/launcher"]
    # Hydra would run it here, on the login node perhaps, without a word.
    if hydra_config.mode == RunMode.RUN and launcher != "basic":
        raise ConfigError(f"hydra/launcher={launcher} starts sweeps, of one run too; add -m")
    run(cfg)


def attempt(do: Callable[[], object]) -> tuple[str, int] | None:
    """Do it; return why it failed, in one line, and the exit status, or None.

    If a signal stopped it the process ends.
    """
    try:
        do()
        return None
    except ConfigError as error:
        return str(error), BAD_CONFIG
    except Busy as error:
        return str(error), BUSY
    except Stopped as error:
        print(f"{error}; the same command continues this run", file=sys.stderr)
        error.leave()
    except Exception as error:
        if not isinstance(error, FloatingPointError | CannotContinue | OSError):
            traceback.print_exc()
        return in_one_line(error), FAILED


def tool(do: Callable[[], object]) -> None:
    """Do what a command beside ``run.py`` is for; a failure is one line and the exit status."""

    def do_while_read() -> None:
        try:
            do()
            sys.stdout.flush()
        except BrokenPipeError:  # | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    try:
        failure = attempt(do_while_read)
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", 130))
    if failure:
        sys.exit(_complain(*failure))


def _complain(line: str, code: int) -> int:
    print(f"error: {line}", file=sys.stderr)
    return code


def help_text() -> str:
    """Return what ``--help`` prints."""
    defaults: dict[str, str] = {}
    for entry in OmegaConf.load(CONF / "config.yaml").defaults:
        defaults |= entry if OmegaConf.is_dict(entry) else {}
    lines = []
    for group, meaning in GROUPS.items():
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        options.sort(key=lambda option: option != defaults[group])
        lines += [f"  {group + '=':<11}{' | '.join(options)}", f"             {meaning}"]
    return HELP.format(groups="\n".join(lines))


# --- what Hydra refuses --------------------------------------------------------------------------


def explain(error: Exception) -> str:
    """Say in one line which key of the command line was refused, and what is allowed."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: no such option; choose from {', '.join(error.options)}"
    unknown = re.match(r"Could not override '([^']*)'", text)
    if isinstance(error, ConfigCompositionException) and unknown:
        if unknown[1].startswith("hydra.launcher.additional_parameters"):
            return f"{_as_given(unknown[1])}: an option that is new needs a + in front"
        return (
            f"{_as_given(unknown[1])}: no such key; {suggest(unknown[1], _known_keys(unknown[1]))}"
        )
    several = re.match(r"Ambiguous value for argument '([^']*)'", text)
    if several:
        return f"{several[1]}: several values are a sweep; add -m, or quote a list as [1,2]"
    lines = [text, str(error.__cause__)] if error.__cause__ else [text]
    return " ".join(" ".join(lines).split())


def _as_given(key: str) -> str:
    given = (a for a in sys.argv[1:] if a.lstrip("+~").partition("=")[0].partition("@")[0] == key)
    return next(given, key)


def _known_keys(key: str) -> list[str]:
    """Return the keys beside this one, for the groups' options that were chosen."""
    if key.startswith("hydra.launcher."):
        from hydra_plugins.memrl_plugins import keys_of

        given = [a.partition("=")[2] for a in sys.argv[1:] if a.startswith("hydra/launcher=")]
        return [f"hydra.launcher.{name}" for name in keys_of(*given[-1:])]
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    chosen = []
    for argument in sys.argv[1:]:
        group, _, option = argument.partition("=")
        if group in groups and (CONF / group / f"{option}.yaml").exists():
            chosen.append(argument)
    section = key.rpartition(".")[0]
    known = [
        name
        for name in flatten(dict(compose_config(chosen)))
        if name.rpartition(".")[2] not in LABELS
    ]
    beside = [name for name in known if name.rpartition(".")[0] == section]
    return (beside or known) + ([] if section else groups)
