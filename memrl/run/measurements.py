"""What can be measured of a sequence model before it is trained: how far its gradient reaches back,
what an update and a step of acting cost, and how large its state is.

T inputs of a history, B histories of a batch, D width of an input.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memrl.networks import products_in

LENGTH, ROWS = 256, 16  # T and B of an update, and B of a step
CALLS, LIMIT_S = 20, 1.0  # calls to time, and the time limit


class Cost(NamedTuple):
    """What a sequence model costs, windows of ``LENGTH`` inputs and ``ROWS`` rows."""

    update_s: float  # forward and backward pass
    saved_bytes: int  # of activations that are kept for the backward pass
    step_s: float  # one step of acting


def gradient_reach(
    model: nn.Module, input_dim: int, device: torch.device, steps: Sequence[int]
) -> dict[int, float]:
    """Return the norm of the gradient of the last output with respect to earlier inputs.

    The outputs are projected on a random vector.

    Args:
        model: in training mode, which cuDNN requires for gradients; best without dropout.
        input_dim: D.
        steps: how many steps before the last one each input lies.

    Returns:
        The norms for each of the steps, divided by that of the last input.
    """
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(max(steps) + 1, 4, input_dim, generator=generator, device=device)
    last = model(x.requires_grad_())[0][-1]
    direction = torch.randn(last.shape, generator=generator, device=device)
    (gradient,) = torch.autograd.grad((last * direction).sum(), x)
    norms = gradient.flatten(1).norm(dim=1).flip(0)
    return {k: (norms[k] / norms[0]).item() for k in steps}


def cost(model: nn.Module, input_dim: int, device: torch.device, precision: torch.dtype) -> Cost:
    """Measure what a model costs, on this machine as it is now.

    Args:
        model: in training mode.
        input_dim: D.
        precision: the number format of windows.
    """
    x = torch.randn(LENGTH, ROWS, input_dim, device=device)
    saved: dict[int, int] = {p.untyped_storage().data_ptr(): 0 for p in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    def update() -> None:
        with products_in(precision, device):
            y = model(x.to(precision))[0]
        y.float().square().mean().backward()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        update()
    update_s = _seconds(update, device)
    model.zero_grad()
    model.eval()
    state = model.initial_state(ROWS)  # type: ignore[operator]

    @torch.no_grad()
    def step() -> None:
        nonlocal state
        state = model(x[:1], state)[1]

    return Cost(update_s, sum(saved.values()), _seconds(step, device))


def _seconds(do: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that a call takes: the least of several, least disturbed by others."""
    seconds: list[float] = []
    end = time.perf_counter() + LIMIT_S
    while not seconds or (len(seconds) < CALLS and time.perf_counter() < end):
        begin = time.perf_counter()
        do()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def state_bytes(state: Any) -> int:
    """Return the size of all tensors in a state."""
    if isinstance(state, Tensor):
        return state.nbytes
    if dataclasses.is_dataclass(state):
        return state_bytes(vars(state))
    if isinstance(state, Mapping):
        return sum(map(state_bytes, state.values()))
    return sum(map(state_bytes, state)) if isinstance(state, list | tuple) else 0
