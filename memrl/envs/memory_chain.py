"""The memory chain: recall, at the end of an episode, a bit that was seen at its beginning.

It is the task of the experiments "memory_len" and "memory_size" of Osband et al. 2020 ("Behaviour
Suite for Reinforcement Learning"). Letters: B environments, K bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from memrl.checks import require
from memrl.envs.lockstep import Bools, Images, Ints, Lockstep, Rewards, check_integer, enlarge

Obs = NDArray[np.float32]

_BAR = 12  # least width of a picture, in cells
_GREEN, _RED, _BLUE = (0, 170, 0), (200, 60, 60), (90, 140, 255)

GYMNASIUM_NAMES = {"MemoryChain": "MemoryChainVec"}


class MemoryChainVec(Lockstep):
    """B memory chains in lock-step, without autoreset: every episode has ``length + 1`` steps.

    Observations are float32 (B, 2 + K): the fraction of time that is left, the index of the bit
    that is asked for, and the bits as -1 and +1. The first observation is of time 0, and the one
    after step t, counted from 1, of time t - 1: so the bits are in the first two, and 0 in all
    others. The index is there at time ``length - 1``, when the last action is chosen, and else 0.

    Actions are integers (B,), 0 or 1, and only the last one counts: it pays 1 if it is the bit that
    was asked for, else -1. That step is terminated; nothing is truncated. Its
    ``info["success"]``, bool (B,), tells which were right.

    The state is in the arrays ``t``, ``query`` (B,) and ``context`` (B, K), 0 or 1, all int64: to
    be read, not written.
    """

    legend: ClassVar = {"1": _GREEN, "0": _RED, "seen": _BLUE}
    action_names = ("0", "1")
    state_names = ("t", "query", "context")

    def __init__(
        self,
        *,
        num_envs: int = 1,
        length: int = 10,
        num_bits: int = 1,
        render_mode: str | None = None,
    ) -> None:
        """Build B chains.

        Args:
            length: Of the memory that is needed: the time at which the episode ends.
            num_bits: K, of which one is asked for.
        """
        check_integer("length", length, 1)
        check_integer("num_bits", num_bits, 1)
        self.length = length
        self.num_bits = num_bits
        high = np.ones(2 + num_bits, np.float32)
        low = np.where(np.arange(2 + num_bits) < 2, 0, -high)
        high[1] = num_bits - 1
        space = gymnasium.spaces.Box(low, high)
        super().__init__(num_envs, length + 1, space, 2, render_mode)
        self.query: Ints = np.zeros(num_envs, np.int64)
        self.context: Ints = np.zeros((num_envs, num_bits), np.int64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start episodes; the options ``context`` (B, K) and ``query`` (B,) fix these."""
        options = options or {}
        mask = self.read_mask(options, ["context", "query"])
        super().reset(seed=seed)
        context = self.np_random.integers(2, size=self.context.shape)
        query = self.np_random.integers(self.num_bits, size=self.query.shape)
        context = _read("context", options, context, 2)
        query = _read("query", options, query, self.num_bits)
        self.context = np.where(mask[:, None], context, self.context)
        self.query = np.where(mask, query, self.query)
        self.t = np.where(mask, 0, self.t)
        return self._observe(), {}

    def starts(self) -> Iterator[tuple[float, dict[str, Any]]]:
        K = self.num_bits
        chance = 1 / (K * 2**K)
        for query, *context in product(range(K), *[(0, 1)] * K):
            yield chance, {"query": query, "context": context}

    def step(self, actions: Ints) -> tuple[Obs, Rewards, Bools, Bools, dict[str, Any]]:
        action = self.read_actions(actions)
        self.t = self.t + 1
        terminated: Bools = self.t >= self.horizon
        right = terminated & (action == self.context[np.arange(self.num_envs), self.query])
        reward = np.where(terminated, np.where(right, 1.0, -1.0), 0.0)
        info = {"success": right, "_success": terminated} if terminated.any() else {}
        return self._observe(), reward, terminated, np.zeros(self.num_envs, np.bool_), info

    def _observe(self) -> Obs:
        time = np.maximum(self.t - 1, 0)  # (B,)
        obs = np.zeros(self.obs_shape, np.float32)
        obs[:, 0] = 1 - time / self.length
        obs[:, 1] = np.where(time == self.length - 1, self.query, 0)
        obs[:, 2:] = np.where(time[:, None] == 0, 2 * self.context - 1, 0)
        return obs

    def draw(self, b: int) -> Images:
        """Return the bits, 1 green and 0 red, a bar of the time that is left, and what is seen.

        Below the bits, blue marks those that are seen, or the one that is asked for.
        """
        obs, width = self._observe()[b], max(self.num_bits, _BAR)
        cells = np.full((3, width, 3), 204, np.uint8)
        cells[0, : self.num_bits] = np.where(self.context[b, :, None] == 1, _GREEN, _RED)
        seen = obs[2:] != 0
        seen[self.query[b]] |= self.t[b] == self.length
        cells[1, : self.num_bits][seen] = _BLUE
        cells[2, : round(float(obs[0]) * width)] = 120
        return enlarge(cells, 20)


def _read(name: str, options: dict[str, Any], drawn: Ints, end: int) -> Ints:
    """Return an option, integers from 0 to ``end`` - 1 of the shape of what was drawn, or that."""
    if name not in options:
        return drawn
    value = np.asarray(options[name])
    ok = value.dtype.kind in "iu" and value.shape == drawn.shape
    ok = ok and 0 <= value.min() and value.max() < end
    require(ok, name, f"integers from 0 to {end - 1} of shape {drawn.shape}", value)
    return value.astype(np.int64)
