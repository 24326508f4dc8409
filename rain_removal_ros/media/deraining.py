"""Derains files: plans which file becomes which, and processes them one by one.

A problem with one file is reported for that file, and the others are still processed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rain_removal_ros import checkpoints, engines
from rain_removal_ros.engines import LoadedEngine, bare_graphs
from rain_removal_ros.errors import DataError, RainRemovalError
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.media import pictures, videos
from rain_removal_ros.media.pictures import MOST_PIXELS, Picture, natural_order
from rain_removal_ros.media.tiling import Needs, TiledEngine, memory_left
from rain_removal_ros.settings import EngineSettings, NetworkSettings, StreamSettings
from rain_removal_ros.stream import Stream

__all__ = [
    "DerainedFile",
    "FailedFile",
    "FileDerainer",
    "FileJob",
    "FileOptions",
    "derain_files",
    "plan",
]

_GIB = 2**30
_GAP = 2
"""Pixels between the panels of a comparison."""


@dataclass(frozen=True)
class FileOptions:
    """What to make of each file."""

    attention: bool = False
    side_by_side: bool = False
    tile: int = 0
    """Side of the tiles of large frames; 0 is what fits into memory."""
    memory_gb: float = 0.0
    """Gibibytes the process may fill; 0 is most of what is free."""
    most_pixels: int = MOST_PIXELS
    """Files with larger pictures are refused."""


@dataclass(frozen=True)
class FileJob:
    """One file and what it is to become."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        return self.source.suffix.lower() in videos.READABLE

    @property
    def attention(self) -> Path:
        """Where the attention map goes, if it is asked for."""
        return self.target.with_name(f"{self.target.stem}_attention{self.target.suffix}")


@dataclass(frozen=True)
class FailedFile:
    """A file that could not be derained, and why."""

    source: Path
    reason: str


@dataclass(frozen=True)
class DerainedFile:
    """A file that was derained."""

    source: Path
    targets: tuple[Path, ...]
    width: int
    height: int
    frames: int
    tiles: int
    seconds: float
    remarks: tuple[str, ...] = ()


def plan(
    sources: Sequence[Path], output: Path | None, options: FileOptions
) -> tuple[list[FileJob], list[FailedFile]]:
    """The files to process, and those that cannot be. Raises if none can be."""
    maps = options.attention and not options.side_by_side
    jobs: list[FileJob] = []
    failures: list[FailedFile] = []
    claimed: dict[Path, Path] = {}
    for source in sources:
        try:
            found = _jobs(source, output, alone=len(sources) == 1)
        except (DataError, OSError) as error:
            failures.append(FailedFile(source, str(error)))
            continue
        for job in found:
            targets = [job.target, job.attention] if maps else [job.target]
            if reason := _clash(job.source, targets, claimed):
                failures.append(FailedFile(job.source, reason))
            else:
                claimed |= {target.resolve(): job.source for target in targets}
                jobs.append(job)
    if not jobs:
        raise DataError(failures[0].reason if failures else "no files were named")
    for folder in dict.fromkeys(job.target.parent for job in jobs):
        _prepare(folder)
    return jobs, failures


def _loaded(network: NetworkSettings, engine: EngineSettings) -> tuple[LoadedEngine, Needs]:
    """The network, and the memory it takes for each pixel."""
    if not engines.has_torch():
        path = checkpoints.chosen_file(network)
        found = bare_graphs.find(path)
        needs = Needs(found[0].working_bytes, found[0].state_bytes)
        return engines.named(bare_graphs.start(path, found, network, engine), network), needs
    _, checkpoint = checkpoints.choose(network)
    # Computed now, because the engine may not keep a network that can be analysed.
    needs = Needs.of(checkpoint.network)
    return engines.named(engines.create(checkpoint.network, engine), network), needs


class FileDerainer:
    """A loaded network that derains files."""

    def __init__(
        self, network: NetworkSettings, engine: EngineSettings, options: FileOptions | None = None
    ) -> None:
        self.weights = checkpoints.chosen_file(network)
        self.options = options or FileOptions()
        self.engine, needs = _loaded(network, engine)
        self._needs = None if self.options.tile else needs
        # Checked once, because the process keeps memory that a pass has freed.
        limit = self.options.memory_gb * _GIB if self.options.memory_gb else None
        self._memory = memory_left(self.engine.info.device, limit)

    def derain(self, job: FileJob) -> DerainedFile:
        """Derain one file; on an error nothing is written."""
        began = time.perf_counter()
        done = self._video(job) if job.is_video else self._picture(job)
        return replace(done, seconds=time.perf_counter() - began)

    def _picture(self, job: FileJob) -> DerainedFile:
        picture = pictures.load(job.source, self.options.most_pixels)
        image = picture.image
        height, width = image.shape[:2]
        engine = self._tiled(height, width, carry_state=False)
        (result,) = engine.step([image], [None], attention=self.options.attention)
        targets = [job.target]
        if self.options.side_by_side:
            pictures.save(job.target, Picture(_panels(image, result.image, result.attention)))
        else:
            pictures.save(job.target, picture.with_image(result.image))
            if result.attention is not None:
                pictures.save(job.attention, Picture(result.attention))
                targets.append(job.attention)
        return DerainedFile(
            job.source, tuple(targets), width, height, 1, len(engine.tiles(height, width)), 0.0
        )

    def _video(self, job: FileJob) -> DerainedFile:
        options, targets = self.options, [job.target]
        with ExitStack() as stack:
            reader = stack.enter_context(videos.reading(job.source, options.most_pixels))
            derained = stack.enter_context(videos.writing(job.target, reader.rate, sound=reader))
            maps = None
            if options.attention and not options.side_by_side:
                maps = stack.enter_context(videos.writing(job.attention, reader.rate))
                targets.append(job.attention)
            frames = self._frames(reader)
            for image, result, attention in frames:
                if options.side_by_side:
                    result = _panels(image, result, attention)
                derained.write(result)
                if maps is not None and attention is not None:
                    maps.write(np.repeat(attention[..., None], 3, axis=2))
            height, width = image.shape[:2]
            engine = self._tiled(height, width, carry_state=True)
        return DerainedFile(
            job.source,
            tuple(targets),
            width,
            height,
            reader.read,
            len(engine.tiles(height, width)),
            0.0,
            _remarks(
                reader,
                result,
                is_plain=derained.is_plain,
                forgets=self.engine.info.recurrent and not engine.info.recurrent,
            ),
        )

    def _frames(
        self, reader: videos.Reader
    ) -> Iterator[tuple[Image, Image, NDArray[np.uint8] | None]]:
        """Each frame, its derained image, and its attention."""
        stream: Stream | None = None
        # Frames of a file are consecutive, however low its frame rate.
        limits = StreamSettings()
        limits = replace(limits, max_gap_s=max(limits.max_gap_s, 1.5 / reader.rate))
        bar = tqdm(
            reader, reader.path.name, reader.announced or None, leave=False, disable=None, unit="f"
        )
        for index, image in enumerate(bar):
            if stream is None:
                stream = Stream(self._tiled(*image.shape[:2], carry_state=True), limits)
            frame = Frame(image, stamp_ns=round(index * 1e9 / reader.rate))
            step = stream.step(frame, attention=self.options.attention)
            yield image, step.frame.image, step.attention

    def _tiled(self, height: int, width: int, *, carry_state: bool) -> TiledEngine:
        """The engine for frames of one size, which uses tiles that fit into memory."""
        if self._needs is None:
            side = self.options.tile
            return TiledEngine(self.engine, side=side, carry_state=carry_state)
        pixels = height * width
        # The frame and the derained one, each as it was decoded and as it is written.
        budget = self._memory - 6 * pixels * (1 + self.engine.info.scale**2)
        state = self._needs.state * pixels if carry_state else 0.0
        if state > budget / 2:
            state, carry_state = 0.0, False
        side = self._needs.side(budget - state)
        return TiledEngine(self.engine, side=side, carry_state=carry_state)


def derain_files(
    derainer: FileDerainer, jobs: Sequence[FileJob]
) -> Iterator[DerainedFile | FailedFile]:
    """Derain the files one by one."""
    for job in jobs:
        try:
            yield derainer.derain(job)
        except RainRemovalError as error:
            yield FailedFile(job.source, str(error))


def _jobs(source: Path, output: Path | None, *, alone: bool) -> list[FileJob]:
    if source.is_dir():
        folder = output or source.resolve().with_name(f"{source.resolve().name}_derained")
        inside = folder.resolve()
        files = [path for path in _files(source) if inside not in path.resolve().parents]
        if not files:
            raise DataError(f"{source} holds no pictures or videos")
        return [FileJob(path, _fitting(folder / path.relative_to(source))) for path in files]
    if not source.exists():
        raise DataError(f"there is no file {source}")
    if output is None:
        return [
            FileJob(source, _fitting(source.with_name(f"{source.stem}_derained{source.suffix}")))
        ]
    names_a_file = output.suffix.lower() in pictures.WRITABLE | set(videos.WRITABLE)
    if alone and names_a_file and not output.is_dir():
        job = FileJob(source, output)
        if job.is_video != (output.suffix.lower() in videos.WRITABLE):
            kind = "video" if job.is_video else "picture"
            raise DataError(f"{source} is a {kind} and cannot become {output.name}")
        return [job]
    if alone and output.suffix and not output.is_dir():
        kinds = videos.WRITABLE if source.suffix.lower() in videos.READABLE else pictures.WRITABLE
        raise DataError(
            f"{output.name} cannot be written; possible are {', '.join(sorted(kinds))}. "
            "For a folder, create it first"
        )
    return [FileJob(source, _fitting(output / source.name))]


def _files(folder: Path) -> list[Path]:
    known = pictures.READABLE | videos.READABLE
    found = (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in known and path.name[0] != "." and path.is_file()
    )
    return sorted(found, key=natural_order)


def _fitting(target: Path) -> Path:
    """``target``, in a format that can be written."""
    suffix = target.suffix.lower()
    if suffix in videos.READABLE:
        return target if suffix in videos.WRITABLE else target.with_suffix(".mp4")
    return target if suffix in pictures.WRITABLE else target.with_suffix(".png")


def _clash(source: Path, targets: list[Path], claimed: dict[Path, Path]) -> str:
    for target in targets:
        if target.resolve() == source.resolve():
            return f"{source} would be overwritten; choose another folder with -o"
        if (other := claimed.get(target.resolve())) is not None:
            return f"{source} and {other} would both become {target}"
    return ""


def _prepare(folder: Path) -> None:
    """Make the folder, and check that it is writable before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"{folder} cannot be written to: {error.strerror or error}") from error


def _panels(before: Image, after: Image, attention: NDArray[np.uint8] | None) -> Image:
    """Before, after and, where it is known, where it rains, in one picture."""
    size = (after.shape[1], after.shape[0])
    parts = [before, after]
    if attention is not None:
        coloured = cv2.applyColorMap(attention, cv2.COLORMAP_INFERNO)
        parts.append(np.asarray(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB), np.uint8))
    gap = np.full((size[1], _GAP, 3), 255, np.uint8)
    row: list[NDArray[np.uint8]] = []
    for part in parts:
        fits = part.shape == after.shape
        part = part if fits else np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_CUBIC))
        row += [part, gap]
    return np.concatenate(row[:-1], axis=1)


def _remarks(
    reader: videos.Reader, last: Image, *, is_plain: bool, forgets: bool
) -> tuple[str, ...]:
    """What is not as one might expect of a derained video."""
    remarks = []
    if reader.ends_early:
        remarks.append(f"ends early: {reader.read} of {reader.announced} frames could be read")
    if last.shape[0] % 2 or last.shape[1] % 2:
        remarks.append("is a pixel smaller: videos have even sizes")
    if is_plain:
        remarks.append(
            "lost its sound, if it had any; where ffmpeg is installed, sound is kept and "
            "video becomes H.264"
        )
    if forgets:
        remarks.append("was derained frame by frame: there is no memory for what to carry over")
    return tuple(remarks)
