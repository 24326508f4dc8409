"""Recordings: every storage is read, damaged files too; written ones are complete and exact."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import ODD, STEP_NS, Entry, stamp
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionMode, Reader, StoragePlugin
from rosbags.typesys import Stores, get_typestore

from rain_removal_ros import codec, engines, networks
from rain_removal_ros.bags import create, find_recordings, open_recording
from rain_removal_ros.bags.frame_scores import FrameScorer
from rain_removal_ros.bags.messages import Channel, decoded
from rain_removal_ros.bags.node_bench import attempts
from rain_removal_ros.bags.replay_report import verdict
from rain_removal_ros.bags.replaying import Replayed, ReplayOptions, replay
from rain_removal_ros.engines import Derained, Engine, EngineInfo
from rain_removal_ros.errors import BagError, EngineError, SettingsError
from rain_removal_ros.frames import Frame
from rain_removal_ros.settings import EngineSettings, NetworkSettings, Settings, build

REPOSITORY = Path(__file__).resolve().parents[2]


class PassThrough:
    """An engine that passes frames through, enlarged by ``scale``."""

    def __init__(self, scale: int = 1) -> None:
        self.info = EngineInfo("handing on", "none", "cpu", "uint8", scale=scale)

    def step(
        self,
        images: Sequence[np.ndarray],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[np.ndarray | None] | None = None,
    ) -> list[Derained]:
        results = []
        for image, target in zip(images, into or [None] * len(images), strict=True):
            derained = image.repeat(self.info.scale, 0).repeat(self.info.scale, 1)
            if target is not None:
                target[...] = derained
                derained = target
            results.append(Derained(derained, np.zeros(image.shape[:2], np.uint8), None, None))
        return results


@pytest.fixture(scope="module")
def engine() -> Engine:
    """A small network, untrained."""
    network = networks.create("rainstream", channels=8, blocks=1)
    return engines.create(network, EngineSettings(device="cpu", precision="float32"))


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return recordings.write(tmp_path / "bag", recordings.entries())


def read_by_us(path: Path) -> list[Entry]:
    """The messages that this package reads."""
    with open_recording(path) as recording:
        return [Entry(m.channel.topic, m.stamp_ns, bytes(m.data)) for m in recording.messages()]


def read_by_rosbags(path: Path) -> list[Entry]:
    """The messages that rosbags reads."""
    with Reader(path) as reader:
        return [Entry(c.topic, stamp_ns, bytes(data)) for c, stamp_ns, data in reader.messages()]


def run(source: Path, out: Path, engine: Any, **options: Any) -> Replayed:
    return replay(source, out, engine, Settings(), ReplayOptions(**options))


def images(path: Path, topic: str) -> list[np.ndarray]:
    with open_recording(path) as recording:
        found = [c for c in recording.channels if c.topic == topic]
        return [codec.decode(decoded(m.channel, m.data)).image for m in recording.messages(found)]


# --- Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("compression", list(CompressionMode))
@pytest.mark.parametrize("metadata", ["with metadata", "without"])
def test_every_storage_and_compression_gives_the_same_messages(
    tmp_path: Path, storage: StoragePlugin, compression: CompressionMode, metadata: str
) -> None:
    if storage is StoragePlugin.SQLITE3 and compression is CompressionMode.STORAGE:
        pytest.skip("SQLite has no compression of its own")
    written = recordings.entries()
    bag = recordings.write(tmp_path / "bag", written, storage=storage, compression=compression)
    if metadata == "without":
        (bag / "metadata.yaml").unlink()
    with open_recording(bag) as recording:
        assert recording.counts.total() == len(written)
        assert (recording.start_ns, recording.end_ns) == (stamp(0), stamp(5) + 2)
        assert bool(recording.losses) == (metadata == "without")
    assert read_by_us(bag) == written


def test_the_files_of_a_split_recording_are_read_as_one(tmp_path: Path) -> None:
    written = recordings.entries()
    bag = recordings.split(tmp_path / "bag", written)
    assert read_by_us(bag) == written
    assert find_recordings(tmp_path) == [bag]
    (bag / "metadata.yaml").unlink()
    assert read_by_us(bag) == written
    assert find_recordings(tmp_path) == [bag]


def test_a_missing_file_of_a_split_recording_is_reported_and_the_rest_read(tmp_path: Path) -> None:
    bag = recordings.split(tmp_path / "bag", recordings.entries())
    (bag / "bag_0.mcap").unlink()
    with open_recording(bag) as recording:
        assert "bag_0.mcap is missing" in recording.losses
        assert recording.counts.total() == 9


def test_a_type_spelled_without_msg_is_the_same_type(tmp_path: Path) -> None:
    from mcap.writer import CompressionType
    from mcap.writer import Writer as McapWriter

    path = tmp_path / "old.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file, compression=CompressionType.LZ4)
        writer.start(profile="")
        schema = writer.register_schema("sensor_msgs/Image", "ros2msg", b"uint8 wrong\n")
        channel = writer.register_channel("/image", "cdr", schema)
        data = recordings.image(recordings.picture(0), stamp(0))
        writer.add_message(channel, stamp(0), data, stamp(0))
        writer.finish()
    with open_recording(path) as recording:
        (message,) = recording.messages()
        assert message.channel.msgtype == "sensor_msgs/msg/Image"
        assert bytes(message.data) == data


def test_a_recording_of_a_real_camera_is_replayed(
    shared_data: Path, tmp_path: Path, engine: Engine
) -> None:
    source = shared_data / "bags" / "soccer_goal_12.mcap"
    done = run(source, tmp_path / "out", engine)
    assert (done.frames, done.losses) == (2, [])
    first, second = images(tmp_path / "out", "/camera/image_derained")
    assert first.shape == second.shape == (480, 640, 3)


def test_a_ros_1_bag_is_replayed_into_a_ros_2_recording(tmp_path: Path, engine: Engine) -> None:
    source = ros_1_bag(tmp_path / "old.bag", frames=3)
    done = run(source, tmp_path / "out", engine)
    assert done.frames == 3
    with AnyReader([tmp_path / "out"]) as reader:
        found = {}
        for connection, _, data in reader.messages():
            found[connection.topic] = reader.deserialize(data, connection.msgtype)
    assert found["/camera/image_raw"].header.stamp.sec == stamp(2) // 1_000_000_000
    assert found["/camera/image_derained"].width == 64
    assert found["/named"].count == 2
    assert found["/named"].header.frame_id == "somewhere"


def ros_1_bag(path: Path, *, frames: int) -> Path:
    from rosbags.typesys import get_types_from_msg

    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg("Header header\nint32 count\n", "their_msgs/msg/Named"))
    time, head = store.types["builtin_interfaces/msg/Time"], store.types["std_msgs/msg/Header"]
    with Ros1Writer(path) as writer:
        camera = writer.add_connection(
            "/camera/image_raw", "sensor_msgs/msg/Image", typestore=store
        )
        named = writer.add_connection("/named", "their_msgs/msg/Named", typestore=store)
        for index in range(frames):
            sec, nanosec = divmod(stamp(index), 1_000_000_000)
            header = head(seq=index, stamp=time(sec=sec, nanosec=nanosec), frame_id="somewhere")
            image = store.types["sensor_msgs/msg/Image"](
                header=header, height=48, width=64, encoding="rgb8", is_bigendian=0, step=192,
                data=recordings.picture(index).reshape(-1),
            )  # fmt: skip
            writer.write(camera, stamp(index), store.serialize_ros1(image, "sensor_msgs/msg/Image"))
            other = store.types["their_msgs/msg/Named"](header=header, count=index)
            writer.write(
                named, stamp(index) + 1, store.serialize_ros1(other, "their_msgs/msg/Named")
            )
    return path


# --- Damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[CompressionMode.NONE, CompressionMode.STORAGE])
def whole_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MCAP file of several chunks."""
    folder = tmp_path_factory.mktemp("whole") / "bag"
    written = recordings.entries(40, width=128, height=96)
    recordings.write(folder, written, compression=request.param)
    return recordings.storage_file(folder)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0.0, 0.999))
def test_a_truncated_file_gives_its_intact_messages(
    whole_file: Path, tmp_path: Path, share: float
) -> None:
    written = recordings.entries(40, width=128, height=96)
    path = tmp_path / "cut.mcap"
    whole = whole_file.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    if share * len(whole) < 8:
        with pytest.raises(BagError, match=r"cut\.mcap is no MCAP file"):
            open_recording(path)
        return
    with open_recording(path) as recording:
        found = [Entry(m.channel.topic, m.stamp_ns, bytes(m.data)) for m in recording.messages()]
        assert recording.losses or found == written
    assert found == written[: len(found)]
    # At most the chunk that was not written yet and the record at the cut are lost.
    assert len(found) >= share * len(written) - 40


def test_a_truncated_uncompressed_file_loses_only_the_message_at_the_cut(tmp_path: Path) -> None:
    written = recordings.entries(10)
    bag = recordings.write(tmp_path / "bag", written)
    path = recordings.storage_file(bag)
    data = path.read_bytes()
    middle = data.index(written[15].data) + 100
    path.write_bytes(data[:middle])
    (bag / "metadata.yaml").unlink()
    assert read_by_us(bag) == written[:15]


def test_a_damaged_chunk_loses_only_its_own_messages(tmp_path: Path) -> None:
    from mcap.writer import CompressionType
    from mcap.writer import Writer as McapWriter

    path = tmp_path / "damaged.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file, chunk_size=20_000, compression=CompressionType.NONE)
        writer.start(profile="ros2")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"uint8 x\n")
        channel = writer.register_channel("/image", "cdr", schema)
        pictures = [recordings.image(recordings.picture(i), stamp(i)) for i in range(30)]
        for index, data in enumerate(pictures):
            writer.add_message(channel, stamp(index), data, stamp(index))
        writer.finish()
    damaged = bytearray(path.read_bytes())
    at = bytes(damaged).index(pictures[14][200:]) + 50
    damaged[at] ^= 0xFF
    path.write_bytes(damaged)
    with open_recording(path) as recording:
        stamps = [message.stamp_ns for message in recording.messages()]
        assert any("damaged" in loss for loss in recording.losses)
    missing = sorted(set(map(stamp, range(30))) - set(stamps))
    assert stamp(14) in missing
    assert len(missing) <= 3
    assert stamps == sorted(set(stamps))


def test_messages_outside_chunks_are_salvaged(tmp_path: Path) -> None:
    from mcap.writer import Writer as McapWriter

    path = tmp_path / "loose.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file, use_chunking=False)
        writer.start(profile="ros2")
        schema = writer.register_schema("std_msgs/msg/Float32", "ros2msg", b"float32 data\n")
        channel = writer.register_channel("/level", "cdr", schema)
        for index in range(50):
            writer.add_message(channel, stamp(index), bytes([0, 1, 0, 0, index, 0, 0, 0]), 0)
        writer.finish()
    data = path.read_bytes()
    path.write_bytes(data[: data.index(bytes([0, 1, 0, 0, 40, 0, 0, 0]))])
    assert [entry.data[4] for entry in read_by_us(path)] == list(range(40))


def test_a_truncated_sqlite_file_gives_its_intact_messages(tmp_path: Path, engine: Engine) -> None:
    written = recordings.entries(40)
    bag = recordings.write(tmp_path / "bag", written, storage=StoragePlugin.SQLITE3)
    path = recordings.storage_file(bag)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    done = run(bag, tmp_path / "out", engine)
    assert 10 < done.frames < 30
    assert any("damaged" in loss for loss in done.losses)


@pytest.mark.parametrize("name", ["bag.mcap", "bag.db3", "bag.bag"])
@pytest.mark.parametrize("data", [b"", b"no recording at all" * 100])
def test_a_file_that_is_not_a_recording_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BagError, match=name):
        open_recording(tmp_path / name)


def test_a_folder_or_path_without_a_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"holds no recording: no metadata\.yaml"):
        open_recording(tmp_path)
    with pytest.raises(BagError, match="there is no recording"):
        open_recording(tmp_path / "none")


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("index", ["with its index", "without"])
def test_a_time_range_of_a_recording_equals_what_rosbags_reads(
    tmp_path: Path, storage: StoragePlugin, index: str
) -> None:
    """The messages are shuffled, so they are neither sorted by topic nor by time."""
    written = recordings.entries(30)
    mixed = [written[place] for place in np.random.default_rng(0).permutation(len(written))]
    bag = recordings.write(tmp_path / "bag", mixed, storage=storage)
    expected = [e for e in read_by_rosbags(bag) if stamp(1) <= e.stamp_ns < stamp(20)]
    if index == "without" and storage is StoragePlugin.MCAP:
        path = recordings.storage_file(bag)
        path.write_bytes(path.read_bytes()[:-8])
    with open_recording(bag) as recording:
        assert len({channel.topic for channel in recording.channels}) == 3
        assert recording.counts.total() == len(written)
        found = recording.messages(start_ns=stamp(1), stop_ns=stamp(20))
        assert [Entry(m.channel.topic, m.stamp_ns, bytes(m.data)) for m in found] == expected
        assert recording.losses == []


# --- Replay --------------------------------------------------------------------------------------


def test_a_replay_copies_all_messages_and_adds_topics(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    done = run(bag, tmp_path / "out", engine)
    before, after = read_by_rosbags(bag), read_by_rosbags(tmp_path / "out")
    new = {
        "/camera/image_derained",
        "/camera/attention",
        "/camera/rain_level",
        "/camera/camera_info_derained",
    }
    assert [entry for entry in after if entry.topic not in new] == before
    for topic in new:
        added = [entry.stamp_ns for entry in after if entry.topic == topic]
        assert [stamp_ns // STEP_NS for stamp_ns in added] == [
            stamp(i) // STEP_NS for i in range(6)
        ]
    assert (done.frames, done.copied, done.losses) == (6, len(before), [])


def test_the_derained_image_keeps_stamp_frame_id_and_encoding(
    tmp_path: Path, engine: Engine
) -> None:
    pixels = recordings.picture(0)
    grey = [
        Entry("/camera/image_raw", stamp(1), recordings.image(pixels[..., 0], 5, encoding="mono8"))
    ]
    run(recordings.write(tmp_path / "bag", grey), tmp_path / "out", engine)
    with open_recording(tmp_path / "out") as recording:
        wanted = [c for c in recording.channels if c.topic == "/camera/image_derained"]
        (message,) = recording.messages(wanted)
        derained = decoded(message.channel, message.data)
    assert message.stamp_ns == stamp(1)
    assert (derained.encoding, derained.header.frame_id, derained.header.stamp.nanosec) == (
        "mono8", "camera", 5,
    )  # fmt: skip


def test_a_replay_gives_the_same_frames_as_a_stream(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    from rain_removal_ros.stream import Stream

    run(bag, tmp_path / "out", engine)
    stream = Stream(engine)
    for index, derained in enumerate(images(tmp_path / "out", "/camera/image_derained")):
        step = stream.step(Frame(recordings.picture(index), stamp(index)))
        assert np.array_equal(step.frame.image, derained)


def test_two_replays_of_a_recording_are_identical(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    for name in ("one", "two"):
        run(bag, tmp_path / name / "out", engine)
    one, two = (tmp_path / name / "out" for name in ("one", "two"))
    assert recordings.storage_file(one).read_bytes() == recordings.storage_file(two).read_bytes()
    assert (one / "metadata.yaml").read_bytes() == (two / "metadata.yaml").read_bytes()


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_the_mcap_library_reads_a_replay(
    bag: Path, tmp_path: Path, engine: Engine, compression: str
) -> None:
    from mcap.reader import make_reader

    run(bag, tmp_path / "out", engine, compression=compression)
    expected = read_by_us(tmp_path / "out")
    with recordings.storage_file(tmp_path / "out").open("rb") as file:
        by_mcap = [
            (channel.topic, message.log_time, message.data)
            for _, channel, message in make_reader(file, validate_crcs=True).iter_messages()
        ]
    assert by_mcap == [(entry.topic, entry.stamp_ns, entry.data) for entry in expected]


def test_rclpy_deserializes_the_messages_of_a_replay(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    serialization = pytest.importorskip("rclpy.serialization", reason="rclpy is not installed")
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Float32

    run(bag, tmp_path / "out", engine)
    kinds = {
        "/camera/image_derained": Image,
        "/camera/attention": Image,
        "/camera/rain_level": Float32,
        "/camera/camera_info_derained": CameraInfo,
    }
    read = {
        entry.topic: serialization.deserialize_message(entry.data, kinds[entry.topic])
        for entry in read_by_us(tmp_path / "out")
        if entry.topic in kinds
    }
    assert (read["/camera/image_derained"].width, read["/camera/attention"].encoding) == (
        64,
        "mono8",
    )
    assert 0 <= read["/camera/rain_level"].data <= 1
    assert read["/camera/camera_info_derained"].k[0] == 50.0


def test_an_output_name_ending_in_mcap_makes_a_single_file(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    run(bag, tmp_path / "out.mcap", engine)
    assert (tmp_path / "out.mcap").is_file()
    assert len(read_by_us(tmp_path / "out.mcap")) > len(read_by_rosbags(bag))


def test_derained_images_can_replace_the_rainy_ones(bag: Path, tmp_path: Path) -> None:
    run(bag, tmp_path / "out", PassThrough(2), in_place_of=("/camera/image_raw",))
    (first, *_) = images(tmp_path / "out", "/camera/image_raw")
    assert first.shape == (96, 128, 3)
    topics = {entry.topic for entry in read_by_us(tmp_path / "out")}
    assert topics == {
        "/camera/image_raw", "/camera/camera_info", "/camera/attention", "/camera/rain_level",
        "/odd",
    }  # fmt: skip
    with open_recording(tmp_path / "out") as recording:
        wanted = [c for c in recording.channels if c.topic == "/camera/camera_info"]
        info = [decoded(m.channel, m.data) for m in recording.messages(wanted)]
    assert len(info) == 6
    assert (info[0].width, info[0].k[0], info[0].k[2]) == (128, 100.0, 63.5)


def test_the_calibration_is_scaled_with_the_image(bag: Path, tmp_path: Path) -> None:
    run(bag, tmp_path / "out", PassThrough(2))
    with open_recording(tmp_path / "out") as recording:
        wanted = [c for c in recording.channels if c.topic == "/camera/camera_info_derained"]
        info = [decoded(m.channel, m.data) for m in recording.messages(wanted)]
    assert {(each.width, each.height) for each in info} == {(128, 96)}


def test_compressed_images_stay_compressed(tmp_path: Path, engine: Engine) -> None:
    topic = "/camera/image_raw/compressed"
    packed = [
        Entry(topic, stamp(i), recordings.compressed(recordings.picture(i), stamp(i)))
        for i in range(3)
    ]
    done = run(recordings.write(tmp_path / "bag", packed), tmp_path / "out", engine)
    assert done.cameras[0].clean_topic == "/camera/image_derained/compressed"
    found = images(tmp_path / "out", "/camera/image_derained/compressed")
    assert [image.shape for image in found] == [(48, 64, 3)] * 3


def test_only_the_raw_colour_topic_of_a_camera_is_derained(tmp_path: Path, engine: Engine) -> None:
    mixed = []
    for index in range(2):
        at = stamp(index)
        depth, pixels = np.ones((48, 64), np.float32), recordings.picture(index)
        mixed += [
            Entry("/camera/image_raw", at, recordings.image(pixels, at)),
            Entry("/camera/image_clean", at, recordings.image(pixels, at)),
            Entry("/camera/image_raw/compressed", at, recordings.compressed(pixels, at)),
            Entry("/camera/depth", at, recordings.image(depth, at, encoding="32FC1")),
        ]
    done = run(recordings.write(tmp_path / "bag", mixed), tmp_path / "out", engine)
    assert [camera.topic for camera in done.cameras] == ["/camera/image_raw"]


def test_a_replay_can_take_a_time_range_and_every_nth_frame(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    done = run(bag, tmp_path / "out", engine, start_s=0.05, duration_s=0.2, every=2)
    after = read_by_rosbags(tmp_path / "out")
    assert {entry.stamp_ns // STEP_NS for entry in after} == {
        stamp(i) // STEP_NS for i in range(1, 5)
    }
    derained = [entry.stamp_ns for entry in after if entry.topic == "/camera/image_derained"]
    assert derained == [stamp(1), stamp(3)]
    assert (done.frames, done.cameras[0].skipped) == (2, 2)


def test_a_start_beyond_the_end_is_refused(bag: Path, tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(BagError, match=r"is 0\.3 s long; start before that"):
        run(bag, tmp_path / "out", engine, start_s=10.0)


def test_the_error_for_a_wrong_topic_names_the_image_topics(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    with pytest.raises(
        BagError, match="/camera/image_row is not there; images are on /camera/image_raw"
    ):
        run(bag, tmp_path / "out", engine, topics=("/camera/image_row",))
    with pytest.raises(BagError, match="/odd is their_msgs/msg/Odd, no image"):
        run(bag, tmp_path / "out", engine, topics=("/odd",))
    assert not (tmp_path / "out").exists()


def test_the_error_for_a_recording_without_images_names_its_topics(
    tmp_path: Path, engine: Engine
) -> None:
    odd = [entry for entry in recordings.entries() if entry.topic == "/odd"]
    with pytest.raises(
        BagError, match=r"holds no camera images; topics: /odd \(their_msgs/msg/Odd\)"
    ):
        run(recordings.write(tmp_path / "bag", odd), tmp_path / "out", engine)


def test_a_replay_of_a_replay_needs_another_ending(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    run(bag, tmp_path / "once", engine)
    with pytest.raises(BagError, match=r"has a topic /camera/image_derained already.*--ending"):
        run(tmp_path / "once", tmp_path / "twice", engine)
    done = run(tmp_path / "once", tmp_path / "twice", engine, ending="again")
    assert [camera.clean_topic for camera in done.cameras] == ["/camera/image_again"]


def test_a_new_frame_size_restarts_the_stream(tmp_path: Path, engine: Engine) -> None:
    written = recordings.entries(2) + [
        replace(entry, stamp_ns=entry.stamp_ns + 2 * STEP_NS)
        for entry in recordings.entries(2, width=80, height=40)
    ]
    done = run(recordings.write(tmp_path / "bag", written), tmp_path / "out", engine)
    (camera,) = done.cameras
    assert camera.sizes == {"64x48": 2, "80x40": 2}
    assert camera.resets == {"start": 1, "another size": 1}


@pytest.mark.parametrize("place", ["beside", "in place"])
def test_an_unreadable_message_is_counted_and_copied(
    tmp_path: Path, engine: Engine, place: str
) -> None:
    written = recordings.entries()
    broken = written[3].data[:40]
    written[3] = replace(written[3], data=broken)
    bag = recordings.write(tmp_path / "bag", written)
    done = run(
        bag, tmp_path / "out", engine, in_place_of=("/camera/image_raw",) * (place == "in place")
    )
    assert (done.frames, done.cameras[0].unreadable) == (5, 1)
    assert "cannot be read" in done.cameras[0].last_fault
    passed = [e.data for e in read_by_rosbags(tmp_path / "out") if e.topic == "/camera/image_raw"]
    assert passed[1] == broken
    assert len(passed) == 6


def test_a_channel_without_a_definition_is_copied_and_readable(bag: Path, tmp_path: Path) -> None:
    """Older SQLite recordings store only the name of a type."""
    with create(tmp_path / "out") as output:
        for channel in (Channel("/odd", ODD), Channel("/level", "std_msgs/msg/Float32")):
            output.add(channel)
            output.write(channel, stamp(0), b"\x00\x01\x00\x00\x00\x00\x80\x3f")
    with AnyReader([tmp_path / "out"]) as reader:
        read = {c.topic: (c, bytes(data)) for c, _, data in reader.messages()}
        level = reader.deserialize(read["/level"][1], read["/level"][0].msgtype)
    assert level.data == 1.0
    assert read["/odd"][1].endswith(b"\x80\x3f")


def test_the_error_for_settings_that_a_replay_cannot_honour_names_them(
    bag: Path, tmp_path: Path
) -> None:
    late = build(Settings, {"input.max_age_ms": 100.0, "input.cameras": ["front"]})
    with pytest.raises(SettingsError, match=r"cannot honour input\.cameras, input\.max_age_ms: "):
        replay(bag, tmp_path / "out", PassThrough(), late)
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


class FailingEngine(PassThrough):
    """An engine that fails."""

    def step(self, *_: Any, **__: Any) -> list[Derained]:
        raise EngineError("no such luck")


def test_a_replay_in_which_every_frame_fails_raises_and_leaves_no_output(
    bag: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="no frame could be derained: no such luck"):
        run(bag, tmp_path / "out", FailingEngine())
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_output_compressed_adds_a_compressed_topic_for_a_raw_camera(
    bag: Path, tmp_path: Path
) -> None:
    both = build(Settings, {"output.compressed": True})
    replay(bag, tmp_path / "out", PassThrough(), both)
    found = images(tmp_path / "out", "/camera/image_derained/compressed")
    assert [image.shape for image in found] == [(48, 64, 3)] * 6


# --- Writing safely ------------------------------------------------------------------------------


def test_force_replaces_an_existing_recording_and_nothing_else(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    out = tmp_path / "out"
    run(bag, out, engine)
    before = recordings.storage_file(out).read_bytes()
    with pytest.raises(BagError, match=r"exists already.*--force"):
        run(bag, out, engine)
    assert recordings.storage_file(out).read_bytes() == before
    run(bag, out, engine, force=True, every=2)
    assert len(recordings.storage_file(out).read_bytes()) < len(before)
    (tmp_path / "home").mkdir()
    with pytest.raises(BagError, match="is not a recording; --force replaces recordings only"):
        run(bag, tmp_path / "home", engine, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "home", "out"]


def test_writing_into_the_source_recording_is_refused(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / "link").symlink_to(bag)
    for out in (bag, bag / "inside", tmp_path / "link"):
        with pytest.raises(BagError, match="which is read; choose another"):
            run(bag, out, engine, force=True)


def test_an_interrupted_replay_leaves_no_output(bag: Path, tmp_path: Path, engine: Engine) -> None:
    def fail(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(bag, tmp_path / "out", engine, Settings(), progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_a_full_disk_gives_a_one_line_error_and_leaves_no_output(bag: Path, tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "from rain_removal_ros.bags import create, open_recording\n"
        "from rain_removal_ros.errors import BagError\n"
        "source, out = map(Path, sys.argv[1:])\n"
        "try:\n"
        "    with open_recording(source) as recording, create(out) as output:\n"
        "        for message in recording.messages():\n"
        "            output.add(message.channel)\n"
        "            output.write(message.channel, message.stamp_ns, message.data)\n"
        "except BagError as error:\n"
        "    print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, bag, tmp_path / "out"],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert ended.stdout == f"cannot write {tmp_path / 'out'}: File too large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


@pytest.fixture
def writer_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is still writing ``out``."""
    script = (
        "import sys; from pathlib import Path\n"
        "from rain_removal_ros.bags import create\n"
        "with create(Path(sys.argv[1])) as output:\n"
        "    print('begun', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "out"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    yield process
    process.kill()
    process.communicate()


def test_two_processes_cannot_write_the_same_recording(
    writer_process: subprocess.Popen[str], bag: Path, tmp_path: Path, engine: Engine
) -> None:
    with pytest.raises(BagError, match="another run is writing"):
        run(bag, tmp_path / "out", engine)


def test_the_partial_output_of_a_killed_run_is_removed(
    writer_process: subprocess.Popen[str], bag: Path, tmp_path: Path, engine: Engine
) -> None:
    writer_process.send_signal(signal.SIGKILL)
    writer_process.wait()
    assert (tmp_path / ".out.partial").exists()
    assert run(bag, tmp_path / "out", engine).frames == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "out"]


# --- Scoring -------------------------------------------------------------------------------------


def test_a_recording_with_references_is_scored_frame_by_frame(tmp_path: Path) -> None:
    """The engine changes nothing. References come just before or just after their frames."""
    written = []
    for index in range(4):
        at, pixels = stamp(index), recordings.picture(index)
        reference = recordings.image(np.minimum(pixels, 200), at)
        written += [
            Entry("/camera/image_raw", at, recordings.image(pixels, at)),
            Entry("/camera/image_clean", at + (1 if index % 2 else -1), reference),
        ]
    bag = recordings.write(tmp_path / "bag", written)
    scorer = FrameScorer()
    replay(bag, tmp_path / "out", PassThrough(), Settings(), observer=scorer)
    (scores,) = scorer.scores().values()
    assert [score.psnr_before for score in scores] == [score.psnr_after for score in scores]
    assert all(20 < (score.psnr_after or 0) < 60 for score in scores)
    assert [score.changed for score in scores] == [0.0] * 4
    figures = scorer.summary()["/camera/image_raw"]
    assert figures["steadiness"] == 1.0
    assert verdict(figures) == "neither better nor worse than the input"
    assert all(moment.truth is not None for moment in scorer.moments("/camera/image_raw"))


def test_a_recording_without_references_gets_a_verdict_from_its_rain_level(
    bag: Path, tmp_path: Path, engine: Engine
) -> None:
    scorer = FrameScorer()
    replay(bag, tmp_path / "out", engine, Settings(), observer=scorer)
    figures = scorer.summary()["/camera/image_raw"]
    assert figures["psnr_after"] is None
    assert figures["frames"] == 6
    assert 0 <= figures["rain_after"] <= 1
    times = [figures[f"network_ms_{name}"] for name in ("median", "p95", "p99", "max")]
    assert times == sorted(times)
    assert times[0] > 0
    assert "rain" in verdict(figures)


def test_the_scorer_keeps_few_moments_with_the_worst_first(tmp_path: Path) -> None:
    scorer = FrameScorer()
    truth = recordings.picture(0)
    for index in range(100):
        after = truth.copy()
        after[: index % 40] = 0
        frame = Frame(truth, stamp(index))
        scorer.note_truth("/camera", frame)
        scorer.note("/camera", frame, after, compared=True)
    moments = scorer.moments("/camera")
    assert len(moments) <= 20
    worst = scorer._cameras["/camera"].worst
    assert moments[: len(worst)] == worst
    losses = [moment.score.badness for moment in worst]
    assert losses == sorted(losses, reverse=True)
    # Frames next to a bad one are as bad, and show nothing new.
    times = sorted(moment.score.stamp_ns / 1e9 for moment in worst)
    assert len(times) >= 3
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 1
    assert losses[0] == max(score.badness for score in scorer.scores()["/camera"])


def test_attempts_are_parsed_as_yaml_with_an_empty_value_as_an_empty_string() -> None:
    base = Settings(network=NetworkSettings(weights="mine.safetensors"))
    wanted = "other, slow:network.name=prenet,network.weights=,stream.strength=0.5"
    (attempt,) = attempts(base, [wanted])
    assert attempt.name == "other, slow"
    assert (attempt.settings.network.name, attempt.settings.network.weights) == ("prenet", "")
    assert attempt.settings.stream.strength == 0.5
    with pytest.raises(BagError, match="not 'a:b'"):
        attempts(base, ["a:b"])


# --- Long recordings -----------------------------------------------------------------------------


@pytest.mark.slow
def test_replaying_20000_frames_takes_less_than_a_gibibyte(tmp_path: Path) -> None:
    pixels = recordings.picture(0)
    written = (
        Entry("/camera/image_raw", stamp(i), recordings.image(pixels, stamp(i)))
        for i in range(20_000)
    )
    bag = recordings.write(tmp_path / "bag", written)  # type: ignore[arg-type]
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from rain_removal_ros import engines, networks\n"
        "from rain_removal_ros.bags.frame_scores import FrameScorer\n"
        "from rain_removal_ros.bags.replaying import replay\n"
        "from rain_removal_ros.settings import EngineSettings, Settings\n"
        "network = networks.create('rainstream', channels=8, blocks=1)\n"
        "engine = engines.create(network, EngineSettings(device='cpu'))\n"
        "source, out = map(Path, sys.argv[1:])\n"
        "done = replay(source, out, engine, Settings(), observer=FrameScorer())\n"
        "print(done.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, bag, tmp_path / "out"],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    frames, kibibytes = map(int, ended.stdout.split())
    assert frames == 20_000
    assert kibibytes < 2**20
