"""The evaluation as a page: tables, plots of every picture, and the worst cases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rain_removal_ros.evaluation import Evaluation
from rain_removal_ros.evaluation._clips import ClipResults, FrameTrace
from rain_removal_ros.evaluation._models import PROTOCOLS, Runner
from rain_removal_ros.evaluation._pictures import PictureResults, PictureScores, reduced_for
from rain_removal_ros.evaluation.tables import tables
from rain_removal_ros.manifest import manifest
from rain_removal_ros.report import (
    Html,
    Page,
    facts,
    fold,
    gallery,
    heading,
    histogram,
    line_plot,
    scatter_plot,
    side_by_side,
    slider,
    table,
)

_MOST_SHOWN = 6
_MOST_IN_ALL = 48
"""The number of sliders on a page; each is a few hundred kilobytes."""


def page(evaluation: Evaluation) -> Page:
    """All results, the summary first."""
    protocol = evaluation.plan.protocol
    made = Page(
        "Rain removal, measured",
        f"Protocol {protocol}: {PROTOCOLS[protocol]['rounding']}. PSNR in dB; gain is over the "
        "untouched input, so that harm is negative; flicker and warping error in grey levels.",
    )
    for each in tables(evaluation.rows):
        made.section(each.title, each.note, table(each.head, each.rows))
    groups = max(1, len(evaluation.runners) * len(evaluation.stills))
    shown = min(_MOST_SHOWN, max(2, _MOST_IN_ALL // groups))
    for still in evaluation.stills:
        made.section(*_still_section(still, evaluation.runners, shown))
    for moving in evaluation.moving:
        made.section(*_moving_section(moving))
    made.section("How it was measured", *_method(evaluation))
    return made


def _still_section(still: PictureResults, runners: list[Runner], shown: int) -> Iterator[str]:
    yield still.name
    if still.kind == "pairs":
        yield _gain_plots(still, runners)
    for index, runner in enumerate(runners):
        worst = sorted(still.scored, key=lambda scored: _merit(scored, index, runner))[:shown]
        yield heading(f"{runner.label}, worst first")
        yield gallery(*(_compared(scored, index, runner, still.kind) for scored in worst))


def _gain_plots(still: PictureResults, runners: list[Runner]) -> Html:
    points = {
        runner.label: [
            (scored.before[runner.scale].psnr_y, scored.after[index].psnr_y, scored.item.name)
            for scored in still.scored
        ]
        for index, runner in enumerate(runners)
    }
    gains = {name: [after - before for before, after, _ in each] for name, each in points.items()}
    return side_by_side(
        scatter_plot(
            points,
            title="Every picture, before and after",
            x="PSNR-Y of the input, dB",
            y="PSNR-Y of the output, dB",
            diagonal="no gain",
        ),
        histogram(gains, title="Gain", x="PSNR-Y gained, dB", y="pictures"),
    )


def _merit(scored: PictureScores, index: int, runner: Runner) -> float:
    """The runner's gain on a picture; for a picture without rain, its loss."""
    return scored.after[index].psnr_y - scored.before[runner.scale].psnr_y


def _compared(scored: PictureScores, index: int, runner: Runner, kind: str) -> Html:
    rainy, reference = scored.item.load()
    given, untouched, truth = reduced_for(runner.scale, rainy, reference)
    result = runner.derain(given, attention=True)
    after = scored.after[index]
    gain = f", gain {_merit(scored, index, runner):+.2f} dB" if kind == "pairs" else ""
    return slider(
        untouched,
        result.image,
        attention=result.attention,
        truth=truth if kind == "pairs" else None,
        labels=("input", "output"),
        caption=f"{scored.item.name}: PSNR-Y {after.psnr_y:.2f} dB{gain}, "
        f"SSIM-Y {after.ssim_y:.4f}",
    )


def _moving_section(moving: ClipResults) -> Iterator[str]:
    yield f"{moving.name}, frame by frame"
    labelled = [(way.label, trace) for way, trace in zip(moving.ways, moving.traces, strict=True)]
    yield f"Clips: {len(moving.used)}. Each begins afresh at frame 0."
    yield side_by_side(
        line_plot(
            {name: _by_frame(trace) for name, trace in labelled},
            title="Likeness to the reference",
            x="frame of the clip",
            y="PSNR-Y, dB",
        ),
        histogram(
            {name: trace.flicker for name, trace in labelled},
            title="Flicker",
            x="change unlike the reference's, grey levels",
            y="frames",
        ),
    )


def _by_frame(trace: FrameTrace) -> list[tuple[float, float]]:
    numbers, values = np.array(trace.number), np.array(trace.psnr_y)
    return [(float(n), float(values[numbers == n].mean())) for n in np.unique(numbers)]


def _method(evaluation: Evaluation) -> Iterator[str]:
    yield facts(PROTOCOLS[evaluation.plan.protocol])
    about = manifest()
    yield fold(
        "Program and machine", facts({name: value for name, value in about.items() if value})
    )
    models = [runner.as_manifest() for runner in evaluation.runners]
    yield fold("Models", table(list(models[0]), [list(model.values()) for model in models]))
    for measured in evaluation.measured:
        known = measured.as_manifest()
        used = known.get("images") or known["clips"]
        known |= {"images" if "images" in known else "clips": ", ".join(used)}
        known["skipped"] = "; ".join(measured.skipped) or "none"
        yield fold(f"{measured.name}: {len(used)} used", facts(known))
