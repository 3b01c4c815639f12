"""Counts of what was tried where, so that each action is tried everywhere."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

ROWS = 2**16  # of the table: what is seen most often has a row of its own


class VisitCounts:
    """How often each action followed an observation and the action before it.

    Both are hashed to a row of a table of fixed size (Tang et al. 2017), so that memory does not
    grow. In tasks whose observations never repeat the counts stay near 0.

    Attributes:
        table: (ROWS, A) int32.
    """

    def __init__(self, n_action: int, device: torch.device) -> None:
        self.table = torch.zeros(ROWS, n_action, dtype=torch.int32, device=device)

    def rows(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """Return the table's rows (B,) of observations (B, *obs_shape) and actions (B,)."""
        seen = np.ascontiguousarray(obs.flatten(1).cpu().numpy())
        before = prev_action.tolist()
        rows = [zlib.crc32(o, a + 1) % ROWS for o, a in zip(seen, before, strict=True)]
        return torch.tensor(rows, device=self.table.device)

    def add(self, rows: Tensor, action: Tensor) -> None:
        """Count the actions (B,) that were chosen."""
        one = torch.ones_like(action, dtype=torch.int32)
        self.table.index_put_((rows, action), one, accumulate=True)
