"""Fast DDS: the profile for large images and the variable that names it, and its shared memory.

Releases of ROS up to Jazzy read the older variable. Kilted still does, with a warning; Lyrical's
Fast DDS reads the newer one only.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_OLDER = frozenset({"humble", "iron", "jazzy"})
_SEGMENT = re.compile("fast(dds|rtps)_[0-9a-f]{16}")
_LOCK = "_el"
_YOUNG_S = 60.0
"""A process locks its segment after it has created it."""

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


def remove_dead_segments(folder: Path = Path("/dev/shm")) -> None:
    """Remove the shared memory that this user's killed processes left behind.

    With the profile it is 70 MB each, and nobody else removes it: a node that crashes and is
    restarted would fill the memory in the end. The lock of a segment is held as long as its process
    lives; ``fastdds shm clean`` goes by it too.
    """
    for lock in folder.glob(f"fast*{_LOCK}"):
        if _SEGMENT.fullmatch(name := lock.name.removesuffix(_LOCK)):
            try:
                _remove_if_dead(folder / name, lock)
            except OSError:
                continue  # it is in use or another user's, or was removed meanwhile


def _remove_if_dead(segment: Path, lock: Path) -> None:
    file = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        facts = os.fstat(file)
        if facts.st_uid == os.geteuid() and time.time() - facts.st_ctime > _YOUNG_S:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            segment.unlink(missing_ok=True)
            lock.unlink()
    finally:
        os.close(file)
