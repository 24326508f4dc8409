"""An environment for processes that cannot import torch and onnx."""

from __future__ import annotations

import os
from pathlib import Path

_HIDE = """
from importlib.machinery import PathFinder

_find = PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ("torch", "onnx") else _find(name, path, target)


PathFinder.find_spec = find_spec
"""


def without_torch(folder: Path) -> dict[str, str]:
    """Environment variables that hide both, by a ``sitecustomize.py`` written into ``folder``."""
    (folder / "sitecustomize.py").write_text(_HIDE)
    root = Path(__file__).resolve().parents[1]
    others = filter(None, [os.environ.get("PYTHONPATH")])
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(root), *others])}
