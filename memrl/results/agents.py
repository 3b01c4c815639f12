"""Trained agents: loaded from a run's folder, to act in its task or in one of another length."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from numpy.typing import NDArray
from omegaconf import OmegaConf

from memrl.envs.spaces import parts_of
from memrl.experiment import build_agent, closing, enough_memory, make_env
from memrl.run import checkpoint
from memrl.run.config import explain
from memrl.run.files import Unreadable
from memrl.run.identity import GROUPS, Config, read_config
from memrl.run.import_path import add_user_folders
from memrl.run.outcome import ConfigError, show
from memrl.run.schema import check_group, check_origin, check_ranges, check_types, labels_of

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from memrl.interfaces import Agent, State


class CannotAct(ConfigError):
    """An agent cannot act in a task: its observations or actions differ, or it is too long."""


class TrainedAgent:
    """An agent that acts greedily and without dropout, on NumPy arrays.

    Attributes:
        agent: the ``memrl.interfaces.Agent`` itself, which acts on tensors.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def act(
        self, obs: Any, prev_reward: Any = None, state: State = None
    ) -> tuple[NDArray[Any], State]:
        """Choose actions for B episodes in lock-step; return them and the next state.

        Actions are int64 (B,) if they are discrete, or else float32 (B, A) in [-1, 1].

        Args:
            obs: what the environment shows, (B, *obs_shape).
            prev_reward: of the step before, (B,); None at the start of an episode.
            state: what the last call returned; None at the start of an episode.

        Raises:
            ValueError: an observation or a reward is not finite.
        """
        import torch

        from memrl.rollout import require_finite

        device = next(self.agent.memory.parameters()).device
        rows = len(obs)
        reward = np.zeros(rows) if prev_reward is None else np.asarray(prev_reward)
        require_finite("obs", obs)
        require_finite("prev_reward", reward)
        action, state = self.agent.act(
            torch.as_tensor(np.asarray(obs), device=device),
            torch.as_tensor(reward, dtype=torch.float32, device=device),
            self.agent.initial_state(rows) if state is None else state,
            explore=False,
        )
        return action.cpu().numpy(), state


def load(
    folder: Path | str,
    overrides: Sequence[str] = (),
    num_envs: int = 1,
    device: str = "cpu",
    trusted: Collection[str] = (),
) -> tuple[TrainedAgent, VectorEnv[Any, Any, Any]]:
    """Return a run's agent, as last saved, and its task, to be stepped together.

    The task is a vector environment that does not reset rows by itself. No setting of this process
    changes: neither random generators nor threads.

    Args:
        folder: the run's, done or still training.
        overrides: of keys of the task, such as ``["env.length=100"]``.
        num_envs: rows of the environment, which the agent plays in lock-step.
        device: "cpu", "cuda" or "auto", wherever the run was trained.
        trusted: packages, besides memrl and those in the current folder, whose classes the run's
            config may name.

    Raises:
        ConfigError: the folder holds no run, or none that has saved anything; its config names a
            class that is not trusted; the agent cannot play this task.
        CannotContinue: what it saved cannot be read.
        Failure: out of memory.
    """
    from memrl.run.machine import settings_restored

    add_user_folders()  # where the classes of the run's config may be
    with settings_restored():
        saved, agent, _ = load_run(Path(folder), trusted, device)
        config = change_env(saved, overrides)
        agent = fit_to_env(agent, saved, config)
        with enough_memory(config):
            return TrainedAgent(agent), make_env(config, num_envs)


def load_run(
    folder: Path, trusted: Collection[str] = (), device: str = "auto"
) -> tuple[Config, Agent, str]:
    """Return a run's config, its agent as last saved, and the name of that file.

    The config is changed where that has no effect on acting: a run may have been trained on a GPU
    and compiled, and act on another machine's CPU. ``load`` lists the other arguments and errors.
    """
    saved = _read_config(folder, trusted)
    config = saved | {"device": device, "precision": "float32", "update": "eager"}
    with enough_memory(config):
        agent, _, _ = build_agent(config)
    path = folder / checkpoint.WEIGHTS
    if path.exists():
        weights = checkpoint.load_weights(folder, saved)
        with checkpoint.fitting(path):
            agent.load_weights(weights)
        return config, agent, path.name
    newest = checkpoint.load(folder, saved)
    if newest is None:
        nothing = f"no {checkpoint.WEIGHTS}, no checkpoint"
        raise ConfigError(f"{folder}: no trained agent yet ({nothing})")
    state, name = newest
    with checkpoint.fitting(folder / name):
        agent.load_state_dict(state["trainer"]["agent"])
        return config, agent, f"{name}, env step {state['trainer']['env_steps']:,}"


def _read_config(folder: Path, trusted: Collection[str]) -> Config:
    try:
        config = read_config(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{folder}: not a run's folder: it has no config.yaml") from None
    except Unreadable as error:
        raise ConfigError(f"{folder}/{error}") from error
    sections = [group for group in GROUPS if group != "logger"]
    if not config.keys() >= {*sections}:  # of an imported run, say
        needed = ", ".join(sections)
        raise ConfigError(f"{folder}/config.yaml: not the config of a run; it needs {needed}")
    check_origin(config, trusted, Path.cwd())
    config = check_types(config)
    check_ranges(config)
    return config


# --- another task --------------------------------------------------------------------------------


def change_env(config: Config, overrides: Sequence[str]) -> Config:
    """Return a run's config with other values of keys of its task.

    Raises:
        ConfigError: an override of something else, or one that the task refuses.
    """
    node = OmegaConf.create(dict(config))
    OmegaConf.set_struct(node, True)
    try:
        parsed = OverridesParser.create().parse_overrides([*overrides])
        for override in parsed:
            key = override.key_or_group
            section, _, name = key.partition(".")
            is_label = name.partition(".")[0] in labels_of("env")
            if section != "env" or not name or is_label or override.is_delete():
                line = f"{override.input_line}: only keys of the task, such as env.length=20,"
                raise ConfigError(f"{line} may be changed")
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: one value is allowed")
        # Hydra has no public function for this.
        ConfigLoaderImpl._apply_overrides_to_config(parsed, node)
    except ConfigError:
        raise
    except Exception as error:  # Hydra raises whatever a bad value leads to
        raise ConfigError(explain(error, overrides, node)) from None
    env: Any = OmegaConf.to_container(node.env)
    return config | {"env": check_group("env", env)}


def changed_keys(saved: Config, config: Config) -> dict[str, Any]:
    """Return the keys of the task, such as ``env.length``, that differ from the run's own."""
    own = saved["env"]
    return {f"env.{k}": v for k, v in sorted(config["env"].items()) if v != own.get(k)}


def fit_to_env(agent: Agent, saved: Config, config: Config) -> Agent:
    """Return a run's agent for a task with other keys, perhaps with longer episodes.

    A model whose window is the whole episode (``context_len=null``) gets one as long as the new
    episodes if its weights allow that: sine positions go on, a table of learned ones does not. One
    that says that no history is too long for it (``longest`` is None) stays as it is.

    Raises:
        CannotAct: the agent cannot play that task.
    """
    from memrl.actions import actions_of

    spaces, horizons = [], []
    for each in (saved, config):
        with enough_memory(each), closing(make_env(each, 1)) as env:
            obs, actions = env.single_observation_space, actions_of(env.single_action_space)
            spaces.append((obs.shape, obs.dtype, str(actions), parts_of(obs)))
            horizons.append(env.horizon)
    changes = ", ".join(f"{k}={show(v)}" for k, v in changed_keys(saved, config).items())
    if spaces[0] != spaces[1]:
        there, here = ("{} {} and {}".format(*space) for space in spaces)
        if there == here:
            there, here = (", ".join(map(str, space[-1])) for space in spaces)
        raise CannotAct(f"{changes}: the agent was trained on {there}; this task has {here}")
    if horizons[1] <= horizons[0] or getattr(agent.memory.seq_model, "longest", 0) is None:
        return agent
    device = next(agent.memory.parameters()).device
    with enough_memory(config):
        larger, _, _ = build_agent(config | {"device": device.type})
    if misfit := checkpoint.misfit(agent.weights(), larger.weights()):
        length = saved["env"].get("length")
        longest = max(length) if isinstance(length, list) else length
        possible = "" if length is None else f"; env.length may be at most {show(longest)}"
        raise CannotAct(
            f"{changes}: the model was trained on episodes of {horizons[0]} steps and cannot act "
            f"in {horizons[1]} ({misfit}){possible}"
        )
    larger.load_weights(agent.weights())
    return larger
