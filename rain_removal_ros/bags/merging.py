"""Merges messages from several places in order of time, with as little as possible in memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rain_removal_ros.bags.messages import Message

Place = TypeVar("Place")


def in_order(
    sources: Iterable[tuple[int, Place, Callable[[Place], Iterator[Message]]]],
) -> Iterator[Message]:
    """The messages of several places, each in order, as one sequence in order.

    A source is the time of its first message, a place, and a function that opens it. It is opened
    when its time has come, so of many places that follow each other only one is open.
    """
    heap: list[tuple[int, int, Iterator[Message], Message | None]] = [
        (first, number, _later(open_place, place), None)
        for number, (first, place, open_place) in enumerate(sources)
    ]
    heapq.heapify(heap)
    while heap:
        _, number, rest, message = heap[0]
        if message is not None:
            yield message
        following = next(rest, None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following.stamp_ns, number, rest, following))


def _later(open_place: Callable[[Place], Iterator[Message]], place: Place) -> Iterator[Message]:
    yield from open_place(place)
