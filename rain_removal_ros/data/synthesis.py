"""Makes a paired data set from dry pictures: the same picture in many rains.

What was drawn for each pair is saved beside the pictures, so that a set can be examined, made
again, or split by how hard it rains.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rain_removal_ros.data.rain import Rain, Texture, load_textures, render, sample
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.manifest import manifest
from rain_removal_ros.media import pictures
from rain_removal_ros.runtime.files import write_json, write_whole

_STEEPEST = 0.75
"""The angle from the vertical, in radians, of the outermost of several directions."""
_REFERENCE_SIZE = 500
"""Longer side, in pixels, of the pictures that drops of scale 1 suit."""
_DEPTH_SUFFIXES = (".npy", ".png", ".tif", ".tiff", ".exr")


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisOptions:
    """Properties of the rain; what is not set is drawn at random."""

    directions: int = 1
    severity: float | None = None
    style: str | None = None
    seed: int = 0


def synthesize(
    source: Path,
    out: Path,
    options: SynthesisOptions,
    *,
    depth: Path | None = None,
    textures: Path | None = None,
) -> int:
    """Write ``input/``, ``target/`` and ``manifest.json`` into ``out``; returns the number of
    pairs.

    Pictures that cannot be used are named and left out.
    """
    if options.directions < 1:
        raise DataError(f"directions is how many rains a picture gets, got {options.directions}")
    if depth is not None and not depth.is_dir():
        raise DataError(f"no folder of depth maps at {depth}")
    # Refuses an unknown severity or style before anything is written.
    sample(np.random.default_rng(0), severity=options.severity, style=options.style)
    named = _named(source)
    streaks = load_textures(textures) if textures else []
    _make_folders(out)
    pairs: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for name, path in tqdm(named.items(), unit="picture", disable=None):
        try:
            reference = pictures.read(path)
            distance = None if depth is None else read_depth(depth, path, source, reference.shape)
        except DataError as error:
            skipped[str(path)] = str(error)
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        target = _png(reference)
        for number, rain in enumerate(_rains(name, options, len(streaks), reference)):
            pair = f"{name}-{number:02d}.png"
            rainy, level = _rendered(reference, rain, distance, streaks)
            write_whole(out / "target" / pair, target)
            write_whole(out / "input" / pair, _png(rainy))
            pairs.append({"name": pair, "source": str(path), "level": level, "rain": asdict(rain)})
    if not pairs:
        raise DataError(f"none of the {len(named)} pictures in {source} could be used")
    facts = {"manifest": manifest(), "wishes": asdict(options), "skipped": skipped, "pairs": pairs}
    write_json(out / "manifest.json", facts)
    return len(pairs)


def read_depth(
    folder: Path, picture: Path, source: Path, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """The depth map of a picture, H x W, the farthest at 1.

    Larger is farther. Values that are not finite or not positive, where a sensor saw nothing, count
    as the farthest.
    """
    stem = (folder / _relative(picture, source)).with_suffix("")
    path = next((p for s in _DEPTH_SUFFIXES if (p := stem.with_suffix(s)).is_file()), None)
    if path is None:
        raise DataError(f"{picture} has no depth map {stem}{{{','.join(_DEPTH_SUFFIXES)}}}")
    try:
        if path.suffix == ".npy":
            raw = np.load(path, mmap_mode="r")  # needs no more memory than the file
        else:
            data = pictures.encoded(path)
            raw = pictures.decode(path, data, cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the depth map {path} cannot be read: {error}") from error
    if not isinstance(raw, np.ndarray) or raw.ndim != 2 or raw.shape != shape[:2]:
        found = "x".join(map(str, raw.shape)) if isinstance(raw, np.ndarray) else "no picture"
        raise DataError(f"the depth map {path} should be {shape[0]}x{shape[1]}, but is {found}")
    if raw.dtype.kind not in "uif":
        raise DataError(f"the depth map {path} holds {raw.dtype} values, which cannot be depths")
    depth = raw.astype(np.float32)
    seen = np.isfinite(depth) & (depth > 0)
    if not seen.any():
        raise DataError(f"the depth map {path} holds no depth")
    return np.where(seen, depth / depth[seen].max(), np.float32(1))


def _named(source: Path) -> dict[str, Path]:
    """The pictures to use, by the names of their pairs."""
    if not source.exists():
        raise DataError(f"no picture or folder at {source}")
    paths = pictures.find_pictures(source) if source.is_dir() else [source]
    if not paths:
        raise DataError(f"{source} holds no pictures")
    named: dict[str, Path] = {}
    for path in paths:
        name = "-".join(_relative(path, source).with_suffix("").parts)
        if name in named:
            raise DataError(f"{named[name]} and {path} would both be called {name}; rename one")
        named[name] = path
    return named


def _relative(picture: Path, source: Path) -> Path:
    return picture.relative_to(source) if source.is_dir() else Path(picture.name)


def _make_folders(out: Path) -> None:
    try:
        for folder in (out / "input", out / "target"):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise DataError(f"{folder} is not empty; choose another folder or clear it")
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror or error}") from error


def _rains(name: str, options: SynthesisOptions, textures: int, reference: Image) -> Iterator[Rain]:
    """The rains for one picture, independent of the other pictures."""
    rng = np.random.default_rng((options.seed, zlib.crc32(name.encode())))
    scale = max(reference.shape[:2]) / _REFERENCE_SIZE
    angles = np.linspace(-_STEEPEST, _STEEPEST, options.directions)
    for angle in angles:
        rain = sample(
            rng, severity=options.severity, style=options.style, textures=textures, scale=scale
        )
        yield rain.turned(float(angle)) if options.directions > 1 else rain


def _rendered(
    reference: Image, rain: Rain, depth: NDArray[np.float32] | None, textures: Sequence[Texture]
) -> tuple[Image, float]:
    clip = np.ascontiguousarray(reference.transpose(2, 0, 1)[None]).astype(np.float32)
    clip /= np.float32(255)
    rendered = render(clip, rain, depth=depth, textures=textures)
    rainy = np.rint(rendered.rainy[0] * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(rainy), rendered.level


def _png(image: Image) -> bytes:
    _, packed = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return packed.tobytes()
