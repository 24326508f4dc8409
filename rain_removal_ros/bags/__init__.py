"""Recordings: read, written and replayed without ROS.

``open_recording`` reads any of them, ``create`` writes one, ``replaying.replay`` derains one, and
``making.make`` makes one from pictures. Images go through the same cameras as in the node, every
frame, in order, so that the result does not depend on time.
"""

from __future__ import annotations

from rain_removal_ros.bags.messages import Channel, Message
from rain_removal_ros.bags.reading import Recording, find_recordings, open_recording
from rain_removal_ros.bags.writing import BagWriter, create

__all__ = [
    "BagWriter",
    "Channel",
    "Message",
    "Recording",
    "create",
    "find_recordings",
    "open_recording",
]
