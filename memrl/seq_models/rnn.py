"""Recurrent sequence models: plain tanh RNN, GRU, LSTM."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from memrl.checks import require, require_sizes
from memrl.interfaces import State

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(nn.Module):
    """PyTorch's recurrent layers, from a zero state; the output is the top layer's.

    Each weight matrix is orthogonal (stacked gates as one matrix), biases are 0, the forget
    gate's too (Ni et al. 2023).

    Args:
        hidden_dim: width of every layer and of the output.
    """

    def __init__(
        self, input_dim: int, cell: Literal["rnn", "gru", "lstm"], hidden_dim: int, n_layer: int
    ) -> None:
        super().__init__()
        require_sizes(n_layer, hidden_dim=hidden_dim)
        require(cell in CELLS, "cell", f"one of {', '.join(CELLS)}", cell)
        self.output_dim = hidden_dim
        self.layers = CELLS[cell](input_dim, hidden_dim, n_layer)
        for name, parameter in self.layers.named_parameters():
            if name.startswith("weight"):
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def initial_state(self, batch_size: int) -> State:
        """Return zeros: (n_layer, B, hidden_dim), twice for the LSTM."""
        weight = self.layers.weight_hh_l0
        zeros = weight.new_zeros(self.layers.num_layers, batch_size, self.output_dim)
        return (zeros, zeros) if isinstance(self.layers, nn.LSTM) else zeros

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        if state is None:
            if x.is_cuda:  # autocast would run it in float16, whose gradients can underflow
                with torch.autocast("cuda", enabled=False):
                    return self.layers(x.float())[0], None
            return self.layers(x)[0], None
        y, state = self.layers(x, state)
        return torch.as_tensor(y), state
