"""GPT: a pre-norm Transformer decoder over embedded steps (GPT-2 style, no token table).

T inputs of this call, B batch, D width, H heads, K = D / H, P inputs seen before this call.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrl.checks import MAX_LAYERS, require, require_at_least
from memrl.interfaces import State
from memrl.networks import Dropout

SHORT = 256  # inputs up to which a CPU is faster with (T, T) weights than with fused attention


class Cache(NamedTuple):
    """What acting remembers: buffers for a whole window, filled in place."""

    keys: Tensor  # (n_layer, B, H, window, K)
    values: Tensor  # (n_layer, B, H, window, K)
    inputs: Tensor  # (window, B, D): from which a sliding window is recomputed
    length: int  # inputs seen since the episode began


class Gelu(nn.Module):
    """GELU in GPT-2's tanh form; in bfloat16 the exact one, several times faster on a CPU.

    They differ by less than 0.0005; bfloat16 has three digits.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="none" if x.dtype == torch.bfloat16 else "tanh")


class Block(nn.Module):
    """Causal self-attention, then a two-layer MLP, each added to its input."""

    def __init__(self, width: int, n_head: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.n_head = n_head
        self.attention_dropout = Dropout(attention_dropout)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), Gelu(), nn.Linear(4 * width, width))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Map (T, B, D) to (T, B, D).

        ``past`` holds the keys and values up to and including this call's inputs,
        (B, H, P + T, K) each; this call's are written into the last T places.
        """
        q, k, v = self.heads(x)
        y = self.attend(q, k, v) if past is None else self.attend_to_past(q, k, v, *past)
        rows = y.permute(2, 0, 1, 3).reshape(-1, x.shape[-1])  # copied: one matrix product, not B
        x = x + self.dropout(self.attention_out(rows)).view_as(x)
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return causal attention over whole windows, (B, H, T, K), as its arguments."""
        T = q.shape[2]
        if T > SHORT or q.device.type != "cpu":
            p = self.attention_dropout.p if self.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        future = q.new_full((T, T), -math.inf).triu(1)
        scale = 1 / math.sqrt(q.shape[-1])
        scores = torch.baddbmm(future, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=scale)
        weights = self.attention_dropout(scores.softmax(-1))  # (B * H, T, T)
        y: Tensor = weights @ v.flatten(0, 1)
        return y.view(q.shape)

    def attend_to_past(
        self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Write keys and values (B, H, T, K) behind those of the past, and attend to all."""
        T = q.shape[2]
        keys[:, :, -T:], values[:, :, -T:] = k, v
        mask = None
        if T > 1:  # query i sees the P inputs before this call and i + 1 of this one
            mask = torch.ones(T, keys.shape[2], dtype=torch.bool, device=q.device)
            mask = mask.tril(keys.shape[2] - T)
        p = self.attention_dropout.p if self.training else 0.0
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, dropout_p=p)

    def heads(self, x: Tensor) -> list[Tensor]:
        """Map (T, B, D) to queries, keys and values, (B, H, T, K) each."""
        T, B, D = x.shape
        parts = self.qkv(self.norm1(x)).split(D, dim=-1)  # whose gradient is one concatenation
        return [p.view(T, B, self.n_head, D // self.n_head).permute(1, 2, 0, 3) for p in parts]


class GPT(nn.Module):
    """The Transformer of Ni et al. 2023: input plus position code, blocks, a final LayerNorm.

    Up to ``context_len`` + 1 inputs it attends to the whole history. From then on, step by step,
    it recomputes the last ``context_len`` + 1 inputs, at positions 0, 1, ...

    Args:
        input_dim: width of the inputs, of every layer and of the output.
        n_layer: number of blocks, at least 1.
        n_head: attention heads; must divide ``input_dim``.
        position: "sine" (fixed) or "learned" (a table, standard normal at first).
        context_len: longest training window, in transitions; at least 1.
        dropout: on the embedded input and on both outputs of a block.
        attention_dropout: on the attention weights.
    """

    def __init__(
        self,
        input_dim: int,
        n_layer: int,
        n_head: int,
        position: Literal["sine", "learned"],
        context_len: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        require_at_least(1, n_layer=n_layer, context_len=context_len)
        require(n_layer <= MAX_LAYERS, "n_layer", f"at most {MAX_LAYERS}", n_layer)
        if n_head < 1 or input_dim % n_head:
            raise ValueError(f"n_head must divide the width {input_dim}, got {n_head}")
        require(0 <= dropout < 1, "dropout", "in [0, 1)", dropout)
        require(0 <= attention_dropout < 1, "attention_dropout", "in [0, 1)", attention_dropout)
        require(position in ("sine", "learned"), "position", "one of sine, learned", position)
        self.output_dim = input_dim
        self.n_head = n_head
        self.window = context_len + 1
        rows = context_len + 3  # as the published program; two rows are never read
        if position == "learned":
            self.position = nn.Parameter(torch.randn(rows, input_dim))
        else:
            self.register_buffer("position", sine_table(rows, input_dim), persistent=False)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(input_dim, n_head, dropout, attention_dropout) for _ in range(n_layer)
        )
        self.norm = nn.LayerNorm(input_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def initial_state(self, batch_size: int) -> State:
        weight = self.norm.weight
        width = self.output_dim // self.n_head
        room = (len(self.blocks), batch_size, self.n_head, self.window, width)
        inputs = weight.new_empty(self.window, batch_size, self.output_dim)
        return Cache(weight.new_empty(room), weight.new_empty(room), inputs, 0)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Map (T, B, D) to (T, B, D); with a state no gradient flows."""
        if state is None:
            if len(x) > self.window:
                raise ValueError(f"{len(x)} inputs exceed the window of {self.window}")
            return self._forward(x), None
        with torch.no_grad():
            fits = min(len(x), max(0, self.window - state.length))
            outputs = []
            if fits:
                outputs.append(self._extend(x[:fits], state))
                state = state._replace(length=state.length + fits)
            for row in x[fits:].unbind():
                outputs.append(self._slide(row, state))
                state = state._replace(length=state.length + 1)
            return torch.cat(outputs), state

    @torch.no_grad()
    def attention(self, x: Tensor) -> Tensor:
        """Return how much each step of a history attends to each, for pictures.

        Row t is what acting at step t attends to: mean over layers and heads, evaluation mode.

        Args:
            x: inputs (T, B, D), of any length.

        Returns:
            (B, T, T); each row sums to 1, entries outside its window are 0.
        """
        T, B, _ = x.shape
        weights = x.new_zeros(B, T, T)
        first = min(T, self.window)
        weights[:, :first, :first] = self._attention(x[:first])
        for t in range(first, T):  # windows that slide: only their last rows
            begin = t + 1 - self.window
            weights[:, t, begin : t + 1] = self._attention(x[begin : t + 1])[:, -1]
        return weights

    def _attention(self, x: Tensor) -> Tensor:
        T, B, D = x.shape
        future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
        y = x + self.position[:T, None]
        total = x.new_zeros(B, T, T)
        for block in self.blocks:
            assert isinstance(block, Block)
            q, k, _ = block.heads(y)
            scores = q @ k.transpose(-1, -2) / math.sqrt(D // self.n_head)  # (B, H, T, T)
            total += scores.masked_fill(future, -math.inf).softmax(-1).mean(1)
            y = block(y)
        return total / len(self.blocks)

    def _forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(x + self.position[: len(x), None].to(x.dtype))
        for block in self.blocks:
            y = block(y)
        return self.norm(y)  # type: ignore[no-any-return]

    def _extend(self, x: Tensor, cache: Cache) -> Tensor:
        end = cache.length + len(x)
        cache.inputs[cache.length : end] = x
        y: Tensor = self.dropout(x + self.position[cache.length : end, None])
        for i, block in enumerate(self.blocks):
            y = block(y, (cache.keys[i, :, :, :end], cache.values[i, :, :, :end]))
        return self.norm(y)  # type: ignore[no-any-return]

    def _slide(self, x: Tensor, cache: Cache) -> Tensor:
        # Positions are absolute in the window, so every key changes when it moves by one step.
        oldest = cache.length % self.window
        cache.inputs[oldest] = x
        return self._forward(cache.inputs.roll(-oldest - 1, dims=0))[-1:]


def sine_table(rows: int, width: int) -> Tensor:
    """Return the fixed position code (rows, width): sine at even, cosine at odd columns.

    Vaswani et al. 2017, section 3.5, with frequencies 10000^(-2k / width).
    """
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(rows).unsqueeze(1) * frequency
    table = torch.empty(rows, width)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : width // 2]
    return table
