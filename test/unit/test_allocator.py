"""Freed memory is reused, in the main thread and in worker threads."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

# Prints how many page faults it takes to fill 96 MiB ten times, after three warm-up rounds.
COUNT_FAULTS = """
import resource, sys, threading
import numpy as np
from rain_removal_ros.runtime.allocator import keep_freed_memory

def fill():
    for _ in range(3):
        np.full(96 << 20, 1, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.full(96 << 20, 1, np.uint8)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[1] == "kept":
    keep_freed_memory()
if sys.argv[2] == "worker":
    worker = threading.Thread(target=fill)
    worker.start()
    worker.join()
else:
    fill()
"""
PAGES = 10 * (96 << 20) // 4096


def faults(repository: Path, allocator: str, thread: str) -> int:
    process = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, allocator, thread],
        capture_output=True,
        text=True,
        check=True,
        cwd=repository,
    )
    return int(process.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
@pytest.mark.parametrize("thread", ["main", "worker"])
def test_kept_memory_causes_few_page_faults(repository: Path, thread: str) -> None:
    # NumPy asks for huge pages where the kernel has them, so even the usual allocator may cause
    # few faults.
    usual = faults(repository, "usual", thread)
    assert usual > PAGES // 1024
    assert faults(repository, "kept", thread) < usual / 20
