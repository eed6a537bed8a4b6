"""Memory that was freed is used again without the system's clearing it."""

import os
import subprocess
import sys

import pytest

# the first large block of a process: by default glibc maps it, and unmaps it when it is freed
FIRST = """
import ctypes, re, sys
from pathlib import Path
from studies.frame.allocator import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
place = malloc(24 * 2**20)
heap = re.search(r"(\\w+)-(\\w+) .*\\[heap\\]", Path("/proc/self/maps").read_text())
print(kept, int(heap[1], 16) <= place < int(heap[2], 16))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


@pytest.mark.parametrize(
    ("how", "environment", "expected"),
    [
        ("default", {}, "False False"),
        ("keep", {}, "True True"),
        ("keep", {"MALLOC_TRIM_THRESHOLD_": "1000000"}, "False False"),
    ],
)
def test_large_blocks_stay_in_the_heap_unless_the_user_set_the_allocator(
    how, environment, expected
):
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", FIRST, how],
        capture_output=True, text=True, check=True, env=own | environment,
    )  # fmt: skip
    assert found.stdout.strip() == expected
