"""The loop: collect whole episodes, do the updates they owe, evaluate (Ni et al. 2023)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from memrl.actions import actions_of
from memrl.algos.graphs import Update
from memrl.checks import require, require_at_least
from memrl.interfaces import Agent, Logger
from memrl.networks import accumulate_
from memrl.replay import Replay
from memrl.rollout import UniformActor, rollout

EVAL_SEED_OFFSET = 42  # the evaluation environment has its own generator


@dataclass
class Counters:
    """Where a run stands: what a checkpoint of the trainer holds besides its parts' contents."""

    env_steps: int = 0
    episodes: int = 0
    updates: int = 0
    owed: int = 0  # updates still to do before the next collection
    in_cycle: bool = False  # episodes are collected, the row is not yet written
    cycle_steps: int = 0
    cycle_return: float = 0.0
    cycle_success: float = math.nan
    cycle_updates: int = 0
    cycle_metrics: dict[str, Tensor] = field(default_factory=dict)  # sums over its updates
    cycle_diagnostics: dict[str, Tensor] = field(default_factory=dict)  # after the last of them
    eval_block: int | None = None  # multiples of eval_every reached at the last cycle
    last_return: float | None = None  # of the last evaluation
    last_success: float = math.nan  # of tasks that report it


@dataclass(eq=False, repr=False)
class Trainer:
    """Trains an agent in cycles: collect, update, log a row, evaluate if due.

    The first cycle plays uniformly random episodes: ``warmup_episodes`` of them, which owe updates
    as all others do, or ``warmup_steps``, of which only the last round owes updates, as in the
    paper's continuous tasks. A ``state_dict`` may be taken at every boundary: between any two
    updates, and before and after every collection.

    A run ends early once an evaluation reaches every threshold ``stop_at_...`` that is not None; a
    task that reports no success never reaches ``stop_at_success``.
    """

    make_env: Callable[[int], gymnasium.vector.VectorEnv[Any, Any, Any]]  # of a number of rows
    agent: Agent
    replay: Replay
    device: torch.device  # where acting happens, and where agent and replay are
    horizon: int  # longest episode of the task, in steps
    seed: int  # of the environments
    num_envs: int  # episodes collected in lock-step; counts are at least 1
    batch_size: int  # windows per update
    updates_per_step: float | None  # gradient updates per environment step, above 0
    warmup_episodes: int | None  # random episodes before the first update
    eval_every: int  # episodes' worth of steps between evaluations
    eval_episodes: int  # episodes of one evaluation, played as one batch
    stop_at_return: float | None  # least mean return of an evaluation
    stop_at_success: float | None  # least fraction of its episodes that succeed
    train_episodes: int | None = None  # budget, in episodes of ``horizon`` steps, warm-up aside
    train_steps: int | None = None  # or in environment steps, warm-up included; one of them is set
    warmup_steps: int | None = None  # random steps before the first update; warmup_episodes is None
    updates_per_round: int | None = None  # of num_envs episodes; updates_per_step is None
    discounts: Sequence[float] | None = None  # evaluations have discounted returns too, by gamma
    agent_update: Update | None = None  # another form of the agent's, such as a CUDA graph

    def __post_init__(self) -> None:
        counts = ["num_envs", "batch_size", "eval_every", "eval_episodes"]
        counts += [self._chosen("train_steps", "train_episodes")]
        counts += [self._chosen("warmup_steps", "warmup_episodes")]
        if self._chosen("updates_per_round", "updates_per_step") == "updates_per_round":
            counts += ["updates_per_round"]
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        for discount in self.discounts or ():
            require(0 <= discount <= 1, "discounts", "numbers in [0, 1]", self.discounts)
        per_step = self.updates_per_step
        ok = per_step is None or 0 < per_step < math.inf
        require(ok, "updates_per_step", "above 0", per_step)
        self.env = self.make_env(self.num_envs)
        try:
            self.eval_env = self.make_env(self.eval_episodes)
        except BaseException:
            self.env.close()
            raise
        self.env.reset(seed=self.seed)
        self.eval_env.reset(seed=self.seed + EVAL_SEED_OFFSET)
        self.logger: Logger | None = None  # set before fit
        if self.train_steps and self.warmup_steps:  # it would train nothing
            allowed = f"above warmup_steps, {self.warmup_steps}"
            require(self.train_steps > self.warmup_steps, "train_steps", allowed, self.train_steps)
        warmup = self.warmup_steps or (self.warmup_episodes or 0) * self.horizon
        self.total_steps = self.train_steps or warmup + (self.train_episodes or 0) * self.horizon
        self.counters = Counters()
        self.elapsed = 0.0  # seconds in earlier processes
        self._since = time.perf_counter()

    def _chosen(self, steps: str, episodes: str) -> str:
        """Return which of two counts is set; the other one must be null."""
        values = getattr(self, steps), getattr(self, episodes)
        allowed = f"null where {episodes} is set, and an integer where it is null"
        shown = "null" if values[0] is None else values[0]
        require((values[0] is None) != (values[1] is None), steps, allowed, shown)
        return steps if values[1] is None else episodes

    # --- the loop --------------------------------------------------------------------------------

    def fit(self, boundary: Callable[[], None]) -> None:
        """Train to the end of the budget, or until solved.

        Args:
            boundary: called wherever a ``state_dict`` may be taken; it may raise to stop.

        Raises:
            FloatingPointError: a training metric is not finite.
        """
        self._since = time.perf_counter()
        self._cycle_since = (self._since, self.counters.updates)
        while True:
            while self.counters.owed:
                self.update()
                boundary()
            if self.counters.in_cycle:
                self._end_cycle()
            if self.finished:
                return
            boundary()
            self.collect()
            boundary()

    @property
    def finished(self) -> bool:
        """True if nothing is left to do."""
        return not self.counters.in_cycle and (
            self.counters.env_steps >= self.total_steps or self.solved
        )

    @property
    def solved(self) -> bool:
        """True if the last evaluation reached every threshold there is."""
        c, least, least_success = self.counters, self.stop_at_return, self.stop_at_success
        if c.last_return is None or (least is None and least_success is None):
            return False
        return (least is None or c.last_return >= least) and (
            least_success is None or c.last_success >= least_success
        )

    @property
    def progress(self) -> float:
        """Fraction of the budget that is spent, 0 to 1; owed updates count as unspent steps."""
        c = self.counters
        per_round = self.updates_per_round or 0
        per_step = self.updates_per_step or per_round / (self.num_envs * self.horizon)
        done = c.env_steps - min(c.owed / per_step, c.cycle_steps)
        total = max(self.total_steps, c.env_steps)  # a round of episodes may go past the budget
        return 1.0 if self.finished else min(max(done / total, 0.0), 1.0)

    def seconds(self) -> float:
        """Return the time spent training, earlier processes included, in seconds."""
        return self.elapsed + time.perf_counter() - self._since

    @property
    def _is_warm(self) -> bool:
        c, steps = self.counters, self.warmup_steps
        enough = c.episodes >= (self.warmup_episodes or 0)
        return enough if steps is None else c.env_steps >= steps

    def collect(self) -> None:
        """Play a round of episodes into the replay, and note the updates that they owe."""
        c = self.counters
        self._cycle_since = (time.perf_counter(), c.updates)
        before, returns, successes = c.env_steps, [], []
        warmup = c.env_steps == 0
        actor = UniformActor(actions_of(self.env.single_action_space)) if warmup else self.agent
        while True:
            episodes, success = rollout(self.env, actor, True, self.device, self.horizon)
            self.replay.add(episodes)
            steps = int(episodes.mask.sum())
            c.env_steps += steps
            c.episodes += episodes.mask.shape[1]
            returns.append(float((episodes.reward * episodes.mask).sum(0).mean()))
            if success is not None:
                successes.append(float(success.mean()))
            if not warmup or self._is_warm or c.env_steps >= self.total_steps:
                break
        c.cycle_steps = c.env_steps - before
        rounds = len(returns) if self.warmup_steps is None else 1
        if self.updates_per_round is not None:
            c.owed = self.updates_per_round * rounds
        else:
            c.owed = self._owed_by_steps(
                c.cycle_steps if self.warmup_steps is None else steps, warmup
            )
        c.cycle_return = float(np.mean(returns))
        c.cycle_success = float(np.mean(successes)) if successes else math.nan
        c.in_cycle = True

    def _owed_by_steps(self, steps: int, warmup: bool) -> int:
        """Return the updates that so many steps owe, rounded up; down after random episodes."""
        assert self.updates_per_step is not None
        owed = self.updates_per_step * steps
        if math.isclose(owed, round(owed), rel_tol=1e-9):  # 0.1 x 30 is a little more than 3
            owed = round(owed)
        return math.floor(owed) if warmup and self.warmup_steps is None else math.ceil(owed)

    def update(self) -> None:
        """Do one gradient step on a sampled batch."""
        c = self.counters
        update = self.agent_update or self.agent.update
        batch = self.replay.sample(self.batch_size)
        metrics = update(batch)
        c.owed -= 1
        c.updates += 1
        c.cycle_updates += 1
        accumulate_(c.cycle_metrics, metrics)
        if not c.owed and hasattr(self.agent, "diagnostics"):
            c.cycle_diagnostics = self.agent.diagnostics(batch)

    def check_finite(self) -> None:
        """Raise FloatingPointError if a metric of this cycle, or a weight, is not finite."""
        when = f"at env step {self.counters.env_steps}, by update {self.counters.updates}"
        for key, value in self.counters.cycle_metrics.items():
            if not math.isfinite(value.item()):
                raise FloatingPointError(f"train/{key} is {value.item()} {when}")
        weights = dict(self.agent.named_parameters())
        finite = [weight.isfinite().all() for weight in weights.values()]
        if finite and not torch.stack(finite).all():  # one host sync, not one for each
            name = next(name for name, ok in zip(weights, finite, strict=True) if not ok)
            raise FloatingPointError(f"the weights {name} are not finite {when}")

    def _end_cycle(self) -> None:
        self.check_finite()
        c = self.counters
        now, (since, updates) = time.perf_counter(), self._cycle_since
        if c.cycle_updates:
            row = {"train/return": c.cycle_return, "train/success": c.cycle_success}
            for key, value in c.cycle_metrics.items():
                row[f"train/{key}"] = value.item() / c.cycle_updates
            row |= {f"train/{key}": value.item() for key, value in c.cycle_diagnostics.items()}
            row["time/updates_per_s"] = (c.updates - updates) / (now - since)
            self._write("train", row)
        block = c.env_steps // self.horizon // self.eval_every
        due = c.eval_block is not None and block > c.eval_block  # never after the warm-up
        c.eval_block = block
        c.in_cycle, c.cycle_updates, c.cycle_metrics = False, 0, {}
        if due or c.env_steps >= self.total_steps:
            self._evaluate()

    def _evaluate(self) -> None:
        episodes, success = rollout(self.eval_env, self.agent, False, self.device, self.horizon)
        self.counters.last_return = float((episodes.reward * episodes.mask).sum(0).mean())
        self.counters.last_success = math.nan if success is None else float(success.mean())
        row = {
            "eval/return": self.counters.last_return,
            "eval/success": self.counters.last_success,
            "eval/length": float(episodes.mask.sum(0).double().mean()),
        }
        for discount in self.discounts or ():
            weights = discount ** torch.arange(len(episodes.reward)).double()  # (T,)
            rewards = (episodes.reward * episodes.mask).sum(1) / episodes.mask.shape[1]
            row[f"eval/return_{discount}"] = float((weights * rewards).sum())
        self._write("eval", row)

    def _write(self, table: str, row: dict[str, float]) -> None:
        assert self.logger is not None
        c = self.counters
        steps = {"env_steps": c.env_steps, "episodes": c.episodes, "updates": c.updates}
        self.logger.write(table, steps | row | {"time/seconds": self.seconds()})

    def close(self) -> None:
        """Close both environments."""
        try:
            self.env.close()
        finally:
            self.eval_env.close()

    # --- interruption ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest of the run depends on, random generators included.

        Weights are not copied: save it before the next update.
        """
        rng: dict[str, Any] = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        for name, env in (("env", self.env), ("eval_env", self.eval_env)):
            rng[name] = env.np_random.bit_generator.state
        parts = {"agent": self.agent.state_dict(), "replay": self.replay.state_dict(), "rng": rng}
        return vars(self.counters) | parts | {"elapsed": self.seconds()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        names = [f.name for f in fields(Counters) if f.name in state]  # an older version had fewer
        self.counters = Counters(**{name: state[name] for name in names})
        metrics = self.counters.cycle_metrics.items()
        self.counters.cycle_metrics = {name: value.to(self.device) for name, value in metrics}
        self.elapsed = state["elapsed"]
        self.agent.load_state_dict(state["agent"])
        self.replay.load_state_dict(state["replay"])
        rng = state["rng"]
        for name, env in (("env", self.env), ("eval_env", self.eval_env)):
            env.np_random.bit_generator.state = rng[name]
        torch.set_rng_state(rng["torch"])
        if self.device.type == "cuda" and "cuda" in rng:  # a run may move between devices
            torch.cuda.set_rng_state(rng["cuda"], self.device)
