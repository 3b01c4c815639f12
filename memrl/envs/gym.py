"""Any Gymnasium environment as a task: a list of single environments, stepped together.

Letters: B environments, N numbers of an observation, A numbers of an action.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from memrl.checks import require
from memrl.envs.lockstep import Bools, Rewards, check_integer
from memrl.envs.spaces import Packer, action_reader

# Where environments say how long an episode may be, if their specification does not.
HORIZONS = ("max_steps", "max_episode_length", "max_episode_steps", "episode_length")
SUCCESS = ("success", "is_success")  # names of it in an environment's ``info``
MINIGRID = (11, 6, 4)  # objects, colours, and the states of a door or the player's directions
PICTURES = ("RGB", "AddRender")  # prefixes of the names of wrappers that return pixels


class GymVec(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """B environments with a Gymnasium id, in lock-step, without autoreset.

    Every episode is seeded from this environment's own generator, so that its state is all that a
    checkpoint has to hold of an environment that honours its seed.

    An environment whose episode is over is not stepped any more: it repeats its last observation
    and is paid nothing. An episode of ``horizon`` steps is truncated.

    Observations are arrays (B, N) as ``Packer`` makes them. Actions are integers (B,) or floats
    (B, A), as ``action_reader`` reads them. Parts of an observation that are text are left out.
    """

    def __init__(
        self,
        *,
        num_envs: int = 1,
        id: str | None = None,
        module: str | None = None,
        length: int | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wrappers: Sequence[Mapping[str, Any]] | None = None,
        horizon: int | None = None,
        time_limit_is_end: bool = False,
        render_mode: str | None = None,
    ) -> None:
        """Make the environments.

        Args:
            id: Gymnasium's name of the environment, also as ``module:name``.
            module: what to import first, so that the name is known.
            length: if given, its keyword argument of this name.
            kwargs: further ones.
            wrappers: of each environment, from the inside out: ``_target_``, a subclass of
                ``gymnasium.Wrapper``, and its keyword arguments, lists as tuples.
            horizon: longest episode, in steps; None for what the environment says.
            time_limit_is_end: terminate truncated episodes, for tasks that are over then.
            render_mode: ignored if the environment does not have it.

        Raises:
            ValueError: its message begins with the name of what is wrong.
        """
        check_integer("num_envs", num_envs, 1)
        require(id is not None, "id", "a name that Gymnasium knows, such as CartPole-v1", "null")
        if horizon is not None:
            check_integer("horizon", horizon, 1)
        arguments = _joined(kwargs or {}, length=length, max_episode_steps=horizon)
        if module is not None:
            _import("module", module)
        self.render_mode = _supported(render_mode, str(id), arguments)
        if self.render_mode is not None:
            arguments["render_mode"] = render_mode
        self.envs: list[gymnasium.Env[Any, Any]] = []
        try:
            for _ in range(num_envs):
                self.envs.append(_make(str(id), arguments, wrappers or ()))
            env = self.envs[0]
            self.horizon = horizon or _horizon(str(id), env)
            self._pack = Packer(_observation_space(env))
            self._read_action = action_reader(env.action_space)
        except BaseException:
            self.close()
            raise
        self.time_limit_is_end, self.num_envs = time_limit_is_end, num_envs
        self.metadata = env.metadata | {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = self._pack.space
        self.single_action_space = self._read_action.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        space = self._pack.space
        self._obs: NDArray[Any] = np.zeros((num_envs, *space.shape), space.dtype)
        self._is_live: Bools = np.zeros(num_envs, np.bool_)

    @property
    def left_out(self) -> list[str]:
        """The names of an observation's parts that are text."""
        return self._pack.left_out

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode in every environment, which gets the options."""
        super().reset(seed=seed)
        seeds = self.np_random.integers(2**31, size=self.num_envs)
        for b, env in enumerate(self.envs):
            result = _call("reset", env.reset, seed=int(seeds[b]), options=options)
            obs, _ = _of_form("reset", "(observation, info)", result)
            self._pack(obs, self._obs[b])
        self._is_live[:], self._t = True, 0
        return self._obs.copy(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], Rewards, Bools, Bools, dict[str, Any]]:
        """Step the environments whose episodes go on.

        ``info["success"]`` is that of episodes that end now, of environments that report one.
        """
        if not self._is_live.any():
            raise gymnasium.error.ResetNeeded("all episodes are over: reset first")
        B = self.num_envs
        reward, success = np.zeros(B), np.zeros(B)
        terminated, truncated = np.zeros(B, np.bool_), np.zeros(B, np.bool_)
        reports_success = False
        self._t += 1
        for b in np.flatnonzero(self._is_live):
            result = _call("step", self.envs[b].step, self._read_action(actions[b]))
            form = "(observation, reward, terminated, truncated, info)"
            obs, paid, terminated[b], truncated[b], info = _of_form("step", form, result)
            try:
                reward[b] = paid
            except (TypeError, ValueError):
                require(False, "the environment's reward", "a number", repr(paid))
            self._pack(obs, self._obs[b])
            for name in SUCCESS:
                if name in info:
                    reports_success, success[b] = True, float(info[name])
        truncated |= self._is_live & (self._t >= self.horizon) & ~terminated
        if self.time_limit_is_end:
            terminated, truncated = terminated | truncated, np.zeros(B, np.bool_)
        ended = terminated | truncated
        self._is_live &= ~ended
        info = {"success": success * ended, "_success": ended} if reports_success else {}
        return self._obs.copy(), reward, terminated, truncated, info

    def render(self) -> tuple[Any, ...] | None:
        """Return a picture of each environment, or None without a mode."""
        return tuple(env.render() for env in self.envs) if self.render_mode else None

    def close_extras(self, **kwargs: Any) -> None:
        with contextlib.ExitStack() as stack:  # which goes on if one of them fails to close
            for env in self.envs:
                stack.callback(env.close)


class Entries(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Hides all but some entries of an observation (n,).

    Args:
        entries: those that are seen, by their indices.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], entries: Sequence[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        ok = isinstance(space, spaces.Box) and len(space.shape) == 1
        require(ok, "observations", "a Box (n,)", space)
        n = space.shape[0]  # type: ignore[index]
        ok = len(entries) > 0 and {*entries} <= {*range(n)}
        ok = ok and all(type(entry) is int for entry in entries)
        require(ok, "entries", f"integers from 0 to {n - 1}", [*entries])
        self.entries = [*entries]
        low, high = space.low[self.entries], space.high[self.entries]  # type: ignore[attr-defined]
        self.observation_space = spaces.Box(low, high, dtype=space.dtype)  # type: ignore[arg-type]

    def observation(self, observation: Any) -> Any:
        return observation[self.entries]


# --- one environment -----------------------------------------------------------------------------


def _call(name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call an environment's method; say of an error where it comes from.

    Raises:
        ValueError: it raised one.
        RuntimeError: it raised something else, except MemoryError and OSError, which pass.
    """
    try:
        return method(*args, **kwargs)
    except (MemoryError, OSError):
        raise
    except Exception as error:
        kind = ValueError if isinstance(error, ValueError) else RuntimeError
        text = ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))
        raise kind(f"the environment's {name} raised {text}") from error


def _of_form(name: str, form: str, result: Any) -> Any:
    ok = isinstance(result, tuple) and len(result) == form.count(",") + 1
    require(ok, f"what {name} returns", form, type(result).__name__)
    return result


def _joined(kwargs: Mapping[str, Any], **keys: int | None) -> dict[str, Any]:
    """Return the arguments of ``kwargs`` and of the keys that have a value of their own."""
    chosen = {key: value for key, value in keys.items() if value is not None}
    twice = {*chosen, "render_mode"} & kwargs.keys()
    allowed = "without render_mode and what length and horizon set"
    require(not twice, "kwargs", allowed, ", ".join(sorted(twice)))
    return {**kwargs, **chosen}


def _make(
    id: str, arguments: dict[str, Any], wrappers: Sequence[Mapping[str, Any]] = ()
) -> gymnasium.Env[Any, Any]:
    if ":" in id:
        _import("id", id.partition(":")[0])
    try:
        # Observations are checked against their space as they are packed.
        env = gymnasium.make(id, disable_env_checker=True, **arguments)
    except gymnasium.error.UnregisteredEnv as error:
        text = " ".join(str(error).split())
        advice = "if a package registers it, name that with env.module=PACKAGE"
        text = f"id must be registered with Gymnasium, got {id}: {text.rstrip('.')}; {advice}"
        raise ValueError(text) from None
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"id must be usable here, got {id}: {_text(error)}") from error
    except (TypeError, LookupError, AssertionError) as error:
        is_about_them = isinstance(error, TypeError) and "argument" in str(error)
        if not is_about_them and not arguments.keys() - {"max_episode_steps", "render_mode"}:
            raise  # an error in the constructor
        text = _text(error).split("() ", 1)[-1].split(" was raised from ")[0]
        raise ValueError(f"kwargs must be those of {id}, got {arguments}: {text}") from error
    try:
        for wrapper in wrappers:
            env = _wrap(env, wrapper)
    except BaseException:
        env.close()
        raise
    return env


def _wrap(env: gymnasium.Env[Any, Any], wrapper: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    # YAML has no tuples, and wrappers such as ResizeObservation want them.
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in wrapper.items()}
    target = arguments.pop("_target_", None)
    ok = isinstance(target, str) and "." in target
    require(ok, "wrappers", "a list of {_target_: module.Class}", [wrapper])
    module, _, name = str(target).rpartition(".")
    cls = getattr(_import("wrappers", module), name, None)
    # Nothing else is called: a config may be somebody else's.
    ok = isinstance(cls, type) and issubclass(cls, gymnasium.Wrapper)
    require(ok, "wrappers", "subclasses of gymnasium.Wrapper", target)
    try:
        return cls(env, **arguments)  # type: ignore[misc, no-any-return]
    except Exception as error:  # each says in its own way that it does not fit
        raise ValueError(f"wrappers must fit, got {target}: {_text(error)}") from error


def _supported(render_mode: str | None, id: str, arguments: dict[str, Any]) -> str | None:
    """Return the mode if the environment has it."""
    if render_mode is None:
        return None
    with contextlib.closing(_make(id, arguments)) as env:
        return render_mode if render_mode in (env.metadata.get("render_modes") or ()) else None


def require_package(module: str, distribution: str | None = None) -> Any:
    """Import and return a module that a task needs, or raise ValueError with the remedy.

    Args:
        distribution: what to install, if it is not called what the missing module is.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        remedy = f"pip install {distribution or package}"
        raise ValueError(f"{package} is not installed: {remedy}") from None


def _import(key: str, module: str) -> Any:
    try:
        return import_module(module)
    except Exception as error:  # a user's own module may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if module and not (missing and f"{module}.".startswith(f"{missing}.")):
            allowed = "a module that can be imported"
            raise ValueError(f"{key} must name {allowed}, got {module}: {_text(error)}") from error
    advice = "in the current folder, beside the folder of -cd, on PYTHONPATH or installed"
    raise ValueError(f"{key} must name a module that is {advice}, got {module!r}")


def _text(error: BaseException) -> str:
    """Return what went wrong, in one line; the error's kind too, where its text needs it."""
    text = " ".join(str(error).split())
    needs_kind = isinstance(error, LookupError) or not text
    return f"{type(error).__name__}: {text}" if needs_kind else text


def _horizon(id: str, env: gymnasium.Env[Any, Any]) -> int:
    """Return the longest episode that an environment says it has."""
    limits = [env.spec.max_episode_steps if env.spec else None]
    limits += [getattr(env.unwrapped, name, None) for name in HORIZONS]
    for limit in limits:
        if isinstance(limit, int | np.integer) and limit >= 1:
            return int(limit)
    raise ValueError(f"horizon must be given, as {id} does not say how long an episode may be")


def _observation_space(env: gymnasium.Env[Any, Any]) -> spaces.Space[Any]:
    """Return an environment's space; MiniGrid's views, which it has as bytes, are categories."""
    space, layer = env.observation_space, env
    while isinstance(layer, gymnasium.Wrapper):
        if type(layer).__name__.startswith(PICTURES):
            return space
        layer = layer.env
    if not any(cls.__module__ == "minigrid.minigrid_env" for cls in type(layer).__mro__):
        return space
    return _with_categories(space)


def _with_categories(space: spaces.Space[Any]) -> spaces.Space[Any]:
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _with_categories(below) for key, below in space.items()})
    shape = space.shape or ()
    # Perhaps a stack of several.
    if space.dtype == np.uint8 and len(shape) >= 3 and shape[-1] == len(MINIGRID):
        return spaces.MultiDiscrete(np.broadcast_to(MINIGRID, shape).copy())
    return space
