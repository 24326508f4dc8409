"""How many training samples of synthetic rain one core makes a second, style by style.

Training draws new rain for every sample, so this must stay well above what any network can use.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from rain_removal_ros.data.rain import STYLES, load_textures, render, sample

_SIZES = ((1, 128, 128), (1, 256, 256), (5, 128, 128), (1, 1080, 1920))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--textures", type=Path, metavar="DIR", help="streak textures")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure (default 1)")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    textures = load_textures(args.textures) if args.textures else []
    print("samples a second (and the slowest in ms)")
    print("frames x size   " + "".join(f"{style:>16}" for style in STYLES))
    for frames, height, width in _SIZES:
        clip = torch.rand(frames, 3, height, width, device=args.device)
        scale = max(1.0, width / 500)
        cells = []
        for style in STYLES:
            rng = np.random.default_rng(0)
            took: list[float] = []
            while sum(took) < args.seconds:
                start = time.perf_counter()
                rain = sample(rng, style=style, textures=len(textures), scale=scale)
                render(clip, rain, textures=textures)
                if clip.is_cuda:
                    torch.cuda.synchronize()
                took.append(time.perf_counter() - start)
            cells.append(f"{len(took) / sum(took):8.1f} ({max(took) * 1000:5.0f})")
        print(f"{f'{frames} x {width}x{height}':16}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
