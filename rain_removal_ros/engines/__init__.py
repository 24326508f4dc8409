"""What runs a network: one small interface, several ways.

An engine takes RGB frames as they come out of the codec and gives clean ones back; padding, number
formats, devices and copies are its affair alone. State goes in and out as an opaque value that only
the engine that made it can read, so that it can stay on the device.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.errors import EngineError
from rain_removal_ros.frames import Image

if TYPE_CHECKING:
    from rain_removal_ros.networks._base import Network
    from rain_removal_ros.settings import EngineSettings, NetworkSettings

__all__ = ["NAMES", "Cleaned", "Engine", "create", "load"]

NAMES = ("torch", "onnxruntime", "openvino")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What an engine made of one frame."""

    image: Image
    """sH x sW x 3 RGB."""
    attention: NDArray[np.uint8] | None
    """H x W, 255 where the network saw rain; None when it was not asked for."""
    rain_level: float | None
    """In [0, 1], from networks that estimate it."""
    state: Any
    """For the next frame; None is a fresh start."""


class Engine(Protocol):
    """A network, loaded and ready on a device."""

    network_name: str
    name: str
    device: str
    precision: str
    scale: int
    recurrent: bool
    stages: int

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Cleaned]:
        """Clean one frame of each of several cameras, all of one size, in one batch.

        ``into`` gives arrays to write the clean images to, sparing a copy. Raises ``EngineError``
        when the result is not finite or the device fails; states are then as they were.
        """
        ...


def create(network: Network, settings: EngineSettings) -> Engine:
    """The engine that ``settings`` ask for, running ``network``.

    One that is asked for by name and cannot be had is an ``EngineError``; "auto" then takes torch.
    """
    from rain_removal_ros.engines import torch

    name = settings.name
    if name == "auto" and not torch.is_first_choice(network, settings):
        try:
            return create(network, dataclasses.replace(settings, name="onnxruntime"))
        except EngineError as error:
            _log.warning("running in torch: %s", error)
    if name in ("auto", "torch"):
        return torch.TorchEngine(network, settings)
    module = importlib.import_module(f"{__name__}.{name}")
    engine: Engine = module.create(network, settings)
    return engine


def load(network: NetworkSettings, engine: EngineSettings) -> Engine:
    """The network and weights that one group of settings asks for, run as the other asks."""
    from rain_removal_ros import checkpoints
    from rain_removal_ros.errors import CheckpointError

    path = checkpoints.resolve(network.weights or network.name)
    checkpoint = checkpoints.load(path)
    if network.name not in ("auto", checkpoint.name):
        raise CheckpointError(f"{path} holds weights of {checkpoint.name}, not of {network.name}")
    loaded = create(checkpoint.network, engine)
    if network.stages:
        loaded.stages = network.stages
    return loaded
