"""Pictures embedded in the page, and the slider that compares two of them."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.frames import Image
from rain_removal_ros.report._page import Html, text

_WIDEST = 960
"""Wider pictures are reduced, so that a page of fifty can still be sent."""
_QUALITY = 88
_HIGHEST_REM = 26
"""A portrait picture would otherwise fill the screen."""
_SHARE_OF_MAP = 0.6


def picture(image: Image, *, caption: str = "") -> Html:
    """One picture with what it shows."""
    shown = f'<div class="frame" {_room(image)}>{_img(image, caption)}</div>'
    return Html(f"<figure>{shown}{_caption(caption)}</figure>")


def slider(
    before: Image,
    after: Image,
    *,
    attention: NDArray[np.uint8] | None = None,
    truth: Image | None = None,
    labels: tuple[str, str] = ("before", "after"),
    caption: str = "",
) -> Html:
    """Two pictures of one scene, with a bar to drag across; on paper, side by side.

    Buttons overlay the attention map, or show the reference instead.
    """
    layers = {}
    if attention is not None:
        layers["attention"] = _tinted(before, attention)
    if truth is not None:
        layers["truth"] = truth
    shown = "".join(
        _img(image, f"{name}: {caption}", kind="layer", extra=f'data-layer="{name}" hidden')
        for name, image in layers.items()
    )
    buttons = "".join(
        f'<button type="button" data-layer="{name}" aria-pressed="false">{name}</button>'
        for name in layers
    )
    left, right = labels
    return Html(
        f'<figure class="slider"><div class="frame" {_room(before)}>'
        + _img(before, f"{left}: {caption}")
        + _img(after, f"{right}: {caption}", kind="after")
        + '<input type="range" min="0" max="100" step="0.1" value="50" '
        f'aria-label="{text(left)} to {text(right)}"><span class="bar"></span>'
        f'<span class="name left">{text(left)}</span><span class="name right">{text(right)}</span>'
        f"{shown}</div>{buttons}{_caption(caption)}</figure>"
    )


def _room(image: Image) -> str:
    """The maximum width of a picture whose height must stay within bounds."""
    height, width = image.shape[:2]
    return f'style="max-width: {_HIGHEST_REM * width / height:.1f}rem"'


def _caption(caption: str) -> str:
    return f"<figcaption>{text(caption)}</figcaption>" if caption else ""


def _img(image: Image, alt: str, *, kind: str = "", extra: str = "") -> str:
    shown = _at_most(image, _WIDEST)
    height, width = shown.shape[:2]
    _, packed = cv2.imencode(
        ".jpg", np.ascontiguousarray(shown[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    data = base64.b64encode(packed.tobytes()).decode("ascii")
    return (
        f'<img class="{kind}" width="{width}" height="{height}" alt="{text(alt)}" {extra} '
        f'src="data:image/jpeg;base64,{data}">'
    )


def _at_most(image: Image, widest: int) -> Image:
    height, width = image.shape[:2]
    if width <= widest:
        return image
    size = (widest, max(1, round(height * widest / width)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _tinted(image: Image, attention: NDArray[np.uint8]) -> Image:
    """The picture with the map overlaid in colours from dark to bright."""
    colours = cv2.applyColorMap(attention, cv2.COLORMAP_INFERNO)[..., ::-1]
    height, width = image.shape[:2]
    fitted = cv2.resize(np.ascontiguousarray(colours), (width, height))
    mixed = cv2.addWeighted(fitted, _SHARE_OF_MAP, image, 1 - _SHARE_OF_MAP, 0)
    return np.asarray(mixed, np.uint8)
