"""The whole comparison of candidates, on small pictures with a simple detector."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")

from rain_removal_ros.bags import create, making, open_recording
from rain_removal_ros.bags.messages import IMAGE, standard
from rain_removal_ros.detection import candidates, sources
from rain_removal_ros.detection.analysis import Analysis, conclude, gated, late
from rain_removal_ros.detection.bootstrap import HELPS, HURTS
from rain_removal_ros.detection.boxes import Detections, as_boxes
from rain_removal_ros.detection.candidates import (
    INPUT,
    REFERENCE,
    Input,
    Online,
    Reference,
    SpatialMedian,
    TemporalMedian,
)
from rain_removal_ros.detection.harness import DetectionResults, run
from rain_removal_ros.detection.recordings import Bag
from rain_removal_ros.detection.sources import Drives, Falling, Photos, Recorded, SourceFrame
from rain_removal_ros.errors import BagError, DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.runtime import native
from rain_removal_ros.settings import EngineSettings
from rain_removal_ros.simulation.scenes import RainSettings, SceneSettings

PICTURES = 8


class BrightSquares:
    """A detector of bright areas, whose score is their brightness."""

    name, fingerprint, sure = "squares", "squares 1", 0.3
    labels: tuple[str, ...] = ("square", "circle")

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, image: Image) -> Detections:
        self.asked += 1
        grey = image[..., 1]
        _, _, stats, _ = cv2.connectedComponentsWithStats((grey > 120).astype(np.uint8))
        boxes = [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:] if area > 60]
        scores = [float(grey[y:y2, x:x2].mean()) / 255 for x, y, x2, y2 in boxes]
        return Detections(("square",) * len(boxes), np.array(scores), as_boxes(boxes))


class Darkening:
    """A candidate that hides everything, and so can only hurt."""

    name = fingerprint = "darkening"

    def begin(self) -> None:
        pass

    def show(self, scene: SourceFrame) -> Image:
        return scene.rainy // 3


class Oracle(Reference):
    """A candidate that returns the reference at twice the size."""

    name = fingerprint = "oracle"

    def show(self, scene: SourceFrame) -> Image:
        return np.repeat(np.repeat(super().show(scene), 2, 0), 2, 1)


def squares(folder: Path, count: int = PICTURES) -> Path:
    """Dark pictures with one bright square each, and COCO labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    annotations = []
    for number in range(count):
        picture = np.full((96, 128, 3), 40, np.uint8)
        x, y = (int(v) for v in rng.integers(5, 60, 2))
        picture[y : y + 24, x : x + 24] = 210
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        annotations.append(
            {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [x, y, 24, 24]}
        )
    labels = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(count)],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": annotations,
    }
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(labels))
    return path


HEAVY = Falling(severities=(1.0,))


def photos(tmp_path: Path) -> Photos:
    labels = squares(tmp_path / "pictures")
    return Photos(tmp_path / "pictures", HEAVY, labels=labels)


def compare(source: sources.FrameSource, cache: Path, *candidates: object) -> DetectionResults:
    return run(source, [Input(), Reference(), *candidates], [BrightSquares()], cache=cache)  # type: ignore[list-item]


def analyse(done: DetectionResults, models: Sequence[str]) -> Analysis:
    return conclude(done, BrightSquares(), models, rounds=200)


def test_an_oracle_helps_and_a_darkening_candidate_hurts(tmp_path: Path) -> None:
    done = compare(photos(tmp_path), tmp_path / "cache", Oracle(), Darkening())
    rows = {(row.condition, row.candidate): row for row in analyse(done, ["oracle"]).rows}
    assert rows["rain 1", "oracle"].verdict == HELPS
    assert rows["rain 1", "oracle"].recovered is not None
    assert rows["rain 1", "oracle"].recovered.value == pytest.approx(100)
    assert rows["rain 1", "oracle"].scores["AP50"] == rows["rain 1", REFERENCE].scores["AP50"]
    assert rows["clear", "darkening"].verdict == HURTS
    assert rows["clear", "darkening"].differences["lost"].value == pytest.approx(1)
    assert rows["clear", "oracle"].differences["AP50"].value == 0
    assert ("clear", REFERENCE) not in rows


def test_the_gate_derains_in_rain_and_passes_clear_pictures_through(tmp_path: Path) -> None:
    """The candidate helps in rain and hurts without; the gate avoids the harm."""
    done = compare(photos(tmp_path), tmp_path / "cache", Oracle(), Darkening())
    for candidate, other in (("oracle", "darkening"),):
        done.found["clear", candidate, "squares"] = done.found["clear", other, "squares"]
    done.levels = {"clear": [0.05] * PICTURES, "rain 1": [0.7] * PICTURES}
    analysis = analyse(done, ["oracle"])
    rows = {(row.condition, row.candidate): row for row in analysis.rows}
    assert rows["clear", gated("oracle")].differences["AP50"].value == 0
    assert rows["rain 1", gated("oracle")].verdict == HELPS
    (gate,) = analysis.gates
    assert 0.05 <= gate.threshold < 0.7
    assert f"bypass.on_above {gate.threshold:g}" in gate.advice
    assert gate.over_always.low > 0 < gate.over_never.low


@pytest.mark.parametrize(
    ("candidate", "advice"), [("oracle", "derain every"), ("darkening", "derain no")]
)
def test_the_gate_can_advise_to_derain_every_frame_or_none(
    candidate: str, advice: str, tmp_path: Path
) -> None:
    done = compare(photos(tmp_path), tmp_path / "cache", Oracle(), Darkening())
    # All rain levels are 0, so no threshold separates rainy frames from clear ones.
    done.levels = {"clear": [0.0] * PICTURES, "rain 1": [0.0] * PICTURES}
    assert advice in analyse(done, [candidate]).gates[0].advice


def test_stored_detections_are_reused(tmp_path: Path) -> None:
    source, cache = photos(tmp_path), tmp_path / "cache"
    first, again, more = BrightSquares(), BrightSquares(), BrightSquares()
    done = run(source, [Input(), Reference()], [first], cache=cache)
    repeated = run(source, [Input(), Reference()], [again], cache=cache)
    run(source, [Input(), Reference(), SpatialMedian()], [more], cache=cache)
    # The input counts twice, clear and rainy; the reference once, as rain does not change it.
    assert (first.asked, again.asked, more.asked) == (3 * PICTURES, 0, 2 * PICTURES)
    assert repeated.levels == done.levels
    for place, found in done.found.items():
        for one, other in zip(found, repeated.found[place], strict=True):
            assert one.boxes == pytest.approx(other.boxes, abs=0.01)
    assert repeated.picture("rain 1", INPUT, 0).shape == (96, 128, 3)


def test_a_changed_picture_is_detected_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    compare(photos(tmp_path), cache)
    path = tmp_path / "pictures" / "0.png"
    cv2.imwrite(str(path), np.asarray(cv2.imread(str(path))) // 2)
    detector = BrightSquares()
    run(Photos(tmp_path / "pictures", HEAVY), [Input()], [detector], cache=cache)
    assert detector.asked == 2 * PICTURES


def test_rain_depends_on_the_seed_and_not_on_other_pictures(tmp_path: Path) -> None:
    squares(tmp_path / "pictures")
    whole, part = (Photos(tmp_path / "pictures", HEAVY, limit=limit) for limit in (PICTURES, 2))
    other = Photos(tmp_path / "pictures", Falling(severities=(1.0,), seed=1), limit=2)
    rain = whole.conditions[-1]
    scenes = [list(source.scenes(rain))[1].rainy for source in (whole, part, other)]
    assert (scenes[0] == scenes[1]).all()
    assert (scenes[0] != scenes[2]).any()


def test_higher_severity_changes_the_picture_more(tmp_path: Path) -> None:
    squares(tmp_path / "pictures", 1)
    source = Photos(tmp_path / "pictures", Falling(severities=(0.05, 0.2)))
    change = []
    for condition in source.conditions:
        (scene,) = source.scenes(condition)
        assert scene.reference is not None
        change.append(float(np.abs(scene.rainy.astype(int) - scene.reference).mean()))
    assert change[0] == 0
    assert change == sorted(change)


def test_without_labels_detections_in_the_reference_are_the_pseudo_ground_truth(
    tmp_path: Path,
) -> None:
    squares(tmp_path / "pictures")
    source = Photos(tmp_path / "pictures", HEAVY)
    analysis = analyse(compare(source, tmp_path / "cache"), [])
    assert analysis.is_pseudo
    assert "Pseudo ground truth" in analysis.notes[0]
    clear = next(row for row in analysis.rows if row.condition == "clear")
    assert clear.scores["AP50"].value == pytest.approx(100)


def test_recorded_rain_is_compared_with_its_reference(tmp_path: Path) -> None:
    labels = squares(tmp_path / "clean")
    squares(tmp_path / "rainy")
    source = Recorded(tmp_path / "rainy", tmp_path / "clean", labels=labels)
    rows = analyse(compare(source, tmp_path / "cache"), []).rows
    assert [row.candidate for row in rows] == [INPUT, REFERENCE]
    assert rows[1].differences["AP50"].value == 0
    (tmp_path / "clean" / "3.png").unlink()
    with pytest.raises(DataError, match="have no reference"):
        Recorded(tmp_path / "rainy", tmp_path / "clean")


def test_analysis_without_labels_and_references_is_refused(tmp_path: Path) -> None:
    squares(tmp_path / "rainy")
    done = run(Recorded(tmp_path / "rainy"), [Input()], [BrightSquares()], cache=tmp_path / "c")
    with pytest.raises(DataError, match="neither labels nor reference"):
        analyse(done, [])


def test_classes_that_do_not_match_are_refused(tmp_path: Path) -> None:
    done = compare(photos(tmp_path), tmp_path / "cache")
    with pytest.raises(DataError, match="no 'tram' is in the ground truth"):
        conclude(done, BrightSquares(), [], classes=["tram"], rounds=100)
    blind = BrightSquares()
    blind.labels = ("circle",)
    with pytest.raises(DataError, match="no class is in both"):
        conclude(done, blind, [], rounds=100)


def test_delay_lowers_ap_on_a_drive_and_blank_frames_raise_flicker_and_fragments(
    tmp_path: Path,
) -> None:
    source = Drives(Falling(severities=()), sequences=1, frames=6, width=320, height=192)

    class Knowing(BrightSquares):
        """A detector that returns the ground truth."""

        labels = ("car", "person")

        def detect(self, image: Image) -> Detections:
            truth = source.items[self.asked].truth
            self.asked += 1
            assert truth is not None
            return Detections(truth.labels, np.full(len(truth.labels), 0.9), truth.boxes)

    detector = Knowing()
    done = run(source, [Input()], [detector], cache=tmp_path)
    every = done.found["clear", INPUT, "squares"]
    # A model with which the detector finds nothing in every other frame.
    done.found["clear", "model", "squares"] = [
        one.above(2.0 * (number % 2)) for number, one in enumerate(every)
    ]
    done.seconds["clear", "model"] = 0.001
    rows = {row.candidate: row for row in conclude(done, detector, ["model"], rounds=100).rows}
    assert rows[INPUT].scores["AP"].value == pytest.approx(100)
    assert rows[late(INPUT, 1)].scores["AP"].value < 99
    assert late("model", 1) in rows
    assert rows[INPUT].scores["flicker"].value == rows[INPUT].scores["fragments"].value == 0
    # From the second frame on, nearly all tracks end or begin again in each frame.
    assert rows["model"].scores["flicker"].value > 60
    assert rows["model"].scores["fragments"].value > 25


def test_frames_of_a_video_are_grouped_in_blocks_of_their_sequence(tmp_path: Path) -> None:
    squares(tmp_path / "drive" / "a")
    source = Photos(tmp_path / "drive", HEAVY, video_fps=2.0)
    assert {item.sequence for item in source.items} == {"a"}
    assert [item.group for item in source.items] == [f"a {n // 4}" for n in range(PICTURES)]


def test_the_temporal_median_removes_a_streak_of_one_frame() -> None:
    still = np.full((4, 4, 3), 50, np.uint8)
    streak = still.copy()
    streak[:, 1] = 255
    candidate = TemporalMedian()
    candidate.begin()
    shown = [candidate.show(SourceFrame(frame, None, 0)) for frame in (still, still, streak)]
    assert (shown[2] == 50).all()


@pytest.mark.parametrize("severities", [(1.5,), (-0.1,)])
def test_severities_outside_their_range_are_refused(severities: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="severity is from 0 to 1"):
        Falling(severities=severities)


def test_the_error_for_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of pictures"):
        Photos(tmp_path / "nowhere", HEAVY)
    with pytest.raises(DataError, match="holds no pictures"):
        Photos(tmp_path, HEAVY)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of a rainy street, with reference images, boxes, and images derained online."""
    home = tmp_path_factory.mktemp("recording")
    made, out = home / "made", home / "drive"
    scene = SceneSettings(width=320, height=192)
    making.make(scene, RainSettings(severity=0.5), made, making.Contents(seconds=0.2))
    with open_recording(made) as source, create(out) as output:
        online = standard("/camera/image_derained", IMAGE)
        for channel in [*source.channels, online]:
            output.add(channel)
        references = 0
        for message in source.messages():
            output.write(message.channel, message.stamp_ns, message.data)
            if message.channel.topic == "/camera/image_clean":
                references += 1
                # The node dropped one frame.
                if references != 3:
                    output.write(online, message.stamp_ns, message.data)
    return out


def test_a_recording_provides_ground_truth_references_and_online_results(
    recording: Path, tmp_path: Path
) -> None:
    source = Bag(recording, online=["/camera/image_derained"])
    assert len(source.items) == 5
    assert source.notes == ["1 frames lack one of the images compared"]
    assert source.frame_s == pytest.approx(1 / 30, rel=0.01)
    truth = source.items[0].truth
    assert truth is not None
    assert set(truth.labels) <= {"car", "person"}
    assert len(truth.tracks) == len(truth.labels) > 0
    candidates = [Input(), Reference(), Online("/camera/image_derained")]
    detector = BrightSquares()
    detector.labels = ("car", "person")
    rows = conclude(
        run(source, candidates, [detector], cache=tmp_path), detector, [], rounds=100
    ).rows
    assert [row.candidate for row in rows] == [INPUT, REFERENCE, "recorded /camera/image_derained"]
    (scene, *_) = source.scenes(source.conditions[0])
    assert scene.reference is not None
    assert (scene.online["/camera/image_derained"] == scene.reference).all()
    assert (scene.rainy != scene.reference).any()


def test_the_error_for_a_missing_topic_names_the_existing_ones(recording: Path) -> None:
    with pytest.raises(BagError, match=r"no images on /rear; name one of .*/camera/image_raw"):
        Bag(recording, topic="/rear")


def test_the_fingerprint_of_a_model_depends_on_the_library_in_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[Path] = []

    def code_checksum(*folders: Path) -> str:
        checked.extend(folders)
        return "0" * 64

    monkeypatch.setattr(candidates, "code_checksum", code_checksum)
    candidates.Derain("prenet", EngineSettings(device="cpu"))
    assert Path(native.__file__).parent in checked
