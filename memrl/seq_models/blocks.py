"""The layers of a Transformer: causal self-attention and an MLP, with LayerNorm on their inputs.

T inputs of this call, B batch, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrl.networks import Dropout
from memrl.seq_models.attention import Attention, Cache


class Gelu(nn.Module):
    """GELU in GPT-2's tanh form; in bfloat16 the exact one, several times faster on a CPU.

    They differ by less than 0.0005; bfloat16 has three digits.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="none" if x.dtype == torch.bfloat16 else "tanh")


class Block(nn.Module):
    """Causal self-attention, then a two-layer MLP, each added to its input."""

    def __init__(self, width: int, n_head: int, dropout: float, attention: Attention) -> None:
        super().__init__()
        self.n_head = n_head
        self.attention = attention
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), Gelu(), nn.Linear(4 * width, width))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        """Map (T, B, D) to (T, B, D), whole windows or what follows on the inputs in a cache.

        The keys and values of this call are written into the cache, as those of this ``layer``.
        """
        heads = self.heads(x)
        y = self.attention(*heads) if cache is None else self.attention.extend(heads, cache, layer)
        rows = y.permute(2, 0, 1, 3).reshape(-1, x.shape[-1])  # copied: one matrix product, not B
        x = x + self.dropout(self.attention_out(rows)).view_as(x)
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out

    def heads(self, x: Tensor) -> list[Tensor]:
        """Map (T, B, D) to queries, keys and values, (B, H, T, K) each."""
        T, B, D = x.shape
        parts = self.qkv(self.norm1(x)).split(D, dim=-1)  # whose gradient is one concatenation
        return [p.view(T, B, self.n_head, D // self.n_head).permute(1, 2, 0, 3) for p in parts]
