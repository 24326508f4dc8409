"""Reads labels in common formats: COCO, Pascal VOC, PASCAL 1.00, KITTI and YOLO.

Errors name file and line. Boxes are clipped to their pictures; those with nothing left are counted
and left out.
"""

from __future__ import annotations

import json
import re
import reprlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rain_removal_ros.detection.boxes import Truths, areas, as_boxes, clipped
from rain_removal_ros.errors import DataError
from rain_removal_ros.parsing import from_json, from_yaml

__all__ = ["FORMATS", "Labels", "as_truths", "common_name", "read"]

_TEXT = "PASCAL Annotation Version 1.00"
_KITTI_FIELDS = (15, 16)
_YOLO_FIELDS = 5
_FAR = 1e9
"""Pixels from a picture's corner; no picture is this large."""
_NAMES = ("classes.txt", "data.yaml", "dataset.yaml", "obj.names")

_SAME = {
    "pedestrian": "person",
    "person sitting": "person",
    "people": "person",
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "tvmonitor": "tv",
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tram": "train",
}
_PASCAL_1 = re.compile(
    r"pas(person|car|bicycle|motorbike|bus|train|dog|cat|cow|horse|sheep|aeroplane|boat)"
)


@dataclass
class _Raw:
    """One object as the file gives it."""

    label: str
    box: tuple[float, float, float, float]
    ignored: bool = False


@dataclass
class Labels:
    """The labels of pictures."""

    truths: dict[str, Truths]
    """By the picture's name without its suffix."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and how much of it."""


Sizes = Mapping[str, tuple[int, int]]
"""Width and height of every wanted picture, by name without suffix."""


def read(path: Path, sizes: Sizes, *, form: str = "auto") -> Labels:
    """The labels at ``path`` for these pictures; a picture without labels is an error."""
    if not path.exists():
        raise DataError(f"there are no labels at {path}")
    form = _recognised(path) if form == "auto" else form
    if form not in FORMATS:
        raise DataError(f"no label format is called {form!r}; there are {', '.join(FORMATS)}")
    raw = FORMATS[form](path, sizes)
    if missing := [name for name in sizes if name not in raw]:
        raise DataError(
            f"{path} has no labels for {len(missing)} of {len(sizes)} pictures, "
            f"{missing[0]} among them"
        )
    labelled = Labels({})
    lost = cut = 0
    for name, (width, height) in sizes.items():
        objects = raw[name]
        inside = clipped(as_boxes([o.box for o in objects]), width, height)
        left = areas(inside) >= 1
        lost += int((~left).sum())
        before = areas(as_boxes([o.box for o in objects]))
        cut += int((left & (areas(inside) < before - 1e-6)).sum())
        kept = [o for o, usable in zip(objects, left, strict=True) if usable]
        labelled.truths[name] = as_truths(
            [o.label for o in kept], inside[left], ignored=[o.ignored for o in kept]
        )
    if lost:
        labelled.notes.append(f"{lost} boxes are empty or outside their pictures and left out")
    if cut:
        labelled.notes.append(f"{cut} boxes reach beyond their pictures and are cut there")
    if not any(not truth.ignored.all() for truth in labelled.truths.values()):
        raise DataError(f"{path} holds no object on any of the {len(sizes)} pictures")
    return labelled


def as_truths(
    labels: Sequence[str],
    boxes: Any,
    *,
    ignored: Sequence[bool] | None = None,
    tracks: Sequence[int] = (),
) -> Truths:
    flags = np.zeros(len(labels), bool) if ignored is None else np.asarray(ignored, bool)
    return Truths(
        tuple(common_name(label) for label in labels), as_boxes(boxes), flags, tuple(tracks)
    )


def common_name(label: str) -> str:
    """The name that COCO uses for a class, if it differs."""
    plain = " ".join(label.lower().replace("_", " ").split())
    if found := _PASCAL_1.match(plain):
        plain = found[1]
    return _SAME.get(plain, plain)


def _recognised(path: Path) -> str:
    if path.is_file():
        if path.suffix == ".json":
            return "coco"
        raise DataError(
            f"{path} is not a known label file; COCO is one .json, the others are folders"
        )
    if next(path.glob("*.xml"), None):
        return "voc"
    texts = (text for text in sorted(path.glob("*.txt")) if text.name not in _NAMES)
    for text in texts:
        content = _text(text)
        if _TEXT in content[:200]:
            return "pascal"
        if fields := content.split("\n", 1)[0].split():
            if len(fields) in _KITTI_FIELDS:
                return "kitti"
            if len(fields) == _YOLO_FIELDS:
                return "yolo"
            raise DataError(f"{text}:1: {len(fields)} fields are neither KITTI's nor YOLO's")
    raise DataError(f"{path} holds no labels that are known; there are {', '.join(FORMATS)}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


def _read_coco(path: Path, sizes: Sizes) -> dict[str, list[_Raw]]:
    try:
        content = from_json(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: is not JSON: {error.msg}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    try:
        names = _unique(path, "image", content["images"], "file_name")
        classes = _unique(path, "category", content["categories"], "name")
        for number, name in [*names.items(), *classes.items()]:
            if not _is_text(name):
                raise DataError(f"{path}: the name of {number!r} is {reprlib.repr(name)}, not text")
        _unique(path, "annotation", content["annotations"], "image_id")
        objects: dict[str, list[_Raw]] = {Path(name).stem: [] for name in names.values()}
        if len(objects) < len(names):
            raise DataError(f"{path} has two images of one name")
        for entry in content["annotations"]:
            where = f"{path}: annotation {entry['id']}"
            if entry["image_id"] not in names:
                raise DataError(f"{where} is of image {entry['image_id']}, which is not there")
            if entry["category_id"] not in classes:
                raise DataError(f"{where} has category {entry['category_id']}, which is not there")
            x, y, width, height = _numbers(entry["bbox"], where, 4)
            crowd = bool(entry.get("iscrowd", 0) or entry.get("ignore", 0))
            label = classes[entry["category_id"]]
            raw = _Raw(label, (x, y, x + width, y + height), crowd)
            objects[Path(names[entry["image_id"]]).stem].append(raw)
    except KeyError as error:
        raise DataError(f"{path} is not COCO: something has no {error}") from error
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path} is not COCO: {error}") from error
    return objects


def _unique(path: Path, kind: str, entries: Sequence[Any], value: str) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for entry in entries:
        if entry["id"] in found:
            raise DataError(f"{path} has two of {kind} id {entry['id']}")
        found[entry["id"]] = entry[value]
    return found


def _read_voc(folder: Path, sizes: Sizes) -> dict[str, list[_Raw]]:
    objects = {}
    for path in _wanted(folder, ".xml", sizes):
        try:
            root = ElementTree.fromstring(_text(path))
        except ElementTree.ParseError as error:
            raise DataError(f"{path}:{error.position[0]}: is not XML: {error}") from error
        objects[path.stem] = [
            _voc_object(path, number, element)
            for number, element in enumerate(root.iter("object"), 1)
        ]
    return objects


def _voc_object(path: Path, number: int, element: ElementTree.Element) -> _Raw:
    where = f"{path}: object {number}"
    label = (element.findtext("name") or "").strip()
    if not label:
        raise DataError(f"{where} has no name")
    ends = [element.findtext(f"bndbox/{end}") for end in ("xmin", "ymin", "xmax", "ymax")]
    if None in ends:
        raise DataError(f"{where} has no whole bndbox")
    x1, y1, x2, y2 = _numbers(ends, where, 4)
    # Pascal counts pixels from 1 and includes the last.
    return _Raw(label, (x1 - 1, y1 - 1, x2, y2), (element.findtext("difficult") or "0") != "0")


_PASCAL_COUNT = re.compile(r"Objects with ground truth : (\d{1,9})\b")
_PASCAL_BOX = re.compile(
    r'Bounding box for object (\d{1,9}) "([^"]+)" \(Xmin, Ymin\) - \(Xmax, Ymax\) : '
    r"\((-?\d{1,9}), (-?\d{1,9})\) - \((-?\d{1,9}), (-?\d{1,9})\)\s*$"
)


def _read_pascal(folder: Path, sizes: Sizes) -> dict[str, list[_Raw]]:
    objects = {}
    for path in _wanted(folder, ".txt", sizes):
        found: dict[int, _Raw] = {}
        claimed = None
        for where, line in _lines(path):
            if count := _PASCAL_COUNT.match(line):
                claimed = int(count[1])
            if not line.startswith("Bounding box for object"):
                continue
            if not (box := _PASCAL_BOX.match(line)):
                raise DataError(f"{where}: this bounding box cannot be understood")
            if int(box[1]) in found:
                raise DataError(f"{where}: object {box[1]} has a second box")
            x1, y1, x2, y2 = (float(value) for value in box.groups()[2:])
            found[int(box[1])] = _Raw(box[2], (x1 - 1, y1 - 1, x2, y2))
        if claimed is None:
            raise DataError(f"{path} does not say how many objects there are")
        if claimed != len(found):
            raise DataError(f"{path} announces {claimed} objects and has boxes of {len(found)}")
        objects[path.stem] = list(found.values())
    return objects


def _read_kitti(folder: Path, sizes: Sizes) -> dict[str, list[_Raw]]:
    objects = {}
    for path in _wanted(folder, ".txt", sizes):
        found = []
        for where, line in _lines(path):
            fields = line.split()
            if len(fields) not in _KITTI_FIELDS:
                raise DataError(f"{where}: KITTI has 15 fields a line, here are {len(fields)}")
            x1, y1, x2, y2 = _numbers(fields[4:8], where, 4)
            # DontCare has no class: it is an ignored region of every class there is.
            found.append(_Raw(fields[0], (x1, y1, x2, y2), fields[0] == "DontCare"))
        objects[path.stem] = found
    classes = {raw.label for found in objects.values() for raw in found if not raw.ignored}
    return {
        name: [
            raw
            for entry in found
            for raw in ([_Raw(c, entry.box, True) for c in classes] if entry.ignored else [entry])
        ]
        for name, found in objects.items()
    }


def _read_yolo(folder: Path, sizes: Sizes) -> dict[str, list[_Raw]]:
    classes = _yolo_classes(folder)
    objects = {}
    for path in _wanted(folder, ".txt", sizes):
        width, height = sizes[path.stem]
        found = []
        for where, line in _lines(path):
            number, x, y, w, h = _numbers(line.split(), where, _YOLO_FIELDS)
            if number not in classes:
                raise DataError(f"{where}: class {number:g} has no name in {folder}")
            if not all(0 <= value <= 1 for value in (x, y, w, h)):
                raise DataError(f"{where}: YOLO gives shares of the picture, from 0 to 1")
            left, right = (x - w / 2) * width, (x + w / 2) * width
            top, bottom = (y - h / 2) * height, (y + h / 2) * height
            found.append(_Raw(classes[int(number)], (left, top, right, bottom)))
        objects[path.stem] = found
    return objects


def _yolo_classes(folder: Path) -> dict[int, str]:
    for path in (place / name for place in (folder, folder.parent) for name in _NAMES):
        if not path.is_file():
            continue
        if path.suffix != ".yaml":
            return dict(enumerate(_text(path).split("\n")))
        try:
            names = from_yaml(_text(path))["names"]
            classes = dict(names) if isinstance(names, dict) else dict(enumerate(names))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} has no list of class names") from error
        if wrong := [name for name in classes.values() if not _is_text(name)]:
            raise DataError(
                f"{path}: a class is called {reprlib.repr(wrong[0])}, which is not text"
            )
        return classes
    raise DataError(f"YOLO's classes are numbers; put {_NAMES[0]} with their names into {folder}")


def _wanted(folder: Path, suffix: str, sizes: Sizes) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} should be a folder with a {suffix} file for every picture")
    return [path for path in sorted(folder.glob(f"*{suffix}")) if path.stem in sizes]


def _lines(path: Path) -> list[tuple[str, str]]:
    """Lines that are not empty, each with its position."""
    lines = enumerate(_text(path).splitlines(), 1)
    return [(f"{path}:{number}", line.strip()) for number, line in lines if line.strip()]


def _is_text(name: Any) -> bool:
    """Whether it can be written anywhere: JSON allows lone surrogates."""
    return isinstance(name, str) and not re.search("[\ud800-\udfff]", name)


def _numbers(values: Sequence[Any], where: str, count: int) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: {reprlib.repr(values)} are not all numbers") from error
    if len(numbers) != count or not all(abs(number) < _FAR for number in numbers):
        raise DataError(
            f"{where}: {count} finite numbers are needed, here are {reprlib.repr(values)}"
        )
    return numbers


FORMATS: dict[str, Callable[[Path, Sizes], dict[str, list[_Raw]]]] = {
    "coco": _read_coco,
    "voc": _read_voc,
    "pascal": _read_pascal,
    "kitti": _read_kitti,
    "yolo": _read_yolo,
}
