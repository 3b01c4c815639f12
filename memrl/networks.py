"""Building blocks shared by encoders, sequence models and algorithms.

Initialisations follow Ni et al. 2023 (the published program), which differ from PyTorch's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from memrl.checks import require


class Head(nn.Sequential):
    """Map a history's summary to one number per output: linear layers with ReLU between.

    Hidden weights are uniform in +-1/sqrt(number of outputs of the layer), hidden biases 0.1;
    the last layer is uniform in +-``last_init``, biases included.
    """

    def __init__(
        self, input_dim: int, hidden_dims: Sequence[int], output_dim: int, last_init: float
    ) -> None:
        ok = min(hidden_dims, default=0) >= 1
        require(ok, "hidden_dims", "widths of at least 1", list(hidden_dims))
        layers: list[nn.Module] = []
        for width in hidden_dims:
            hidden = nn.Linear(input_dim, width)
            nn.init.uniform_(hidden.weight, -(width**-0.5), width**-0.5)
            nn.init.constant_(hidden.bias, 0.1)
            layers += [hidden, nn.ReLU(inplace=True)]
            input_dim = width
        last = nn.Linear(input_dim, output_dim)
        nn.init.uniform_(last.weight, -last_init, last_init)
        nn.init.uniform_(last.bias, -last_init, last_init)
        super().__init__(*layers, last)

    def forward(self, h: Tensor) -> Tensor:
        """Map (..., input_dim) to (..., output_dim) float32.

        Hidden layers compute in the number format of ``h``, the last one in float32, so that
        neither values nor the small differences between them are rounded.
        """
        *hidden, last = self
        y = h.flatten(0, -2)  # 2-D: then a layer's output is no view, which ReLU may overwrite
        with products_in(h.dtype, h.device):
            for layer in hidden:
                y = layer(y)
        return last(y.float()).unflatten(0, h.shape[:-1])  # type: ignore[no-any-return]


@torch.no_grad()
def orthogonal_(weight: Tensor, parts: int = 1) -> None:
    """Make a matrix (outputs, inputs) orthogonal, in place; each of ``parts`` row blocks alone."""
    for part in weight.chunk(parts):
        nn.init.orthogonal_(part)


def products_in(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which matrix products and convolutions compute in this format."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def in_float32(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which autocast is off, and float32 arguments stay float32."""
    return torch.autocast(device.type, enabled=False)


class Dropout(nn.Dropout):
    """PyTorch's dropout; on a CPU one random integer gives four values of the mask.

    There the probability is rounded to a multiple of 2^-16 below 1, and the outputs are scaled by
    the rounded one, so that their means stay what they are without dropout.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map any tensor to one of the same shape and dtype."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        dropped = min(round(self.p * 2**16), 2**16 - 1)  # of the values of a 16-bit integer
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        mask = torch.ge(bits, dropped - 2**15, out=torch.empty(x.shape, dtype=x.dtype))
        return x * mask.mul_(2**16 / (2**16 - dropped))


def set_training(module: nn.Module, training: bool) -> None:
    """Switch dropout on or off; costs nothing if it already is: acting calls it at every step."""
    if module.training != training:
        module.train(training)


def adam(
    parameters: Iterable[Tensor],
    lr: float,
    memory: nn.Module | None = None,
    memory_lr: float | None = None,
    recurrence_lr: float | None = None,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Return PyTorch's Adam or AdamW, fused into kernels that a CUDA graph can capture.

    A recurrence parameter decides how fast a memory fades, such as an LRU's eigenvalues; a module
    names those that it holds in a class attribute ``recurrence_parameters``, a tuple of names.

    Args:
        memory: the one whose parameters, encoder and sequence model, are among ``parameters``.
        memory_lr: its learning rate, above 0 (Luo et al. 2024); None: ``lr``.
        recurrence_lr: that of its recurrence parameters, above 0; None: as the rest of the memory.
        weight_decay: AdamW's (Loshchilov & Hutter 2019), at least 0, of tensors of at least two
            dimensions, so of no bias and no norm, and of no recurrence parameter.
    """
    for name, rate in (("memory_lr", memory_lr), ("recurrence_lr", recurrence_lr)):
        require(rate is None or 0 < rate < float("inf"), name, "null or above 0", rate)
    require(0 <= weight_decay < float("inf"), "weight_decay", "at least 0", weight_decay)
    layers = [] if memory is None else list(memory.modules())
    in_memory = {weight for layer in layers for weight in layer.parameters()}
    names = [(layer, getattr(layer, "recurrence_parameters", ())) for layer in layers]
    in_recurrence = {layer.get_parameter(name) for layer, own in names for name in own}
    ok = recurrence_lr is None or len(in_recurrence) > 0
    require(ok, "recurrence_lr", "null: the model names no recurrence_parameters", recurrence_lr)

    groups: dict[tuple[float, float], list[Tensor]] = {}  # (learning rate, decay) -> parameters
    for weight in parameters:
        rate, decay = lr, weight_decay if weight.ndim > 1 else 0.0
        if weight in in_recurrence:
            rate, decay = recurrence_lr or memory_lr or lr, 0.0
        elif weight in in_memory:
            rate = memory_lr or lr
        groups.setdefault((rate, decay), []).append(weight)
    cuda = next(iter(groups.values()))[0].device.type == "cuda"
    optimizer = torch.optim.AdamW if weight_decay > 0 else torch.optim.Adam
    options = [{"params": w, "lr": r, "weight_decay": d} for (r, d), w in groups.items()]
    return optimizer(options, lr=lr, fused=True, capturable=cuda)


def accumulate_(sums: dict[str, Tensor], metrics: Mapping[str, Tensor]) -> None:
    """Add each metric to the sum of the same name, or start one."""
    for key, value in metrics.items():
        sums[key] = sums[key] + value if key in sums else value


def frozen_copy(module: nn.Module) -> Any:
    """Return a copy whose parameters need no gradient, such as a target network."""
    copied = deepcopy(module).requires_grad_(False)
    for layer in copied.modules():
        if isinstance(layer, nn.RNNBase):  # cuDNN wants contiguous weights, which copying separates
            layer.flatten_parameters()
    return copied


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
