"""Each release of ROS gets its profile of Fast DDS, and what killed processes left is removed."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from rain_removal_ros.runtime import dds

NEWER, OLDER = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"


@pytest.mark.parametrize(
    ("distro", "variable"),
    [
        ("humble", OLDER),
        ("jazzy", OLDER),
        ("kilted", NEWER),
        ("lyrical", NEWER),
        ("rolling", NEWER),
        ("", NEWER),
    ],
)
def test_each_release_has_its_profile_variable(
    distro: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dds.profile_variable(distro) == variable
    monkeypatch.setenv("ROS_DISTRO", distro)
    assert dds.profile_variable() == variable


def test_the_shipped_profile_is_found(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setenv("ROS_DISTRO", "lyrical")
    for name in (NEWER, OLDER):
        monkeypatch.delenv(name, raising=False)
    assert dds.profile_environment() == {NEWER: str(repository / "config/fastdds.xml")}


@pytest.mark.parametrize("name", [NEWER, OLDER])
def test_a_profile_chosen_by_the_user_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/etc/mine.xml")
    assert dds.profile_environment() == {}


@pytest.fixture
def shared_memory(tmp_path: Path) -> Path:
    """Three segments, one of them in use, and what else there may be."""
    for number in range(3):
        (tmp_path / f"fastdds_{number:016x}").write_text("segment")
        (tmp_path / f"fastdds_{number:016x}_el").touch()
    (tmp_path / "fastdds_port7000_el").touch()
    (tmp_path / "fast_el").touch()
    (tmp_path / "other").touch()
    (tmp_path / "fastrtps_0123456789abcdef_el").symlink_to("other")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_segments_of_dead_processes_are_removed(
    shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dds, "_YOUNG_S", -1.0)
    before = names(shared_memory)
    with (shared_memory / "fastdds_0000000000000001_el").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dds.remove_dead_segments(shared_memory)
    dead = {f"fastdds_{number:016x}{end}" for number in (0, 2) for end in ("", "_el")}
    assert names(shared_memory) == before - dead


def test_a_segment_that_may_not_be_locked_yet_is_kept(shared_memory: Path) -> None:
    before = names(shared_memory)
    dds.remove_dead_segments(shared_memory)
    assert names(shared_memory) == before


def test_no_shared_memory_is_no_error(tmp_path: Path) -> None:
    dds.remove_dead_segments(tmp_path / "missing")
