"""From a description of rain and a clean clip to the rainy clip.

The model is the heavy-rain model, ``I = T * (J + sum S) + (1 - T) * A``, and then the camera.
Streaks and noise are drawn with numpy and OpenCV, so that a seed means the same rain everywhere;
the rest are torch operations on the clip's own device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rain_removal_ros.data.rain.description import Colour, Rain, Region, Veil
from rain_removal_ros.data.rain.drops import draw_layer
from rain_removal_ros.data.rain.textures import Texture, draw_texture
from rain_removal_ros.errors import DataError


class Rendered(NamedTuple):
    """A rainy clip and what it was made of."""

    rainy: Tensor
    """T x 3 x H x W in [0, 1]."""
    streaks: Tensor
    """T x 3 x H x W: what the streaks add to the clean clip."""
    transmission: Tensor
    """T x 1 x H x W or 1 x 1 x H x W: the share of the scene that comes through the veil."""
    level: float
    """How much rain there is, from 0 to 1, whatever the background."""


def render(
    clean: Tensor,
    rain: Rain,
    *,
    depth: Tensor | None = None,
    textures: Sequence[Texture] = (),
    first: int = 0,
) -> Rendered:
    """Let ``rain`` fall on a clip, T x 3 x H x W in [0, 1], whose first frame is number ``first``.

    ``depth``, H x W or T x H x W, runs from 0 at the lens to 1; without it a guess is used for the
    veil, and streaks are hidden by nothing.
    """
    if clean.ndim != 4 or clean.shape[1] != 3:
        raise DataError(f"a clip is frames x 3 x height x width, got {tuple(clean.shape)}")
    given = None if depth is None else _checked_depth(depth, clean)
    if rain.clear:
        return Rendered(clean, torch.zeros_like(clean), torch.ones_like(clean[:1, :1]), 0.0)
    opacity = _opacity(clean, rain, given, textures, first)
    transmission = _transmission(clean, rain.veil, given, rain.seed)
    streaks = opacity * (_as_pixel(rain.colour, clean) - rain.absorption * clean)
    rainy = _photograph(_scene(clean, opacity, transmission, rain), rain, first)
    return Rendered(rainy, streaks, transmission, _level(opacity, transmission))


def render_frames(
    clean: NDArray[np.uint8],
    rain: Rain,
    *,
    depth: NDArray[np.float32] | None = None,
    textures: Sequence[Texture] = (),
    first: int = 0,
) -> NDArray[np.uint8]:
    """``render`` for 8-bit frames, T x H x W x 3."""
    if rain.clear:
        return clean.copy()
    # Plane by plane in memory: what is the same for three colours is then laid on in long runs.
    clip = torch.from_numpy(clean).permute(0, 3, 1, 2).contiguous().float().div_(255)
    given = None if depth is None else _checked_depth(torch.from_numpy(depth), clip)
    opacity = _opacity(clip, rain, given, textures, first)
    transmission = _transmission(clip, rain.veil, given, rain.seed)
    rainy = _photograph(_scene(clip, opacity, transmission, rain), rain, first)
    return _as_frames(rainy)


def _scene(clean: Tensor, opacity: Tensor, transmission: Tensor, rain: Rain) -> Tensor:
    """``T * (J + sum S) + (1 - T) * A``, in as few passes over the pixels as that takes."""
    through = transmission * opacity
    scene = clean * (transmission - rain.absorption * through)
    scene.addcmul_(through, _as_pixel(rain.colour, clean))
    if rain.veil.thickness:
        scene.addcmul_(1 - transmission, _as_pixel(rain.veil.light, clean))
    return scene


def _as_pixel(colour: Colour, like: Tensor) -> Tensor:
    return like.new_tensor(colour).view(1, 3, 1, 1)


def _checked_depth(depth: Tensor, clean: Tensor) -> Tensor:
    """T x 1 x H x W or 1 x 1 x H x W."""
    frames = depth if depth.ndim == 3 else depth[None]
    if frames.shape[-2:] != clean.shape[-2:] or frames.shape[0] not in (1, clean.shape[0]):
        raise DataError(f"depth {tuple(depth.shape)} does not fit a clip {tuple(clean.shape)}")
    return frames[:, None].to(clean)


def _opacity(
    clean: Tensor, rain: Rain, depth: Tensor | None, textures: Sequence[Texture], first: int
) -> Tensor:
    """T x 1 x H x W of all streaks together, in [-1, 1]; negative where drops darken."""
    frames, _, height, width = clean.shape
    wet = None if rain.region is None else _wetness(rain.region, (height, width), rain.seed)
    shape = frames, height, width
    total = clean.new_zeros((frames, 1, height, width))
    for index, layer in enumerate(rain.layers):
        seed = (rain.seed, index)
        streaks = draw_layer(shape, layer, rain.wind, seed, first, wet)
        drawn = torch.from_numpy(streaks).to(clean)[:, None]
        if depth is not None:
            # Drops behind an object are hidden by it. Soft, as drops lie at all distances.
            drawn = drawn * ((depth - layer.distance) * 8 + 1).clamp(0, 1)
        total += drawn
    smooth = clean.new_full((1, 1, 1, 1), rain.accumulation)
    for patch in rain.textures:
        if not textures:
            raise DataError("this rain has streaks from textures; hand them to the renderer")
        chosen = textures[min(int(patch.choice * len(textures)), len(textures) - 1)]
        piece = draw_texture(shape, patch, chosen, first)
        smooth = smooth + torch.from_numpy(piece).to(clean)[:, None]
    if wet is not None:
        smooth = smooth * torch.from_numpy(wet).to(clean)
    return (total + smooth).clamp(-1, 1)


def _wetness(region: Region, size: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """H x W: the share of the drops that fall in each place."""
    height, width = size
    coarse = np.random.default_rng((seed, 4_000)).normal(size=(5, 5)).clip(-2, 2)
    patches = _enlarged(coarse, size)
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(math.cos(region.facing))
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.float32(math.sin(region.facing))
    inside = across + down[:, None] - region.border + region.patches * patches
    wet: NDArray[np.float32] = np.clip(0.5 + inside / region.softness, 0, 1).astype(np.float32)
    return wet


def _enlarged(coarse: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Smoothly, to height and width."""
    larger = cv2.resize(coarse.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(larger, np.float32)


def _transmission(clean: Tensor, veil: Veil, depth: Tensor | None, seed: int) -> Tensor:
    """1 x 1 x H x W, or T x 1 x H x W where depth was given for each frame."""
    if veil.thickness == 0:
        return torch.ones_like(clean[:1, :1])
    distance = _guessed_depth(clean, veil) if depth is None else depth
    height, width = clean.shape[-2:]
    coarse = np.random.default_rng((seed, 1_000)).normal(size=(4, 4)).clip(-2, 2)
    uneven = torch.from_numpy(_enlarged(coarse, (height, width))).to(clean)
    thickness = veil.thickness * (1 + 0.5 * veil.clouds * uneven).clamp_min(0)
    return (-thickness * distance).exp()


def _guessed_depth(clean: Tensor, veil: Veil) -> Tensor:
    """1 x 1 x H x W from simple cues: far is up, and far is bright and colourless.

    One guess for a whole clip, as a veil must not flicker.
    """
    height, width = clean.shape[-2:]
    down = torch.linspace(0, 1, height, device=clean.device, dtype=clean.dtype)
    plane = (1 + (veil.nearest - 1) * down)[None, None, :, None].expand(1, 1, height, width)
    if veil.cue == 0:
        return plane
    # The dark channel, on a small copy: a guess of depth has no use for detail.
    small = F.adaptive_avg_pool2d(clean.mean(0), (16, 16)).amin(0)
    pale = torch.from_numpy(_enlarged(small.cpu().numpy(), (height, width))).to(clean)
    guess = veil.nearest + (1 - veil.nearest) * pale.clamp(0, 1)
    return plane + veil.cue * (guess - plane)


def _level(opacity: Tensor, transmission: Tensor) -> float:
    """Grows with what streaks cover and with what the veil takes, and nears 1 only for both."""
    covered = 4 * float(opacity.abs().mean())
    return 1 - math.exp(-2 * (covered + float(1 - transmission.mean())))


def _photograph(scene: Tensor, rain: Rain, first: int) -> Tensor:
    """The scene as the camera delivers it: exposure, contrast, noise, compression."""
    camera = rain.camera
    if camera.exposure != 1 or camera.contrast != 1:
        middle = 0.5 * (1 - camera.contrast)
        scene = scene.mul_(camera.exposure * camera.contrast).add_(middle * camera.exposure)
    if camera.noise > 0:
        grain = torch.from_numpy(_grain(tuple(scene.shape), (rain.seed, 2_000, first)))
        scene = scene.add_(grain.to(scene), alpha=camera.noise)
    scene = scene.clamp_(0, 1)
    return scene if camera.jpeg is None else _compressed(scene, camera.jpeg)


_GRAIN_BYTES = 4


def _grain(shape: tuple[int, ...], seed: tuple[int, ...]) -> NDArray[np.float32]:
    """Sums of random bytes: as good as normal for noise, at a tenth of the time."""
    count = math.prod(shape)
    drawn = np.random.SFC64(seed).random_raw(-(-_GRAIN_BYTES * count // 8)).view(np.uint8)
    levels = drawn[: _GRAIN_BYTES * count].reshape(_GRAIN_BYTES, count)
    total: NDArray[np.float32] = levels.sum(0, dtype=np.uint16).astype(np.float32).reshape(shape)
    total -= np.float32(_GRAIN_BYTES * 127.5)
    total /= np.float32(math.sqrt(_GRAIN_BYTES * (256**2 - 1) / 12))
    return total


def _as_frames(clip: Tensor) -> NDArray[np.uint8]:
    """T x H x W x 3 of T x 3 x H x W."""
    frames = (clip * 255).round_().byte().permute(0, 2, 3, 1).contiguous()
    return np.asarray(frames.cpu().numpy(), np.uint8)


def _compressed(clip: Tensor, quality: int) -> Tensor:
    unpacked = np.stack([_jpeg(frame, quality) for frame in _as_frames(clip)])
    return (torch.from_numpy(unpacked).permute(0, 3, 1, 2).float() / 255).to(clip)


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    turned = np.ascontiguousarray(image[..., ::-1])  # OpenCV's order is blue, green, red
    _, packed = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, quality])
    unpacked = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(unpacked[..., ::-1])
