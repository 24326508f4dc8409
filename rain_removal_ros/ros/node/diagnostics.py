"""What the node reports on ``/diagnostics``: one status for the network, one per camera."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from rain_removal_ros.ros.node.statistics import StatisticsSummary
from rain_removal_ros.runtime.memory import resident_bytes

if TYPE_CHECKING:
    from rain_removal_ros.engines import LoadedEngine


@dataclass(frozen=True)
class NetworkState:
    """The state of the network."""

    active: bool
    enabled: bool
    engine: LoadedEngine | None
    loading: bool
    trouble: str
    """What is wrong, in one line; empty if nothing is."""
    rung: str
    """The rung of degradation."""
    stages: int
    """Current passes over a frame; 0 without a network."""
    faults: Counter[str]


@dataclass(frozen=True)
class CameraState:
    """The state of one camera's topics."""

    name: str
    topic: str
    transport: str
    """The transport that is subscribed to; empty for none."""
    reliable: bool
    publishers: Counter[str]
    """How many publishers of each message type the topic has."""
    mismatch: str
    state_age_s: float | None
    summary: StatisticsSummary


def network_status(node: str, state: NetworkState) -> DiagnosticStatus:
    """The network's status."""
    level, message = _judge_network(state)
    engine = state.engine
    info = engine.info if engine else None
    values = {
        "network": info.name if info else "none",
        "engine": info.engine if info else "none",
        "device": info.device if info else "none",
        "precision": info.precision if info else "none",
        "note": engine.note if engine else "",
        "cautions": "; ".join(info.cautions.lines(info.name)) if info else "",
        "stages": state.stages,
        "degradation level": state.rung,
        "loading": state.loading,
        "enabled": state.enabled,
        "trouble": state.trouble,
        **{f"faults: {kind}": count for kind, count in sorted(state.faults.items())},
        **_memory(engine),
    }
    return _status(f"{node}: network", level, message, info.device if info else "", values)


def camera_status(node: str, state: CameraState) -> DiagnosticStatus:
    """One camera's status."""
    level, message = _judge_camera(state)
    summary = state.summary
    values: dict[str, Any] = {
        "topic": state.topic,
        "transport": state.transport or "none",
        "reliability": "reliable" if state.reliable else "best effort",
        "size": "x".join(map(str, reversed(summary.size))) if summary.size else "",
        "rate in [Hz]": f"{summary.rate_in:.1f}",
        "rate out [Hz]": f"{summary.rate_out:.1f}",
        **_times("latency", summary.latency_ms),
        **_times("processing", summary.processing_ms),
        "received": summary.received,
        "published": summary.published,
        **_counts("passed", summary.passed),
        **_counts("dropped", summary.dropped),
        "lost in transport": summary.lost,
        **_counts("faults", summary.faults),
        "last fault": summary.last_fault,
        **_counts("resets", summary.resets),
        "last reset": summary.last_reset,
        "state age [s]": "" if state.state_age_s is None else f"{state.state_age_s:.1f}",
        "rain level": "" if summary.rain_level is None else f"{summary.rain_level:.3f}",
    }
    name = f"{node}: camera {state.name}" if state.name else f"{node}: camera"
    return _status(name, level, message, state.topic, values)


def _judge_network(state: NetworkState) -> tuple[bytes, str]:
    if not state.active:
        return DiagnosticStatus.OK, "not active"
    if state.trouble and state.engine is None:
        return DiagnosticStatus.ERROR, f"{state.trouble}; frames pass through"
    if state.trouble:
        return DiagnosticStatus.WARN, f"{state.trouble}; the old one stays"
    if state.engine is None:
        return DiagnosticStatus.WARN, "loading; frames pass through"
    if not state.enabled:
        return DiagnosticStatus.OK, "disabled: frames pass through unchanged"
    if state.rung != "full":
        return DiagnosticStatus.WARN, f"over its time budget: {state.rung}"
    running = f"{state.engine.info.name} on {state.engine.info.device}"
    if state.engine.note:
        return DiagnosticStatus.WARN, f"{running}: {state.engine.note}"
    if state.loading:
        return DiagnosticStatus.OK, f"{running}, while another is being loaded"
    return DiagnosticStatus.OK, running


def _judge_camera(state: CameraState) -> tuple[bytes, str]:
    summary = state.summary
    if not state.transport:
        return DiagnosticStatus.OK, "idle: nobody subscribes"
    if state.mismatch:
        return DiagnosticStatus.WARN, state.mismatch
    if not state.publishers:
        return (
            DiagnosticStatus.WARN,
            f"nobody publishes {state.topic}: is the camera running, is 'image' remapped to it?",
        )
    wanted = "CompressedImage" if state.transport == "compressed" else "Image"
    if not any(kind.endswith(f"/{wanted}") for kind in state.publishers):
        carried = ", ".join(sorted(state.publishers))
        return DiagnosticStatus.WARN, f"{state.topic} carries {carried}, not {wanted}"
    if not summary.rate_in:
        return (
            DiagnosticStatus.WARN,
            f"{state.topic} has a publisher, but no image arrives: it may not send any; "
            "large ones need the shared-memory profile in both processes (config/fastdds.xml)",
        )
    if summary.losing:
        return (
            DiagnosticStatus.WARN,
            f"{summary.losing} images of {state.topic} were lost in transport just now: "
            "large ones need the shared-memory profile in both processes (config/fastdds.xml), "
            "and a reliable camera input.reliability auto or reliable",
        )
    if summary.failing:
        return DiagnosticStatus.WARN, f"faults just now: {summary.failing}, {summary.last_fault}"
    if summary.rate_in and not summary.rate_out:
        return DiagnosticStatus.WARN, "images arrive, but none is published: see the reasons below"
    return DiagnosticStatus.OK, f"{summary.rate_out:.1f} Hz"


def _status(
    name: str, level: bytes, message: str, hardware: str, values: dict[str, Any]
) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=_plain(value)) for key, value in values.items()]
    return DiagnosticStatus(
        name=name, level=level, message=_plain(message), hardware_id=hardware, values=pairs
    )


def _plain(value: Any) -> str:
    """Text without line breaks or control characters: some of it came over the network."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(mark if mark.isprintable() else " " for mark in text)[:400]


def _times(name: str, times: tuple[float, float] | None) -> dict[str, str]:
    middle, tail = (f"{time:.1f}" for time in times) if times else ("", "")
    return {f"{name} median [ms]": middle, f"{name} p95 [ms]": tail}


def _counts(name: str, counts: Counter[str]) -> dict[str, int]:
    return {f"{name}: {reason}": count for reason, count in sorted(counts.items())}


def _memory(engine: LoadedEngine | None) -> dict[str, str]:
    values = {"memory [MiB]": f"{resident_bytes() / 2**20:.0f}"}
    # torch does not know what other libraries allocate on a GPU.
    info = engine.info if engine else None
    if info is not None and info.engine == "torch" and info.device.startswith("cuda"):
        used = sys.modules["torch"].cuda.memory_allocated(info.device)
        values["device memory [MiB]"] = f"{used / 2**20:.0f}"
    return values
