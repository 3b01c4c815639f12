"""Recurrent sequence models: plain tanh RNN, GRU, LSTM."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from memrl.interfaces import State

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(nn.Module):
    """PyTorch's recurrent layers, from a zero state; the output is the top layer's.

    Each weight matrix is orthogonal (stacked gates as one matrix), biases are 0, the forget
    gate's too (Ni et al. 2023).

    Args:
        input_dim: width of the inputs.
        cell: kind of recurrence.
        hidden_dim: width of every layer and of the output, at least 1.
        n_layer: number of layers, at least 1.
    """

    def __init__(
        self, input_dim: int, cell: Literal["rnn", "gru", "lstm"], hidden_dim: int, n_layer: int
    ) -> None:
        super().__init__()
        for name, value in (("hidden_dim", hidden_dim), ("n_layer", n_layer)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell}")
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
