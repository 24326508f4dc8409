"""YOLO networks as ONNX files, distinguished by the shape of their output.

Known heads: YOLOX (to be decoded on its grid), YOLOv5 and v7 (three anchors a cell, decoded
inside), YOLOv8 and later (one row a property, decoded inside), and those that end in N x 6: box,
score and class. Any other file is refused: guessing would give scores that mean nothing.
"""

from __future__ import annotations

import ast
import hashlib
import reprlib
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from rain_removal_ros.detection.boxes import Detections, as_boxes, best_of_each_place
from rain_removal_ros.detection.detectors._coco import COCO
from rain_removal_ros.errors import DataError, EngineError
from rain_removal_ros.frames import Image
from rain_removal_ros.runtime.onnx_timeout import RUN_TIMEOUT_S, ending_after

_STRIDES = (8, 16, 32)
_LARGEST_STRIDE = 32
_USUAL_SIDE = 640
_LARGEST_SIDE = 8192
_MOST_CLASSES = 1_000_000
_MOST_NAMES = 1 << 18
"""Characters."""
_GREY = 114
_LEAST = 0.01
"""Detections with a lower score do not change average precision visibly."""
_OVERLAP = 0.65
"""The threshold with which COCO figures of these networks are published."""
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_Array = NDArray[np.float32]


class _Found(NamedTuple):
    """Boxes in input pixels with the best class of each."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.intp]


class Yolo:
    """See ``Detector``."""

    sure = 0.3

    def __init__(self, path: Path, *, provider: str = "cpu") -> None:
        self.name = path.stem
        self._path = path
        self._session = _session(path, provider)
        self._input = self._session.get_inputs()[0]
        self._height, self._width = self._input_size()
        self._type = np.float16 if "float16" in self._input.type else np.float32
        output = self._run(np.full((self._height, self._width, 3), _GREY, np.uint8), "yolox")
        self._head = _head(output.shape, _cells(self._height, self._width), path)
        if self._head == "yolox" and _is_decoded(output, self._height, self._width):
            raise DataError(
                f"{path} gives YOLOX's shape but boxes already decoded, a head that is not known; "
                "export it without decoding"
            )
        self.labels = self._class_names(output.shape)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self.fingerprint = f"yolo 1 {digest} {provider} {ort.__version__}"

    @np.errstate(over="ignore", invalid="ignore")  # scores that are not numbers are dropped
    def detect(self, image: Image) -> Detections:
        ratio = min(self._height / image.shape[0], self._width / image.shape[1])
        size = (max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio)))
        canvas = np.full((self._height, self._width, 3), _GREY, np.uint8)
        # YOLOX puts the picture in the corner, the others in the middle.
        left, top = (0, 0)
        if self._head != "yolox":
            left, top = (self._width - size[0]) // 2, (self._height - size[1]) // 2
        shrunk = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        canvas[top : top + size[1], left : left + size[0]] = shrunk
        found = self._decoded(self._run(canvas, self._head))
        usable = np.isfinite(found.boxes).all(1) & np.isfinite(found.scores)
        kept = np.flatnonzero(usable & (found.scores >= _LEAST))
        if self._head != "final":
            best = best_of_each_place(
                found.boxes[kept], found.scores[kept], found.classes[kept], overlap=_OVERLAP
            )
            kept = kept[best]
        height, width = image.shape[:2]
        boxes = (found.boxes[kept] - [left, top, left, top]) / ratio
        boxes = np.clip(boxes, 0, [width, height, width, height])
        labels = tuple(self._label(index) for index in found.classes[kept])
        return Detections(labels, found.scores[kept].clip(0, 1), as_boxes(boxes))

    def _label(self, index: int) -> str:
        if not 0 <= index < len(self.labels):
            raise DataError(
                f"{self._path} gives class {index}, and has names of {len(self.labels)}"
            )
        return self.labels[index]

    def _input_size(self) -> tuple[int, int]:
        shape = self._input.shape
        if len(shape) != 4 or shape[1] not in (3, "3") or "float" not in self._input.type:
            raise DataError(
                f"{self._path} is not a detector of pictures: its input is {shape} of "
                f"{self._input.type}, not 1 x 3 x height x width of float"
            )
        height, width = (side if isinstance(side, int) else _USUAL_SIDE for side in shape[2:])
        if not 0 < min(height, width) <= max(height, width) <= _LARGEST_SIDE:
            raise DataError(
                f"{self._path} takes {width}x{height} pixels; up to {_LARGEST_SIDE} a side are run"
            )
        if height % _LARGEST_STRIDE or width % _LARGEST_STRIDE:
            raise DataError(f"{self._path} takes {width}x{height}, which no YOLO's grid divides")
        return height, width

    def _run(self, canvas: Image, head: str) -> _Array:
        # YOLOX takes BGR from 0 to 255, the others RGB from 0 to 1.
        pixels: NDArray[Any] = canvas[..., ::-1] if head == "yolox" else canvas / 255
        batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], self._type)
        try:
            with ending_after(RUN_TIMEOUT_S) as options:
                outputs = self._session.run(None, {self._input.name: batch}, options)
            return np.asarray(outputs[0], np.float32)
        except Exception as error:  # ONNX Runtime's own kinds have no common public base
            reason = str(error).splitlines()[0]
            raise EngineError(f"{self._path} cannot be run on a picture: {reason}") from error

    def _decoded(self, output: _Array) -> _Found:
        if self._head == "final":
            rows = output[0].astype(np.float64)
            classes = np.nan_to_num(rows[:, 5], nan=-1).clip(-1, _MOST_CLASSES)
            return _Found(rows[:, :4], rows[:, 4], classes.astype(np.intp))
        rows = (output[0].T if self._head == "rows" else output[0]).astype(np.float64)
        if self._head == "yolox":
            cells = _cells(self._height, self._width)
            rows[:, :2] = (rows[:, :2] + cells[:, :2]) * cells[:, 2:]
            rows[:, 2:4] = np.exp(rows[:, 2:4]) * cells[:, 2:]
        shares = rows[:, 4:] if self._head == "rows" else rows[:, 5:] * rows[:, 4:5]
        classes = shares.argmax(1)
        half = rows[:, 2:4] / 2
        boxes = np.hstack([rows[:, :2] - half, rows[:, :2] + half])
        return _Found(boxes, shares[np.arange(len(shares)), classes], classes)

    def _class_names(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        known = self._session.get_modelmeta().custom_metadata_map.get("names")
        count = {"final": len(COCO), "rows": shape[1] - 4}.get(self._head, shape[2] - 5)
        if known:
            names = self._read_names(known)
            if self._head != "final" and len(names) < count:
                raise DataError(f"{self._path} has {count} classes and names {len(names)}")
            return names
        if count != len(COCO):
            raise DataError(
                f"{self._path} has {count} classes and does not name them; only COCO's "
                f"{len(COCO)} are known by heart. Add 'names' to its metadata"
            )
        return COCO

    def _read_names(self, known: str) -> tuple[str, ...]:
        names: Any = None
        if len(known) <= _MOST_NAMES:
            # For too much nesting, Python's parser raises MemoryError.
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                names = ast.literal_eval(known)
        names = list(names.values()) if isinstance(names, dict) else names
        if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
            shown = reprlib.repr(known)
            raise DataError(f"{self._path} names its classes unreadably: {shown}")
        return tuple(names)


def _session(path: Path, provider: str) -> Any:
    if not path.is_file():
        raise DataError(f"there is no detector {path}")
    if provider not in _PROVIDERS:
        raise EngineError(f"no provider is called {provider!r}; there are {', '.join(_PROVIDERS)}")
    name = _PROVIDERS[provider]
    if name not in ort.get_available_providers():
        raise EngineError(f"this ONNX Runtime has no {name}; use --provider cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised; printing them too would show them twice
    # Idle threads that spin would take CPU time from the measured network.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=[name])
    except Exception as error:  # ONNX Runtime's own kinds have no common public base
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is no ONNX file that can be used: {reason}") from error


def _cells(height: int, width: int) -> NDArray[np.float64]:
    """Column, row and stride of every cell of the three grids, in YOLO's order."""
    grids = []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        strides = np.full(rows.size, stride)
        grids.append(np.stack([columns.ravel(), rows.ravel(), strides], 1))
    return np.concatenate(grids).astype(np.float64)


def _head(shape: tuple[int, ...], cells: NDArray[np.float64], path: Path) -> str:
    if len(shape) == 3 and shape[0] == 1:
        if shape[2] == 6:
            return "final"
        if shape[1] == len(cells) and shape[2] > 5:
            return "yolox"
        if shape[1] == 3 * len(cells) and shape[2] > 5:
            return "anchors"
        if shape[2] == len(cells) and shape[1] > 4:
            return "rows"
    raise DataError(
        f"{path} is not a detector with a known head: its output is {'x'.join(map(str, shape))}"
    )


def _is_decoded(output: _Array, height: int, width: int) -> bool:
    """Whether boxes are in input pixels already: they are then near their cells."""
    cells = _cells(height, width)
    centres = (cells[:, :2] + 0.5) * cells[:, 2:]
    spread = float(np.abs(centres - centres.mean(0)).mean())
    return float(np.abs(output[0, :, :2] - centres).mean()) < 0.5 * spread
