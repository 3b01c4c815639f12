"""GPT: a pre-norm Transformer decoder over embedded steps (GPT-2 style, no token table).

T inputs of this call, B batch, D width, H heads, K = D / H.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from memrl.checks import MAX_LAYERS, require, require_at_least
from memrl.interfaces import State
from memrl.networks import Dropout
from memrl.seq_models.attention import Attention, Cache
from memrl.seq_models.blocks import Block
from memrl.seq_models.positions import sine_table

Position = Literal["sine", "learned", "rope", "none"]


class GPT(nn.Module):
    """The Transformer of Ni et al. 2023: input plus position code, blocks, a final LayerNorm.

    It attends to the whole history. A position code (sine, learned) ends with the training window:
    from then on, step by step, the last ``context_len`` + 1 inputs are recomputed, at positions
    0, 1, ... Without one (rope, none) no history is too long.

    Args:
        input_dim: width of the inputs, of every layer and of the output.
        n_layer: number of blocks, at least 1.
        n_head: attention heads; must divide ``input_dim``.
        position: "sine" (fixed) or "learned" (a table, standard normal at first) are added to the
            input; "rope" rotates queries and keys; "none" leaves order to the causal mask.
        context_len: longest training window, in transitions; at least 1.
        dropout: on the embedded input and on both outputs of a block.
        attention_dropout: on the attention weights.

    Attributes:
        longest: inputs of a history that it attends to at once; None: any number.
    """

    def __init__(
        self,
        input_dim: int,
        n_layer: int,
        n_head: int,
        position: Position,
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
        positions = get_args(Position)
        require(position in positions, "position", f"one of {', '.join(positions)}", position)
        if position == "rope" and input_dim // n_head % 2:
            width = f"heads of even width with position=rope, {input_dim} / {n_head} is odd"
            raise ValueError(f"n_head must give {width}; got {n_head}")
        self.output_dim = input_dim
        self.n_head = n_head
        self.context_len = context_len
        self.longest = context_len + 1 if position in ("sine", "learned") else None
        rows = context_len + 3  # as the published program; two rows are never read
        if position == "learned":
            self.position = nn.Parameter(torch.randn(rows, input_dim))
        elif position == "sine":
            self.register_buffer("position", sine_table(rows, input_dim), persistent=False)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(input_dim, n_head, dropout, Attention(attention_dropout, position == "rope"))
            for _ in range(n_layer)
        )
        self.norm = nn.LayerNorm(input_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def initial_state(self, batch_size: int) -> State:
        weight = self.norm.weight
        room = self.context_len + 1
        heads = (len(self.blocks), batch_size, self.n_head, room, self.output_dim // self.n_head)
        inputs = None if self.longest is None else weight.new_empty(room, batch_size, len(weight))
        return Cache(weight.new_empty(heads), weight.new_empty(heads), inputs, 0)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Map (T, B, D) to (T, B, D); with a state no gradient flows."""
        if state is None:
            if self.longest is not None and len(x) > self.longest:
                raise ValueError(f"{len(x)} inputs exceed the window of {self.longest}")
            return self._outputs(x), None
        with torch.no_grad():
            outputs = []
            for part in torch.split(x, self._pieces(len(x), state.length)):
                outputs.append(self._step(part, state := state.with_room(len(part))))
                state = state._replace(length=state.length + len(part))
            return torch.cat(outputs), state

    def _pieces(self, T: int, begin: int) -> list[int]:
        """Return how many of T inputs are processed at once, after ``begin`` earlier ones."""
        if self.longest is None:
            return [T]
        at_once = min(T, max(0, self.longest - begin))
        return [at_once] * (at_once > 0) + [1] * (T - at_once)

    def _step(self, x: Tensor, cache: Cache) -> Tensor:
        begin = cache.length
        if cache.inputs is None:
            return self._outputs(x, cache)
        if begin + len(x) <= len(cache.inputs):
            cache.inputs[begin : begin + len(x)] = x
            return self._outputs(x, cache)
        # Positions are absolute in the window, so every key changes when it moves by one step.
        oldest = begin % len(cache.inputs)
        cache.inputs[oldest] = x
        return self._outputs(cache.inputs.roll(-oldest - 1, dims=0))[-1:]

    def _outputs(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        y: Tensor = self.dropout(self._with_code(x, 0 if cache is None else cache.length))
        for layer, block in enumerate(self.blocks):
            y = block(y, cache, layer)
        return self.norm(y)  # type: ignore[no-any-return]

    def _with_code(self, x: Tensor, begin: int) -> Tensor:
        if self.longest is None:
            return x
        return x + self.position[begin : begin + len(x), None].to(x.dtype)

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
        first = T if self.longest is None else min(T, self.longest)
        weights[:, :first, :first] = self._attention(x[:first])
        for t in range(first, T):  # windows that slide: only their last rows
            begin = t + 1 - first
            weights[:, t, begin : t + 1] = self._attention(x[begin : t + 1])[:, -1]
        return weights

    def _attention(self, x: Tensor) -> Tensor:
        y = self._with_code(x, 0)
        layers = []
        for block in self.blocks:
            assert isinstance(block, Block)
            q, k, _ = block.heads(y)
            layers.append(block.attention.weights(q, k).mean(1))
            y = block(y)
        return torch.stack(layers).mean(0)
