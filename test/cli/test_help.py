"""The command line: start, commands, help, errors and exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_removal_ros import __version__, cli

COMMAND = [sys.executable, "-m", "rain_removal_ros"]


class Commands:
    """A folder whose files are additional commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, body: str) -> None:
        self.folder.joinpath(f"{name}.py").write_text(
            '"""Does a thing."""\n'
            "from rain_removal_ros.errors import DataError\n"
            "def add_arguments(parser): parser.add_argument('--often', type=int)\n"
            f"def run(args): {body}\n"
        )


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    yield Commands(tmp_path)
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(f"{cli.__name__}.{path.stem}", None)


def test_help_starts_fast(repository: Path) -> None:
    """It should take 0.3 s and usually takes 0.05 s; the bound leaves room for a busy machine."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], check=True, capture_output=True, cwd=repository)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


def test_help_names_every_command_with_the_first_sentences_of_its_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name, module in cli.commands().items():
        summary = " ".join(module.__doc__.split("\n\n")[0].split())
        assert f"{name} {summary}" in shown


@pytest.mark.parametrize("name", cli.commands())
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    assert f"usage: rain-removal {name}" in capsys.readouterr().out


def test_the_file_name_is_the_command_unless_the_file_says_otherwise() -> None:
    assert {"import", "networks"} <= set(cli.commands())
    assert "import-weights" not in cli.commands()


def test_version_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"rain-removal {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["networks", "--fast"], ["import", "x.pth"]], ids=" ".join
)
def test_a_wrong_command_line_gives_a_one_line_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "--help" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("imgae a.png", "rain-removal: argument COMMAND: there is no 'imgae'; near: image;"),
        ("image a.png --modle auto", "rain-removal image: there is no --modle; near: --model"),
        ("image --modle=auto", "rain-removal image: there is no --modle; near: --model"),
        ("train --confg x.yaml", "rain-removal train: there is no --confg; near: --config"),
        (
            "demo --way dirct",
            "rain-removal demo: argument --way: there is no 'dirct'; near: direct",
        ),
        ("bench --engine torhc", "rain-removal bench: --engine: name is one of auto, torch"),
        ("bench --precision flaot32", "not 'flaot32'"),
        ("bench --model rainstrem", "there are rainstream"),
        ("bag-bench x.mcap --try network.stages=1", "--try is NAME:setting=value"),
        ("bag-bench x.mcap --try fast:network.stage=1", "near: network.stages"),
        ("train rainstrem", "no recipe is called 'rainstrem'; there are rainstream"),
        ("train", "name one recipe"),
        ("train rainstream_s --config x.yaml", "name one recipe"),
        ("detect . --detector yolo", "yolo export format=onnx"),
        ("detect . --detector yolox.onnx", "there is no detector yolox.onnx; give --detector"),
    ],
)
def test_the_error_for_a_mistyped_word_names_similar_ones(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = cli.main(arguments.split())
    except SystemExit as end:
        code = end.code
    assert code == 2
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1]
    assert len(said) == 1


def test_words_after_two_dashes_are_not_flags(commands: Commands) -> None:
    commands.folder.joinpath("thing.py").write_text(
        '"""Does a thing."""\n'
        "def add_arguments(parser): parser.add_argument('names', nargs='+')\n"
        "def run(args): return len(args.names)\n"
    )
    assert cli.main(["thing", "--", "--model", "a"]) == 2


def test_a_new_file_is_a_new_command(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.add("new_thing", "print('done', args.often)")
    assert cli.main(["new-thing", "--often", "3"]) == 0
    assert capsys.readouterr().out == "done 3\n"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("raise DataError('no such picture:\\n  a.png')", 2, "no such picture: a.png"),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_the_result_of_a_command_becomes_its_exit_code(
    commands: Commands, capsys: pytest.CaptureFixture[str], body: str, code: int, message: str
) -> None:
    commands.add("thing", body)
    assert cli.main(["thing"]) == code
    assert capsys.readouterr().err == (f"rain-removal thing: {message}\n" if message else "")


def test_an_unexpected_error_keeps_its_traceback(commands: Commands) -> None:
    commands.add("thing", "return 1 // 0")
    with pytest.raises(ZeroDivisionError):
        cli.main(["thing"])


def test_a_closed_pipe_is_not_an_error(repository: Path) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    # With unbuffered output, argparse itself would meet the closed pipe, and hide it.
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with os.fdopen(writable, "w") as pipe:
        process = subprocess.run(
            [*COMMAND, "--help"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            cwd=repository,
            env=buffered,
            check=False,
        )
    assert (process.returncode, process.stderr) == (141, "")
