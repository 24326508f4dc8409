"""Synthetic rain: described once at random, then rendered onto any picture or clip.

Networks trained on one published set fail on the next, because each set draws its rain in its own
way. So the description covers them all: ``sample`` draws a ``Rain``, ``render`` puts it on a clip.

    rain = sample(np.random.default_rng(7), severity=0.6)
    rainy = render(clip, rain).rainy
"""

from __future__ import annotations

from rain_removal_ros.data.rain.description import (
    CameraEffects,
    Layer,
    Profile,
    Rain,
    Region,
    TextureLayer,
    Veil,
    Wind,
)
from rain_removal_ros.data.rain.rendering import Rendered, render, render_frames
from rain_removal_ros.data.rain.sampling import sample
from rain_removal_ros.data.rain.styles import STYLES, TRAINING_STYLES
from rain_removal_ros.data.rain.textures import Texture, load_textures

__all__ = [
    "STYLES",
    "TRAINING_STYLES",
    "CameraEffects",
    "Layer",
    "Profile",
    "Rain",
    "Region",
    "Rendered",
    "Texture",
    "TextureLayer",
    "Veil",
    "Wind",
    "load_textures",
    "render",
    "render_frames",
    "sample",
]
