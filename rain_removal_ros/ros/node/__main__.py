"""The node as a process: ``derain_node --ros-args --params-file FILE``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rain_removal_ros.ros import process


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it; returns the exit code."""
    about = "Removes rain from camera images, live."
    return process.run(_create, about=about, args=args)


def _create() -> process.Runnable:
    from rain_removal_ros.ros.node.derain_node import DerainNode

    return DerainNode()


if __name__ == "__main__":
    sys.exit(main())
