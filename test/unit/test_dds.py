"""Each release of ROS gets Fast DDS's profile in the environment variable that it reads."""

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
