"""What each mark is called, which way it should go, and what decides whether a model ships.

A mark is *surely* worse or better if the whole interval of its difference to the shipped model lies
on one side. A candidate ships if no mark that counts gets surely worse, none is surely below its
floor, and at least one gets surely better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rain_removal_ros.detection.bootstrap import Estimate, estimate
from rain_removal_ros.evaluation.board.marks import Mark, difference

WORSE, BETTER, SAME = "worse", "better", ""


@dataclass(frozen=True)
class Rule:
    """How one mark is interpreted."""

    mark: str
    title: str
    unit: str = "dB"
    less: bool = False
    """Whether less is better."""
    slack: float | None = 0.1
    """The loss, in the mark's unit, that is still tolerated; None if the mark never counts."""
    goal: float | None = None
    """The goal for the default model."""
    enough: bool = False
    """Whether losses do not count while the goal is met."""
    floor: float | None = None
    """The value that a model must not surely miss, whatever the shipped one does."""


def _pairs(name: str, goal: float) -> tuple[Rule, ...]:
    return (
        Rule(f"{name}/psnr_y", f"{name} test, PSNR-Y", goal=goal),
        Rule(f"{name}/ssim_y", f"{name} test, SSIM-Y", "", slack=0.002),
        Rule(f"{name}/gain", f"{name} test, gain", slack=None, floor=0.0),
        Rule(f"{name}/harmed", f"{name} test, pictures harmed", "%", less=True, slack=2.0),
        Rule(f"{name}/attention", f"{name} test, attention", "", slack=0.05, goal=0.5),
    )


def _clean(name: str, title: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{name}/psnr_y", f"{title}, PSNR-Y", slack=0.5, goal=50.0, enough=True),
        Rule(f"{name}/worst", f"{title}, worst", slack=1.0, goal=38.0, enough=True),
    )


def _still(name: str, title: str, goal: float) -> Rule:
    return Rule(f"still/{name}", title, slack=1.0, goal=goal, enough=True)


def _clips(name: str, goal: float) -> tuple[Rule, ...]:
    return (
        Rule(f"{name}/psnr_y", f"{name}, PSNR-Y, state carried"),
        Rule(f"{name}/gain", f"{name}, gain", slack=None, floor=0.0),
        Rule(f"{name}/state", f"{name}, worth of the state", goal=goal, enough=True, floor=0.0),
        Rule(f"{name}/flicker", f"{name}, flicker", "levels", less=True, slack=0.2),
    )


def _strokes(name: str, title: str, goal: float | None = None) -> Rule:
    return Rule(f"strokes/{name}", title, "%", less=True, slack=2.0, goal=goal)


def _detection(name: str, title: str, aimed: float) -> tuple[Rule, ...]:
    def won(severity: float) -> Rule:
        goal = 60.0 if severity == aimed else None
        return Rule(f"{name}/won_{severity:g}", f"{title}, rain {severity:g}: recovered", "%",
                    slack=2.0, goal=goal)  # fmt: skip

    clear = Rule(f"{name}/clear", f"{title}, clear: change", "%", slack=0.5, floor=0.0)
    return (*map(won, (0.3, 0.6, 1.0)), clear)


SECTIONS: dict[str, tuple[Rule, ...]] = {
    "Rainy pictures": (
        *_pairs("rain800", 27.0),
        *_pairs("rain100l", 36.0),
        *_pairs("roadscene", 36.5),
    ),
    "Dry pictures": (
        *_clean("clean", "photos"),
        *_clean("clean_streets", "streets"),
    ),
    "A still camera on dry scenes": (
        Rule("still/first", "first frame", slack=None),
        _still("20", "frame 20", 46.0),
        _still("60", "frame 60", 46.0),
        _still("300", "frame 300", 46.0),
        _still("palest_20", "palest scene, frame 20", 38.0),
        _still("palest_60", "palest scene, frame 60", 38.0),
        _still("palest_300", "palest scene, frame 300", 38.0),
        _still("lost_20", "worst change within 20 frames", -1.0),
        _still("lost_60", "worst change within 60 frames", -1.0),
        _still("lost_300", "worst change within 300 frames", -1.0),
    ),
    "A moving camera on dry scenes": (
        Rule("moving/highway", "highway", slack=0.5, goal=50.0, enough=True),
        Rule("moving/drive", "drive", slack=0.5, goal=50.0, enough=True),
        Rule("moving/worst", "worst frame", slack=1.0, goal=38.0, enough=True),
    ),
    "Clips in drawn rain": (
        *_clips("highway", 1.5),
        *_clips("drive", 0.8),
        Rule("clips/lost", "worth lost by frames 100-150", less=True, goal=0.2, enough=True),
    ),
    "Strokes: light left standing": (
        _strokes("count_3", "3 strokes", 25.0),
        _strokes("stream_3", "3 strokes in a stream, state carried"),
        _strokes("count_8", "8 strokes"),
        _strokes("count_20", "20 strokes"),
        _strokes("count_120", "120 strokes"),
        _strokes("width_5", "5 pixels wide", 30.0),
        _strokes("width_8", "8 pixels wide", 50.0),
        _strokes("width_12", "12 pixels wide"),
        _strokes("length_4", "4 pixels long"),
        _strokes("length_10", "10 pixels long"),
        _strokes("length_20", "20 pixels long"),
        _strokes("length_100", "100 pixels long"),
        _strokes("angle_0", "upright"),
        _strokes("angle_30", "at 30 degrees"),
        _strokes("angle_50", "at 50 degrees"),
        _strokes("angle_60", "at 60 degrees", 40.0),
        _strokes("angle_75", "at 75 degrees"),
        _strokes("opacity_0.3", "opacity 0.3"),
        _strokes("opacity_0.5", "opacity 0.5"),
        _strokes("opacity_1.0", "opacity 1"),
        _strokes("blurred_3", "3 blurred strokes"),
        _strokes("blurred_20", "20 blurred strokes"),
        _strokes("blurred_width_5", "blurred, 5 pixels wide"),
        Rule("strokes/invented", "invented: dry pixels changed by 5 levels", "%", less=True,
             slack=0.1),
    ),
    "Detection, AP50": (
        *_detection("pennfudan", "Penn-Fudan", 1.0),
        *_detection("carla", "CARLA", 0.6),
    ),
    "Speed": (
        Rule("speed/ms", "640x480, bfloat16, two threads", "ms", less=True, slack=None),
        Rule("speed/times_prenet", "times published PReNet", "", slack=None, goal=100.0),
        Rule("speed/of_shipped", "time of what ships", "%", less=True, slack=None, floor=115.0),
    ),
}  # fmt: skip
"""By what is measured. Unless the title says otherwise, strokes are 20 of 2 x 40 pixels, 15 degrees
from the vertical, with an opacity of 0.7 and sharp edges."""
RULES: tuple[Rule, ...] = tuple(rule for rules in SECTIONS.values() for rule in rules)


@dataclass(frozen=True)
class Reading:
    """One mark of the candidate, compared with the shipped model's."""

    rule: Rule
    candidate: Estimate
    shipped: float | None
    change: Estimate | None
    verdict: str
    """``WORSE`` and ``BETTER`` if it is sure and the mark counts."""
    below_floor: bool

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        return None if self.rule.goal is None else _reached(self.rule, self.candidate.value)


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may ship, and why."""

    ships: bool
    complete: bool
    """Whether everything was measured that the verdict needs."""
    reasons: tuple[str, ...]


def read(candidate: Mapping[str, Mark], shipped: Mapping[str, Mark]) -> list[Reading]:
    """Every mark that the candidate has, in the order of the rules."""
    return [
        _reading(rule, candidate[rule.mark], shipped.get(rule.mark))
        for rule in RULES
        if rule.mark in candidate
    ]


def judge(readings: Sequence[Reading], *, complete: bool = True) -> Verdict:
    """The verdict; a model that was not measured completely does not ship."""
    worse = [reading.rule.title for reading in readings if reading.verdict == WORSE]
    better = [reading.rule.title for reading in readings if reading.verdict == BETTER]
    below = [reading.rule.title for reading in readings if reading.below_floor]
    told = {"surely worse": worse, "below its floor": below, "surely better": better}
    reasons = [f"{what}: {', '.join(titles)}" for what, titles in told.items() if titles]
    ships = complete and bool(better) and not worse and not below
    return Verdict(ships, complete, tuple(reasons or ["nothing surely changed"]))


def _reading(rule: Rule, candidate: Mark, shipped: Mark | None) -> Reading:
    own = estimate(candidate.values(candidate.items))
    sign = -1 if rule.less else 1
    below = rule.floor is not None and sign * (_far(own, sign) - _amount(rule, rule.floor)) < 0
    if shipped is None:
        return Reading(rule, own, None, None, SAME, below)
    change = difference(candidate, shipped)
    return Reading(rule, own, shipped.value, change, _verdict(rule, own, change), below)


def _verdict(rule: Rule, own: Estimate, change: Estimate) -> str:
    if rule.slack is None:
        return SAME
    low, high = (-change.high, -change.low) if rule.less else (change.low, change.high)
    slack = _amount(rule, rule.slack)
    if low > 0 and abs(change.value) > slack:
        return BETTER
    if high < -slack and not (rule.enough and _reached(rule, own.value)):
        return WORSE
    return SAME


def _far(own: Estimate, sign: int) -> float:
    """The end of the interval that favours the model."""
    return own.high if sign > 0 else own.low


def _reached(rule: Rule, value: float) -> bool:
    assert rule.goal is not None
    goal = _amount(rule, rule.goal)
    return value <= goal if rule.less else value >= goal


def _amount(rule: Rule, shown: float) -> float:
    """A figure of the rules in the unit of marks: shares instead of per cent."""
    return shown / 100 if rule.unit == "%" else shown
