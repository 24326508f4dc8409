"""ROS and Python find the package after every kind of installation."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from rain_removal_ros import __version__
from rain_removal_ros.errors import with_extra

NAME = "rain_removal_ros"
PROGRAMS = sorted((Path(__file__).resolve().parents[2] / "resource" / "lib").iterdir())
# What an installation reads; without environments, data and files of earlier builds.
SOURCE = (
    NAME,
    "resource",
    "config",
    "launch",
    "models",
    "package.xml",
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)


OFFLINE = ("--no-deps", "--no-build-isolation", "--ignore-installed", "--no-index")
PIP = (sys.executable, "-m", "pip", "install", *OFFLINE)


@dataclass
class Installation:
    source: Path
    prefix: Path
    packages: Path
    """The folder that Python needs on its path."""


@pytest.fixture(scope="module", params=["plain", "editable"])
def installation(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """This package, installed by pip from a copy of the source into its own prefix."""
    if not all(map(find_spec, ("pip", "setuptools"))):
        pytest.skip("pip and setuptools are not both in this environment")
    source = copied(repository, tmp_path_factory.mktemp("source"), SOURCE)
    prefix = tmp_path_factory.mktemp("prefix")
    what = ["-e", str(source)] if request.param == "editable" else [str(source)]
    process = subprocess.run(
        [*PIP, "--prefix", str(prefix), *what],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    (packages,) = prefix.glob("lib/python*/site-packages")
    return Installation(source, prefix, source if request.param == "editable" else packages)


def copied(repository: Path, folder: Path, names: Iterable[str]) -> Path:
    """A copy of these parts of the source."""
    folder.mkdir(exist_ok=True)
    for name in names:
        if (repository / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(repository / name, folder / name, ignore=ignored)
        elif (repository / name).exists():
            shutil.copy(repository / name, folder)
    return folder


def test_the_ament_index_has_the_package(installation: Installation) -> None:
    marker = installation.prefix / "share/ament_index/resource_index/packages" / NAME
    assert marker.is_file()
    manifest = installation.prefix / "share" / NAME / "package.xml"
    assert manifest.read_text() == (installation.source / "package.xml").read_text()


def test_ament_index_python_finds_the_package(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = pytest.importorskip(
        "ament_index_python.packages", reason="ROS's package index is not installed"
    )
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(installation.prefix))
    assert Path(packages.get_package_prefix(NAME)) == installation.prefix


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_programs_are_executable_where_ros2_run_looks_for_them(
    installation: Installation, program: Path
) -> None:
    assert os.access(installation.prefix / "lib" / NAME / program.name, os.X_OK)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_every_program_starts_an_existing_module(program: Path, repository: Path) -> None:
    module = re.search(r"-m (\S+)", program.read_text())
    assert module
    path = repository.joinpath(*module[1].split("."))
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("folder", ["lib/rain_removal_ros", "bin"])
def test_the_installed_command_runs(installation: Installation, folder: str) -> None:
    process = subprocess.run(
        [installation.prefix / folder / "rain-removal", "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd=installation.prefix,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "PYTHONPATH": str(installation.packages),
        },
    )
    assert (process.stdout, process.stderr) == (f"rain-removal {__version__}\n", "")


@pytest.mark.parametrize("folder", ["config", "launch", "models"])
def test_files_beside_the_python_package_are_installed(
    installation: Installation, folder: str
) -> None:
    def files(top: Path) -> set[str]:
        return {
            str(path.relative_to(top))
            for path in top.rglob("*")
            if path.is_file() and path.name[0] != "." and path.suffix != ".pyc"
        }

    shared = installation.prefix / "share" / NAME / folder
    assert files(shared) == files(installation.source / folder)


def test_a_build_without_c_warns_on_the_terminal_although_pip_hides_output(
    repository: Path, tmp_path: Path
) -> None:
    if not all(map(find_spec, ("pip", "setuptools"))) or shutil.which("setsid") is None:
        pytest.skip("pip, setuptools or setsid is not here")
    source = copied(repository, tmp_path / "source", (*SOURCE, "native"))
    prefix = tmp_path / "prefix"
    ours, theirs = pty.openpty()
    # All output goes to the terminal, and the compiler always fails.
    process = subprocess.run(
        ["setsid", "--ctty", "--wait", *PIP, "--prefix", str(prefix), str(source)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "CC": "false"},
        check=False,
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert process.returncode == 0, said
    assert "BUILT WITHOUT C" in said
    assert "sudo apt install g++" in said
    (package,) = prefix.glob(f"lib/python*/site-packages/{NAME}")
    assert not list(package.glob("_in_c*"))


def test_messages_name_extras_that_exist_and_where_to_install_them(repository: Path) -> None:
    """The package is in no index, so an extra comes from its source."""
    known = set(metadata(NAME).get_all("Provides-Extra", []))
    paths = [path for name in (NAME, "launch") for path in (repository / name).rglob("*.py")]
    source = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    named = re.findall(r"""with_extra\(["']([a-z,]+)["']""", source)
    assert {"torch", "ros", "ray", "detect,torch"} <= set(named)
    assert {extra for names in named for extra in names.split(",")} <= known
    assert f"{NAME}[" not in source
    assert with_extra("torch").startswith("pip install '.[torch]' (in ")


def test_type_information_is_installed(installation: Installation) -> None:
    assert (installation.packages / NAME / "py.typed").is_file()


def test_package_xml_and_python_have_the_same_version(repository: Path) -> None:
    manifest = ElementTree.parse(repository / "package.xml")
    assert manifest.findtext("version") == __version__


def test_package_xml_declares_every_ros_package_in_use(repository: Path) -> None:
    """On a robot, package.xml installs what the `ros` extra installs on a desk."""
    manifest = ElementTree.parse(repository / "package.xml")
    declared = {element.text for element in manifest.findall("exec_depend")}
    used = {
        line.split()[1].partition(".")[0]
        for path in (repository / NAME).rglob("*.py")
        for line in map(str.strip, path.read_text(encoding="utf-8").splitlines())
        if line.startswith(("import ", "from "))
    }
    ours = {name for name in used if name == "rclpy" or name.endswith(("_msgs", "_srvs"))}
    assert ours <= declared


def test_package_xml_names_the_urls_and_documentation_of_the_project(repository: Path) -> None:
    manifest = ElementTree.parse(repository / "package.xml")
    assert {url.get("type") for url in manifest.findall("url")} == {
        "website",
        "repository",
        "bugtracker",
    }
    exported = manifest.findtext("export/rosdoc2")
    assert exported is not None
    assert (repository / exported).is_file()


def test_the_changelog_has_the_format_that_bloom_reads(repository: Path) -> None:
    """A title, then sections that are ``Forthcoming`` or ``1.2.3 (2026-01-31)``, each a list."""
    lines = (repository / "CHANGELOG.rst").read_text(encoding="utf-8").splitlines()
    assert lines[1] == f"Changelog for package {NAME}"
    sections = [
        at
        for at, line in enumerate(lines)
        if re.fullmatch("-+", line) and len(line) == len(lines[at - 1])
    ]
    assert sections
    for at in sections:
        assert re.fullmatch(r"Forthcoming|\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", lines[at - 1])
        assert lines[at + 2].startswith("- ")
    assert not (repository / "CHANGELOG.md").exists(), "there is one changelog: CHANGELOG.rst"


def test_the_workflow_runs_make_test(repository: Path) -> None:
    (workflow,) = (repository / ".github" / "workflows").iterdir()
    steps = re.findall(r"^ *- (?:run|uses): (.*)$", workflow.read_text(), re.MULTILINE)
    assert steps == ["actions/checkout@v4", "make test"]
