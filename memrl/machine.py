"""What a process asks of its machine: a device, threads, number formats, and its memory to keep."""

from __future__ import annotations

import ctypes

import torch

# Of glibc's malloc.h. By default each large tensor is given back to the system when it is freed,
# and its pages are cleared and mapped anew at the next one, thousands of times an update.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30  # the largest block that is kept


def prepare(threads: int, precision: str, device: str, update: str) -> torch.device:
    """Set the machine up for one run, and return where it computes.

    Args:
        threads: CPU threads of the tensor library.
        precision: "float32", "tf32" or "bf16", of matrix products; what bf16 covers is decided
            where it is used, in ``memory.Memory``.
        device: "auto", "cpu" or "cuda".
        update: "eager", "compiled" or "graphed".

    Raises:
        ValueError: what is asked for is not there.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise ValueError("device=cuda: there is no CUDA device here; auto and cpu are allowed")
    cuda = cuda and device != "cpu"
    if precision == "tf32" and not cuda:
        raise ValueError("precision=tf32: only a CUDA device has it; float32 and bf16 are allowed")
    if update == "graphed" and not cuda:
        raise ValueError(
            "update=graphed: only a CUDA device has it; eager and compiled are allowed"
        )
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if not cuda:
        keep_freed_memory()
    return torch.device("cuda" if cuda else "cpu")


def keep_freed_memory() -> None:
    """Have the C library reuse freed memory instead of returning it, where it can be told to."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's alone
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
