"""The networks, one file each. The file's name is the network's name; to add one, add a file.

Your own networks can also be in folders named in the environment variable RAIN_REMOVAL_NETWORKS.
Listing networks is cheap: torch is imported only when one is created.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rain_removal_ros import settings
from rain_removal_ros.errors import SettingsError, near

if TYPE_CHECKING:
    from types import ModuleType

    from rain_removal_ros.networks._base import Network

__all__ = ["available", "build", "create", "module", "unknown"]

__path__ += filter(None, os.environ.get("RAIN_REMOVAL_NETWORKS", "").split(os.pathsep))


def available() -> list[str]:
    """The names of all networks, sorted."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name[0] != "_")


def module(name: str) -> ModuleType:
    """The file of one network: its ``Config``, ``Network`` and ``Objective``."""
    if name not in available():
        raise unknown(name, available())
    return importlib.import_module(f"{__name__}.{name}")


def unknown(name: str, names: list[str]) -> SettingsError:
    """The error for a network that is not among ``names``."""
    return SettingsError(f"no network is called {name!r}; there are {near(name, names)}")


def create(name: str, **config: Any) -> Network:
    """A freshly initialised network; ``config`` overrides fields of its ``Config``."""
    file = module(name)
    known = [field.name for field in fields(file.Config)]
    for key in config:
        if key not in known:
            raise SettingsError(f"{name} has no setting {key!r}; it has {near(key, known)}")
    return build(name, settings.build(file.Config, config, where=name))


def build(name: str, config: Any) -> Network:
    """A freshly initialised network of this ``Config``; an error if it would be too large."""
    from rain_removal_ros.networks import _limits

    for field in fields(config):
        _limits.check(name, field.name, getattr(config, field.name))
    with _limits.bounded(name):
        network: Network = module(name).Network(config)
    return network
