"""Labels of every format give the same objects; the error for wrong ones names the place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rain_removal_ros.detection import truth
from rain_removal_ros.errors import DataError

SIZES = {"street": (200, 100)}
EXPECTED = np.array([[10.0, 20.0, 60.0, 90.0], [100.0, 0.0, 150.0, 40.0]])


def coco(**changes: object) -> dict[str, object]:
    return {
        "images": [{"id": 7, "file_name": "some/street.jpg"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 50, 70]},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [100, 0, 50, 40], "iscrowd": 1},
        ],
        **changes,
    }


def annotation(height: float) -> dict[str, object]:
    return {"id": 5, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, height]}


def write_coco(folder: Path) -> Path:
    path = folder / "labels.json"
    path.write_text(json.dumps(coco()))
    return path


def write_voc(folder: Path) -> Path:
    folder.joinpath("street.xml").write_text("""<annotation>
      <object><name>person</name><difficult>0</difficult>
        <bndbox><xmin>11</xmin><ymin>21</ymin><xmax>60</xmax><ymax>90</ymax></bndbox></object>
      <object><name>car</name><difficult>1</difficult>
        <bndbox><xmin>101</xmin><ymin>1</ymin><xmax>150</xmax><ymax>40</ymax></bndbox></object>
    </annotation>""")
    return folder


PASCAL = """# Compatible with PASCAL Annotation Version 1.00
Objects with ground truth : 2 { "PASpersonWalking" "PAScarSide" }
# Details for pedestrian 1 ("PASpersonWalking")
Bounding box for object 1 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : (11, 21) - (60, 90)
Bounding box for object 2 "PAScarSide" (Xmin, Ymin) - (Xmax, Ymax) : (101, 1) - (150, 40)
"""


def write_pascal(folder: Path) -> Path:
    folder.joinpath("street.txt").write_text(PASCAL)
    return folder


def write_kitti(folder: Path) -> Path:
    rest = "1.6 1.5 3.7 1.8 1.5 8.4 -1.6"
    folder.joinpath("street.txt").write_text(
        f"Pedestrian 0.00 0 -0.20 10.00 20.00 60.00 90.00 {rest}\n"
        f"Car 0.00 0 -0.20 100.00 0.00 150.00 40.00 {rest}\n"
    )
    return folder


def write_yolo(folder: Path) -> Path:
    folder.joinpath("classes.txt").write_text("person\nbicycle\ncar\n")
    folder.joinpath("street.txt").write_text("0 0.175 0.55 0.25 0.7\n2 0.625 0.2 0.25 0.4\n")
    return folder


WRITERS = [write_coco, write_voc, write_pascal, write_kitti, write_yolo]


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_boxes(write: Callable[[Path], Path], tmp_path: Path) -> None:
    read = truth.read(write(tmp_path), SIZES).truths["street"]
    assert read.labels == ("person", "car")
    assert read.boxes == pytest.approx(EXPECTED)


@pytest.mark.parametrize("write", [write_coco, write_voc])
def test_crowds_and_difficult_objects_are_ignored_regions(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    read = truth.read(write(tmp_path), SIZES).truths["street"]
    assert read.ignored.tolist() == [False, True]


def test_dont_care_regions_of_kitti_are_ignored_for_every_class(tmp_path: Path) -> None:
    write_kitti(tmp_path)
    path = tmp_path / "street.txt"
    path.write_text(
        path.read_text() + "DontCare -1 -1 -10 5 5 9 9 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    read = truth.read(tmp_path, SIZES).truths["street"]
    ignored = [label for label, skip in zip(read.labels, read.ignored, strict=True) if skip]
    assert sorted(ignored) == ["car", "person"]


def test_boxes_are_clipped_to_their_picture_and_the_clipped_counted(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    boxes = [[150, 50, 100, 100], [300, 10, 20, 20], [10, 10, 0, 5], [10, 20, 50, 70]]
    entries = [
        {"id": number, "image_id": 7, "category_id": 1, "bbox": box}
        for number, box in enumerate(boxes)
    ]
    path.write_text(json.dumps(coco(annotations=entries)))
    read = truth.read(path, SIZES)
    assert read.truths["street"].boxes.tolist() == [[150, 50, 200, 100], [10, 20, 60, 90]]
    assert [note.split()[0] for note in read.notes] == ["2", "1"]


@pytest.mark.parametrize(
    ("name", "common"),
    [
        ("PASpersonWalking", "person"),
        ("Pedestrian", "person"),
        ("Person_sitting", "person"),
        ("motorbike", "motorcycle"),
        ("Car", "car"),
        ("pasta", "pasta"),
        ("Cyclist", "cyclist"),
    ],
)
def test_classes_get_the_names_of_coco(name: str, common: str) -> None:
    assert truth.common_name(name) == common


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n1", r"labels.json:2: is not JSON"),
        ("[" * 100_000, "is not JSON: it is nested too deeply"),
        ('{"images": ' + "1" * 5000, "is not JSON: Exceeds the limit"),
        (json.dumps(coco(categories=[{"id": 1, "name": 5}])), "the name of 1 is 5, not text"),
        (json.dumps(coco(categories=[{"id": 1, "name": "\ud800"}])), "not text"),
        (json.dumps(coco(images=[{"id": 7, "file_name": ["a"]}])), "not text"),
        (json.dumps(coco(annotations=[annotation(1e300)])), "annotation 5: 4 finite numbers"),
        (json.dumps(coco(annotations=[annotation(10**400)])), "annotation 5: .* not all numbers"),
        ("[]", "is not COCO"),
        (json.dumps({"images": []}), "no 'categories'"),
        (json.dumps(coco(images=[])), "annotation 1 is of image 7"),
        (json.dumps(coco(categories=[])), "annotation 1 has category 1"),
        (json.dumps(coco(images=2 * [{"id": 7, "file_name": "a.jpg"}])), "two of image id 7"),
        (
            json.dumps(coco(annotations=2 * coco()["annotations"][:1])),  # type: ignore[index]
            "two of annotation id 1",
        ),
        (
            json.dumps(
                coco(annotations=[{"id": 5, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}])
            ),
            "annotation 5: 4 finite numbers",
        ),
        (json.dumps(coco(annotations=[])), "no object on any"),
        (
            json.dumps(coco(images=[{"id": 7, "file_name": "other.jpg"}])),
            "no labels for 1 of 1 pictures, street",
        ),
    ],
)
def test_the_error_for_wrong_coco_labels_names_the_place(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        truth.read(path, SIZES)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("street.txt", PASCAL.replace("(60, 90)", "(60)"), r"street.txt:4: this bounding box"),
        ("street.txt", PASCAL.replace("object 2", "object 1"), r"street.txt:5: object 1 has a sec"),
        ("street.txt", PASCAL.replace("truth : 2", "truth : 3"), "announces 3 objects"),
        ("street.txt", PASCAL.replace("(60, 90)", f"({'6' * 500}, 90)"), r"street.txt:4: this bo"),
        (
            "street.txt",
            PASCAL.replace("truth : 2", "truth : " + "2" * 5000),
            "does not say how many",
        ),
        ("street.txt", "Car 0 0\n", r"street.txt:1: 3 fields"),
        ("street.txt", "Car 0 0 0 a b c d 1 1 1 1 1 1 1\n", r"street.txt:1: .* not all numbers"),
        ("street.txt", "0 0.5 0.5 0.1 0.1\n", "put classes.txt"),
        ("street.xml", "<annotation>\n<object>\n", r"street.xml:3: is not XML"),
        ("street.xml", "<a><object><name>car</name></object></a>", "object 1 has no whole bndbox"),
        ("street.md", "", "no labels that are known"),
    ],
)
def test_the_error_for_wrong_labels_names_file_and_line(
    file: str, content: str, message: str, tmp_path: Path
) -> None:
    tmp_path.joinpath(file).write_text(content)
    with pytest.raises(DataError, match=message):
        truth.read(tmp_path, SIZES)


@pytest.mark.parametrize(
    ("line", "message"),
    [("7 0.5 0.5 0.1 0.1", "class 7 has no name"), ("0 50 50 10 10", "shares of the picture")],
)
def test_yolo_labels_with_an_unknown_class_or_size_are_refused(
    line: str, message: str, tmp_path: Path
) -> None:
    write_yolo(tmp_path).joinpath("street.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(DataError, match=rf"street.txt:2: .*{message}"):
        truth.read(tmp_path, SIZES)


@pytest.mark.parametrize("names", ["[1, 2]", "{0: [a]}", "[" * 3000, "{0: " + "9" * 5000, "7"])
def test_malformed_yolo_class_names_are_refused(names: str, tmp_path: Path) -> None:
    write_yolo(tmp_path)
    tmp_path.joinpath("classes.txt").unlink()
    tmp_path.joinpath("data.yaml").write_text(f"names: {names}\n")
    with pytest.raises(DataError, match=r"data.yaml(:| has) ") as raised:
        truth.read(tmp_path, SIZES)
    assert len(str(raised.value)) < 300


def test_missing_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labels at"):
        truth.read(tmp_path / "nowhere", SIZES)


def test_annotations_of_the_penn_fudan_set_are_read(shared_data: Path) -> None:
    folder = shared_data / "detection" / "pennfudan"
    read = truth.read(folder / "annotations", {"FudanPed00001": (559, 536)})
    assert read.truths["FudanPed00001"].labels == ("person", "person")
    assert read.truths["FudanPed00001"].boxes[0].tolist() == [159, 181, 302, 431]
