"""Counts what happens to the frames of one camera: each is published, or dropped for a reason."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from rain_removal_ros.camera import Outcome, Result

NEWER = "newer one came"
"""Why a frame is dropped that waits while another one comes."""


@dataclass
class StatisticsSummary:
    """A camera's statistics at one moment."""

    received: int
    lost: int
    """How many sent images did not arrive complete, as far as the middleware noticed."""
    losing: int
    """How many of them since the last summary."""
    published: int
    passed: Counter[str]
    """How many of the published frames passed through unchanged, by reason."""
    dropped: Counter[str]
    faults: Counter[str]
    failing: int
    """How many faults there were since the last summary."""
    resets: Counter[str]
    last_reset: str
    last_fault: str
    rate_in: float
    rate_out: float
    latency_ms: tuple[float, float] | None
    """Stamp to publication, median and 95th percentile, of the last frames."""
    processing_ms: tuple[float, float] | None
    """Arrival to publication, likewise."""
    rain_level: float | None
    size: tuple[int, int] | None
    """Height and width of the last frame."""


@dataclass
class Statistics:
    """The counts; several threads write them, and one reads them."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _received: int = 0
    _missing: int = 0
    _lost: int = 0
    _published: int = 0
    _passed: Counter[str] = field(default_factory=Counter)
    _dropped: Counter[str] = field(default_factory=Counter)
    _faults: Counter[str] = field(default_factory=Counter)
    _resets: Counter[str] = field(default_factory=Counter)
    _last_reset: str = ""
    _last_fault: str = ""
    _latency: deque[float] = field(default_factory=lambda: deque(maxlen=256))
    _processing: deque[float] = field(default_factory=lambda: deque(maxlen=256))
    _rain_level: float | None = None
    size: tuple[int, int] | None = None
    """Height and width of the last frame."""
    _reported: tuple[float, int, int, int, int] = field(
        default_factory=lambda: (time.monotonic(), 0, 0, 0, 0)
    )

    def received(self, missing: int = 0) -> None:
        """Count a frame, and those that were sent before it and never came."""
        with self._lock:
            self._received += 1
            self._missing += missing

    def lost(self, count: int) -> None:
        """Count sent messages that did not arrive."""
        with self._lock:
            self._lost += count

    def count(self, result: Result, *, latency_s: float | None, processing_s: float) -> None:
        """Note what became of a frame. There is no latency before simulated time begins."""
        with self._lock:
            if result.fault is not None:
                self._faults[result.fault.kind] += 1
                self._last_fault = result.fault.text
            if result.frame is not None:
                self.size = result.frame.height, result.frame.width
            if result.rain_level is not None:
                self._rain_level = result.rain_level
            if result.step is not None and result.step.reset:
                self._resets[result.step.reset] += 1
                self._last_reset = result.step.reset
            if result.outcome is Outcome.DROPPED:
                self._dropped[result.reason] += 1
                return
            self._published += 1
            if result.outcome is Outcome.PASSED:
                self._passed[result.reason] += 1
            if latency_s is not None:
                self._latency.append(1e3 * latency_s)
            self._processing.append(1e3 * processing_s)

    def dropped(self, reason: str, count: int = 1) -> None:
        with self._lock:
            self._dropped[reason] += count

    def fault(self, kind: str, reason: str) -> None:
        with self._lock:
            self._faults[kind] += 1
            self._last_fault = reason

    def summary(self) -> StatisticsSummary:
        """The counts so far, and the rates since the last call."""
        with self._lock:
            now = time.monotonic()
            then, received, published, lost, faults = self._reported
            passed_s = max(now - then, 1e-3)
            # The middleware reports its losses, but not what it replaced by a newer one.
            replaced = max(0, self._missing - self._lost)
            total = self._received + replaced
            failed = self._faults.total()
            self._reported = (now, total, self._published, self._lost, failed)
            return StatisticsSummary(
                received=total,
                lost=self._lost,
                losing=self._lost - lost,
                published=self._published,
                passed=Counter(self._passed),
                dropped=self._dropped + Counter({NEWER: replaced}),
                faults=Counter(self._faults),
                failing=failed - faults,
                resets=Counter(self._resets),
                last_reset=self._last_reset,
                last_fault=self._last_fault,
                rate_in=(total - received) / passed_s,
                rate_out=(self._published - published) / passed_s,
                latency_ms=_middle_and_tail(self._latency),
                processing_ms=_middle_and_tail(self._processing),
                rain_level=self._rain_level,
                size=self.size,
            )


def _middle_and_tail(values: deque[float]) -> tuple[float, float] | None:
    if not values:
        return None
    middle, tail = np.percentile(np.array(values), (50, 95))
    return float(middle), float(tail)
