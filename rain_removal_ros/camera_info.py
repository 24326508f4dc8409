"""The calibration that belongs to an image, which may have been enlarged."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import Any

from rain_removal_ros.codec import stamp_ns

_KEPT = 32


class Calibrations:
    """The last calibrations of one camera: kept by one thread, looked up by another."""

    def __init__(self) -> None:
        self._by_stamp: OrderedDict[int, Any] = OrderedDict()

    def keep(self, info: Any) -> None:
        # A new dictionary each time: the other thread may be reading this one.
        kept = OrderedDict(self._by_stamp)
        kept[stamp_ns(info.header)] = info
        while len(kept) > _KEPT:
            kept.popitem(last=False)
        self._by_stamp = kept

    def __contains__(self, stamp_ns: int) -> bool:
        return stamp_ns in self._by_stamp

    def of(self, header: Any, scale: int) -> Any | None:
        """The calibration of the image with this header; None where the camera sends none.

        That is the one of the same stamp, else the newest: it hardly ever changes.
        """
        kept = self._by_stamp
        if not kept:
            return None
        info = scaled(kept.get(stamp_ns(header)) or next(reversed(kept.values())), scale)
        info.header = header
        return info


def scaled(info: Any, factor: int) -> Any:
    """``info``, of rclpy's or rosbags' making, for an image enlarged ``factor`` times each way.

    The centre of the first pixel, not its corner, has the coordinate 0: a point at u lies at
    ``(u + 0.5) * factor - 0.5`` afterwards. Calibration speaks of the sensor before binning, where
    that half pixel of the image is ``binning`` times as wide, which is how image_geometry reads it.
    """
    if factor == 1:
        return info
    info = deepcopy(info)
    shift_x = 0.5 * (factor - 1) * max(1, info.binning_x)
    shift_y = 0.5 * (factor - 1) * max(1, info.binning_y)
    for matrix, columns in ((info.k, 3), (info.p, 4)):
        for index in range(2 * columns):
            matrix[index] *= factor
        # A camera that is not calibrated sends zeros, and they stay zeros.
        if any(matrix):
            matrix[2] += shift_x
            matrix[columns + 2] += shift_y
    info.height *= factor
    info.width *= factor
    for side in ("x_offset", "y_offset", "height", "width"):
        setattr(info.roi, side, getattr(info.roi, side) * factor)
    return info
