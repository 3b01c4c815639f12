"""LRU: a linear recurrent unit with complex eigenvalues on a ring (Orvieto et al. 2023).

T inputs, B batch, D width, N eigenvalues.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from memrl.checks import require, require_sizes
from memrl.interfaces import State
from memrl.networks import in_float32
from memrl.seq_models.layers import ResidualStack
from memrl.seq_models.scan import scan


class LRU(ResidualStack):
    """Residual layers of an LRU, GELU and a gated linear unit.

    A mode of modulus r forgets by r each step: half of it is left after log(1/2) / log(r) steps,
    69 with 0.99. So long memory needs ``r_max`` near 1.

    Args:
        hidden_dim: width of every layer and of the output.
        n_layer: number of layers.
        expand: eigenvalues per unit of width.
        r_min: smallest initial modulus of an eigenvalue, at least 0.
        r_max: largest one, above ``r_min`` and below 1.
        max_phase: largest initial phase, in (0, 2 pi].
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        n_layer: int,
        expand: int,
        r_min: float,
        r_max: float,
        max_phase: float,
    ) -> None:
        require_sizes(n_layer, hidden_dim=hidden_dim, expand=expand)
        require(0 <= r_min < 1, "r_min", "in [0, 1)", r_min)
        require(r_min < r_max < 1, "r_max", f"above r_min={r_min:g} and below 1", r_max)
        require(0 < max_phase <= 6.2832, "max_phase", "in (0, 2 pi]", max_phase)
        mixers = (
            Mixer(hidden_dim, expand * hidden_dim, r_min, r_max, max_phase) for _ in range(n_layer)
        )
        super().__init__(input_dim, hidden_dim, mixers)


class Mixer(nn.Module):
    """h_t = lambda h_(t-1) + gamma B x_t, y_t = Re(C h_t) + D x_t; then GELU and a GLU.

    Section 3 of the paper: lambda = exp(-exp(nu_log) + i exp(theta_log)), uniform on the ring at
    first; gamma is learned, and begins where all modes have the variance of the input.
    """

    recurrence_parameters = ("nu_log", "theta_log", "gamma_log")

    def __init__(self, width: int, n: int, r_min: float, r_max: float, max_phase: float) -> None:
        super().__init__()
        self.n = n
        square = torch.empty(n).uniform_(r_min**2, r_max**2).clamp(min=1e-12)  # of the modulus
        self.nu_log = nn.Parameter((-0.5 * square.log()).log())
        phase = torch.empty(n).uniform_(0, max_phase).clamp(min=1e-6)
        self.theta_log = nn.Parameter(phase.log())
        self.gamma_log = nn.Parameter(0.5 * torch.log1p(-square))
        self.input = nn.Linear(width, 2 * n, bias=False)  # B: real and imaginary parts alternate
        self.output = nn.Linear(2 * n, width, bias=False)  # C, with the sign of Re in it
        self.skip = nn.Parameter(torch.randn(width))  # D
        nn.init.normal_(self.input.weight, std=1 / math.sqrt(2 * width))
        nn.init.normal_(self.output.weight, std=1 / math.sqrt(n))
        self.glu = nn.Linear(width, 2 * width)

    def initial_state(self, batch_size: int) -> State:
        return torch.zeros(batch_size, self.n, dtype=torch.complex64, device=self.skip.device)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        driven = self.input(x)
        with in_float32(x.device):
            eigenvalues = torch.polar((-self.nu_log.exp()).exp(), self.theta_log.exp())  # (N,)
            driven = torch.view_as_complex(driven.float().unflatten(-1, (self.n, 2)))
            h, last = scan(eigenvalues, driven * self.gamma_log.exp(), state)  # (T, B, N)
        y = self.output(torch.view_as_real(h).flatten(-2)) + self.skip * x
        return nn.functional.glu(self.glu(nn.functional.gelu(y))), last
