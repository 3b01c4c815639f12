"""Mamba-2: a selective state space with a scalar decay per head (Dao & Gu 2024).

T inputs, B batch, D width, H heads, P width of a head, N numbers of state per channel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrl.checks import require, require_sizes
from memrl.interfaces import State
from memrl.networks import in_float32
from memrl.seq_models.layers import (
    ResidualStack,
    ShortConvolution,
    decay_parameters,
)
from memrl.seq_models.scan import linear_attention


class Mamba2(ResidualStack):
    """Residual layers of Mamba-2.

    Args:
        hidden_dim: width of every layer and of the output.
        n_layer: number of layers.
        expand: inner width per unit of width.
        n_head: heads; must divide the inner width, ``expand * hidden_dim``.
        state_dim: N, numbers of state for each inner channel.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        n_layer: int,
        expand: int,
        n_head: int,
        state_dim: int,
    ) -> None:
        require_sizes(
            n_layer, hidden_dim=hidden_dim, expand=expand, n_head=n_head, state_dim=state_dim
        )
        inner = expand * hidden_dim
        allowed = f"a divisor of expand * hidden_dim = {inner}"
        require(inner % n_head == 0, "n_head", allowed, n_head)
        mixers = (Mixer(hidden_dim, inner, n_head, state_dim) for _ in range(n_layer))
        super().__init__(input_dim, hidden_dim, mixers)


class Mixer(nn.Module):
    """S_t = exp(-A dt_t) S_(t-1) + dt_t B_t x_t, y_t = C_t S_t + D x_t, B and C shared by heads.

    Section 7 of the paper: all of it from one projection of the input; x, B and C through a short
    convolution; a gated RMSNorm before the output's projection.
    """

    recurrence_parameters = ("a_log", "dt_bias")

    def __init__(self, width: int, inner: int, n_head: int, state_dim: int) -> None:
        super().__init__()
        self.n_head, self.state_dim = n_head, state_dim
        self.sizes = [inner, inner + 2 * state_dim, n_head]  # z; x, B and C; dt
        self.input = nn.Linear(width, sum(self.sizes), bias=False)
        self.convolution = ShortConvolution(self.sizes[1])
        self.a_log, self.dt_bias = decay_parameters(n_head)
        self.skip = nn.Parameter(torch.ones(n_head))  # D
        self.norm = nn.RMSNorm(inner, eps=1e-5)
        self.output = nn.Linear(inner, width, bias=False)

    def initial_state(self, batch_size: int) -> State:
        """Return zeros for the convolution, (3, B, channels), and S, (B, H, N, P)."""
        head_width = self.sizes[0] // self.n_head
        s = self.skip.new_zeros(batch_size, self.n_head, self.state_dim, head_width)
        return self.convolution.initial_state(batch_size), s

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        before, s = (None, None) if state is None else state
        z, channels, dt = self.input(x).split(self.sizes, -1)
        with in_float32(x.device):
            channels, before = self.convolution(channels.float(), before)
            x, b, c = channels.split([self.sizes[0], self.state_dim, self.state_dim], -1)
            x = x.reshape(*x.shape[:2], self.n_head, -1)  # (T, B, H, P)
            dt = F.softplus(dt.float() + self.dt_bias)  # (T, B, H)
            log_decay = -self.a_log.exp() * dt
            v = x * dt.unsqueeze(-1)
            y, s = linear_attention(c.unsqueeze(2), b.unsqueeze(2), v, log_decay, s)
            y = torch.addcmul(y, x, self.skip.unsqueeze(-1)).flatten(2)
            y = self.norm(y * F.silu(z.float()))
        return self.output(y), (before, s)
