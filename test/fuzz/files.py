"""Files with changed, cut, repeated and spliced bytes: each is read, or refused in one line."""

from __future__ import annotations

import json
import random
import resource
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import recordings
from fuzz.commands import run_function
from fuzz.effort import Effort, Figures, slowness
from fuzz.pictures import jpeg_of_many_scans
from fuzz.writes import writes_outside
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from rain_removal_ros import checkpoints, networks, settings
from rain_removal_ros.errors import RainRemovalError
from rain_removal_ros.settings import Settings

__all__ = ["LONG", "SHORT", "attack"]

SHORT, LONG = 400, 10_000
"""Numbers of files."""
_AT_ONCE = 200
"""Files per process: so few that each process begins with little memory in use."""
_SLOWEST_S = 10.0
_MEMORY_MB = 1000
_TOKENS = (
    *(b"\0" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"1e999", b"-1", b"nan"),
    *(b"9" * 5000, b"[" * 3000, b"{" * 3000, b"&a [*a,*a]\n", b"!!python/object:os.system", b"../"),
    *(
        b"channels: 1000000000",
        b'"blocks": 1000000',
        b"2026-01-01",
        b"\x89PNG\r\n\x1a\n",
        b"\r\n\0",
    ),
)


def attack(effort: Effort) -> Figures:
    """Read ``count`` spoilt files, a few hundred in each process."""
    seeds = _seeds(effort.folder)
    totals: dict[str, float] = {"read": 0, "refused": 0, "slowest [s]": 0.0, "memory [MB]": 0}
    for start in range(0, effort.count, _AT_ONCE):
        count = min(_AT_ONCE, effort.count - start)
        report = effort.folder / "report.json"
        arguments = (seeds, effort.seed + start, count, report, effort.folder / "spoilt")
        ended = run_function(_read_many, *arguments, log=effort.folder / "log", timeout_s=600)
        assert ended.code == 0, f"seed {effort.seed + start}: {ended.code}\n{ended.said[-3000:]}"
        found = json.loads(report.read_text())
        assert not found["failures"], "\n".join(found["failures"][:3])
        for name in ("read", "refused"):
            totals[name] += found[name]
        for name in ("slowest [s]", "memory [MB]"):
            totals[name] = max(totals[name], found[name])
    assert totals["slowest [s]"] < _SLOWEST_S * slowness(), totals
    assert totals["memory [MB]"] < _MEMORY_MB, totals
    return {"files": effort.count, **totals}


def _seeds(folder: Path) -> dict[str, bytes]:
    """Intact files of every kind that commands read."""
    entries = recordings.entries(3)
    packed = folder / "packed"
    mcap = recordings.write(folder / "mcap", entries)
    sqlite = recordings.write(folder / "sqlite", entries, storage=StoragePlugin.SQLITE3)
    recordings.write(packed, entries, compression=CompressionMode.FILE)
    weights = folder / "small.safetensors"
    checkpoints.save(weights, networks.create("prenet", channels=4, blocks=1), {"steps": 3})
    picture = recordings.picture(0)
    recipe = (
        "network: {name: prenet, channels: 4, blocks: 1}\nsteps: 4\n"
        "data: {crop: 16, batch: 2, workers: 0, sources: [{path: .}]}\n"
    )
    return {
        "bag.mcap": recordings.storage_file(mcap).read_bytes(),
        "bag.db3": recordings.storage_file(sqlite).read_bytes(),
        "bag.mcap.zstd": recordings.storage_file(packed).read_bytes(),
        "metadata.yaml": (mcap / "metadata.yaml").read_bytes(),
        "weights.safetensors": weights.read_bytes(),
        "settings.yaml": settings.parameter_file(Settings, "all").encode(),
        "recipe.yaml": recipe.encode(),
        "picture.png": cv2.imencode(".png", picture)[1].tobytes(),
        "picture.jpg": cv2.imencode(".jpg", picture)[1].tobytes(),
        "scans.jpg": jpeg_of_many_scans(64, 64, 10),
    }


def _read_many(
    seeds: Mapping[str, bytes], seed: int, count: int, report: Path, folder: Path
) -> int:
    """Spoil files and read them, in this process. Failures are reported, and their files kept."""
    choice = random.Random(seed)
    folder.mkdir(exist_ok=True)
    outside = writes_outside(folder)
    found: dict[str, Any] = {"read": 0, "refused": 0, "failures": [], "slowest [s]": 0.0}
    for index in range(count):
        name = choice.choice(list(seeds))
        path = folder / name
        path.write_bytes(spoilt(seeds[name], choice, list(seeds.values())))
        began = time.monotonic()
        try:
            _READERS[path.suffix](path)
            found["read"] += 1
        except RainRemovalError as error:
            found["refused"] += 1
            if "\n" in str(error).strip():
                found["failures"].append(f"{name} of {seed}, {index}: more than a line: {error}")
        except Exception:  # noqa: BLE001 - any other error is a finding
            found["failures"].append(f"{name} of {seed}, {index}:\n{traceback.format_exc()}")
            path.rename(path.with_name(f"failure-{seed}-{index}-{name}"))
        found["slowest [s]"] = max(found["slowest [s]"], round(time.monotonic() - began, 2))
    found["failures"] += [f"after seed {seed}: {what}" for what in outside]
    found["memory [MB]"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
    report.write_text(json.dumps(found))
    return 0


def spoilt(content: bytes, choice: random.Random, others: list[bytes]) -> bytes:
    """The content with changes in a few places."""
    changed = bytearray(content)
    for _ in range(choice.choice([1, 1, 2, 5, 20])):
        at = choice.randrange(len(changed) + 1)
        kind = choice.randrange(7)
        if kind == 0:
            changed[at : at + 1] = choice.randbytes(1)
        elif kind == 1:
            changed[at : at + 4] = choice.choice([b"\0" * 4, b"\xff" * 4, choice.randbytes(4)])
        elif kind == 2:
            token = choice.choice(_TOKENS)
            changed[at : at + len(token) * choice.randrange(2)] = token
        elif kind == 3:
            del changed[at : at + choice.randrange(1, 200)]
        elif kind == 4:
            piece = changed[at : at + choice.randrange(1, 500)]
            changed[at:at] = piece * choice.choice([1, 2, 20])
        elif kind == 5 and choice.random() < 0.3:
            del changed[at:]
        else:
            other = choice.choice(others)
            begin = choice.randrange(len(other))
            changed[at:at] = other[begin : begin + choice.randrange(1, 300)]
    return bytes(changed)


def _read_recording(path: Path) -> None:
    from rain_removal_ros import codec
    from rain_removal_ros.bags import open_recording
    from rain_removal_ros.bags.messages import decoded
    from rain_removal_ros.errors import FrameError

    with open_recording(path) as recording:
        for message in recording.messages():
            try:
                codec.decode(decoded(message.channel, message.data))
            except FrameError:
                continue


def _read_yaml(path: Path) -> None:
    from rain_removal_ros.bags import open_recording
    from rain_removal_ros.training.recipe import load_recipe

    if path.name == "recipe.yaml":
        load_recipe(path)
    elif path.name == "settings.yaml":
        settings.load(Settings, path)
    else:
        with open_recording(path.parent) as recording:
            list(recording.messages())


def _read_picture(path: Path) -> None:
    from rain_removal_ros.media import pictures

    pictures.load(path)


_READERS: Mapping[str, Callable[[Path], object]] = {
    ".mcap": _read_recording,
    ".db3": _read_recording,
    ".zstd": _read_recording,
    ".yaml": _read_yaml,
    ".safetensors": checkpoints.load,
    ".png": _read_picture,
    ".jpg": _read_picture,
}
