"""Measures a network while it trains: always the same pictures, in the same rain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rain_removal_ros import metrics
from rain_removal_ros.data import clips
from rain_removal_ros.data.cache import MemoryCache
from rain_removal_ros.data.mix import DataSettings, RainMaker, Source, SourceSettings, cache_of
from rain_removal_ros.networks._base import Network, State
from rain_removal_ros.training.recipe import ValidationSettings

_PICTURES_SHOWN = 4
_CLIP_SIDE = 256
_SEVERITY = (0.2, 1.0)  # never dry: the PSNR of a dry input is infinite
_MEMORY_SHARE = 0.25

Pixels = NDArray[np.uint8]


def prepare(sets: Sequence[ValidationSettings], data: DataSettings) -> list[Validation]:
    """All sets of a run; they share a part of the memory for training data."""
    memory = MemoryCache(int(data.memory_gb * 1e9 * _MEMORY_SHARE))
    return [Validation(settings, data, memory) for settings in sets]


class Validation:
    """One set; ``measure`` runs a network over it."""

    def __init__(
        self, settings: ValidationSettings, data: DataSettings, memory: MemoryCache
    ) -> None:
        self.name, self.kind = settings.name or Path(settings.path).name, settings.kind
        self.frames = data.frames
        source = Source(
            SourceSettings(
                settings.path, settings.kind, settings.clips, only_every=settings.only_every
            ),
            data.folder,
        )
        every = max(1, len(source.clips) // settings.limit)
        self.clips = source.clips[::every][: settings.limit]
        self.rain = RainMaker(data)
        self.cache = cache_of(source, data, memory)

    def measure(self, network: Network, device: torch.device, picture: Path) -> dict[str, float]:
        """Mean PSNR-Y and its gain over the input, in dB, and the correlation of attention with
        what the rain changed; ``picture`` shows the first few.
        """
        after, before, strips = [], [], []
        attention: list[float] = []
        for number, clip in enumerate(self.clips):
            rainy, reference = self._load(clip, number, network.scale)
            frames = list(outputs(network, rainy, device))
            produced = np.stack([frame for frame, _ in frames])
            untouched = rainy if network.scale == 1 else _enlarged(rainy, reference)
            after.append(_clip_psnr(produced, reference))
            before.append(_clip_psnr(untouched, reference))
            maps = [each for _, each in frames]
            attention += _correlations(maps, untouched, reference)
            if number < _PICTURES_SHOWN:
                strips.append(np.concatenate([untouched[-1], produced[-1], reference[-1]], 1))
        _write_strips(picture, strips)
        psnr = float(np.mean(after))
        return {
            "psnr": psnr,
            "gain": psnr - float(np.mean(before)),
            "attention": float(np.mean(attention)),
        }

    def _load(self, clip: clips.Clip, number: int, scale: int) -> tuple[Pixels, Pixels]:
        rng = np.random.default_rng((0, number))
        height, width = clip.frame(0, self.cache)[0].shape[:2]
        height, width = height // scale * scale, width // scale * scale
        if self.kind == "pairs" and clip.frames == 1:
            rainy, reference = (view[None, :height, :width] for view in clip.frame(0, self.cache))
        else:
            window = clips.Window(min(height, _CLIP_SIDE), min(width, _CLIP_SIDE), self.frames)
            parts = clips.cut(clip, window, self.cache, rng)
            reference = parts[-1]
            rainy = parts[0]
            if self.kind == "clean":
                rainy = self.rain.fall(reference, rng, severity=rng.uniform(*_SEVERITY))
        return clips.shrink(rainy, scale), reference


def derain(network: Network, rainy: Pixels, device: torch.device) -> Pixels:
    """A clip T x H x W x 3 through a network, frame by frame, its state carried."""
    return np.stack([frame for frame, _ in outputs(network, rainy, device)])


@torch.no_grad()
def outputs(
    network: Network, rainy: Pixels, device: torch.device
) -> Iterator[tuple[Pixels, NDArray[np.float32]]]:
    """Each frame of a clip T x H x W x 3 derained, with its attention map, the state carried."""
    state: State = ()
    height, width = rainy.shape[1:3]
    stride, scale = network.facts.stride, network.scale
    for image in rainy:
        frame = torch.from_numpy(image.copy()).to(device).permute(2, 0, 1)[None].float() / 255
        padded = F.pad(frame, (0, -width % stride, 0, -height % stride), mode="replicate")
        output = network(padded, state)
        state = output.state
        derained = output.derained[0, :, : height * scale, : width * scale].float().clamp(0, 1)
        attention = output.attention[0, 0, :height, :width].float().cpu().numpy()
        yield (derained * 255).round().byte().permute(1, 2, 0).cpu().numpy(), attention


def _correlations(
    maps: list[NDArray[np.float32]], rainy: Pixels, reference: Pixels
) -> Iterator[float]:
    """The correlation of each frame's attention map with how much the rain changed each pixel."""
    for attention, before, after in zip(maps, rainy, reference, strict=True):
        change = np.abs(before.astype(np.float32) - after).mean(2)
        size = (change.shape[1], change.shape[0])
        resized = np.asarray(cv2.resize(attention, size, interpolation=cv2.INTER_AREA))
        yield metrics.correlation(resized, change)


def _clip_psnr(first: Pixels, second: Pixels) -> float:
    """Mean PSNR of Y over the frames."""
    pairs = zip(first, second, strict=True)
    return float(np.mean([metrics.psnr(metrics.luma(a), metrics.luma(b)) for a, b in pairs]))


def _enlarged(rainy: Pixels, reference: Pixels) -> Pixels:
    size = (reference.shape[2], reference.shape[1])
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in rainy])


def _write_strips(path: Path, strips: list[Pixels]) -> None:
    """Rainy, derained and reference side by side, one picture per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width = max(strip.shape[1] for strip in strips)
    rows = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in strips]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
