"""Files are written completely or not at all; caches lie in the user's cache folder."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from rain_removal_ros.errors import CheckpointError, DataError
from rain_removal_ros.runtime.files import cache_folder, draft_of, write_json, write_whole


def test_write_json_replaces_a_file_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("before")
    write_json(path, {"name": "Größe", "path": tmp_path})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Größe", "path": str(tmp_path)}
    other = tmp_path / "other"
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_a_failed_write_leaves_the_target_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.mkdir()
    with pytest.raises(DataError, match=r"cannot write .*out\.json"):
        write_json(path, {})
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_makes_folders_and_raises_the_error_of_the_caller(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "folder" / "out", b"bytes", durable=True)
    assert (tmp_path / "new" / "folder" / "out").read_bytes() == b"bytes"
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write .*out: "):
        write_whole(tmp_path / "file" / "out", "text", raises=CheckpointError)


def test_an_error_while_writing_leaves_no_draft(tmp_path: Path) -> None:
    def write_half() -> None:
        with draft_of(tmp_path / "film.mp4") as draft:
            assert draft.suffix == ".mp4"
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert not list(tmp_path.iterdir())


def test_the_cache_folder_follows_xdg_cache_home_and_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("engines") == tmp_path / "rain_removal_ros" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        cache_folder("engines")
