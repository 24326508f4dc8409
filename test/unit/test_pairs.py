"""Published layouts are recognised, and errors say what is wrong with a folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rain_removal_ros.data.pairs import find_pairs, split_layout
from rain_removal_ros.errors import DataError

RAINY, REFERENCE = 200, 50


def write(path: Path, value: int = REFERENCE, *, width: int = 6, height: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))
    return path


# Rainy file and reference; several rainy files may share a reference.
LAYOUTS = {
    "input and target": [("input/003.png", "target/003.png"), ("input/7.jpg", "target/7.png")],
    "Rain100 as published": [("rain/X2/norain-001x2.png", "norain-001.png")],
    "Rain100 as repacked": [("rainy/rain-001.png", "norain-001.png")],
    "Rain100H in one folder": [("rain-001.png", "norain-001.png"), ("rain-2.png", "norain-2.png")],
    "Rain200": [("rain/X2/norain-1x2.png", "norain/norain-1.png")],
    "Rain1400": [
        ("rainy_image/1_1.jpg", "ground_truth/1.jpg"),
        ("rainy_image/1_14.jpg", "ground_truth/1.jpg"),
        ("rainy_image/11_1.jpg", "ground_truth/11.jpg"),
    ],
    "Outdoor-Rain": [
        ("in/im_0001_s80_a04.png", "gt/im_0001.png"),
        ("in/im_0001_s85_a05.png", "gt/im_0001.png"),
        ("in/im_0010_s80_a04.png", "gt/im_0010.png"),
    ],
    "SPA-Data test": [("rain/000.png", "gt/000gt.png"), ("rain/100.png", "gt/100gt.png")],
    "GT-RAIN": [
        ("Gurutto_0-0/Gurutto_0-0-Webp-R-000.png", "Gurutto_0-0/Gurutto_0-0-Webp-C-000.png"),
        ("Gurutto_0-0/Gurutto_0-0-Webp-R-299.png", "Gurutto_0-0/Gurutto_0-0-Webp-C-000.png"),
        ("Paris_1-2/Paris_1-2-Webp-R-000.png", "Paris_1-2/Paris_1-2-Webp-C-000.png"),
    ],
    "clips": [("input/a/1.png", "target/a/1.png"), ("input/b/1.png", "target/b/1.png")],
    "names that look like affixes": [
        ("input/3x2.png", "target/3x2.png"),
        ("input/3.png", "target/3.png"),
    ],
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_published_layouts_are_recognised(tmp_path: Path, files: list[tuple[str, str]]) -> None:
    for rainy, reference in files:
        write(tmp_path / rainy, RAINY)
        write(tmp_path / reference, REFERENCE)
    found = find_pairs(tmp_path)
    assert sorted(
        (str(p.rainy.relative_to(tmp_path)), str(p.reference.relative_to(tmp_path))) for p in found
    ) == sorted(files)
    assert len({pair.name for pair in found}) == len(files)
    rainy, reference = found[0].load()
    assert (int(rainy.mean()), int(reference.mean())) == (RAINY, REFERENCE)


def test_paths_in_a_list_file_start_at_its_folder(tmp_path: Path) -> None:
    for scene in ("a", "b"):
        write(tmp_path / f"real_world/{scene}/rain.png", RAINY)
        write(tmp_path / f"real_world/{scene}/gt.png", REFERENCE)
    listed = tmp_path / "real_world.txt"
    listed.write_text(
        "/real_world/a/rain.png /real_world/a/gt.png\n\n"
        "/real_world/b/rain.png real_world/b/gt.png\n"
    )
    for where in (tmp_path, listed):
        found = find_pairs(where)
        assert [pair.name for pair in found] == ["real_world/a/rain", "real_world/b/rain"]
        assert found[1].reference == tmp_path / "real_world/b/gt.png"


@pytest.mark.parametrize("width", [48, 49])
def test_halves_side_by_side_are_reference_left_and_rainy_right(tmp_path: Path, width: int) -> None:
    rng = np.random.default_rng(0)
    half = width // 2
    for number in range(3):
        reference = rng.integers(0, 200, (32, half, 3), dtype=np.uint8)
        joined = np.zeros((32, width, 3), np.uint8)
        joined[:, :half], joined[:, width - half :] = reference, reference + 20
        cv2.imwrite(str(tmp_path / f"{number}.png"), joined)
    found = find_pairs(tmp_path)
    assert [pair.name for pair in found] == ["0", "1", "2"]
    rainy, reference = found[0].load()
    assert rainy.shape == reference.shape == (32, half, 3)
    assert np.all(rainy.astype(int) - reference == 20)


def test_pictures_with_unrelated_halves_are_not_taken_for_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 255, (32, 64, 3)))
    with pytest.raises(DataError, match="holds no pairs"):
        find_pairs(tmp_path)


def test_pixels_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    for folder in ("input", "target"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "1.png"), red)
    rainy, _ = find_pairs(tmp_path)[0].load()
    assert rainy[0, 0].tolist() == [255, 0, 0]


def test_numbered_names_are_in_numeric_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        write(tmp_path / f"input/{number}.png")
        write(tmp_path / f"target/{number}.png")
    assert [pair.name for pair in find_pairs(tmp_path)] == ["input/1", "input/9", "input/10"]


def test_a_rainy_picture_without_a_reference_is_named(tmp_path: Path) -> None:
    write(tmp_path / "input/1.png")
    write(tmp_path / "input/2.png")
    write(tmp_path / "target/1.png")
    with pytest.raises(DataError, match=r"no reference belongs to input/2\.png$"):
        find_pairs(tmp_path)


def test_two_references_for_one_rainy_picture_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "rain/1.png")
    write(tmp_path / "gt/1gt.png")
    write(tmp_path / "gt/1_clean.png")
    with pytest.raises(DataError, match=r"both .* may be the reference"):
        find_pairs(tmp_path)


def test_errors_say_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_pairs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no picture in it"):
        find_pairs(tmp_path / "empty")
    write(tmp_path / "set/train/input/1.png")
    write(tmp_path / "set/train/target/1.png")
    with pytest.raises(DataError, match=r"set/train does"):
        find_pairs(tmp_path / "set")
    with pytest.raises(DataError, match="no layout is called 'rain900'"):
        find_pairs(tmp_path / "set", "rain900")
    with pytest.raises(DataError, match="no pairs in the layout 'gt_rain'"):
        find_pairs(tmp_path / "set/train", "gt_rain")


def test_a_layout_may_be_given_after_the_folder(tmp_path: Path) -> None:
    assert split_layout("data/x:rain800") == (Path("data/x"), "rain800")
    assert split_layout("data/x") == (Path("data/x"), None)
    assert split_layout("odd:name") == (Path("odd:name"), None)


def test_loading_names_broken_pictures_and_pairs_of_different_sizes(tmp_path: Path) -> None:
    write(tmp_path / "input/1.png", width=6)
    write(tmp_path / "target/1.png", width=8)
    with pytest.raises(DataError, match=r"input/1\.png is 6x4 but .* is 8x4"):
        find_pairs(tmp_path)[0].load()
    (tmp_path / "target/1.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"target/1\.png is not a picture"):
        find_pairs(tmp_path)[0].load()


def test_a_truncated_jpeg_is_refused_although_opencv_fills_it_with_grey(tmp_path: Path) -> None:
    path = tmp_path / "input/1.jpg"
    path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)
    write(tmp_path / "target/1.png", width=64, height=64)
    whole = path.read_bytes()
    assert find_pairs(tmp_path)[0].load()[0].shape == (64, 64, 3)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="ends too early"):
        find_pairs(tmp_path)[0].load()


@pytest.mark.parametrize(
    ("folder", "count"),
    [
        ("rain800/train", 661),
        ("rain800/test", 100),
        ("rain100l/test", 50),
        ("roadscene/train", 181),
    ],
)
def test_downloaded_data_sets_are_recognised(shared_data: Path, folder: str, count: int) -> None:
    found = find_pairs(shared_data / folder)
    assert len(found) == count
    rainy, reference = found[count // 2].load()
    assert rainy.shape == reference.shape
    assert rainy.mean() != reference.mean()
