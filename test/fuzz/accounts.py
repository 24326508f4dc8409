"""What became of the frames of a node's cameras, as its diagnostics report it."""

from __future__ import annotations

from collections import Counter

from ros.desk import Inbox

__all__ = ["account", "accounted"]

_COUNTED = ("received", "published", "lost in transport")
_DROPPED = "dropped: "


def account(reports: Inbox) -> Counter[str]:
    """The counts of the next report, summed over all cameras."""
    reports.clear()
    counts: Counter[str] = Counter()
    for status in reports.wait().status:
        if ": camera" in status.name:
            counts.update(
                {
                    pair.key: int(pair.value)
                    for pair in status.values
                    if pair.key in _COUNTED or pair.key.startswith(_DROPPED)
                }
            )
    return counts


def accounted(counts: Counter[str]) -> int:
    """The number of frames that were published or dropped."""
    dropped = sum(count for name, count in counts.items() if name.startswith(_DROPPED))
    return counts["published"] + dropped
