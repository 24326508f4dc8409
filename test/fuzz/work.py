"""Small tasks for commands that are killed or limited, and checks of what they wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import recordings

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.bags import open_recording

__all__ = ["STEPS", "Work"]

FRAMES = 40
STEPS = 12
_RECIPE = f"""
network: {{name: prenet, channels: 4, blocks: 1}}
steps: {STEPS}
save_every: 2
data: {{crop: 16, batch: 2, workers: 0, sources: [{{path: .}}]}}
validation: [{{name: all, path: ., limit: 2}}]
"""


class Work:
    """A recording to replay, a picture to derain, and a recipe to train by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._bag = recordings.write(folder / "bag", recordings.entries(FRAMES))
        self._weights = folder / "small.safetensors"
        small = networks.create("rainstream", channels=8, blocks=1)
        checkpoints.save(self._weights, small, {})
        self._data = folder / "data"
        rng = np.random.default_rng(0)
        for number in range(4):
            scene = cv2.resize(rng.integers(0, 200, (4, 4, 3), dtype=np.uint8), (48, 40))
            for name, picture in (("target", scene), ("input", scene + 20)):
                (self._data / name).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(self._data / name / f"{number}.png"), picture)
        self._recipe = folder / "recipe.yaml"
        self._recipe.write_text(_RECIPE)
        self.out = folder / "out"
        self.out.mkdir()

    def clear(self) -> None:
        """Remove everything that commands have written."""
        shutil.rmtree(self.out)
        self.out.mkdir()

    @property
    def replay(self) -> list[object]:
        flags = ["--model", self._weights, "--device", "cpu", "--precision", "float32"]
        return ["replay", self._bag, "-o", self.out / "bag", *flags]

    @property
    def image(self) -> list[object]:
        source = self._data / "input" / "0.png"
        return ["image", source, "-o", self.out / "0.png", "--model", self._weights]

    @property
    def train(self) -> list[object]:
        where = ["--data-root", self._data, "--run", self.out / "run", "--device", "cpu"]
        return ["train", "--config", self._recipe, *where]

    def check_replay(self, *, must_exist: bool) -> None:
        """The recording is complete or does not exist."""
        path = self.out / "bag"
        assert path.exists() or not must_exist, "there is no recording"
        if path.exists():
            with open_recording(path) as recording:
                assert not recording.losses, recording.losses
                count = sum(1 for _ in recording.messages())
            assert count >= 3 * FRAMES, f"{count} messages"

    def check_image(self, *, must_exist: bool) -> None:
        """The picture is complete or does not exist."""
        path = self.out / "0.png"
        assert path.exists() or not must_exist, "there is no picture"
        if path.exists():
            picture = cv2.imread(str(path))
            assert picture is not None
            assert picture.shape == (40, 48, 3)

    def check_train(self, *, must_exist: bool) -> None:
        """The weights are complete or do not exist."""
        path = self.out / "run" / "best.safetensors"
        assert path.exists() or not must_exist, "there are no weights"
        for each in (self.out / "run").glob("*.safetensors"):
            checkpoints.load(each)
