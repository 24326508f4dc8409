"""Rainy pictures and their references, in the layouts in which data sets were published.

The sets differ only in where the reference is and how its name is derived. Four layouts and a rule
for names read them all; the layout is recognised from the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.media import pictures

__all__ = ["LAYOUTS", "Pair", "find_pairs", "split_layout"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A rainy picture and its reference. If both are one file, the reference is its left half."""

    name: str
    rainy: Path
    reference: Path

    def load(self) -> tuple[Image, Image]:
        """The rainy picture and its reference, RGB, of one size."""
        if self.rainy == self.reference:
            return _halves(pictures.read(self.rainy))
        rainy, reference = pictures.read(self.rainy), pictures.read(self.reference)
        if rainy.shape != reference.shape:
            raise DataError(
                f"{self.rainy} is {_size(rainy)} but its reference {self.reference} is "
                f"{_size(reference)}"
            )
        return rainy, reference


def split_layout(text: str) -> tuple[Path, str | None]:
    """``DIR`` or ``DIR:layout`` as written on a command line or in a settings file."""
    folder, colon, layout = text.rpartition(":")
    if colon and layout in LAYOUTS:
        return Path(folder), layout
    return Path(text), None


def find_pairs(folder: Path, layout: str | None = None) -> list[Pair]:
    """All pairs of a data set, ordered by name; the layout is recognised unless it is given.

    ``folder`` may also be a list file with the paths of a rainy picture and its reference per line.
    """
    if not folder.exists():
        raise DataError(f"{folder} does not exist")
    if layout is not None:
        if layout not in LAYOUTS:
            raise DataError(f"no layout is called {layout!r}; there are {', '.join(LAYOUTS)}")
        found = LAYOUTS[layout](folder)
        if not found:
            raise DataError(f"{folder} holds no pairs in the layout {layout!r}")
        return found
    for finder in dict.fromkeys(LAYOUTS.values()):
        found = finder(folder)
        if found:
            return found
    raise DataError(f"{folder} holds no pairs of rainy pictures and references{_hint(folder)}")


def _hint(folder: Path) -> str:
    if not folder.is_dir() or not pictures.find_pictures(folder):
        return ": there is no picture in it"
    below = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    for path in below:
        if any(finder(path) for finder in dict.fromkeys(LAYOUTS.values())):
            return f"; {path} does"
    return f"; its layout may be given as {folder}:LAYOUT, one of {', '.join(LAYOUTS)}"


# --- layouts -------------------------------------------------------------------------------------

_CLEAN_FOLDERS = (
    "target", "targets", "clean", "norain", "no_rain", "gt", "ground_truth", "groundtruth", "clear",
)  # fmt: skip
_RAINY_FOLDERS = ("input", "inputs", "rainy", "rain", "rainy_image", "in", "data", "lq")
_CLEAN_NAME = re.compile(r"^(?:no[-_]?rain|clean|gt)[-_]|(?:[-_](?:norain|clean|gt|target))$", re.I)
_RAINY_NAME = re.compile(r"^rainy?[-_]|[-_]rainy?$", re.I)
_AFFIXES = re.compile(
    r"^(?:no[-_]?rain|rainy?|clean|gt)[-_]|(?:x\d|[-_]?gt|[-_](?:norain|clean|rainy?|target))$",
    re.I,
)
_SCENE_FRAME = re.compile(r"^(?P<scene>.*?)[-_]?(?P<kind>[CR])[-_](?P<number>\d+)$")


def _list_file(folder: Path) -> list[Pair]:
    """SPA-Data: a text file with the paths of a rainy picture and its reference per line."""
    files = [folder] if folder.is_file() else sorted(folder.glob("*.txt"))
    for file in files:
        rows = [line.split() for line in file.read_text(errors="replace").splitlines()]
        rows = [row for row in rows if row]
        if rows and all(len(row) == 2 and _looks_like_picture(row) for row in rows):
            return [_listed(file, row[0], row[1]) for row in rows]
    return []


def _looks_like_picture(names: Iterable[str]) -> bool:
    return all(Path(name).suffix.lower() in pictures.SUFFIXES for name in names)


def _listed(file: Path, rainy: str, reference: str) -> Pair:
    # In the published lists every path begins with a slash that means the list's own folder.
    paths = [file.parent / name.lstrip("/") for name in (rainy, reference)]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{file} names {path}, which is not there")
    return Pair(str(Path(rainy.lstrip("/")).with_suffix("")), paths[0], paths[1])


def _scenes(folder: Path) -> list[Pair]:
    """GT-RAIN: a scene's folder has one ``C-000`` for all its ``R-nnn``."""
    if not folder.is_dir():
        return []
    reference: dict[tuple[Path, str], Path] = {}
    rainy: list[tuple[tuple[Path, str], Path]] = []
    for path in pictures.find_pictures(folder):
        match = _SCENE_FRAME.match(path.stem)
        if match is None:
            continue
        scene = (path.parent, match["scene"])
        if match["kind"] == "C":
            reference.setdefault(scene, path)
        else:
            rainy.append((scene, path))
    if not reference:
        return []
    lost = [path for scene, path in rainy if scene not in reference]
    _refuse_lost(folder, lost)
    return [Pair(_name(path, folder), path, reference[scene]) for scene, path in rainy]


def _folders(folder: Path) -> list[Pair]:
    """Two folders, or references here and rainy pictures in a folder below."""
    if not folder.is_dir():
        return []
    below = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    rainy_folder = next((below[name] for name in _RAINY_FOLDERS if name in below), None)
    clean_folder = next((below[name] for name in _CLEAN_FOLDERS if name in below), None)
    if rainy_folder is None:
        return []
    rainy = pictures.find_pictures(rainy_folder)
    if clean_folder is not None:
        reference = pictures.find_pictures(clean_folder)
    else:
        reference = pictures.list_pictures(folder)
    return _match(folder, rainy, reference, (rainy_folder, clean_folder or folder))


def _one_folder(folder: Path) -> list[Pair]:
    """``rain-1.png`` beside ``norain-1.png``."""
    if not folder.is_dir():
        return []
    here = pictures.list_pictures(folder)
    reference = [path for path in here if _CLEAN_NAME.search(path.stem)]
    rainy = [path for path in here if path not in set(reference) and _RAINY_NAME.search(path.stem)]
    return _match(folder, rainy, reference, (folder, folder))


def _side_by_side(folder: Path) -> list[Pair]:
    """Rain800: one picture per pair, the reference left, the rainy picture right."""
    if not folder.is_dir():
        return []
    here = pictures.list_pictures(folder)
    looked_at = here[:: max(1, len(here) // _HALVES_LOOKED_AT)][:_HALVES_LOOKED_AT]
    alike = [_halves_are_alike(path) for path in looked_at]
    if not here or sum(alike) * 2 <= len(alike):
        return []
    return [Pair(path.stem, path, path) for path in here]


LAYOUTS: dict[str, Callable[[Path], list[Pair]]] = {
    "list": _list_file,
    "scenes": _scenes,
    "folders": _folders,
    "one_folder": _one_folder,
    "side_by_side": _side_by_side,
    "spa": _list_file,
    "gt_rain": _scenes,
    "rain100": _folders,
    "rain200": _folders,
    "rain1400": _folders,
    "outdoor_rain": _folders,
    "rain800": _side_by_side,
}
"""By their appearance, then by the published sets that use them."""


# --- names and halves ----------------------------------------------------------------------------


def _match(
    folder: Path, rainy: list[Path], reference: list[Path], roots: tuple[Path, Path]
) -> list[Pair]:
    """Each rainy picture with the reference of its name, in the same folder below ``roots``.

    If there is no such folder, as for Rain200's ``rain/X2``, the reference is at the root.
    """
    if not rainy or not reference:
        return []
    same: dict[tuple[Path, str], list[Path]] = {}
    alike: dict[tuple[Path, str], list[Path]] = {}
    for path in reference:
        place = path.parent.relative_to(roots[1])
        same.setdefault((place, path.stem), []).append(path)
        alike.setdefault((place, _key(path.stem)), []).append(path)
    found, lost = [], []
    for path in rainy:
        places = (path.parent.relative_to(roots[0]), Path())
        names = [(place, name) for place in places for name in _names(path.stem)]
        partners = next(filter(None, (same.get(name) or alike.get(name) for name in names)), [])
        if len(partners) > 1:
            both = " and ".join(str(partner.relative_to(folder)) for partner in partners)
            raise DataError(f"in {folder} both {both} may be the reference of {path.name}")
        if partners:
            found.append(Pair(_name(path, folder), path, partners[0]))
        else:
            lost.append(path)
    _refuse_lost(folder, lost)
    return found


def _key(stem: str) -> str:
    """The part of the name that a picture shares with its counterpart."""
    while (shorter := _AFFIXES.sub("", stem)) != stem and shorter:
        stem = shorter
    return stem


def _names(stem: str) -> list[str]:
    """Possible names of the reference: the same, similar, or a prefix if it serves several.

    ``3_14`` belongs to ``3``, ``im_1_s80_a05`` to ``im_1``.
    """
    parts = re.split(r"([-_])", _key(stem))
    return [stem, *("".join(parts[:end]) for end in range(len(parts), 0, -2))]


def _refuse_lost(folder: Path, lost: list[Path]) -> None:
    if lost:
        named = ", ".join(str(path.relative_to(folder)) for path in lost[:3])
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise DataError(f"in {folder} no reference belongs to {named}{more}")


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


_HALVES_LOOKED_AT = 5
_ALIKE = 0.5


def _halves(picture: Image) -> tuple[Image, Image]:
    width = picture.shape[1] // 2
    if width == 0:
        raise DataError("a picture one pixel wide has no halves")
    # With an odd width one column is left over, in the middle or at the edge; both halves drop it.
    return picture[:, -width:], picture[:, :width]


def _halves_are_alike(path: Path) -> bool:
    try:
        rainy, reference = _halves(pictures.read(path))
    except DataError:
        return False
    small = [
        cv2.resize(half, (32, 32), interpolation=cv2.INTER_AREA).mean(2).ravel()
        for half in (rainy, reference)
    ]
    if min(float(half.std()) for half in small) == 0:
        return False
    return float(np.corrcoef(small[0], small[1])[0, 1]) > _ALIKE


def _size(image: Image) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
