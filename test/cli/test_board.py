"""``rain-removal board`` compares a candidate with the shipped model and caches the marks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.cli import main
from rain_removal_ros.frames import Image


def scene(number: int) -> Image:
    coarse = np.random.default_rng(number).random((6, 8, 3)).astype(np.float32)
    return (cv2.resize(coarse, (64, 48)) * 120 + 20).astype(np.uint8)


def write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data sets of pairs and dry pictures, with five small pictures each."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(5):
        reference = scene(number)
        rainy = np.minimum(reference.astype(int) + 20 * (number + 1), 255).astype(np.uint8)
        write(folder / f"rain800/test/{number}.png", np.concatenate([reference, rainy], 1))
        write(folder / f"rain100l/test/norain-{number}.png", reference)
        write(folder / f"rain100l/test/rainy/rain-{number}.png", rainy)
        write(folder / f"roadscene/test/target/{number}.png", reference)
        write(folder / f"roadscene/test/input/{number}.png", rainy)
        write(folder / f"clean/bsds500/{number}.png", reference)
        write(folder / f"detection/pennfudan/images/{number}.png", reference)
    return folder


def darkening_weights(path: Path, *, darker: float) -> str:
    """Weights of a network that only darkens pictures, by ``darker`` grey levels."""
    torch.manual_seed(0)
    network = networks.create("prenet", stages=1, channels=4, blocks=1)
    with torch.no_grad():
        network.tail.weight.zero_()  # type: ignore[union-attr, operator]
        network.tail.bias.fill_(-darker / 255)  # type: ignore[union-attr, operator]
    checkpoints.save(path, network, {})
    return str(path)


def test_the_board_ranks_a_better_model_above_a_worse_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slight = darkening_weights(tmp_path / "slight.safetensors", darker=5)
    strong = darkening_weights(tmp_path / "strong.safetensors", darker=15)
    common = ["--data", str(data), "--only", "pairs", "--cache", str(tmp_path / "cache")]
    out = tmp_path / "board.json"
    assert main(["board", strong, "--shipped", slight, *common, "--json", str(out)]) == 1
    assert "| rain800 test, gain " in (shown := capsys.readouterr().out)
    assert "**not all was measured; so far**: surely better" in shown
    found = json.loads(out.read_text())
    assert not found["ships"]
    assert not found["complete"]
    # The rain adds at least 20 levels to each picture, so subtracting 15 improves all of them.
    gain = found["candidate"]["marks"]["rain100l/gain"]
    assert len(gain["amounts"]) == 5
    assert gain["value"] > found["shipped"]["marks"]["rain100l/gain"]["value"] > 0
    assert main(["board", slight, "--shipped", strong, *common, "--json", str(out)]) == 1
    assert "surely worse: rain800 test, PSNR-Y" in capsys.readouterr().out
    # Both models are in the cache by now.
    assert json.loads(out.read_text())["candidate"]["seconds"] == {"pairs": 0.0}


def test_an_enlarging_network_is_measured_on_pairs_and_dry_pictures_only(
    data: Path, tmp_path: Path
) -> None:
    network = networks.create("joint_derain_sr", scale=2, channels=4)
    checkpoints.save(tmp_path / "model.safetensors", network, {})
    model, out = str(tmp_path / "model.safetensors"), tmp_path / "board.json"
    command = ["board", model, "--shipped", model, "--data", str(data), "--json", str(out)]
    cache = ["--cache", str(tmp_path / "cache")]
    assert main([*command, *cache, "--brief", "--only", "pairs,clean,strokes"]) == 0
    marks = json.loads(out.read_text())["shipped"]["marks"]
    assert "rain800/gain" in marks
    assert "clean/psnr_y" in marks
    assert not any(name.startswith("strokes") for name in marks)


def test_a_damaged_cache_is_measured_again(data: Path, tmp_path: Path) -> None:
    model = darkening_weights(tmp_path / "model.safetensors", darker=5)
    out, cache = tmp_path / "board.json", tmp_path / "cache"
    common = ["--only", "clean", "--cache", str(cache), "--json", str(out)]
    command = ["board", model, "--shipped", model, "--data", str(data), *common]
    found = []
    for content in ("{", '{"clean/psnr_y": {"items": []}}', "[]"):
        assert main(command) == 0
        found.append(json.loads(out.read_text())["shipped"])
        (kept,) = cache.glob("clean-*.json")
        kept.write_text(content)
    assert all(each["seconds"]["clean"] > 0 for each in found)
    assert found[0]["marks"] == found[1]["marks"] == found[2]["marks"]


def test_changed_data_is_measured_again(data: Path, tmp_path: Path) -> None:
    model = darkening_weights(tmp_path / "model.safetensors", darker=5)
    out = tmp_path / "board.json"
    common = ["--only", "clean", "--cache", str(tmp_path / "cache"), "--json", str(out)]
    command = ["board", model, "--shipped", model, "--data", str(data), *common]
    assert main(command) == 0
    seconds = []
    for number in (7, 7):
        write(data / "clean/bsds500/0.png", scene(number))
        assert main(command) == 0
        seconds.append(json.loads(out.read_text())["shipped"]["seconds"]["clean"])
    assert seconds[0] > 0
    assert seconds[1] == 0


def test_publish_writes_the_marks_to_results_page_and_card(data: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "docs").mkdir(parents=True)
    (checkout / "models").mkdir()
    page, card = checkout / "docs/results.md", checkout / "models/prenet.md"
    page.write_text("# Results\n\n<!-- board -->\nold\n<!-- end of board -->\n\nThe end.\n")
    card.write_text("# prenet\n\n<!-- board -->\n<!-- end of board -->\n\n## Limits\n")
    model = darkening_weights(checkout / "models/prenet.safetensors", darker=5)
    command = ["board", model, "--shipped", model, "--data", str(data), "--publish", str(checkout)]
    cache = ["--cache", str(tmp_path / "cache")]
    assert main([*command, *cache, "--only", "pairs"]) == 0
    kept = json.loads((checkout / "benchmarks/results/board/prenet.json").read_text())
    gain = kept["marks"]["rain800/gain"]
    assert gain["low"] < gain["value"] < gain["high"]
    assert str(checkout) not in json.dumps(kept)
    for text in (page.read_text(), card.read_text()):
        assert re.search(rf"\| rain800 test, gain +\| dB +\| {gain['value']:.2f} ", text)
    assert page.read_text().endswith("\n\nThe end.\n")
    assert "old" not in page.read_text()
    assert card.read_text().endswith("## Limits\n")
    assert kept["sha256"] in card.read_text()
    # Another part is added to the marks of the same weights.
    assert main([*command, *cache, "--only", "clean"]) == 0
    both = json.loads((checkout / "benchmarks/results/board/prenet.json").read_text())
    assert both["marks"]["rain800/gain"] == gain
    assert "clean/psnr_y" in both["marks"]


def test_sheet_writes_a_picture_of_the_right_size(data: Path, tmp_path: Path) -> None:
    model = darkening_weights(tmp_path / "model.safetensors", darker=5)
    sheet = tmp_path / "sheet.jpg"
    command = ["board", model, "--shipped", model, "--data", str(data), "--only", "clean"]
    assert main([*command, "--cache", str(tmp_path / "cache"), "--sheet", str(sheet)]) == 0
    shown = cv2.imread(str(sheet))
    assert shown is not None
    height, width = shown.shape[:2]
    assert width == 2 * 400
    assert height > 6 * 264


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--only", "pears"], "the board has no part 'pears'"),
        (["--data", "nowhere"], "there is no folder of data sets nowhere"),
        (["--only", "clips"], "video/highway.mp4, which clips needs"),
    ],
)
def test_a_wrong_argument_gives_an_error(
    flags: list[str], line: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = darkening_weights(tmp_path / "model.safetensors", darker=5)
    assert main(["board", model, "--data", str(data), *flags]) == 2
    assert line in capsys.readouterr().err
