"""Waits until a node's network is ready: ``wait_until_ready --timeout S --ros-args ...``.

For launch files that play a recording whose first frames should not pass through unchanged. It
listens to ``/diagnostics``, and exits with 0 when the network runs and with 1 when time is up.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

READY_VALUE = "engine"


def main(args: Sequence[str] | None = None) -> int:
    """Wait; returns the exit code."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.utilities import remove_ros_args

    given = list(sys.argv if args is None else args)
    parser = argparse.ArgumentParser(description="Wait until a node's network is ready.")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds (default 120)")
    parser.add_argument("--node", default="derain", help="the node's name (default derain)")
    options = parser.parse_args(remove_ros_args(given)[1:])
    rclpy.init(args=given)
    node = rclpy.create_node("wait_until_ready")
    ready = [False]

    def look(array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name.endswith(f"{options.node}: network"):
                values = {pair.key: pair.value for pair in status.values}
                ready[0] = ready[0] or values.get(READY_VALUE, "none") != "none"

    node.create_subscription(DiagnosticArray, "/diagnostics", look, 10)
    deadline = time.monotonic() + options.timeout
    while not ready[0] and time.monotonic() < deadline and rclpy.ok():
        rclpy.spin_once(node, timeout_sec=0.2)
    node.destroy_node()
    rclpy.try_shutdown()
    if not ready[0]:
        print(f"{options.node} is not ready after {options.timeout:g} s", file=sys.stderr)
    return 0 if ready[0] else 1


if __name__ == "__main__":
    sys.exit(main())
