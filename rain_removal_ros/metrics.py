"""How similar two pictures are and how steady a clip is, as papers define it.

Pictures are H x W x 3, RGB, uint8; the peak is 255. Nothing is cropped or rounded on the way. "Y"
is the luma of MATLAB's ``rgb2ycbcr`` applied to real numbers. It runs from 16 to 235 but is
compared with the same peak, as in the deraining papers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.frames import Image

Plane = NDArray[np.float64]

MOST_DB = 100.0
"""The PSNR of equal pictures. It is infinite by definition, but means must stay finite."""

_PEAK = 255.0
_LUMA = np.array([65.481, 128.553, 24.966]) / 255
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


class Scores(NamedTuple):
    """How similar a picture is to its reference."""

    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    ssim_rgb: float
    ms_ssim: float
    """Of Y."""


def score(image: Image, reference: Image) -> Scores:
    """All measures at once."""
    first, second = luma(image), luma(reference)
    return Scores(
        psnr(first, second),
        ssim(first, second),
        psnr(image, reference),
        float(np.mean([ssim(image[..., c], reference[..., c]) for c in range(3)])),
        ms_ssim(first, second),
    )


def luma(image: Image) -> Plane:
    """MATLAB's Y, from 16 to 235, not rounded."""
    return np.asarray(image @ _LUMA + 16.0, np.float64)


def psnr(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB over all values at once, at most ``MOST_DB``."""
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return min(MOST_DB, 10 * math.log10(_PEAK**2 / error)) if error else MOST_DB


def ssim(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Mean structural similarity of two planes (Wang et al. 2004).

    The Gaussian window, 11 wide with sigma 1.5, is used only where it fits completely. In a smaller
    picture, the widest window that fits is used.
    """
    similarity, _ = _ssim_terms(first.astype(np.float64), second.astype(np.float64))
    return similarity


def ms_ssim(first: Plane, second: Plane) -> float:
    """Multi-scale structural similarity of two planes (Wang et al. 2003), five scales.

    Scales at which the picture would be smaller than the window are left out, and the other weights
    are scaled up.
    """
    scales = 1
    while scales < len(_SCALES) and min(first.shape) >> scales >= _WINDOW:
        scales += 1
    weights = np.array(_SCALES[:scales]) / sum(_SCALES[:scales])
    product = 1.0
    for scale, weight in enumerate(weights.tolist()):
        similarity, contrast = _ssim_terms(first, second)
        term = similarity if scale == scales - 1 else contrast
        product *= max(term, 1e-4) ** weight  # a negative value has no real power
        first, second = _halved(first), _halved(second)
    return product


def flicker(before: Plane, now: Plane, clean_before: Plane, clean_now: Plane) -> float:
    """Mean difference, in grey levels, between the frame-to-frame change of a clip and of its
    reference.
    """
    return float(np.abs((now - before) - (clean_now - clean_before)).mean())


class Correspondence:
    """Which pixels of a frame correspond to which of the previous one, from the known flow.

    Only pixels that can be followed count: their flow is known, they were visible before, and the
    reference clip agrees with itself there to within ``trust`` grey levels, so nothing hid them.
    """

    def __init__(
        self, flow: NDArray[np.float32], clean_before: Plane, clean_now: Plane, *, trust: float = 8
    ) -> None:
        height, width = clean_now.shape
        x = flow[..., 0] + np.arange(width, dtype=np.float32)
        y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        in_sight = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)  # NaN is not
        self._x, self._y = np.where(in_sight, x, 0), np.where(in_sight, y, 0)
        agrees = np.abs(clean_now - self._moved(clean_before)) < trust
        self.followed: NDArray[np.bool_] = in_sight & agrees

    def warping_error(self, before: Plane, now: Plane) -> float | None:
        """Mean difference from the moved previous frame, in grey levels; None if no pixel can be
        followed.
        """
        if not self.followed.any():
            return None
        return float(np.abs(now - self._moved(before))[self.followed].mean())

    def _moved(self, before: Plane) -> Plane:
        moved = cv2.remap(before.astype(np.float32), self._x, self._y, cv2.INTER_LINEAR)
        return moved.astype(np.float64)


def _ssim_terms(first: Plane, second: Plane) -> tuple[float, float]:
    """Means of SSIM and of its contrast-structure part."""
    mean1, mean2 = _blurred(first), _blurred(second)
    variance1 = _blurred(first * first) - mean1 * mean1
    variance2 = _blurred(second * second) - mean2 * mean2
    covariance = _blurred(first * second) - mean1 * mean2
    contrast = (2 * covariance + _C2) / (variance1 + variance2 + _C2)
    brightness = (2 * mean1 * mean2 + _C1) / (mean1**2 + mean2**2 + _C1)
    return float((brightness * contrast).mean()), float(contrast.mean())


def _blurred(plane: Plane) -> Plane:
    window = min(_WINDOW, (min(plane.shape) - 1) // 2 * 2 + 1)
    kernel = cv2.getGaussianKernel(window, _SIGMA, cv2.CV_64F)
    edge = window // 2
    blurred = np.asarray(cv2.sepFilter2D(plane, cv2.CV_64F, kernel, kernel), np.float64)
    return blurred[edge : plane.shape[0] - edge, edge : plane.shape[1] - edge]


def _halved(plane: Plane) -> Plane:
    """Half the size, averaging four pixels; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in plane.shape)
    even = plane[:height, :width]
    quarter = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return np.asarray(quarter / 4, np.float64)


def correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson's correlation over all values; 0 if one of them is constant."""
    first, second = (each.astype(np.float64).ravel() for each in (first, second))
    if not first.std() or not second.std():
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
