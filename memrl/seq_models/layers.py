"""What the linear-time models share: residual layers, and a short convolution over time.

T inputs, B batch, D width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from memrl.interfaces import State

TAPS = 4  # inputs that a convolution sees, its own one included


class ResidualStack(nn.Module):
    """x + mixer(RMSNorm(x)), layer upon layer, between a linear embedding and a last RMSNorm.

    A mixer maps (T, B, D) and a state to (T, B, D) and the next state, as a sequence model does,
    but a state that is None stands for an empty history; it has ``initial_state`` too.

    Args:
        input_dim: width of the inputs.
        hidden_dim: D, width of every layer and of the output.
        mixers: one for each layer.
    """

    def __init__(self, input_dim: int, hidden_dim: int, mixers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.output_dim = hidden_dim
        self.embedding = nn.Linear(input_dim, hidden_dim)
        self.mixers = nn.ModuleList(mixers)
        self.norms = nn.ModuleList(nn.RMSNorm(hidden_dim, eps=1e-5) for _ in self.mixers)
        self.norm = nn.RMSNorm(hidden_dim, eps=1e-5)

    def initial_state(self, batch_size: int) -> State:
        return [mixer.initial_state(batch_size) for mixer in self.mixers]  # type: ignore[operator]

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        y = self.embedding(x)
        after = []
        for i, (norm, mixer) in enumerate(zip(self.norms, self.mixers, strict=True)):
            mixed, layer_state = mixer(_normed(norm, y), None if state is None else state[i])
            y = y + mixed
            after.append(layer_state)
        return _normed(self.norm, y), None if state is None else after


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a norm with float32 weights: PyTorch warns of those beside a bfloat16 input."""
    return norm(x.float()).to(x.dtype)  # type: ignore[no-any-return]


class ShortConvolution(nn.Module):
    """A causal convolution of each channel over its last four inputs, and SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        bound = TAPS**-0.5  # as PyTorch's convolutions
        self.weight = nn.Parameter(torch.empty(TAPS, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))

    def initial_state(self, batch_size: int) -> Tensor:
        """Return the three inputs before the first, (3, B, width): zeros."""
        return self.weight.new_zeros(TAPS - 1, batch_size, self.weight.shape[1])

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map float32 (T, B, width) and the three inputs before to outputs and the last three."""
        before = self.initial_state(x.shape[1]) if state is None else state
        x = torch.cat([before, x])
        y = self.bias + x[TAPS - 1 :] * self.weight[-1]
        for tap in range(TAPS - 1):
            y = torch.addcmul(y, x[tap : len(x) - TAPS + 1 + tap], self.weight[tap])
        return nn.functional.silu(y), x[1 - TAPS :].clone()


def inverse_softplus(x: Tensor) -> Tensor:
    """Return the number whose softplus is x."""
    return x + torch.log(-torch.expm1(-x))


def decay_parameters(n_head: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return log A and the bias of dt, (H,) each, as Mamba-2 initialises them.

    The decay of a step is exp(-A dt): A is uniform in [1, 16], dt log-uniform in [0.001, 0.1].
    """
    low, high = torch.tensor([1e-3, 0.1]).log()
    dt = (low + (high - low) * torch.rand(n_head)).exp()
    a = torch.empty(n_head).uniform_(1, 16)
    return nn.Parameter(a.log()), nn.Parameter(inverse_softplus(dt))
