"""The manifest of a result names the code, machine and command that made it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rain_removal_ros import __version__
from rain_removal_ros.manifest import code_checksum, manifest


def test_manifest_names_code_machine_time_and_command() -> None:
    found = manifest()
    assert found["version"] == __version__
    assert found["command"] == sys.argv
    assert found["time"].endswith("+00:00")
    assert found["cores"] >= 1
    assert found["cpu"]


def test_manifest_does_not_load_torch(repository: Path) -> None:
    code = (
        "import sys; from rain_removal_ros.manifest import manifest; found = manifest(); "
        "sys.exit(found['torch'] is not None or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository)


def test_revision_is_that_of_the_source_tree(repository: Path) -> None:
    if not (repository / ".git").exists():
        pytest.skip("this source tree is not a git checkout")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert manifest()["revision"].rstrip("+") == head


def test_the_checksum_of_code_covers_python_and_compiled_files(tmp_path: Path) -> None:
    (tmp_path / "passes.py").write_text("one")
    before = code_checksum(tmp_path)
    (tmp_path / "notes.md").write_text("not code")
    assert code_checksum(tmp_path) == before
    (tmp_path / "passes.so").write_bytes(b"compiled")
    assert len({before, code_checksum(tmp_path), code_checksum(tmp_path, tmp_path)}) == 3
