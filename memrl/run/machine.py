"""What a process asks of its machine: a device, threads, number formats, and its memory to keep."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys

import torch

# Of glibc's malloc.h. By default each large tensor is given back to the system when it is freed,
# and its pages are cleared and mapped anew at the next one, thousands of times an update.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


KEPT_BYTES = (2**30, 2**25)  # the largest block that is kept: what is liked, what older ones allow


def prepare(threads: int, precision: str, device: str, update: str) -> torch.device:
    """Set the machine up for one run, and return where it computes.

    Args:
        threads: CPU threads of the tensor library.
        precision: "auto", "float32", "tf32" or "bf16"; see ``window_format``.
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
        others = "float32, bf16 and auto are allowed"
        raise ValueError(f"precision=tf32: only a CUDA device has it; {others}")
    if update == "graphed" and not cuda:
        raise ValueError(
            "update=graphed: only a CUDA device has it; eager and compiled are allowed"
        )
    if update == "compiled" and not cuda and shutil.which(compiler()) is None:
        raise ValueError(
            f"update=compiled: no C++ compiler {compiler()} (CXX names another); eager is allowed"
        )
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # recurrent layers and convolutions
    if not cuda:
        keep_freed_memory()
    return torch.device("cuda" if cuda else "cpu")


def window_format(precision: str, device: torch.device) -> torch.dtype:
    """Return the number format of windows in updates; "auto" is bfloat16 where that is fast.

    That is on GPUs that have it, and on CPUs with matrix instructions for it (AMX). On any other
    CPU it is several times slower than float32.
    """
    if precision == "auto":
        fast = has_amx() if device.type == "cpu" else torch.cuda.is_bf16_supported()
        precision = "bf16" if fast else "float32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def has_amx() -> bool:
    """True if the system says that its processor has bfloat16 matrix instructions."""
    return "amx_bf16" in cpuinfo("flags").split()


def cpuinfo(field: str, path: str = "/proc/cpuinfo") -> str:
    """Return what Linux says of the first processor; empty where it says nothing."""
    with contextlib.suppress(OSError), open(path) as file:
        lines = (line.partition(":") for line in file)
        return next((value.strip() for name, _, value in lines if name.strip() == field), "")
    return ""


def compiler() -> str:
    """Return the command that torch.compile calls for a CPU."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def keep_freed_memory() -> None:
    """Have the C library reuse freed memory instead of returning it, where it can be told to."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's alone
    # The second only with the first: alone it would have every large tensor mapped anew.
    if mallopt is not None and any(mallopt(M_MMAP_THRESHOLD, kept) for kept in KEPT_BYTES):
        mallopt(M_TRIM_THRESHOLD, -1)  # never
