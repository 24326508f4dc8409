"""Batches depend only on seed and number, and match rainy pictures with their references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from rain_removal_ros.data import clips, pairs, scenery
from rain_removal_ros.data.cache import FolderCache, MemoryCache
from rain_removal_ros.data.clips import Window
from rain_removal_ros.data.mix import DataSettings, Mix, SourceSettings
from rain_removal_ros.errors import DataError, SettingsError


def scene(seed: int, *, height: int = 60, width: int = 80) -> np.ndarray:
    """A smooth colourful picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def data(tmp_path: Path) -> DataSettings:
    """Two pairs whose rain adds 10 grey levels, three dry scenes, one rainy picture, a video."""
    for number in range(2):
        for folder, light in (("pairs/input", 10), ("pairs/target", 0)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), scene(number) // 2 + light)
    for folder, count in (("clean", 3), ("real", 1)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), scene(10 + number))
    writer = cv2.VideoWriter(
        str(tmp_path / "drive.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (80, 64)
    )
    for number in range(8):
        writer.write(np.full((64, 80, 3), 20 * number, np.uint8))
    writer.release()
    return DataSettings(
        sources=(
            SourceSettings("pairs", weight=2),
            SourceSettings("clean", "clean"),
            SourceSettings("real", "unlabelled"),
        ),
        root=str(tmp_path),
        crop=32,
        batch=4,
        workers=0,
    )


def only(data: DataSettings, path: str, kind: str = "clean") -> DataSettings:
    return replace(data, sources=(SourceSettings(path, kind),))


def equal(first: Tensor | None, second: Tensor | None) -> bool:
    return first is second or (first is not None and second is not None and first.equal(second))


def test_a_batch_is_a_function_of_seed_and_number(data: DataSettings) -> None:
    first, again, other = Mix(data, seed=1), Mix(data, seed=1), Mix(data, seed=2)
    again[0]  # earlier draws do not matter
    assert all(equal(a, b) for a, b in zip(first[5], again[5], strict=True))
    assert not first[5].rainy.equal(first[6].rainy)
    assert not first[5].rainy.equal(other[5].rainy)


def test_workers_and_memory_do_not_change_the_batches(data: DataSettings) -> None:
    expected = [Mix(data, seed=1)[number] for number in range(3, 6)]
    starved = Mix(replace(data, workers=1, memory_gb=0), seed=1)
    clips_of = [(source.cache, clip) for source in starved.labelled for clip in source.clips]
    assert not any(cache.holds((clip.name, 0)) for cache, clip in clips_of)
    for batch, samples in zip(expected, starved.batches(3, 6), strict=True):
        assert all(equal(a, b) for a, b in zip(batch, samples, strict=True))


def test_processes_split_the_batches_of_one_sequence(data: DataSettings) -> None:
    together = Mix(replace(data, batch=8), seed=1)[3]
    halves = [Mix(data, seed=1, rank=rank, processes=2)[3] for rank in range(2)]
    assert together.rainy.equal(torch.cat([half.rainy for half in halves]))
    assert together.reference.equal(torch.cat([half.reference for half in halves]))


def test_both_pictures_of_a_pair_get_the_same_crop(data: DataSettings) -> None:
    for augment in ("none", "mirror", "all"):
        mix = Mix(replace(only(data, "pairs", "pairs"), augment=augment), seed=0)
        for number in range(5):
            batch = mix[number]
            assert batch.rainy.shape == (4, 1, 3, 32, 32)
            assert torch.all(batch.rainy.int() - batch.reference.int() == 10)


def test_a_rainy_picture_can_be_in_a_pair_and_in_an_unlabelled_source(data: DataSettings) -> None:
    alone = SourceSettings("pairs/input", "unlabelled")
    for sources in ((alone, SourceSettings("pairs")), (SourceSettings("pairs"), alone)):
        batch = Mix(replace(data, sources=sources), seed=0, wants_unlabelled=True)[0]
        assert torch.all(batch.rainy.int() - batch.reference.int() == 10)


def test_distinct_scenes_gives_each_batch_different_scenes(tmp_path: Path) -> None:
    for folder in ("rain", "norain"):
        (tmp_path / folder).mkdir()
    for number, versions in enumerate((6, 1, 1)):  # many rainy pictures of the first scene
        grey = np.full((40, 40, 3), 60 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "norain" / f"{number}.png"), grey)
        for version in range(versions):
            cv2.imwrite(str(tmp_path / "rain" / f"{number}_{version}.png"), grey + 10)
    settings = DataSettings(
        (SourceSettings("."),), str(tmp_path), crop=32, batch=3, workers=0, augment="none"
    )

    def scenes_of(data: DataSettings) -> list[int]:
        mix = Mix(data, seed=0)
        return [len(mix[number].reference[:, 0, 0, 0, 0].unique()) for number in range(20)]

    assert set(scenes_of(replace(settings, distinct_scenes=True))) == {3}
    assert min(scenes_of(settings)) == 1
    # There are only three scenes, so the fourth repeats one.
    assert set(scenes_of(replace(settings, batch=4, distinct_scenes=True))) == {3}


def test_rain_is_rendered_over_dry_scenes(data: DataSettings) -> None:
    mix = Mix(only(data, "clean"), seed=0)
    batches = [mix[number] for number in range(4)]
    change = torch.stack([(batch.rainy.int() - batch.reference.int()).abs() for batch in batches])
    assert change.float().mean() > 1
    assert change.float().mean() < 128


def test_rain_is_rendered_over_the_references_of_pairs_too(data: DataSettings) -> None:
    settings = replace(only(data, "pairs", "references"), crop=60, crop_width=80, augment="none")
    batch = Mix(settings, seed=0)[0]
    there = {pixels.sum().item() for pixels in batch.reference.int()}
    paired = Mix(replace(settings, sources=(SourceSettings("pairs"),)), seed=0)[0]
    plain = {pixels.sum().item() for pixels in paired.reference.int()}
    assert there & plain  # some are made pale
    assert (batch.rainy.int() - batch.reference.int()).abs().max() > 10


def test_a_reference_that_pairs_share_is_one_scene(tmp_path: Path) -> None:
    for folder, names in (("norain", ("1",)), ("rain", ("1_1", "1_2"))):
        (tmp_path / folder).mkdir()
        for name in names:
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), scene(1))
    assert len(clips.references(pairs.find_pairs(tmp_path))) == 1


def test_unlabelled_pictures_are_drawn_only_on_request(data: DataSettings) -> None:
    assert Mix(data, seed=0)[0].unlabelled is None
    settings = replace(data, unlabelled_batch=3)
    unlabelled = Mix(settings, seed=0, wants_unlabelled=True)[0].unlabelled
    assert unlabelled is not None
    assert unlabelled.shape == (3, 1, 3, 32, 32)
    with pytest.raises(SettingsError, match="unlabelled"):
        Mix(only(data, "clean"), seed=0, wants_unlabelled=True)


def test_an_enlarging_network_gets_small_rainy_pictures_and_large_references(
    data: DataSettings,
) -> None:
    batch = Mix(replace(only(data, "pairs", "pairs"), crop=16, frames=2), seed=0, scale=2)[0]
    assert batch.rainy.shape == (4, 2, 3, 16, 16)
    assert batch.reference.shape == (4, 2, 3, 32, 32)
    small = torch.nn.functional.avg_pool2d(batch.reference.flatten(0, 1).float(), 2)
    assert (batch.rainy.flatten(0, 1).float() - small - 10).abs().max() <= 1


def test_a_still_becomes_a_clip_with_smooth_camera_motion(data: DataSettings) -> None:
    mix = Mix(replace(only(data, "pairs", "pairs"), frames=6), seed=0)
    moved = []
    for number in range(4):
        batch = mix[number]
        assert batch.rainy.shape == (4, 6, 3, 32, 32)
        difference = batch.reference.int().diff(dim=1).abs().float().mean((2, 3, 4))
        moved.append(difference)
        # One step changes a smooth scene only a little.
        assert difference.max() < 30
        assert (batch.rainy.int() - batch.reference.int() - 10).abs().max() <= 1
    assert torch.cat(moved).mean() > 0.3


def test_a_clip_of_a_video_has_consecutive_frames(
    data: DataSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenery, "PASSING_SHARE", 0.0)
    mix = Mix(replace(only(data, "drive.mp4"), frames=3), seed=0)
    for number in range(3):
        light = mix[number].reference.float().mean((2, 3, 4)).diff(dim=1)
        assert (light.abs() - 20).abs().max() < 4


def test_folders_of_frames_are_clips_with_the_setting_clips(tmp_path: Path) -> None:
    for light in range(4):
        for folder, more in (("input", 7), ("target", 0)):
            path = tmp_path / folder / "street" / f"{light}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((40, 40, 3), 20 * light + more, np.uint8))
    data = DataSettings(
        sources=(SourceSettings(".", clips=True),), root=str(tmp_path), crop=32, batch=2, frames=3,
        workers=0,
    )  # fmt: skip
    batch = Mix(data, seed=0)[0]
    assert torch.all(batch.reference.int().diff(dim=1) == 20)
    assert torch.all(batch.rainy.int() - batch.reference.int() == 7)


def test_weights_decide_how_often_a_source_is_drawn(data: DataSettings) -> None:
    dark, light = (data.folder / name for name in ("dark", "light"))
    for folder, value in ((dark, 0), (light, 255)):
        folder.mkdir()
        cv2.imwrite(str(folder / "1.png"), np.full((40, 40, 3), value, np.uint8))
    sources = (
        SourceSettings("dark", "clean", weight=1),
        SourceSettings("light", "clean", weight=3),
    )
    mix = Mix(replace(data, sources=sources, batch=100, crop=8), seed=0)
    share = (mix[0].reference.float().mean((1, 2, 3, 4)) > 128).float().mean()
    assert 0.6 < share < 0.9


def test_only_every_keeps_the_pictures_that_skip_every_skips(data: DataSettings) -> None:
    kept, held = (
        Mix(replace(data, sources=(source,)), seed=0).labelled[0].clips
        for source in (
            SourceSettings("clean", "clean", skip_every=3),
            SourceSettings("clean", "clean", only_every=3),
        )
    )
    assert len(kept) == 2
    assert len(held) == 1
    assert not {clip.name for clip in kept} & {clip.name for clip in held}


def test_a_broken_picture_is_reported_and_skipped(
    data: DataSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    (data.folder / "clean/1.png").write_bytes(b"\x89PNG and no more")
    mix = Mix(replace(only(data, "clean"), broken_share=0.4), seed=0)
    assert len(mix.labelled[0].clips) == 2
    assert "clean/1.png is not a picture" in capsys.readouterr().err
    assert mix[0].rainy.shape == (4, 1, 3, 32, 32)


def test_too_many_broken_pictures_are_refused_at_the_start(data: DataSettings) -> None:
    (data.folder / "clean/1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 3 pictures of clean cannot be used.*clean/1\.png"):
        Mix(only(data, "clean"), seed=0)


def test_pictures_smaller_than_the_crop_are_refused(data: DataSettings) -> None:
    with pytest.raises(DataError, match="80x60, smaller than the crop of 64x64"):
        Mix(replace(only(data, "clean"), crop=64), seed=0)


def test_a_picture_that_breaks_during_training_is_replaced_by_another(
    data: DataSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    mix = Mix(replace(only(data, "clean"), memory_gb=0), seed=0)
    (data.folder / "clean/1.png").write_bytes(b"")
    mix[0]
    assert "clean/1.png is empty" in capsys.readouterr().err
    for number in (0, 2):
        (data.folder / f"clean/{number}.png").unlink()
    with pytest.raises(DataError, match="in a row cannot be used"):
        mix[0]


def test_sources_without_pictures_are_refused(data: DataSettings) -> None:
    with pytest.raises(SettingsError, match=r"data\.sources"):
        Mix(replace(data, sources=()), seed=0)
    (data.folder / "empty").mkdir()
    with pytest.raises(DataError, match="neither pictures nor videos"):
        Mix(only(data, "empty"), seed=0)


def test_the_cache_keeps_within_its_limit() -> None:
    cache = MemoryCache(limit_bytes=100)
    loads = []

    def load() -> clips.Views:
        loads.append(1)
        return (np.zeros((5, 4, 3), np.uint8),)

    for _ in range(2):
        for name in ("a", "b"):
            cache.get((name, 0), load)
    assert cache.used_bytes == 60
    assert len(loads) == 3


def test_decoded_pictures_are_reused_until_the_data_set_changes(tmp_path: Path) -> None:
    data_set, decoded = tmp_path / "set", tmp_path / "decoded"
    data_set.mkdir()
    (data_set / "0.png").write_bytes(b"one")
    pair = tuple(np.full((5, 4, 3), value, np.uint8) for value in (10, 20))
    first = FolderCache(decoded, data_set)
    first.get(("a", 0), lambda: pair)

    def decoded_anew() -> clips.Views:
        raise AssertionError

    second = FolderCache(decoded, data_set)
    assert second.holds(("a", 0))
    np.testing.assert_array_equal(second.get(("a", 0), decoded_anew), pair)
    with pytest.raises(AssertionError):
        second.get(("a", 1), decoded_anew)
    (data_set / "0.png").write_bytes(b"another")
    assert not FolderCache(decoded, data_set).holds(("a", 0))


def test_a_damaged_or_unwritable_cache_only_costs_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.full((5, 4, 3), 7, np.uint8)
    cache = FolderCache(tmp_path / "decoded", tmp_path)
    cache.put(("a", 0), (picture,))
    (file,) = (tmp_path / "decoded").rglob("*.npy")
    file.write_bytes(file.read_bytes()[:-8])
    (view,) = cache.get(("a", 0), lambda: (picture,))
    np.testing.assert_array_equal(view, picture)
    assert file.stat().st_size > picture.nbytes

    (tmp_path / "file").write_bytes(b"")
    blocked = FolderCache(tmp_path / "file", tmp_path)
    (view,) = blocked.get(("a", 0), lambda: (picture,))
    np.testing.assert_array_equal(view, picture)
    assert "decoded each time" in capsys.readouterr().err


@pytest.mark.parametrize("frames", [1, 3])
def test_a_folder_of_decoded_pictures_does_not_change_the_batches(
    data: DataSettings, tmp_path: Path, frames: int
) -> None:
    settings = replace(data, frames=frames, workers=0)
    kept = replace(settings, decoded=str(tmp_path / "decoded"))
    for mix in (Mix(kept, seed=0), Mix(kept, seed=0)):  # first decodes, then reads the folder
        for number in range(4):
            assert all(map(equal, mix[number], Mix(settings, seed=0)[number]))


def test_a_pan_stays_inside_the_picture() -> None:
    picture = np.zeros((60, 250, 3), np.uint8)
    picture[:, :, 0] = np.arange(250)
    picture[:, :, 1] = np.arange(60)[:, None]
    still = clips.Still("ramp", lambda: (picture,))
    speeds = []
    for seed in range(40):
        (part,) = clips.cut(
            still, Window(16, 16, 30), MemoryCache(10**6), np.random.default_rng(seed)
        )
        across = part[:, 8, :, 0].astype(int).mean(1)
        # Reflection at the border would reverse the ramp.
        assert np.all(np.diff(part[:, 8, :, 0].astype(int), axis=1) >= 0)
        speeds.append(np.abs(np.diff(across)).max())
    assert np.median(speeds) < 6  # mostly slow
    assert max(speeds) > 12


def test_still_share_mixes_batches_of_clips_and_of_stills(
    data: DataSettings,
) -> None:
    mix = Mix(replace(data, frames=3, batch=2, still_share=0.5), seed=0)
    shapes = {tuple(mix[step].rainy.shape[:2]) for step in range(12)}
    assert shapes == {(2, 3), (6, 1)}


def test_still_share_without_dry_scenes_is_refused(data: DataSettings) -> None:
    with pytest.raises(SettingsError, match="still_share"):
        Mix(replace(only(data, "pairs", "pairs"), frames=3, still_share=0.5), seed=0)


def test_the_reference_of_a_still_camera_comes_from_neighbouring_frames(
    data: DataSettings,
) -> None:
    folder = data.folder / "camera"
    folder.mkdir()
    dry = scene(4) // 2
    for number in range(7):
        frame = dry.copy()
        frame[10:50, 10 * number + 2 : 10 * number + 5] = 200
        cv2.imwrite(str(folder / f"{number}.png"), frame)
    source = SourceSettings("camera", "still_camera", clips=True)
    settings = replace(data, sources=(source,), frames=3, still_share=0.5, crop=60, augment="none")
    mix = Mix(settings, seed=0)
    for step in range(4):
        batch = mix[step]
        assert batch.reference.max() < 150
        rows = batch.reference[0, 0].movedim(0, -1).numpy()[..., ::-1]
        places = [np.abs(rows.astype(int) - dry[:, x : x + 60]).mean() for x in range(21)]
        assert min(places) < 0.5
        brighter = (batch.rainy.int() - batch.reference.int()).float()
        assert (brighter > 50).float().mean() > 0.01
        assert brighter.min() > -3
    with pytest.raises(DataError, match="no folder with frames"):
        Mix(only(data, "drive.mp4", "still_camera"), seed=0)


def test_clips_can_have_a_smaller_crop_than_stills_and_dropped_frames(data: DataSettings) -> None:
    mix = Mix(
        replace(
            only(data, "clean"),
            crop=32,
            clip_crop=16,
            clip_crop_width=24,
            frames=6,
            batch=1,
            still_share=0.5,
            still_batch=3,
            dropped_share=0.5,
            workers=0,
        ),
        seed=0,
    )
    shapes = {tuple(mix[step].rainy.shape) for step in range(12)}
    assert shapes == {(3, 1, 3, 32, 32), (1, 6, 3, 16, 24)}
    windows = [mix._with_drops(Window(16, 24, 6), np.random.default_rng(n)) for n in range(20)]
    assert {window.frames for window, _ in windows} == {6, 12}
    assert all(len(set(kept)) == 6 and kept == sorted(kept) for _, kept in windows)
