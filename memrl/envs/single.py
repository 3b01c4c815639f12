"""One environment out of a vector environment: the same rules, without the batch dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from memrl.checks import require


def _of_vec(name: str) -> Any:
    """Return a property that reads and writes an attribute of the vector environment."""
    return property(
        lambda self: getattr(self.vec, name), lambda self, value: setattr(self.vec, name, value)
    )


class SingleEnv(gymnasium.Env[NDArray[Any], Any]):
    """A native vector environment of one environment, seen through Gymnasium's single interface.

    Observations have ``observation_space``'s shape and dtype, rewards are ``float``, the two ends
    ``bool``, entries of ``info`` the vector environment's without their batch dimension. The
    random generator is the vector environment's own.
    """

    def __init__(self, vec: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        """Wrap ``vec``, which must have one environment, a ``horizon`` and no autoreset."""
        require(vec.num_envs == 1, "num_envs", "1", vec.num_envs)
        self.vec = vec
        self.metadata = _metadata(vec)
        self.render_mode = getattr(vec, "render_mode", None)
        self.observation_space = vec.single_observation_space
        self.action_space = vec.single_action_space
        self.horizon: int = vec.horizon  # type: ignore[attr-defined]
        self._spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """What ``gymnasium.make`` noted, with the horizon as its limit."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = spec and replace(spec, max_episode_steps=self.horizon)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode; options are the vector environment's, without their batch dimension."""
        batched = {key: np.asarray(value)[None] for key, value in (options or {}).items()}
        obs, info = self.vec.reset(seed=seed, options=batched)
        return obs[0], _first(info)

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.vec.step(np.asarray(action)[None])
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), _first(info)

    def render(self) -> NDArray[np.uint8] | None:
        pictures: Any = self.vec.render() if self.render_mode else None
        return pictures[0] if pictures else None

    def close(self) -> None:
        self.vec.close()

    # Gymnasium's public ``np_random`` and ``np_random_seed`` read and write these two, and so does
    # its environment checker: delegating here keeps a single generator.
    _np_random = _of_vec("_np_random")
    _np_random_seed = _of_vec("_np_random_seed")


def single_class(
    name: str, module: str, vector_class: Callable[..., gymnasium.vector.VectorEnv[Any, Any, Any]]
) -> type[SingleEnv]:
    """Return a class, to be found in ``module``, whose objects are one row of ``vector_class``.

    Its constructor takes that class's keyword arguments, except ``num_envs``.
    """

    class Single(SingleEnv):
        metadata = _metadata(vector_class)

        def __init__(self, *, render_mode: str | None = None, **kwargs: Any) -> None:
            if render_mode is not None:  # not every class draws
                kwargs["render_mode"] = render_mode
            super().__init__(vector_class(num_envs=1, **kwargs))

    Single.__name__ = Single.__qualname__ = name
    Single.__module__ = module  # where pickle looks for it
    return Single


def _metadata(vec: Any) -> dict[str, Any]:
    """Return a vector environment's metadata as those of a single one, which need render modes."""
    rest = {key: value for key, value in vec.metadata.items() if key != "autoreset_mode"}
    return {"render_modes": []} | rest


def _first(info: dict[str, Any]) -> dict[str, Any]:
    # Gymnasium's vector infos hold, beside each entry, a mask with an underscore before its name.
    rows = {key: value[0] for key, value in info.items() if not key.startswith("_")}
    # Plain numbers, which Gymnasium can batch again.
    return {k: row.item() if isinstance(row, np.generic) else row for k, row in rows.items()}
