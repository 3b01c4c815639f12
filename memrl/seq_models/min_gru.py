"""minGRU: a GRU whose gate and candidate depend on the input alone (Feng et al. 2024).

T inputs, B batch, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from memrl.checks import require_sizes
from memrl.interfaces import State
from memrl.networks import in_float32
from memrl.seq_models.layers import ResidualStack
from memrl.seq_models.scan import scan


class MinGRU(ResidualStack):
    """Residual layers of minGRU: the control for what recurrent weights are worth.

    Args:
        hidden_dim: width of every layer and of the output.
        n_layer: number of layers.
    """

    def __init__(self, input_dim: int, hidden_dim: int, n_layer: int) -> None:
        require_sizes(n_layer, hidden_dim=hidden_dim)
        super().__init__(input_dim, hidden_dim, (Mixer(hidden_dim) for _ in range(n_layer)))


class Mixer(nn.Module):
    """h_t = (1 - z_t) h_(t-1) + z_t c_t, with the gate z = sigmoid(W x) and the candidate c = U x.

    Section 3.1 of the paper; a linear layer follows.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.gate_and_candidate = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def initial_state(self, batch_size: int) -> State:
        return self.output.weight.new_zeros(batch_size, self.width)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        gate, candidate = self.gate_and_candidate(x).chunk(2, -1)
        with in_float32(x.device):
            z = gate.float().sigmoid()
            h, last = scan(1 - z, z * candidate.float(), state)
        return self.output(h), last
