"""glibc's allocator, told to keep what is freed for the next tensor.

PyTorch takes tensors on the CPU from it. By default it hands the memory of large ones back to the
system, which clears it page by page at the next use: a sixth of a forward pass of 100 digits in a
new process, less once glibc has adapted its own thresholds.
"""

from __future__ import annotations

import ctypes
import os

SETTINGS = (
    (-3, 2**25),  # M_MMAP_THRESHOLD: tensors below 32 MB, the most that glibc allows, are reused
    (-1, 2**30),  # M_TRIM_THRESHOLD: 1 GB of what is free stays
    (-2, 2**26),  # M_TOP_PAD: the heap grows by 64 MB at once
)
"""Parameters of mallopt(3) and their values."""


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees; return whether that could be done.

    Nothing is changed where variables of the environment set glibc's allocator, or where there is
    another one.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and all(mallopt(*each) for each in SETTINGS)
