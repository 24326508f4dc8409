"""The Fast DDS profile for large images: its place, and the variable that names it.

Releases of ROS up to Jazzy read the older variable. Kilted still does, with a warning; Lyrical's
Fast DDS reads the newer one only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_OLDER = frozenset({"humble", "iron", "jazzy"})
_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def profile_variable(distro: str | None = None) -> str:
    """The variable that a ROS distribution reads; by default the current one."""
    name = os.environ.get("ROS_DISTRO", "") if distro is None else distro
    return _VARIABLES[name in _OLDER]


def names_a_profile(environment: Mapping[str, str]) -> bool:
    """Whether a profile is set already, in either variable."""
    return any(environment.get(name) for name in _VARIABLES)


def profile_environment() -> dict[str, str]:
    """What to add to a process's environment; empty if a profile is set or none is found."""
    if names_a_profile(os.environ):
        return {}
    found = next((path for path in _profiles() if path.is_file()), None)
    return {} if found is None else {profile_variable(): str(found)}


def _profiles() -> Iterator[Path]:
    """Where the profile may be: in a checkout, then in installations."""
    package = Path(__file__).resolve().parents[1]
    overlays = filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))
    yield package.parent / "config" / "fastdds.xml"
    for prefix in (*map(Path, overlays), Path(sys.prefix), *package.parents[2:5]):
        yield prefix / "share" / "rain_removal_ros" / "config" / "fastdds.xml"
