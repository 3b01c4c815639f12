"""What the paper's figures cost: steps and updates of each run, and how long they take.

    python benchmarks/costs.py                # all four tasks; minutes
    python benchmarks/costs.py tmaze_active   # one of them

Measured on one thread: an update of 64 windows of whole random episodes, and a step of acting in
one environment. The rest is multiplication. Hours on a GPU are calculated, not measured: 1 ms for
a step of acting, and for an update the longest of 1 ms, 40 us for each step of an LSTM, and its
counted operations at 100 TFLOP/s, a tenth of what an H100 does in bfloat16 at best.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

from common import machine, operations, table

LAYERS = {"tmaze_active": (1, 2), "key_to_door": (2, 2)}  # of LSTM and GPT; else one
TASKS = ("tmaze_passive", "visual_match", "tmaze_active", "key_to_door")
MODELS = ("lstm", "gpt")
GPU_CALL_S, GPU_LSTM_STEP_S, GPU_FLOPS = 1e-3, 40e-6, 1e14
DAY_S, HOUR_S = 86_400, 3_600


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the CPU time of the second call: the first one sets things up."""
    call()
    start = time.process_time()
    call()
    return time.process_time() - start


def lengths(task: str) -> list[int]:
    """Return the lengths of a task's figure."""
    from omegaconf import OmegaConf

    from memrl.run.config import CONF

    sweep = OmegaConf.load(CONF.parent / "sweeps" / f"{task}.yaml")
    return [int(n) for n in sweep.hydra.sweeper.params["env.length"].split(",")]


def run_cost(task: str, length: int, model: str) -> tuple[int, float, float, float]:
    """Return a run's environment steps, CPU seconds of an update and of the run, GPU seconds."""
    from memrl.actions import actions_of
    from memrl.experiment import build_agent, closing, make_env, resolve
    from memrl.rollout import UniformActor, rollout
    from memrl.run.config import compose_config

    n_layer = dict(zip(MODELS, LAYERS.get(task, (1, 1)), strict=True))[model]
    given = [f"env={task}", f"env.length={length}", f"seq_model={model}", "device=cpu"]
    config = resolve(compose_config([*given, f"seq_model.n_layer={n_layer}"]))
    agent, spec, device = build_agent(config)
    with closing(make_env(config, config["batch_size"])) as env:
        actor = UniformActor(actions_of(env.single_action_space))
        batch, _ = rollout(env, actor, True, device, spec.horizon)
    update = cpu_seconds(lambda: agent.update(batch))
    with closing(make_env(config, 1)) as env:
        step = cpu_seconds(lambda: rollout(env, agent, True, device)) / spec.horizon
    budget = config["budget"]
    steps = spec.horizon * (budget["train_episodes"] + budget["warmup_episodes"])
    updates = config["updates_per_step"] * spec.horizon * budget["train_episodes"]
    n_recurrent, n_attention = (n_layer, 0) if model == "lstm" else (0, n_layer)
    T, weights = spec.horizon + 1, sum(w.numel() for _, w in agent.named_parameters())
    products = operations(
        config["batch_size"] * T, T, weights, n_attention, agent.memory.output_dim
    )
    gpu = max(GPU_CALL_S, GPU_LSTM_STEP_S * n_recurrent * spec.horizon, products / GPU_FLOPS)
    return steps, update, steps * step + updates * update, steps * GPU_CALL_S + updates * gpu


def rows(task: str) -> Iterator[list[Any]]:
    """Yield a row for each length of a task's figure."""
    for length in lengths(task):
        costs = [run_cost(task, length, model) for model in MODELS]
        row = [task, length, f"{costs[0][0] / 1e6:.1f}"]
        for _, update, cpu, gpu in costs:
            row += [f"{1e3 * update:,.0f}", f"{cpu / DAY_S:.1f}", f"{gpu / HOUR_S:.0f}"]
        yield row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help=f"some of {', '.join(TASKS)}; default: all")
    tasks = parser.parse_args().tasks or TASKS
    if unknown := set(tasks) - set(TASKS):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(TASKS)}")
    print(f"{machine()}; of one run\n")
    of_each = ("ms an update", "days on a core", "GPU hours")
    head = [f"{model.upper()}: {text}" for model in MODELS for text in of_each]
    table(["task", "length", "million steps", *head], (row for task in tasks for row in rows(task)))


if __name__ == "__main__":
    main()
