"""Passes over pixels, planes and features in C, each in one go and by all of torch's threads.

For inference on a CPU, where the library was built when this package was installed; its source is
in ``native/``. Whoever calls it can do the same without, in torch, NumPy or OpenCV, which is what
counts: tests compare them. A network's functions ask ``serves`` or ``serves_features`` before.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rain_removal_ros.frames import Image

_FOLD, _COARSE = 4, 8  # as in planes.c
_REVISION = 2  # as in planes.h


def infers(x: Tensor) -> bool:
    """Whether this is inference on a CPU: without gradients, neither compiled nor traced."""
    # What is compiled is asked first, and then nothing else: the compiler has passes of its own.
    return (
        not torch.compiler.is_compiling()
        and torch.is_inference_mode_enabled()
        and type(x) is Tensor  # not one without values, as tracers use
        and x.device.type == "cpu"
    )


def serves(picture: Tensor, *, least_side: int) -> bool:
    """Whether the passes over this picture can be done here."""
    return (
        infers(picture)
        and library is not None
        and picture.dtype == torch.float32
        and min(picture.shape[-2:]) >= least_side
    )


def taken_apart(picture: Image, planes: NDArray[np.float32]) -> bool:
    """Bytes as planes of floats in [0, 1], which may be larger; False where C cannot do it."""
    height, width = picture.shape[:2]
    rows, columns = planes.shape[1:]
    if library is None or not _is_rgb(picture) or not planes.flags.c_contiguous:
        return False
    _agree("taken_apart", planes.shape, (3, max(rows, height), max(columns, width)))
    size = height, width
    stride = ctypes.c_size_t(picture.strides[0])
    _call("taken_apart", picture, stride, *size, planes, rows, columns)
    return True


def put_together(planes: NDArray[np.float32], picture: Image) -> bool:
    """Planes in [0, 1] as bytes, rounded; False where C cannot do it."""
    plane, line, step = (stride // planes.itemsize for stride in planes.strides)
    if library is None or not _is_rgb(picture) or step != 1 or planes.dtype != np.float32:
        return False
    _agree("put_together", planes.shape, (3, *picture.shape[:2]))
    strides = [ctypes.c_size_t(stride) for stride in (plane, line, picture.strides[0])]
    size = planes.shape[1:]
    _call("put_together", planes, *strides[:2], *size, picture, strides[2])
    return True


def _is_rgb(picture: Image) -> bool:
    """Whether it is three bytes a pixel, one pixel after the other."""
    return picture.dtype == np.uint8 and picture.shape[2:] == (3,) and picture.strides[1:] == (3, 1)


def small(pictures: Tensor) -> Tensor:
    batch, channels, height, width = pictures.shape
    _agree("small", pictures.shape, (batch, channels, height // 4 * 4, width // 4 * 4))
    out = torch.empty(batch, 1, height // 4, width // 4)
    _call("small", _plain(pictures), batch, channels, height, width, out)
    return out


def displacement(past: Tensor, now: Tensor) -> Tensor:
    batch, channels, height, width = now.shape
    _agree("displacement", now.shape, (batch, channels, height // 16 * 16, width // 16 * 16))
    _agree("displacement", past.shape, now.shape)
    flow = torch.empty(batch, 2, height // 8, width // 8)
    _call("displacement", _plain(past), _plain(now), batch, channels, height, width, flow)
    return flow


def resumed(motion: Tensor, past: Tensor, now: Tensor) -> Tensor:
    batch, _, cells_y, cells_x = motion.shape
    _agree("resumed", motion.shape, (batch, 2, cells_y, cells_x))
    for grey in (past, now):
        _agree("resumed", grey.shape, (batch, 1, 2 * cells_y, 2 * cells_x))
    flow = torch.empty(motion.shape)
    pictures = _plain(past), _plain(now)
    _call("resumed", _plain(motion), *pictures, batch, *now.shape[-2:], flow)
    return flow


def moved(image: Tensor, flow: Tensor, finer: int) -> Tensor:
    batch, _, height, width = image.shape
    _agree("moved", flow.shape, (batch, 2, height // finer, width // finer))
    _agree("moved", image.shape[-2:], (height // finer * finer, width // finer * finer))
    out = torch.empty(image.shape)
    _call("moved", _plain(image), *image.shape, _plain(flow), *flow.shape[-2:], finer, out)
    return out


def entered(
    frame: Tensor, past: Tensor | None, *, guided: bool, epsilon: float, dtype: torch.dtype
) -> Tensor:
    batch, _, height, width = frame.shape
    planes = 3 + guided + (0 if past is None else 3)
    _agree("entered", frame.shape, (batch, 3, height // _FOLD * _FOLD, width // _FOLD * _FOLD))
    if past is not None:
        _agree("entered", past.shape, frame.shape)
    folded = torch.empty(
        (batch, planes * _FOLD**2, height // _FOLD, width // _FOLD),
        dtype=torch.bfloat16 if dtype == torch.bfloat16 else torch.float32,
        memory_format=torch.channels_last,
    )
    narrow = _is_narrow(folded)
    pictures = _plain(frame), _plain(past)
    _call("entered", *pictures, batch, height, width, guided, epsilon, folded, narrow)
    return folded


def composed(
    frame: Tensor, streaks: Tensor, maps: Tensor | None, past: Tensor | None, known: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, _, height, width = frame.shape
    coarse = height // _COARSE, width // _COARSE
    folded = (3 + 1 + (past is not None)) * _FOLD**2, 2 * coarse[0], 2 * coarse[1]
    _agree("composed", frame.shape, (batch, 3, coarse[0] * _COARSE, coarse[1] * _COARSE))
    _agree("composed", streaks.shape, (batch, *folded))
    if maps is not None:
        _agree("composed", maps.shape, (batch, 6, *coarse))
    if past is not None:
        _agree("composed", past.shape, frame.shape)
        _agree("composed", () if known is None else known.shape, (batch, 1, *coarse))
    narrow = _is_narrow(streaks)
    streaks = streaks if narrow else streaks.float()
    streaks = streaks.contiguous(memory_format=torch.channels_last)
    clean, mask = torch.empty(frame.shape), torch.empty(batch, 1, height, width)
    said = streaks, _plain(maps), _plain(known)
    size = batch, height, width
    _call("composed", _plain(frame), _plain(past), *said, *size, narrow, clean, mask)
    return clean, mask


def serves_features(*maps: Tensor) -> bool:
    """Whether the passes over these feature maps, channels last, can be done here."""
    kinds = {each.dtype for each in maps}
    return (
        infers(maps[0])
        and library is not None
        and (kinds == {torch.bfloat16} or kinds == {torch.float32})
        and all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)
    )


def raised(fine: Tensor, coarse: Tensor) -> Tensor:
    batch, channels, height, width = fine.shape
    _agree("raised", fine.shape, (batch, channels, height // 2 * 2, width // 2 * 2))
    _agree("raised", coarse.shape, (batch, channels, height // 2, width // 2))
    _call("raised", fine, coarse, batch * height, width, channels, _is_narrow(fine))
    return fine


def recalled(joined: Tensor, gates: Tensor) -> Tensor:
    batch, hidden, height, width = gates.shape[0], gates.shape[1] // 2, *gates.shape[2:]
    inputs = joined.shape[1] - hidden
    _agree("recalled", gates.shape, (batch, 2 * hidden, height, width))
    _agree("recalled", joined.shape, (batch, max(inputs, 0) + hidden, height, width))
    _call("recalled", joined, gates, batch * height, width, inputs, hidden, _is_narrow(gates))
    return joined


def renewed(hidden: Tensor, gates: Tensor, candidate: Tensor) -> Tensor:
    batch, channels, height, width = hidden.shape
    _agree("renewed", gates.shape, (batch, 2 * channels, height, width))
    _agree("renewed", candidate.shape, hidden.shape)
    out = torch.empty_like(hidden)
    size = batch * height, width, channels
    _call("renewed", hidden, gates, candidate, *size, _is_narrow(hidden), out)
    return out


def _is_narrow(values: Tensor) -> bool:
    return values.dtype == torch.bfloat16


def _agree(name: str, shape: Sequence[int], wanted: Sequence[int]) -> None:
    """C looks at no shape: what does not fit would be read beyond its end."""
    if tuple(shape) != tuple(wanted):
        raise RuntimeError(f"{name}: {tuple(shape)} where {tuple(wanted)} was expected")


def _plain(planes: Tensor | None) -> Tensor | None:
    """As C has them: floats, plane after plane, row after row."""
    return None if planes is None else planes.float().contiguous()


_Argument: TypeAlias = Tensor | NDArray[Any] | ctypes.c_size_t | float | None


def _call(name: str, *arguments: _Argument) -> None:
    """Tensors and arrays go by their address, and the number of threads comes last."""
    function = getattr(library, name)
    if function(*map(_argument, arguments), torch.get_num_threads()):
        raise MemoryError(f"out of memory ({name})")


def _argument(argument: _Argument) -> object:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


def _load() -> ctypes.CDLL | None:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_in_c{suffix}")
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
