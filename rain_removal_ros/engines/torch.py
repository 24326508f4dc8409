"""Runs networks in torch, on a CPU or a CUDA device.

Pixels are touched at most twice in each direction. Input: one pass from the message's bytes to the
padded buffer, as floats on a CPU and as bytes in pinned memory for a GPU, which converts them to
floats. Output: one pass from floats to bytes, into the outgoing message if requested. A GPU
computes one batch while the previous one is copied back and the next one is packed and sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rain_removal_ros.engines._base import Derained, EngineInfo
from rain_removal_ros.engines._compiled import CompiledNetwork
from rain_removal_ros.engines._gpu_transfers import Transfers
from rain_removal_ros.engines._pixels import as_map, as_picture, extend_edges, fill, padded
from rain_removal_ros.engines._schedule import Schedule, is_out_of_memory
from rain_removal_ros.errors import EngineError, first_line
from rain_removal_ros.frames import Image
from rain_removal_ros.networks._base import Network, Output, State
from rain_removal_ros.settings import EngineSettings

_CPU_BATCH = 640 * 480
"""Pixels of the cameras that form one batch on a CPU. Larger batches take up to 1.5 times as long
as one camera after another, and need the memory of all."""
_GPU_BATCH = 4 * 1920 * 1080
"""The same on a GPU, so that it can compute one batch while others are copied."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class _Begun:
    """A batch that is being computed or copied back."""

    state: State
    finite: Tensor
    derained: Tensor
    """Floats on a CPU, bytes with channels last from a GPU."""
    maps: Tensor | None
    levels: Tensor | None
    wait: Callable[[], object] = lambda: None
    """Returns once all of this can be read."""


class TorchEngine:
    """See ``Engine``. It takes over the network: moved and cast, it cannot be trained any more."""

    def __init__(self, network: Network, settings: EngineSettings) -> None:
        self._device = _device(settings.device)
        self._dtype = _DTYPES[_precision(settings.precision, self._device)]
        try:
            network = network.eval().to(self._device)
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._transfers = None if self._device.type == "cpu" else Transfers(self._device)
        except RuntimeError as error:
            raise EngineError(f"cannot use {self._device}: {first_line(error)}") from error
        if self._dtype != torch.float32:
            _keep_convolutions_in(network, self._dtype)
        self._network = network
        self._run: Callable[[Tensor, State], Output] = network
        if settings.compile:
            self._run = CompiledNetwork(network, self._computing, self._say)
        self.info = EngineInfo(
            network=type(network).__module__.rpartition(".")[2],
            engine="torch",
            device=str(self._device),
            precision=str(self._dtype).removeprefix("torch."),
            scale=network.scale,
            stride=network.facts.stride,
            recurrent=network.facts.recurrent,
            stages=network.stages,
            any_stages=True,
            cautions=network.cautions,
        )
        self.note = ""
        self.pixel_bytes = 0.0
        self._staging: Tensor | None = None
        # A CPU gains nothing from overlap: one batch is finished before the next one is begun.
        self._schedule: Schedule[_Begun, Derained] = (
            Schedule(_CPU_BATCH, under_way=1, said=self._say)
            if self._transfers is None
            else Schedule(_GPU_BATCH, under_way=2, said=self._say)
        )

    @torch.inference_mode()
    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Derained]:
        targets = into or [None] * len(images)
        self._network.stages = stages or self.info.stages
        height, width = images[0].shape[:2]
        try:
            return self._schedule.run(
                len(images),
                height * width,
                begin=lambda part: self._begin(images[part], states[part], attention),
                finish=lambda begun, part: self._finish(begun, targets[part]),
                free=self._free_memory,
            )
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                reason = f"out of memory on {self._device} at {width}x{height}"
            else:
                reason = f"{self.info.network} failed: {first_line(error)}"
            raise EngineError(reason) from error

    def _free_memory(self) -> None:
        self._staging = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _begin(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        attention: bool,  # noqa: FBT001
    ) -> _Begun:
        height, width = images[0].shape[:2]
        scale = self.info.scale
        output = self._forward(self._upload(images), _together(states))
        self._part_with_staging(output.state)
        begun = _Begun(
            output.state,
            torch.isfinite(output.derained.sum()),
            output.derained[:, :, : height * scale, : width * scale],
            output.attention[:, 0, :height, :width] if attention else None,
            output.rain_level,
        )
        return begun if self._transfers is None else self._sent_down(begun, self._transfers)

    def _finish(self, begun: _Begun, into: Sequence[Image | None]) -> list[Derained]:
        begun.wait()
        if not bool(begun.finite):
            raise EngineError(f"{self.info.network} gave values that are not finite")
        cameras = range(len(into))
        levels = [None for _ in cameras] if begun.levels is None else begun.levels.tolist()
        if self._transfers is None:
            images = [as_picture(*pair) for pair in zip(_arrays(begun.derained), into, strict=True)]
            maps = [as_map(each) for each in _arrays(begun.maps)]
        else:
            images = [_put(*pair) for pair in zip(_arrays(begun.derained), into, strict=True)]
            maps = _arrays(begun.maps)
        return [
            Derained(images[one], maps[one] if maps else None, levels[one], _one(begun.state, one))
            for one in cameras
        ]

    def _forward(self, frames: Tensor, state: State) -> Output:
        with self._computing():
            return self._run(frames, state)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        reduced = self._dtype != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=self._dtype, enabled=reduced),
        ):
            yield

    def _say(self, note: str) -> None:
        self.note = note

    def _upload(self, images: Sequence[Image]) -> Tensor:
        """The frames as B x 3 x H x W floats on the device, padded to what the network takes."""
        height, width = images[0].shape[:2]
        facts = self._network.facts
        sides = padded(height, facts.stride), padded(width, facts.stride)
        if self._transfers is None:
            order = torch.contiguous_format if facts.planar else torch.channels_last
            frames = self._stage((len(images), 3, *sides), order)
            for planes, image in zip(frames.numpy(), images, strict=True):
                fill(planes, image)
            return frames
        pixels = self._transfers.memory((len(images), *sides, 3))
        for canvas, image in zip(pixels.numpy(), images, strict=True):
            canvas[:height, :width] = image
            extend_edges(canvas, height, width)
        return self._transfers.up(pixels).permute(0, 3, 1, 2).to(torch.float32) / 255

    def _stage(self, shape: tuple[int, ...], order: torch.memory_format) -> Tensor:
        """The buffer for frames on a CPU, allocated again only for another shape."""
        if self._staging is None or self._staging.shape != shape:
            self._staging = torch.empty(shape, memory_format=order)
        return self._staging

    def _part_with_staging(self, state: State) -> None:
        """Give up the buffer if the network returned it as state."""
        if self._staging is not None:
            ours = self._staging.untyped_storage().data_ptr()
            if any(part.untyped_storage().data_ptr() == ours for part in state):
                self._staging = None

    def _sent_down(self, begun: _Begun, transfers: Transfers) -> _Begun:
        """The results of a GPU as bytes in host memory, while they are being copied."""
        wanted = {
            "finite": begun.finite,
            "derained": _bytes(begun.derained.permute(0, 2, 3, 1)),
        }
        if begun.maps is not None:
            wanted["maps"] = _bytes(begun.maps)
        if begun.levels is not None:
            wanted["levels"] = begun.levels
        here, wait = transfers.down(list(wanted.values()))
        arriving: dict[str, Any] = dict(zip(wanted, here, strict=True))
        return replace(begun, wait=wait, **arriving)


def _bytes(values: Tensor) -> Tensor:
    """Values in [0, 1] as rounded bytes, contiguous."""
    return (values.float() * 255).round().to(torch.uint8).contiguous()


def _arrays(values: Tensor | None) -> list[Any]:
    """One array for each camera."""
    if values is None:
        return []
    return list((values if values.dtype == torch.uint8 else values.float()).numpy())


def _put(picture: Image, target: Image | None) -> Image:
    if target is None:
        return picture
    target[...] = picture
    return target


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EngineError(f"no device is called {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise EngineError(f"{name} is not there: torch sees {count} CUDA devices; try auto or cpu")
    if device.type not in ("cpu", "cuda"):
        raise EngineError(f"{name} is not supported; use auto, cpu, cuda or cuda:N")
    return device


def _precision(name: str, device: torch.device) -> str:
    if name != "auto":
        return name
    if device.type == "cuda":
        return "float16"
    return "bfloat16" if _bfloat16_is_fast() else "float32"


def _bfloat16_is_fast() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; otherwise it is emulated."""
    return any(
        bool(getattr(torch.cpu, probe, bool)())
        for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def _keep_convolutions_in(network: Network, dtype: torch.dtype) -> None:
    """Cast the weights once, instead of by autocast for every frame."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
            module.to(dtype)


def _together(states: Sequence[Any]) -> State:
    """The states of several cameras as the state of one batch; all are fresh, or none is."""
    known = [state for state in states if state]
    if not known:
        return ()
    if len(known) < len(states):
        raise ValueError("fresh and carried states cannot share a batch")
    if len(states) == 1:
        alone: State = known[0]
        return alone
    return tuple(torch.cat(parts) for parts in zip(*known, strict=True))


def _one(state: State, index: int) -> State | None:
    """One camera's part of a batch's state."""
    if not state:
        return None
    return tuple(part[index : index + 1] for part in state)
