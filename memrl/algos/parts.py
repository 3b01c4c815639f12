"""A batch in parts: gradients of windows add up, so only one part's activations are held at a time.

``sacd_separate`` is the exception: its policy learns last, and holds all of its own until then.
"""

from __future__ import annotations

import torch

from memrl.interfaces import Episodes

CPU_INPUTS = 8192  # of one part, T x B: more only leaves the caches
CPU_WINDOWS = 16  # of one part, at least: fewer rows starve recurrent matrix products


def parts(batch: Episodes) -> list[Episodes]:
    """Split a batch of windows (T, B, ...) along B; the last part may be smaller.

    On a GPU it stays whole. A loss is then a part's sum, divided by what the whole batch has.
    """
    T, B = batch.mask.shape
    size = max(CPU_WINDOWS, CPU_INPUTS // T)
    if size >= B or batch.mask.device.type != "cpu":
        return [batch]
    columns = [torch.split(column, size, dim=1) for column in batch]
    return [Episodes(*part) for part in zip(*columns, strict=True)]
