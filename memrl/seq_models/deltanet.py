"""DeltaNet: a matrix of values under keys, written by the delta rule, with decay or without.

Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length"; with
decay it is Gated DeltaNet (Yang et al. 2025). T inputs, B batch, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrl.checks import require, require_sizes
from memrl.interfaces import State
from memrl.networks import in_float32
from memrl.seq_models.layers import ResidualStack, ShortConvolution, decay_parameters
from memrl.seq_models.scan import linear_attention


class GatedDeltaNet(ResidualStack):
    """Residual layers of Gated DeltaNet, without the MLPs that the papers put between them.

    Values are as wide as keys.

    Args:
        hidden_dim: width of every layer and of the output.
        n_layer: number of layers.
        n_head: heads; must divide the width.
        decay: whether the matrices fade; without, they forget only what they overwrite.
    """

    def __init__(
        self, input_dim: int, hidden_dim: int, n_layer: int, n_head: int, decay: bool = True
    ) -> None:
        require_sizes(n_layer, hidden_dim=hidden_dim, n_head=n_head)
        require(hidden_dim % n_head == 0, "n_head", f"a divisor of hidden_dim={hidden_dim}", n_head)
        layers = (Mixer(hidden_dim, n_head, decay) for _ in range(n_layer))
        super().__init__(input_dim, hidden_dim, layers)


class Mixer(nn.Module):
    """S_t = a_t (I - beta_t k_t k_t') S_(t-1) + beta_t k_t v_t', y_t = q_t S_t.

    Section 3 of the paper of 2025: queries, keys and values pass through a short convolution,
    queries and keys are normalised to length 1; a_t = exp(-A softplus(W x + dt)) as in Mamba-2, or
    1 without decay; the outputs are normalised in each head and gated.
    """

    recurrence_parameters: tuple[str, ...] = ()

    def __init__(self, width: int, n_head: int, decay: bool) -> None:
        super().__init__()
        self.width, self.n_head = width, n_head
        self.decay = decay
        self.sizes = [3 * width, width, n_head if decay else 0, n_head]
        self.input = nn.Linear(width, sum(self.sizes), bias=False)
        self.convolution = ShortConvolution(3 * width)
        if decay:
            self.a_log, self.dt_bias = decay_parameters(n_head)
            self.recurrence_parameters = ("a_log", "dt_bias")
        self.norm = nn.RMSNorm(width // n_head, eps=1e-5)
        self.output = nn.Linear(width, width, bias=False)

    def initial_state(self, batch_size: int) -> State:
        """Return zeros for the convolution, (3, B, 3 D), and S, (B, H, K, K)."""
        K = self.width // self.n_head
        s = self.norm.weight.new_zeros(batch_size, self.n_head, K, K)
        return self.convolution.initial_state(batch_size), s

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        before, s = (None, None) if state is None else state
        qkv, gate, a, beta = self.input(x).split(self.sizes, -1)
        with in_float32(x.device):
            qkv, before = self.convolution(qkv.float(), before)
            q, k, v = (part.unflatten(-1, (self.n_head, -1)) for part in qkv.chunk(3, -1))
            q, k = unit(q), unit(k)  # (T, B, H, K)
            beta = beta.float().sigmoid()  # (T, B, H)
            if self.decay:
                log_decay = -self.a_log.exp() * F.softplus(a.float() + self.dt_bias)
            else:
                log_decay = torch.zeros_like(beta)
            y, s = linear_attention(q, k, v, log_decay, s, beta)
            y = self.norm(y).flatten(2) * F.silu(gate.float())
        return self.output(y), (before, s)


def unit(x: Tensor) -> Tensor:
    """Return vectors of length 1; almost zero ones stay shorter, so that gradients are bounded."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
