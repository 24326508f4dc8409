"""Heavy rain removal and super-resolution in one network.

Stage 1 removes rain in three ways: by a multiplication, by an addition, and by inverting the heavy
rain model with estimated streaks, transmission and atmospheric light. Stage 2 weighs the three
results by attention, then refines and enlarges the mixture.

Where the paper is silent:

- MSER patches. Features inside a patch keep their place in the picture, and where patches overlap,
  their means are averaged. Both go through the paper's "up feature module" to the two operation
  layers. MSER only determines where the patches are; it runs on a reduced grey picture. It is
  OpenCV's grey-level MSER. A picture in which it finds nothing is covered with patches, as is every
  picture in a compiled or exported network.
- What the patches are worth. In small weights of 900 steps they are worth 1.1 to 1.9 dB to the two
  operation layers, on three test pictures of Rain800, and next to nothing (0.05 to 0.07 dB) to the
  output: the fusion takes 82 to 94 % of a picture from the inverted rain model, which in the paper
  does not see them. ``ats_regions`` lets it see them.
- The transmission weighs channels by pooling and fully connected layers (squeeze-and-excitation)
  and makes a map of them, as the formula has one value per pixel. It stays above 0.1, the usual
  bound in dehazing.
- Blocks are RDN's residual dense blocks, and a tenth of the number of RCAN's RCABs.
- The weights of the losses: 1 where errors are compared, and 0.01 for the perceptual one.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from rain_removal_ros.errors import CheckpointError, SettingsError
from rain_removal_ros.networks import _base
from rain_removal_ros.networks._base import Batch, Facts, Output, State, attention_loss, change_map
from rain_removal_ros.networks._layers import in_range

_PATCHES = 16
"""A patch is this many times smaller than the picture, in height and in width."""
_MSER_SIDE = 160
"""The longest side of the picture in which MSER is computed, which takes 1 to 3 ms."""
_MSER_LEAST_AREA = 10
"""Pixels of the smallest region there: OpenCV's default of 60, scaled to that size."""
_REDUCTION = 4
"""How many times smaller than the picture the features of patches are."""


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's network, for twice the size."""

    scale: int = 2
    """How many times larger the output is: 1, 2 or 4."""
    channels: int = 32
    blocks: int = 10
    """RCABs of the refinement."""
    growth: int = 16
    """Channels that each layer of a dense block adds."""
    regions: str = "mser"
    """Where patches are: around ``mser`` features, on a ``grid``, or nowhere (``none``)."""
    ats_regions: bool = False
    """Whether the rain model sees the patches too. In the paper only the operation layers do."""
    multiplication: bool = True
    """Ablation (ATS+Add): whether there is a multiplication layer."""
    addition: bool = True
    """Ablation (ATS+Mul): whether there is an addition layer."""
    ats: bool = True
    """Ablation (Add+Mul): whether the heavy rain model is inverted."""
    least_transmission: float = 0.1
    """The lower bound of the transmission, by which is divided."""
    ats_weight: float = 1.0
    multiplication_weight: float = 1.0
    addition_weight: float = 1.0
    attention_weight: float = 0.01
    """Weight of the loss that ties the attention map to the rain. The paper has none, which is
    0."""
    vgg_weight: float = 0.01
    vgg16: str = ""
    """File of VGG16 weights with torchvision's names; without it there is no perceptual loss."""

    def __post_init__(self) -> None:
        for field, known in (("scale", (1, 2, 4)), ("regions", ("mser", "grid", "none"))):
            if getattr(self, field) not in known:
                raise SettingsError(
                    f"{field} is one of {', '.join(map(str, known))}, "
                    f"not {getattr(self, field)!r} (joint_derain_sr)"
                )
        if self.multiplication + self.addition + self.ats < 2:
            raise SettingsError(
                "joint_derain_sr mixes results: keep two of multiplication, addition and ats"
            )


def _conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


class _Regions(nn.Module):
    """Features of patches with roughly constant rain each, put back where the patches are."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.down = nn.Sequential(
            _conv(3, channels, stride=2), nn.ReLU(), _conv(channels, channels, stride=2), nn.ReLU()
        )
        self.up = nn.Sequential(
            _conv(2 * channels + 1, channels * _REDUCTION**2 // 2),
            nn.PixelShuffle(_REDUCTION),
            nn.ReLU(),
        )

    def forward(self, frame: Tensor) -> Tensor:
        features = self.down(frame)
        # Half of 1/16 of the side to either side of the centre.
        radii = [side // (2 * _PATCHES) for side in features.shape[-2:]]
        centres = self._centres(frame, radii)
        share = _box_mean(centres, radii)
        combined = _box_mean(centres * _box_mean(features, radii), radii)
        inside = (share > 0).float()
        patches = [features * inside, combined / share.clamp_min(1e-6), inside]
        drawn: Tensor = self.up(torch.cat(patches, 1))
        return drawn

    def _centres(self, frame: Tensor, radii: list[int]) -> Tensor:
        """1 where the centre of a patch is, at the resolution of the features; B x 1 x h x w."""
        height, width = (side // _REDUCTION for side in frame.shape[-2:])
        if self.kind == "grid" or _is_traced(frame):
            return _grid(height, width, radii, frame)
        centres = np.zeros((len(frame), 1, height, width), np.float32)
        for picture, found in zip(centres[:, 0], stable_regions(frame), strict=True):
            rows, columns = (found * (height, width)).astype(int).T
            picture[rows, columns] = 1
        drawn = torch.from_numpy(centres).to(frame.device)
        empty = drawn.amax((1, 2, 3), keepdim=True) == 0
        return torch.where(empty, _grid(height, width, radii, frame), drawn)


def _is_traced(frame: Tensor) -> bool:
    """Whether a graph is being traced, with no pixels to look at."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch.compiler.is_compiling() or frame.is_meta or type(frame) is not Tensor


def _grid(height: int, width: int, radii: list[int], frame: Tensor) -> Tensor:
    """Centres of patches side by side; the last may overlap, so that nothing is left out."""
    lines = []
    for side, radius in zip((height, width), radii, strict=True):
        place = torch.arange(side, device=frame.device)
        lines.append((place % (2 * radius + 1) == radius) | (place == side - 1))
    centres = lines[0][:, None] & lines[1]
    return centres.float().expand(len(frame), 1, height, width)


def _box_mean(image: Tensor, radii: list[int]) -> Tensor:
    """The mean over a rectangle around each pixel, of the part inside the picture."""
    image = image.float()
    for radius, down in zip(radii, (True, False), strict=True):
        size, padding = (2 * radius + 1, 1), (radius, 0)
        if not down:
            size, padding = size[::-1], padding[::-1]
        image = F.avg_pool2d(image, size, 1, padding, count_include_pad=False)
    return image


def stable_regions(frames: Tensor) -> list[NDArray[np.float64]]:
    """Centres of the maximally stable extremal regions of each picture.

    N x 2, y and x as shares of height and width. Only a small grey picture is copied from the
    device. The same picture always gives the same regions.
    """
    sides = frames.shape[-2:]
    factor = max(1, min(math.ceil(max(sides) / _MSER_SIDE), min(sides) // 3))
    small = F.avg_pool2d(frames.detach().float().mean(1, keepdim=True), factor)[:, 0]
    # Rounded slightly off the half: means of 8-bit values often are exactly there, and would then
    # depend on the order of additions on a device.
    grey = (small * 255 + 0.501).clamp(0, 255).to(torch.uint8).cpu().numpy()
    height, width = grey.shape[1:]
    most = max(height * width // 4, _MSER_LEAST_AREA + 1)
    detector = cv2.MSER.create(min_area=_MSER_LEAST_AREA, max_area=most)
    found = []
    for picture in grey:
        boxes = np.asarray(detector.detectRegions(picture)[1], np.float64).reshape(-1, 4)
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        found.append(centres[:, ::-1] / (height, width))
    return found


class _DenseBlock(nn.Module):
    """Layers that each see all before them, and a shortcut around them (Zhang et al. 2018)."""

    def __init__(self, channels: int, growth: int, *, layers: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _conv(channels + layer * growth, growth) for layer in range(layers)
        )
        self.fusion = nn.Conv2d(channels + layers * growth, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        seen = features
        for layer in self.layers:
            seen = torch.cat([seen, F.relu(layer(seen))], 1)
        fused: Tensor = self.fusion(seen)
        return features + fused


class _UNet(nn.Module):
    """A small U-Net: three scales, each half the size and twice the width."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.head = _conv(3, channels)
        self.to_half = _conv(channels, 2 * channels, stride=2)
        self.to_quarter = _conv(2 * channels, 4 * channels, stride=2)
        self.from_quarter = _conv(6 * channels, 2 * channels)
        self.from_half = _conv(3 * channels, channels)
        self.tail = _conv(channels, outputs)

    def forward(self, frame: Tensor) -> Tensor:
        full = F.relu(self.head(frame))
        half = F.relu(self.to_half(full))
        quarter = F.relu(self.to_quarter(half))
        half = F.relu(self.from_quarter(torch.cat([_double(quarter), half], 1)))
        full = F.relu(self.from_half(torch.cat([_double(half), full], 1)))
        light: Tensor = self.tail(full)
        return light


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")


class _ChannelAttention(nn.Module):
    """Weighs channels by pooling and two fully connected layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 4)
        self.inner, self.outer = nn.Linear(channels, inner), nn.Linear(inner, channels)

    def forward(self, features: Tensor) -> Tensor:
        # Leaky, because four units behind a ReLU may all be dead from the start.
        inner = F.leaky_relu(self.inner(features.mean((2, 3))), 0.1)
        weights: Tensor = self.outer(inner).sigmoid()
        return features * weights[:, :, None, None]


class _AtsModel(nn.Module):
    """Streaks, transmission and atmospheric light, and the picture without them."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        channels = config.channels
        self.least = config.least_transmission
        self.head = _conv(inputs, channels)
        self.streaks = nn.Sequential(
            _DenseBlock(channels, config.growth),
            _DenseBlock(channels, config.growth),
            _conv(channels, channels),
            nn.ReLU(),
            _conv(channels, channels),
            nn.ReLU(),
            _conv(channels, 3),
        )
        self.transmission = nn.Sequential(_ChannelAttention(channels), _conv(channels, 1))
        self.light = _UNet(max(channels // 2, 1), 3)

    def forward(self, frame: Tensor, guided: Tensor | None = None) -> Tensor:
        """``guided`` is the frame with the features of its patches, where they are an input."""
        features = F.relu(self.head(frame if guided is None else guided))
        clear: Tensor = self.transmission(features).float().sigmoid()
        transmission = self.least + (1 - self.least) * clear
        light: Tensor = self.light(frame).float().sigmoid()
        streaks: Tensor = self.streaks(features)
        return (frame - (1 - transmission) * light) / transmission - streaks


class _Rcab(nn.Module):
    """RCAN's residual channel attention block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels, channels),
            nn.ReLU(),
            _conv(channels, channels),
            _ChannelAttention(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.body(features)
        return features + changed


class _Refinement(nn.Module):
    """RCABs between a head and a shortcut, then pixel shuffling to the output's size."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        channels = config.channels
        self.scale = config.scale
        self.head = _conv(3, channels)
        self.body = nn.Sequential(
            *(_Rcab(channels) for _ in range(config.blocks)), _conv(channels, channels)
        )
        up: list[nn.Module] = []
        for _ in range(int(math.log2(config.scale))):
            up += [_conv(channels, 4 * channels), nn.PixelShuffle(2)]
        self.up = nn.Sequential(*up)
        self.tail = _conv(channels, 3)

    def forward(self, image: Tensor) -> Tensor:
        features = self.head(image)
        refined: Tensor = self.tail(self.up(features + self.body(features)))
        if self.scale > 1:
            image = F.interpolate(
                image, scale_factor=self.scale, mode="bilinear", align_corners=False
            )
        return image + refined


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(
        paper="Vu and Kim, Jointly Learning of Heavy Rain Removal and Super-Resolution in Single "
        "Images, 2020",
        recurrent=False,
        stride=_REDUCTION,
    )
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        channels = config.channels
        patched = config.regions != "none"
        self.regions = _Regions(channels // 2, config.regions) if patched else None
        operations = [name for name in ("multiplication", "addition") if getattr(config, name)]
        inputs = 3 + (channels // 4 if patched else 0)
        self.operations = nn.ModuleDict(
            {
                name: nn.Sequential(_conv(inputs, channels), nn.ReLU(), _conv(channels, 3))
                for name in operations
            }
        )
        self.ats = _AtsModel(config, inputs if config.ats_regions else 3) if config.ats else None
        results = len(operations) + config.ats
        self.attention = nn.Sequential(
            nn.Conv2d(3 * results, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            _conv(channels, channels),
            nn.ReLU(),
            _conv(channels, results),
        )
        self.refinement = _Refinement(config)
        self._initialise()

    @property
    def not_exportable(self) -> str:
        if self.regions is None:
            return ""
        return "its patches grow with the picture, a graph's windows do not; regions=none can be"

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        return self.refine(frame, self.coarse(frame))

    def coarse(self, frame: Tensor) -> dict[str, Tensor]:
        """Stage 1: the picture without rain at the input's size, once per way."""
        results = {}
        drawn = [frame] if self.regions is None else [frame, self.regions(frame)]
        guided = torch.cat(drawn, 1)
        for name, operation in self.operations.items():
            layer = operation(guided)
            results[name] = frame * layer if name == "multiplication" else frame + layer
        if self.ats is not None:
            results["ats"] = self.ats(frame, guided if self.config.ats_regions else None)
        # A pixel behind dense rain may be estimated as anything; stage 2 need not see how wrong.
        return {name: result.clamp(-1, 2) for name, result in results.items()}

    def refine(self, frame: Tensor, results: Mapping[str, Tensor]) -> Output:
        """Stage 2: the weighted mixture, refined and enlarged.

        Attention is where the weighted results differ from the frame.
        """
        weights = self.attention(torch.cat(list(results.values()), 1)).float().softmax(1)
        chosen, seen = torch.zeros_like(frame), torch.zeros_like(frame[:, :1])
        for weight, result in zip(weights.split(1, 1), results.values(), strict=True):
            chosen = chosen + weight * result
            seen = seen + weight * change_map(result, frame)
        return Output(in_range(self.refinement(chosen)), seen.clamp(0, 1), ())

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                _set_bias(module, 0.0)
        # Training begins close to the input: multiplied by one, with full transmission, and little
        # refined.
        with torch.no_grad():
            self.refinement.tail.weight.mul_(0.1)
        for name, operation in self.operations.items():
            if name == "multiplication" and isinstance(operation, nn.Sequential):
                _set_bias(operation[-1], 1.0)
        if self.ats is not None:
            _set_bias(self.ats.transmission[-1], 2.0)


def _set_bias(layer: nn.Module, value: float) -> None:
    if isinstance(layer.bias, Tensor):
        nn.init.constant_(layer.bias, value)


class Objective(_base.Objective):
    """Squared errors of both stages, and of VGG16 features if its weights are given."""

    network: Network

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        if not network.config.vgg16:
            _say_that_vgg16_is_missing()
        self.vgg = Vgg16(network.config.vgg16) if network.config.vgg16 else None

    def forward(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        # Nothing is carried from frame to frame, so a clip is a batch.
        rainy, reference = batch.rainy.flatten(0, 1), batch.reference.flatten(0, 1)
        results = self.network.coarse(rainy)
        config = self.network.config
        small = F.avg_pool2d(reference, config.scale)
        losses = {
            name: getattr(config, f"{name}_weight") * F.mse_loss(result.float(), small)
            for name, result in results.items()
        }
        output = self.network.refine(rainy, results)
        if config.attention_weight:
            loss = attention_loss(output.attention, small, rainy)
            losses["attention"] = config.attention_weight * loss
        return losses | self.frame_losses(output, rainy, reference)

    def frame_losses(self, output: Output, rainy: Tensor, reference: Tensor) -> dict[str, Tensor]:
        produced = output.derained.float()
        losses = {"output": F.mse_loss(produced, reference)}
        if self.vgg is not None:
            with torch.no_grad():
                wanted = self.vgg(reference)
            weight = self.network.config.vgg_weight
            losses["perceptual"] = weight * F.mse_loss(self.vgg(produced).float(), wanted.float())
        return losses


class Vgg16(nn.Module):
    """VGG16 up to relu3_3, with weights from a file; it is never trained."""

    mean: Tensor
    deviation: Tensor
    # Widths of the convolutions; None is a pooling.
    _LAYERS: ClassVar[tuple[int | None, ...]] = (64, 64, None, 128, 128, None, 256, 256, 256)

    def __init__(self, path: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in self._LAYERS:
            if width is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self._load(Path(path))
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.features((image - self.mean) / self.deviation)
        return features

    def _load(self, path: Path) -> None:
        weights = {key.removeprefix("features."): value for key, value in _weights(path).items()}
        wanted = self.features.state_dict()
        if missing := wanted.keys() - weights.keys():
            raise CheckpointError(
                f"{path} does not hold VGG16 as torchvision names it: no features.{min(missing)}"
            )
        try:
            self.features.load_state_dict({key: weights[key] for key in wanted})
        except RuntimeError as error:
            raise CheckpointError(f"{path} holds weights of another shape than VGG16's") from error


def _weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a torch file; no code of it is run."""
    if not path.is_file():
        raise CheckpointError(f"there is no file of VGG16 weights {path} (joint_derain_sr, vgg16)")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # both libraries raise many kinds of error for foreign files
        raise CheckpointError(f"{path} is not a plain file of weights") from error


@functools.cache
def _say_that_vgg16_is_missing() -> None:
    logging.getLogger(__name__).warning(
        "joint_derain_sr is trained without its perceptual loss: no VGG16 weights are named (vgg16)"
    )
