"""Derains the built-in street and shows the result as a video, a still and figures.

Frames are recorded here, directly through a stream, or by ``ros.tools.demo`` from a simulated
camera and the node, which run as on a robot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.media import videos
from rain_removal_ros.runtime.files import write_whole

__all__ = ["DemoFrame", "DemoPlan", "DemoSummary", "Recording", "Tell", "record", "show"]

Tell = Callable[[str], None]
"""Gets one line of progress at a time."""

_PATIENCE_S = 30.0
"""Recording without ROS stops after this time."""
_PANEL_WIDTH = 480
"""Smaller pictures are enlarged to it, so that the labels can be read."""
_BAR, _FOOT = 28, 32
_INK, _PAPER, _FAINT = (235, 235, 235), (28, 28, 30), (165, 165, 170)


@dataclass(frozen=True)
class DemoPlan:
    """What to show."""

    output: Path
    weights: str = ""
    """Weight file; empty for the best that ships."""
    seconds: float = 5.0
    width: int = 480
    height: int = 360
    fps: float = 15.0
    seed: int = 0
    severity: float = 0.3


@dataclass(frozen=True)
class DemoFrame:
    """All views of one frame."""

    stamp_ns: int
    rainy: Image
    derained: Image
    attention: NDArray[np.uint8]
    reference: Image
    """The same frame without rain."""


@dataclass(frozen=True)
class DemoSummary:
    """The results."""

    frames: int
    rainy_db: float
    """Mean PSNR of the rainy frames against the reference."""
    derained_db: float
    """The same of the derained frames."""
    still: Path
    video: Path


Recording = Callable[[DemoPlan, Tell], tuple[list[DemoFrame], str]]
"""Returns the frames, and a line about how they were made."""


def show(plan: DemoPlan, recording: Recording, tell: Tell) -> DemoSummary | None:
    """Record and show; does nothing if there are no derained frames."""
    try:
        plan.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {plan.output}: {error.strerror}") from error
    moments, note = recording(plan, tell)
    if not moments:
        return None
    still, video = plan.output / "still.png", videos.for_browsers(plan.output / "demo")
    tell(f"writing {len(moments)} frames")
    _write_still(still, board(moments[len(moments) // 2], note))
    _write_video(video, [board(moment, note) for moment in moments], _rate(moments, plan.fps))
    return DemoSummary(
        frames=len(moments),
        rainy_db=float(np.mean([_psnr(moment.rainy, moment.reference) for moment in moments])),
        derained_db=float(
            np.mean([_psnr(_fitted(moment), moment.reference) for moment in moments])
        ),
        still=still,
        video=video,
    )


def record(plan: DemoPlan, tell: Tell) -> tuple[list[DemoFrame], str]:
    """Pass every frame through a stream, in order."""
    from rain_removal_ros import engines
    from rain_removal_ros.settings import EngineSettings, NetworkSettings
    from rain_removal_ros.simulation.scenes import Film, RainSettings, SceneSettings, open_scene
    from rain_removal_ros.stream import Stream

    engine = engines.load(NetworkSettings(weights=plan.weights), EngineSettings())
    scene = SceneSettings(width=plan.width, height=plan.height, fps=plan.fps, seed=plan.seed)
    film = Film(open_scene(scene), RainSettings(severity=plan.severity))
    stream = Stream(engine)
    moments: list[DemoFrame] = []
    took_s = 0.0
    count = max(1, round(plan.seconds * plan.fps))
    began = told = time.monotonic()
    for index in range(count):
        if moments and time.monotonic() - began > _PATIENCE_S:
            break
        view = film.view(index)
        step = stream.step(Frame(view.rainy, stamp_ns=round(index * 1e9 / plan.fps)))
        took_s += step.seconds
        assert step.attention is not None
        moments.append(
            DemoFrame(
                step.frame.stamp_ns, view.rainy, step.frame.image, step.attention, view.shot.image
            )
        )
        if time.monotonic() - told > 2:
            tell(f"{len(moments)} of {count} frames, {1e3 * took_s / len(moments):.0f} ms each")
            told = time.monotonic()
    speed = f"{1e3 * took_s / len(moments):.0f} ms a frame on {engine.info.device}"
    return moments, f"{engine.info.name}, without ROS: {speed}"


# --- Pictures --------------------------------------------------------------------------------


def board(moment: DemoFrame, note: str) -> Image:
    """Rainy and derained side by side, below them attention and reference, all labelled."""
    derained = _fitted(moment)
    rainy_db, derained_db = _psnr(moment.rainy, moment.reference), _psnr(derained, moment.reference)
    top = [
        _panel(moment.rainy, "In the rain", f"{rainy_db:.1f} dB"),
        _panel(derained, "Derained", f"{derained_db:.1f} dB"),
    ]
    below = [
        _panel(_glow(moment.attention), "Attention", "where the network saw rain"),
        _panel(moment.reference, "Without rain", "for comparison; the network never saw it"),
    ]
    rows = np.vstack([np.hstack(top), np.hstack(below)])
    foot = _strip(_FOOT, rows.shape[1])
    _text(foot, note, at=(10, 21), size=0.5, colour=_FAINT)
    return np.asarray(np.vstack([rows, foot]), np.uint8)


def _panel(image: Image, title: str, note: str) -> NDArray[np.uint8]:
    if image.shape[1] < _PANEL_WIDTH:
        height = round(image.shape[0] * _PANEL_WIDTH / image.shape[1])
        image = np.asarray(cv2.resize(image, (_PANEL_WIDTH, height)), np.uint8)
    bar = _strip(_BAR, image.shape[1])
    end = _text(bar, title, at=(10, 19), size=0.55, colour=_INK)
    _text(bar, note, at=(end + 12, 19), size=0.45, colour=_FAINT)
    return np.asarray(np.vstack([bar, image]), np.uint8)


def _strip(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _text(
    onto: NDArray[np.uint8],
    text: str,
    *,
    at: tuple[int, int],
    size: float,
    colour: tuple[int, int, int],
) -> int:
    """Write a line of text; returns its right end."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(onto, text, at, font, size, colour, 1, cv2.LINE_AA)
    (width, _), _ = cv2.getTextSize(text, font, size, 1)
    return at[0] + width


def _glow(attention: NDArray[np.uint8]) -> Image:
    coloured = cv2.applyColorMap(attention, cv2.COLORMAP_INFERNO)
    return np.asarray(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB), np.uint8)


def _fitted(moment: DemoFrame) -> Image:
    """The derained frame in the size of the others, for networks that enlarge."""
    size = moment.reference.shape[1::-1]
    if moment.derained.shape[1::-1] == size:
        return moment.derained
    return np.asarray(cv2.resize(moment.derained, size, interpolation=cv2.INTER_AREA), np.uint8)


def _psnr(image: Image, reference: Image) -> float:
    return float(cv2.PSNR(image, reference))


def _rate(moments: Sequence[DemoFrame], fps: float) -> float:
    """Frames per second of the recorded ones, so that the video runs in real time."""
    if len(moments) < 2:
        return fps
    return min(fps, (len(moments) - 1) * 1e9 / (moments[-1].stamp_ns - moments[0].stamp_ns))


def _write_still(path: Path, image: Image) -> None:
    _, packed = cv2.imencode(".png", image[..., ::-1])
    write_whole(path, packed.tobytes())


def _write_video(path: Path, images: Sequence[Image], fps: float) -> None:
    with videos.writing(path, fps) as writer:
        for image in images:
            writer.write(image)
