"""The quality of service of other nodes."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

__all__ = ["all_reliable"]


def all_reliable(node: Node, topic: str) -> bool:
    """Whether a topic has publishers and all of them are reliable."""
    found = node.get_publishers_info_by_topic(topic)
    offered = [info.qos_profile.reliability for info in found]
    return bool(offered) and all(each == ReliabilityPolicy.RELIABLE for each in offered)
