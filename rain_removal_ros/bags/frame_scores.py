"""How good, how steady and how fast the deraining of a recording was, frame by frame.

If the same scene was recorded without rain, frames are compared with it. If not, they are scored by
what can be seen in them: how much it still rains, how sharp they are, how much of them was changed,
and how much they change from one to the next.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.bags.topics import CameraTopics
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.metrics import flicker, luma, psnr, ssim
from rain_removal_ros.rain_level import RainGauge

if TYPE_CHECKING:
    from rain_removal_ros.camera import Result

_CHANGED = 8
"""Grey levels by which a pixel must differ to count as changed."""
_KEPT = 8
"""Frames whose pictures are kept for the report: the worst, and some evenly spread."""
_APART_S = 1.0
"""Between two of the worst frames: neighbours show the same moment."""
_WAITING = 16
"""The most frames that wait for their reference, and references that wait for their frame."""


@dataclass
class FrameScore:
    """What is known of one frame, before and after; None if it cannot be known."""

    stamp_ns: int
    network_ms: float | None
    """None if the frame passed through unchanged or the time is unknown."""
    reset: str | None
    rain_before: float
    rain_after: float
    sharp_before: float
    sharp_after: float
    changed: float
    """Share of the pixels that changed visibly."""
    moves_before: float | None = None
    """Mean change of the input since the last frame, in grey levels."""
    moves_after: float | None = None
    psnr_before: float | None = None
    psnr_after: float | None = None
    ssim_before: float | None = None
    ssim_after: float | None = None
    flicker_before: float | None = None
    """How much that change differs from the reference's, in grey levels."""
    flicker_after: float | None = None

    @property
    def badness(self) -> float:
        """Selects the worst moments: lost quality, or remaining rain."""
        if self.psnr_after is not None and self.psnr_before is not None:
            return self.psnr_before - self.psnr_after
        return self.rain_after + max(0.0, 1 - self.sharp_after / max(self.sharp_before, 1e-6))


class ScoredFrame(NamedTuple):
    """A frame's pictures."""

    number: int
    score: FrameScore
    topic: str
    before: Image
    after: Image
    attention: NDArray[np.uint8] | None
    truth: Image | None


@dataclass
class _CameraScores:
    """What is kept for one camera from frame to frame."""

    scores: list[FrameScore] = field(default_factory=list)
    gauges: tuple[RainGauge, RainGauge] = field(default_factory=lambda: (RainGauge(), RainGauge()))
    last: tuple[Image, Image] | None = None
    last_compared: tuple[NDArray[np.float64], ...] = ()
    waiting: OrderedDict[int, ScoredFrame] = field(default_factory=OrderedDict)
    truths: OrderedDict[int, Image] = field(default_factory=OrderedDict)
    worst: list[ScoredFrame] = field(default_factory=list)
    spread: list[ScoredFrame] = field(default_factory=list)


class FrameScorer:
    """Scores a replay as its ``replaying.Observer``."""

    def __init__(self) -> None:
        self._cameras: dict[str, _CameraScores] = defaultdict(_CameraScores)

    def frame(self, camera: CameraTopics, before: Frame, result: Result) -> None:
        """Note a frame and what became of it."""
        step = result.step
        self.note(
            camera.image.topic,
            before,
            before.image if step is None else step.frame.image,
            attention=None if step is None else step.attention,
            network_ms=None if step is None else 1e3 * step.seconds,
            reset=None if step is None else step.reset,
            compared=camera.reference is not None,
        )

    def reference(self, camera: CameraTopics, frame: Frame) -> None:
        """Note the scene without rain."""
        self.note_truth(camera.image.topic, frame)

    def note(
        self,
        topic: str,
        before: Frame,
        after: Image,
        *,
        attention: NDArray[np.uint8] | None = None,
        network_ms: float | None = None,
        reset: str | None = None,
        compared: bool = False,
    ) -> None:
        """Score one frame; ``compared``: its reference has come, or will."""
        kept = self._cameras[topic]
        small = _fitted(after, before.image)
        moves = self._moves(kept, before.image, small)
        score = FrameScore(
            stamp_ns=before.stamp_ns,
            network_ms=network_ms,
            reset=reset,
            rain_before=kept.gauges[0].update(before.image),
            rain_after=kept.gauges[1].update(small),
            sharp_before=_sharpness(before.image),
            sharp_after=_sharpness(small),
            changed=_changed(before.image, small),
            moves_before=moves[0] if moves else None,
            moves_after=moves[1] if moves else None,
        )
        kept.scores.append(score)
        # Copies, because the originals are in buffers that the next frame overwrites.
        moment = ScoredFrame(
            len(kept.scores) - 1,
            score, topic, before.image.copy(), after.copy(),
            None if attention is None else attention.copy(), None,
        )  # fmt: skip
        if not compared:
            self._keep(kept, moment)
        elif (truth := kept.truths.pop(before.stamp_ns, None)) is not None:
            self._compare(kept, moment, truth)
        else:
            kept.waiting[before.stamp_ns] = moment
            while len(kept.waiting) > _WAITING:
                self._keep(kept, kept.waiting.popitem(last=False)[1])

    def note_truth(self, topic: str, truth: Frame) -> None:
        """Note the scene without rain, before or after its frame."""
        kept = self._cameras[topic]
        if (moment := kept.waiting.pop(truth.stamp_ns, None)) is not None:
            self._compare(kept, moment, truth.image)
            return
        kept.truths[truth.stamp_ns] = truth.image
        while len(kept.truths) > _WAITING:
            kept.truths.popitem(last=False)

    def scores(self) -> dict[str, list[FrameScore]]:
        """Every frame's score, by topic."""
        return {topic: kept.scores for topic, kept in self._cameras.items()}

    def moments(self, topic: str) -> list[ScoredFrame]:
        """The worst moments first, then some evenly spread."""
        kept = self._cameras[topic]
        worst = sorted(kept.worst, key=lambda moment: -moment.score.badness)
        stamps = {moment.score.stamp_ns for moment in worst}
        return worst + [m for m in kept.spread if m.score.stamp_ns not in stamps]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Each camera's figures: means, and percentiles where they matter."""
        return {topic: summary(kept.scores) for topic, kept in self._cameras.items()}

    def _moves(
        self, kept: _CameraScores, before: Image, after: Image
    ) -> tuple[float, float] | None:
        last, kept.last = kept.last, (before.copy(), after.copy())
        if last is None or last[0].shape != before.shape:
            return None
        return _difference(last[0], before), _difference(last[1], after)

    def _compare(self, kept: _CameraScores, moment: ScoredFrame, truth: Image) -> None:
        score = moment.score
        pictures = (_fitted(moment.before, truth), _fitted(moment.after, truth), truth)
        before, after, right = now = tuple(luma(picture) for picture in pictures)
        score.psnr_before, score.psnr_after = psnr(before, right), psnr(after, right)
        score.ssim_before, score.ssim_after = ssim(before, right), ssim(after, right)
        last, kept.last_compared = kept.last_compared, now
        if last and last[2].shape == right.shape:
            score.flicker_before = flicker(last[0], before, last[2], right)
            score.flicker_after = flicker(last[1], after, last[2], right)
        self._keep(kept, moment._replace(truth=truth.copy()))

    def _keep(self, kept: _CameraScores, moment: ScoredFrame) -> None:
        """Keep the pictures of the worst frames so far, and of frames at even intervals."""
        near = [one for one in kept.worst if _apart_s(one, moment) < _APART_S]
        if all(moment.score.badness > one.score.badness for one in near):
            kept.worst = [one for one in kept.worst if _apart_s(one, moment) >= _APART_S]
            kept.worst.append(moment)
            kept.worst.sort(key=lambda kept_one: -kept_one.score.badness)
            del kept.worst[_KEPT:]
        stride = 1
        while len(kept.scores) > stride * _KEPT:
            stride *= 2
        kept.spread = [m for m in kept.spread if m.number % stride == 0]
        if moment.number % stride == 0:
            kept.spread.append(moment)


def summary(scores: list[FrameScore]) -> dict[str, Any]:
    """The figures of a list of frames."""
    names = ("rain", "sharp", "moves", "psnr", "ssim", "flicker")
    result: dict[str, Any] = {"frames": len(scores)}
    for name in names:
        for side in ("before", "after"):
            result[f"{name}_{side}"] = _mean(getattr(s, f"{name}_{side}") for s in scores)
    result["changed"] = _mean(score.changed for score in scores)
    times = [score.network_ms for score in scores if score.network_ms is not None]
    for name, share in (("median", 50), ("p95", 95), ("p99", 99), ("max", 100)):
        result[f"network_ms_{name}"] = float(np.percentile(times, share)) if times else None
    moves = [(s.moves_before, s.moves_after) for s in scores if s.moves_before and s.moves_after]
    result["steadiness"] = (
        float(np.median([after / before for before, after in moves if before > 0]))
        if moves
        else None
    )
    return result


def combined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several cameras or recordings as one, with equal weight for each frame."""
    frames = sum(part["frames"] for part in parts)
    result: dict[str, Any] = {"frames": frames}
    for name in parts[0]:
        known = [(part[name], part["frames"]) for part in parts if part[name] is not None]
        if name == "frames":
            continue
        if not known:
            result[name] = None
        elif name.endswith("_max"):
            result[name] = max(value for value, _ in known)
        else:
            result[name] = sum(v * n for v, n in known) / sum(n for _, n in known)
    return result


def as_rows(scores: list[FrameScore]) -> list[dict[str, Any]]:
    """Frames for a JSON file."""
    return [asdict(score) for score in scores]


def _apart_s(one: ScoredFrame, other: ScoredFrame) -> float:
    return abs(one.score.stamp_ns - other.score.stamp_ns) / 1e9


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


def _fitted(image: Image, like: Image) -> Image:
    if image.shape == like.shape:
        return image
    size = (like.shape[1], like.shape[0])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _grey(image: Image) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _sharpness(image: Image) -> float:
    """Standard deviation of the Laplacian: how much fine detail there is, rain included."""
    return float(cv2.meanStdDev(cv2.Laplacian(_grey(image), cv2.CV_16S))[1][0, 0])


def _changed(before: Image, after: Image) -> float:
    difference = cv2.absdiff(_grey(before), _grey(after))
    return float(np.count_nonzero(difference > _CHANGED)) / difference.size


def _difference(one: Image, other: Image) -> float:
    return float(cv2.absdiff(_grey(one), _grey(other)).mean())
