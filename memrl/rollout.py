"""Rollout: play B episodes in lock-step, from reset to the last one's end."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from memrl.actions import Actions, actions_of, no_action
from memrl.checks import require
from memrl.envs.spaces import NUMBERS
from memrl.interfaces import Actor, Episodes, State

PCG64s = (np.random.PCG64, np.random.PCG64DXSM)  # their states are plain numbers


class UniformActor:
    """Uniformly random actions, drawn with torch's generator; for the episodes before learning."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def initial_state(self, batch_size: int) -> State:
        return ()

    def act(
        self, obs: Tensor, prev_reward: Tensor, state: State, explore: bool | int
    ) -> tuple[Tensor, State]:
        return self.actions.sample(len(prev_reward), prev_reward.device), state


def check_env(env: Any, num_envs: int) -> None:
    """Raise ValueError unless episodes of a vector environment can be played, stored and resumed.

    Its action space is checked by ``actions_of``.
    """
    mode = getattr(env, "metadata", {}).get("autoreset_mode")
    ok = mode == gymnasium.vector.AutoresetMode.DISABLED
    require(ok, "its autoreset_mode", "AutoresetMode.DISABLED", mode)
    horizon = getattr(env, "horizon", None)
    ok = isinstance(horizon, int) and not isinstance(horizon, bool) and horizon >= 1
    require(ok, "its horizon", "its longest episode in steps, an integer of at least 1", horizon)
    rows = getattr(env, "num_envs", None)
    require(rows == num_envs, "its num_envs", f"the {num_envs} that it was called with", rows)
    space = getattr(env, "single_observation_space", None)
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    ok = bool(shape and 0 not in shape and dtype is not None and dtype.kind in NUMBERS)
    allowed = "of arrays with at least one dimension, such as Box(-1, 1, (1,))"
    require(ok, "its single_observation_space", allowed, space)
    random = getattr(env, "np_random", None)
    ok = isinstance(random, np.random.Generator) and isinstance(random.bit_generator, PCG64s)
    allowed = "a numpy Generator of kind PCG64 for all rows: a checkpoint holds its state"
    require(ok, "its np_random", allowed, random)


def check_first_step(env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
    """Raise ValueError unless what ``reset`` and ``step`` return has its shapes and dtypes."""
    B, space = env.num_envs, env.single_observation_space
    assert space.shape is not None
    obs, _ = env.reset(seed=0)
    _check_array("the observation of reset", obs, (B, *space.shape), _kinds(space))
    action = no_action(actions_of(env.single_action_space), B, torch.device("cpu"))
    obs, reward, terminated, truncated, _ = env.step(torch.zeros_like(action).numpy())
    _check_array("the observation of step", obs, (B, *space.shape), _kinds(space))
    _check_array("the reward", reward, (B,), NUMBERS)
    _check_array("terminated", terminated, (B,), "b")
    _check_array("truncated", truncated, (B,), "b")


def _kinds(space: gymnasium.Space[Any]) -> str:
    return "u" if space.dtype == np.uint8 else NUMBERS  # bytes are stored as such


def _check_array(name: str, value: Any, shape: tuple[int, ...], kinds: str) -> None:
    try:
        array = np.asarray(value)
    except ValueError:  # rows of several lengths
        array = np.empty(0, dtype=object)
    names = {"b": "bool", "u": "uint8", NUMBERS: "numbers"}
    ok = array.shape == shape and array.dtype.kind in kinds
    require(ok, name, f"{names[kinds]} of shape {shape}", f"{array.dtype} of shape {array.shape}")
    require_finite(name, array)


def require_finite(name: str, array: Any) -> None:
    """Raise ValueError if a number is not finite."""
    if (bad := _not_finite(array)) is not None:
        require(False, name, "finite", bad)


def _not_finite(array: Any) -> Any:
    """Return the first number that is not finite, or None."""
    finite = np.isfinite(array)
    return None if finite.all() else np.asarray(array)[~finite][0]


def _require_usable(
    name: str, array: Any, shape: tuple[int, ...], rows: np.ndarray, t: int
) -> None:
    """Check what an environment shows or pays at step t, (B, ...), in the rows of a mask (B,).

    Raises:
        ValueError: it has another shape.
        FloatingPointError: it is not finite.
    """
    if np.shape(array) != shape:
        require(False, f"the environment's {name}", f"of shape {shape}", np.shape(array))
    if _not_finite(array) is None:
        return
    if (bad := _not_finite(np.asarray(array)[rows])) is not None:
        raise FloatingPointError(f"the environment's {name} at step {t} of an episode is {bad}")


def rollout(
    env: gymnasium.vector.VectorEnv[Any, Any, Any],
    actor: Actor,
    explore: bool,
    device: torch.device,
    horizon: int | None = None,
) -> tuple[Episodes, np.ndarray | None]:
    """Play one episode in each of the environment's B rows.

    The environment must not reset rows by itself (``AutoresetMode.DISABLED``). A row that ends
    early is stepped along with the others, and masked out.

    Returns:
        The episodes, on the CPU, and each row's ``info["success"]`` (B,) of its last step, or
        None if the task reports none.

    Raises:
        RuntimeError: an episode is longer than ``horizon``.
        ValueError: an observation or the rewards have another shape than before.
        FloatingPointError: a reward, or an observation of a row that goes on, is not finite.
    """
    obs, _ = env.reset()
    B = env.num_envs
    every = alive = np.ones(B, dtype=bool)
    shape = np.shape(obs)
    _require_usable("observation", obs, shape, every, 0)
    success: np.ndarray | None = None
    reward = np.zeros(B, dtype=np.float32)
    state = actor.initial_state(B)
    observations = [torch.tensor(obs)]  # copied: environments may reuse arrays
    steps: list[tuple[Tensor, ...]] = []
    while alive.any():
        if len(steps) == horizon:
            raise RuntimeError(f"an episode is longer than the task's horizon of {horizon} steps")
        now, live = observations[-1].to(device), explore and int(alive.sum())
        action, state = actor.act(now, torch.from_numpy(reward).to(device), state, live)
        obs, rewards, terminated, truncated, info = env.step(action.cpu().numpy())
        rewards = np.asarray(rewards)
        rewards = rewards.astype(np.result_type(rewards, np.float32))  # they may be integers
        with np.errstate(over="ignore"):  # it becomes infinite
            reward = np.array(rewards, dtype=np.float32)
        _require_usable("observation", obs, shape, alive, len(steps) + 1)
        _require_usable("reward", reward, (B,), every, len(steps) + 1)
        ended = alive & (terminated | truncated)
        if "success" in info:
            success = np.zeros(B) if success is None else success
            success[ended] = np.asarray(info["success"])[ended]
        observations.append(torch.tensor(obs))
        steps.append((action.cpu(), *map(torch.tensor, (rewards, terminated & alive, alive))))
        alive = alive & ~ended
    columns = [torch.stack(column) for column in zip(*steps, strict=True)]
    return Episodes(torch.stack(observations), *columns), success
