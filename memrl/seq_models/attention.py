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

from memrl.checks import require, require_at_least
from memrl.networks import Dropout
from memrl.seq_models.positions import rotate

SHORT = 256  # inputs up to which a CPU is faster with (T, T) weights than with fused attention


class Cache(NamedTuple):
    """What acting remembers, in buffers that are filled in place."""

    keys: Tensor  # (n_layer, B, H, room, K)
    values: Tensor  # (n_layer, B, H, room, K)
    inputs: Tensor | None  # (room, B, D), if a sliding window is recomputed from them
    length: int  # inputs seen since the episode began

    def with_room(self, n: int) -> Cache:
        """Return a cache with room for n inputs, at least doubled if it must grow."""
        room = self.keys.shape[3]
        if n <= room:
            return self
        extra = (0, 0, 0, max(room, n - room))
        return self._replace(keys=F.pad(self.keys, extra), values=F.pad(self.values, extra))


class Attention(nn.Module):
    """Softmax attention of each input to itself and to those before it; it has no weights.

    Args:
        dropout: on the attention weights.
        rotary: whether queries and keys are rotated by their positions.
        window: inputs that one attends to, itself included; None: the whole history.
        sinks: inputs at the start of the history that are attended to beside the window
            (StreamingLLM, Xiao et al. 2024; there positions are counted in the cache, here in the
            history, so that with ``rotary`` the sinks move away).
        log_length: if not None, scores are multiplied by log(n) / log(log_length), where n is the
            number of inputs attended to: weights do not spread out as the history grows (Chiang
            and Cholak 2022; Nakanishi 2025).

    Attributes:
        limit: keys and values that are needed at most; None: those of the whole history.
    """

    def __init__(
        self,
        dropout: float,
        rotary: bool = False,
        window: int | None = None,
        sinks: int = 0,
        log_length: int | None = None,
    ) -> None:
        super().__init__()
        require(0 <= dropout < 1, "attention_dropout", "in [0, 1)", dropout)
        require(window is None or window >= 1, "window", "null or at least 1", window)
        require_at_least(0, sinks=sinks)
        require(sinks == 0 or window is not None, "sinks", "0 without a window", sinks)
        self.dropout = Dropout(dropout)
        self.rotary = rotary
        self.window = window
        self.sinks = sinks
        self.log_length = log_length
        self.limit = None if window is None else window + sinks

    def forward(self, q: Tensor, k: Tensor, v: Tensor, at: Tensor | None = None) -> Tensor:
        """Return what the inputs ``at`` (n,) of whole windows attend to, (B, H, n, K) as ``q``.

        Keys and values are (B, H, T, K). Without ``at`` the queries are those of all T inputs.
        """
        T = k.shape[2]
        steps = torch.arange(T, device=k.device)
        q, k = self._placed(q, k, steps if at is None else at, steps)
        if at is None and (T > SHORT or q.device.type != "cpu"):
            if self.window is None or T <= self.window:
                return F.scaled_dot_product_attention(q, k, v, dropout_p=self._p, is_causal=True)
        mask = self._visible(steps if at is None else at, T)
        if at is not None or T > SHORT or q.device.type != "cpu":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self._p)
        scale = 1 / math.sqrt(q.shape[-1])
        bias = q.new_zeros(T, T).masked_fill(~mask, -math.inf)
        scores = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=scale)
        weights = self.dropout(scores.softmax(-1))  # (B * H, T, T)
        y: Tensor = weights @ v.flatten(0, 1)
        return y.view(q.shape)

    def extend(self, heads: Sequence[Tensor], cache: Cache, layer: int) -> Tensor:
        """Write keys and values (B, H, T, K) into a layer's room, and attend to what is there.

        Beyond the ``limit`` T must be 1: the oldest input but for the sinks gives way.
        """
        q, k, v = heads
        begin, T = cache.length, q.shape[2]
        steps = torch.arange(begin, begin + T, device=q.device)
        q, k = self._placed(q, k, steps, steps)
        slot, end = begin, begin + T
        if self.window is not None and self.limit is not None and end > self.limit:
            slot, end = self.sinks + (begin - self.sinks) % self.window, self.limit
        keys, values = cache.keys[layer, :, :, :end], cache.values[layer, :, :, :end]
        keys[:, :, slot : slot + T], values[:, :, slot : slot + T] = k, v
        mask = self._visible(steps, end) if T > 1 else None
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, dropout_p=self._p)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Return how much each input of whole windows attends to each, (B, H, T, T)."""
        steps = torch.arange(q.shape[2], device=q.device)
        q, k = self._placed(q, k, steps, steps)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        return scores.masked_fill(~self._visible(steps, len(steps)), -math.inf).softmax(-1)

    @property
    def _p(self) -> float:
        return self.dropout.p if self.training else 0.0

    def _placed(self, q: Tensor, k: Tensor, q_at: Tensor, k_at: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys of the inputs at these positions, rotated and scaled."""
        if self.rotary and q_at is k_at:  # their angles are computed once
            q, k = rotate(torch.stack([q, k]), k_at).unbind()
        elif self.rotary:
            q, k = rotate(q, q_at), rotate(k, k_at)
        if self.log_length is not None:
            n = q_at + 1
            if self.limit is not None:
                n = n.clamp(max=self.limit)
            q = (q * (n.log() / math.log(self.log_length)).unsqueeze(1)).to(q.dtype)
        return q, k

    def _visible(self, at: Tensor, n: int) -> Tensor:
        """Return which of the first n inputs those at positions ``at`` (T,) attend to, (T, n)."""
        key, query = torch.arange(n, device=at.device), at.unsqueeze(1)
        mask = key <= query
        if self.window is None or n <= self.window:
            return mask
        return mask & ((key > query - self.window) | (key < self.sinks))
