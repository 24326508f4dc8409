"""Describes how a result was made: which code, which machine, when, and with which command.

Every ``--json`` file contains a manifest.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rain_removal_ros import __version__

__all__ = ["code_checksum", "manifest"]


def manifest() -> dict[str, Any]:
    """This program, this machine and this moment.

    Torch's version and thread count are included if torch is loaded already.
    """
    torch = sys.modules.get("torch")
    return {
        "package": "rain_removal_ros",
        "version": __version__,
        "revision": _git_revision(),
        "command": sys.argv,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": str(torch.__version__) if torch else None,
        "threads": torch.get_num_threads() if torch else None,
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
    }


def code_checksum(*folders: Path) -> str:
    """A key of cached results: it changes with any Python file or library in these packages."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix in (".py", ".so"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _git_revision() -> str | None:
    """The commit of this checkout, with ``+`` if files differ; None if installed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes else "")


def _cpu_model() -> str:
    """The processor's name from Linux, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
