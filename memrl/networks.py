"""Building blocks shared by encoders, sequence models and algorithms.

Initialisations follow Ni et al. 2023 (the published program), which differ from PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class Head(nn.Sequential):
    """Map a history state to one number per output: linear layers with ReLU between.

    Hidden weights are uniform in +-1/sqrt(number of outputs of the layer), hidden biases 0.1;
    the last layer is uniform in +-``last_init``, biases included.
    """

    def __init__(
        self, input_dim: int, hidden_dims: Sequence[int], output_dim: int, last_init: float
    ) -> None:
        if not hidden_dims or any(width < 1 for width in hidden_dims):
            raise ValueError(f"hidden_dims must be widths of at least 1, got {list(hidden_dims)}")
        layers: list[nn.Module] = []
        for width in hidden_dims:
            hidden = nn.Linear(input_dim, width)
            nn.init.uniform_(hidden.weight, -(width**-0.5), width**-0.5)
            nn.init.constant_(hidden.bias, 0.1)
            layers += [hidden, nn.ReLU()]
            input_dim = width
        last = nn.Linear(input_dim, output_dim)
        nn.init.uniform_(last.weight, -last_init, last_init)
        nn.init.uniform_(last.bias, -last_init, last_init)
        super().__init__(*layers, last)


def set_training(module: nn.Module, training: bool) -> None:
    """Switch dropout on or off; free when nothing changes, for it runs at every step of acting."""
    if module.training != training:
        module.train(training)


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move every target parameter by ``tau`` towards the online one, in place."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)


@torch.no_grad()
def mean_grad_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the mean over parameter tensors of each gradient's L2 norm; 0 if there is none."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    return torch.stack(torch._foreach_norm(grads)).mean()
