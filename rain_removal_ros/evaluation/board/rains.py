"""The rain of the board, which must not change when the generator does.

``rains.json`` has descriptions of rain that were drawn once, at severity 1 for photos. Styles and
sampler may change since; only the code that renders a description is shared with training.
"""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import rain_removal_ros.data.rain as rain_package
from rain_removal_ros.data.rain import CameraEffects, Layer, Rain, Veil, Wind
from rain_removal_ros.evaluation.board.setup import digest

_FILE = Path(__file__).with_name("rains.json")


def rain(name: str, severity: float = 1.0) -> Rain:
    """A rain by its name; with less ``severity``, fewer and fainter drops and a thinner veil."""
    found = _read(_kept()[name])
    return found if severity == 1 else _lighter(found, severity)


def names(beginning: str) -> list[str]:
    """All rains with this prefix, in order."""
    return [name for name in _kept() if name.startswith(beginning)]


@functools.cache
def fingerprint() -> str:
    """Changes with the descriptions and with the code that renders them."""
    folder = Path(rain_package.__path__[0])
    renderers = [folder / f"{name}.py" for name in ("description", "drops", "rendering")]
    return digest([_FILE, *renderers])


@functools.cache
def _kept() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return kept


def _read(kept: dict[str, Any]) -> Rain:
    return Rain(
        seed=kept["seed"],
        severity=kept["severity"],
        style=kept["style"],
        layers=tuple(Layer(**layer) for layer in kept["layers"]),
        colour=tuple(kept["colour"]),
        absorption=kept["absorption"],
        wind=Wind(**kept["wind"]),
        veil=Veil(**{**kept["veil"], "light": tuple(kept["veil"]["light"])}),
        camera=CameraEffects(**kept["camera"]),
    )


def _lighter(whole: Rain, severity: float) -> Rain:
    layers = tuple(
        replace(
            layer,
            density=layer.density * severity,
            opacity=layer.opacity * (0.45 + 0.55 * severity),
        )
        for layer in whole.layers
    )
    return replace(
        whole,
        severity=severity,
        layers=layers,
        veil=replace(whole.veil, thickness=whole.veil.thickness * severity),
        camera=replace(
            whole.camera,
            exposure=1 - (1 - whole.camera.exposure) * severity,
            contrast=1 - (1 - whole.camera.contrast) * severity,
        ),
    )
