"""Runs networks in OpenVINO, for robots with an Intel processor. OpenVINO is optional."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rain_removal_ros.engines._graph import GraphDescription, GraphEngine, GraphError, Planes
from rain_removal_ros.errors import EngineError
from rain_removal_ros.settings import EngineSettings

if TYPE_CHECKING:
    from rain_removal_ros.networks._base import Network

NAME = "openvino"
# Not bfloat16 by default, even if the processor has it: OpenVINO then computes displacements in it
# too, and single pixels were off by up to 40 grey levels.
_PRECISIONS = {"auto": "f32", "float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def create(network: Network, settings: EngineSettings) -> GraphEngine:
    """An engine for a network, which is exported once and then taken from the cache."""
    from rain_removal_ros.engines._cache import started

    if settings.device not in ("auto", "cpu"):
        raise EngineError(f"{NAME} runs on the cpu here, not on {settings.device}")
    version = f"{NAME} {_library().__version__}"

    def load(stages: int) -> _Model:
        start = partial(_Model, settings=settings)
        return started(start, network, settings, stages=stages, engine=version, device="cpu")

    return GraphEngine(NAME, load)


class _Model:
    """See ``LoadedGraph``."""

    device = "cpu"

    def __init__(self, graph: bytes, facts: GraphDescription, settings: EngineSettings) -> None:
        self.description = facts
        self.precision = "float32" if settings.precision == "auto" else settings.precision
        options = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[settings.precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if settings.threads:
            options["INFERENCE_NUM_THREADS"] = str(settings.threads)
        core = _library().Core()
        try:
            model = core.read_model(graph)
            self._request = core.compile_model(model, "CPU", options).create_infer_request()
        except RuntimeError as error:
            raise GraphError(f"{NAME} cannot use this graph: {_last_line(error)}") from error

    def run(self, frame: Planes, state: Sequence[Any]) -> tuple[list[Planes], Sequence[Any]]:
        facts = self.description
        inputs = dict(zip(facts.input_names, [frame, *state], strict=True))
        try:
            results = self._request.infer(inputs, share_inputs=True)
        except RuntimeError as error:
            raise EngineError(f"{facts.network} failed: {_last_line(error)}") from error
        values = [results[name] for name in facts.output_names]
        carried = values[len(facts.outputs) :]
        # Clamping turns NaN into a number here, so a damaged state would not show in the picture.
        if not all(np.isfinite(part.sum()) for part in carried):
            raise EngineError(f"{facts.network} gave values that are not finite")
        return values[: len(facts.outputs)], carried


def _library() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError(f"{NAME} is not installed: pip install {NAME} onnx") from error
    return openvino


def _last_line(error: BaseException) -> str:
    """OpenVINO's messages start with a source location and end with the cause."""
    return str(error).strip().rsplit("\n", 1)[-1]
