"""Single pictures: pairs with a reference, and dry ones that should stay as they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data import pairs
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation._pictures import reduced_for
from rain_removal_ros.evaluation.board import marks
from rain_removal_ros.evaluation.board.marks import Mark
from rain_removal_ros.evaluation.board.setup import Setup
from rain_removal_ros.frames import Image
from rain_removal_ros.media import pictures
from rain_removal_ros.metrics import luma, psnr, ssim

SETS = {
    "rain800": "rain800/test",
    "rain100l": "rain100l/test",
    "roadscene": "roadscene/test",
}
DRY = {
    # The pictures that docs/results.md has always used; rain is drawn over these in training.
    "clean": ("clean/bsds500", 15),
    # Streets that nothing here was trained on.
    "clean_streets": ("detection/pennfudan/images", 2),
}
"""Folders of dry pictures, and the step at which pictures are taken from them."""


def pairs_part(model: Runner, setup: Setup) -> Iterator[Mark]:
    """Likeness to the reference, gain and harm, and whether attention lies where it rained."""
    for name, folder in SETS.items():
        found: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for pair in pairs.find_pairs(setup.data / folder)[:: setup.extent.every]:
            rainy, reference = pair.load()
            for figure, value in _compared(model, rainy, reference).items():
                found[figure][pair.name] = value
        for figure, by_item in found.items():
            yield marks.mean(f"{name}/{figure}", by_item)


def clean_part(model: Runner, setup: Setup) -> Iterator[Mark]:
    """Likeness of the output to a dry input."""
    for name, (folder, every) in DRY.items():
        paths = pictures.find_pictures(setup.data / folder)[::every][:: setup.extent.every]
        kept = {path.stem: _kept(model, pictures.read(path)) for path in paths}
        yield marks.mean(f"{name}/psnr_y", kept)
        yield marks.least(f"{name}/worst", kept)


def _compared(model: Runner, rainy: Image, reference: Image) -> dict[str, float]:
    given, untouched, best = reduced_for(model.scale, rainy, reference)
    result = model.derain(given, attention=True)
    made, wanted, before = luma(result.image), luma(best), luma(untouched)
    after = psnr(made, wanted)
    gain = after - psnr(before, wanted)
    figures = {
        "psnr_y": after,
        "ssim_y": ssim(made, wanted),
        "gain": gain,
        "harmed": float(gain < 0),
    }
    if result.attention is not None:
        change = np.abs(untouched.astype(np.float64) - best).mean(2)
        figures["attention"] = _correlation(result.attention, change)
    return figures


def _correlation(attention: Image, change: NDArray[np.float64]) -> float:
    """Correlation of the attention with the change by rain; 0 for a constant map."""
    size = (change.shape[1], change.shape[0])
    shown = cv2.resize(attention, size, interpolation=cv2.INTER_AREA).astype(np.float64)
    if not shown.std() or not change.std():
        return 0.0
    return float(np.corrcoef(shown.ravel(), change.ravel())[0, 1])


def _kept(model: Runner, dry: Image) -> float:
    given, _, wanted = reduced_for(model.scale, dry, dry)
    return psnr(luma(model.derain(given).image), luma(wanted))
