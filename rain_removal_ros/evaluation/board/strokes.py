"""The stroke board: bright strokes drawn on dry pictures, few or many, of every shape.

Published sets have pictures full of rain; a robot mostly meets a few drops. The share of the
strokes' light that remains shows whether a network recognises single streaks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data.strokes import draw_strokes
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation.board import marks
from rain_removal_ros.evaluation.board.marks import Mark
from rain_removal_ros.evaluation.board.setup import Setup
from rain_removal_ros.frames import Image
from rain_removal_ros.media import pictures
from rain_removal_ros.metrics import luma

_LIT = 0.02
"""The share of the way to white from which a pixel counts as under a stroke."""
_INVENTED = 5.0
"""A dry pixel changed by more grey levels than this counts as invented rain."""
_STREAM_FRAMES, _PAN = 8, 3
"""Length of a stream, and how far its camera moves from frame to frame, in pixels."""


@dataclass(frozen=True)
class Strokes:
    """One field of the board."""

    count: int = 20
    width: float = 2.0
    length: float = 40.0
    angle: float = 15.0
    """Degrees from the vertical."""
    opacity: float = 0.7
    profile: str = "box"


_PLAIN = Strokes()
FIELDS = {
    **{f"count_{n}": replace(_PLAIN, count=n) for n in (3, 8, 20, 120)},
    **{f"width_{w}": replace(_PLAIN, width=w) for w in (5, 8, 12)},
    **{f"length_{n}": replace(_PLAIN, length=n) for n in (4, 10, 20, 100)},
    **{f"angle_{a}": replace(_PLAIN, angle=a) for a in (0, 30, 50, 60, 75)},
    **{f"opacity_{o}": replace(_PLAIN, opacity=o) for o in (0.3, 0.5, 1.0)},
    **{f"blurred_{n}": replace(_PLAIN, count=n, profile="gaussian") for n in (3, 20)},
    "blurred_width_5": replace(_PLAIN, width=5, profile="gaussian"),
}
"""By the name of the mark; each differs from 20 plain strokes in what its name says."""


def strokes_part(model: Runner, setup: Setup) -> Iterator[Mark]:
    """The share of the strokes' light that remains, and what is changed where there are none."""
    if model.scale != 1:
        return
    dry = {
        path.stem: pictures.read(path)
        for path in backgrounds(setup.data)[:: 3 if setup.extent.every > 1 else 1]
    }
    for name in setup.extent.strokes or FIELDS:
        strokes = FIELDS[name]
        left = {item: _left(model, image, strokes, item) for item, image in dry.items()}
        yield marks.share(f"strokes/{name}", left)
    few = {
        item: _left_in_stream(model, image, FIELDS["count_3"], item) for item, image in dry.items()
    }
    yield marks.share("strokes/stream_3", few)
    yield marks.mean("strokes/invented", {n: _invented(model, image) for n, image in dry.items()})


def backgrounds(data: Path) -> list[Path]:
    """Dry pictures of three sets that no network was trained on."""
    streets = pictures.find_pictures(data / "roadscene/test/target")[::10]
    photos = [p for p in pictures.list_pictures(data / "rain100l/test") if "norain" in p.stem]
    people = pictures.find_pictures(data / "detection/pennfudan/images")
    return [
        path for three in zip(streets, photos[::13], people[::15], strict=False) for path in three
    ]


def drawn(
    dry: Image, strokes: Strokes, name: str, frame: int = 0
) -> tuple[Image, NDArray[np.bool_]]:
    """A picture with strokes, always the same for its name and frame, and where they are."""
    seed = zlib.crc32(name.encode())
    # Slanted to either side, like rain.
    angle = strokes.angle if seed % 2 else -strokes.angle
    rainy, mask = draw_strokes(
        dry, strokes.count, width=strokes.width, length=strokes.length, angle=angle,
        opacity=strokes.opacity, profile=strokes.profile, seed=seed + frame,
    )  # fmt: skip
    return rainy, mask > _LIT


def _left(model: Runner, dry: Image, strokes: Strokes, name: str) -> tuple[float, float]:
    """The light under the strokes in the output, and in the input."""
    rainy, mask = drawn(dry, strokes, name)
    return _light(model.derain(rainy).image, rainy, dry, mask)


def _left_in_stream(model: Runner, dry: Image, strokes: Strokes, name: str) -> tuple[float, float]:
    """The same in the last of several frames of a camera that pans, with new strokes in each."""
    state = None
    width = dry.shape[1] - _PAN * (_STREAM_FRAMES - 1)
    for frame in range(_STREAM_FRAMES):
        seen = np.ascontiguousarray(dry[:, _PAN * frame :][:, :width])
        rainy, mask = drawn(seen, strokes, name, frame)
        result = model.derain(rainy, state)
        state = result.state
    return _light(result.image, rainy, seen, mask)


def _light(
    derained: Image, rainy: Image, dry: Image, mask: NDArray[np.bool_]
) -> tuple[float, float]:
    before = luma(dry)
    return float((luma(derained) - before)[mask].sum()), float((luma(rainy) - before)[mask].sum())


def _invented(model: Runner, dry: Image) -> float:
    """The share of a dry picture's pixels that were visibly changed."""
    change = np.abs(luma(model.derain(dry).image) - luma(dry))
    return float((change > _INVENTED).mean())
