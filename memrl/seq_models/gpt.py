"""GPT: a pre-norm Transformer decoder over embedded steps (GPT-2 style, no token table).

T inputs of this call, B batch, D width, H heads, K = D / H.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from memrl.checks import require, require_at_least
from memrl.interfaces import State
from memrl.networks import Dropout
from memrl.seq_models.attention import Attention, Cache
from memrl.seq_models.blocks import INIT_STD, Blocks
from memrl.seq_models.positions import sine_table

Position = Literal["sine", "learned", "rope", "none"]
Gating = Literal["none", "gru"]
Scale = Literal["sqrt", "log"]
OPTIONS = {"position": get_args(Position), "gate": get_args(Gating), "scale": get_args(Scale)}


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
        window: inputs that one attends to, itself included; not with a position code.
        sinks: first inputs of the history that are attended to beside the window.
        gate: "gru" gates the layers' outputs; "none" adds them to the inputs.
        scale: "log" multiplies attention scores by log(n) / log(``context_len`` + 1), where n is
            the number of inputs attended to; not with a position code. Like ``sinks``, n counts
            from where a training window begins.
        attention_init: standard deviation of the initial weights of queries and keys, above 0. With
            GPT-2's 0.02 all inputs get the same attention at first, and one of a thousand is lost
            among the others; with 0.4 contents decide.

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
        window: int | None = None,
        sinks: int = 0,
        gate: Gating = "none",
        scale: Scale = "sqrt",
        attention_init: float = INIT_STD,
    ) -> None:
        super().__init__()
        require_at_least(1, context_len=context_len)
        require(0 <= dropout < 1, "dropout", "in [0, 1)", dropout)
        for name, value in {"position": position, "gate": gate, "scale": scale}.items():
            require(value in OPTIONS[name], name, f"one of {', '.join(OPTIONS[name])}", value)
        has_code = position in ("sine", "learned")
        ends = f"with position={position}, which ends with the training window"
        require(not has_code or window is None, "window", f"null {ends}", window)
        require(not has_code or scale == "sqrt", "scale", f"sqrt {ends}", scale)
        self.output_dim = input_dim
        self.n_head = n_head
        self.context_len = context_len
        self.longest = context_len + 1 if has_code else None
        rows = context_len + 3  # as the published program; two rows are never read
        if position == "learned":
            self.position = nn.Parameter(torch.randn(rows, input_dim))
        elif position == "sine":
            self.register_buffer("position", sine_table(rows, input_dim), persistent=False)
        self.dropout = Dropout(dropout)
        log_length = context_len + 1 if scale == "log" else None
        attention = Attention(attention_dropout, position == "rope", window, sinks, log_length)
        self.limit = self.longest or attention.limit  # of the inputs that are cached
        self.blocks = Blocks(
            n_layer, input_dim, n_head, dropout, attention, gate == "gru", attention_init
        )
        self.norm = nn.LayerNorm(input_dim)

    def initial_state(self, batch_size: int) -> State:
        weight = self.norm.weight
        room = min(self.context_len + 1, self.limit or self.context_len + 1)
        heads = (len(self.blocks), batch_size, self.n_head, room, self.output_dim // self.n_head)
        inputs = None if self.longest is None else weight.new_empty(room, batch_size, len(weight))
        return Cache(weight.new_empty(heads), weight.new_empty(heads), inputs, 0)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Map (T, B, D) to (T, B, D); with a state no gradient flows."""
        if state is None:
            return self._outputs(x), None
        outputs = []
        with torch.no_grad():
            while len(x):
                T = len(x) if self.limit is None else max(1, self.limit - state.length)
                y, state = self._continue(x[:T], state)
                outputs.append(y)
                x = x[T:]
            return torch.cat(outputs), state

    def _continue(self, x: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Process inputs for which the limit leaves room, or one that replaces another."""
        begin, end = cache.length, cache.length + len(x)
        cache = cache.with_room(min(end, self.limit or end))
        after = cache._replace(length=end)
        if cache.inputs is not None:
            place = begin % len(cache.inputs)
            cache.inputs[place : place + len(x)] = x
            if end > len(cache.inputs):
                # Positions are absolute: every key changes when the window moves by one step.
                return self._outputs(cache.inputs.roll(-place - 1, dims=0))[-1:], after
        return self._outputs(x, cache), after

    def outputs_at(self, x: Tensor, at: Tensor) -> Tensor:
        """Map whole windows (T, B, D) to the outputs of the steps ``at`` (n,) alone, (n, B, D).

        The last block computes keys and values of all steps, and the rest for these steps only.
        """
        return self._outputs(x, at=at)

    def _outputs(self, x: Tensor, cache: Cache | None = None, at: Tensor | None = None) -> Tensor:
        if cache is None and self.longest is not None and len(x) > self.longest:
            raise ValueError(f"{len(x)} inputs exceed the window of {self.longest}")
        y = self.dropout(self._with_code(x, 0 if cache is None else cache.length))
        return self.norm(self.blocks(y, cache, at))  # type: ignore[no-any-return]

    def _with_code(self, x: Tensor, begin: int) -> Tensor:
        if self.longest is None:
            return x
        return x + self.position[begin : begin + len(x), None].to(x.dtype)

    @torch.no_grad()
    def attention(self, x: Tensor) -> Tensor:
        """Return how much each step of a history attends to each, for pictures.

        Map inputs (T, B, D), of any length, to weights (B, T, T), means over layers and heads. Row
        t is what acting at step t attends to; it sums to 1, and is 0 outside its window.
        """
        T, B, _ = x.shape
        weights = x.new_zeros(B, T, T)
        first = min(T, self.longest or T)
        weights[:, :first, :first] = self.blocks.weights(self._with_code(x[:first], 0))
        for t in range(first, T):  # windows that slide: only their last rows
            window = slice(t + 1 - first, t + 1)
            weights[:, t, window] = self.blocks.weights(self._with_code(x[window], 0))[:, -1]
        return weights
