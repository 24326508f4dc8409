"""Frames pass through in clear weather, and are derained in rain."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from ros.desk import Desk, Faulty, message, pixels, until
from std_msgs.msg import Float32

from rain_removal_ros.data import rain

EXACT = {"engine.precision": "float32", "engine.threads": 1, "stream.scene_cut": 0.0}


def scene(count: int, *, height: int = 240, width: int = 320) -> list[np.ndarray]:
    noise = np.random.default_rng(5).normal(size=(height, width + 60)).astype(np.float32)
    whole = 128 + sum(40 * size * cv2.GaussianBlur(noise, (0, 0), size) for size in (2, 4, 8))
    grey = np.clip(whole, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    return [np.ascontiguousarray(grey[:, t : t + width]) for t in range(count)]


def rainy(clip: list[np.ndarray]) -> list[np.ndarray]:
    fallen = rain.sample(np.random.default_rng(1), severity=0.8)
    return list(rain.render_frames(np.stack(clip), fallen))


def test_deraining_starts_with_the_rain_and_stops_some_time_after_it(
    desk: Desk, faulty: Faulty
) -> None:
    node = desk.derainer(
        {
            "network.weights": str(faulty.weights),
            "bypass.mode": "auto",
            "bypass.hold_s": 0.05,
            **EXACT,
        }
    )
    camera, inbox, levels = desk.publisher(), desk.inbox(), desk.inbox("rain_level", Float32)
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    clear = scene(12)

    def is_derained(image: np.ndarray, index: int) -> Any:
        sent = message(image, stamp_ns=index * 33_000_000)
        camera.publish(sent)
        received = inbox.wait(lambda one: one.header == sent.header)
        return bool(pixels(received).mean() < 0.75 * image.mean())

    derained = [is_derained(image, index) for index, image in enumerate(clear)]
    assert not any(derained[2:])
    assert levels.messages[-1].data < node.settings.bypass.off_below
    derained = [is_derained(image, 20 + index) for index, image in enumerate(rainy(clear))]
    assert all(derained[6:])
    # Two views without rain take turns, for as long as it takes.
    numbers = iter(range(40, 4000))
    until(lambda: not is_derained(clear[(n := next(numbers)) % 2], n), "the end of the rain")
    assert node.statistics[0].summary().passed["no rain"]
