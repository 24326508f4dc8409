"""Which variable Fast DDS's profile goes into, on every release of ROS."""

from __future__ import annotations

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
def test_each_release_reads_a_variable(
    distro: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dds.profile_variable(distro) == variable
    monkeypatch.setenv("ROS_DISTRO", distro)
    assert dds.profile_variable() == variable


def test_the_profile_that_ships_is_found(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setenv("ROS_DISTRO", "lyrical")
    for name in (NEWER, OLDER):
        monkeypatch.delenv(name, raising=False)
    assert dds.profile_environment() == {NEWER: str(repository / "config/fastdds.xml")}


@pytest.mark.parametrize("name", [NEWER, OLDER])
def test_a_profile_that_was_chosen_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/etc/mine.xml")
    assert dds.profile_environment() == {}
