"""DETR, RT-DETR and their kin, from a Hugging Face folder on disk, by the transformers library."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from rain_removal_ros.detection.boxes import Detections, as_boxes
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.parsing import from_json

_LEAST = 0.01
_LARGEST_SIDE = 8192


class Transformer:
    """See ``Detector``. The folder holds two configurations, model and preprocessor, and
    model.safetensors."""

    sure = 0.5

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise DataError(f"{folder} is no Hugging Face model: it has no config.json")
        try:
            library = importlib.import_module("transformers")
        except ImportError as error:
            raise DataError("transformers is not installed; use an ONNX detector") from error
        try:
            self._network: Any = library.AutoModelForObjectDetection.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            ).eval()
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{folder} cannot be used as a detector: {reason}") from error
        self._prepare = _preparation(folder)
        self._sigmoid = "rt_detr" in self._network.config.model_type
        self.name = folder.name
        self._names = {int(number): name for number, name in self._network.config.id2label.items()}
        self.labels = tuple(self._names.values())
        digest = hashlib.sha256()
        for path in sorted(folder.glob("*.safetensors")):
            digest.update(path.read_bytes())
        self.fingerprint = f"transformers 1 {digest.hexdigest()[:16]} {library.__version__}"

    @torch.inference_mode()
    def detect(self, image: Image) -> Detections:
        height, width = image.shape[:2]
        output = self._network(pixel_values=self._pixels(image))
        logits, boxes = output.logits[0].float(), output.pred_boxes[0].float().numpy()
        # DETR's last class is "no object"; RT-DETR scores each class independently.
        shares = logits.sigmoid() if self._sigmoid else logits.softmax(-1)[:, :-1]
        scores, classes = shares.max(-1)
        kept = np.flatnonzero(scores.numpy() >= _LEAST)
        half = boxes[kept, 2:] / 2
        corners = np.hstack([boxes[kept, :2] - half, boxes[kept, :2] + half])
        labels = tuple(self._names[int(classes[index])] for index in kept)
        places = as_boxes(corners.clip(0, 1) * [width, height, width, height])
        return Detections(labels, scores.numpy()[kept].astype(np.float64), places)

    def _pixels(self, image: Image) -> torch.Tensor:
        size, mean, std = self._prepare
        if isinstance(size, int):
            ratio = size / min(image.shape[:2])
            size = (round(image.shape[1] * ratio), round(image.shape[0] * ratio))
        shrunk = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        pixels = (shrunk - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def _preparation(folder: Path) -> tuple[int | tuple[int, int], list[float], list[float]]:
    """Shorter side or width and height, mean and deviation, as the model was trained with."""
    path = folder / "preprocessor_config.json"
    try:
        facts = from_json(path.read_text(encoding="utf-8"))
        size = facts["size"]
        sides = (
            size["shortest_edge"] if "shortest_edge" in size else (size["width"], size["height"])
        )
        plain = not facts.get("do_normalize", True)
        mean, std = ([0.0] * 3, [1.0] * 3) if plain else (facts["image_mean"], facts["image_std"])
        numbers = np.asarray([*mean, *std], np.float64)
        whole = np.atleast_1d(np.asarray(sides))
        if numbers.shape != (6,) or not np.isfinite(numbers).all() or (numbers[3:] <= 0).any():
            raise ValueError("mean and deviation are three numbers each")
        if whole.dtype.kind != "i" or whole.min() < 1 or whole.max() > _LARGEST_SIDE:
            raise ValueError(f"sides are from 1 to {_LARGEST_SIDE} pixels")
        return sides, mean, std
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} does not say how pictures are prepared: {error}") from error
