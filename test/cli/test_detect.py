"""``rain-removal detect`` writes all reports in one run, and refuses wrong arguments."""

from __future__ import annotations

import csv
import json
import xml.dom.minidom
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")

from rain_removal_ros import checkpoints, cli, networks


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Two small pictures with a labelled person each, and an untrained network."""
    folder = tmp_path / "street"
    (folder / "labels").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(2):
        picture = rng.integers(60, 90, (160, 96, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        (folder / "labels" / f"{number}.xml").write_text(
            "<a><object><name>pedestrian</name><bndbox><xmin>20</xmin><ymin>20</ymin>"
            "<xmax>60</xmax><ymax>140</ymax></bndbox></object></a>"
        )
    network = networks.create("rainstream", channels=8, blocks=1)
    checkpoints.save(tmp_path / "small.safetensors", network, {})
    return folder


def detect(street: Path, *more: str) -> int:
    home = street.parent
    flags = ["--rain", "1", "--rounds", "100", "--cache", str(home / "cache")]
    model = ["--model", str(home / "small.safetensors")]
    return cli.main(["detect", str(street), *flags, *model, *more])


def test_one_command_writes_every_report(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("json", "html", "markdown", "csv")
    files = {kind: tmp_path / f"report.{kind}" for kind in kinds}
    flags = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    assert detect(street, "--truth", str(street / "labels"), *flags) == 0
    shown = capsys.readouterr().out
    assert "| rain 1 | small, gated |" in shown
    table = [line for line in files["markdown"].read_text().splitlines() if line[:1] == "|"]
    assert table[0] == "| detector | shown | clear | rain 1 | ms |"
    assert [line.split(" | ")[:2] for line in table[2:]] == [
        ["| hog", arm] for arm in ("input", "clean reference", "3x3 median", "small")
    ]
    results = json.loads(files["json"].read_text())
    assert results["manifest"]["package"] == "rain_removal_ros"
    (hog,) = results["results"]
    assert not hog["pseudo_ground_truth"]
    arms = [row["arm"] for row in hog["rows"] if row["condition"] == "rain 1"]
    assert arms == ["input", "clean reference", "3x3 median", "small", "small, gated"]
    with files["csv"].open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["shown"] for line in lines if line["condition"] == "rain 1"] == arms
    for line, row in zip(lines, hog["rows"], strict=False):
        assert float(line["AP50"]) == pytest.approx(row["scores"]["AP50"]["value"], abs=0.001)
        assert line["verdict"] == row["verdict"]
    assert [line["advice"] for line in lines if line["condition"] == "all"] == [
        gate["advice"] for gate in hog["gates"]
    ]
    # Two pictures are too few for a verdict.
    assert {row["verdict"] for row in hog["rows"]} == {"", "cannot tell"}
    page = files["html"].read_text()
    for part in page.split("<svg")[1:]:
        xml.dom.minidom.parseString("<svg" + part.split("</svg>")[0] + "</svg>")
    assert "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rain", "2"], "rain severity is from 0 to 1"),
        (["--rain", "much"], "--rain is severities"),
        (["--rounds", "3"], "too few for an interval"),
        (["--drive", "2"], "give one of PICTURES, --drive and --bag"),
        (["--detector", "hgo"], "no detector is called 'hgo'"),
        (["--clean", "x"], "--clean goes with --recorded"),
        (["--online", "/x"], "--online names topics of a recording"),
        (["--truth", "nowhere"], "no labels at nowhere"),
        (["--truth-format", "csv", "--truth", "."], "no label format is called 'csv'"),
        (["--limit", "0"], "--limit is a number"),
    ],
)
def test_a_wrong_argument_gives_a_one_line_error(
    flags: list[str], message: str, street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(street, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_labels_of_other_classes_are_refused_before_any_work(
    street: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rain_removal_ros.detection.harness.run", None)
    for label in (street / "labels").iterdir():
        label.write_text(label.read_text().replace("pedestrian", "train"))
    assert detect(street, "--truth", str(street / "labels")) == 2
    assert "hog finds person, the ground truth holds train" in capsys.readouterr().err


def test_pseudo_ground_truth_without_any_detection_is_refused(
    street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(street) == 2
    assert "there is no pseudo ground truth" in " ".join(capsys.readouterr().err.split())


def test_a_missing_detector_warning_names_the_default_and_where_to_get_others(
    street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = ["--truth", str(street / "labels")]
    assert detect(street, *truth) == 0
    said = capsys.readouterr().err
    assert "no --detector, so it is hog" in said
    assert "upright people" in said
    assert "yolox_nano.onnx" in said
    assert detect(street, *truth, "--detector", "hog") == 0
    assert "no --detector" not in capsys.readouterr().err
