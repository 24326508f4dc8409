"""Finds how many messages are missing before one that came.

The subscriptions keep one message, and a newer one may replace it before the executor takes it.
The middleware does not call that a loss, but its sequence numbers show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Gaps:
    """The last sequence number of each publisher of a topic."""

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}

    def before(self, info: Mapping[str, Any]) -> int:
        """How many messages of its publisher are missing before the one with this information.

        Always 0 where the middleware does not number messages, or rclpy does not say whose they
        are.
        """
        number: int | None = info.get("publication_sequence_number")
        publisher: Mapping[str, bytes] | None = info.get("publisher_gid")
        if number is None or publisher is None:
            return 0
        last = self._last.get(publisher["data"], number)
        self._last[publisher["data"]] = max(number, last)
        return max(0, number - last - 1)
