"""``rain-removal image`` derains pictures and videos; each bad file gives a line of its own."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from rain_removal_ros import checkpoints, engines, networks
from rain_removal_ros.cli import main
from rain_removal_ros.frames import Frame
from rain_removal_ros.media import videos
from rain_removal_ros.settings import EngineSettings
from rain_removal_ros.stream import Stream

Run = Callable[..., int]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that changes its input."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    checkpoints.save(path, networks.create("prenet", channels=4, stages=1, blocks=1), {})
    return path


@pytest.fixture(scope="module")
def enlarging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "enlarging.safetensors"
    checkpoints.save(path, networks.create("joint_derain_sr", channels=4, blocks=1), {})
    return path


@pytest.fixture
def run(weights: Path) -> Run:
    def run(*arguments: str | Path, model: Path = weights) -> int:
        exact = ["--precision", "float32", "--device", "cpu"]
        return main(["image", *map(str, arguments), "--model", str(model), *exact])

    return run


def stripes(height: int = 24, width: int = 32, *, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, 3), np.uint8)


def expected(image: np.ndarray, weights: Path) -> np.ndarray:
    """The RGB image, derained by the network."""
    settings = EngineSettings(device="cpu", precision="float32")
    engine = engines.create(checkpoints.load(weights).network, settings)
    return engine.step([image], [None])[0].image


def write_video(path: Path, frames: int = 12, *, size: tuple[int, int] = (64, 48)) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, size)
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), 60 + 5 * index, np.uint8))
    writer.release()


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def read_by_pillow(path: Path) -> Pillow.Image:
    """A picture as another program reads it, with its file closed."""
    with Pillow.open(path) as picture:
        picture.load()
        return picture


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_picture_is_derained_next_to_its_source(
    run: Run, weights: Path, tmp_path: Path, capsys: Any
) -> None:
    image = stripes()
    Pillow.fromarray(image).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png") == 0
    assert names_in(tmp_path) == ["in.png", "in_derained.png"]
    assert capsys.readouterr() == (f"{tmp_path / 'in_derained.png'}\n", "")
    derained = np.asarray(read_by_pillow(tmp_path / "in_derained.png"))
    assert np.array_equal(derained, expected(image, weights))
    assert not np.array_equal(derained, image)


def test_a_folder_is_derained_with_its_names_and_subfolders(
    run: Run, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "in" / "night").mkdir(parents=True)
    for name in ("b10.png", "b9.JPG", "night/a.bmp", "c.tiff", "d.webp"):
        Pillow.fromarray(stripes()).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("not a picture, and not asked for")
    write_video(tmp_path / "in" / "drive.mp4")
    assert run(tmp_path / "in", "-o", tmp_path / "out") == 0
    kept = ["b10.png", "b9.JPG", "c.tiff", "d.webp", "drive.mp4", "night/a.bmp"]
    assert names_in(tmp_path / "out") == kept
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "6 derained"
    assert lines[0].endswith("b9.JPG")
    assert run(tmp_path / "in") == 0
    assert names_in(tmp_path / "in_derained") == kept


def test_an_output_folder_inside_the_input_is_not_read(run: Run, tmp_path: Path) -> None:
    Pillow.fromarray(stripes()).save(tmp_path / "a.png")
    for _ in range(2):
        assert run(tmp_path, "-o", tmp_path / "clean") == 0
    assert names_in(tmp_path) == ["a.png", "clean/a.png"]


def test_an_output_with_a_picture_suffix_is_a_file(run: Run, tmp_path: Path) -> None:
    Pillow.fromarray(stripes()).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", "-o", tmp_path / "new" / "clean.jpg") == 0
    assert read_by_pillow(tmp_path / "new" / "clean.jpg").format == "JPEG"


def test_an_output_with_an_unknown_suffix_is_refused_unless_it_is_a_folder(
    run: Run, tmp_path: Path, capsys: Any
) -> None:
    Pillow.fromarray(stripes()).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", "-o", tmp_path / "out.xyz") == 2
    message = capsys.readouterr().err
    assert "out.xyz cannot be written; possible are .bmp, .jpeg, .jpg, .png" in message
    assert message.count("\n") == 1
    assert names_in(tmp_path) == ["in.png"]
    (tmp_path / "out.xyz").mkdir()
    assert run(tmp_path / "in.png", "-o", tmp_path / "out.xyz") == 0
    assert names_in(tmp_path) == ["in.png", "out.xyz/in.png"]


def test_a_picture_cannot_become_a_video(run: Run, tmp_path: Path, capsys: Any) -> None:
    Pillow.fromarray(stripes()).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", "-o", tmp_path / "out.mp4") == 2
    assert "in.png is a picture and cannot become out.mp4" in capsys.readouterr().err


def test_attention_and_side_by_side_pictures_are_written(run: Run, tmp_path: Path) -> None:
    Pillow.fromarray(stripes(20, 30)).save(tmp_path / "in.png")
    source, out = tmp_path / "in.png", tmp_path / "out"
    assert run(source, "-o", out, "--attention") == 0
    assert names_in(out) == ["in.png", "in_attention.png"]
    assert read_by_pillow(out / "in_attention.png").mode == "L"
    assert read_by_pillow(out / "in_attention.png").size == (30, 20)

    assert run(source, "-o", tmp_path / "both.png", "--side-by-side") == 0
    both = np.asarray(read_by_pillow(tmp_path / "both.png"))
    assert both.shape == (20, 62, 3)
    assert np.array_equal(both[:, :30], stripes(20, 30))
    assert np.array_equal(both[:, 32:], np.asarray(read_by_pillow(out / "in.png")))

    assert run(source, "-o", tmp_path / "three.png", "--side-by-side", "--attention") == 0
    assert read_by_pillow(tmp_path / "three.png").size == (94, 20)
    assert not (tmp_path / "three_attention.png").exists()


def test_an_enlarging_network_enlarges_transparency_and_comparison(
    run: Run, enlarging: Path, tmp_path: Path
) -> None:
    image = np.dstack([stripes(20, 30), np.full((20, 30), 77, np.uint8)])
    Pillow.fromarray(image).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", "-o", tmp_path / "out.png", model=enlarging) == 0
    derained = np.asarray(read_by_pillow(tmp_path / "out.png"))
    assert derained.shape == (40, 60, 4)
    assert (derained[..., 3] == 77).all()
    both = tmp_path / "both.png"
    assert run(tmp_path / "in.png", "-o", both, "--side-by-side", model=enlarging) == 0
    assert read_by_pillow(both).size == (122, 40)


def test_grey_stays_grey(run: Run, tmp_path: Path) -> None:
    Pillow.fromarray(stripes()[..., 0]).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png") == 0
    assert read_by_pillow(tmp_path / "in_derained.png").mode == "L"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_stays_16_bit_and_is_derained(
    run: Run, weights: Path, tmp_path: Path, suffix: str
) -> None:
    fine = np.random.default_rng(0).integers(20000, 40000, (24, 32, 3), np.uint16)
    cv2.imwrite(str(tmp_path / f"in{suffix}"), fine)
    assert run(tmp_path / f"in{suffix}") == 0
    derained = cv2.imread(str(tmp_path / f"in_derained{suffix}"), cv2.IMREAD_UNCHANGED)
    assert derained.dtype == np.uint16
    coarse = np.round(fine / 257).astype(np.uint8)[..., ::-1]
    change = expected(coarse, weights).astype(int) - coarse
    assert np.array_equal(derained, (fine + 257 * change[..., ::-1]).clip(0, 65535))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_transparency_is_kept(run: Run, tmp_path: Path, suffix: str) -> None:
    image = np.dstack([stripes(), np.arange(24 * 32).reshape(24, 32).astype(np.uint8) | 1])
    Pillow.fromarray(image).save(tmp_path / f"in{suffix}", lossless=True)
    assert run(tmp_path / f"in{suffix}") == 0
    derained = np.asarray(read_by_pillow(tmp_path / f"in_derained{suffix}"))
    assert np.array_equal(derained[..., 3], image[..., 3])
    assert not np.array_equal(derained[..., :3], image[..., :3])


def test_a_cmyk_jpeg_keeps_its_colours(run: Run, weights: Path, tmp_path: Path) -> None:
    image = np.full((24, 32, 3), (200, 60, 20), np.uint8)
    Pillow.fromarray(image).convert("CMYK").save(tmp_path / "in.jpg", quality=95)
    assert run(tmp_path / "in.jpg", "-o", tmp_path / "out.png") == 0
    derained = np.asarray(read_by_pillow(tmp_path / "out.png")).astype(int)
    assert np.abs(derained - expected(image, weights)).mean() < 3


def test_the_orientation_of_a_photograph_is_applied(run: Run, tmp_path: Path) -> None:
    turned = Pillow.Exif()
    turned[0x0112] = 6
    Pillow.fromarray(stripes(20, 30)).save(tmp_path / "in.jpg", exif=turned)
    assert run(tmp_path / "in.jpg") == 0
    assert read_by_pillow(tmp_path / "in_derained.jpg").size == (20, 30)


def test_a_picture_of_one_pixel_is_derained(run: Run, tmp_path: Path) -> None:
    Pillow.fromarray(stripes(1, 1)).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", "--attention") == 0
    assert read_by_pillow(tmp_path / "in_derained.png").size == (1, 1)


def bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be derained, with the reason that must be printed."""
    images = [Pillow.fromarray(stripes(seed=seed)) for seed in range(3)]
    for name in ("moving.png", "moving.gif", "moving.webp", "pages.tif"):
        images[0].save(folder / name, save_all=True, append_images=images[1:])
    images[0].save(folder / "whole.png")
    images[0].save(folder / "whole.jpg")
    for name in ("cut.png", "cut.jpg"):
        whole = (folder / name.replace("cut", "whole")).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    for name in ("whole.png", "whole.jpg"):
        (folder / name).unlink()
    for name in ("empty.png", "empty.mp4"):
        (folder / name).touch()
    for name in ("text.png", "text.mp4"):
        (folder / name).write_text("rain, rain, go away")
    cv2.imwrite(str(folder / "float.tif"), np.zeros((4, 4, 3), np.float32))
    giant = bytearray(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1])
    giant[16:24] = struct.pack(">II", 30_000, 30_000)
    (folder / "giant.png").write_bytes(giant)
    write_video(folder / "whole.mp4")
    # The index of an MP4 file is at its end, and nothing can be decoded without it.
    (folder / "cut.mp4").write_bytes((folder / "whole.mp4").read_bytes()[:-500])
    (folder / "whole.mp4").unlink()
    return {
        **dict.fromkeys(("moving.png", "moving.gif", "moving.webp", "pages.tif"), "holds 3"),
        "cut.png": "is a PNG that is cut short",
        "text.png": "is not a picture that can be decoded",
        "cut.jpg": "is a JPEG that ends too early",
        **dict.fromkeys(("empty.png", "empty.mp4"), "is empty"),
        **dict.fromkeys(
            ("cut.mp4", "text.mp4"), "is not a video that can be decoded, or is cut off"
        ),
        "float.tif": "holds float32 values; 8 and 16 bit are understood",
        "giant.png": "says it is 30000x30000 pixels; at most 100 megapixels are decoded",
    }


def test_each_bad_file_gives_one_line_and_the_good_one_is_derained(
    weights: Path, tmp_path: Path
) -> None:
    """The command runs as a process, because libraries print to the real stderr."""
    (tmp_path / "in").mkdir()
    reasons = bad_files(tmp_path / "in")
    (tmp_path / "in" / "moving.gif").rename(tmp_path / "in" / "gif.gif")
    reasons["gif.gif"] = reasons.pop("moving.gif")
    Pillow.fromarray(stripes()).save(tmp_path / "in" / "good.png")
    command = [sys.executable, "-m", "rain_removal_ros", "image", "in", "-o", "out"]
    process = subprocess.run(
        [*command, "--model", str(weights), "--json", "out.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    lines = process.stderr.splitlines()
    assert len(lines) == len(reasons)
    for name, reason in reasons.items():
        (line,) = (line for line in lines if f"in/{name} " in line)
        assert line.startswith("rain-removal image: ")
        assert reason in line
    assert process.stdout.splitlines()[-1] == f"1 derained, {len(reasons)} failed"
    assert names_in(tmp_path / "out") == ["good.png"]
    written = json.loads((tmp_path / "out.json").read_text())
    assert [row["source"] for row in written["results"]] == ["in/good.png"]
    assert len(written["failures"]) == len(reasons)
    assert written["network"] == "prenet"
    assert written["manifest"]["package"] == "rain_removal_ros"


def test_missing_files_are_reported_and_the_rest_is_derained(
    run: Run, tmp_path: Path, capsys: Any
) -> None:
    Pillow.fromarray(stripes()).save(tmp_path / "good.png")
    (tmp_path / "empty").mkdir()
    missing, out = tmp_path / "missing.png", tmp_path / "out"
    assert run(missing, tmp_path / "empty", tmp_path / "good.png", "-o", out) == 1
    errors = capsys.readouterr().err.splitlines()
    assert f"there is no file {missing}" in errors[0]
    assert "empty holds no pictures or videos" in errors[1]
    assert names_in(out) == ["good.png"]


def test_a_folder_without_pictures_is_refused(run: Run, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "in").mkdir()
    assert run(tmp_path / "in", "-o", tmp_path / "out") == 2
    assert "holds no pictures or videos" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_input_and_no_earlier_output_is_overwritten(
    run: Run, tmp_path: Path, capsys: Any
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Pillow.fromarray(stripes()).save(tmp_path / folder / "x.png")
    before = (tmp_path / "a" / "x.png").read_bytes()
    assert run(tmp_path / "a", "-o", tmp_path / "a") == 2
    assert run(tmp_path / "a" / "x.png", "-o", tmp_path / "a") == 2
    assert "would be overwritten; choose another folder with -o" in capsys.readouterr().err
    assert run(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out") == 1
    assert "would both become" in capsys.readouterr().err
    assert (tmp_path / "a" / "x.png").read_bytes() == before


def test_an_unwritable_output_folder_gives_a_one_line_error(
    run: Run, tmp_path: Path, capsys: Any
) -> None:
    Pillow.fromarray(stripes()).save(tmp_path / "in.png")
    (tmp_path / "file").write_text("in the way")
    assert run(tmp_path / "in.png", "-o", tmp_path / "file" / "out") == 2
    message = capsys.readouterr().err
    assert "cannot be written to: Not a directory" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("name", ["large.png", "large.mp4"])
def test_a_full_disk_leaves_no_partial_file(weights: Path, tmp_path: Path, name: str) -> None:
    """A limit on the size of files looks like a full disk to the process."""
    if name.endswith("png"):
        Pillow.fromarray(stripes(150, 200)).save(tmp_path / name)
    else:
        writer = cv2.VideoWriter(
            str(tmp_path / name), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (128, 96)
        )
        for seed in range(8):
            writer.write(stripes(96, 128, seed=seed))
        writer.release()
    Pillow.fromarray(stripes(4, 4)).save(tmp_path / "small.png")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    command = [sys.executable, "-m", "rain_removal_ros", "image", name, "small.png", "-o", "out"]
    process = subprocess.run(
        [*command, "--model", str(weights)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert process.returncode == 1, process.stderr
    (line,) = process.stderr.splitlines()
    assert f"cannot write out/{name}" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small.png"]


def test_a_video_is_derained_as_one_stream(run: Run, tmp_path: Path, weights: Path) -> None:
    write_video(tmp_path / "in.mp4", 5)
    assert run(tmp_path / "in.mp4", "--attention", "--json", tmp_path / "out.json") == 0
    derained = frames_of(tmp_path / "in_derained.mp4")
    assert len(derained) == 5
    assert len(frames_of(tmp_path / "in_derained_attention.mp4")) == 5
    row = json.loads((tmp_path / "out.json").read_text())["results"][0]
    assert (row["frames"], row["width"], row["height"]) == (5, 64, 48)

    settings = EngineSettings(device="cpu", precision="float32")
    stream = Stream(engines.create(checkpoints.load(weights).network, settings))
    for index, (frame, result) in enumerate(
        zip(frames_of(tmp_path / "in.mp4"), derained, strict=True)
    ):
        rgb = np.ascontiguousarray(frame[..., ::-1])
        step = stream.step(Frame(rgb, stamp_ns=index * 40_000_000))
        # The video is compressed, so the two differ a little.
        assert np.abs(result[..., ::-1].astype(int) - step.frame.image).mean() < 4


@pytest.mark.parametrize(
    ("name", "result"), [("in.avi", "in_derained.avi"), ("in.mkv", "in_derained.mkv")]
)
def test_video_containers_are_kept(run: Run, tmp_path: Path, name: str, result: str) -> None:
    write_video(tmp_path / name, 4)
    assert run(tmp_path / name) == 0
    assert len(frames_of(tmp_path / result)) == 4


def test_a_truncated_video_is_derained_as_far_as_it_goes_and_the_loss_reported(
    run: Run, tmp_path: Path, capsys: Any
) -> None:
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(tmp_path / "whole.avi"), code, 25.0, (64, 48))
    for seed in range(40):
        writer.write(stripes(48, 64, seed=seed))
    writer.release()
    whole = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "in.avi").write_bytes(whole[: len(whole) // 2])
    readable = len(frames_of(tmp_path / "in.avi"))
    assert 0 < readable < 40
    assert run(tmp_path / "in.avi") == 0
    message = capsys.readouterr().err
    assert f"in.avi ends early: {readable} of 40 frames could be read" in message
    assert len(frames_of(tmp_path / "in_derained.avi")) == readable


def streams_of(path: Path) -> str:
    """The streams of a file, as ffmpeg describes them."""
    program = videos._ffmpeg()
    assert program is not None
    said = subprocess.run([program, "-i", str(path)], capture_output=True, text=True, check=False)
    return said.stderr


@pytest.fixture
def video_with_sound(tmp_path: Path) -> Path:
    """A video with sound."""
    if (program := videos._ffmpeg()) is None:
        pytest.skip("there is no ffmpeg")
    path = tmp_path / "loud.mp4"
    made = ["-f", "lavfi", "-i", "testsrc2=d=1:s=64x48:r=10", "-f", "lavfi", "-i", "sine=d=1"]
    subprocess.run([program, "-v", "error", *made, str(path)], check=True)
    return path


@pytest.mark.parametrize(
    ("name", "video", "sound"),
    [
        ("out.mp4", "h264 (High)", "aac"),
        ("out.mkv", "h264 (High)", "aac"),
        ("out.mov", "h264 (High)", "aac"),
        ("out.avi", "mjpeg", "aac"),
    ],
)
def test_a_video_becomes_h264_and_keeps_its_sound(
    run: Run, video_with_sound: Path, capsys: Any, name: str, video: str, sound: str
) -> None:
    out = video_with_sound.with_name(name)
    assert run(video_with_sound, "-o", out) == 0
    assert capsys.readouterr().err == ""
    assert len(frames_of(out)) == 10
    said = streams_of(out)
    assert f"Video: {video}" in said
    assert f"Audio: {sound}" in said


def test_without_ffmpeg_a_video_loses_its_sound_with_a_warning(
    run: Run, video_with_sound: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "_ffmpeg", lambda: None)
    monkeypatch.setattr(videos, "_opencv_has_h264", lambda: False)
    out = video_with_sound.with_name("out.mp4")
    assert run(video_with_sound, "-o", out) == 0
    assert "lost its sound, if it had any; where ffmpeg is installed" in capsys.readouterr().err
    assert len(frames_of(out)) == 10
    assert videos.for_browsers(out) == video_with_sound.with_name("out.webm")
    monkeypatch.undo()
    assert "Audio" not in streams_of(out)


def test_side_by_side_of_a_video_is_one_video(run: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 3)
    out = tmp_path / "both.mp4"
    assert run(tmp_path / "in.mp4", "-o", out, "--side-by-side", "--attention") == 0
    assert frames_of(out)[0].shape == (48, 3 * 64 + 4, 3)
    assert names_in(tmp_path) == ["both.mp4", "in.mp4"]


def test_a_video_of_odd_size_loses_a_pixel_with_a_warning(
    run: Run, tmp_path: Path, capsys: Any
) -> None:
    # OpenCV writes no video of odd size, but a Motion JPEG stream can have any.
    pictures = [cv2.imencode(".jpg", stripes(33, 47, seed=seed))[1] for seed in range(4)]
    (tmp_path / "in.mjpg").write_bytes(b"".join(picture.tobytes() for picture in pictures))
    assert run(tmp_path / "in.mjpg") == 0
    assert "is a pixel smaller: videos have even sizes" in capsys.readouterr().err
    assert frames_of(tmp_path / "in_derained.mp4")[0].shape == (32, 46, 3)


def test_a_tiled_picture_equals_the_whole_one(run: Run, tmp_path: Path) -> None:
    Pillow.fromarray(stripes(200, 400)).save(tmp_path / "in.png")
    source = tmp_path / "in.png"
    assert run(source, "-o", tmp_path / "whole.png") == 0
    tiled = ["--tile", "256", "--json", str(tmp_path / "out.json")]
    assert run(source, "-o", tmp_path / "tiled.png", *tiled) == 0
    assert json.loads((tmp_path / "out.json").read_text())["results"][0]["tiles"] == 3
    whole, tiles = (
        np.asarray(read_by_pillow(tmp_path / name)).astype(int)
        for name in ("whole.png", "tiled.png")
    )
    assert np.abs(whole - tiles).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory-gb", "0.01"], "GiB of memory are left for the network"),
        (["--tile", "100"], "tiles of 100 pixels are too small"),
        (["--tile", "-1"], "--memory-gb and --tile are 0, which is automatic, or more"),
        (["--precision", "float64"], "precision is one of auto, float32, bfloat16, float16"),
        (["--stages", "99"], "stages is 0 to 32"),
        (["--device", "quantum"], "no device is called 'quantum'"),
        (["--max-megapixels", "0.0001"], "at most 0.0001 megapixels are decoded"),
        (["--max-megapixels", "0"], "--max-megapixels is above 0"),
    ],
    ids=str,
)
def test_a_wrong_argument_gives_a_one_line_error(
    weights: Path, tmp_path: Path, capsys: Any, arguments: list[str], message: str
) -> None:
    Pillow.fromarray(stripes()).save(tmp_path / "in.png")
    command = ["image", str(tmp_path / "in.png"), "--model", str(weights), *arguments]
    assert main(command) in (1, 2)
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert names_in(tmp_path) == ["in.png"]


def test_a_missing_model_is_refused(tmp_path: Path, capsys: Any) -> None:
    Pillow.fromarray(stripes()).save(tmp_path / "in.png")
    assert main(["image", str(tmp_path / "in.png"), "--model", "no.safetensors"]) == 2
    assert "there is no weight file no.safetensors" in capsys.readouterr().err
