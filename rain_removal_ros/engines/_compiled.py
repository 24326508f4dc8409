"""A network that torch compiles without making frames wait.

Compiling takes a minute or two per size. The first size is compiled before the network counts as
loaded. Others are compiled in a thread of their own, and until that is done, frames of that size go
through the uncompiled network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from rain_removal_ros.errors import first_line
from rain_removal_ros.networks._base import Network, Output, State

_VARIANTS = 64
"""The number of compiled versions of one network that torch keeps."""


class CompiledNetwork:
    """Call it like the network.

    ``within`` gives the context in which frames are computed; ``said`` gets progress messages.
    """

    def __init__(
        self,
        network: Network,
        within: Callable[[], AbstractContextManager[object]],
        said: Callable[[str], None],
    ) -> None:
        self._network = network
        # On a GPU, kernels this small take longer to start than to run. Recorded as a CUDA graph,
        # they are all started at once.
        self._on_gpu = any(weight.is_cuda for weight in network.parameters())
        mode = "reduce-overhead" if self._on_gpu else None
        self._code = torch.compile(network, dynamic=False, mode=mode)
        self._within = within
        self._said = said
        self._ready: dict[tuple[int, ...], bool] = {}
        """By shape and stages: whether compilation succeeded."""
        self._thread: threading.Thread | None = None

    def __call__(self, frames: Tensor, state: State) -> Output:
        key = (*frames.shape, self._network.stages)
        if not self._ready:
            self._compile(frames)
            self._ready[key] = True
        elif key not in self._ready and (self._thread is None or not self._thread.is_alive()):
            blank = torch.zeros_like(frames)
            self._said(f"compiling for {_size(frames)}, uncompiled meanwhile")
            self._thread = threading.Thread(
                target=self._compile_beside, args=(key, blank), name="compile", daemon=True
            )
            self._thread.start()
        run: Callable[[Tensor, State], Output] = (
            self._compiled if self._ready.get(key) else self._network
        )
        return run(frames, state)

    def _compiled(self, frames: Tensor, state: State) -> Output:
        output: Output = self._code(frames, state)
        if not self._on_gpu:
            return output
        # The next run of the graph overwrites this output.
        level = None if output.rain_level is None else output.rain_level.clone()
        kept = tuple(part.clone() for part in output.state)
        return Output(output.derained.clone(), output.attention.clone(), kept, level)

    def _compile_beside(self, key: tuple[int, ...], frames: Tensor) -> None:
        try:
            self._compile(frames)
        except Exception as error:  # noqa: BLE001 - torch raises many kinds, and frames go on
            self._ready[key] = False
            reason = first_line(error)
            self._said(f"uncompiled for {_size(frames)}: {reason}")
        else:
            self._ready[key] = True
            self._said("")

    def _compile(self, frames: Tensor) -> None:
        """Compile all variants: for a fresh start, and for states from either kind of code."""
        # Beyond its limit torch silently runs uncompiled. Each thread has a limit of its own.
        torch._dynamo.config.cache_size_limit = _VARIANTS
        with self._within():
            after_plain = self._network(frames, ()).state
            state: State = ()
            for _ in range(3):
                state = self._compiled(frames, state).state
            if after_plain:
                self._compiled(frames, after_plain)


def _size(frames: Tensor) -> str:
    return f"{frames.shape[3]}x{frames.shape[2]}"
