"""The layers of a Transformer: causal self-attention and an MLP, with LayerNorm on their inputs.

T inputs of this call, B batch, D width, H heads, K = D / H.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrl.checks import require, require_sizes
from memrl.networks import Dropout
from memrl.seq_models.attention import Attention, Cache
from memrl.seq_models.gates import Gate, Gelu

Combine = Callable[[Tensor, Tensor], Tensor]
INIT_STD = 0.02  # of linear layers, as in GPT-2


class Block(nn.Module):
    """Causal self-attention, then a two-layer MLP, each added to its input or gated."""

    def __init__(
        self, width: int, n_head: int, dropout: float, attention: Attention, gated: bool
    ) -> None:
        super().__init__()
        self.n_head = n_head
        self.attention = attention
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), Gelu(), nn.Linear(4 * width, width))
        self.dropout = Dropout(dropout)
        self.add1: Combine = Gate(width) if gated else torch.add
        self.add2: Combine = Gate(width) if gated else torch.add

    def forward(
        self, x: Tensor, cache: Cache | None = None, layer: int = 0, at: Tensor | None = None
    ) -> Tensor:
        """Map (T, B, D) to (T, B, D); keys and values are written into the cache, if any.

        With ``at`` (n,), only the outputs of those steps are computed, (n, B, D).
        """
        heads = self.heads(x, at)
        if cache is None:
            y = self.attention(*heads, at)
        else:
            y = self.attention.extend(heads, cache, layer)
        x = x if at is None else x[at]
        rows = y.permute(2, 0, 1, 3).reshape(-1, x.shape[-1])  # copied: one matrix product, not B
        x = self.add1(x, self.dropout(self.attention_out(rows)).view_as(x))
        return self.add2(x, self.dropout(self.mlp(self.norm2(x))))

    def heads(self, x: Tensor, at: Tensor | None = None) -> list[Tensor]:
        """Map (T, B, D) to queries, keys and values, (B, H, T, K) each; queries of ``at`` alone."""
        D, y = x.shape[-1], self.norm1(x)
        if at is None:
            parts = self.qkv(y).split(D, dim=-1)  # whose gradient is one concatenation
        else:
            weights, biases = self.qkv.weight.tensor_split([D]), self.qkv.bias.tensor_split([D])
            q = F.linear(y[at], weights[0], biases[0])
            parts = q, *torch.split(F.linear(y, weights[1], biases[1]), D, dim=-1)
        return [p.unflatten(-1, (self.n_head, -1)).permute(1, 2, 0, 3) for p in parts]

    def weights(self, x: Tensor) -> Tensor:
        """Return how much each input of whole windows attends to each, (B, T, T): heads' mean."""
        q, k, _ = self.heads(x)
        return self.attention.weights(q, k).mean(1)


class Blocks(nn.ModuleList):
    """Blocks one after another; linear layers are normal with ``INIT_STD``, biases 0.

    Args:
        n_layer: number of blocks.
        width: D.
        n_head: H; must divide the width.
        dropout: on both outputs of a block.
        attention: what the blocks have in common.
        gated: whether outputs are combined with inputs by gates; otherwise they are added.
        attention_init: standard deviation of the initial weights of queries and keys.
    """

    def __init__(
        self,
        n_layer: int,
        width: int,
        n_head: int,
        dropout: float,
        attention: Attention,
        gated: bool,
        attention_init: float = INIT_STD,
    ) -> None:
        require_sizes(n_layer)
        ok = 0 < attention_init < math.inf
        require(ok, "attention_init", "above 0", attention_init)
        if n_head < 1 or width % n_head:
            raise ValueError(f"n_head must divide the width {width}, got {n_head}")
        if attention.rotary and width // n_head % 2:
            allowed = f"heads of even width with position=rope, {width} / {n_head} is odd"
            raise ValueError(f"n_head must give {allowed}; got {n_head}")
        super().__init__(Block(width, n_head, dropout, attention, gated) for _ in range(n_layer))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)
        for block in self:
            assert isinstance(block, Block)
            with torch.no_grad():
                block.qkv.weight[: 2 * width] *= attention_init / INIT_STD

    def forward(self, x: Tensor, cache: Cache | None = None, at: Tensor | None = None) -> Tensor:
        """Map (T, B, D) to (T, B, D), whole windows or what follows on the inputs in a cache.

        With ``at`` (n,), only the outputs of those steps of whole windows, (n, B, D).
        """
        last = len(self) - 1
        for layer, block in enumerate(self):
            x = block(x, cache, layer, at if layer == last else None)
        return x

    def weights(self, x: Tensor) -> Tensor:
        """Return how much inputs of whole windows attend to each other, (B, T, T): blocks' mean."""
        layers = []
        for block in self:
            assert isinstance(block, Block)
            layers.append(block.weights(x))
            x = block(x)
        return torch.stack(layers).mean(0)
