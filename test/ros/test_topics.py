"""The node's topics: every frame comes out with its stamp, its frame id and what goes with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from ros.desk import Desk, Faulty, message, picture, pixels, until
from sensor_msgs.msg import CameraInfo, CompressedImage, RegionOfInterest
from std_msgs.msg import Float32

from rain_removal_ros import codec
from rain_removal_ros.camera_info import scaled
from rain_removal_ros.frames import Frame
from rain_removal_ros.settings import EngineSettings, NetworkSettings

EXACT = {"engine.precision": "float32", "engine.threads": 1}


def compressed(image: np.ndarray, *, stamp_ns: int = 1) -> CompressedImage:
    built = CompressedImage()
    header = message(image, stamp_ns=stamp_ns).header
    codec.write_compressed(built, image, format="png", quality=90, header=header)
    return built


def until_derained(inbox: Any, publisher: Any, sent: Any) -> Any:
    """The first derained message; frames pass through until the network is loaded."""

    def derained_one() -> Any:
        inbox.clear()
        publisher.publish(sent)
        received = inbox.wait()
        change = np.abs(pixels(received).astype(int).mean() - pixels(sent).mean())
        return received if change > 10 else None

    return until(derained_one, "a derained frame")


def test_a_frame_passes_through_while_deraining_is_off(desk: Desk) -> None:
    desk.derainer({"bypass.mode": "always"})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    sent = message(picture(), stamp_ns=5_000_000_007, encoding="bgr8", frame="front")
    camera.publish(sent)
    assert derained.wait() == sent


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_a_derained_frame_keeps_its_stamp_frame_id_and_encoding(
    desk: Desk, faulty: Faulty, encoding: str
) -> None:
    desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    grey = picture()[..., :1].repeat(3, axis=2)
    sent = message(grey, stamp_ns=5_000_000_007, encoding=encoding, frame="front")
    received = until_derained(derained, camera, sent)
    assert received.header == sent.header
    assert received.encoding == encoding
    assert np.abs(pixels(received).astype(int) - grey / 2).max() <= 1


def test_the_node_gives_the_results_of_a_stream(desk: Desk, weights: Any) -> None:
    from rain_removal_ros import engines
    from rain_removal_ros.stream import Stream

    node = desk.derainer({"network.weights": str(weights), **EXACT, "stream.scene_cut": 0.0})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    stream = Stream(
        engines.load(
            NetworkSettings(weights=str(weights)), EngineSettings(precision="float32", threads=1)
        )
    )
    stream.settings = node.settings.stream
    for index in range(3):
        sent = message(picture(index), stamp_ns=index * 33_000_000)
        camera.publish(sent)
        received = derained.wait(lambda one, sent=sent: one.header == sent.header)
        expected = stream.step(Frame(picture(index), stamp_ns=index * 33_000_000))
        assert np.array_equal(pixels(received), expected.frame.image)


def test_calibration_attention_and_rain_level_are_published_with_the_image(
    desk: Desk, faulty: Faulty
) -> None:
    desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, infos = desk.publisher(), desk.publisher("camera_info", CameraInfo)
    derained, attention = desk.inbox(), desk.inbox("attention")
    info, level = desk.inbox("camera_info_derained", CameraInfo), desk.inbox("rain_level", Float32)
    desk.listened(camera)
    desk.listened(infos)
    sent = message(picture(), stamp_ns=5_000_000_007, frame="front")
    calibration = CameraInfo(
        header=sent.header, width=64, height=48, k=[float(i) for i in range(9)]
    )
    infos.publish(calibration)
    until_derained(derained, camera, sent)
    assert info.wait() == calibration
    seen = attention.wait()
    assert (seen.encoding, seen.header) == ("mono8", sent.header)
    assert set(seen.data) == {128}
    assert 0 < level.wait(lambda one: one.data > 0).data <= 1


def test_attention_can_be_drawn_over_the_frame(desk: Desk, faulty: Faulty) -> None:
    desk.derainer({"network.weights": str(faulty.weights), "output.attention": "overlay", **EXACT})
    camera, derained, attention = desk.publisher(), desk.inbox(), desk.inbox("attention")
    desk.listened(camera)
    until_derained(derained, camera, message(picture()))
    red, green, _ = pixels(attention.wait()).reshape(-1, 3).mean(axis=0)
    assert red > green + 50


def test_compressed_images_are_received_and_published(desk: Desk, faulty: Faulty) -> None:
    desk.derainer({"network.weights": str(faulty.weights), "output.compressed": True, **EXACT})
    camera = desk.publisher("image/compressed", CompressedImage)
    derained, small = desk.inbox(), desk.inbox("image_derained/compressed", CompressedImage)
    desk.listened(camera)
    flat = np.full((48, 64, 3), 200, np.uint8)
    sent = compressed(flat, stamp_ns=7)
    received = until_derained(derained, camera, sent)
    assert (received.encoding, received.header) == ("rgb8", sent.header)
    small.wait(lambda one: abs(pixels(one).mean() - 100) < 3)


def test_frames_pass_through_to_raw_and_compressed_topics(desk: Desk) -> None:
    desk.derainer({"bypass.mode": "always", "output.compressed": True, "input.transport": "raw"})
    camera = desk.publisher()
    derained, small = desk.inbox(), desk.inbox("image_derained/compressed", CompressedImage)
    desk.listened(camera)
    flat = np.full((48, 64, 3), 200, np.uint8)
    camera.publish(message(flat, stamp_ns=7))
    assert np.array_equal(pixels(derained.wait()), flat)
    assert abs(pixels(small.wait()).mean() - 200) < 3


def test_a_compressed_image_passes_through_as_the_same_message(desk: Desk) -> None:
    desk.derainer({"bypass.mode": "always", "output.compressed": True})
    camera = desk.publisher("image/compressed", CompressedImage)
    derained, small = desk.inbox(), desk.inbox("image_derained/compressed", CompressedImage)
    desk.listened(camera)
    sent = compressed(picture(), stamp_ns=7)
    camera.publish(sent)
    assert small.wait() == sent
    assert np.array_equal(pixels(derained.wait()), picture())


def test_names_follow_namespace_and_remapping(desk: Desk) -> None:
    desk.derainer(
        {"bypass.mode": "always", "input.cameras": ["front", "rear"]},
        remap={"__ns": "/robot", "front/image": "/driver/image_raw"},
    )
    front, rear = desk.publisher("/driver/image_raw"), desk.publisher("/robot/rear/image")
    derained = {name: desk.inbox(f"/robot/{name}/image_derained") for name in ("front", "rear")}
    for camera in (front, rear):
        desk.listened(camera)
    front.publish(message(picture(1)))
    rear.publish(message(picture(2)))
    assert np.array_equal(pixels(derained["front"].wait()), picture(1))
    assert np.array_equal(pixels(derained["rear"].wait()), picture(2))


def test_one_node_gives_its_cameras_the_results_of_separate_nodes(desk: Desk, weights: Any) -> None:
    common = {"network.weights": str(weights), **EXACT, "stream.scene_cut": 0.0}
    names = ["one", "two"]
    together = desk.derainer({"input.cameras": names, **common}, remap={"__ns": "/together"})
    alone = [
        desk.derainer(common, remap={"__ns": f"/{name}", "image": f"/together/{name}/image"})
        for name in names
    ]
    cameras = [desk.publisher(f"/together/{name}/image") for name in names]
    shared = [desk.inbox(f"/together/{name}/image_derained") for name in names]
    single = [desk.inbox(f"/{name}/image_derained") for name in names]
    for node in (together, *alone):
        until(lambda node=node: node.engine, "a loaded network")
    for camera in cameras:
        until(lambda camera=camera: camera.get_subscription_count() == 2, "both nodes listen")
    for index in range(4):
        stamp_ns = index * 33_000_000
        for number, camera in enumerate(cameras):
            camera.publish(message(picture(10 * number + index), stamp_ns=stamp_ns))
        for one, other in zip(shared, single, strict=True):
            assert (
                np.abs(
                    pixels(one.count(index + 1)[-1]).astype(int)
                    - pixels(other.count(index + 1)[-1])
                ).max()
                <= 1
            )


def test_an_enlarging_network_enlarges_the_calibration_with_the_image(
    desk: Desk, faulty: Faulty
) -> None:
    desk.derainer({"network.weights": str(faulty.saved(scale=2)), **EXACT})
    camera, infos = desk.publisher(), desk.publisher("camera_info", CameraInfo)
    derained, info = desk.inbox(), desk.inbox("camera_info_derained", CameraInfo)
    desk.listened(camera)
    desk.listened(infos)
    sent = message(picture())
    infos.publish(CameraInfo(header=sent.header, width=64, height=48))
    received = until_derained(derained, camera, sent)
    assert (received.width, received.height) == (128, 96)
    assert info.wait(lambda one: one.width == 128).height == 96


def project(info: CameraInfo, point: np.ndarray) -> np.ndarray:
    """The pixel of the image that shows a point, as image_geometry computes it."""
    u, v, w = np.array(info.p).reshape(3, 4) @ [*point, 1.0]
    return np.array(
        [
            (u / w - info.roi.x_offset) / max(1, info.binning_x),
            (v / w - info.roi.y_offset) / max(1, info.binning_y),
        ]
    )


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("binning", [0, 2])
def test_an_enlarged_calibration_projects_points_to_the_enlarged_pixels(
    factor: int, binning: int
) -> None:
    small = CameraInfo(
        width=640,
        height=480,
        k=[500.0, 0.0, 320.5, 0.0, 510.0, 239.25, 0.0, 0.0, 1.0],
        p=[490.0, 0.0, 318.0, -55.0, 0.0, 495.0, 241.0, 3.0, 0.0, 0.0, 1.0, 0.0],
        d=[0.1, -0.2, 0.0, 0.0, 0.0],
        binning_x=binning,
        binning_y=binning,
        roi=RegionOfInterest(x_offset=32, y_offset=16, width=512, height=400),
    )
    large = scaled(small, factor)
    for point in np.random.default_rng(0).uniform([-1, -1, 2], [1, 1, 9], (20, 3)):
        before, after = project(small, point), project(large, point)
        assert np.allclose((before + 0.5) * factor - 0.5, after)
    assert (large.width, large.height) == (640 * factor, 480 * factor)
    assert (large.roi.width, large.roi.x_offset) == (512 * factor, 32 * factor)
    assert list(large.d) == list(small.d)
    assert small.k[2] == 320.5


def test_an_empty_calibration_stays_empty() -> None:
    assert not any(scaled(CameraInfo(width=64, height=48), 2).k)


def test_the_node_does_not_subscribe_while_it_has_no_subscriber(desk: Desk) -> None:
    node = desk.derainer({"bypass.mode": "always"})
    camera = desk.publisher()
    until(lambda: node.active, "an active node")
    assert camera.get_subscription_count() == 0
    derained = desk.inbox()
    desk.listened(camera)
    camera.publish(message(picture()))
    derained.wait()
    for subscription in list(desk.tools.subscriptions):
        desk.tools.destroy_subscription(subscription)
    until(lambda: not camera.get_subscription_count(), "the node to stop listening")


def test_keep_warm_runs_the_network_without_a_subscriber(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer(
        {"network.weights": str(faulty.weights), "output.keep_warm": True, **EXACT}
    )
    camera = desk.publisher()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    camera.publish(message(picture(), stamp_ns=5))
    until(lambda: node.statistics[0].summary().dropped["nobody subscribes"], "a frame for nobody")
    derained = desk.inbox()
    until(node.cameras[0].demand, "a subscriber")
    camera.publish(message(picture(), stamp_ns=33_000_005))
    derained.wait()
    # Only the first frame reset the state; the second did not start afresh.
    assert node.statistics[0].summary().resets.total() <= 1


def test_qos_overrides_apply_to_their_own_topics_only(desk: Desk) -> None:
    desk.derainer(
        {
            "bypass.mode": "always",
            "input.cameras": ["front", "rear"],
            "qos_overrides./front/image.subscription.reliability": "reliable",
            "qos_overrides./front/image_derained.publisher.depth": 7,
            "qos_overrides./front/image_derained.publisher.durability": "transient_local",
        }
    )
    inboxes = [desk.inbox(f"{name}/image_derained") for name in ("front", "rear")]
    assert inboxes

    def publisher_qos(topic: str) -> Any:
        infos = until(
            lambda: desk.tools.get_publishers_info_by_topic(topic), f"a publisher of {topic}"
        )
        return infos[0].qos_profile

    def subscription_qos(topic: str) -> Any:
        infos = until(
            lambda: desk.tools.get_subscriptions_info_by_topic(topic), f"a subscriber of {topic}"
        )
        return infos[0].qos_profile

    assert publisher_qos("/front/image_derained").durability is DurabilityPolicy.TRANSIENT_LOCAL
    assert publisher_qos("/rear/image_derained").durability is DurabilityPolicy.VOLATILE
    assert subscription_qos("/front/image").reliability is ReliabilityPolicy.RELIABLE
    assert subscription_qos("/rear/image").reliability is ReliabilityPolicy.BEST_EFFORT
    assert publisher_qos("/rear/image_derained").reliability is ReliabilityPolicy.RELIABLE


def test_large_best_effort_images_arrive_with_the_shipped_profile(desk: Desk) -> None:
    desk.process("-p", "bypass.mode:=always")
    camera, derained = desk.publisher(reliable=False), desk.inbox(reliable=False)
    desk.listened(camera)
    large = message(np.zeros((1080, 1920, 3), np.uint8))
    passed = 0
    for _ in range(10):
        derained.clear()
        camera.publish(large)
        passed += derained.any_within(10.0)
    # Without the profile, two in a hundred arrive at best.
    assert passed > 5
