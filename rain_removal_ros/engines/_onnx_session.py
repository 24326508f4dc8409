"""A graph in ONNX Runtime, loaded on a device: on a CPU, in CUDA, or in TensorRT for float16.

Inputs and outputs are bound to their memory: frames are in host memory, and the state stays on the
device.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rain_removal_ros.engines._graph import (
    METADATA_KEY,
    GraphDescription,
    GraphError,
    Planes,
    graph_folder,
)
from rain_removal_ros.errors import EngineError, first_line
from rain_removal_ros.runtime.onnx_timeout import RUN_TIMEOUT_S, ending_after
from rain_removal_ros.runtime.private_files import private_folder
from rain_removal_ros.settings import EngineSettings

_log = logging.getLogger(__name__)

NAME = "onnxruntime"


class Session:
    """See ``LoadedGraph``."""

    def __init__(
        self,
        graph: bytes,
        facts: GraphDescription | None,
        settings: EngineSettings,
        device: str,
        *,
        weights: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """``weights`` are those that the graph was saved without."""
        runtime = load_runtime()
        self.device = device
        self._kind, _, index = device.partition(":")
        self._index = int(index or 0)
        providers, self.precision = _providers(graph, settings, self._kind, self._index)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        # Threads that spin while they wait take the cores from everything else on a robot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are raised; printing them too would show them twice
        if weights:
            as_value = runtime.OrtValue.ortvalue_from_numpy
            # Kept alive, because the session may use them in place.
            self._weights = [as_value(each) for each in weights.values()]
            options.add_external_initializers(list(weights), self._weights)
        self._faults = _faults()
        self._is_ours = facts is not None  # exported just now, or from the cache
        try:
            self._session = runtime.InferenceSession(graph, options, providers=providers)
            self.description = facts or _described(self._session)
        except self._faults as error:
            raise GraphError(f"{NAME} cannot use this graph: {first_line(error)}") from error
        used = self._session.get_providers()
        if providers[0][0] not in used:
            raise EngineError(
                f"{NAME} could not start {providers[0][0]} and fell back to {used[0]}"
            )

    def run(self, frame: Planes, state: Sequence[Any]) -> tuple[list[Planes], Sequence[Any]]:
        facts = self.description
        binding = self._session.io_binding()
        try:
            binding.bind_cpu_input("frame", frame)
            for part, value in zip(facts.state, state, strict=True):
                binding.bind_ortvalue_input(part.input, self._on_device(value))
            for name in facts.outputs:
                binding.bind_output(name)
            for part in facts.state:
                binding.bind_output(part.output, self._kind, self._index)
            if self._is_ours:
                self._session.run_with_iobinding(binding)
            else:
                with ending_after(RUN_TIMEOUT_S) as options:
                    self._session.run_with_iobinding(binding, options)
        except self._faults as error:
            raise EngineError(f"{facts.network} failed: {first_line(error)}") from error
        values = binding.get_outputs()
        count = len(facts.outputs)
        return [value.numpy() for value in values[:count]], values[count:]

    def _on_device(self, value: Any) -> Any:
        kind = load_runtime().OrtValue
        if isinstance(value, kind):
            return value
        return kind.ortvalue_from_numpy(value, self._kind, self._index)


def load_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"{NAME} is not installed: pip install {NAME}") from error
    return onnxruntime


def driver() -> str:
    """The version of the GPU's driver, on systems that have it in /proc."""
    for file in ("/proc/driver/nvidia/version", "/etc/nv_tegra_release"):
        with suppress(OSError):
            return Path(file).read_text(encoding="utf-8").splitlines()[0]
    return ""


def _providers(
    graph: bytes, settings: EngineSettings, kind: str, index: int
) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """The execution providers in order of preference, and the precision they compute in."""
    cpu: tuple[str, dict[str, Any]] = ("CPUExecutionProvider", {})
    found: list[tuple[str, dict[str, Any]]] = [cpu]
    precision = "float32"
    if kind == "cuda":
        found.insert(0, ("CUDAExecutionProvider", {"device_id": index}))
    if settings.precision == "float16" and _has_tensorrt(kind):
        # Building takes minutes. TensorRT names its files by its version, GPU and sizes.
        key = hashlib.sha256(graph + driver().encode()).hexdigest()[:20]
        options = {
            "device_id": index,
            "trt_fp16_enable": True,
            **_kept(graph_folder(settings), f"tensorrt-{key}"),
        }
        found.insert(0, ("TensorrtExecutionProvider", options))
        precision = "float16"
    if settings.precision not in ("auto", precision):
        raise EngineError(
            f"{NAME} computes in float32 on {kind}, not in {settings.precision}; engine torch can"
        )
    return found, precision


def _kept(cache: Path, name: str) -> dict[str, Any]:
    """Options for TensorRT to keep what it builds, in a folder that no other user can enter."""
    try:
        place = private_folder(private_folder(cache) / name)
    except OSError as error:
        _log.warning("TensorRT will build again at the next start: %s", error)
        return {}
    return {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(place)}


def _has_tensorrt(kind: str) -> bool:
    available = load_runtime().get_available_providers()
    return kind == "cuda" and "TensorrtExecutionProvider" in available


def _described(session: Any) -> GraphDescription:
    metadata = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in metadata:
        raise ValueError("it was not written by 'rain-removal export'")
    return GraphDescription.from_json(metadata[METADATA_KEY])


def _faults() -> tuple[type[Exception], ...]:
    """All exceptions of ONNX Runtime, which have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    return (RuntimeError, ValueError, *(kind for kind in kinds if issubclass(kind, Exception)))
