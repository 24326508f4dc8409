"""Loads networks beside the running one, with retries.

The current network stays in use until the new one is loaded and has run once, on a frame of the
size that the cameras send: the first run is the slowest, and the one that fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rain_removal_ros.degradation import Backoff
from rain_removal_ros.engines import builds_stages
from rain_removal_ros.settings import Settings

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine, LoadedEngine

USUAL_SIZE = (480, 640)
"""Height and width for the first run if no camera has sent a frame yet."""


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
    cancelled: threading.Event = field(default_factory=threading.Event)


class Loader:
    """Only the newest request counts. A load that hangs is abandoned with its thread."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.job: LoadRequest | None = None
        self._telling = threading.Lock()
        self._threads: list[threading.Thread] = []

    def request(self, settings: Settings, *, delay_s: float = 0.0) -> None:
        """Load what these settings select; any other request is dropped."""
        self.cancel()
        self.job = LoadRequest(settings)
        thread = threading.Thread(
            target=self._run, args=(self.job, delay_s), name="load", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def finished(self) -> None:
        """Note that the loaded network has been taken over."""
        self.job = None

    @property
    def running(self) -> bool:
        """Whether any thread is still loading, wanted or not."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        return bool(self._threads)

    def cancel(self) -> None:
        """Drop the current request: its result is ignored, and its thread ends when it can."""
        if self.job is not None:
            with self._telling:
                self.job.cancelled.set()
            self.job = None

    def _run(self, job: LoadRequest, delay_s: float) -> None:
        backoff = Backoff()
        while not job.cancelled.wait(delay_s):
            try:
                engine = self._loaded(job.settings)
            except Exception as error:  # noqa: BLE001 - a broken file, device or library
                delay_s = backoff.wait(job.settings.safety.retry_s)
                self._tell(job, self._listener.failed, job, error, delay_s)
            else:
                self._tell(job, self._listener.loaded, job, engine)
                return

    def _tell(self, job: LoadRequest, listener: Callable[..., None], *what: Any) -> None:
        with self._telling:
            if not job.cancelled.is_set():
                listener(*what)

    def _loaded(self, settings: Settings) -> LoadedEngine:
        """The network, after its first run."""
        from rain_removal_ros import engines

        network = settings.network
        if not builds_stages(settings.engine.name):
            # With its own number of stages; the one that is set is applied frame by frame.
            network = replace(network, stages=0)
        return engines.load_somehow(network, settings.engine, self._run_once)

    def _run_once(self, engine: Engine) -> None:
        for height, width in self._listener.sizes() or [USUAL_SIZE]:
            engine.step([np.zeros((height, width, 3), np.uint8)], [None])
