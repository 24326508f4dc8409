"""Detectors: every head is decoded to boxes, and files that are not detectors are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rain_removal_ros.detection.boxes import as_boxes, best_of_each_place, overlaps
from rain_removal_ros.detection.detectors import create, yolo
from rain_removal_ros.detection.detectors._coco import COCO
from rain_removal_ros.errors import DataError, EngineError
from rain_removal_ros.media import pictures

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIDE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2
NAMES = {0: "person", 1: "car"}
BOX = (16.0, 8.0, 48.0, 40.0)
"""In a picture of 64 x 64 pixels; its centre is 32, 24."""


def constant_network(
    path: Path, output: np.ndarray, *, names: dict[int, str] | None = NAMES, side: int = SIDE
) -> Path:
    """An ONNX file whose output is the same for every picture."""
    value = helper.make_node(
        "Constant", [], ["raw"], value=numpy_helper.from_array(output.astype(np.float32))
    )
    nothing = helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0)
    zero = helper.make_node("Mul", ["sum", "nought"], ["zero"])
    added = helper.make_node("Add", ["raw", "zero"], ["output"])
    shape = [1, 3, side, side]
    graph = helper.make_graph(
        [value, nothing, zero, added],
        "constant",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(output.shape))],
        [numpy_helper.from_array(np.float32(0), "nought")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if names is not None:
        helper.set_model_props(model, {"names": str(names)})
    onnx.save(model, str(path))
    return path


def yolox() -> np.ndarray:
    """One car in the cell at column 4, row 3 of the finest grid, whose stride is 8."""
    rows = np.zeros((1, CELLS, 7))
    # Centre (4 + 0) * 8, (3 + 0) * 8; sides exp(log 4) * 8.
    rows[0, 3 * 8 + 4] = [0, 0, np.log(4), np.log(4), 0.9, 0.1, 1.0]
    return rows


def with_anchors() -> np.ndarray:
    rows = np.zeros((1, 3 * CELLS, 7))
    rows[0, 5] = [32, 24, 32, 32, 0.9, 0.1, 1.0]
    return rows


def by_columns() -> np.ndarray:
    rows = np.zeros((1, 6, CELLS))
    rows[0, :, 5] = [32, 24, 32, 32, 0.1, 0.9]
    return rows


def final_boxes() -> np.ndarray:
    rows = np.zeros((1, 10, 6))
    rows[0, 0] = [*BOX, 0.9, 1]
    return rows


@pytest.mark.parametrize("head", [yolox, with_anchors, by_columns, final_boxes])
def test_every_known_head_is_decoded_to_the_right_box(head: Any, tmp_path: Path) -> None:
    detector = create(str(constant_network(tmp_path / "net.onnx", head())))
    found = detector.detect(np.zeros((SIDE, SIDE, 3), np.uint8))
    assert detector.labels == ("person", "car")
    assert found.labels == ("car",)
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.boxes[0].tolist() == pytest.approx(BOX)


@pytest.mark.parametrize(
    ("head", "expected"),
    [(yolox, (32.0, 16.0, 96.0, 80.0)), (by_columns, (32.0, 0.0, 96.0, 48.0))],
)
def test_boxes_are_in_pixels_of_the_picture(
    head: Any, expected: tuple[float, ...], tmp_path: Path
) -> None:
    """A picture twice as wide as high: YOLOX pads it on one side, the others on both."""
    detector = create(str(constant_network(tmp_path / "net.onnx", head())))
    found = detector.detect(np.zeros((64, 128, 3), np.uint8))
    inside = np.clip(expected, 0, [128, 64, 128, 64])
    assert found.boxes[0].tolist() == pytest.approx(inside.tolist())


@pytest.mark.parametrize(
    ("output", "names", "message"),
    [
        (np.zeros((1, 1000)), NAMES, "not a detector with a known head: its output is 1x1000"),
        (np.zeros((1, 50, 9)), NAMES, "not a detector with a known head"),
        (by_columns(), None, "2 classes and does not name them"),
        (by_columns(), {0: "person(", 1: "car"}, None),
    ],
)
def test_an_onnx_file_with_an_unknown_head_is_refused(
    output: np.ndarray, names: dict[int, str] | None, message: str | None, tmp_path: Path
) -> None:
    path = constant_network(tmp_path / "net.onnx", output, names=names)
    if message is None:
        assert create(str(path)).labels == ("person(", "car")
        return
    with pytest.raises(DataError, match=message):
        create(str(path))


def test_already_decoded_yolox_boxes_are_refused(tmp_path: Path) -> None:
    rows = np.zeros((1, CELLS, 7))
    index = 0
    for stride in (8, 16, 32):
        for row in range(SIDE // stride):
            for column in range(SIDE // stride):
                rows[0, index, :2] = (column + 0.5) * stride, (row + 0.5) * stride
                index += 1
    with pytest.raises(DataError, match="already decoded"):
        create(str(constant_network(tmp_path / "net.onnx", rows)))


def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not at all")
    with pytest.raises(DataError, match="no ONNX file"):
        create(str(path))
    with pytest.raises(DataError, match=r"no detector .*missing"):
        create(str(tmp_path / "missing.onnx"))


def test_the_error_for_an_unknown_detector_or_provider_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no detector is called 'hgo'"):
        create("hgo")
    with pytest.raises(EngineError, match="no provider is called 'tpu'"):
        create(str(constant_network(tmp_path / "net.onnx", by_columns())), provider="tpu")


@pytest.mark.parametrize("wanted", ["torchvision:retinanet", "hf:nowhere"])
def test_detectors_without_their_files_are_refused(wanted: str) -> None:
    with pytest.raises(DataError, match=r"no weight file|no config\.json"):
        create(wanted)


def test_the_surest_of_overlapping_boxes_of_a_class_is_kept() -> None:
    boxes = as_boxes([(0, 0, 10, 10), (1, 0, 11, 10), (0, 0, 10, 10), (50, 50, 60, 60)])
    scores, classes = np.array([0.5, 0.9, 0.4, 0.3]), np.array([0, 0, 1, 0])
    assert best_of_each_place(boxes, scores, classes, overlap=0.5).tolist() == [1, 2, 3]


def test_hog_finds_nothing_in_an_empty_or_tiny_picture() -> None:
    hog = create("hog")
    assert hog.detect(np.full((240, 320, 3), 128, np.uint8)).labels == ()
    assert hog.detect(np.zeros((20, 20, 3), np.uint8)).labels == ()


@pytest.mark.parametrize(("name", "at_least"), [("hog", 1), ("yolox_nano.onnx", 2)])
def test_detectors_find_the_pedestrians_of_a_street(
    name: str, at_least: int, shared_data: Path
) -> None:
    folder = shared_data / "detection"
    image = pictures.read(folder / "pennfudan" / "images" / "FudanPed00001.jpg")
    detector = create(str(folder / name) if name.endswith(".onnx") else name)
    found = detector.detect(image).above(detector.sure)
    people = found.boxes[[label == "person" for label in found.labels]]
    there = as_boxes([(159, 181, 302, 431), (419, 170, 535, 486)])
    assert int((overlaps(there, people).max(1) > 0.5).sum()) >= at_least
    assert set(found.labels) <= set(COCO)


def endless_network(path: Path, *, names: str = str(NAMES)) -> Path:
    """An ONNX file that doubles the picture's mean in an endless loop."""
    scalars = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("turn", TensorProto.INT64, []),
            ("go_on", TensorProto.BOOL, []),
            ("sum", TensorProto.FLOAT, []),
            ("still", TensorProto.BOOL, []),
            ("more", TensorProto.FLOAT, []),
        )
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Add", ["sum", "sum"], ["more"]),
        ],
        "body",
        scalars[:3],
        scalars[3:],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
            helper.make_node("Loop", ["many", "true", "mean"], ["end"], body=body),
            helper.make_node("Expand", ["end", "shape"], ["output"]),
        ],
        "endless",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 10, 6])],
        [
            numpy_helper.from_array(np.array(2**62), "many"),
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.array([1, 10, 6]), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": names})
    onnx.save(model, str(path))
    return path


def test_a_detector_that_never_ends_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(yolo, "RUN_TIMEOUT_S", 0.5)
    with pytest.raises(EngineError, match="cannot be run on a picture") as raised:
        create(str(endless_network(tmp_path / "net.onnx")))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("output", "names", "message"),
    [
        (by_columns(), "[" * 5000, "names its classes unreadably"),
        (by_columns(), "7", "names its classes unreadably"),
        (by_columns(), "{0: 1, 1: 2}", "names its classes unreadably"),
        (by_columns(), "['person']", "has 2 classes and names 1"),
        (np.zeros((1, 10, 6)), "{0: 'person'}", None),
    ],
)
def test_class_names_that_do_not_match_the_output_are_refused(
    output: np.ndarray, names: str, message: str | None, tmp_path: Path
) -> None:
    path = constant_network(tmp_path / "net.onnx", output)
    model = onnx.load(str(path))
    helper.set_model_props(model, {"names": names})
    onnx.save(model, str(path))
    if message is None:
        assert create(str(path)).labels == ("person",)
        return
    with pytest.raises(DataError, match=message):
        create(str(path))


@pytest.mark.parametrize("number", [7, -1, 1e30, np.nan])
def test_a_detection_of_an_unnamed_class_raises(number: float, tmp_path: Path) -> None:
    rows = final_boxes()
    rows[0, 0, 5] = number
    detector = create(str(constant_network(tmp_path / "net.onnx", rows)))
    with pytest.raises(DataError, match="gives class"):
        detector.detect(np.zeros((SIDE, SIDE, 3), np.uint8))


@pytest.mark.parametrize("head", [yolox, with_anchors, by_columns, final_boxes])
def test_infinite_boxes_are_ignored(head: Any, tmp_path: Path) -> None:
    rows = head()
    boxes = rows[:, :4] if head is by_columns else rows[..., :4]
    boxes[...] = np.where(boxes == 0, 0, np.inf)
    detector = create(str(constant_network(tmp_path / "net.onnx", rows)))
    assert detector.detect(np.zeros((SIDE, SIDE, 3), np.uint8)).labels == ()


def test_a_detector_with_a_huge_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes 320000x320000 pixels; up to 8192"):
        create(str(constant_network(tmp_path / "net.onnx", by_columns(), side=320_000)))
