"""What is wrong with launch arguments is said before anything is started."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.runtime.launch_arguments import misspelt, parameter_files


def test_a_parameter_file_is_optional_but_must_exist(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").touch()
    assert parameter_files("") == []
    assert parameter_files(str(tmp_path / "my.yaml")) == [str(tmp_path / "my.yaml")]
    with pytest.raises(SettingsError, match=r"^there is no parameter file missing\.yaml$"):
        parameter_files("missing.yaml")


def test_only_arguments_that_are_nearly_known_are_pointed_out() -> None:
    lines = misspelt(["imgae", "image", "param_file", "robot"], ["image", "params_file"])
    assert list(lines) == [
        "there is no launch argument imgae; near: image",
        "there is no launch argument param_file; near: params_file",
    ]


def test_launch_files_that_include_each_other_do_not_point_at_each_others_arguments(
    repository: Path,
) -> None:
    arguments = {path.name: declared(path) for path in (repository / "launch").glob("*.py")}
    inner = arguments["derain.launch.py"]
    assert "params_file" in inner
    for names in arguments.values():
        assert list(misspelt(names, inner)) == []


def declared(path: Path) -> list[str]:
    """The launch arguments of a file, which can be read without launch."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return [
        str(ast.literal_eval(call.args[0]))
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "DeclareLaunchArgument"
    ]
