"""Whatever the network does, frames pass through, or are dropped if so set."""

from __future__ import annotations

import shutil
import threading
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.pictures import jpeg_of_many_scans
from rcl_interfaces.msg import Log
from ros.desk import Desk, Faulty, Inbox, message, picture, pixels, until
from sensor_msgs.msg import CompressedImage, Image

from rain_removal_ros.codec import stamp_ns, write_compressed
from rain_removal_ros.engines.torch import TorchEngine

EXACT = {"engine.precision": "float32", "engine.threads": 1, "stream.scene_cut": 0.0}
QUICK = {**EXACT, "safety.retry_s": 0.02}


class Scene:
    """A node whose network fails on command, with a camera and a subscriber."""

    def __init__(self, desk: Desk, faulty: Faulty, parameters: Mapping[str, Any]) -> None:
        self.node = desk.derainer({"network.weights": str(faulty.weights), **QUICK, **parameters})
        self.camera = desk.publisher()
        self.inbox: Inbox = desk.inbox()
        desk.listened(self.camera)
        self._stamp_ns = 0

    def send(self) -> Any:
        self._stamp_ns += 33_000_000
        sent = message(picture(), stamp_ns=self._stamp_ns)
        self.camera.publish(sent)
        return sent

    def send_and_receive(self) -> Any:
        """Send one more frame, and return what comes out for it."""
        sent = self.send()
        return self.inbox.wait(lambda one: one.header == sent.header)

    def until_derained(self) -> None:
        until(lambda: is_derained(self.send_and_receive()), "a derained frame")

    @property
    def summary(self) -> Any:
        return self.node.statistics[0].summary()


def is_derained(received: Any) -> bool:
    return bool(pixels(received).mean() < 0.6 * picture().mean())


def packed(*, stamp_ns: int) -> CompressedImage:
    """The test picture as a compressed message."""
    built = CompressedImage()
    header = message(picture(), stamp_ns=stamp_ns).header
    write_compressed(built, picture(), format="png", quality=90, header=header)
    return built


def accounted(summary: Any) -> bool:
    return bool(summary.received == summary.published + summary.dropped.total())


def is_untouched(received: Any) -> bool:
    return np.array_equal(pixels(received), picture())


@pytest.mark.parametrize("order", ["raise", "nan", "memory"])
def test_frames_pass_through_while_the_network_fails(
    desk: Desk, faulty: Faulty, order: str
) -> None:
    scene = Scene(desk, faulty, {})
    scene.until_derained()
    faulty.order(order)
    for _ in range(5):
        assert is_untouched(scene.send_and_receive())
    assert scene.summary.faults["network"] >= 1
    faulty.order("")
    scene.until_derained()


def test_frames_are_dropped_while_the_network_fails_if_so_set(desk: Desk, faulty: Faulty) -> None:
    scene = Scene(desk, faulty, {"safety.on_fault": "drop"})
    until(lambda: scene.node.engine, "a loaded network")
    assert is_derained(scene.send_and_receive())
    faulty.order("raise")
    scene.send()
    until(lambda: scene.summary.dropped["fault"], "a dropped frame")
    assert all(map(is_derained, scene.inbox.messages))
    assert accounted(scene.summary)


def test_the_state_starts_afresh_after_a_fault(desk: Desk, faulty: Faulty) -> None:
    scene = Scene(desk, faulty, {})
    scene.until_derained()
    scene.send_and_receive()
    faulty.order("raise")
    scene.send_and_receive()
    faulty.order("")
    scene.until_derained()
    assert scene.summary.last_reset in ("fault", "start")
    assert scene.summary.resets.total() == 2


def test_frames_pass_through_while_the_network_hangs(desk: Desk, faulty: Faulty) -> None:
    scene = Scene(desk, faulty, {"safety.watchdog_s": 1.0})
    scene.until_derained()
    faulty.order("hang")
    hung = scene.send()
    until(lambda: scene.summary.faults["hung"], "the watchdog")
    for _ in range(5):
        assert is_untouched(scene.send_and_receive())
    assert not any(one.header == hung.header for one in scene.inbox.messages)
    faulty.order("")
    scene.until_derained()
    # The hung frame has come back by now, and was not published.
    stamps = [stamp_ns(one.header) for one in scene.inbox.messages]
    assert stamps == sorted(stamps)
    until(lambda: accounted(scene.summary), "an account of every frame")


def test_frames_are_derained_while_one_is_still_being_decoded(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer(
        {
            "network.weights": str(faulty.weights),
            **QUICK,
            "input.transport": "compressed",
            "safety.watchdog_s": 0.5,
            "limits.jpeg_scans": 10_000,
        }
    )
    camera, derained = desk.publisher("image/compressed", CompressedImage), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    engine = node.engine
    slow = CompressedImage(format="jpeg", data=array("B", jpeg_of_many_scans(2048, 2048, 4000)))
    camera.publish(slow)
    until(lambda: node.statistics[0].summary().faults["hung"], "the watchdog")
    whole = packed(stamp_ns=10**9)
    camera.publish(whole)
    assert is_derained(derained.wait(lambda one: one.header == whole.header))
    assert node.engine is engine
    assert not any(one.header == slow.header for one in derained.messages)
    assert node.statistics[0].summary().dropped["hung"] == 1
    until(lambda: accounted(node.statistics[0].summary()), "an account of every frame")


def test_frames_pass_through_beyond_the_memory_limit(desk: Desk, faulty: Faulty) -> None:
    scene = Scene(desk, faulty, {"safety.memory_mb": 1, "safety.on_fault": "drop"})
    until(lambda: scene.node.engine, "a loaded network")
    until(
        lambda: is_untouched(scene.send_and_receive()) and scene.summary.passed["over memory"],
        "a frame",
    )
    assert not scene.summary.faults


def test_frames_pass_through_until_missing_weights_appear(
    desk: Desk, faulty: Faulty, tmp_path: Path
) -> None:
    missing = tmp_path / "later.safetensors"
    scene = Scene(desk, faulty, {"network.weights": str(missing)})
    assert is_untouched(scene.send_and_receive())
    missing.write_bytes(faulty.weights.read_bytes()[:100])
    assert is_untouched(scene.send_and_receive())
    draft = tmp_path / "draft"
    shutil.copy(faulty.weights, draft)
    draft.replace(missing)
    scene.until_derained()


@pytest.mark.parametrize("kind", [Image, CompressedImage])
def test_a_loading_network_is_tried_at_the_size_of_arriving_frames(
    desk: Desk, faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    tried: list[tuple[int, ...]] = []
    step = TorchEngine.step

    def recorded_call(self: TorchEngine, images: Any, *others: Any, **more: Any) -> Any:
        if threading.current_thread().name == "load":
            tried.extend(image.shape[:2] for image in images)
        return step(self, images, *others, **more)

    monkeypatch.setattr(TorchEngine, "step", recorded_call)
    later = tmp_path / "later.safetensors"
    node = desk.derainer({"network.weights": str(later), **QUICK})
    topic = "image" if kind is Image else "image/compressed"
    camera, inbox = desk.publisher(topic, kind), desk.inbox()
    desk.listened(camera)
    sent = message(picture())
    if kind is CompressedImage:
        packed = CompressedImage()
        write_compressed(packed, picture(), format="png", quality=90, header=sent.header)
        camera.publish(packed)
    else:
        camera.publish(sent)
    inbox.wait()
    faulty.weights.replace(later)
    until(lambda: node.engine, "a loaded network")
    assert tried == [(48, 64)]


def test_a_slow_network_is_degraded_and_a_fast_one_restored(desk: Desk, faulty: Faulty) -> None:
    slow = faulty.saved(stages=2)
    parameters = {
        "network.weights": str(slow),
        "safety.budget_ms": 40.0,
        "safety.watchdog_s": 5.0,
    }
    said = desk.inbox("/rosout", Log)
    scene = Scene(desk, faulty, parameters)
    scene.until_derained()

    def wait_for_rung(rung: str) -> None:
        until(lambda: scene.send_and_receive() and scene.node.rung.name == rung, rung)

    wait_for_rung("full")
    faulty.order("slow 0.03")
    wait_for_rung("1 stage")
    line = said.wait(lambda log: "now at" in log.msg).msg
    took_ms, rung = line.removeprefix("frames take ").split(" ms, more than 40: now at ")
    assert (int(took_ms) > 40, rung) == (True, "1 stage"), line
    assert is_derained(scene.send_and_receive())
    faulty.order("slow 0.1")
    wait_for_rung("half size")
    assert is_derained(scene.send_and_receive())
    faulty.order("slow 2")
    wait_for_rung("passthrough")
    assert is_untouched(scene.send_and_receive())
    faulty.order("")
    wait_for_rung("quarter size")
    assert is_derained(scene.send_and_receive())
