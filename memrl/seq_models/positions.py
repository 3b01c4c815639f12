"""Where inputs stand in a history: codes that are added to them, rotations of queries and keys.

T inputs, D width, K width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BASE = 10000.0  # of the frequencies BASE^(-2i / width)


def sine_table(rows: int, width: int) -> Tensor:
    """Return the fixed position code (rows, width): sine at even, cosine at odd columns.

    Vaswani et al. 2017, section 3.5, with frequencies 10000^(-2k / width).
    """
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(BASE) / width))
    angle = torch.arange(rows).unsqueeze(1) * frequency
    table = torch.empty(rows, width)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : width // 2]
    return table


def rotate(x: Tensor, position: Tensor) -> Tensor:
    """Turn queries or keys by their positions, so that their products depend on distances alone.

    Rotary position embedding (Su et al. 2021, section 3.2.2). Columns i and i + K/2 are a pair; the
    paper pairs neighbours, which is the same but for the order of the columns.

    Args:
        x: (..., T, K) with K even.
        position: of the T inputs, (T,) integers.
    """
    K = x.shape[-1]
    # In float64: at position 20,000 an angle in float32 is wrong by more than 0.001.
    exponent = torch.arange(0, K, 2, device=x.device, dtype=torch.float64) * (-math.log(BASE) / K)
    angle = position.double().unsqueeze(1) * exponent.exp()  # (T, K/2)
    cos, sin = angle.cos().float(), angle.sin().float()
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
