"""A network that torch compiles, without frames having to wait for it.

Compiling takes a minute or two for each size. The first size is waited for, as somebody who loads a
network does anyway; others are compiled in a thread of their own, and until one is done, frames of
that size go through the network as it is.
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
"""Of one network, that torch keeps."""


class CompiledNetwork:
    """To be called as the network is.

    ``within`` gives the context that frames are computed in; ``said`` is told what is going on.
    """

    def __init__(
        self,
        network: Network,
        within: Callable[[], AbstractContextManager[object]],
        said: Callable[[str], None],
    ) -> None:
        self._network = network
        # On a GPU, kernels this small take longer to start than to run; recorded as a CUDA graph,
        # they are started all at once.
        self._on_gpu = any(weight.is_cuda for weight in network.parameters())
        mode = "reduce-overhead" if self._on_gpu else None
        self._code = torch.compile(network, dynamic=False, mode=mode)
        self._within = within
        self._said = said
        self._ready: dict[tuple[int, ...], bool] = {}
        """Whether what was tried could be compiled, by shape and stages."""
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
        # The next run of the graph writes where this one wrote.
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
        """All variants there are of it: a fresh start, and states from either kind of code."""
        # Beyond its limit torch says nothing and runs uncompiled. Each thread has one of its own.
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
