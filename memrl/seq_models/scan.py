"""Linear recurrences over time: of vectors with a decay for each entry, and of key-value matrices.

Both take time linear in T and give the same results in pieces, but for rounding. T inputs, B batch,
D width, H heads, K and V widths of a head's keys and values, C inputs of a chunk, N chunks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 32  # inputs of a chunk, at most: longer ones are more work, shorter ones more steps


def scan(decay: Tensor, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return h_t = decay_t * h_(t-1) + x_t for all t, and the last of them.

    Args:
        decay: (T, B, D) or what broadcasts to it, such as (D,); at most 1 in absolute value.
        x: (T, B, D), real or complex.
        state: h before the first input, (B, D); None for zeros.
    """
    decay = decay.expand_as(x)
    if state is not None:
        first = torch.addcmul(x[:1], decay[:1], state)
        x = first if len(x) == 1 else torch.cat([first, x[1:]])
    h: Tensor = x if len(x) == 1 else _Scan.apply(decay, x)  # type: ignore[no-untyped-call]
    return h, h[-1].clone()  # a view would keep all of h


class _Scan(torch.autograd.Function):
    """The recurrence from zeros, differentiated by the same recurrence backwards in time."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, x: Tensor) -> Tensor:
        h = _recur(decay, x)
        ctx.save_for_backward(decay, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        decay, h = ctx.saved_tensors
        later = F.pad(decay[1:], (0, 0, 0, 0, 0, 1)).conj()  # the gradient of h_t passes through it
        grad_x = _recur(later.flip(0), grads[0].flip(0)).flip(0)
        grad_decay = torch.zeros_like(h)
        torch.mul(grad_x[1:], h[:-1].conj(), out=grad_decay[1:])
        return grad_decay, grad_x


def _recur(decay: Tensor, x: Tensor) -> Tensor:
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return _recur_by_doubling(decay, x)
    h = x.clone(memory_format=torch.contiguous_format)
    rows, decays = h.unbind(), decay.unbind()
    for t in range(1, len(rows)):
        rows[t].addcmul_(decays[t], rows[t - 1])
    return h


def _recur_by_doubling(decay: Tensor, x: Tensor) -> Tensor:
    """Few large operations, where each has a launch: log2(T) rounds (Hillis & Steele 1986)."""
    shift = 1
    while shift < len(x):
        x = torch.cat([x[:shift], torch.addcmul(x[shift:], decay[shift:], x[:-shift])])
        decay = torch.cat([decay[:shift], decay[shift:] * decay[:-shift]])
        shift *= 2
    return x


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Write values under keys into a decaying matrix for each head, and read it with queries.

    S_t = a_t S_(t-1) + k_t u_t and y_t = q_t S_t, where a = exp(log_decay). Without ``beta``,
    u_t = v_t (SSD, Dao & Gu 2024). With it, the delta rule: what was stored under the key
    is replaced, u_t = beta_t (v_t - k_t a_t S_(t-1)) (Yang et al. 2025, equation 10).

    Args:
        q: queries (T, B, H, K); with one head for all, H is 1 here.
        k: keys, shaped as the queries.
        v: values (T, B, H, V).
        log_decay: (T, B, H), at most 0.
        state: S before the first input, (B, H, K, V); None for zeros.
        beta: (T, B, H); with keys of length 1 at most 2.

    Returns:
        y (T, B, H, V), and the last S.
    """
    T, B, H, V = v.shape
    if state is None:
        state = v.new_zeros(B, H, k.shape[-1], V)
    if T == 1:
        return _step(q[0], k[0], v[0], log_decay[0], state, None if beta is None else beta[0])
    size = math.ceil(T / math.ceil(T / CHUNK))  # little padding: chunks of 26 for 51 inputs
    q, k, v = (_chunks(x, size) for x in (q, k, v))  # (N, B, H, C, K or V)
    # In float64: after strong forgetting, differences of sums would lose their digits.
    total = _chunks(log_decay.unsqueeze(-1), size).double().cumsum(-2)  # (N, B, H, C, 1)
    future = torch.ones(size, size, dtype=torch.bool, device=v.device).triu(1)
    between = (total - total.mT).to(v.dtype).masked_fill(future, -math.inf).exp()  # (.., C, C)
    read = (q @ k.mT) * between  # what each input reads of those before it in its chunk
    since_start, to_end = (x.to(v.dtype).exp() for x in (total, total[..., -1:, :] - total))
    erased: Sequence[Tensor | None] = [None] * len(v)
    if beta is not None:  # all that a chunk writes, as one triangular system
        beta = _chunks(beta.unsqueeze(-1), size)
        written = torch.cat([v, k.expand(*v.shape[:3], *k.shape[3:]) * since_start], -1) * beta
        system = beta * (k @ k.mT) * between  # of which the part below the diagonal is read
        solved = torch.linalg.solve_triangular(system, written, upper=False, unitriangular=True)
        v, erases = solved.split([V, k.shape[-1]], -1)
        erased = erases.unbind()
    y = []
    # Not by index: the gradient of each would be as large as the whole.
    chunks = (
        x.unbind() for x in (read, q * since_start, (k * to_end).mT, v, since_start[..., -1:, :])
    )
    for read_n, q_n, k_n, u, fade, erase in zip(*chunks, erased, strict=True):
        if erase is not None:
            u = u - erase @ state
        y.append(read_n @ u + q_n @ state)
        state = fade * state + k_n @ u
    return torch.stack(y).permute(0, 3, 1, 2, 4).flatten(0, 1)[:T], state


def _step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, beta: Tensor | None
) -> tuple[Tensor, Tensor]:
    state = state * log_decay.exp()[..., None, None]
    u = v.unsqueeze(-2)  # (B, H, 1, V)
    if beta is not None:
        u = beta[..., None, None] * (u - k.unsqueeze(-2) @ state)
    state = torch.addcmul(state, k.unsqueeze(-1), u)
    return (q.unsqueeze(-2) @ state).squeeze(-2).unsqueeze(0), state


def _chunks(x: Tensor, size: int) -> Tensor:
    """Map (T, B, H, K) to (N, B, H, C, K); zeros after the end, which change no state."""
    x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, -len(x) % size))
    return x.view(-1, size, *x.shape[1:]).permute(0, 2, 3, 1, 4)
