"""Decisions about quality: when to derain, how much to ask of the network, when to try again.

Each is a few numbers and one rule. The caller provides the time, and nothing here knows ROS.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from rain_removal_ros.settings import BypassSettings


@dataclass
class Bypass:
    """Whether it rains, with hysteresis: quick to start deraining, slow to stop."""

    raining: bool = False
    _low_since: float | None = None

    def update(self, rain_level: float, now: float, settings: BypassSettings) -> bool:
        """Note a rain level, and return whether to derain."""
        if rain_level > settings.on_above:
            self.raining = True
        if not self.raining or rain_level >= settings.off_below:
            self._low_since = None
        elif self._low_since is None:
            self._low_since = now
        elif now - self._low_since >= settings.hold_s:
            self.raining, self._low_since = False, None
        return self.raining


@dataclass
class Backoff:
    """Waits that double up to a limit while something fails."""

    longest: float = 30.0
    _next: float = 0.0

    def wait(self, first: float) -> float:
        """The wait after one more failure; ``first`` is the first wait."""
        delay = min(max(self._next, first), self.longest)
        self._next = 2 * delay
        return delay

    def reset(self) -> None:
        self._next = 0.0


@dataclass(frozen=True)
class Rung:
    """How much is asked of the network."""

    name: str
    stages: int | None = None
    """Passes over a frame; None for all of them."""
    shrink: int = 1
    """The frame's sides are divided by this before the network sees it."""
    derain: bool = True


FULL = Rung("full")
DOWNSCALING = (2, 4)


def ladder(stages: int) -> list[Rung]:
    """The rungs from full quality down to none, for a network with this many stages."""
    rungs = [FULL]
    while stages > 1:
        stages = (stages + 1) // 2
        rungs.append(Rung(f"{stages} stages" if stages > 1 else "1 stage", stages))
    last = None if len(rungs) == 1 else 1
    for name, shrink in zip(("half size", "quarter size"), DOWNSCALING, strict=True):
        rungs.append(Rung(name, last, shrink=shrink))
    return [*rungs, Rung("passthrough", derain=False)]


@dataclass
class Budget:
    """Goes down the ladder while frames take too long, and up again later.

    If a step up has to be taken back, the next one waits twice as long, so that quality does not
    flicker.
    """

    rungs: list[Rung]
    usual_s: float = 0.0
    """What frames take at present: the median of the last ones, which decides."""
    _at: int = 0
    calm_s: float = 3.0
    """How long frames must be in time before a step up."""
    longest_s: float = 60.0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    _calm_since: float | None = None
    _climbed_at: float | None = None
    _wait_s: float = 0.0

    @property
    def rung(self) -> Rung:
        return self.rungs[self._at]

    def update(self, seconds: float, now: float, budget_s: float) -> Rung:
        """Note how long a frame took, and return the rung for the next one."""
        if budget_s <= 0:
            self._at = 0
            self._recent.clear()
            return self.rung
        self._recent.append(seconds)
        self.usual_s = median(self._recent)
        if len(self._recent) == self._recent.maxlen and self.usual_s > budget_s:
            self._down(now)
        elif self._at == 0 or self.usual_s > 0.7 * budget_s:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= self._wait_s:
            self._climbed_at = now
            self._move(-1)
        return self.rung

    def _down(self, now: float) -> None:
        soon = self._climbed_at is not None and now - self._climbed_at < self._wait_s
        self._wait_s = min(2 * self._wait_s, self.longest_s) if soon else self.calm_s
        if self._at < len(self.rungs) - 1:
            self._move(+1)

    def _move(self, rungs: int) -> None:
        self._at += rungs
        self._recent.clear()
        self._calm_since = None
