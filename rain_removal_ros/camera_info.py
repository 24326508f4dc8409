"""The calibration of an image, which may have been enlarged."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import Any

from rain_removal_ros.codec import stamp_ns

_KEPT = 32


class Calibrations:
    """The last calibrations of one camera. One thread adds them, another looks them up."""

    def __init__(self) -> None:
        self._by_stamp: OrderedDict[int, Any] = OrderedDict()

    def keep(self, info: Any) -> None:
        # A new dictionary each time, because the other thread may be reading this one.
        kept = OrderedDict(self._by_stamp)
        kept[stamp_ns(info.header)] = info
        while len(kept) > _KEPT:
            kept.popitem(last=False)
        self._by_stamp = kept

    def __contains__(self, stamp_ns: int) -> bool:
        return stamp_ns in self._by_stamp

    def of(self, header: Any, scale: int) -> Any | None:
        """The calibration for the image with this header; None if the camera sends none.

        It is the one with the same stamp, or the newest: calibrations hardly ever change.
        """
        kept = self._by_stamp
        if not kept:
            return None
        info = scaled(kept.get(stamp_ns(header)) or next(reversed(kept.values())), scale)
        info.header = header
        return info


def scaled(info: Any, factor: int) -> Any:
    """``info``, a message of rclpy or rosbags, for an image enlarged ``factor`` times in each
    direction.

    Coordinate 0 is the centre of the first pixel, not its corner: a point at u is at ``(u + 0.5) *
    factor - 0.5`` afterwards. A calibration is in pixels of the sensor before binning, where that
    half pixel is ``binning`` times as wide; image_geometry reads it that way.
    """
    if factor == 1:
        return info
    info = deepcopy(info)
    shift_x = 0.5 * (factor - 1) * max(1, info.binning_x)
    shift_y = 0.5 * (factor - 1) * max(1, info.binning_y)
    for matrix, columns in ((info.k, 3), (info.p, 4)):
        for index in range(2 * columns):
            matrix[index] *= factor
        # An uncalibrated camera sends zeros, and they stay zeros.
        if any(matrix):
            matrix[2] += shift_x
            matrix[columns + 2] += shift_y
    info.height *= factor
    info.width *= factor
    for side in ("x_offset", "y_offset", "height", "width"):
        setattr(info.roi, side, getattr(info.roi, side) * factor)
    return info
