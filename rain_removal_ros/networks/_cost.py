"""What a network costs, counted instead of timed, so that it is the same on every machine."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from rain_removal_ros import networks
from rain_removal_ros.networks._base import Network

WIDTH, HEIGHT = 640, 480
"""The frame that costs are stated for."""


def describe(name: str) -> dict[str, Any]:
    """What a network is and costs, as its file sets it up."""
    network = networks.create(name)
    return {
        "parameters": parameters(network),
        "macs": macs(network, width=WIDTH, height=HEIGHT),
        "width": WIDTH,
        "height": HEIGHT,
        "stages": network.stages,
        "scale": network.scale,
        "recurrent": network.facts.recurrent,
        "paper": network.facts.paper,
    }


def parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: Network, *, width: int, height: int) -> int:
    """Multiply-accumulates for one frame of this size, with the network's current number of stages.

    Convolutions and matrix products are counted and elementwise work is not, as in papers. Nothing
    is computed: the frame has a shape and no values.
    """
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        _pass_of_shapes(network, width, height)
    return int(counter.get_total_flops()) // 2


def peak_bytes(network: Network, *, width: int, height: int) -> tuple[int, int]:
    """The peak size of the tensors of one pass, in float32, and the size of the state after it.
    Weights are not counted, and nothing is computed.
    """
    with torch.inference_mode(), _LiveBytes() as live:
        state = _pass_of_shapes(network, width, height)
    return live.peak, sum(part.untyped_storage().nbytes() for part in state)


def _pass_of_shapes(network: Network, width: int, height: int) -> tuple[Tensor, ...]:
    """One forward pass without values; returns the state."""
    stride = network.facts.stride
    padded = [-(-size // stride) * stride for size in (height, width)]
    shape_only = copy.deepcopy(network).to("meta").eval()
    state: tuple[Tensor, ...] = shape_only(torch.empty(1, 3, *padded, device="meta")).state
    return state


class _LiveBytes(TorchDispatchMode):
    """Tracks the memory of all tensors that operators return, while they are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and (storage := leaf.untyped_storage()) not in self._seen:
                self._seen.add(storage)
                weakref.finalize(storage, self._freed, storage.nbytes())
                self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        return result

    def _freed(self, size: int) -> None:
        self._now -= size
