"""Figures that need a process of their own: peak memory, and times that nothing else disturbs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

STRICT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Environment in which glibc hands back memory at once."""


def in_a_process(
    function: Callable[..., Iterable[float]],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
) -> list[float]:
    """Return the numbers that a function of a module returns in a Python process that does only
    this.

    Parameters
    ----------
    function : callable
        At the top level of its module; what it prints before is ignored.
    *arguments
        Numbers and strings.
    environment : mapping, optional
        Variables beside this process's own.
    """
    name = function.__name__
    code = f"from {function.__module__} import {name}; print(); print(*{name}(*{arguments!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **(environment or {})},
    )
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def peak_of(work: Callable[[int], None], batch: int) -> tuple[float, float]:
    """Do the work for two samples, then for the batch; return MB, 10^6 bytes, resident between the
    two, and at the peak from there on.
    """
    work(2)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = 1.024e-3 * status("VmRSS")
    work(batch)
    return before, 1.024e-3 * status("VmHWM")


def status(key: str) -> float:
    """Return an entry of /proc/self/status in kB, 1024 bytes, or NaN where there is none; getrusage
    would count the process that started this one.
    """
    found = re.findall(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return float(found[0]) if found else float("nan")
