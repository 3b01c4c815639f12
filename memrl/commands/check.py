"""Check a sequence model: the laws, on longer histories than at the start of a run; how far its
gradient reaches back; what it costs beside an LSTM of the same width; whether it solves a T-Maze of
length 5. Exit status: 0 if it obeys every law and trains, whether or not it solves the task; 1 if
not; 2 bad config."""

from __future__ import annotations

import argparse
import contextlib
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from memrl.commands.arguments import add_config
from memrl.run.outcome import FAILED, ConfigError, Failure, in_one_line, plural, show

if TYPE_CHECKING:
    import torch
    from torch import nn

    from memrl.run.identity import Config

MODEL = ("dropout", "attention_dropout", "precision", "update")
OTHERS = ("seq_model", "device", "threads", "seed")
KEYS = (*OTHERS, *MODEL, "env", "encoder", "context_len")  # that have an effect
LENGTH = 64  # inputs of a longer history
STEPS = (1, 10, 100, 1000)  # back in time, of the gradient
TASK = ("env=tmaze_passive", "env.length=5", "budget=fast")
LIMIT_S = 60.0  # of training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser, "seq_model=gpt seq_model.n_layer=2", KEYS)
    parser.add_argument("--no-train", action="store_true", help="leave out the T-Maze")


def run(args: argparse.Namespace) -> int:
    """Print what was measured; return the exit status.

    Raises:
        ConfigError: the config is refused.
        Failure: out of memory.
    """
    from memrl import experiment
    from memrl.run.law import SHORT

    config, task = _compose(args)
    with experiment.enough_memory(config):
        agent, spec, device = experiment.build_agent(config)
        case = Case(config, agent.memory, agent.memory.encoder.output_dim, device)
        model = case.memory.seq_model
        count = sum(parameter.numel() for parameter in model.parameters())
        widths = f"inputs of width {case.width}, outputs of width {model.output_dim}"
        print(f"seq_model={config['seq_model']['name']}: {count:,} parameters, {widths}")
        window = config["context_len"] or spec.horizon
        ok = _obeys_laws(case, model, min(SHORT, window + 1))
        ok = ok and _obeys_laws(case, *_longer(case, window), show=True)
        _print_gradient(case)
        _print_cost(case)
    if ok and task is not None:
        with experiment.enough_memory(task):
            ok = _train(task)
    return 0 if ok else FAILED


class Case(NamedTuple):
    """The model that is checked, and what else it takes to feed it."""

    config: Config
    memory: Any
    width: int  # of the inputs
    device: torch.device

    def long_model(self, **changes: float) -> nn.Module:
        """Return another one, for windows that are long enough for all measurements."""
        from memrl.experiment import make_seq_model

        return make_seq_model(self.config | changes, self.width, max(STEPS)).to(self.device)


def _compose(args: argparse.Namespace) -> tuple[Config, Config | None]:
    """Return the config of the command line, and that of the T-Maze with the same model, if any."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf, open_dict

    from memrl.experiment import check_names, resolve
    from memrl.run.command_line import open_command_line
    from memrl.run.config import CONF, compose_config
    from memrl.run.import_path import add_user_folders

    add_user_folders(args)
    flags = argparse.Namespace(**vars(args), multirun=False, run=False, cfg=None)
    with open_command_line(flags) as line:
        composed = line.compose()
        if composed.hydra.mode == RunMode.MULTIRUN:
            raise ConfigError("hydra.mode=MULTIRUN: memrl check takes the config of one run")
        typed = _typed_keys(line.overrides)
        HydraConfig.instance().set_config(composed)  # for interpolations such as ${hydra:...}
        choices = composed.hydra.runtime.choices
        with open_dict(composed):
            del composed["hydra"]
        config = resolve(composed)
        check_names(config, choices)
        if args.no_train:
            return config, None
        model = [f"seq_model={choices.seq_model}"] if "seq_model" in choices else []
        task = resolve(compose_config([*TASK, *model]))
    standard: Any = OmegaConf.load(CONF / "config.yaml")
    # The task's budget has a dropout and a precision of its own; other ones are chosen.
    chosen = [key for key in MODEL if key in typed or config[key] != standard[key]]
    return config, task | {key: config[key] for key in (*OTHERS, *chosen)}


def _typed_keys(overrides: Sequence[str]) -> set[str]:
    """Return the first parts of the keys on the command line.

    Raises:
        ConfigError: one has no effect.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from memrl.run.identity import GROUPS
    from memrl.run.schema import TOP_LEVEL

    typed = set()
    for override in OverridesParser.create().parse_overrides([*overrides]):
        key = override.key_or_group.partition(".")[0]
        typed.add(key)
        if key in {*GROUPS, *TOP_LEVEL} - {*KEYS}:
            reason = f"it has no effect in memrl check, which reads {', '.join(KEYS)}"
            raise ConfigError(f"{override.input_line}: {reason}; leave it out")
    return typed


def _obeys_laws(case: Case, model: nn.Module, length: int, show: bool = False) -> bool:
    """Check a model; print the verdicts if it breaks a law, or to ``show`` the differences."""
    from memrl.run.law import check_laws

    verdicts = check_laws(model, case.width, case.device, case.memory.precision, length)
    ok = all(verdict.ok for verdict in verdicts)
    if show or not ok:
        print(f"laws, on histories of {length} inputs:")
        for verdict in verdicts:
            _print_verdict(verdict.ok, f"{verdict.law:<24}{verdict.text}", verdict.error)
    return ok


def _longer(case: Case, window: int) -> tuple[nn.Module, int]:
    """Return a model, and the length of the longer histories that it takes."""
    from memrl.run.machine import is_out_of_memory

    try:
        return case.long_model(), LENGTH
    except Exception as error:  # it may refuse such long windows
        if is_out_of_memory(error):
            raise
        return case.memory.seq_model, min(LENGTH, window + 1)


def _print_verdict(ok: bool, text: str, error: BaseException | None = None) -> None:
    print(f"  {'ok' if ok else 'FAILED':<8}{text}", flush=True)
    if error is not None:
        lines = "".join(traceback.format_exception(error)).splitlines()
        print("\n".join(f"    {line}" for line in lines), flush=True)


# --- measurements --------------------------------------------------------------------------------


@contextlib.contextmanager
def _measuring() -> Iterator[None]:
    """Say why something cannot be measured: the model may refuse such long windows."""
    from memrl.run.machine import is_out_of_memory

    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        print(f"  not measured: {in_one_line(error)}", flush=True)


def _print_gradient(case: Case) -> None:
    from memrl.run.measurements import gradient_reach

    print("gradient of the last output with respect to earlier inputs, relative to the last input:")
    with _measuring():
        model = case.long_model(dropout=0.0, attention_dropout=0.0).train()
        reach = gradient_reach(model, case.width, case.device, STEPS)
        for steps, norm in reach.items():
            print(f"  {plural(steps, 'step'):>10} back  {norm:.2g}")
        if not any(reach.values()):
            print("  none: no output depends on an earlier input; this model has no memory")


def _print_cost(case: Case) -> None:
    import torch

    from memrl.run import machine, measurements
    from memrl.seq_models.rnn import Recurrent

    _, memory, width, device = case
    name = torch.cuda.get_device_name() if device.type == "cuda" else machine.cpuinfo("model name")
    where = " ".join([device.type, name, "with", plural(torch.get_num_threads(), "thread")])
    print(f"cost, and that of an LSTM of width {memory.output_dim} with one layer, on {where}:")
    with _measuring():
        lstm = Recurrent(width, "lstm", memory.output_dim, 1).to(device)
        own, other = (
            measurements.cost(model.train(), width, device, memory.precision)
            for model in (case.long_model(), lstm)
        )
        for what, a, b, unit in (
            ("update", own.update_s * 1e3, other.update_s * 1e3, "ms"),
            ("memory of an update", own.saved_bytes / 2**20, other.saved_bytes / 2**20, "MiB"),
            ("step of acting", own.step_s * 1e3, other.step_s * 1e3, "ms"),
        ):
            print(f"  {what:<20}{a:10,.2f} {unit:<4}{b:10,.2f} {unit:<4}{a / b:8.2g} times")
        print(f"  update: {measurements.ROWS} windows of {measurements.LENGTH} inputs", end="; ")
        state = measurements.state_bytes(memory.initial_state(1))
        print(f"acting: {measurements.ROWS} rows; state of a history: {state:,} bytes", flush=True)


# --- training ------------------------------------------------------------------------------------


class _NoTables:
    """A logger that writes nothing."""

    def write(self, table: str, row: Mapping[str, float]) -> None:
        pass

    def close(self, exit_code: int) -> None:
        pass


class _OutOfTime(Exception):
    pass


def _train(task: Config) -> bool:
    """Train in a T-Maze, and print how it ended; return False if training failed."""
    from memrl import experiment

    end = time.monotonic() + LIMIT_S

    def boundary() -> None:
        if time.monotonic() > end:
            raise _OutOfTime

    keys = " ".join(f"{key}={show(task[key])}" for key in (*MODEL, "seed"))
    print(f"training, at most a minute: {' '.join(TASK)} {keys}", flush=True)
    try:
        with experiment.closing(experiment.build(task)) as trainer:
            trainer.logger = _NoTables()
            with contextlib.suppress(_OutOfTime):
                trainer.fit(boundary)
    except ConfigError as error:
        print(f"  not trained: {error}")
        return True
    except Failure:
        raise
    except Exception as error:
        _print_verdict(False, f"it raised {in_one_line(error)}", error)
        return False
    c = trainer.counters
    result = "no evaluation" if c.last_return is None else f"return {c.last_return:.2f}"
    after = f"after {plural(c.episodes, 'episode')}, {trainer.seconds():.0f} s"
    print(f"  {'solved' if trainer.solved else 'not solved'}: {result} {after}")
    memory = trainer.agent.memory
    case = Case(task, memory, memory.encoder.output_dim, trainer.device)
    ok = _obeys_laws(case, memory.seq_model, task["env"]["length"] + 1)
    _print_verdict(ok, "the laws, after training")
    return ok
