"""The models to measure, and how their output becomes a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rain_removal_ros import checkpoints, engines, networks
from rain_removal_ros.engines import Derained, Engine
from rain_removal_ros.errors import CheckpointError, SettingsError
from rain_removal_ros.frames import Image
from rain_removal_ros.media.tiling import Needs, TiledEngine, memory_left
from rain_removal_ros.networks._base import Network, Output
from rain_removal_ros.settings import EngineSettings

_COMMON = {
    "cropping": "none: networks see pictures padded by repeated edges, and whole pictures score; "
    "only for a network that enlarges are sides cut to multiples of its scale",
    "psnr": "peak 255; equal pictures count as 100 dB; mean over pictures of their own PSNR",
    "y": "16 + (65.481 R + 128.553 G + 24.966 B) / 255 of 8-bit RGB, not rounded",
    "ssim": "Gaussian window 11, sigma 1.5, only where it fits whole; K 0.01, 0.03; range 255",
    "ms_ssim": "of Y, five scales, means of four between them",
    "enlarging": "a network that enlarges is given the rainy picture reduced by area",
}
PROTOCOLS = {
    "default": {"rounding": "output rounded to 8 bit, as the node publishes it", **_COMMON},
    "published": {
        "rounding": "float32 output truncated to 8 bit, as the scripts behind published figures",
        **_COMMON,
    },
}


@dataclass(frozen=True)
class Runner:
    """One model at one number of stages."""

    model: str
    network: str
    weights: str
    checksum: str
    recurrent: bool
    stages: int
    engine: Engine
    tile_side: int
    """Frames of more pixels than a square of this side are derained in overlapping tiles."""
    label: str
    """The model, and its stages if several numbers are compared."""

    @property
    def scale(self) -> int:
        return self.engine.info.scale

    def derain(self, image: Image, state: Any = None, *, attention: bool = False) -> Derained:
        """Derain one frame; a ``state`` of None is a fresh start."""
        return self.engine.step([image], [state], stages=self.stages, attention=attention)[0]

    def as_manifest(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "network": self.network,
            "weights": self.weights,
            "sha256": self.checksum,
            "stages": self.stages,
            "scale": self.scale,
            "engine": self.engine.info.engine,
            "device": self.engine.info.device,
            "precision": self.engine.info.precision,
            "tile_side": self.tile_side,
        }


@dataclass(frozen=True)
class _Loaded:
    network: Network
    path: Path
    checksum: str


def _truncated(_: object, __: object, output: Output) -> Output:
    """Truncates to whole bytes, so that the engine has nothing to round."""
    whole = (output.derained.float() * 255).clamp(0, 255).floor()
    return output._replace(derained=whole / 255)


def load_runners(
    names: Sequence[str], stages: Sequence[int], settings: EngineSettings, protocol: str
) -> list[Runner]:
    """Every model at every number of stages; one without stages once."""
    if protocol == "published" and (settings.name, settings.precision) != ("torch", "float32"):
        raise SettingsError(
            "the published protocol is one of torch in float32; leave --engine and --precision out"
        )
    found = [loaded for name in names for loaded in _load(name)]
    titles = _titles([loaded.path for loaded in found])
    return [
        runner
        for loaded, title in zip(found, titles, strict=True)
        for runner in _variants(loaded, title, stages, settings, protocol)
    ]


def load_network(name: str) -> Network:
    """One model's network: a name, a weight file, or ``NETWORK:FILE`` published elsewhere."""
    return _load(name)[0].network


def _load(name: str) -> list[_Loaded]:
    if name == "all":
        return [_ours(path) for path in checkpoints.shipped() or [checkpoints.resolve("auto")]]
    if name in ("auto", "default"):  # the latter was its name in older versions
        return [_ours(checkpoints.resolve("auto"))]
    network, colon, file = name.partition(":")
    if colon and network in networks.available():
        imported = checkpoints.import_published(Path(file), network)
        return [_Loaded(imported, Path(file), _file_checksum(Path(file)))]
    return [_ours(checkpoints.resolve(name))]


def _ours(path: Path) -> _Loaded:
    checkpoint = checkpoints.load(path)
    return _Loaded(checkpoint.network, path, checkpoint.checksum)


def _file_checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _titles(paths: Sequence[Path]) -> list[str]:
    """File names without the common suffix; whole paths if two are equal."""
    stems = [path.stem for path in paths]
    return [
        stem if stems.count(stem) == 1 else str(path)
        for stem, path in zip(stems, paths, strict=True)
    ]


def _variants(
    loaded: _Loaded, title: str, stages: Sequence[int], settings: EngineSettings, protocol: str
) -> list[Runner]:
    network = loaded.network
    own = network.stages
    needs = Needs.of(network)
    if protocol == "published":
        network.register_forward_hook(_truncated)
    engine = engines.create(network, settings)
    side = needs.side(memory_left(engine.info.device))
    counts = [own] if network.facts.stages == 1 else [count or own for count in stages]
    counts = list(dict.fromkeys(counts))
    return [
        Runner(
            model=title,
            network=engine.info.network,
            weights=str(loaded.path),
            checksum=loaded.checksum,
            recurrent=network.facts.recurrent,
            stages=count,
            engine=TiledEngine(engine, side=side),
            tile_side=side,
            label=title if len(counts) == 1 else f"{title}, {_stages(count)}",
        )
        for count in counts
    ]


def _stages(count: int) -> str:
    return f"{count} stage" if count == 1 else f"{count} stages"
