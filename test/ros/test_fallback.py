"""The fallback publishes images while there is no node."""

from __future__ import annotations

from typing import Any

import numpy as np
from ros.desk import Desk, message, picture, pixels, until

from rain_removal_ros.ros.interfaces import IMAGE_FALLBACK

QUICK = ("-p", "silence_s:=0.2")


def start(desk: Desk, *arguments: str) -> Any:
    return desk.process(*arguments, module="rain_removal_ros.ros.tools.image_fallback")


def is_derained(received: Any) -> bool:
    return bool(pixels(received).mean() < 0.6 * picture().mean())


def test_derained_images_are_passed_on_and_those_of_the_camera_while_there_are_none(
    desk: Desk,
) -> None:
    start(desk, *QUICK)
    camera, node = desk.publisher("image"), desk.publisher("image_derained")
    always = desk.inbox("image_always")
    desk.listened(node)
    stamp_ns = 0

    def frame(*, derained: bool) -> list[Any]:
        """Send one more frame, and return all that has come out by now."""
        nonlocal stamp_ns
        stamp_ns += 33_000_000
        camera.publish(message(picture(), stamp_ns=stamp_ns))
        if derained:
            node.publish(message(picture() // 2, stamp_ns=stamp_ns))
        return list(always.messages)

    until(lambda: frame(derained=True), "a derained image")
    assert all(map(is_derained, always.messages))
    until(lambda: not is_derained(frame(derained=False)[-1]), "the camera's own")
    assert np.array_equal(pixels(always.messages[-1]), picture())
    until(lambda: is_derained(frame(derained=True)[-1]), "a derained image again")
    until(lambda: not camera.get_subscription_count(), "no more need of the camera")
    stamps = [(one.header.stamp.sec, one.header.stamp.nanosec) for one in always.messages]
    assert stamps == sorted(set(stamps))


def test_a_camera_whose_time_starts_again_is_followed(desk: Desk) -> None:
    start(desk, *QUICK)
    node, always = desk.publisher("image_derained"), desk.inbox("image_always")
    desk.listened(node)
    for stamp_ns in (60 * 10**9, 59 * 10**9, 10**9):
        sent = message(picture(), stamp_ns=stamp_ns)
        until(lambda sent=sent: node.publish(sent) or always.messages, "an image")
        if stamp_ns == 10**9:
            always.wait(lambda one: one.header.stamp.sec == 1)
    assert not any(one.header.stamp.sec == 59 for one in always.messages)


def test_nothing_is_subscribed_to_while_there_is_no_subscriber(desk: Desk) -> None:
    start(desk, *QUICK)
    node = desk.publisher("image_derained")
    until(lambda: desk.tools.count_publishers("image_always"), "the fallback")
    assert not node.get_subscription_count()
    desk.inbox("image_always")
    desk.listened(node)


def test_the_fallback_has_the_documented_topics(desk: Desk) -> None:
    start(desk)
    desk.inbox("image_always")
    until(lambda: desk.tools.count_subscribers("image"), "the camera to be listened to")
    known = {
        name
        for name, kinds in desk.tools.get_topic_names_and_types()
        if "sensor_msgs/msg/Image" in kinds
    }
    listed = [*IMAGE_FALLBACK.subscribed, *IMAGE_FALLBACK.published]
    assert known == {f"/{topic.name}" for topic in listed}
