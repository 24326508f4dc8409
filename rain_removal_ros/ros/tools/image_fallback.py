"""The fallback as a process: ``image_fallback --ros-args -p ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rain_removal_ros.ros import process


def main(args: Sequence[str] | None = None) -> int:
    """Run the fallback until a signal ends it; returns the exit code."""
    about = "Passes derained images on, and the camera's own while no derained ones come."
    return process.run(_create, about=about, args=args)


def _create() -> process.Runnable:
    from rain_removal_ros.ros.tools.fallback import ImageFallback

    return ImageFallback()


if __name__ == "__main__":
    sys.exit(main())
