"""Loads networks beside the running one, with retries.

The current network stays in use until the new one is loaded and has run once, on a frame of the
size that the cameras send: the first run is the slowest, and the one that fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rain_removal_ros.degradation import Backoff
from rain_removal_ros.engines import builds_stages
from rain_removal_ros.runtime.allocator import give_back_freed_memory
from rain_removal_ros.runtime.memory import resident_bytes
from rain_removal_ros.settings import Settings

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine, LoadedEngine

USUAL_SIZE = (480, 640)
"""Height and width for the first run if no camera has sent a frame yet."""
_PATIENCE_S = 10.0
"""How long a request waits for the work on an older one to end before that is abandoned."""
_MOST_LEFT = 3
"""With this many abandoned threads, requests wait as long as it takes."""

_MOMENT_S = 0.1
"""The time in which an idle thread ends."""


class Listener(Protocol):
    """Gets the results of loading; called in the loader's thread."""

    def loaded(self, job: LoadRequest, engine: LoadedEngine) -> None: ...

    def failed(self, job: LoadRequest, error: Exception, retry_in_s: float) -> None: ...

    def sizes(self) -> Sequence[tuple[int, int]]:
        """Heights and widths of the cameras' frames, as far as known."""
        ...


@dataclass(eq=False)
class LoadRequest:
    """One network to load."""

    settings: Settings
    due: float
    """When to start, monotonic, in seconds."""
    answered: bool = False
    """Whether it was loaded."""
    backoff: Backoff = field(default_factory=Backoff)


class Cancelled(BaseException):  # not an error, and must not lead to a fallback
    """The network that is being loaded is no longer wanted."""


class Loader:
    """One thread loads, and only the newest request counts.

    Work on an older one ends at the next possible step. If it hangs, it is abandoned with its
    thread, and another thread takes over.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.job: LoadRequest | None = None
        """The newest request, until its network has been taken over."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._left: list[threading.Thread] = []
        self._waiting_since: float | None = None
        """Since when a request has been waiting for the work on an older one."""
        self._in_work: LoadRequest | None = None

    def request(self, settings: Settings, *, delay_s: float = 0.0) -> None:
        """Load what these settings select; any other request is dropped."""
        with self._changed:
            now = time.monotonic()
            self.job = LoadRequest(settings, now + delay_s)
            if self._in_work is not None and self._waiting_since is None:
                self._waiting_since = now
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def finished(self) -> None:
        """Note that the loaded network has been taken over."""
        self.job = None

    def cancel(self) -> None:
        """Drop the current request: its result is ignored, and its thread ends when it can."""
        with self._changed:
            self.job = None
            self._waiting_since = None
            self._changed.notify_all()

    @property
    def running(self) -> bool:
        """Whether any thread is still loading, wanted or not."""
        with self._changed:
            threads = [*self._left, *filter(None, [self._thread])]
        for thread in threads:
            thread.join(_MOMENT_S)
        return any(thread.is_alive() for thread in threads)

    def watch_over(self) -> None:
        """Abandon work that a newer request has waited for too long; to be called regularly."""
        with self._changed:
            since = self._waiting_since
            if self.job is None or since is None or time.monotonic() - since < _PATIENCE_S:
                return
            self._left = [thread for thread in self._left if thread.is_alive()]
            if self._thread is not None and len(self._left) < _MOST_LEFT:
                self._left.append(self._thread)
                self._start()

    # --- In the loader's thread ------------------------------------------------------------------

    def _start(self) -> None:
        self._in_work = self._waiting_since = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                engine = self._loaded(job)
            except Cancelled:
                continue
            except Exception as error:  # noqa: BLE001 - a broken file, device or library
                delay_s = job.backoff.wait(job.settings.safety.retry_s)
                job.due = time.monotonic() + delay_s
                self._tell(job, self._listener.failed, job, error, delay_s)
            else:
                job.answered = True
                self._tell(job, self._listener.loaded, job, engine)
                del engine

    def _next(self) -> LoadRequest | None:
        """The request to work on, once it is due; None if there is nothing left to do."""
        with self._changed:
            if not self._is_mine():
                return None
            self._in_work = self._waiting_since = None
            while (job := self.job) is not None and not job.answered:
                wait_s = job.due - time.monotonic()
                if wait_s <= 0:
                    self._in_work = job
                    return job
                self._changed.wait(wait_s)
            self._thread = None
            return None

    def _is_mine(self) -> bool:
        """Whether this thread has not been abandoned."""
        return self._thread is threading.current_thread()

    def _is_wanted(self, job: LoadRequest) -> bool:
        return self.job is job and self._is_mine()

    def _tell(self, job: LoadRequest, listener: Callable[..., None], *what: Any) -> None:
        with self._changed:
            if self._is_wanted(job):
                listener(*what)

    def _loaded(self, job: LoadRequest) -> LoadedEngine:
        """The network, after its first run."""
        from rain_removal_ros import engines

        network, settings = job.settings.network, job.settings
        if not builds_stages(settings.engine.name):
            # With its own number of stages; the one that is set is applied frame by frame.
            network = replace(network, stages=0)
        self._check(job)
        engine = engines.load_somehow(
            network, settings.engine, lambda engine: self._run_once(job, engine)
        )
        if settings.safety.memory_mb:
            engine.pixel_bytes = _pixel_bytes(engine, *max(self._sizes()))
        return engine

    def _check(self, job: LoadRequest) -> None:
        if not self._is_wanted(job):
            raise Cancelled

    def _run_once(self, job: LoadRequest, engine: Engine) -> None:
        for height, width in self._sizes():
            self._check(job)
            _step(engine, height, width)

    def _sizes(self) -> Sequence[tuple[int, int]]:
        return self._listener.sizes() or [USUAL_SIZE]


def _step(engine: Engine, height: int, width: int) -> None:
    engine.step([np.zeros((height, width, 3), np.uint8)], [None])


def _pixel_bytes(engine: Engine, height: int, width: int) -> float:
    """Memory per pixel, measured from half the frame to the whole, as freed memory stays resident.

    Half the frame has run before, so that one-time allocations of libraries are not counted.
    """
    _step(engine, height // 2 + 1, width)
    give_back_freed_memory()
    _step(engine, height // 2 + 1, width)
    before = resident_bytes()
    _step(engine, height, width)
    more = height * width - (height // 2 + 1) * width
    return max(0, resident_bytes() - before) / more
