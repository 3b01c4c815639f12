"""``python run.py``, or ``memrl train``: one run, or a sweep with ``-m``.

Hydra composes the config. Exit status: 0 done; 1 failed; 2 bad config, nothing created; 3 another
process is working on the run; 75, 130, 143 stopped by SIGUSR2, SIGINT, SIGTERM. The same command
continues a stopped run.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra import version

# Hydra has no public way to read its flags, or to make the context that a sweeper is given.
from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

import memrl
from memrl.commands.completion import complete
from memrl.run.command import program, remember_command
from memrl.run.command_line import CommandLine, open_command_line, standard_config
from memrl.run.config import CONF, SWEEPS, explain
from memrl.run.console import console, print_optionally
from memrl.run.import_path import add_user_folders
from memrl.run.outcome import (
    ConfigError,
    exit_status,
    log_to_console,
    logging_to_console,
)
from memrl.run.signals import Stopped

if TYPE_CHECKING:
    from memrl.results.runs import Run

GROUPS = {
    "env": "the task; env.length is its memory or credit-assignment length; gym: any Gymnasium env",
    "algo": "the algorithm; env selects the default",
    "seq_model": "the memory, with keys such as seq_model.n_layer; mlp has no memory",
    "budget": "how long to train: smoke 20 episodes, quick 600; fast solves short tasks in minutes",
    "encoder": "the embedding of observations; env selects the default",
    "logger": "in addition to csv files and the console",
}


HELP = """\
memrl: memory-based reinforcement learning, one run or a sweep

  python run.py [group=option ...] [key=value ...]

Groups and their options (the default comes first):

{groups}

Keys: env.length=N  seed=N  device=auto|cpu|cuda  threads=N  batch_size=N  num_envs=N
  precision=float32|tf32|bf16|auto  update=eager|compiled|graphed  dropout=P  attention_dropout=P
  algo.lr=X  seq_model.n_layer=N  checkpoint_minutes=X  sweep=NAME  ...
  budget.train_episodes=N      episodes of full length, after the random ones of the warm-up; or
  budget.train_steps=N         environment steps, warm-up included
  python run.py --cfg job      shows every key and its value; takes the arguments above too
  python run.py --help -cd my_conf    also lists your own configs, those in the folder my_conf

Examples:

  python run.py                                                   length 10, LSTM: a minute
  python run.py seq_model=mlp                                     the same without memory
  python run.py env=tmaze_passive env.length=1500 seq_model=gpt   a run of the paper
  python run.py env=tmaze_active env.length=20 seq_model=gpt seq_model.n_layer=2
  python run.py env=visual_match env.length=60 seq_model=gpt
  python run.py env=key_to_door env.length=120 seq_model.n_layer=2
  python run.py env=gym env.id=CartPole-v1 budget.train_steps=50000
  python run.py env=pendulum_p budget=fast                continuous actions: TD3
  python run.py -m env.length=5,10 seq_model=lstm,gpt 'seed=range(3)'    a sweep
  python run.py -cn tmaze_passive hydra/launcher=slurm    a figure of the paper

Sweeps run with hydra/launcher=serial (one run after another), local (hydra.launcher.n_jobs=N at a
time), slurm (docs/slurm.md) or any other Hydra launcher. The same command again starts only what is
missing. To print the runs without starting them: hydra.launcher.dry_run=true. To start failed runs
again: hydra.launcher.retry_failed=true. Tuning with Optuna: hydra/sweeper=optuna (docs/sweeps.md)

  python -m memrl sweep status                                      list all sweeps
  python -m memrl sweep status|logs|retry|cancel outputs/<sweep>    manage a sweep
  python -m memrl --help                                            plot, watch, lengths, ...

Results go to outputs/<sweep>/<run>/; outputs=FOLDER, or the variable MEMRL_OUTPUTS, names another
folder. A sweep without sweep=NAME is named after the keys that its command sets. The same command
again continues an interrupted run, or returns at once if the run is done.

Exit status: 0 done, 1 failed, 2 bad config, 3 another process is working on the run; stopped, to be
continued: 75 by USR2, 130 by Ctrl-C, 143 by TERM, 129 by a closed terminal.

  python -m memrl plot outputs/<sweep>       figures and a table, also of unfinished sweeps
  python -m memrl report outputs/<sweep>     a report as one HTML file
  python -m memrl export outputs/<sweep> --output FILE.csv    all rows in one table (or .parquet)
  python -m memrl evaluate outputs/<sweep>/<run> env.length=10,20    many episodes, other lengths
  python -m memrl watch outputs/<sweep>/<run>    an animation of the trained agent
  python -m memrl check seq_model=NAME       a sequence model: its laws, gradient, cost, training

  python run.py --hydra-help   shows Hydra's own flags
  eval "$(memrl train -sc install=bash)"    turns on tab completion in bash
"""


# Hydra's flags that print and start nothing.
PRINTING = ("-c", "--cfg", "-i", "--info", "--hydra-help", "-sc", "--shell-completion")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of ``run.py``, and exit with its status."""
    argv = [*(sys.argv[1:] if arguments is None else arguments)]
    with console():
        log_to_console()
        if {"-h", "--help"} & {*argv}:  # Hydra's own help has none of this
            sys.exit(exit_status(lambda: _show_help(argv)))
        elif "--version" in argv:
            print(f"memrl {memrl.__version__}")
        else:
            if not any(word.partition("=")[0] in PRINTING for word in argv):
                print_optionally()
            sys.argv = [sys.argv[0], *argv]
            remember_command(argv)
            sys.exit(exit_status(_with_hydra))


def _with_hydra() -> None:
    args = get_args_parser().parse_intermixed_args()
    _check_flags(args)
    add_user_folders(args)
    version.setbase("1.3")
    if args.shell_completion:
        complete(args)
        return
    if args.hydra_help or args.info:  # Hydra answers for itself
        try:
            hydra.main(str(CONF), "config", version_base="1.3")(_task)()
        except HydraException as error:
            raise ConfigError(explain(error, args.overrides, None)) from None
        return
    with open_command_line(args) as line:
        config = line.compose()
        if args.cfg:
            line.show(args.cfg, args.package, args.resolve)
        elif config.hydra.mode == RunMode.MULTIRUN:
            _sweep(line, config)
        else:  # null too
            line.hydra.run(line.config_name, _task, line.overrides)


def _check_flags(args: Namespace) -> None:
    modes = {"--run": args.run, "-m": args.multirun, "--cfg": args.cfg, "--info": args.info}
    modes |= {"--shell-completion": args.shell_completion, "--hydra-help": args.hydra_help}
    if len(chosen := [flag for flag, value in modes.items() if value]) > 1:
        raise ConfigError(f"{' and '.join(chosen)}: only one of them is possible")
    for flag, value in (("--package", args.package), ("--resolve", args.resolve)):
        if value and not args.cfg:
            raise ConfigError(f"{flag} needs --cfg")
    for word in args.overrides:
        if word.encode(errors="replace").decode() != word:  # bytes that Python could not decode
            raise ConfigError(f"{word}: not text in {sys.getfilesystemencoding()}")
    if args.experimental_rerun:
        raise ConfigError("--experimental-rerun: give the command of the run again instead")


def _sweep(line: CommandLine, config: DictConfig) -> None:
    """Do what ``Hydra.multirun`` does, which would refuse keys that only swept options have."""
    from memrl.commands.start import Job, conclude_study
    from memrl.sweep import compose
    from memrl.sweep.launch import NoObjective

    arguments = line.task_overrides
    if config.hydra.runtime.choices["hydra/sweeper"] != "memrl":
        params = config.hydra.sweeper.get("params") or {}
        texts = [*(f"{key}={value}" for key, value in params.items()), *arguments]
        compose.refuse_several_names(texts)
        _refuse_minimizing(config)
        if config.sweep is None:
            config.sweep = compose.name_after(texts, line.config_name)
            arguments = [*arguments, compose.choose_sweep(config.sweep)]
        compose.check_one(compose.Composer(line.hydra.config_loader, config), texts)
    context = HydraContext(config_loader=line.hydra.config_loader, callbacks=Callbacks())
    failure, began = None, time.time()
    with _nothing_created(config):
        try:
            sweeper = Plugins.instance().instantiate_sweeper(
                hydra_context=context, task_function=Job(), config=config
            )
            sweeper.sweep(arguments)  # memrl's own ends the process
        except HydraException as error:
            raise ConfigError(explain(error, line.overrides, config)) from None
        except NoObjective as error:
            failure = error
    sys.exit(conclude_study(Path(config.hydra.sweep.dir), began, failure))


def _refuse_minimizing(config: DictConfig) -> None:
    """Optuna's default direction would look for the worst agent."""
    direction = config.hydra.sweeper.get("direction")
    name = getattr(direction, "name", direction)
    if name == "minimize" and config.objective != "eval/length":
        metric = config.objective or "the return, or the share of successes,"
        raise ConfigError(
            f"hydra.sweeper.direction=minimize: {metric} is better the higher it is; "
            "set hydra.sweeper.direction=maximize"
        )


@contextlib.contextmanager
def _nothing_created(config: DictConfig) -> Iterator[None]:
    """Remove what Hydra's own sweeper, or a launcher, made before memrl refused the config."""
    if config.sweep is None:  # memrl's own sweeper is to make a name
        yield
        return
    folder = Path(config.hydra.sweep.dir)
    file = folder / "multirun.yaml"
    absent = [path for path in (file, folder, folder.parent) if not path.exists()]
    try:
        yield
    except ConfigError:
        with contextlib.suppress(OSError):  # not empty: there are runs
            if file in absent:
                file.unlink(missing_ok=True)
            for path in absent:
                if path != file:
                    path.rmdir()
        raise


def _task(cfg: DictConfig) -> None:
    # Hydra would print its own message about an exception that leaves its task.
    if status := exit_status(lambda: _one_run(cfg)):
        sys.exit(status)


def _one_run(cfg: DictConfig) -> None:
    from memrl import experiment  # --help and --cfg answer without it

    experiment.run(cfg, HydraConfig.get().runtime.choices)


# --- from Python ---------------------------------------------------------------------------------


def train(overrides: Sequence[str] = (), config_dir: Path | str | None = None) -> Run:
    """Train one run to its end, from where it stands, and return it, as ``python run.py`` does.

    Ctrl-C, or a notebook's interrupt, saves the run before it raises KeyboardInterrupt; the same
    call continues it. Another signal has its usual effect, once the run is saved. In a thread that
    is not the main one, signals are left to the caller.

    Args:
        overrides: as on the command line, such as ``["env.length=5", "seq_model=gpt"]``.
        config_dir: a folder of your own configs, as after ``-cd``.

    Raises:
        ConfigError: nothing was created.
        Busy: another process is working on this run.
        Failure: of the machine, or of what is on disk.
    """
    from memrl.results.runs import load
    from memrl.run.machine import settings_restored

    args = get_args_parser().parse_args([])
    args.overrides = [*overrides]
    args.config_dir = None if config_dir is None else str(config_dir)
    try:
        with settings_restored(), logging_to_console(), _hydra_restored():
            folder = _train_with_hydra(args)
    except Stopped as error:
        signal.raise_signal(error.signum)  # its handlers are the caller's again
        raise
    (run,) = load(folder)
    return run


def _train_with_hydra(args: Namespace) -> Path:
    from memrl import experiment

    version.setbase("1.3")
    folders: list[Path] = []
    errors: list[Exception] = []

    def task(cfg: DictConfig) -> None:
        try:
            folders.append(experiment.run(cfg, HydraConfig.get().runtime.choices))
        except Exception as error:  # Hydra would print its own message about it
            errors.append(error)

    add_user_folders(args)
    experiment.clear_caches()  # of the last call
    standard_config.cache_clear()
    with open_command_line(args) as line:
        if line.compose().hydra.mode == RunMode.MULTIRUN:
            raise ConfigError("hydra.mode=MULTIRUN: memrl.train trains one run")
        line.hydra.run(line.config_name, task, line.overrides, with_log_configuration=False)
    for error in errors:
        raise error
    return folders[0]


@contextlib.contextmanager
def _hydra_restored() -> Iterator[None]:
    """Leave Hydra as it was: the caller may be a program that Hydra started."""
    before = Singleton.get_state()
    try:
        yield
    finally:
        Singleton.set_state(before)


def _show_help(argv: Sequence[str]) -> None:
    """Print the help, with the options of a user's own folders of configs."""
    args = get_args_parser().parse_intermixed_args(argv)
    path = [text for text in args.overrides if text.startswith("hydra.searchpath=")]
    if not (path or args.config_dir or args.config_path or args.config_name):
        print(help_text())
        return
    add_user_folders(args)
    version.setbase("1.3")
    with open_command_line(args) as line:
        loader = line.hydra.config_loader
        options = partial(loader.get_group_options, config_name=line.config_name, overrides=path)
        try:
            print(help_text(options))
        except HydraException as error:
            raise ConfigError(explain(error, args.overrides, None)) from None


def _own_options(group: str, kind: ObjectType | None = ObjectType.CONFIG) -> list[str]:
    """Return the options of a group in ``conf/``, of "" also sweeps; faster than Hydra."""
    if kind == ObjectType.GROUP:
        return [path.name for path in (CONF / group).iterdir() if path.is_dir()]
    folders = [CONF / group] if group else [CONF, SWEEPS]
    return [path.stem for folder in folders for path in folder.glob("*.yaml")]


def help_text(options: Callable[..., list[str]] = _own_options) -> str:
    """Return what ``--help`` prints.

    Args:
        options: returns the options of a group, and of "" also its groups, as Hydra does.
    """
    defaults: dict[str, str] = {}
    for entry in OmegaConf.load(CONF / "config.yaml").defaults:
        defaults |= entry if OmegaConf.is_dict(entry) else {}
    lines = []
    for group, meaning in GROUPS.items():
        names = sorted(options(group), key=lambda name: (name != defaults[group], name))
        lines += [f"  {group + '=':<11}{' | '.join(names)}", f"             {meaning}"]
    for group in sorted({*options("", ObjectType.GROUP)} - {*GROUPS, "hydra"}):
        names = sorted(options(group, ObjectType.CONFIG))
        lines += [f"  +{group + '=':<10}{' | '.join(names)}"]
    configs = options("", ObjectType.CONFIG)
    if names := sorted(name for name in configs if name[0] != "_" and name != "config"):
        lines += [f"  {'-cn':<11}{' | '.join(names)}", "             a sweep's file"]
    text = HELP.format(groups="\n".join(lines))
    return text.replace("python run.py", program())
