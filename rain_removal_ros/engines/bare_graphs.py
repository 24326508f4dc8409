"""Graphs that ship without their weights, for installations without torch.

A bare graph is a network exported by ``export`` with its weights removed. They come from a weight
file of the same network and config, so the graph stays valid when the weights are trained further.
``scripts/graphs`` makes the graphs.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_removal_ros import checkpoints
from rain_removal_ros.engines._graph import GraphDescription, GraphEngine
from rain_removal_ros.engines._onnx_session import NAME, Session
from rain_removal_ros.engines.onnxruntime import devices, on_the_first_of
from rain_removal_ros.errors import WITH_TORCH, EngineError
from rain_removal_ros.parsing import from_json
from rain_removal_ros.runtime.files import model_folders, write_whole

if TYPE_CHECKING:
    from rain_removal_ros.checkpoints import StoredWeights
    from rain_removal_ros.networks._base import Network
    from rain_removal_ros.settings import EngineSettings, NetworkSettings

SUFFIX = ".graph"
_PREFIX = "network."
"""Prefix of the names of weights in a graph."""


@dataclass(frozen=True)
class BareGraph:
    """A bare graph that was read."""

    graph: bytes
    config: dict[str, Any]
    defaults: dict[str, Any]
    """Values for config fields that older weight files do not have."""
    description: GraphDescription
    working_bytes: float
    """Memory per pixel of a frame during a pass; ``state_bytes`` from one frame to the next."""
    state_bytes: float

    def fits(self, weights: StoredWeights) -> bool:
        named = self.description.network == weights.name
        return named and self.config == {**self.defaults, **weights.config}


def load(network: NetworkSettings, settings: EngineSettings) -> GraphEngine:
    """An engine for weights that a bare graph fits; otherwise an ``EngineError`` says what is
    needed.
    """
    path = checkpoints.chosen_file(network)
    return start(path, find(path), network, settings)


def find(path: Path) -> tuple[BareGraph, StoredWeights]:
    """The graph for a weight file, and its weights."""
    weights = checkpoints.read(path)
    for bare in shipped():
        if bare.fits(weights):
            return bare, weights
    raise EngineError(f"{path.stem} runs in torch, which is not installed: {WITH_TORCH}")


def start(
    path: Path,
    found: tuple[BareGraph, StoredWeights],
    network: NetworkSettings,
    settings: EngineSettings,
) -> GraphEngine:
    """Load a graph and its weights on the first device that works."""
    bare, weights = found
    if settings.name not in ("auto", NAME) or settings.compile:
        what = "engine.compile" if settings.compile else f"engine {settings.name}"
        raise EngineError(f"{what} needs torch, which is not installed: {WITH_TORCH}")
    facts = dataclasses.replace(
        bare.description, checksum=weights.checksum, cautions=weights.cautions
    )
    arrays = {_PREFIX + name: array for name, array in weights.arrays.items()}

    def begin(device: str, stages: int) -> Session:
        if stages not in (0, facts.stages):
            raise EngineError(f"{path.stem} runs in {facts.stages} stages without torch")
        return Session(bare.graph, facts, settings, device, weights=arrays)

    engine = on_the_first_of(devices(settings.device), begin)
    if network.stages not in (0, facts.stages):
        raise EngineError(f"{path.stem} runs in {facts.stages} stages without torch: {WITH_TORCH}")
    return engine


def shipped() -> Iterator[BareGraph]:
    """The bare graphs beside the shipped weights."""
    paths = (path for folder in model_folders() for path in sorted(folder.glob(f"*{SUFFIX}")))
    seen: set[str] = set()
    for path in paths:
        if path.name not in seen:
            seen.add(path.name)
            yield read(path)


def read(path: Path) -> BareGraph:
    try:
        with zipfile.ZipFile(path) as archive:
            graph = archive.read("graph.onnx")
            about = from_json(archive.read("about.json").decode())
        working, state = (float(about[name]) for name in ("working_bytes", "state_bytes"))
        facts = GraphDescription.from_json(json.dumps(about["description"]))
        config, defaults = (dict(about[name]) for name in ("config", "defaults"))
        return BareGraph(graph, config, defaults, facts, working, state)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise EngineError(f"{path} is damaged; install the package again: {error}") from error


def write(path: Path, network: Network, *, working_bytes: float, state_bytes: float) -> None:
    """Make the bare graph of a network."""
    import onnx

    from rain_removal_ros.engines.export import export

    whole, facts = export(network)
    model = onnx.load_from_string(whole)
    del model.metadata_props[:]
    _take_weights_out(model, {_PREFIX + name: None for name in network.state_dict()})
    about = {
        "config": dataclasses.asdict(network.config),
        "defaults": dataclasses.asdict(type(network.config)()),
        "working_bytes": working_bytes,
        "state_bytes": state_bytes,
        "description": dataclasses.asdict(dataclasses.replace(facts, checksum="")),
    }
    _pack(path, {"graph.onnx": model.SerializeToString(), "about.json": json.dumps(about).encode()})


def _take_weights_out(model: Any, names: Mapping[str, None]) -> None:
    """Mark weights as external; they are passed in when the graph is loaded."""
    import onnx

    held = {each.name for each in model.graph.initializer}
    if missing := sorted(set(names) - held):
        raise EngineError(f"the exporter has changed weights: {', '.join(missing[:3])} are gone")
    for each in model.graph.initializer:
        if each.name in names:
            size = len(each.raw_data)
            each.ClearField("raw_data")
            each.data_location = onnx.TensorProto.EXTERNAL
            entries = {"location": "weights", "offset": "0", "length": str(size)}
            for key, value in entries.items():
                each.external_data.add(key=key, value=value)


def _pack(path: Path, contents: Mapping[str, bytes]) -> None:
    """Archive the contents; the same contents give the same bytes."""

    with io.BytesIO() as packed:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        write_whole(path, packed.getvalue())
