"""Hostile recordings: each is refused with one line, or its intact messages are read."""

from __future__ import annotations

import io
import sqlite3
import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
from recordings import stamp
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionMode

from rain_removal_ros.bags import find_recordings, open_recording
from rain_removal_ros.bags.messages import Channel, decoded, digest_of, qos_of
from rain_removal_ros.bags.unpacking import zstd
from rain_removal_ros.errors import BagError, FrameError
from rain_removal_ros.settings import LimitSettings

MAGIC = b"\x89MCAP0\r\n"
DATA = b"\x00\x01\x00\x00data"


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    """Every test must end soon: these recordings once took minutes, or all memory."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 60


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(body)) + body


SCHEMA = record(
    3,
    struct.pack("<H", 1) + text("std_msgs/msg/Float32") + text("ros2msg") + text(""),
)
CHANNEL = record(4, struct.pack("<HH", 1, 1) + text("/level") + text("cdr") + struct.pack("<I", 0))


def message(index: int, data: bytes = DATA) -> bytes:
    return record(5, struct.pack("<HIQQ", 1, index, stamp(index), stamp(index)) + data)


def chunk(
    content: bytes, *, said: int | None = None, how: str = "zstd", packed: Any = None
) -> bytes:
    size = len(content) if said is None else said
    packed = packed if packed is not None else zstd().compress(content) if how else content
    head = struct.pack("<QQQII", stamp(0), stamp(1), size, 0, len(how)) + how.encode()
    return record(6, head + struct.pack("<Q", len(packed)) + packed)


def mcap(path: Path, *records: bytes) -> Path:
    path.write_bytes(MAGIC + record(1, text("ros2") + text("")) + b"".join(records))
    return path


def compressed_zeros(size: int) -> bytes:
    """``size`` zeros, compressed without holding them all in memory."""
    packed = io.BytesIO()
    with zstd().open(packed, "wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return packed.getvalue()


def read(path: Path, limits: LimitSettings | None = None) -> tuple[list[bytes], list[str]]:
    with open_recording(path, limits) as recording:
        found = [bytes(each.data) for each in recording.messages()]
        return found, recording.losses


# --- Compression bombs ---------------------------------------------------------------------------


def test_a_compression_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mcap.zstd"
    path.write_bytes(compressed_zeros(4 << 30))
    assert path.stat().st_size < 500_000
    with pytest.raises(BagError, match=r"more than 1000 times its size; limits\.expansion"):
        open_recording(path)


def test_unpacked_files_of_a_bomb_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "bomb.mcap.zstd").write_bytes(compressed_zeros(1 << 28))
    mcap(tmp_path / "bag" / "good.mcap", SCHEMA, CHANNEL, message(0))
    with open_recording(tmp_path / "bag") as recording:
        assert any("limits.expansion" in loss for loss in recording.losses)
        assert [bytes(each.data) for each in recording.messages()] == [DATA]
        assert list(scratch.iterdir()) == []


def test_a_compressed_file_within_the_limits_is_read(tmp_path: Path) -> None:
    written = recordings.entries(3)
    bag = recordings.write(tmp_path / "bag", written, compression=CompressionMode.FILE)
    assert len(read(bag)[0]) == len(written)


def test_unpacking_is_refused_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = recordings.write(
        tmp_path / "bag", recordings.entries(3), compression=CompressionMode.FILE
    )
    usage = type("Usage", (), {"free": 1 << 20, "total": 1 << 40})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(BagError, match="is almost full; TMPDIR chooses another folder"):
        open_recording(bag)


@pytest.mark.parametrize("said", ["what it holds", "little"])
def test_a_chunk_bomb_is_not_unpacked_into_memory(tmp_path: Path, said: str) -> None:
    size = 1 << 30
    packed = compressed_zeros(size)
    path = mcap(
        tmp_path / "bomb.mcap",
        SCHEMA, CHANNEL, message(0),
        chunk(b"", said=size if said == "what it holds" else 1000, packed=packed),
        message(1),
    )  # fmt: skip
    tracemalloc.start()
    if said == "little":
        found, losses = read(path)
        assert found == [DATA, DATA]
        assert any("is damaged at byte" in loss for loss in losses)
    else:
        with pytest.raises(BagError, match=r"a chunk of 1074 MB; limits\.chunk_mb allows"):
            open_recording(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100e6


def test_chunks_that_together_expand_too_far_are_refused(tmp_path: Path) -> None:
    packed = compressed_zeros(64 << 20)
    chunks = [chunk(b"", said=64 << 20, packed=packed)] * 5
    path = mcap(tmp_path / "bomb.mcap", SCHEMA, CHANNEL, *chunks)
    with pytest.raises(BagError, match="unpacks to more than 1000 times its size"):
        open_recording(path)
    assert read(path, LimitSettings(expansion=100_000.0))[0] == []


def test_a_large_chunk_is_read_if_the_limit_allows_it(tmp_path: Path) -> None:
    path = mcap(tmp_path / "large.mcap", SCHEMA, CHANNEL, chunk(message(0, bytes(2_000_000))))
    assert len(read(path)[0][0]) == 2_000_000
    with pytest.raises(BagError, match=r"limits\.chunk_mb allows more than 1"):
        open_recording(path, LimitSettings(chunk_mb=1))


def test_a_message_that_is_a_bomb_is_returned_compressed(tmp_path: Path) -> None:
    packed = compressed_zeros(1 << 30)
    path = mcap(tmp_path / "bomb.mcap", SCHEMA, CHANNEL, message(0, packed), message(1))
    assert read(path)[0] == [packed, DATA]


def test_messages_that_together_expand_too_far_are_refused(tmp_path: Path) -> None:
    packed = compressed_zeros(32 << 20)
    path = mcap(tmp_path / "bomb.mcap", SCHEMA, CHANNEL, *(message(i, packed) for i in range(5)))
    with pytest.raises(BagError, match="unpacks to more than 1000 times its size"):
        read(path)


def test_too_many_chunks_that_overlap_in_time_are_refused(tmp_path: Path) -> None:
    content = message(1, bytes(450_000)) + message(9, bytes(450_000))
    path = mcap(tmp_path / "wide.mcap", SCHEMA, CHANNEL, *[chunk(content, how="")] * 6)
    assert len(read(path)[0]) == 12
    with pytest.raises(BagError, match="has chunks that overlap in time, too many"):
        read(path, LimitSettings(chunk_mb=1))


def test_a_ros_1_chunk_above_the_limit_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "bomb.bag"
    writer = Ros1Writer(path)
    writer.set_compression(Ros1Writer.CompressionFormat.BZ2)
    with writer:
        connection = writer.add_connection(
            "/chatter", "std_msgs/msg/String", msgdef="string data", md5sum="a" * 32
        )
        writer.write(connection, stamp(0), struct.pack("<I", 50_000_000) + bytes(50_000_000))
    assert path.stat().st_size < 20_000
    assert len(read(path)[0]) == 1
    found, losses = read(path, LimitSettings(chunk_mb=10))
    assert found == []
    assert any("larger than limits.chunk_mb" in loss for loss in losses)


# --- MCAP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "short",
    [
        record(3, b""),
        record(3, b"\x01"),
        record(3, struct.pack("<H", 1)),
        record(3, struct.pack("<HI", 1, 2**32 - 1) + b"name"),
        record(4, b"\x01\x00\x01"),
        record(4, struct.pack("<HH", 2, 1) + text("/topic")),
        record(
            4,
            struct.pack("<HH", 2, 1) + text("/t") + text("cdr") + struct.pack("<II", 90, 90),
        ),
        record(5, b""),
        record(5, b"\x01\x00"),
        record(6, b""),
        record(6, bytes(40)),
        record(7, b""),
        record(8, bytes(3)),
        record(200, b"unheard of"),
    ],
    ids=lambda short: f"{short[0]}-{len(short)}",
)
@pytest.mark.parametrize("inside", ["alone", "in a chunk"])
def test_a_truncated_record_loses_no_other_message(
    tmp_path: Path, short: bytes, inside: str
) -> None:
    records = [SCHEMA, CHANNEL, message(0), short, message(1)]
    if inside == "in a chunk":
        records = [chunk(b"".join(records))]
    found, _ = read(mcap(tmp_path / "short.mcap", *records))
    assert found == [DATA, DATA]


def test_a_chunk_indexed_twice_is_read_once(tmp_path: Path) -> None:
    whole = recordings.write(tmp_path / "bag", recordings.entries(3))
    data = recordings.storage_file(whole).read_bytes()
    start = struct.unpack_from("<Q", data, len(data) - 28)[0]
    at, records = start, []
    while data[at] != 2:
        length = struct.unpack_from("<Q", data, at + 1)[0]
        records.append(data[at : at + 9 + length])
        at += 9 + length
    (index,) = (each for each in records if each[0] == 8)
    body = b"".join(records) + index
    said = bytearray(body)
    statistics = body.index(next(each for each in records if each[0] == 11))
    struct.pack_into("<I", said, statistics + 9 + 22, 2)
    footer = record(2, struct.pack("<QQI", start, 0, 0)) + MAGIC
    path = tmp_path / "twice.mcap"
    path.write_bytes(data[:start] + said + footer)
    assert len(read(path)[0]) == 9


def test_too_many_topics_are_refused(tmp_path: Path) -> None:
    tail = text("cdr") + struct.pack("<I", 0)
    channels = (
        record(4, struct.pack("<HH", n, 1) + text(f"/t{n}") + tail) for n in range(1, 20_000)
    )
    path = mcap(tmp_path / "topics.mcap", SCHEMA, *channels)
    with pytest.raises(BagError, match="has more than 10000 topics"):
        open_recording(path)


# --- SQLite --------------------------------------------------------------------------------------


def database(path: Path, *statements: str, rows: int = 3) -> Path:
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name, type, serialization_format)")
    base.execute("INSERT INTO topics VALUES (1, '/level', 'std_msgs/msg/Float32', 'cdr')")
    base.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data)")
    for index in range(rows):
        base.execute("INSERT INTO messages VALUES (?, 1, ?, ?)", (index, stamp(index), DATA))
    for statement in statements:
        base.execute(statement)
    base.commit()
    base.close()
    return path


ENDLESS_QUERY = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    "SELECT x AS id, 1 AS topic_id, x AS timestamp, zeroblob(8) AS data FROM n"
)


def test_an_endless_view_is_refused(tmp_path: Path) -> None:
    path = database(
        tmp_path / "view.db3", "DROP TABLE messages", f"CREATE VIEW messages AS {ENDLESS_QUERY}"
    )
    with pytest.raises(BagError, match="its messages are not a plain table"):
        open_recording(path)
    topics = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x AS id, "
    topics += "'/a' AS name, 'b' AS type, 'cdr' AS serialization_format FROM n"
    path = database(tmp_path / "topics.db3", "DROP TABLE topics", f"CREATE VIEW topics AS {topics}")
    with pytest.raises(BagError, match="its topics are not a plain table"):
        open_recording(path)


def test_a_computed_column_is_refused(tmp_path: Path) -> None:
    path = database(
        tmp_path / "computed.db3",
        "DROP TABLE messages",
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, "
        "data AS (zeroblob(900000000)))",
    )
    with pytest.raises(BagError, match="has no table of messages"):
        open_recording(path)


def with_endless_table(path: Path) -> Path:
    """A table that seems endless: every child of an inner page is the next inner page."""
    base = sqlite3.connect(path)
    base.execute("PRAGMA page_size = 512")
    base.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name, type, serialization_format)")
    base.execute("INSERT INTO topics VALUES (1, '/level', 'std_msgs/msg/Float32', 'cdr')")
    base.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data)")
    base.executemany(
        "INSERT INTO messages VALUES (?, 1, ?, ?)",
        ((index, stamp(index), DATA) for index in range(4000)),
    )
    base.commit()
    root = base.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()[0]
    base.close()
    data = bytearray(path.read_bytes())
    inner = [root] + [
        1 + at // 512 for at in range(0, len(data), 512) if data[at] == 5 and 1 + at // 512 != root
    ]
    leaf = max(1 + at // 512 for at in range(512, len(data), 512) if data[at] == 13)
    for page, child in zip(inner, [*inner[1:], leaf], strict=True):
        begin = (page - 1) * 512
        cells = struct.unpack_from(">H", data, begin + 3)[0]
        struct.pack_into(">I", data, begin + 8, child)
        for cell in range(cells):
            at = struct.unpack_from(">H", data, begin + 12 + 2 * cell)[0]
            struct.pack_into(">I", data, begin + at, child)
    path.write_bytes(data)
    return path


def test_an_endless_table_gives_no_more_bytes_than_its_file_has(tmp_path: Path) -> None:
    path = with_endless_table(tmp_path / "loop.db3")
    found, losses = read(path)
    assert 0 < sum(map(len, found)) <= path.stat().st_size
    assert losses


@pytest.mark.parametrize(
    ("statement", "read_ones", "said"),
    [
        ("UPDATE messages SET data = 'text' WHERE id = 1", 2, "messages that are not bytes"),
        ("UPDATE messages SET data = NULL WHERE id = 1", 2, "messages that are not bytes"),
        ("UPDATE messages SET data = 5 WHERE id = 1", 2, "messages that are not bytes"),
        ("UPDATE messages SET data = CAST(X'FF' AS TEXT) WHERE id = 1", 2, "not bytes"),
        ("UPDATE messages SET timestamp = 'noon' WHERE id = 1", 2, "whose time is not a number"),
        ("UPDATE messages SET timestamp = NULL WHERE id = 1", 2, "whose time is not a number"),
        ("UPDATE messages SET topic_id = 'x' WHERE id = 1", 2, ""),
        ("UPDATE topics SET name = X'00FF'", 0, "not text"),
        ("UPDATE topics SET type = 5", 0, "not text"),
        ("UPDATE topics SET type = NULL", 0, "not text"),
        ("ALTER TABLE topics ADD COLUMN offered_qos_profiles", 0, "not text"),
        ("ALTER TABLE topics ADD COLUMN offered_qos_profiles DEFAULT '[[[['", 3, ""),
    ],
)
def test_rows_with_values_of_a_wrong_type_are_skipped(
    tmp_path: Path, statement: str, read_ones: int, said: str
) -> None:
    found, losses = read(database(tmp_path / "odd.db3", statement))
    assert found == [DATA] * read_ones
    assert bool(losses) == bool(said)
    assert said in " ".join(losses)


def test_tables_without_the_required_columns_are_refused(tmp_path: Path) -> None:
    for number, statement in enumerate(
        ("ALTER TABLE messages DROP COLUMN data", "ALTER TABLE topics DROP COLUMN name")
    ):
        path = database(tmp_path / f"{number}.db3", statement)
        with pytest.raises(BagError, match="is not a recording"):
            open_recording(path)


def test_a_file_name_with_special_characters_is_read(tmp_path: Path) -> None:
    assert read(database(tmp_path / "100% wet? #1.db3"))[0] == [DATA] * 3


def test_rows_in_any_order_are_returned_by_time(tmp_path: Path) -> None:
    path = database(tmp_path / "order.db3", "UPDATE messages SET timestamp = -timestamp", rows=50)
    with open_recording(path) as recording:
        stamps = [each.stamp_ns for each in recording.messages()]
    assert stamps == sorted(stamps)
    assert len(stamps) == 50


def test_messages_in_the_write_ahead_log_are_read(tmp_path: Path) -> None:
    path = database(tmp_path / "wal.db3")
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("INSERT INTO messages VALUES (9, 1, ?, ?)", (stamp(9), DATA))
    base.commit()
    assert read(path)[0] == [DATA] * 4
    base.close()


# --- Metadata, links and definitions -------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "[" * 5000,
        "rosbag2_bagfile_information: {relative_file_paths: [2026-99-99, 5, [x]]}",
        "rosbag2_bagfile_information: {relative_file_paths: " + "9" * 5000 + "}",
        "rosbag2_bagfile_information: {relative_file_paths: {}}",
        "a: " + "b" * (1 << 23),
    ],
    ids=range(5),
)
def test_unreadable_metadata_counts_as_missing(tmp_path: Path, content: str) -> None:
    bag = recordings.write(tmp_path / "bag", recordings.entries(2))
    (bag / "metadata.yaml").write_text(content)
    found, losses = read(bag)
    assert len(found) == 6
    assert "metadata.yaml is missing or unreadable; all files were taken" in losses


def test_a_file_repeated_in_the_metadata_is_read_once(tmp_path: Path) -> None:
    bag = recordings.write(tmp_path / "bag", recordings.entries(2))
    names = ", ".join(["bag.mcap"] * 1000)
    (bag / "metadata.yaml").write_text(
        f"rosbag2_bagfile_information: {{relative_file_paths: [{names}]}}"
    )
    assert len(read(bag)[0]) == 6


def test_circular_links_are_followed_once(tmp_path: Path) -> None:
    mcap(tmp_path / "drive.mcap", SCHEMA, CHANNEL, message(0))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "up").symlink_to(tmp_path)
    (tmp_path / "below" / "here").symlink_to(tmp_path / "below")
    assert find_recordings(tmp_path) == [tmp_path]


@pytest.mark.parametrize("definition", ["(" * 100_000, "string a\n" * 100_000, "\x00", "=" * 80])
def test_an_unparsable_definition_has_an_empty_digest(definition: str) -> None:
    assert digest_of("their_msgs/msg/Odd", definition) == "RIHS01_" + "0" * 64


@pytest.mark.parametrize(
    "profiles", ["[" * 5000, "- history: 2026-99-99", "5", "- [a]", "a: " * 99]
)
def test_unparsable_qos_profiles_are_ignored(profiles: str) -> None:
    assert qos_of(profiles) == ()


@pytest.mark.parametrize(
    "msgtype",
    [
        "sensor_msgs/msg/Image",
        "sensor_msgs/msg/CompressedImage",
        "vision_msgs/msg/Detection2DArray",
        "std_msgs/msg/Nothing",
    ],
)
def test_bytes_that_are_not_the_message_raise_a_frame_error(msgtype: str) -> None:
    channel, rng = Channel("/topic", msgtype), np.random.default_rng(0)
    for length in (0, 1, 3, 4, 20, 200):
        for start in (b"", b"\x00\x01\x00\x00", b"\x00\x01\x00\x00" + b"\xff" * 16):
            with pytest.raises(FrameError, match="cannot be read"):
                decoded(channel, start + rng.bytes(length))
