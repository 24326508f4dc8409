"""Keeps exported graphs for the next start.

The name of a graph contains a key of everything it depends on, so an entry never becomes stale.
Beside each graph is its description, with a checksum of both. A graph that does not match or cannot
be started is built again.

A graph is a program. Therefore the folder belongs to this user alone, and nothing is loaded that
another user could have written.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rain_removal_ros import __version__
from rain_removal_ros.engines._graph import FORMAT, GraphDescription, GraphError, graph_folder
from rain_removal_ros.errors import EngineError
from rain_removal_ros.manifest import code_checksum
from rain_removal_ros.parsing import from_json
from rain_removal_ros.runtime.files import write_whole
from rain_removal_ros.runtime.private_files import private_folder, read_private

if TYPE_CHECKING:
    from rain_removal_ros.networks._base import Network
    from rain_removal_ros.settings import EngineSettings

_log = logging.getLogger(__name__)
_Started = TypeVar("_Started")


def started(
    start: Callable[[bytes, GraphDescription], _Started],
    network: Network,
    settings: EngineSettings,
    *,
    stages: int,
    engine: str,
    device: str,
) -> _Started:
    """What ``start`` makes of the network's graph, which comes from the cache or is exported into
    it.

    ``engine`` is its name and version, ``device`` where it runs, with the driver if there is one.
    """
    from rain_removal_ros.engines.export import export  # needs torch, which cached graphs do not

    name = _key(network, stages or network.stages, engine, device)
    path = graph_folder(settings) / f"{name}.onnx"
    try:
        private_folder(path.parent)
        return start(*_read(path))
    except FileNotFoundError:
        _log.info("building %s", path)
    except (OSError, ValueError, GraphError) as error:
        _log.warning("building %s again: %s", path, error)
    graph, description = export(network, stages=stages)
    try:
        private_folder(path.parent)
        write_whole(path, graph, raises=EngineError)
        text = description.to_json()
        sealed = {"sha256": _checksum(graph, text), "graph": text}
        write_whole(path.with_suffix(".json"), json.dumps(sealed), raises=EngineError)
    except (EngineError, OSError) as error:
        _log.warning("the next start will build again: %s", error)
    return start(graph, description)


def _read(path: Path) -> tuple[bytes, GraphDescription]:
    """Raises ``ValueError`` if the two files are not what was written."""
    graph = read_private(path)
    sealed = from_json(read_private(path.with_suffix(".json")))
    if not isinstance(sealed, dict) or not isinstance(sealed.get("graph"), str):
        raise ValueError("its description is damaged")
    if sealed.get("sha256") != _checksum(graph, sealed["graph"]):
        raise ValueError("it does not match its checksum")
    return graph, GraphDescription.from_json(sealed["graph"])


def _checksum(graph: bytes, description: str) -> str:
    return hashlib.sha256(graph + description.encode()).hexdigest()


def _key(network: Network, stages: int, engine: str, device: str) -> str:
    from rain_removal_ros import checkpoints

    parts = (
        checkpoints.checksum(network),
        repr(network.config),
        repr(network.cautions),
        str(stages),
        engine,
        device,
        f"{__version__} {FORMAT}",
        # The same weights in other code are another graph.
        code_checksum(Path(inspect.getfile(type(network))).parent),
    )
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    name = type(network).__module__.rpartition(".")[2]
    return f"{name}-{engine.partition(' ')[0]}-{digest[:20]}"
