"""The interface of all engines: inputs, outputs, and the description of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.frames import Image
from rain_removal_ros.networks._cautions import Cautions


@dataclass(frozen=True, slots=True)
class Derained:
    """What an engine made of one frame."""

    image: Image
    """sH x sW x 3 RGB."""
    attention: NDArray[np.uint8] | None
    """H x W, 255 where the network saw rain; None if it was not requested."""
    rain_level: float | None
    """In [0, 1], from networks that estimate it."""
    state: Any
    """To pass in with the next frame; None is a fresh start."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs, on what and how; constant for the life of an engine."""

    network: str
    engine: str
    device: str
    precision: str
    scale: int = 1
    stride: int = 1
    """Frames are padded to multiples of it."""
    recurrent: bool = False
    stages: int = 1
    """Passes over a frame, unless a step asks for another number."""
    any_stages: bool = False
    """Whether other numbers of stages cost nothing; if not, a graph must be built for each."""
    cautions: Cautions = Cautions()
    """What measurements found against the weights."""
    model: str = ""
    """The name or file that the user chose; empty if the network was not chosen by either."""

    @property
    def name(self) -> str:
        """What to call it, to users."""
        return self.model or self.network


class Engine(Protocol):
    """Runs a network, frame by frame."""

    @property
    def info(self) -> EngineInfo: ...

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Derained]:
        """Derain one frame each of several cameras, all of one size, in one batch.

        ``stages`` 0 is the network's own number. ``into`` has arrays for the derained images, which
        saves a copy. Raises ``EngineError`` if a result is not finite or the device fails; states
        are then unchanged.
        """
        ...


class LoadedEngine(Engine, Protocol):
    """A network, loaded and ready on a device."""

    info: EngineInfo
    note: str
    """What differs from the request, and why, in one line; empty if nothing does."""
    pixel_bytes: float
    """Measured memory per pixel of a frame; 0 if it was not measured."""
