"""Ends a run of ONNX Runtime that takes too long: foreign graphs may contain endless loops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["PATIENCE_S", "ending_after"]

PATIENCE_S = 60.0
"""For one picture. The largest detectors take a few seconds on a CPU."""


@contextmanager
def ending_after(seconds: float) -> Iterator[Any]:
    """Options for a run, which fails once so much time has passed."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # the error is raised; printed as well, it is read twice
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()
