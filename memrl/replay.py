"""Replay: a ring of slots (Ni et al. 2023).

An episode of n steps takes n + 1 consecutive slots. A slot holds an observation and what followed
it: action, reward, termination. The extra slot holds the final observation and ends the episode.
S is the window's length in transitions.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from memrl.actions import actions_of
from memrl.checks import require, require_at_least
from memrl.interfaces import Episodes, TaskSpec

CPU = torch.device("cpu")
BEST = 1 / 16  # of the windows count as the best
RINGS = ("obs", "action", "reward", "terminated", "end")


class Replay:
    """Stores episodes, samples windows uniformly over all valid starts, with replacement.

    An episode of n steps has max(1, n - S + 1) valid starts. Slots are overwritten one by one:
    an episode whose first slot is gone loses that start only.

    Args:
        spec: the task.
        window: S, transitions of a sampled window, at least 1.
        capacity: slots of the ring; at least one longest episode.
        device: where the ring lives.
        cut: cut sampled windows to the longest of a batch, so that their shapes differ.
        best: share of a batch's windows that come from the sixteenth of all windows whose episodes
            have the largest returns, in [0, 1]: rare successes are seen often. The others come
            from all windows.

    Raises:
        ValueError: the capacity is too small.
    """

    def __init__(
        self,
        spec: TaskSpec,
        window: int,
        capacity: int,
        device: torch.device,
        cut: bool = True,
        best: float = 0.0,
    ) -> None:
        require_at_least(1, window=window)
        require(0 <= best <= 1, "best", "in [0, 1]", best)
        check_capacity(capacity, spec)
        shape, dtype = spec.observation_space.shape, spec.observation_space.dtype
        assert shape is not None and dtype is not None
        obs_dtype = torch.uint8 if dtype == np.uint8 else torch.float32  # pixels stay bytes
        self.nbytes = capacity * slot_bytes(spec)
        self.cut = cut
        self.has_short = False  # an episode was shorter than the window
        self.window = window
        self.capacity = capacity
        self.device = device
        self.obs = torch.zeros(capacity, *shape, dtype=obs_dtype, device=device)
        actions = actions_of(spec.action_space)
        self.action = torch.zeros(capacity, *actions.shape, dtype=actions.dtype, device=device)
        self.reward = torch.zeros(capacity, dtype=torch.float32, device=device)
        self.terminated = torch.zeros(capacity, dtype=torch.bool, device=device)
        self.end = torch.zeros(capacity, dtype=torch.bool, device=device)
        self.best = best
        self.is_start = np.zeros(capacity, dtype=bool)  # on the host: read only to list starts
        self.returns = np.zeros(capacity, dtype=np.float32)  # of the episode that a slot is of
        self.starts = torch.zeros(0, dtype=torch.int64, device=device)
        self.best_starts = self.starts
        self.top = 0  # the next slot to write
        self.size = 0  # slots filled

    def add(self, episodes: Episodes) -> None:
        """Append every episode, (T, B, ...) padded with mask False, in the order of B."""
        mask = episodes.mask.cpu()
        T, B = mask.shape
        lengths = mask.sum(0)  # (B,)
        if not bool((lengths > 0).all()):
            raise ValueError("an episode without a step cannot be stored")
        if T + 1 > self.capacity:
            raise ValueError(f"an episode of {T} steps exceeds the {self.capacity} slots")
        used = torch.arange(T + 1).unsqueeze(1) <= lengths  # (T + 1, B): steps and the end slot
        for b in range(B):
            n = int(lengths[b])
            slots = (self.top + np.arange(n + 1)) % self.capacity
            where = torch.from_numpy(slots).to(self.device)
            self.obs[where] = episodes.obs[used[:, b], b].to(self.device, self.obs.dtype)
            for ring, values in (
                (self.action, episodes.action),
                (self.reward, episodes.reward),
                (self.terminated, episodes.terminated),
            ):
                ring[where[:-1]] = values[:n, b].to(self.device, ring.dtype)
            self.end[where] = torch.arange(n + 1, device=self.device) == n
            self.is_start[slots] = np.arange(n + 1) < max(1, n - self.window + 1)
            self.returns[slots] = float(episodes.reward[:n, b].sum())
            self.top = int((self.top + n + 1) % self.capacity)
            self.size = min(self.size + n + 1, self.capacity)
        self.has_short |= bool((lengths < self.window).any())
        self._list_starts()

    def sample(self, batch_size: int) -> Episodes:
        """Return ``batch_size`` windows, drawn with torch's generator."""
        n_best = round(self.best * batch_size)
        counts = (self.starts, batch_size - n_best), (self.best_starts, n_best)
        picks = [
            starts[torch.randint(len(starts), (n,), device=self.device)]
            for starts, n in counts
            if n
        ]
        return self.windows(torch.cat(picks), self.cut and self.has_short)

    def windows(self, starts: Tensor, cut: bool = False) -> Episodes:
        """Return the windows from these slots (B,) on; mask is False past an episode's end.

        They have S transitions or, if ``cut``, as many as the longest has before its end; finding
        that out waits for a GPU.
        """
        steps = torch.arange(self.window + 1, device=self.device).unsqueeze(1)
        slots = (starts + steps) % self.capacity  # (S + 1, B)
        mask = self.end[slots[:-1]].cumsum(0) == 0
        if cut:
            T = int(mask.any(1).sum())
            slots, mask = slots[: T + 1], mask[:T]
        inside = slots[:-1]
        return Episodes(
            obs=self.obs[slots],
            action=self.action[inside],
            reward=self.reward[inside],
            terminated=self.terminated[inside],
            mask=mask,
        )

    def _list_starts(self) -> None:
        starts = np.flatnonzero(self.is_start)
        self.starts = torch.from_numpy(starts).to(self.device)
        if self.best:
            order = np.argsort(-self.returns[starts], kind="stable")
            best = starts[order[: math.ceil(len(order) * BEST)]]
            self.best_starts = torch.from_numpy(best).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the filled slots and the ring's position."""
        rings = {name: getattr(self, name)[: self.size] for name in RINGS}
        # A view would be saved with the whole ring behind it.
        state: dict[str, Any] = {name: ring.cpu().clone() for name, ring in rings.items()}
        is_start = torch.from_numpy(self.is_start[: self.size].copy())
        state |= {"is_start": is_start, "has_short": self.has_short}
        state["returns"] = torch.from_numpy(self.returns[: self.size].copy())
        return state | {"top": self.top, "size": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, of a ring of the same capacity.

        Raises:
            ValueError: it is of another ring.
        """
        for name in RINGS:  # a smaller tensor would be repeated to fill the ring
            have, want = state[name].shape, getattr(self, name)[: state["size"]].shape
            if have != want or len(state["is_start"]) != state["size"]:
                raise ValueError(f"{name} has the shape {(*have,)}, the replay {(*want,)}")
        self.top, self.size = state["top"], state["size"]
        self.has_short = state.get("has_short", True)  # older versions do not know
        for name in RINGS:
            getattr(self, name)[: self.size] = state[name].to(self.device)
        self.is_start[: self.size] = state["is_start"].numpy()
        if "returns" in state:  # older versions have none, and no share of the best
            self.returns[: self.size] = state["returns"].numpy()
        self._list_starts()


def slot_bytes(spec: TaskSpec) -> int:
    """Return the bytes of a slot of the ring: observation, action, reward and two flags."""
    shape = spec.observation_space.shape
    assert shape is not None
    itemsize = 1 if spec.observation_space.dtype == np.uint8 else 4
    actions = actions_of(spec.action_space)
    action = math.prod(actions.shape) * actions.dtype.itemsize
    return math.prod(shape) * itemsize + action + 4 + 1 + 1


def free_memory(device: torch.device = CPU) -> int:
    """Return the bytes that are free: of a GPU, or of this machine and its control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free: int = psutil.virtual_memory().available
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = root / next(line[4:] for line in lines if line.startswith("0::/"))
        for folder in (group, *group.parents):  # any of them may have a limit
            if folder.is_relative_to(root):
                free = min(free, _free_in_group(folder, free))
    return free


def _free_in_group(folder: Path, otherwise: int) -> int:
    """Return the bytes that a control group may still take; what caches files can be taken back."""
    with contextlib.suppress(OSError, ValueError, KeyError):  # no limit, or none to be read
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        rows = (folder / "memory.stat").read_text().splitlines()
        about = dict(row.split() for row in rows)
        caches = int(about["inactive_file"]) + int(about["active_file"])
        return max(limit - used + caches, 0)
    return otherwise


def check_memory(name: str, count: int, each: int, free: int) -> None:
    """Raise ValueError, with the name first, unless ``count`` times ``each`` bytes are free."""
    if count * each > free:
        raise ValueError(
            f"{name} must fit into memory: {count} times {each} bytes "
            f"are {count * each / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
        )


def check_capacity(capacity: int, spec: TaskSpec, num_envs: int = 1) -> None:
    """Raise ValueError unless a round of ``num_envs`` episodes of full length fits."""
    least = num_envs * (spec.horizon + 1)
    what = "one episode" if num_envs == 1 else f"the num_envs={num_envs} episodes of a round"
    require(capacity >= least, "capacity", f"at least {what}, {least} slots", capacity)
