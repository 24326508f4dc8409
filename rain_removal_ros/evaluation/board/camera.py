"""A still camera in front of a dry street for ten seconds: the picture should not change.

Carried state feeds back into itself, so a small error can grow from frame to frame. The same
picture is shown repeatedly, with carried state.
"""

from __future__ import annotations

from collections.abc import Iterator

from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation.board import marks
from rain_removal_ros.evaluation.board.marks import MOST_DB, Mark
from rain_removal_ros.evaluation.board.setup import Setup
from rain_removal_ros.frames import Image
from rain_removal_ros.media import pictures
from rain_removal_ros.metrics import luma, psnr

PALEST = "roadscene/test/target/001.jpg"
"""The dry picture whose darkest channel is brightest: bright concrete in the sun, which is easily
taken for a veil."""
SCENES = (
    "roadscene/test/target/004.jpg",
    "roadscene/test/target/014.jpg",
    "roadscene/test/target/032.jpg",
    "detection/carla/images/Town05_001980.jpg",
    "detection/carla/images/Town05_005160.jpg",
    "detection/carla/images/Town05_008880.jpg",
    "detection/carla/images/Town05_013560.jpg",
    "detection/pennfudan/images/FudanPed00001.jpg",
    "detection/pennfudan/images/FudanPed00037.jpg",
    "detection/pennfudan/images/PennPed00035.jpg",
)
_COUNTED = (20, 60, 300)
"""Numbers of frames after which the output is compared with the dry picture."""
_EVERY = 10
"""The worst frame is searched for among every tenth."""


def still_part(model: Runner, setup: Setup) -> Iterator[Mark]:
    """How close the picture stays to the dry one; nothing for networks that enlarge, which have no
    reference here.
    """
    if model.scale != 1:
        return
    scenes = {name: pictures.read(setup.data / name) for name in SCENES[:: setup.extent.every]}
    traces = {
        name: _watched(model, scene, setup.extent.still_frames) for name, scene in scenes.items()
    }
    yield marks.mean("still/first", {name: trace[1] for name, trace in traces.items()})
    palest = _watched(model, pictures.read(setup.data / PALEST), setup.extent.still_frames)
    for count in _COUNTED:
        if count <= setup.extent.still_frames:
            yield marks.mean(f"still/{count}", {n: trace[count] for n, trace in traces.items()})
            yield marks.mean(f"still/palest_{count}", {PALEST: palest[count]})
    yield marks.least(
        f"still/lost_{setup.extent.still_frames}",
        {n: min(t.values()) - t[1] for n, t in {**traces, PALEST: palest}.items()},
    )


def _watched(model: Runner, dry: Image, frames: int) -> dict[int, float]:
    """PSNR-Y to the dry picture, by the number of the frame, counted from 1."""
    state, found, truth = None, {}, luma(dry)
    for number in range(1, frames + 1):
        result = model.derain(dry, state)
        state = result.state
        if number == 1 or number % _EVERY == 0:
            found[number] = min(MOST_DB, psnr(luma(result.image), truth))
    return found
