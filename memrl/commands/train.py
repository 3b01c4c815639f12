"""``python run.py``, or ``memrl train``: one run, or a sweep with ``-m``.

Hydra composes the config. Exit status: 0 done; 1 failed; 2 bad config, nothing created; 3 another
process is working on the run; 75, 130, 143 stopped by SIGUSR2, SIGINT, SIGTERM. The same command
continues a stopped run.
"""

from __future__ import annotations

import csv
import io
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import memrl
from memrl import experiment
from memrl.run.command import remember_command
from memrl.run.config import CONF, explain
from memrl.run.files import write_whole
from memrl.run.identity import flatten
from memrl.run.outcome import (
    BUSY,
    FAILED,
    ConfigError,
    below_cwd,
    exit_status,
    in_one_line,
    log_to_console,
    reader_may_leave,
)
from memrl.sweep.launch import launch
from memrl.sweep.launchers import Launcher
from memrl.sweep.progress import SHOWN, code_note, counts, status_command
from memrl.sweep.states import ONGOING, State, Sweep, look
from memrl.sweep.submissions import Run

TABLE_LINES = 40  # a longer table of scores is not printed at the end of a sweep

GROUPS = {
    "env": "the task; env.length is its memory length or credit-assignment length",
    "algo": "the algorithm; env selects the default",
    "seq_model": "the memory, with keys such as seq_model.n_layer; mlp has no memory",
    "budget": "how long to train: smoke 20 episodes, quick 600; fast solves T-Mazes in minutes",
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
  budget.train_episodes=N  algo.lr=X  seq_model.n_layer=N  checkpoint_minutes=X  sweep=NAME  ...
  python run.py --cfg job      shows every key and its value; takes the arguments above too

Examples:

  python run.py                                                   length 10, LSTM: a minute
  python run.py seq_model=mlp                                     the same without memory
  python run.py env=tmaze_passive env.length=1500 seq_model=gpt   a run of the paper
  python run.py env=tmaze_active env.length=20 seq_model=gpt seq_model.n_layer=2
  python run.py env=visual_match env.length=60 seq_model=gpt
  python run.py env=key_to_door env.length=120 seq_model.n_layer=2
  python run.py -m env.length=5,10 seq_model=lstm,gpt 'seed=range(3)'    a sweep
  python run.py -cd sweeps -cn tmaze_passive hydra/launcher=slurm    a figure of the paper

Sweeps run with hydra/launcher=basic (one run after another), local (hydra.launcher.n_jobs=N at a
time) or slurm (docs/slurm.md). The same command again starts only what is missing. To print the
runs without starting them: hydra.launcher.dry_run=true. To start failed runs again:
hydra.launcher.retry_failed=true

  python -m memrl sweep status|logs|retry|cancel outputs/<sweep>    manage a sweep

Results go to outputs/<sweep>/<run>/. The same command again continues an interrupted run, or
returns at once if the run is done. Exit status: 0 done, 1 failed, 2 bad config, 3 another process
is working on the run; stopped, to be continued: 75 by USR2, 130 by Ctrl-C, 143 by TERM, 129 by a
closed terminal.

  python -m memrl plot outputs/<sweep>       figures and a table, also of unfinished sweeps
  python -m memrl report outputs/<sweep>     a report as one HTML file
  python -m memrl export outputs/<sweep> --output FILE.csv    all rows in one table (or .parquet)
  python -m memrl watch outputs/<sweep>/<run>    an animation of the trained agent

  python run.py --hydra-help   shows Hydra's own flags
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of ``run.py``, and exit with its status."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    with reader_may_leave():
        if {"-h", "--help"} & {*given}:  # Hydra's own help takes a second
            print(help_text())
        elif "--version" in given:
            print(f"memrl {memrl.__version__}")
        else:
            sys.argv = [sys.argv[0], *given]
            remember_command(given)
            log_to_console()
            sys.exit(exit_status(_with_hydra))


def _with_hydra() -> None:
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
    try:
        hydra.main(str(CONF), "config", version_base="1.3")(_task)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if wants_traceback:
            raise
        raise ConfigError(explain(error)) from None


def _task(cfg: DictConfig) -> None:
    # Hydra would print its own message about an exception that leaves its task.
    if status := exit_status(lambda: _one_run(cfg)):
        sys.exit(status)


def _one_run(cfg: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    launcher = hydra_config.runtime.choices["hydra/launcher"]
    # Hydra would silently run it in this process, perhaps on the login node.
    if hydra_config.mode == RunMode.RUN and launcher != "basic":
        raise ConfigError(f"hydra/launcher={launcher} starts sweeps, of one run too; add -m")
    experiment.run(cfg)


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


# --- sweeps --------------------------------------------------------------------------------------


def start(runs: Sequence[Run], launcher: Launcher) -> int:
    """Start the missing runs of a sweep; conclude it if it ends here; return the exit status."""
    failed = launch(runs, launcher)
    if failed is None:
        return 0
    status = conclude(look(runs[0].folder.parent, runs, others=True), runs)
    return FAILED if failed else status  # also of a run whose failure could not be recorded


def conclude(sweep: Sweep, requested: Collection[Run]) -> int:
    """Print how a command's runs ended, and write the table and figure of the whole sweep.

    Returns:
        The exit status: 1 if a run ended but is not done, 3 if another process works on a run.
    """
    names = {run.name for run in requested}
    ours = replace(sweep, runs=[run for run in sweep.runs if run.name in names])
    print(f"{below_cwd(sweep.folder)}: {counts(ours)}")
    written = [write_table(sweep)]
    try:
        written += draw_scores(sweep.folder)
    except Exception as error:  # a missing figure must not fail the sweep
        print(f"no figure: {in_one_line(error)}", file=sys.stderr)
    print(f"see {', '.join(map(below_cwd, written))}")
    print(f"a report: python -m memrl report {shlex.quote(below_cwd(sweep.folder))}", flush=True)
    if note := code_note(sweep):
        print(note, flush=True)
    bad = [run for run in ours.runs if run.state not in (State.DONE, *ONGOING)]
    if bad:
        print(f"{len(bad)} of {len(ours.runs)} runs are not done:", file=sys.stderr)
        for run in bad[:SHOWN]:
            print(f"  {run.name}: {run.state}: {run.cause}", file=sys.stderr)
        if len(bad) > SHOWN:
            print(f"  and {len(bad) - SHOWN} more: {status_command(sweep.folder)}", file=sys.stderr)
        return FAILED
    return BUSY if ours.goes_on else 0


def draw_scores(folder: Path) -> list[Path]:
    """Print a sweep's scores and draw them, or curves if it has no length; return the paths."""
    from memrl.results.drawing import Look
    from memrl.results.figures import write
    from memrl.results.runs import load
    from memrl.results.scores import PROTOCOLS, score
    from memrl.results.text import as_text

    cells = score(load(folder), PROTOCOLS["last"])
    if len(cells) <= TABLE_LINES:
        print(as_text(cells))
    return write(cells, folder, ["lengths"], ["png"], Look()) or write(
        cells, folder, ["curves"], ["png"], Look()
    )


def write_table(sweep: Sweep) -> Path:
    """Write ``runs.csv``, one line per run, into the sweep's folder."""
    keys = {group: f"{group}.name" for group in ("env", "algo", "seq_model")}
    keys |= {"length": "env.length", "seed": "seed"}
    fields = ["progress", "env_steps", "episodes", "updates", "last_return", "job_id", "host"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "state", "cause", *keys, *fields])
    for run in sweep.runs:
        values = [*map(flatten(run.config).get, keys.values()), *map(run.status.get, fields)]
        writer.writerow([run.name, run.state, run.cause, *values])
    path = sweep.folder / "runs.csv"
    write_whole(path, text.getvalue().encode())
    return path
