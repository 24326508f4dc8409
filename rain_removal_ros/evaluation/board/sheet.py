"""A picture sheet of the stroke board: what is drawn, and what models make of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rain_removal_ros.errors import DataError
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation.board.rules import RULES
from rain_removal_ros.evaluation.board.strokes import FIELDS, drawn
from rain_removal_ros.frames import Image
from rain_removal_ros.metrics import luma
from rain_removal_ros.simulation.drive import Drive

_SHOWN = ("count_3", "count_20", "width_5", "width_8", "angle_60", "opacity_0.3")
_WIDTH, _HEIGHT = 400, 264
_FRAME = 60
_QUALITY = 60
_LINE = 18
"""Height of a line of text, in pixels."""


def stroke_sheet(models: Sequence[Runner], path: Path) -> None:
    """Write a sheet: a row for some fields of the board, a column for each model.

    The background is a frame of the simulated drive, so that the sheet may be published.
    """
    titles = {rule.mark: rule.title for rule in RULES}
    dry = Drive(0, _WIDTH, _HEIGHT).frame(_FRAME).image
    rows = [_titled(["", *(model.label for model in models)])]
    for name in _SHOWN:
        rainy, mask = drawn(dry, FIELDS[name], name)
        made = [model.derain(rainy).image for model in models]
        light = float((luma(rainy) - luma(dry))[mask].sum())
        left = [float((luma(image) - luma(dry))[mask].sum()) / light for image in made]
        texts = [titles[f"strokes/{name}"], *(f"{100 * share:.0f} % left" for share in left)]
        rows += [_titled(texts), np.concatenate([rainy, *made], 1)]
    sheet = np.concatenate(rows)
    _, packed = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    try:
        path.write_bytes(packed.tobytes())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


def _titled(texts: Sequence[str]) -> Image:
    line: Image = np.full((_LINE, _WIDTH * len(texts), 3), 255, np.uint8)
    for place, text in enumerate(texts):
        at = (place * _WIDTH + 4, _LINE - 5)
        cv2.putText(line, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return line
