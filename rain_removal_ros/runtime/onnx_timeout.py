"""Ends a run of ONNX Runtime that takes too long: foreign graphs may contain endless loops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["RUN_TIMEOUT_S", "ending_after"]

RUN_TIMEOUT_S = 60.0
"""The limit for one picture. The largest detectors take a few seconds on a CPU."""


@contextmanager
def ending_after(seconds: float) -> Iterator[Any]:
    """Options with which a run fails after this time."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # errors are raised; printing them too would show them twice
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()
