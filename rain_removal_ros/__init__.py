"""Removes rain from camera streams: a ROS 2 node, a command line and a Python interface.

    derain = rain_removal_ros.load("rainstream")
    derained = derain(image)

The names in ``__all__`` are stable: they change only with the major version. They are imported on
first use, so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rain_removal_ros.api import Derainer, load
    from rain_removal_ros.errors import RainRemovalError

__all__ = ["Derainer", "RainRemovalError", "load"]

__version__ = "0.1.0"

_HOMES = {"Derainer": "api", "RainRemovalError": "errors", "load": "api"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
