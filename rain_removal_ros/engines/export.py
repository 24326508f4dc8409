"""Writes a network as one ONNX graph that runs without torch; state goes in and out by name.

Batch and size are free. Where torch has an empty state, the graph takes an equal one, which is
found by trial and recorded. Every graph is compared with torch before it is returned.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import itertools
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rain_removal_ros import checkpoints
from rain_removal_ros.engines._graph import METADATA_KEY, GraphDescription, StateTensor
from rain_removal_ros.engines._onnx_session import Session
from rain_removal_ros.errors import EngineError, first_line
from rain_removal_ros.networks._base import Network, State
from rain_removal_ros.settings import EngineSettings

OPSET = 17
TOLERANCE = 1e-4
"""A fortieth of a grey level. What differs is the order of additions."""
_BLOCKS = (2, 3)
"""Height and width of the traced frame, in least common sizes; the check uses others."""
_GRAIN = 32
_PATIENCE_S = 120.0
_exporting = threading.Lock()


class _Flat(nn.Module):
    """A network with plain tensors as inputs and outputs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.eval()  # the exporter leaves every part in the mode of the whole

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        output = self.network(frame, state)
        level = () if output.rain_level is None else (output.rain_level,)
        return (output.derained, output.attention, *level, *output.state)


def export(network: Network, *, stages: int = 0) -> tuple[bytes, GraphDescription]:
    """The graph and its description; ``stages`` 0 is the network's own number.

    Raises ``EngineError`` with the reason if the network cannot be exported.
    """
    network = copy.deepcopy(network).cpu().float().eval()
    network.stages = stages or network.stages
    name = type(network).__module__.rpartition(".")[2]
    if importlib.util.find_spec("onnx") is None:
        raise EngineError("a network is exported with the package onnx: pip install onnx")
    if network.not_exportable:
        raise EngineError(f"{name} cannot be exported: {network.not_exportable}")
    with torch.no_grad():
        frame = _picture(1, *_BLOCKS)
        output = network(frame)
        if not all(bool(value.isfinite().all()) for value in _Flat(network)(frame)):
            raise EngineError(f"{name} cannot be exported: it gives values that are not finite")
        outputs = ("clean", "attention", *(["rain_level"] if output.rain_level is not None else []))
        draft = GraphDescription(
            network=name,
            checksum=checkpoints.checksum(network),
            scale=network.scale,
            stride=network.facts.stride,
            stages=network.stages,
            recurrent=network.facts.recurrent,
            outputs=outputs,
            state=_state_tensors(network, name, frame, output.state),
            opset=OPSET,
            tolerance=TOLERANCE,
            difference=0.0,
            cautions=network.cautions,
        )
        graph = _traced(network, draft)
        difference = _difference(network, graph, draft)
    if not difference <= TOLERANCE:
        raise EngineError(
            f"{name} cannot be exported: its graph is off by {difference:.2g} from what torch "
            f"computes ({TOLERANCE:g} is allowed)"
        )
    described = GraphDescription(**{**vars(draft), "difference": difference})
    return _with_metadata(graph, METADATA_KEY, described.to_json()), described


def _traced(network: Network, facts: GraphDescription) -> bytes:
    # More than one in the batch, so that the exporter takes nothing for constant that merely looked
    # so.
    frame = _picture(2, *_BLOCKS)
    state = network(frame).state
    axes = {
        name: {0: "batch", 2: f"{name}_h", 3: f"{name}_w"}
        for name in (*facts.input_names, *facts.output_names)
    }
    axes["frame"] = {0: "batch", 2: "height", 3: "width"}
    if "rain_level" in axes:
        axes["rain_level"] = {0: "batch"}
    try:
        with _alone(), io.BytesIO() as graph, warnings.catch_warnings():
            # Expected warnings of tracing, and of an exporter that looks for an optional package.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Flat(network),
                (frame, *state),
                graph,  # type: ignore[arg-type]  # only the other exporter needs a file
                opset_version=OPSET,
                input_names=facts.input_names,
                output_names=facts.output_names,
                dynamic_axes=axes,
                dynamo=False,
            )
            return graph.getvalue()
    except (RuntimeError, TypeError, ValueError, ImportError) as error:
        reason = first_line(error)
        raise EngineError(f"{facts.network} cannot be exported: {reason}") from error


@contextmanager
def _alone() -> Iterator[None]:
    """One export at a time, because the exporter keeps its state in globals. An export that hangs
    blocks others only for a while.
    """
    if not _exporting.acquire(timeout=_PATIENCE_S):
        raise EngineError("another export has not ended; a network is exported after it")
    try:
        yield
    finally:
        _exporting.release()


def _state_tensors(
    network: Network, name: str, frame: Tensor, state: State
) -> tuple[StateTensor, ...]:
    """The state's tensors, each with its value at a fresh start."""
    wanted = _Flat(network)(frame)
    choices = [
        {"zeros": torch.zeros_like(part)} | ({"frame": frame} if part.shape == frame.shape else {})
        for part in state
    ]
    off_by: dict[tuple[str, ...], float] = {}
    for kinds in itertools.product(*choices):
        given = [choice[kind] for choice, kind in zip(choices, kinds, strict=True)]
        off_by[kinds] = max(map(_gap, _Flat(network)(frame, *given), wanted))
    best = min(off_by, key=lambda kinds: off_by[kinds])
    if not off_by[best] <= TOLERANCE:
        raise EngineError(
            f"{name} cannot be exported: a fresh start of it equals no state of zeros or of the "
            "frame itself"
        )
    return tuple(
        StateTensor(
            input=f"state_{index}",
            output=f"next_state_{index}",
            channels=part.shape[1],
            divisor=frame.shape[2] // part.shape[2],
            fresh=kind,
        )
        for index, (part, kind) in enumerate(zip(state, best, strict=True))
    )


def _difference(network: Network, graph: bytes, facts: GraphDescription) -> float:
    """The largest difference between graph and torch: other sizes, one and several, fresh and
    carried.
    """
    session = Session(graph, facts, EngineSettings(), "cpu")
    worst = 0.0
    for batch, *blocks in ((1, 3, 1), (3, 1, 2)):
        state: State = ()
        for frame in _moving(_picture(batch, *blocks)):
            arrays = [part.numpy() for part in state] or facts.fresh_state(frame.numpy())
            wanted = _Flat(network)(frame, *state)
            values, carried = session.run(frame.numpy(), arrays)
            got = [*values, *(part.numpy() for part in carried)]
            # A shape that does not follow the frame's is as wrong as a value.
            worst = max(worst, *map(_gap, map(torch.from_numpy, got), wanted))
            state = tuple(part.contiguous() for part in wanted[len(facts.outputs) :])
    return worst


def _gap(ours: Tensor, wanted: Tensor) -> float:
    if ours.shape != wanted.shape:
        return math.inf
    gap = float(((ours - wanted).abs() / wanted.abs().clamp_min(1)).max())
    return gap if math.isfinite(gap) else math.inf


def _picture(batch: int, rows: int, columns: int) -> Tensor:
    """Pictures of smooth shapes, the same every time."""
    noise: NDArray[np.float64] = np.random.default_rng(0).random((batch, 3, rows * 4, columns * 4))
    return nn.functional.interpolate(
        torch.from_numpy(noise).float(), scale_factor=_GRAIN // 4, mode="bicubic"
    ).clamp(0, 1)


def _moving(frame: Tensor) -> Iterator[Tensor]:
    for shift in range(3):
        yield frame.roll(shift, 3).contiguous()


def _with_metadata(graph: bytes, key: str, value: str) -> bytes:
    import onnx

    model = onnx.load_from_string(graph)
    onnx.helper.set_model_props(model, {key: value})
    written: bytes = model.SerializeToString()
    return written
