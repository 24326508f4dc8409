"""Limits the size of networks, because a config may come from a stranger's file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from rain_removal_ros.errors import SettingsError, first_line

MOST_PARAMETERS = 250_000_000
"""A gigabyte of parameters. The largest network that ships has 5 million."""
MOST_IN_CONFIG = 10_000
"""The largest whole number in a config. That many blocks are built in half a second."""
MOST_STAGES = 32
"""The same as for the setting ``network.stages``."""


def check(name: str, field: str, value: Any) -> None:
    """Refuse a whole number that would make the network too large."""
    most = MOST_STAGES if field == "stages" else MOST_IN_CONFIG
    if isinstance(value, int) and not isinstance(value, bool) and not 0 <= value <= most:
        raise SettingsError(f"{field} of {name} is from 0 to {most}, not {value}")


@contextmanager
def bounded(name: str) -> Iterator[None]:
    """A context in which modules with too many parameters in total are refused.

    Parameters are counted when a module registers them, before their memory is written.
    """
    here, count = threading.get_ident(), 0

    def registered(module: nn.Module, field: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        if parameter is None or threading.get_ident() != here:
            return
        if not parameter.numel():
            raise SettingsError(f"{name} cannot be built: a layer of it would have no weights")
        count += parameter.numel()
        if count > MOST_PARAMETERS:
            raise SettingsError(
                f"{name} of this size has more than {MOST_PARAMETERS // 10**6} million parameters"
            )

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        reason = first_line(error)
        if isinstance(error, MemoryError) or "allocate memory" in reason:
            reason = "there is not enough memory"
        raise SettingsError(f"{name} cannot be built: {reason}") from error
    finally:
        hook.remove()
