"""Sets up the machine for a run: device, threads, number formats, memory allocation."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import sys
from collections.abc import Iterator

import psutil
import torch

from memrl.replay import free_memory

# From glibc's malloc.h. By default the memory of a large tensor returns to the system when it is
# freed, and its pages are mapped and cleared again for the next one, thousands of times an update.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_REUSED = (2**30, 2**25)  # bytes; older versions of glibc refuse the first


def prepare(threads: int, precision: str, device: str, update: str) -> torch.device:
    """Set up the machine for one run, and return the device it computes on.

    Args:
        threads: CPU threads of the tensor library.
        precision: "auto", "float32", "tf32" or "bf16"; see ``window_format``.
        device: "auto", "cpu" or "cuda".
        update: "eager", "compiled" or "graphed".

    Raises:
        ValueError: the machine lacks what a setting requires.
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


@contextlib.contextmanager
def settings_restored() -> Iterator[None]:
    """Restore torch's settings and random generators afterwards: they are the caller's."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    tf32 = torch.backends.cudnn.allow_tf32
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.allow_tf32 = tf32


@contextlib.contextmanager
def within_free_memory() -> Iterator[int]:
    """Let allocations fail once they exceed the free memory, where the kernel would kill.

    Yields the free memory in bytes; ``is_out_of_memory`` tells what a failed allocation raises.
    Nothing changes where the system has no such limit, nor where there is a GPU, whose driver maps
    more memory than there is.
    """
    free, limit = free_memory(), resource.RLIMIT_DATA
    if torch.cuda.is_available():
        yield free
        return
    soft, hard = resource.getrlimit(limit)
    used = getattr(psutil.Process().memory_info(), "data", None)  # only Linux reports it
    unlimited = (resource.RLIM_INFINITY, -1)
    ceilings = [used + free if used else soft, soft, hard]
    lowest = min((value for value in ceilings if value not in unlimited), default=soft)
    resource.setrlimit(limit, (lowest, hard))
    try:
        yield free
    finally:
        resource.setrlimit(limit, (soft, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, or its size was more than a machine can address.

    The error may also be the cause of this one, as of what an environment raised.
    """
    if error.__cause__ is not None and is_out_of_memory(error.__cause__):
        return True
    if isinstance(error, MemoryError | OverflowError | torch.OutOfMemoryError):
        return True
    words = (
        "can't allocate",
        "bad_alloc",
        "not enough memory",
        "size calculation overflowed",
        "overflow when unpacking",
    )
    raised_by_torch = isinstance(error, RuntimeError | TypeError)
    return raised_by_torch and any(word in str(error).lower() for word in words)


def window_format(precision: str, device: torch.device) -> torch.dtype:
    """Return the number format of windows in updates; "auto" is bfloat16 where that is fast.

    It is fast on GPUs that support it and on CPUs with instructions for it, AMX or AVX-512 BF16,
    and several times slower than float32 on other CPUs.
    """
    if precision == "auto":
        fast = has_bf16() if device.type == "cpu" else torch.cuda.is_bf16_supported()
        precision = "bf16" if fast else "float32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def has_bf16() -> bool:
    """True if the processor reports instructions for products of bfloat16 numbers."""
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(cpuinfo("flags").split())


def cpuinfo(field: str, path: str = "/proc/cpuinfo") -> str:
    """Return a field of the first processor as Linux reports it; empty if there is none."""
    with contextlib.suppress(OSError), open(path) as file:
        lines = (line.partition(":") for line in file)
        return next((value.strip() for name, _, value in lines if name.strip() == field), "")
    return ""


def compiler() -> str:
    """Return the C++ compiler that torch.compile calls on a CPU."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def keep_freed_memory() -> None:
    """Have the C library reuse freed memory instead of returning it, if it is glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    # The trim threshold only along with the other: alone, every large tensor would be mapped anew.
    if mallopt is not None and any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_REUSED):
        mallopt(M_TRIM_THRESHOLD, -1)  # never
