"""Engines run a network: one small interface, several implementations.

An engine takes RGB frames as the codec makes them and returns derained ones. Padding, number
formats, devices and copies are internal to it. State goes in and out as an opaque value that only
the engine that made it can read, so it can stay on the device.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rain_removal_ros.engines._base import Derained, Engine, EngineInfo, LoadedEngine
from rain_removal_ros.errors import EngineError, RainRemovalError, first_line
from rain_removal_ros.runtime.threads import compute_with

if TYPE_CHECKING:
    from rain_removal_ros.networks._base import Network
    from rain_removal_ros.settings import EngineSettings, NetworkSettings

__all__ = [
    "NAMES",
    "Derained",
    "Engine",
    "EngineInfo",
    "LoadedEngine",
    "builds_stages",
    "create",
    "load",
    "load_somehow",
    "named",
]

NAMES = ("torch", "onnxruntime", "openvino")

_log = logging.getLogger(__name__)


@functools.cache
def has_torch() -> bool:
    """Whether torch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def builds_stages(engine: str) -> bool:
    """Whether the engine of this name builds a graph for each number of stages."""
    return not (engine == "torch" or (engine == "auto" and has_torch()))


def create(network: Network, settings: EngineSettings) -> LoadedEngine:
    """The engine that ``settings`` select, running ``network``; an ``EngineError`` if it is
    unavailable.

    "auto" is torch: on a CPU no other was faster by more than 7 % in the same precision, bfloat16
    is faster still where the CPU multiplies it, and nothing has to be built.
    """
    compute_with(settings.threads)  # for the pixels, whichever engine runs the network
    if settings.name in ("auto", "torch"):
        from rain_removal_ros.engines.torch import TorchEngine

        return TorchEngine(network, settings)
    module = importlib.import_module(f"{__name__}.{settings.name}")
    engine: LoadedEngine = module.create(network, settings)
    return engine


def load_somehow(
    network: NetworkSettings, engine: EngineSettings, tried: Callable[[Engine], object]
) -> LoadedEngine:
    """As ``load``, with a fallback if the request cannot be met; ``note`` then says which.

    The fallbacks are torch instead of another engine, no compilation, and the CPU if the device is
    ``auto``. ``tried`` steps the engine, so that failures at run time, such as too little memory,
    lead to the next fallback. Mistakes of the user, such as a wrong weight file, are raised.
    """
    reasons: list[str] = []
    for way in _ways(engine):
        try:
            loaded = load(network, way)
            tried(loaded)
        except Exception as error:
            # Exporters, compilers and runtimes have exceptions without a common base.
            if not isinstance(error, EngineError):
                if isinstance(error, RainRemovalError):
                    raise
                _log.warning("an engine failed", exc_info=True)
            reasons.append(first_line(error) or type(error).__name__)
            continue
        if reasons:
            means = f"{loaded.info.engine} on {loaded.info.device}"
            loaded.note = f"running in {means} instead: {'; '.join(dict.fromkeys(reasons))}"
        return loaded
    raise EngineError("; ".join(dict.fromkeys(reasons)))


def _ways(asked: EngineSettings) -> Iterator[EngineSettings]:
    """Ways to run a network: as requested, then the fallbacks, nearest first."""
    yield asked
    plain = dataclasses.replace(asked, name="torch", compile=False)
    if not has_torch():
        return  # "auto" tries a GPU and the CPU by itself
    if asked.name not in ("auto", "torch") or asked.compile:
        yield plain
    if asked.device == "auto" and _sees_cuda():
        # The lower precision was meant for the GPU; a CPU may have to emulate it.
        precision = "float32" if asked.precision == "float32" else "auto"
        yield dataclasses.replace(plain, device="cpu", precision=precision)


def _sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def load(network: NetworkSettings, engine: EngineSettings) -> LoadedEngine:
    """The network and weights that ``settings`` select, in the selected engine.

    Without torch, ONNX Runtime runs the graphs that ship; other networks are an ``EngineError``.
    """
    if not has_torch():
        from rain_removal_ros.engines import bare_graphs

        compute_with(engine.threads)
        return named(bare_graphs.load(network, engine), network)
    from rain_removal_ros import checkpoints

    _, checkpoint = checkpoints.choose(network)
    return named(create(checkpoint.network, engine), network)


def named(engine: LoadedEngine, network: NetworkSettings) -> LoadedEngine:
    """The engine, which from now on goes by the name that ``network`` has for its weights."""
    from rain_removal_ros import checkpoints

    engine.info = dataclasses.replace(engine.info, model=checkpoints.chosen_name(network))
    return engine
