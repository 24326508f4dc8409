"""Makes a recording of a camera in the rain, with the ground truth of the scene.

SOURCE is "drive" for the built-in street, a video, or a folder of pictures. The camera's namespace
has image_raw with rain, image_clean without, and camera_info. A drive also has depth in metres
(32FC1) and boxes (vision_msgs/Detection2DArray). The same flags make the same recording.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rain_removal_ros.cli._options import size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="drive, a video, or a folder of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--force", action="store_true", help="replace a recording at OUT")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="length (default: all; of the drive, 20)"
    )
    parser.add_argument(
        "--fps", type=float, default=30.0, metavar="HZ", help="frame rate (default: 30)"
    )
    parser.add_argument(
        "--size",
        type=size,
        default=(0, 0),
        metavar="WxH",
        help="of the frames (default: the source's)",
    )
    parser.add_argument("--style", default="heavy", metavar="NAME", help="kind of rain")
    parser.add_argument(
        "--severity", type=float, default=0.3, metavar="S", help="how hard it rains, 0 to 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same recording")
    parser.add_argument("--camera", default="/camera", metavar="NAME", help="namespace of topics")
    parser.add_argument("--jpeg", action="store_true", help="images as JPEG instead of raw")
    parser.add_argument(
        "--compression", choices=("none", "zstd"), default="none", help="of the chunks"
    )


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from rain_removal_ros import settings
    from rain_removal_ros.bags.making import Contents, make
    from rain_removal_ros.simulation.scenes import RainSettings, SceneSettings

    width, height = args.size
    scene = settings.build(
        SceneSettings,
        {
            "source": args.source,
            "fps": args.fps,
            "width": width,
            "height": height,
            "seed": args.seed,
        },
    )
    rain = settings.build(
        RainSettings, {"style": args.style, "severity": args.severity, "seed": args.seed}
    )
    contents = Contents(
        camera=args.camera,
        seconds=args.seconds,
        jpeg=args.jpeg,
        force=args.force,
        compression=args.compression,
    )
    with tqdm(disable=None, unit="frame") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        frames = make(scene, rain, args.output, contents, progress=progress)
    print(f"{args.output}: {frames} frames")
