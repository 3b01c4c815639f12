"""What ``gymnasium.make_vec`` returns for our tasks: a vector environment that can reset itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from memrl.checks import require


class Autoreset(VectorWrapper):
    """Resets a vector environment, all of whose rows end at the same step, once they have ended.

    The modes are Gymnasium's (https://farama.org/Vector-Autoreset-Mode). NEXT_STEP: the step after
    an episode's last ignores its actions; it returns the next episode's first observations, and
    rewards of 0. SAME_STEP: the last step already returns these observations; the last ones are in
    ``info["final_obs"]``, object (B,), and their infos in ``info["final_info"]``. DISABLED:
    nothing resets by itself.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], mode: AutoresetMode) -> None:
        """Wrap ``env``, which must have a ``horizon`` and no autoreset of its own."""
        super().__init__(env)
        self.mode = mode
        self.horizon: int = env.horizon  # type: ignore[attr-defined]
        self.metadata = env.metadata | {"autoreset_mode": mode}
        self._has_ended = False

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # as VectorWrapper's
        """What ``make_vec`` noted, with the horizon; the mode is text, so that it fits in JSON."""
        spec = self.env.spec
        if spec is None:
            return None
        kwargs = spec.kwargs | {"autoreset_mode": self.mode.value}
        kwargs.pop("max_episode_steps", None)  # it has a field of its own
        return replace(spec, max_episode_steps=self.horizon, kwargs=kwargs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes; the option ``reset_mask`` is for DISABLED: rows must end together."""
        ok = self.mode is AutoresetMode.DISABLED or "reset_mask" not in (options or {})
        allowed = "'Disabled' with the option 'reset_mask'"
        require(ok, "autoreset_mode", allowed, repr(self.mode.value))
        result = super().reset(seed=seed, options=options)
        self._has_ended = False
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every row.

        Raises:
            RuntimeError: some rows have ended before the others.
        """
        if self._has_ended:
            obs, info = self.reset()
            B = self.num_envs
            return obs, np.zeros(B), np.zeros(B, np.bool_), np.zeros(B, np.bool_), info
        obs, reward, terminated, truncated, info = super().step(actions)
        ended = terminated | truncated
        if self.mode is AutoresetMode.DISABLED or not ended.any():
            return obs, reward, terminated, truncated, info
        if not ended.all():
            raise RuntimeError(
                f"rows {np.flatnonzero(ended)} of {self.env} ended before the others, so they "
                "cannot be reset: use autoreset_mode='Disabled' or vectorization_mode='sync'"
            )
        if self.mode is AutoresetMode.SAME_STEP:
            rows = np.fromiter(np.array(obs), object)  # copied: environments may reuse arrays
            final = {"final_obs": rows, "_final_obs": ended}
            final |= {"final_info": info, "_final_info": ended}
            obs, info = self.reset()
            return obs, reward, terminated, truncated, final | info
        self._has_ended = True
        return obs, reward, terminated, truncated, info


def make_autoreset(
    vector_class: Callable[..., VectorEnv[Any, Any, Any]],
    num_envs: int = 1,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    max_episode_steps: int | None = None,
    **kwargs: Any,
) -> Autoreset:
    """Return a vector environment with autoreset, out of its class and its keyword arguments.

    Args:
        autoreset_mode: Gymnasium's mode or its text: "NextStep", "SameStep" or "Disabled".
        max_episode_steps: ``make_vec`` passes that of a specification; must be the horizon.
    """
    ok = autoreset_mode in (*AutoresetMode, *(mode.value for mode in AutoresetMode))
    allowed = "'NextStep', 'SameStep' or 'Disabled'"
    require(ok, "autoreset_mode", allowed, repr(autoreset_mode))
    env = Autoreset(vector_class(num_envs=num_envs, **kwargs), AutoresetMode(autoreset_mode))
    ok = max_episode_steps in (None, env.horizon)
    require(ok, "max_episode_steps", f"the horizon, {env.horizon}", max_episode_steps)
    return env
