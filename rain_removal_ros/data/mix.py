"""Training samples from several sources: pairs, dry scenes with synthetic rain, real rain.

Sample number n of a run depends only on the seed and n. A run can therefore continue exactly
without saved state, and any number of processes can share one sequence.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rain_removal_ros.data import clips, pairs, rain, scenery
from rain_removal_ros.data.cache import Cache, FolderCache, MemoryCache
from rain_removal_ros.data.clips import Clip, Video, Window
from rain_removal_ros.errors import DataError, SettingsError
from rain_removal_ros.settings import setting

Pixels = NDArray[np.uint8]

_DRAWS = 20
_LABELLED, _UNLABELLED, _PLAN = 0, 1, 2
_AHEAD = 4
_CAN_FORK = sys.platform == "linux"


@dataclass(frozen=True)
class SourceSettings:
    """One data set and its share in the mix."""

    path: str = setting(
        "",
        "folder or file below data.root; for pairs also DIR:layout if the layout is not recognised",
    )
    kind: str = setting(
        "pairs",
        "pairs; clean: dry scenes, over which rain is drawn; references: those of pairs as dry "
        "scenes; still_camera: folders of frames of real rain, whose neighbours in time give the "
        "reference; unlabelled: real rain",
        choices=("pairs", "clean", "references", "still_camera", "unlabelled"),
    )
    clips: bool = setting(False, "the pictures of a folder are the frames of a clip")
    weight: float = setting(1.0, "how often it is drawn from, relative to the others", low=0.0)
    skip_every: int = setting(
        0,
        "leaves out every n-th picture or clip, for validation; 0 for none",
        low=0,
    )
    only_every: int = setting(
        0,
        "takes only every n-th, those that skip_every leaves out; 0 for all",
        low=0,
    )


@dataclass(frozen=True)
class DataSettings:
    """What to train on."""

    sources: tuple[SourceSettings, ...] = ()
    root: str = setting(".", "folder that all paths are relative to")
    textures: str = setting("", "folder of streak textures for drawn rain; empty for none")
    crop: int = setting(128, "side of the square the network sees", unit="px", low=8)
    crop_width: int = setting(
        0, "its width, if it is not a square: crop is then the height", unit="px", low=0
    )
    augment: str = setting(
        "mirror",
        "mirror left and right; all adds upside down and, for squares, quarter turns",
        choices=("none", "mirror", "all"),
    )
    frames: int = setting(1, "frames of a clip", low=1)
    clip_crop: int = setting(
        0, "crop of clips, if it differs from that of single pictures", unit="px", low=0
    )
    clip_crop_width: int = setting(0, "its width, if it is not a square", unit="px", low=0)
    dropped_share: float = setting(
        0.0,
        "share of the frames of a drawn clip that are left out, as a busy node drops frames",
        low=0.0,
        high=0.5,
    )
    batch: int = setting(16, "samples a step and process", low=1)
    distinct_scenes: bool = setting(
        False,
        "the samples of a batch show different scenes, for losses that tell pictures of a batch "
        "apart; pairs that share a reference are one scene",
    )
    still_share: float = setting(
        0.0,
        "with frames over 1: share of steps that see single pictures of all sources, still_batch "
        "of them; the other steps then see clips of all sources but pairs, because in a picture "
        "of a pair the rain stands still",
        low=0.0,
        high=1.0,
    )
    still_batch: int = setting(
        0, "single pictures in a step that sees them; 0 for as many as frames of a batch", low=0
    )
    unlabelled_batch: int = setting(
        0,
        "real rainy samples a step, for networks that want them; 0 for as many",
        low=0,
    )
    memory_gb: float = setting(
        4.0,
        "decoded pictures each process keeps in memory; the rest is decoded each time",
        unit="GB",
        low=0.0,
    )
    decoded: str = setting(
        "",
        "folder in which decoded pictures are kept instead, for all processes and later runs",
    )
    workers: int = setting(
        1, "processes that prepare batches; 0 prepares them between steps", low=0
    )
    broken_share: float = setting(
        0.05,
        "more unusable pictures than this in a source end the run before it starts",
        low=0.0,
        high=1.0,
    )

    @property
    def folder(self) -> Path:
        return Path(self.root).expanduser()


class Samples(NamedTuple):
    """A batch as 8 bit, a quarter of the size of floats; converted where it is used."""

    rainy: Tensor
    reference: Tensor
    unlabelled: Tensor | None


class RainMaker:
    """Draws rain over clips, with the available streak textures."""

    def __init__(self, settings: DataSettings) -> None:
        folder = settings.folder / settings.textures
        self.textures = rain.load_textures(folder) if settings.textures else []

    def fall(
        self, reference: Pixels, rng: np.random.Generator, *, severity: float | None = None
    ) -> Pixels:
        """The clip in rain, optionally of a given severity."""
        return self._render(reference, self._sample(rng, severity))

    def pair(self, reference: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """The clip, with rain or dry, and its reference, which may be the clip in paler light."""
        drawn = self._sample(rng, None)
        # A scene that is both pale and veiled could not be told from one that is pale.
        if drawn.veil.thickness == 0 and rng.random() < scenery.PALE_SHARE:
            reference = scenery.paled(reference, rng)
        return self._render(reference, drawn), reference

    def _sample(self, rng: np.random.Generator, severity: float | None) -> rain.Rain:
        return rain.sample(
            rng, severity=severity, textures=len(self.textures), styles=rain.TRAINING_STYLES
        )

    def _render(self, reference: Pixels, drawn: rain.Rain) -> Pixels:
        return rain.render_frames(reference, drawn, textures=self.textures)


class Source:
    """The clips of one data set."""

    def __init__(self, settings: SourceSettings, root: Path) -> None:
        self.settings = settings
        self.path = pairs.split_layout(str(root / settings.path))[0]
        found = _find(settings, root)
        if settings.skip_every:
            found = [clip for i, clip in enumerate(found) if i % settings.skip_every]
        if settings.only_every:
            found = found[:: settings.only_every]
        if not found:
            raise DataError(f"nothing is left of {settings.path} after skip_every and only_every")
        self.clips: list[Clip] = found
        self.cache: Cache = MemoryCache(0)

    @property
    def dry(self) -> bool:
        """Whether rain is drawn over its pictures."""
        return self.settings.kind in ("clean", "references")

    def preload(self, cache: Cache, window: Window, broken_share: float) -> None:
        """Decode what the cache has room for, and draw from it afterwards.

        Unusable pictures are named. Too many of them are an error.
        """
        self.cache = cache
        usable: list[Clip] = []
        refused: list[str] = []
        for clip in self.clips:
            if cache.full:
                usable.append(clip)
                continue
            try:
                usable.append(_read_through(clip, cache, window))
            except DataError as error:
                refused.append(str(error))
        for reason in refused:
            print(f"left out: {reason}", file=sys.stderr)
        if len(refused) > broken_share * len(self.clips):
            raise DataError(
                f"{len(refused)} of {len(self.clips)} pictures of {self.settings.path} cannot be "
                f"used, the first because {refused[0]}; data.broken_share allows more"
            )
        self.clips = usable

    def draw(
        self,
        window: Window,
        rng: np.random.Generator,
        taken: set[str] | None = None,
    ) -> tuple[Pixels, Pixels]:
        """A clip with and without rain, T x H x W x 3; the same twice if there is only one.

        If possible, its scene is none of those ``taken``; it is added to them.
        """
        with_lines = self.dry and rng.random() < scenery.STRUCTURE_SHARE
        retouch = partial(scenery.with_structures, rng=rng) if with_lines else None
        for _ in range(_DRAWS):
            clip = self._pick(rng, taken)
            try:
                parts = clips.cut(clip, window, self.cache, rng, retouch)
            except DataError as error:
                # Only what did not fit into memory can still fail.
                print(f"left out: {error}", file=sys.stderr)
            else:
                return parts[0], parts[-1]
        raise DataError(f"{_DRAWS} pictures of {self.settings.path} in a row cannot be used")

    def _pick(self, rng: np.random.Generator, taken: set[str] | None) -> Clip:
        clip = self.clips[int(rng.integers(len(self.clips)))]
        if taken is not None:
            for _ in range(_DRAWS):
                if clips.scene(clip) not in taken:
                    break
                clip = self.clips[int(rng.integers(len(self.clips)))]
            taken.add(clips.scene(clip))
        return clip


def cache_of(source: Source, settings: DataSettings, memory: MemoryCache) -> Cache:
    """The cache for the pictures of a source."""
    listed = source.settings.kind in ("pairs", "references") and source.path.is_file()
    if not settings.decoded or listed:  # a change of files that are only listed is not noticed
        return memory
    return FolderCache(Path(settings.decoded).expanduser(), source.path)


def _find(settings: SourceSettings, root: Path) -> list[Clip]:
    path = root / settings.path
    if settings.kind in ("pairs", "references"):
        found = pairs.find_pairs(*pairs.split_layout(str(path)))
        if settings.kind == "references":
            return clips.references(found)
        return clips.pair_clips(found) if settings.clips else clips.pair_stills(found)
    if settings.kind == "still_camera":
        return clips.find_still_cameras(path)
    return clips.find_clips(path) if settings.clips else clips.find_stills(path)


def _read_through(clip: Clip, cache: Cache, window: Window) -> Clip:
    """The clip, once it is known to be usable, and how long it is."""
    frames = 0
    for views in clip.read_through(cache):
        clips.check_size(views[0], window, clip.name)
        frames += 1
    if frames == 0:
        raise DataError(f"{clip.name} has no frame that can be decoded")
    return replace(clip, frames=frames) if isinstance(clip, Video) else clip


class Mix(Dataset[Samples]):
    """Item n is batch number n of a run, for one process of several."""

    def __init__(
        self,
        settings: DataSettings,
        *,
        seed: int,
        scale: int = 1,
        wants_unlabelled: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.settings, self.seed, self.scale = settings, seed, scale
        self.rank, self.processes = rank, processes
        self.window = Window(
            settings.crop * scale, (settings.crop_width or settings.crop) * scale, settings.frames
        )
        sources = [Source(source, settings.folder) for source in settings.sources]
        self.labelled = [source for source in sources if source.settings.kind != "unlabelled"]
        self.unlabelled = [source for source in sources if source.settings.kind == "unlabelled"]
        self.moving = [source for source in self.labelled if source.settings.kind != "pairs"]
        if settings.still_share and not self.moving:
            raise SettingsError("data.still_share needs a source of kind clean, to make clips of")
        if not self.labelled:
            raise SettingsError(
                "data.sources has nothing of kind pairs, clean or still_camera to train on"
            )
        if wants_unlabelled and not self.unlabelled:
            raise SettingsError("this network is trained with a source of kind unlabelled as well")
        if not wants_unlabelled:
            self.unlabelled = []
        # OpenCV's threads do not survive the fork; a worker would wait for them forever.
        cv2.setNumThreads(0)
        self.rain = RainMaker(settings)
        memory = MemoryCache(int(settings.memory_gb * 1e9))
        for source in (*self.labelled, *self.unlabelled):
            source.preload(cache_of(source, settings, memory), self.window, settings.broken_share)

    def batches(self, first: int, end: int) -> Iterator[Samples]:
        """Batches ``first`` to ``end``, prepared ahead by the workers."""
        loader: DataLoader[Samples] = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, end),
            num_workers=self.settings.workers,
            prefetch_factor=_AHEAD if self.settings.workers else None,
            worker_init_fn=_leave_signals,
            # Forked workers share the decoded pictures; Python 3.14 would send each a copy.
            multiprocessing_context="fork" if self.settings.workers and _CAN_FORK else None,
        )
        return iter(loader)

    def __getitem__(self, step: int) -> Samples:
        window, sources, count = self._plan(step)
        rainy, reference = self._stack(sources, window, step, count, stream=_LABELLED)
        unlabelled = None
        if self.unlabelled:
            count = self.settings.unlabelled_batch or self.settings.batch
            real, _ = self._stack(self.unlabelled, window, step, count, stream=_UNLABELLED)
            unlabelled = _channels_first(real)
        return Samples(_channels_first(rainy), _channels_first(reference), unlabelled)

    def _plan(self, step: int) -> tuple[Window, list[Source], int]:
        """The shape, the sources and the number of the samples of a step."""
        settings, window = self.settings, self.window
        if settings.still_share == 0 or window.frames == 1:
            return window, self.labelled, settings.batch
        if np.random.default_rng((self.seed, _PLAN, step)).random() < settings.still_share:
            count = settings.still_batch or settings.batch * window.frames
            return replace(window, frames=1), self.labelled, count
        if settings.clip_crop:
            height = settings.clip_crop * self.scale
            width = settings.clip_crop_width * self.scale or height
            window = replace(window, height=height, width=width)
        return window, self.moving, settings.batch

    def _stack(
        self, sources: Sequence[Source], window: Window, step: int, count: int, *, stream: int
    ) -> tuple[Pixels, Pixels]:
        weights = np.array([source.settings.weight for source in sources])
        rainy, reference = [], []
        taken: set[str] | None = set() if self.settings.distinct_scenes else None
        for place in range(count):
            number = (step * self.processes + self.rank) * count + place
            rng = np.random.default_rng((self.seed, stream, number))
            source = sources[int(rng.choice(len(sources), p=weights / weights.sum()))]
            longer, kept = self._with_drops(window, rng)
            first, last = self._sample(source, longer, rng, taken)
            rainy.append(clips.shrink(first[kept], self.scale))
            reference.append(last[kept])
        return np.stack(rainy), np.stack(reference)

    def _with_drops(self, window: Window, rng: np.random.Generator) -> tuple[Window, list[int]]:
        """A longer window and the frames of it that are kept; every other clip keeps all."""
        share = self.settings.dropped_share
        if window.frames == 1 or share == 0 or rng.random() < 0.5:
            return window, list(range(window.frames))
        frames = round(window.frames / (1 - share))
        kept = rng.choice(frames, window.frames, replace=False)
        return replace(window, frames=frames), sorted(kept.tolist())

    def _sample(
        self,
        source: Source,
        window: Window,
        rng: np.random.Generator,
        taken: set[str] | None,
    ) -> tuple[Pixels, Pixels]:
        first, last = source.draw(window, rng, taken)
        if source.dry:
            if window.frames > 1 and rng.random() < scenery.PASSING_SHARE:
                last = scenery.with_passing(last, rng)
            # Rain falls and the sky is above, so these scenes are only ever mirrored.
            how = "none" if self.settings.augment == "none" else "mirror"
            (last,) = clips.turn((last,), rng, how)
            return self.rain.pair(last, rng)
        first, last = clips.turn((first, last), rng, self.settings.augment)
        return first, last


def _leave_signals(_: int) -> None:
    """Get no signals that are meant for the training process, with which a worker ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def _channels_first(batch: Pixels) -> Tensor:
    # A view: the pixels stay interleaved, which is the channels-last order used in training.
    return torch.from_numpy(batch).permute(0, 1, 4, 2, 3)
