"""The Python interface: load a network, then call it with one image after another.

``rain_removal_ros`` exports these names and keeps them stable. Importing the package does not
import this module; torch is loaded when ``load`` runs a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.frames import Frame
from rain_removal_ros.rain_level import RainGauge
from rain_removal_ros.settings import (
    EngineSettings,
    NetworkSettings,
    StreamSettings,
    build,
    group,
)
from rain_removal_ros.stream import Step, Stream

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine

__all__ = ["Derainer", "load"]

_ARGUMENTS = {"network.name": "model", "network.weights": "model", "engine.device": "device"}


@dataclass(frozen=True)
class _Settings:
    """The settings that ``load`` accepts; the others belong to the node."""

    network: NetworkSettings = group(NetworkSettings)
    engine: EngineSettings = group(EngineSettings)
    stream: StreamSettings = group(StreamSettings)


def load(
    model: str = "auto",
    *,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
) -> Derainer:
    """Load a network and return a ``Derainer`` for one camera.

    ``model`` is the name of a network that ships (``rain-removal networks`` lists them), a weight
    file, or ``"auto"`` for the default. ``device`` is ``"auto"``, ``"cpu"``, ``"cuda"`` or
    ``"cuda:N"``. ``settings`` takes the node's parameters of the groups ``network``, ``engine`` and
    ``stream`` by name: ``{"engine.precision": "float32", "stream.strength": 0.5}``.

    Raises a ``RainRemovalError`` with a one-line message if the weights, the device or a setting
    cannot be used.
    """
    from rain_removal_ros import engines

    given = dict(settings or {})
    for name, argument in _ARGUMENTS.items():
        if name in given:
            raise SettingsError(f"{name} is given to load() as its argument {argument}")
    tree = build(_Settings, given | {"network.weights": model, "engine.device": device})
    return Derainer(engines.load(tree.network, tree.engine), tree.stream)


class Derainer:
    """Removes rain from the images of one camera.

    Call it with each image in turn. Recurrent networks carry their state from call to call. They
    start afresh at a scene cut, when the size changes and, if stamps are given, after a gap or when
    time runs backwards. Use one ``Derainer`` per camera; ``fork`` makes another one without loading
    the network twice. Use it from one thread at a time.
    """

    def __init__(self, engine: Engine, stream: StreamSettings | None = None) -> None:
        self._stream = Stream(engine, stream)
        self._gauge = RainGauge()
        self._last: Step | None = None
        self._rain_level: float | None = None

    def __call__(self, image: NDArray[np.uint8], stamp_ns: int = 0) -> NDArray[np.uint8]:
        """Return the derained image as a new array.

        ``image`` is height x width x 3, uint8, RGB (an OpenCV image is BGR: pass
        ``image[..., ::-1]``). The result has the same size, or a multiple of it with networks that
        enlarge. ``stamp_ns`` is when the image was taken, in nanoseconds.
        """
        frame = Frame(np.ascontiguousarray(image), stamp_ns)
        self._last = None  # If this image fails, no attention of the last one must be left.
        step = self._stream.step(frame)
        level = step.rain_level
        self._rain_level = self._gauge.update(frame.image) if level is None else level
        self._last = step
        return step.frame.image

    @property
    def attention(self) -> NDArray[np.uint8] | None:
        """Where the network saw rain in the last image: height x width, 0 to 255.

        None before the first image.
        """
        return None if self._last is None else self._last.attention

    @property
    def rain_level(self) -> float | None:
        """How hard it rained in the last image, from 0 to 1; None before the first image.

        The network's estimate, or one made from the images if the network makes none.
        """
        return None if self._last is None else self._rain_level

    @property
    def restarted(self) -> str | None:
        """Why the state was discarded before the last image; None if it was carried over."""
        return None if self._last is None else self._last.reset

    def reset(self) -> None:
        """Discard the state: the next image is treated as the first one."""
        self._stream.reset("asked to")
        self._gauge.reset()
        self._last = None

    def fork(self) -> Derainer:
        """Return a derainer for another camera: the same network, with a state of its own."""
        return Derainer(self._stream.engine, self._stream.settings)

    def __repr__(self) -> str:
        info = self._stream.engine.info
        return f"<Derainer {info.name} on {info.device}, {info.precision}>"
