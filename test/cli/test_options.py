"""A flag means the same in every command, and deprecated flags still work with a warning."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from rain_removal_ros import cli
from rain_removal_ros.cli import _options
from rain_removal_ros.settings import Settings, entries

DEPRECATED = [
    ("eval", "--models", "--model"),
    ("eval", "--html", "--report"),
    ("detect", "--html", "--report"),
    ("demo", "--weights", "--model"),
    ("synthesize", "--out", "--output"),
    *(
        ("bench", old, new)
        for old, new in {
            "--networks": "--model",
            "--engines": "--engine",
            "--devices": "--device",
            "--precisions": "--precision",
            "--sizes": "--size",
        }.items()
    ),
]


def parser_of(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"rain-removal {name}", allow_abbrev=False)
    cli.commands()[name].add_arguments(parser)
    return parser


@pytest.mark.parametrize(("name", "old", "new"), DEPRECATED)
def test_a_deprecated_flag_works_as_the_new_one_and_warns(
    name: str, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = parser_of(name)
    rest = ["street.png"] if name == "synthesize" else []
    value = "64x48" if old == "--sizes" else "torch"
    assert parser.parse_args([*rest, old, value]) == parser.parse_args([*rest, new, value])
    said = capsys.readouterr().err
    assert said == f"rain-removal {name}: {old} is deprecated, use {new}\n"
    assert f"{old} " not in parser.format_help()


@pytest.mark.parametrize("name", sorted(cli.commands()))
def test_a_shared_flag_has_the_help_of_its_setting(name: str) -> None:
    helps = {entry.name: entry.described.help for entry in entries(Settings)}
    shown = " ".join(parser_of(name).format_help().split())
    for flag in ("--stages", "--device", "--precision"):
        if f"{flag} " in shown and name != "train":  # train has settings of its own
            assert helps[_options._FLAGS[flag[2:]][0]] in shown


def test_several_values_are_separated_by_blanks_commas_or_repeated_flags() -> None:
    parser = argparse.ArgumentParser()
    _options.add_several(parser, "--stages", int, "N", "help", default=0)
    assert list(parser.parse_args([]).stages) == [0]
    found = parser.parse_args(["--stages", "1,2", "3", "--stages", "4"])
    assert found.stages == [1, 2, 3, 4]


OUTPUT_FLAGS = {
    "bag-bench": {"--json", "--report"},
    "bag-play": {"--schedule"},
    "bench": {"--json", "--plot"},
    "board": {"--json", "--markdown", "--sheet"},
    "detect": {"--csv", "--html", "--json", "--markdown", "--report"},
    "eval": {"--html", "--json", "--report"},
    "export": {"--output"},
    "image": {"--json"},
    "import": {"--output"},
    "networks": {"--json"},
    "replay": {"--json", "--report"},
}
"""The flags for files that commands write at their end, after minutes or hours."""


def test_every_output_file_is_checked_before_the_work() -> None:
    checked = {
        name: {
            action.option_strings[-1]
            for action in parser_of(name)._actions
            if action.type is _options.output_file
        }
        for name in cli.commands()
    }
    assert {name: flags for name, flags in checked.items() if flags} == OUTPUT_FLAGS


def test_the_error_for_an_unwritable_output_names_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "report.html", f"{tmp_path / 'file'} is not a folder"),
        (tmp_path / "file" / "new" / "report.html", f"{tmp_path / 'file'} is not a folder"),
        (tmp_path / ("long" * 100) / "x.html", "File name too long"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=reason):
            _options.output_file(str(path))
    there = tmp_path / "new" / "folders" / "report.html"
    assert _options.output_file(str(there)) == there
    assert not there.parent.exists(), "folders are made when there is something to write"
