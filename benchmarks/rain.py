"""How long the rain of a training sample takes on one core, style by style and in the mix.

Training draws new rain for every sample, on the cores that it trains on. CPU time is measured,
because other load on the machine distorts it less.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from rain_removal_ros.data.rain import TRAINING_STYLES, load_textures, render_frames, sample

_SIZES = ((1, 128, 128), (1, 208, 304), (4, 208, 304), (1, 1080, 1920))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--textures", type=Path, metavar="DIR", help="streak textures")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure (default 1)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    textures = load_textures(args.textures) if args.textures else []
    styles = (None, *TRAINING_STYLES)
    print("CPU time in ms: mean (slowest)")
    print("frames x size   " + "".join(f"{style or 'mix':>14}" for style in styles))
    for frames, height, width in _SIZES:
        clip = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)
        scale = max(1.0, width / 500)
        cells = []
        for style in styles:
            took: list[float] = []
            for seed in itertools.count():
                start = time.process_time()
                rain = sample(
                    np.random.default_rng((1, seed)), style=style, textures=len(textures),
                    scale=scale, styles=TRAINING_STYLES,
                )  # fmt: skip
                render_frames(clip, rain, textures=textures)
                took.append(time.process_time() - start)
                if sum(took) > args.seconds:
                    break
            cells.append(f"{1000 * np.mean(took):7.1f} ({1000 * max(took):4.0f})")
        print(f"{f'{frames} x {width}x{height}':16}" + "".join(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    main()
