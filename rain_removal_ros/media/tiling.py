"""Derains pictures too large for memory in tiles, without visible seams.

Tiles overlap. Near a tile's border the network sees less context, so the outermost part of an
overlap is discarded, and over the rest one tile fades into the next. Tiles begin at multiples of
every network's stride, so that pixels that are pooled together in the whole picture are pooled
together in its tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.engines import Derained, Engine, has_torch
from rain_removal_ros.errors import EngineError
from rain_removal_ros.frames import Image
from rain_removal_ros.runtime.memory import resident_bytes

if TYPE_CHECKING:
    from rain_removal_ros.networks._base import Network

OVERLAP = 128
"""Pixels shared by two neighbours. docs/performance.md has what remains of the seams."""
LEAST_SIDE = 256
"""Smaller tiles would be mostly overlap."""

_ALIGNMENT = 64
_PROBE_SIDE = 512
_WORKSPACE = 1.75
"""Memory of a pass relative to its tensors: convolutions reorder their operands, and freed blocks
do not always fit what comes next. Measured: up to 1.5 on a CPU."""
_SHARE = 0.6
"""The share of free memory that is used by default."""


class Span(NamedTuple):
    """Where a tile lies along one side."""

    start: int
    stop: int


@dataclass(frozen=True)
class Needs:
    """Bytes that a network needs per pixel of the frame."""

    working: float
    """During a pass."""
    state: float
    """From one frame to the next."""

    @classmethod
    def of(cls, network: Network) -> Needs:
        """Computed, not tried: a pass that does not fit would end the process."""
        from rain_removal_ros.networks._cost import peak_bytes

        peak, state = peak_bytes(network, width=_PROBE_SIDE, height=_PROBE_SIDE)
        pixels = _PROBE_SIDE**2
        return cls(_WORKSPACE * peak / pixels, state / pixels)

    def side(self, budget: float) -> int:
        """The side of the largest square tile whose pass stays within ``budget`` bytes."""
        largest = math.isqrt(max(0, int(budget / self.working)))
        side = largest // _ALIGNMENT * _ALIGNMENT
        if side < LEAST_SIDE:
            least = self.working * LEAST_SIDE**2
            raise EngineError(
                f"{max(0.0, budget) / 2**30:.2f} GiB of memory are left for the network, which "
                f"needs {least / 2**30:.2f} GiB for a tile of {LEAST_SIDE} pixels; allow more, or "
                "take a smaller network or fewer cameras"
            )
        return side


def memory_left(device: str, limit_bytes: float | None = None) -> float:
    """Bytes that may still be used: of ``limit_bytes`` for this process as a whole or, without a
    limit, of the machine's free memory.
    """
    if device.startswith("cuda") and has_torch():
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return _SHARE * free if limit_bytes is None else limit_bytes - (total - free)
    if limit_bytes is None:
        return _SHARE * _free_memory()
    return limit_bytes - resident_bytes()


def spans(length: int, side: int, overlap: int) -> list[Span]:
    """The fewest tiles of at most ``side`` that cover ``length`` and overlap by ``overlap`` or
    more, spread evenly."""
    if length <= side:
        return [Span(0, length)]
    advance = (side - overlap) // _ALIGNMENT * _ALIGNMENT
    if advance <= 0:
        least = overlap + _ALIGNMENT
        raise EngineError(f"tiles of {side} pixels are too small; from {least} on they are not")
    count = 1 + math.ceil((length - side) / advance)
    starts = [index * (length - side) / (count - 1) for index in range(count)]
    aligned = [math.ceil(start / _ALIGNMENT) * _ALIGNMENT for start in starts]
    return [Span(start, min(start + side, length)) for start in aligned]


class TiledEngine:
    """See ``Engine``. The inner engine sees at most ``side`` by ``side`` pixels, or as many in
    another shape if that is the whole frame.

    A frame's state is the states of its tiles. Where frames do not follow each other, do not
    ``carry_state``: that of a 4K picture takes gigabytes.
    """

    def __init__(
        self, engine: Engine, *, side: int, overlap: int = OVERLAP, carry_state: bool = True
    ) -> None:
        spans(side + 1, side, overlap)  # so that an impossible size fails here, not at a frame
        self._engine = engine
        self._side = side
        self._overlap = overlap
        self._carry_state = carry_state
        self.info = replace(engine.info, recurrent=engine.info.recurrent and carry_state)

    def tiles(self, height: int, width: int) -> list[tuple[Span, Span]]:
        """Rows and columns of each tile of a frame of this size, starting at the top left."""
        if height * width <= self._side**2:
            return [(Span(0, height), Span(0, width))]
        across = spans(width, self._side, self._overlap)
        down = spans(height, self._side, self._overlap)
        return [(rows, columns) for rows in down for columns in across]

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Derained]:
        """One frame of each camera; cameras are batched only if a frame is one tile."""
        tiles = self.tiles(*images[0].shape[:2])
        targets = into or [None] * len(images)
        if len(tiles) > 1:
            return [
                self._assembled(*parts, tiles, stages=stages, attention=attention)
                for parts in zip(images, states, targets, strict=True)
            ]
        whole = self._engine.step(images, states, stages=stages, attention=attention, into=into)
        return whole if self._carry_state else [replace(part, state=None) for part in whole]

    def _assembled(
        self,
        image: Image,
        state: list[Any] | None,
        target: Image | None,
        tiles: list[tuple[Span, Span]],
        *,
        stages: int,
        attention: bool,
    ) -> Derained:
        height, width = image.shape[:2]
        if target is None:
            target = np.empty((height * self.info.scale, width * self.info.scale, 3), np.uint8)
        derained = _Mosaic(target, self.info.scale)
        seen = _Mosaic(np.empty((height, width), np.uint8), 1) if attention else None
        kept: list[Any] = []
        level = 0.0
        measured = False
        for (rows, columns), before in zip(tiles, state or [None] * len(tiles), strict=True):
            tile = image[slice(*rows), slice(*columns)]
            (result,) = self._engine.step([tile], [before], stages=stages, attention=attention)
            derained.add(result.image, rows, columns)
            if seen is not None and result.attention is not None:
                seen.add(result.attention, rows, columns)
            if result.rain_level is not None:
                level, measured = level + result.rain_level / len(tiles), True
            kept.append(result.state if self._carry_state else None)
        return Derained(
            target,
            seen.canvas if seen else None,
            level if measured else None,
            kept if any(part is not None for part in kept) else None,
        )


class _Mosaic:
    """Lays tiles onto a canvas, row by row, each fading into those before it.

    All in bytes: a canvas of floats would be the largest thing in memory.
    """

    def __init__(self, canvas: NDArray[np.uint8], scale: int) -> None:
        self.canvas = canvas
        self._scale = scale
        self._row: NDArray[np.uint8] = canvas[:0]
        self._right = 0
        self._bottom = 0

    def add(self, tile: NDArray[np.uint8], rows: Span, columns: Span) -> None:
        left, right = (edge * self._scale for edge in columns)
        if left == 0:
            self._row = np.empty((len(tile), *self.canvas.shape[1:]), np.uint8)
            self._right = 0
        _lay(self._row.swapaxes(0, 1), tile.swapaxes(0, 1), at=left, covered=self._right)
        self._right = right
        if right == self.canvas.shape[1]:
            top, bottom = (edge * self._scale for edge in rows)
            _lay(self.canvas, self._row, at=top, covered=self._bottom)
            self._bottom = bottom


def _lay(canvas: NDArray[np.uint8], piece: NDArray[np.uint8], *, at: int, covered: int) -> None:
    """Lay ``piece`` onto ``canvas`` from line ``at`` on, fading in over what is already covered."""
    shared = covered - at
    if shared > 0:
        # Nothing of the new piece in the first quarter, nothing of the old in the last.
        fade = ((np.arange(shared, dtype=np.float32) + 0.5) / shared * 2 - 0.5).clip(0, 1)
        fade = fade.reshape(-1, *[1] * (piece.ndim - 1))
        before, new = canvas[at:covered], piece[:shared]
        canvas[at:covered] = before + fade * (new.astype(np.float32) - before) + 0.5
    canvas[at + max(0, shared) : at + len(piece)] = piece[max(0, shared) :]


def _free_memory() -> int:
    """Memory that is still free on this machine or in this container."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    values = dict(line.split(":") for line in lines)
    free = int(values["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        most = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such limit, or "max"
        return free
    return max(0, min(free, most - used))
