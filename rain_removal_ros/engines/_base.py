"""What every engine is: what it takes, what it gives back, and what it says of itself."""

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
    """H x W, 255 where the network saw rain; None when it was not asked for."""
    rain_level: float | None
    """In [0, 1], from networks that estimate it."""
    state: Any
    """For the next frame; None is a fresh start."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs, on what and how; it does not change while an engine lives."""

    network: str
    engine: str
    device: str
    precision: str
    scale: int = 1
    stride: int = 1
    """Frames are padded to multiples of it."""
    recurrent: bool = False
    stages: int = 1
    """Passes over a frame unless a step asks for others."""
    any_stages: bool = False
    """Whether other numbers of stages cost nothing; else each is a graph to be built."""
    cautions: Cautions = Cautions()
    """What measurements found against the weights."""


class Engine(Protocol):
    """What runs a network, frame by frame."""

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
        """Derain one frame of each of several cameras, all of one size, in one batch.

        ``stages`` of 0 are the network's own. ``into`` gives arrays to write the derained images
        to, sparing a copy. Raises ``EngineError`` when the result is not finite or the device
        fails; states are then as they were.
        """
        ...


class LoadedEngine(Engine, Protocol):
    """A network, loaded and ready on a device."""

    note: str
    """What is not as it was asked for, and why, in a line; empty where all is."""
    pixel_bytes: float
    """Memory that each pixel of a frame takes, as measured; 0 where that was not measured."""
