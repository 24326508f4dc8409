"""The C library: whole passes over pixels, planes and features, with as many threads as torch.

Its source is in ``native/``; it is built when this package is installed, if there is a compiler.
Every caller has an implementation in torch, NumPy or OpenCV too, which defines the result: tests
compare the two. This module has the passes over pixels, which need no torch; ``networks._native``
has the rest.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.frames import Image
from rain_removal_ros.runtime.threads import without_torch

_REVISION = 5  # as in passes.h


def unpack_rgb(picture: Image, planes: NDArray[np.float32]) -> bool:
    """Bytes to planes of floats in [0, 1], which may be larger; False if C cannot do it."""
    height, width = picture.shape[:2]
    rows, columns = planes.shape[1:]
    if library is None or not _is_rgb(picture) or not _is_plain(planes):
        return False
    agree("unpack_rgb", planes.shape, (3, max(rows, height), max(columns, width)))
    agree("unpack_rgb", picture.shape, (height, width, 3))
    size = height, width
    stride = ctypes.c_size_t(picture.strides[0])
    call("unpack_rgb", picture, stride, *size, planes, rows, columns)
    return True


def pack_rgb(planes: NDArray[np.float32], picture: Image) -> bool:
    """Planes in [0, 1] to bytes, rounded; False if C cannot do it."""
    plane, line, step = (stride // planes.itemsize for stride in planes.strides)
    if library is None or not _is_rgb(picture) or step != 1 or planes.dtype != np.float32:
        return False
    agree("pack_rgb", planes.shape, (3, *picture.shape[:2]))
    agree("pack_rgb", picture.shape, (*planes.shape[1:], 3))
    strides = [ctypes.c_size_t(stride) for stride in (plane, line, picture.strides[0])]
    size = planes.shape[1:]
    call("pack_rgb", planes, *strides[:2], *size, picture, strides[2])
    return True


def advice() -> str:
    """Advice if the library is missing, which makes torch slow on a CPU; else empty."""
    if library is not None:
        return ""
    return (
        "built without its C code: rainstream takes 1.5 to 4 times as long in torch on a CPU; "
        "install a C compiler (sudo apt install g++) and then this package again"
    )


def _is_plain(planes: NDArray[Any]) -> bool:
    return planes.dtype == np.float32 and planes.flags.c_contiguous


def _is_rgb(picture: Image) -> bool:
    """Whether it has three bytes per pixel and contiguous pixels."""
    return picture.dtype == np.uint8 and picture.shape[2:] == (3,) and picture.strides[1:] == (3, 1)


def agree(name: str, shape: Sequence[int], wanted: Sequence[int]) -> None:
    """Check a shape, because C does not: it would read beyond the end of a smaller array."""
    if tuple(shape) != tuple(wanted):
        raise RuntimeError(f"{name}: {tuple(shape)} where {tuple(wanted)} was expected")
    if 0 in shape:
        raise RuntimeError(f"{name}: {tuple(shape)} where something was expected")


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library: tensors and arrays by address, the number of threads last."""
    function = getattr(library, name)
    if function(*map(_argument, arguments), _threads()):
        raise MemoryError(f"out of memory ({name})")


def _argument(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    if hasattr(argument, "data_ptr"):  # a tensor; torch need not be imported
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


def _threads() -> int:
    """The number of threads that torch uses; without torch, the number of cores."""
    if (torch := sys.modules.get("torch")) is not None:
        return int(torch.get_num_threads())
    return without_torch()


def _load() -> ctypes.CDLL | None:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).parents[1] / f"_in_c{suffix}"
        if path.is_file():
            return _loaded(path)
    return None


def _loaded(path: Path) -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL(str(path))
        if found.revision() == _REVISION:
            return found
        reason = "it is of another version"
    except (AttributeError, OSError) as error:
        reason = str(error)
    warnings.warn(f"{path} is not used, which costs speed; install again: {reason}", stacklevel=2)
    return None


library = _load()
