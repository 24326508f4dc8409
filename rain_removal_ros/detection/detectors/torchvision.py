"""Detectors of torchvision, if it is installed and their weights are on disk."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

import numpy as np
import torch

from rain_removal_ros.detection.boxes import Detections, as_boxes
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image


class Torchvision:
    """See ``Detector``. ``wanted`` is NAME=WEIGHTS, as in retinanet_resnet50_fpn=weights.pth."""

    sure = 0.5

    def __init__(self, wanted: str) -> None:
        self.name, _, file = wanted.partition("=")
        weights = Path(file)
        if not weights.is_file():
            raise DataError(f"torchvision:{wanted} names no weight file; write NAME=WEIGHTS")
        try:
            models = importlib.import_module("torchvision.models")
        except ImportError as error:
            raise DataError("torchvision is not installed; use an ONNX detector") from error
        try:
            self._network = models.get_model(self.name, weights=None, weights_backbone=None)
            state = torch.load(weights, map_location="cpu", weights_only=True)
            self._network.load_state_dict(state)
        except (ValueError, RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{weights} does not fit torchvision's {self.name}: {reason}"
            ) from error
        self._network.eval()
        detection = importlib.import_module("torchvision.models._meta")
        self._names = tuple(detection._COCO_CATEGORIES)
        self.labels = tuple(name for name in self._names if name not in ("__background__", "N/A"))
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
        self.fingerprint = f"torchvision 1 {self.name} {digest} {torch.__version__}"

    @torch.inference_mode()
    def detect(self, image: Image) -> Detections:
        pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        found = self._network([pixels])[0]
        labels = tuple(self._names[index] for index in found["labels"].tolist())
        scores = found["scores"].numpy().astype(np.float64)
        return Detections(labels, scores, as_boxes(found["boxes"].numpy()))
