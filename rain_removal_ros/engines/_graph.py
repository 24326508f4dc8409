"""An ONNX graph as an engine: what all graph runtimes have in common.

A graph cannot take an absent state, so its description says what each state tensor is at a fresh
start: zeros, or the frame itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.engines._base import Derained, EngineInfo
from rain_removal_ros.engines._pixels import as_map, as_picture, as_planes
from rain_removal_ros.errors import DataError, EngineError
from rain_removal_ros.frames import Image
from rain_removal_ros.networks._cautions import Cautions
from rain_removal_ros.parsing import from_json
from rain_removal_ros.runtime.files import cache_folder, model_folders
from rain_removal_ros.settings import EngineSettings

FORMAT = 1
"""Version of the graph format; changing it invalidates cached graphs."""
METADATA_KEY = "rain_removal_ros"
"""The metadata key of a graph's description."""

Planes = NDArray[np.float32]

_OUTPUTS = ("clean", "attention")
_MOST = 10_000
"""The largest number of channels, and the largest stride in pixels."""


class GraphError(EngineError):
    """A graph cannot be loaded. (A missing device is an ``EngineError``.)"""


@dataclass(frozen=True)
class StateTensor:
    """One tensor of the state: B x channels x H / divisor x W / divisor."""

    input: str
    output: str
    channels: int
    divisor: int
    fresh: str
    """Its value at a fresh start: "zeros" or "frame"."""


@dataclass(frozen=True)
class GraphDescription:
    """Everything needed to run a graph."""

    network: str
    checksum: str
    """Of the weights, as in the weight file."""
    scale: int
    stride: int
    stages: int
    recurrent: bool
    outputs: tuple[str, ...]
    """The outputs that are not state: clean (the derained picture), attention and possibly
    rain_level."""
    state: tuple[StateTensor, ...]
    opset: int
    tolerance: float
    """The allowed difference of any value from torch, absolute below 1 and relative above."""
    difference: float
    """The difference at export."""
    cautions: Cautions = Cautions()
    """What measurements found against the weights."""

    @property
    def input_names(self) -> list[str]:
        return ["frame", *(part.input for part in self.state)]

    @property
    def output_names(self) -> list[str]:
        return [*self.outputs, *(part.output for part in self.state)]

    def state_shapes(self, frame: Planes) -> list[tuple[int, ...]]:
        """The shapes of the state for a frame."""
        batch, _, height, width = frame.shape
        return [
            (batch, part.channels, height // part.divisor, width // part.divisor)
            for part in self.state
        ]

    def fresh_state(self, frame: Planes) -> list[Planes]:
        return [
            frame if part.fresh == "frame" else np.zeros(shape, np.float32)
            for part, shape in zip(self.state, self.state_shapes(frame), strict=True)
        ]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> GraphDescription:
        """Raises ``ValueError`` for anything that ``to_json`` did not write."""
        try:
            fields = from_json(text)
            state = tuple(StateTensor(**part) for part in fields.pop("state"))
            cautions = Cautions(**fields.pop("cautions", {}))
            outputs = tuple(fields.pop("outputs"))
            found = cls(**fields, outputs=outputs, state=state, cautions=cautions)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a description of a graph: {error}") from error
        numbers = [found.scale, found.stride, found.stages]
        numbers += [number for part in state for number in (part.channels, part.divisor)]
        if not all(isinstance(number, int) and 1 <= number <= _MOST for number in numbers):
            raise ValueError(f"not a description of a graph: {numbers} are not all 1 to {_MOST}")
        if found.outputs not in (_OUTPUTS, (*_OUTPUTS, "rain_level")):
            raise ValueError(f"not a description of a graph: its outputs are {found.outputs}")
        return found


class LoadedGraph(Protocol):
    """A graph, loaded in a runtime."""

    description: GraphDescription
    device: str
    precision: str

    def run(self, frame: Planes, state: Sequence[Any]) -> tuple[list[Planes], Sequence[Any]]:
        """The outputs that are not state, and the state, which may stay on the device.

        ``state`` is from an earlier run, or arrays. Raises ``EngineError``.
        """
        ...


class GraphEngine:
    """See ``Engine``. Cameras are run one after another, so that states can stay where they are.

    ``load`` returns the graph for a number of stages; 0 is the network's own.
    """

    def __init__(self, name: str, load: Callable[[int], LoadedGraph]) -> None:
        self._load = load
        graph = load(0)
        facts = graph.description
        # Stages are unrolled in the graph, so each number of stages is another graph.
        self._loaded = {facts.stages: graph}
        self.info = EngineInfo(
            network=facts.network,
            engine=name,
            device=graph.device,
            precision=graph.precision,
            scale=facts.scale,
            stride=facts.stride,
            recurrent=facts.recurrent,
            stages=facts.stages,
            any_stages=False,
            cautions=facts.cautions,
        )
        self.note = ""
        self.pixel_bytes = 0.0

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Derained]:
        graph = self._graph_with(stages or self.info.stages)
        targets = into or [None] * len(images)
        return [
            _derained(graph, image, state, target, with_attention=attention)
            for image, state, target in zip(images, states, targets, strict=True)
        ]

    def _graph_with(self, stages: int) -> LoadedGraph:
        if stages not in self._loaded:
            self._loaded[stages] = self._load(stages)
        return self._loaded[stages]


def _derained(
    graph: LoadedGraph, image: Image, state: Any, target: Image | None, *, with_attention: bool
) -> Derained:
    height, width = image.shape[:2]
    facts = graph.description
    frame = as_planes(image, stride=facts.stride)
    if state is None:
        state = facts.fresh_state(frame)
    # After a frame of another size, OpenVINO may fail at healthy frames too.
    elif [_shape(part) for part in state] != facts.state_shapes(frame):
        raise EngineError(f"{facts.network} failed: the state is of another size or network")
    values, carried = graph.run(frame, state)
    derained, attention, *level = values
    if not np.isfinite(derained.sum()):
        raise EngineError(f"{facts.network} gave values that are not finite")
    return Derained(
        as_picture(derained[0, :, : height * facts.scale, : width * facts.scale], target),
        as_map(attention[0, 0, :height, :width]) if with_attention else None,
        float(level[0][0]) if level else None,
        carried or None,
    )


def _shape(part: Any) -> tuple[int, ...]:
    """The shape of an array, or of a tensor that ONNX Runtime keeps on its device."""
    return tuple(part.shape() if callable(part.shape) else part.shape)


def graph_folder(settings: EngineSettings) -> Path:
    """The folder with this user's graphs, which no other user can enter."""
    try:
        shared = Path(settings.cache).expanduser() if settings.cache else cache_folder("engines")
    except (RuntimeError, DataError) as error:
        raise EngineError("there is no home folder to keep engines in; set engine.cache") from error
    own = shared / f"user-{os.geteuid()}"
    for models in model_folders():
        if own.resolve().is_relative_to(models.resolve()):
            raise EngineError(
                f"engine.cache: {shared} is in {models}, the folder of models that ship; choose "
                "another"
            )
    return own
