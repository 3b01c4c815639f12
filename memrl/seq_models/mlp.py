"""No memory: each output depends on the input of its own step alone."""

from __future__ import annotations

from torch import Tensor, nn

from memrl.checks import require_sizes
from memrl.interfaces import State


class MLP(nn.Module):
    """Linear layers with ReLU, step by step: the Markov baseline.

    ``hidden_dim`` is the width of every layer and of the output.
    """

    def __init__(self, input_dim: int, hidden_dim: int, n_layer: int) -> None:
        super().__init__()
        require_sizes(n_layer, hidden_dim=hidden_dim)
        self.output_dim = hidden_dim
        layers: list[nn.Module] = []
        for width in [input_dim] + [hidden_dim] * (n_layer - 1):
            layers += [nn.Linear(width, hidden_dim), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def initial_state(self, batch_size: int) -> State:
        return ()

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        return self.layers(x), state
