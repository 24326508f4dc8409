"""``rain-removal eval`` measures models on pairs, dry pictures, clips and simulated drives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from rain_removal_ros import checkpoints, metrics, networks
from rain_removal_ros.cli import main

Image = NDArray[np.uint8]
Evaluate = Callable[..., dict[str, Any]]


def scene(number: int, height: int = 47, width: int = 63) -> Image:
    rng = np.random.default_rng(number)
    coarse = rng.random((7, 9, 3)).astype(np.float32)
    return (cv2.resize(coarse, (width, height)) * 200 + 20).astype(np.uint8)


def with_rain(reference: Image, number: int) -> Image:
    rng = np.random.default_rng((1, number))
    streaks = (rng.random(reference.shape[:2]) > 0.9) * 40
    return np.asarray(np.minimum(reference + streaks[..., None], 255), np.uint8)


def write_picture(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def paired_folders(folder: Path, count: int = 3) -> Path:
    for number in range(count):
        write_picture(folder / "target" / f"{number}.png", scene(number))
        write_picture(folder / "input" / f"{number}.png", with_rain(scene(number), number))
    return folder


def side_by_side(folder: Path, count: int = 3) -> Path:
    for number in range(count):
        halves = [scene(number), with_rain(scene(number), number)]
        write_picture(folder / f"{number}.png", np.concatenate(halves, 1))
    return folder


def weights(path: Path, *, tail: float | None = None, add: float = 0.0) -> str:
    """A small untrained network; with ``tail`` 0, one that only adds ``add`` grey levels."""
    torch.manual_seed(0)
    network = networks.create("prenet", stages=2, channels=4, blocks=1)
    if tail is not None:
        with torch.no_grad():
            network.tail.weight.fill_(tail)  # type: ignore[union-attr, operator]
            network.tail.bias.fill_(add / 255)  # type: ignore[union-attr, operator]
    checkpoints.save(path, network, {})
    return str(path)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return weights(tmp_path_factory.mktemp("weights") / "untrained.safetensors")


@pytest.fixture(scope="module")
def unchanging(tmp_path_factory: pytest.TempPathFactory) -> str:
    return weights(tmp_path_factory.mktemp("weights") / "unchanging.safetensors", tail=0.0)


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    """Runs the command and returns the JSON that it wrote."""

    def run(*arguments: object, code: int = 0) -> dict[str, Any]:
        target = tmp_path / "out.json"
        assert main(["eval", *map(str, arguments), "--json", str(target)]) == code
        written: dict[str, Any] = json.loads(target.read_text())
        return written

    return run


def rows_by_model(written: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in written["results"]}


MEASURES = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "ms_ssim")


def test_a_network_that_changes_nothing_gets_the_scores_of_the_input(
    tmp_path: Path, evaluate: Evaluate, unchanging: str
) -> None:
    data = paired_folders(tmp_path / "set" / "test")
    rows = rows_by_model(evaluate("--model", unchanging, "--data", data))
    assert set(rows) == {"input", "unchanging"}
    for measure in MEASURES:
        assert rows["unchanging"][measure] == rows["input"][measure]
    assert rows["unchanging"]["gain_psnr_y"] == 0
    assert rows["unchanging"]["harmed"] == 0
    assert rows["unchanging"]["set"] == "set/test"
    assert rows["unchanging"]["images"] == 3


def test_a_harmful_network_has_a_negative_gain(tmp_path: Path, evaluate: Evaluate) -> None:
    data = paired_folders(tmp_path / "set")
    bright = weights(tmp_path / "bright.safetensors", tail=0.0, add=60)
    row = rows_by_model(evaluate("--model", bright, "--data", data))["bright"]
    assert row["gain_psnr_y"] < -3
    assert row["harmed"] == 3


def test_the_published_protocol_truncates_and_the_default_rounds(
    tmp_path: Path, evaluate: Evaluate
) -> None:
    data = paired_folders(tmp_path / "set")
    almost_one = weights(tmp_path / "more.safetensors", tail=0.0, add=0.7)
    for protocol, added in (("published", 0), ("default", 1)):
        written = evaluate(
            "--model", almost_one, "--clean", data / "target", "--protocol", protocol
        )
        (row,) = written["results"]
        assert row["psnr_rgb"] == pytest.approx(20 * np.log10(255) if added else 100, abs=0.01)
        how = written["manifest"]["protocol"]
        assert how["name"] == protocol
        assert ("rounded" if added else "truncated") in how["rounding"]
        assert "none" in how["cropping"]


def test_eval_recognises_layouts_and_measures_several_sets_and_models(
    tmp_path: Path, evaluate: Evaluate, untrained: str, unchanging: str
) -> None:
    folders = paired_folders(tmp_path / "folders")
    halves = side_by_side(tmp_path / "halves")
    written = evaluate(
        *("--model", untrained, unchanging),
        *("--data", folders, f"{halves}:side_by_side", halves),
    )
    rows = [row for row in written["results"] if row["model"] == "unchanging"]
    assert [row["images"] for row in rows] == [3, 3, 3]
    # The same pictures in three layouts give equal scores, although their sizes are odd.
    assert len({(row["psnr_y"], row["ms_ssim"]) for row in rows}) == 1


def test_the_manifest_names_pictures_models_and_checksums(
    tmp_path: Path, evaluate: Evaluate, untrained: str
) -> None:
    data = paired_folders(tmp_path / "set")
    arguments = ("--model", untrained, "--data", data, "--every", 2, "--limit", 1)
    first, second = evaluate(*arguments), evaluate(*arguments)
    assert first["results"] == second["results"]
    about = first["manifest"]
    (used,) = about["sets"]
    assert used["images"] == ["input/0"]
    assert used["sha256"] == second["manifest"]["sets"][0]["sha256"]
    assert about["models"][0]["sha256"] == checkpoints.load(untrained).checksum
    assert about["models"][0]["precision"] == "float32"
    assert [each["name"] for each in first["pictures"]] == ["input/0"]
    write_picture(data / "input" / "0.png", scene(7))
    assert used["sha256"] != evaluate(*arguments)["manifest"]["sets"][0]["sha256"]


def test_a_broken_pair_is_reported_skipped_and_counted(
    tmp_path: Path, evaluate: Evaluate, untrained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = paired_folders(tmp_path / "set")
    (data / "input" / "1.png").write_bytes(b"no picture")
    write_picture(data / "target" / "2.png", scene(2, height=20))
    written = evaluate("--model", untrained, "--data", data, code=1)
    for row in written["results"]:
        assert (row["images"], row["skipped"]) == (1, 2)
    said = capsys.readouterr().err
    assert "1.png is not a picture that can be decoded" in said
    assert "63x47 but its reference" in said
    assert said.endswith("left out: 2\n")
    assert written["manifest"]["sets"][0]["images"] == ["input/0"]
    assert len(written["skipped"]) == 2


def test_dry_pictures_are_compared_with_themselves(
    tmp_path: Path, evaluate: Evaluate, untrained: str, unchanging: str
) -> None:
    write_picture(tmp_path / "clean" / "a.png", scene(1))
    write_picture(tmp_path / "clean" / "b.png", scene(2, height=30))
    written = evaluate("--model", untrained, unchanging, "--clean", tmp_path / "clean")
    rows = rows_by_model(written)
    assert rows["unchanging"]["psnr_y"] == rows["unchanging"]["psnr_y_worst"] == 100
    assert rows["untrained"]["psnr_y_worst"] < rows["untrained"]["psnr_y"] < 100


def test_an_enlarging_network_is_given_a_smaller_input(tmp_path: Path, evaluate: Evaluate) -> None:
    network = networks.create("joint_derain_sr")
    assert network.scale > 1
    checkpoints.save(tmp_path / "sr.safetensors", network, {})
    data = paired_folders(tmp_path / "set", 1)
    written = evaluate("--model", tmp_path / "sr.safetensors", "--data", data)
    rows = rows_by_model(written)
    assert rows["sr"]["scale"] == network.scale
    # Its gain is measured from its own small input, enlarged; other networks get a larger input.
    scale = network.scale
    height, width = (side // scale * scale for side in (47, 63))
    reference, rainy = scene(0)[:height, :width], with_rain(scene(0), 0)[:height, :width]
    small = cv2.resize(rainy, (width // scale, height // scale), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    expected = metrics.score(np.asarray(enlarged, np.uint8), reference).psnr_y
    assert rows["sr"]["psnr_y"] - rows["sr"]["gain_psnr_y"] == pytest.approx(expected)
    assert rows["input"]["psnr_y"] != pytest.approx(expected)


def write_frames(folder: Path, count: int = 6) -> Path:
    whole = scene(0, 80, 120)
    for number in range(count):
        write_picture(folder / f"{number:03d}.png", whole[10:58, 4 * number : 4 * number + 64])
    return folder


def test_clips_are_measured_with_and_without_state_in_the_same_rain(
    tmp_path: Path, evaluate: Evaluate, untrained: str, unchanging: str
) -> None:
    clips = write_frames(tmp_path / "clip")
    arguments = ("--clips", clips, "--frames", 4, "--rains", 2, "--model", untrained, unchanging)
    first, second = evaluate(*arguments), evaluate(*arguments)
    assert first["results"] == second["results"]
    assert first["manifest"]["sets"] == second["manifest"]["sets"]
    rows = {(row["model"], row["state"]): row for row in first["results"]}
    assert len(rows) == 5
    assert {(row["images"], row["clips"]) for row in rows.values()} == {(8, 2)}
    assert rows["untrained", "carried"]["psnr_y"] != rows["untrained", "none"]["psnr_y"]
    same = ("psnr_y", "ssim_y", "psnr_rgb", "flicker", "flicker_relative")
    for state in ("carried", "none"):
        for measure in same:
            assert rows["unchanging", state][measure] == rows["input", "none"][measure]
    assert rows["input", "none"]["flicker"] > 0
    other = evaluate(*arguments, "--seed", 1)
    assert other["manifest"]["sets"][0]["sha256"] != first["manifest"]["sets"][0]["sha256"]


def test_rain_on_a_simulated_drive_raises_the_warping_error(
    evaluate: Evaluate, unchanging: str
) -> None:
    written = evaluate("--drive", "--frames", 3, "--model", unchanging, "--stages", 1)
    for row in written["results"]:
        assert row["images"] == 3
        # Streaks change from frame to frame; the reference only moves with the flow.
        assert row["warping_error"] > 1.5 * row["warping_error_clean"]


def test_eval_compares_numbers_of_stages(
    tmp_path: Path, evaluate: Evaluate, untrained: str
) -> None:
    data = paired_folders(tmp_path / "set", 1)
    written = evaluate("--model", untrained, "--data", data, "--stages", 1, 0, 2)
    rows = [row for row in written["results"] if row["model"] == "untrained"]
    assert [row["stages"] for row in rows] == [1, 2]
    assert rows[0]["psnr_y"] != rows[1]["psnr_y"]


def test_the_report_shows_the_worst_first_and_loads_nothing_from_elsewhere(
    tmp_path: Path, evaluate: Evaluate, untrained: str
) -> None:
    data = paired_folders(tmp_path / "set")
    page = tmp_path / "page.html"
    arguments = (
        "--data",
        data,
        "--clips",
        write_frames(tmp_path / "clip"),
        "--frames",
        3,
        "--report",
        page,
    )
    written = evaluate("--model", untrained, *arguments)
    gains = {
        each["name"]: each["models"]["untrained"]["psnr_y"] - each["input"]["psnr_y"]
        for each in written["pictures"]
    }
    shown = page.read_text(encoding="utf-8")
    places = {name: shown.index(f"<figcaption>{name}:") for name in gains}
    assert sorted(gains, key=lambda name: places[name]) == sorted(
        gains, key=lambda name: gains[name]
    )
    assert "http" not in shown


def test_eval_prints_a_markdown_table(
    tmp_path: Path, evaluate: Evaluate, untrained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate("--model", untrained, "--data", paired_folders(tmp_path / "set"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({(len(line), line.count("|")) for line in lines}) == 1
    assert set(lines[1]) == {"|", "-", " "}


def test_two_models_with_the_same_name_are_shown_with_their_paths(
    tmp_path: Path, evaluate: Evaluate
) -> None:
    files = [weights(tmp_path / place / "best.safetensors") for place in "ab"]
    written = evaluate("--model", *files, "--data", paired_folders(tmp_path / "set", 1))
    assert {row["model"] for row in written["results"]} == {"input", *files}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to measure on: give --data, --clean, --clips or --drive"),
        (["--data", "missing"], "missing does not exist"),
        (["--data", "empty"], "empty holds no pairs"),
        (["--data", "set:rainbow"], "set:rainbow does not exist"),
        (["--clean", "missing"], "missing is not a folder of dry pictures"),
        (["--clips", "empty"], "empty holds neither pictures nor videos"),
        (["--data", "set", "--every", "0"], "--every is 1 or more, not 0"),
        (["--data", "set", "--stages", "99"], "--stages are 0 to 32, not 99"),
        (["--data", "set", "--precision", "int3"], "precision"),
        (["--data", "set", "--model", "nonet"], "no network is called 'nonet'"),
        (["--data", "set", "--model", "a.safetensors"], "there is no weight file a.safetensors"),
        (["--data", "set", "--model", "prenet:a.pth"], "cannot read a.pth"),
        (
            ["--data", "set", "--protocol", "published", "--precision", "bfloat16"],
            "the published protocol is one of torch in float32",
        ),
        (["--data", "broken"], "none of the 2 pictures of broken could be used"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_gives_a_one_line_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    untrained: str,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    paired_folders(tmp_path / "set", 1)
    for file in paired_folders(tmp_path / "broken", 2).rglob("*.png"):
        file.write_bytes(b"")
    models = [] if "--model" in arguments else ["--model", untrained]
    assert main(["eval", *models, *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out" not in line]
    assert len(lines) == 1
    assert message in lines[0]


# --- An independent computation ------------------------------------------------------------------


def independent_prenet(state: dict[str, Tensor], rainy: Image) -> Image:
    """PReNet with six stages, written from its paper, on weights with their published names."""

    def convolve(name: str, values: Tensor) -> Tensor:
        return F.conv2d(values, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    frame = torch.from_numpy(rainy.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    background = frame
    hidden = cell = torch.zeros(1, 32, *rainy.shape[:2])
    for _ in range(6):
        seen = F.relu(convolve("conv0.0", torch.cat((frame, background), 1)))
        both = torch.cat((seen, hidden), 1)
        keep, forget, out = (torch.sigmoid(convolve(f"conv_{gate}.0", both)) for gate in "ifo")
        cell = forget * cell + keep * torch.tanh(convolve("conv_g.0", both))
        hidden = out * torch.tanh(cell)
        features = hidden
        for block in range(1, 6):
            inner = F.relu(convolve(f"res_conv{block}.0", features))
            features = F.relu(F.relu(convolve(f"res_conv{block}.2", inner)) + features)
        background = convolve("conv.0", features) + frame
    bytes_ = (255 * background.clamp(0, 1)[0].numpy()).astype(np.uint8)  # truncates
    return np.ascontiguousarray(bytes_.transpose(1, 2, 0))


@torch.inference_mode()
def independent_figures(weight_file: Path, folder: Path) -> tuple[float, float]:
    """Mean PSNR and SSIM on Y over a folder in Rain100L's layout, by scikit-image."""
    state = torch.load(weight_file, map_location="cpu", weights_only=True)
    figures = []
    for path in sorted(folder.glob("norain-*.png")):
        rainy_path = folder / "rainy" / path.name.replace("norain", "rain")
        reference, rainy = (cv2.imread(str(each))[..., ::-1] for each in (path, rainy_path))
        produced = independent_prenet(state, np.ascontiguousarray(rainy))
        y, truth = (rgb2ycbcr(each)[..., 0] for each in (produced, reference))
        figures.append(
            (
                peak_signal_noise_ratio(truth, y, data_range=255),
                structural_similarity(
                    truth,
                    y,
                    data_range=255,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                ),
            )
        )
    psnr, ssim = np.mean(figures, 0)
    return float(psnr), float(ssim)


def assert_agreement(evaluate: Evaluate, weight_file: Path, folder: Path, count: int) -> None:
    written = evaluate(
        *("--model", f"prenet:{weight_file}", "--data", folder, "--protocol", "published")
    )
    row = rows_by_model(written)["prenet_rain100l"]
    psnr, ssim = independent_figures(weight_file, folder)
    assert row["images"] == count
    assert row["psnr_y"] == pytest.approx(psnr, abs=0.01)
    assert row["ssim_y"] == pytest.approx(ssim, abs=0.0002)
    checksum = hashlib.sha256(weight_file.read_bytes()).hexdigest()
    assert written["manifest"]["models"][0]["sha256"] == checksum
    assert len(written["manifest"]["sets"][0]["images"]) == count


def test_scores_of_published_weights_equal_an_independent_computation_on_crops(
    shared_data: Path, tmp_path: Path, evaluate: Evaluate
) -> None:
    for path in sorted((shared_data / "rain100l" / "test").rglob("*rain-00*.png")):
        target = tmp_path / path.relative_to(shared_data)
        write_picture(target, cv2.imread(str(path))[100:180, 90:211, ::-1])
    folder = tmp_path / "rain100l" / "test"
    count = len(list(folder.glob("norain-*.png")))
    assert count > 3
    assert_agreement(evaluate, shared_data / "peers" / "prenet_rain100l.pth", folder, count)


@pytest.mark.slow
def test_scores_of_published_weights_equal_an_independent_computation(
    shared_data: Path, evaluate: Evaluate
) -> None:
    folder = shared_data / "rain100l" / "test"
    assert_agreement(evaluate, shared_data / "peers" / "prenet_rain100l.pth", folder, 50)
