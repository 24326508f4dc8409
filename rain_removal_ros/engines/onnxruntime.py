"""Runs networks in ONNX Runtime: on a CPU, in CUDA, and in TensorRT for float16.

A file written by ``rain-removal export`` runs without torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rain_removal_ros.engines._cache import started
from rain_removal_ros.engines._graph import GraphEngine
from rain_removal_ros.engines._onnx_session import NAME, Session, driver, load_runtime
from rain_removal_ros.errors import EngineError
from rain_removal_ros.settings import EngineSettings

if TYPE_CHECKING:
    from rain_removal_ros.networks._base import Network


def create(network: Network, settings: EngineSettings) -> GraphEngine:
    """An engine for a network, which is exported once and then taken from the cache."""
    version = f"{NAME} {load_runtime().__version__}"

    def load(device: str, stages: int) -> Session:
        runs_on = device if device == "cpu" else f"{device}, {driver()}"
        start = partial(Session, settings=settings, device=device)
        return started(start, network, settings, stages=stages, engine=version, device=runs_on)

    return on_the_first_of(devices(settings.device), load)


def open_file(path: Path | str, settings: EngineSettings | None = None) -> GraphEngine:
    """An engine for an exported file, with the stages it was exported with."""
    settings = settings or EngineSettings()
    try:
        graph = Path(path).read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error

    def load(device: str, stages: int) -> Session:
        session = Session(graph, None, settings, device)
        if stages not in (0, session.description.stages):
            fixed = session.description.stages
            raise EngineError(f"{path} was exported for {fixed} stages and has no other number")
        return session

    return on_the_first_of(devices(settings.device), load)


def on_the_first_of(names: list[str], load: Callable[[str, int], Session]) -> GraphEngine:
    """An engine on the first device that works; ``load`` takes a device and a number of stages."""
    reasons: list[str] = []
    for device in names:
        try:
            engine = GraphEngine(NAME, partial(load, device))
        except EngineError as error:
            reasons.append(str(error))
            continue
        if reasons:
            engine.note = f"running on {device} instead: {'; '.join(reasons)}"
        return engine
    raise EngineError("; ".join(dict.fromkeys(reasons)))


def devices(name: str) -> list[str]:
    """The devices to try. ONNX Runtime may have the CUDA provider without a working GPU."""
    has_cuda = "CUDAExecutionProvider" in load_runtime().get_available_providers()
    if name == "auto":
        return ["cuda", "cpu"] if has_cuda else ["cpu"]
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise EngineError(f"no device is called {name!r}; use auto, cpu, cuda or cuda:N")
    if name != "cpu" and not has_cuda:
        raise EngineError(f"this {NAME} cannot use {name}; install onnxruntime-gpu, or take cpu")
    return [name]
