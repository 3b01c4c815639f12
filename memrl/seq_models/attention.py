"""Causal attention: over whole windows, or from cached keys and values.

T inputs of this call, B batch, H heads, K width of a head, P inputs seen before this call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrl.networks import Dropout
from memrl.seq_models.positions import rotate

SHORT = 256  # inputs up to which a CPU is faster with (T, T) weights than with fused attention


class Cache(NamedTuple):
    """What acting remembers, in buffers that are filled in place."""

    keys: Tensor  # (n_layer, B, H, room, K)
    values: Tensor  # (n_layer, B, H, room, K)
    inputs: Tensor | None  # (room, B, D), if a sliding window is recomputed from them
    length: int  # inputs seen since the episode began

    def with_room(self, T: int) -> Cache:
        """Return a cache with room for T more inputs, at least doubled if it must grow."""
        room = self.keys.shape[3]
        if self.length + T <= room or self.inputs is not None:
            return self
        extra = (0, 0, 0, max(room, self.length + T - room))
        return self._replace(keys=F.pad(self.keys, extra), values=F.pad(self.values, extra))


class Attention(nn.Module):
    """Softmax attention of each input to itself and to those before it; it has no weights.

    Args:
        dropout: on the attention weights.
        rotary: whether queries and keys are rotated by their positions.
    """

    def __init__(self, dropout: float, rotary: bool = False) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.rotary = rotary

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what whole windows attend to, (B, H, T, K), as its arguments."""
        q, k = self._with_positions(q, k, 0)
        T = q.shape[2]
        if T > SHORT or q.device.type != "cpu":
            return F.scaled_dot_product_attention(q, k, v, dropout_p=self._p, is_causal=True)
        scale = 1 / math.sqrt(q.shape[-1])
        bias = q.new_zeros(T, T).masked_fill(~self._visible(q, T), -math.inf)
        scores = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=scale)
        weights = self.dropout(scores.softmax(-1))  # (B * H, T, T)
        y: Tensor = weights @ v.flatten(0, 1)
        return y.view(q.shape)

    def extend(self, heads: Sequence[Tensor], cache: Cache, layer: int) -> Tensor:
        """Write keys and values (B, H, T, K) behind those of a layer, and attend to all."""
        q, k, v = heads
        begin, T = cache.length, q.shape[2]
        q, k = self._with_positions(q, k, begin)
        end = begin + T
        keys, values = cache.keys[layer, :, :, :end], cache.values[layer, :, :, :end]
        keys[:, :, begin:], values[:, :, begin:] = k, v
        mask = self._visible(q, end) if T > 1 else None
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, dropout_p=self._p)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Return how much each input of whole windows attends to each, (B, H, T, T)."""
        q, k = self._with_positions(q, k, 0)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        return scores.masked_fill(~self._visible(q, q.shape[2]), -math.inf).softmax(-1)

    @property
    def _p(self) -> float:
        return self.dropout.p if self.training else 0.0

    def _with_positions(self, q: Tensor, k: Tensor, begin: int) -> tuple[Tensor, Tensor]:
        return (rotate(q, begin), rotate(k, begin)) if self.rotary else (q, k)

    def _visible(self, q: Tensor, n: int) -> Tensor:
        """Return which of the first n = P + T inputs each of the last T attends to, (T, n)."""
        T = q.shape[2]
        return torch.ones(T, n, dtype=torch.bool, device=q.device).tril(n - T)
