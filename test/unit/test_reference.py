"""The reference pages agree with the code."""

from __future__ import annotations

import argparse
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("rclpy", reason="the parameters of the simulated camera are declared to ROS")


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    loader = SourceFileLoader("reference", str(repository / "scripts" / "reference"))
    spec = spec_from_loader("reference", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_pages_are_current(script: ModuleType, repository: Path) -> None:
    folder = repository / "docs" / "reference"
    pages = script.pages()
    assert {path.name for path in folder.iterdir()} == set(pages)
    for name, text in pages.items():
        assert (folder / name).read_text(encoding="utf-8") == text, "run scripts/reference"


def test_the_costs_of_the_networks_are_current(script: ModuleType) -> None:
    assert script._described.FILE.read_text(encoding="utf-8") == script.described(), (
        "run scripts/reference"
    )


def test_an_option_is_shown_as_it_is_typed(script: ModuleType) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("input", metavar="IN", nargs="+", help="a picture | a folder")
    parser.add_argument("-o", "--output", metavar="OUT", help="50 %% of it")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--way", choices=("ros", "direct"))
    parser.add_argument("--stream.strength", help="not listed again")
    lines = script.options(parser).splitlines()
    assert lines[2:6] == [
        "| `IN ...` | a picture \\| a folder |",
        "| `-o, --output OUT` | 50 % of it |",
        "| `--force` |  |",
        "| `--way {ros,direct}` |  |",
    ]
    assert "`stream`" in lines[-1]


def test_examples_in_a_docstring_become_code_blocks(script: ModuleType) -> None:
    assert script.prose("Does it.\n\n  rain-removal do it\n\nAnd more.") == (
        "Does it.\n\n```console\nrain-removal do it\n```\n\nAnd more."
    )
