"""What the tasks share: B episodes, stepped together, without autoreset."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from memrl.checks import require, require_at_least

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Images = NDArray[np.uint8]
Rewards = NDArray[np.float64]
Colour = tuple[int, int, int]  # red, green, blue: 0 to 255


class Lockstep(VectorEnv[NDArray[Any], Ints, NDArray[Any]]):
    """B environments whose episodes end by being terminated, all after ``horizon`` steps.

    A task whose episodes have several lengths sets ``end``, (B,), and ``first_end``; its rows that
    are over are stepped along with the others, and stay as they are.

    ``reset`` starts an episode in every environment, or in those that the option ``reset_mask``,
    bool (B,) with at least one True, names; the others stay as they are. It draws every choice of
    B episodes from ``np_random`` whatever the options are, so that fixing some leaves the others,
    and later episodes, as they were. An option that is unknown or bad is a ValueError that names
    it.

    ``step`` takes integers (B,) and returns observations (B, ...), rewards float64 (B,), terminated
    and truncated bool (B,), and ``info``.

    The steps made are in ``t``, int64 (B,): to be read, not written.

    A task in which nothing but an episode's start is random says with ``starts`` and
    ``state_names`` all that ``memrl lengths`` has to know.
    """

    action_names: Sequence[str] = ()
    legend: ClassVar[Mapping[str, Colour]] = {}  # what the colours of pictures mean
    state_names: Sequence[str] = ()  # arrays (B, ...), or dicts of such: all that steps depend on

    metadata: dict[str, Any] = {  # noqa: RUF012
        "autoreset_mode": AutoresetMode.DISABLED,
        "render_modes": ["rgb_array"],
        "render_fps": 8,
    }

    def __init__(
        self,
        num_envs: int,
        horizon: int,
        observation_space: gymnasium.spaces.Box,
        n_action: int,
        render_mode: str | None,
    ) -> None:
        """Raise ValueError, whose message begins with the name of what is out of range."""
        check_integer("num_envs", num_envs, 1)
        ok = render_mode in (None, *self.metadata.get("render_modes", ()))
        require(ok, "render_mode", "None or 'rgb_array'", repr(render_mode))
        self.num_envs = num_envs
        self.horizon = horizon
        self.end: Ints | int = horizon  # steps of each episode
        self.first_end = horizon  # those of the shortest
        self.render_mode = render_mode
        self.single_observation_space = observation_space
        self.single_action_space = gymnasium.spaces.Discrete(n_action)
        self.obs_shape = (num_envs, *observation_space.shape)  # (B, ...)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.n_action = n_action
        self.t: Ints = np.full(num_envs, horizon)  # as after an episode: reset first

    def read_mask(self, options: dict[str, Any], known: Collection[str]) -> Bools:
        """Return which environments to reset, (B,), and refuse options that are not ``known``."""
        for name in options:
            if name not in (*known, "reset_mask"):
                names = ", ".join(map(repr, known))
                raise ValueError(f"options must be among {names} and 'reset_mask', got {name!r}")
        shape = (self.num_envs,)
        mask = np.asarray(options.get("reset_mask", np.ones(shape, np.bool_)))
        ok = bool(mask.dtype == np.bool_ and mask.shape == shape and mask.any())
        require(ok, "reset_mask", f"bool of shape {shape} with at least one True", mask)
        return mask

    def read_actions(self, actions: Any) -> NDArray[Any]:
        """Return the actions as an array (B,) of integers from 0 to A - 1.

        Raises:
            gymnasium.error.ResetNeeded: an environment's episode is over, or never began; if
                episodes have several lengths, all are over.
            ValueError: they are something else.
        """
        action = np.asarray(actions)
        if action.shape != (self.num_envs,) or action.dtype.kind not in "iu":
            kind = f"{action.dtype} of shape {action.shape}"
            raise ValueError(f"actions must be integers of shape ({self.num_envs},), got {kind}")
        if action.min() < 0 or action.max() >= self.n_action:
            *most, last = range(self.n_action)
            raise ValueError(f"actions must be {', '.join(map(str, most))} or {last}, got {action}")
        if self.t.max() >= self.first_end:
            is_over = self.t >= self.end
            if np.ndim(self.end) == 0 or is_over.all():
                rows = np.flatnonzero(is_over)
                raise gymnasium.error.ResetNeeded(f"reset environments {rows} before stepping them")
        return action

    def starts(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """Return how an episode may start: (probability, options of ``reset`` for one of them)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its episodes start")

    def render(self) -> tuple[Images, ...] | None:
        """Return a picture of each environment, uint8 (height, width, 3); None without a mode."""
        if self.render_mode is None:
            return None
        return tuple(self.draw(b) for b in range(self.num_envs))

    def draw(self, b: int) -> Images:
        """Return a picture of environment ``b``."""
        raise NotImplementedError(f"{type(self).__name__} draws no pictures")


def name_actions(task: Any, n: int) -> Sequence[str]:
    """Return the names that a task gives its discrete actions; numbers if it does not name all."""
    names = getattr(task, "action_names", None) or ()
    return names if len(names) == n else [str(action) for action in range(n)]


def enlarge(cells: Images, size: int) -> Images:
    """Draw colours (rows, columns, 3) as squares of ``size`` pixels with thin lines between."""
    image = cells.repeat(size, axis=0).repeat(size, axis=1)
    image[::size] = image[:, ::size] = 150
    return image


def check_finite(**values: float) -> None:
    """Raise ValueError, with the name first, unless all are finite."""
    for name, value in values.items():
        require(math.isfinite(value), name, "finite", value)


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise ValueError, with the name first, unless the value is an integer of at least that."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    require(whole, name, "an integer", repr(value))
    require_at_least(least, **{name: value})
