"""Which modules may import which. New modules are covered without a change here."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "rain_removal_ros"

ROS = {
    "rclpy",
    "launch",
    "launch_ros",
    "builtin_interfaces",
    "diagnostic_msgs",
    "geometry_msgs",
    "lifecycle_msgs",
    "rcl_interfaces",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
}
WITHOUT_TORCH = (
    "errors",
    "settings",
    "frames",
    "codec",
    "camera",
    "camera_info",
    "degradation",
    "stream",
    "bags",
    "manifest",
    "runtime",
    "api",
    "checkpoints",
    "demo",
    "engines.bare_graphs",
    "engines.downscaled",
    "engines.onnxruntime",
    "media",
    "simulation",
    "data.rain",
    "rain_level",
    "metrics",
    "report",
)

# Runs in a process of its own: imports modules with others blocked, and reports every attempt to
# import one of those, also one that was caught.
IMPORT_BLOCKED = """
import importlib, json, sys

folder, blocked, modules = json.load(sys.stdin)
sys.path.insert(0, folder)
tried = []

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            tried.append(name)
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Block())
wrong = {}
for module in modules:
    try:
        importlib.import_module(module)
    except Exception as error:
        wrong[module] = repr(error)
    if tried:
        wrong.setdefault(module, "imports " + ", ".join(tried))
        tried.clear()
print(json.dumps(wrong))
"""


def modules_of_the_package() -> list[str]:
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def area(module: str) -> str:
    """The part of the package a module belongs to: ``codec``, ``networks``, ``ros``."""
    return [*module.split("."), ""][1]


def import_without(
    blocked: set[str], modules: list[str], *, folder: Path = PACKAGE.parent
) -> dict[str, str]:
    """What went wrong when importing ``modules`` from ``folder`` where ``blocked`` do not exist."""
    process = subprocess.run(
        [sys.executable, "-c", IMPORT_BLOCKED],
        input=json.dumps([str(folder), sorted(blocked), modules]),
        capture_output=True,
        text=True,
        check=True,
    )
    wrong: dict[str, str] = json.loads(process.stdout)
    return wrong


def test_modules_of_the_package_finds_nested_modules() -> None:
    assert {"rain_removal_ros", "rain_removal_ros.networks.prenet"} < set(modules_of_the_package())


def test_everything_but_the_ros_part_imports_without_ros() -> None:
    modules = [name for name in modules_of_the_package() if area(name) != "ros"]
    assert import_without(ROS, modules) == {}


def test_the_modules_listed_without_torch_import_without_it() -> None:
    modules = [
        name
        for name in modules_of_the_package()
        if area(name) in WITHOUT_TORCH or name.partition(".")[2].startswith(WITHOUT_TORCH)
    ]
    assert import_without(ROS | {"torch"}, modules) == {}


def test_listing_commands_and_networks_needs_neither_torch_nor_opencv_nor_numpy() -> None:
    modules = [name for name in modules_of_the_package() if area(name) == "cli"]
    heavy = {"torch", "cv2", "numpy", "onnxruntime", "rosbags"}
    assert import_without(ROS | heavy, [*modules, "rain_removal_ros.networks"]) == {}


def test_a_forbidden_import_is_reported_even_if_its_error_is_caught(tmp_path: Path) -> None:
    (tmp_path / "sly.py").write_text("try:\n    import rclpy.node\nexcept ImportError:\n    pass\n")
    wrong = import_without({"rclpy"}, ["sly"], folder=tmp_path)
    assert wrong == {"sly": "imports rclpy"}


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] != "ros"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_only_the_ros_part_imports_ros_even_inside_functions(path: Path) -> None:
    assert imported_packages(ast.parse(path.read_text(encoding="utf-8"))) & ROS == set()


NOT_IN_LYRICAL = ("rclpy.qos_event", "rclpy.topic_endpoint_info")


def test_no_module_removed_in_lyrical_is_imported() -> None:
    """Lyrical cannot be installed here, so the test looks for the names of these modules."""
    wrong = {
        f"{path.relative_to(PACKAGE)}: {node.module}"
        for path in (PACKAGE / "ros").rglob("*.py")
        for node in imported_when_run(ast.parse(path.read_text(encoding="utf-8")))
        if node.module in NOT_IN_LYRICAL
    }
    assert wrong == set()


def imported_when_run(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    """Every ``from`` import, except those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from imported_when_run(node)


def imported_packages(tree: ast.Module) -> set[str]:
    """Top-level packages of every import statement, at any depth."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def test_modules_import_in_one_direction() -> None:
    """Imports inside functions and for types count: readers of a module follow them too.

    The package itself does not count: modules import only its version.
    """
    in_order(imports_within(PACKAGE))


def test_folders_import_in_one_direction() -> None:
    """A module that lies in no folder counts as a folder."""
    rooms: dict[str, set[str]] = {}
    for module, imported in imports_within(PACKAGE).items():
        rooms.setdefault(area(module), set()).update(area(each) for each in imported)
    in_order({room: imported - {room} for room, imported in rooms.items()})


def test_an_import_circle_is_found_through_lazy_and_type_only_imports(tmp_path: Path) -> None:
    package = tmp_path / "walk"
    (package / "far").mkdir(parents=True)
    for name in ("__init__.py", "far/__init__.py"):
        (package / name).touch()
    (package / "one.py").write_text("from walk.far import two\n")
    (package / "far/two.py").write_text("def lazy():\n    import walk.three\n")
    three = package / "three.py"
    three.touch()
    in_order(imports_within(package))
    three.write_text("if TYPE_CHECKING:\n    from walk.one import Name\n")
    with pytest.raises(CycleError):
        in_order(imports_within(package))


def test_sources_in_c_call_in_one_direction() -> None:
    """A file depends on the files whose functions it calls; ``passes.h``, which declares them, is
    left out."""
    texts = {path.name: path.read_text() for path in (PACKAGE.parent / "native").glob("*.c")}
    defined = {
        name: file
        for file, text in texts.items()
        for name in re.findall(r"^(?:CLONES )?(?:void|int|float|double) (\w+)\(", text, re.M)
    }
    assert len(defined) > 5
    in_order(
        {
            file: {
                home
                for name, home in defined.items()
                if home != file and re.search(rf"\b{name}\(", text)
            }
            for file, text in texts.items()
        }
    )


def in_order(graph: dict[str, set[str]]) -> list[str]:
    """The nodes, each after those it needs; ``CycleError`` names a circle."""
    return list(TopologicalSorter(graph).static_order())


def imports_within(package: Path) -> dict[str, set[str]]:
    """For each module of a package, the other modules of it that it imports anywhere."""
    modules = {}
    for path in package.rglob("*.py"):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        modules[name.removesuffix(".__init__")] = path
    return {
        name: imported_modules(ast.parse(path.read_text(encoding="utf-8")), set(modules))
        - {name, package.name}
        for name, path in modules.items()
    }


def imported_modules(tree: ast.Module, modules: set[str]) -> set[str]:
    """The ``modules`` that any import statement names, at any depth."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names}
    return found & modules
