"""The simulated camera as a process: ``sim_camera --ros-args -p ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rain_removal_ros.ros import process


def main(args: Sequence[str] | None = None) -> int:
    """Run the camera until a signal ends it; returns the exit code."""
    about = "A simulated camera in the rain; it also publishes the images without rain."
    return process.run(_create, about=about, args=args)


def _create() -> process.Runnable:
    from rain_removal_ros.ros.tools.simulator import SimCamera

    return SimCamera()


if __name__ == "__main__":
    sys.exit(main())
