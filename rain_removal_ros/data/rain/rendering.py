"""Renders a described rain onto a reference clip.

The model is the heavy-rain model, ``I = T * (J + sum S) + (1 - T) * A``, followed by the camera.
All of it is NumPy and OpenCV, so a seed gives the same rain everywhere, also without torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data.rain.description import Colour, Rain, Region, Veil
from rain_removal_ros.data.rain.drops import draw_layer
from rain_removal_ros.data.rain.textures import Texture, draw_texture
from rain_removal_ros.errors import DataError

Planes: TypeAlias = NDArray[np.float32]


class Rendered(NamedTuple):
    """A rainy clip and its components."""

    rainy: Planes
    """T x 3 x H x W in [0, 1]."""
    streaks: Planes
    """T x 3 x H x W: what the streaks add to the reference clip."""
    transmission: Planes
    """T x 1 x H x W or 1 x 1 x H x W: the share of the scene's light that passes the veil."""
    level: float
    """How much rain there is, from 0 to 1, independent of the background."""


def render(
    reference: Planes,
    rain: Rain,
    *,
    depth: Planes | None = None,
    textures: Sequence[Texture] = (),
    first: int = 0,
) -> Rendered:
    """Let ``rain`` fall on a clip, T x 3 x H x W in [0, 1], whose first frame is number ``first``.

    ``depth``, H x W or T x H x W, runs from 0 at the lens to 1. Without it, a guess is used for the
    veil, and nothing hides streaks.
    """
    if reference.ndim != 4 or reference.shape[1] != 3:
        raise DataError(f"a clip is frames x 3 x height x width, got {tuple(reference.shape)}")
    given = None if depth is None else _checked_depth(depth, reference)
    if rain.clear:
        return Rendered(reference, np.zeros_like(reference), np.ones_like(reference[:1, :1]), 0.0)
    opacity = _opacity(reference, rain, given, textures, first)
    transmission = _transmission(reference, rain.veil, given, rain.seed)
    streaks = opacity * (_as_pixel(rain.colour) - np.float32(rain.absorption) * reference)
    rainy = _photograph(_scene(reference, opacity, transmission, rain), rain, first)
    return Rendered(rainy, streaks, transmission, _level(opacity, transmission))


def render_frames(
    reference: NDArray[np.uint8],
    rain: Rain,
    *,
    depth: NDArray[np.float32] | None = None,
    textures: Sequence[Texture] = (),
    first: int = 0,
) -> NDArray[np.uint8]:
    """``render`` for 8-bit frames, T x H x W x 3."""
    if rain.clear:
        return reference.copy()
    # Planes in memory, so that operations that treat the three colours alike run over long rows.
    clip = np.ascontiguousarray(reference.transpose(0, 3, 1, 2)).astype(np.float32)
    clip /= np.float32(255)
    given = None if depth is None else _checked_depth(depth, clip)
    opacity = _opacity(clip, rain, given, textures, first)
    transmission = _transmission(clip, rain.veil, given, rain.seed)
    rainy = _photograph(_scene(clip, opacity, transmission, rain), rain, first)
    return _as_frames(rainy)


def _scene(reference: Planes, opacity: Planes, transmission: Planes, rain: Rain) -> Planes:
    """``T * (J + sum S) + (1 - T) * A``, in as few passes over the pixels as possible."""
    through = transmission * opacity
    scene: Planes = reference * (transmission - np.float32(rain.absorption) * through)
    scene += through * _as_pixel(rain.colour)
    if rain.veil.thickness:
        scene += (1 - transmission) * _as_pixel(rain.veil.light)
    return scene


def _as_pixel(colour: Colour) -> Planes:
    return np.array(colour, np.float32).reshape(1, 3, 1, 1)


def _checked_depth(depth: Planes, reference: Planes) -> Planes:
    """T x 1 x H x W or 1 x 1 x H x W."""
    frames = depth if depth.ndim == 3 else depth[None]
    if frames.shape[-2:] != reference.shape[-2:] or frames.shape[0] not in (1, reference.shape[0]):
        raise DataError(f"depth {tuple(depth.shape)} does not fit a clip {tuple(reference.shape)}")
    return np.asarray(frames[:, None], np.float32)


def _opacity(
    reference: Planes, rain: Rain, depth: Planes | None, textures: Sequence[Texture], first: int
) -> Planes:
    """T x 1 x H x W of all streaks together, in [-1, 1]; negative where drops darken."""
    frames, _, height, width = reference.shape
    wet = None if rain.region is None else _wetness(rain.region, (height, width), rain.seed)
    shape = frames, height, width
    total = np.zeros((frames, 1, height, width), np.float32)
    for index, layer in enumerate(rain.layers):
        seed = (rain.seed, index)
        streaks = draw_layer(shape, layer, rain.wind, seed, first, wet)
        drawn = streaks[:, None]
        if depth is not None:
            # Objects hide the drops behind them. The edge is soft, because drops are at all
            # distances.
            drawn = drawn * ((depth - np.float32(layer.distance)) * 8 + 1).clip(0, 1)
        total += drawn
    smooth: Planes = np.full((1, 1, 1, 1), rain.accumulation, np.float32)
    for patch in rain.textures:
        if not textures:
            raise DataError("this rain has streaks from textures; pass them to the renderer")
        chosen = textures[min(int(patch.choice * len(textures)), len(textures) - 1)]
        piece = draw_texture(shape, patch, chosen, first)
        smooth = smooth + piece[:, None]
    if wet is not None:
        smooth = smooth * wet
    total += smooth
    return np.clip(total, -1, 1, out=total)


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
    """Enlarged smoothly to height and width."""
    larger = cv2.resize(coarse.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(larger, np.float32)


def _transmission(reference: Planes, veil: Veil, depth: Planes | None, seed: int) -> Planes:
    """1 x 1 x H x W, or T x 1 x H x W if depth is given for each frame."""
    if veil.thickness == 0:
        return np.ones_like(reference[:1, :1])
    distance = _guessed_depth(reference, veil) if depth is None else depth
    height, width = reference.shape[-2:]
    coarse = np.random.default_rng((seed, 1_000)).normal(size=(4, 4)).clip(-2, 2)
    uneven = _enlarged(coarse, (height, width))
    thickness = veil.thickness * np.maximum(1 + 0.5 * veil.clouds * uneven, 0)
    return np.asarray(np.exp(-thickness * distance), np.float32)


def _guessed_depth(reference: Planes, veil: Veil) -> Planes:
    """1 x 1 x H x W from simple cues: the top is far, and so is what is bright and colourless.

    One guess for a whole clip, because a veil must not flicker.
    """
    height, width = reference.shape[-2:]
    down = np.linspace(0, 1, height, dtype=np.float32)
    plane = np.broadcast_to((1 + (veil.nearest - 1) * down)[:, None], (1, 1, height, width))
    if veil.cue == 0:
        return plane
    # The dark channel, on a small copy: a guess of depth needs no detail.
    small = np.stack([_shrunk(plane) for plane in reference.mean(0)]).min(0)
    pale = _enlarged(small, (height, width))
    guess = veil.nearest + (1 - veil.nearest) * pale.clip(0, 1)
    return np.asarray(plane + veil.cue * (guess - plane), np.float32)


_SHRUNK = 16


def _shrunk(plane: Planes) -> Planes:
    """The means of 16 x 16 parts; where sides are not divisible, neighbours share a line."""

    def sums(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        length = values.shape[axis]
        before = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis)], axis)
        edges = np.arange(_SHRUNK + 1) * length
        starts, ends = edges[:-1] // _SHRUNK, -(-edges[1:] // _SHRUNK)
        shape = [1, 1]
        shape[axis] = -1
        means = before.take(ends, axis) - before.take(starts, axis)
        return np.asarray(means / (ends - starts).reshape(shape))

    return sums(sums(plane.astype(np.float64), 0), 1).astype(np.float32)


def _level(opacity: Planes, transmission: Planes) -> float:
    """Grows with the area that streaks cover and with the light that the veil takes; near 1 only
    for both.
    """
    covered = 4 * float(np.abs(opacity).mean())
    return 1 - math.exp(-2 * (covered + float(1 - transmission.mean())))


def _photograph(scene: Planes, rain: Rain, first: int) -> Planes:
    """The scene as the camera delivers it: exposure, contrast, noise, compression."""
    camera = rain.camera
    if camera.exposure != 1 or camera.contrast != 1:
        middle = 0.5 * (1 - camera.contrast)
        scene *= np.float32(camera.exposure * camera.contrast)
        scene += np.float32(middle * camera.exposure)
    if camera.noise > 0:
        grain = _grain(scene.shape, (rain.seed, 2_000, first))
        grain *= np.float32(camera.noise)
        scene += grain
    np.clip(scene, 0, 1, out=scene)
    return scene if camera.jpeg is None else _compressed(scene, camera.jpeg)


_GRAIN_BYTES = 4


def _grain(shape: tuple[int, ...], seed: tuple[int, ...]) -> NDArray[np.float32]:
    """Sums of random bytes: as good as normally distributed noise, in a tenth of the time."""
    count = math.prod(shape)
    drawn = np.random.SFC64(seed).random_raw(-(-_GRAIN_BYTES * count // 8)).view(np.uint8)
    levels = drawn[: _GRAIN_BYTES * count].reshape(_GRAIN_BYTES, count)
    total: NDArray[np.float32] = levels.sum(0, dtype=np.uint16).astype(np.float32).reshape(shape)
    total -= np.float32(_GRAIN_BYTES * 127.5)
    total /= np.float32(math.sqrt(_GRAIN_BYTES * (256**2 - 1) / 12))
    return total


def _as_frames(clip: Planes) -> NDArray[np.uint8]:
    """T x H x W x 3 of T x 3 x H x W."""
    levels = clip * np.float32(255)
    np.rint(levels, out=levels)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))


def _compressed(clip: Planes, quality: int) -> Planes:
    unpacked = np.stack([_jpeg(frame, quality) for frame in _as_frames(clip)])
    planes = np.ascontiguousarray(unpacked.transpose(0, 3, 1, 2)).astype(np.float32)
    return np.divide(planes, np.float32(255), out=planes)


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    turned = np.ascontiguousarray(image[..., ::-1])  # OpenCV's order is blue, green, red
    _, packed = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, quality])
    unpacked = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(unpacked[..., ::-1])
