"""Messages that were replaced before they were fetched show in the numbers of the next ones."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from rain_removal_ros.ros.node.gaps import Gaps
from rain_removal_ros.ros.node.statistics import Statistics


def info(number: int | None, publisher: bytes | None = b"one") -> dict[str, Any]:
    gid = None if publisher is None else {"data": publisher}
    return {"publication_sequence_number": number, "publisher_gid": gid}


def test_what_is_missing_is_counted_for_each_publisher() -> None:
    gaps = Gaps()
    numbers = [(7, b"one"), (8, b"one"), (1, b"two"), (11, b"one"), (2, b"two"), (5, b"two")]
    assert [gaps.before(info(*each)) for each in numbers] == [0, 0, 0, 2, 0, 2]


def test_late_and_repeated_messages_leave_no_gap() -> None:
    gaps = Gaps()
    assert [gaps.before(info(number)) for number in (1, 4, 2, 4, 5)] == [0, 2, 0, 0, 0]


@pytest.mark.parametrize("unknown", [info(None), info(3, None), {"publication_sequence_number": 3}])
def test_nothing_is_made_up_where_the_middleware_says_nothing(unknown: dict[str, Any]) -> None:
    gaps = Gaps()
    gaps.before(info(1))
    assert gaps.before(unknown) == 0


def test_a_missing_frame_is_lost_in_transport_or_was_replaced_by_a_newer_one() -> None:
    statistics = Statistics()
    statistics.received()
    statistics.lost(2)  # the middleware may say so before the next message comes, or after it
    statistics.received(missing=5)
    summary = statistics.summary()
    assert (summary.received, summary.lost) == (5, 2)
    assert summary.dropped == {"newer one came": 3}
