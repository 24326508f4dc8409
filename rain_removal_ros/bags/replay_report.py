"""The results of a replay: figures as JSON, and a page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_removal_ros.bags.frame_scores import FrameScore, FrameScorer, as_rows
from rain_removal_ros.bags.replaying import Replayed
from rain_removal_ros.manifest import manifest
from rain_removal_ros.runtime.files import write_json

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine
    from rain_removal_ros.settings import Settings

_MOST_POINTS = 600
"""The most points of a plot; longer series are thinned out."""
_PICTURES = 12


def payload(
    done: Replayed, engine: Engine, settings: Settings, scorer: FrameScorer | None
) -> dict[str, Any]:
    """All figures of a replay."""
    from rain_removal_ros.settings import flatten

    name = engine.info.name
    cautions = engine.info.cautions.lines(name)
    result: dict[str, Any] = {
        "manifest": manifest(),
        "engine": {**asdict(engine.info), "model": name, "cautions": "; ".join(cautions)},
        "settings": flatten(settings),
        **asdict(done),
        "frames": done.frames,
        "overhead_ms": done.overhead_ms,
    }
    if scorer is not None:
        result["scores"] = scorer.summary()
        result["each_frame"] = {topic: as_rows(rows) for topic, rows in scorer.scores().items()}
    return result


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the figures as JSON."""
    write_json(path, result)


def write_report(path: Path, result: dict[str, Any], scorer: FrameScorer) -> None:
    """Write the page."""
    from rain_removal_ros.report import Page, facts, fold

    page = Page(
        f"Replay of {Path(result['source']).name}",
        f"{result['frames']} frames derained by {result['engine']['model']} "
        f"on {result['engine']['device']}.",
    )
    for topic, scores in scorer.scores().items():
        _add_camera(page, topic, scores, result["scores"][topic], scorer)
    page.section("What was read", *_reading(result))
    page.section(
        "How it was made",
        facts(result["engine"]),
        fold("Settings", facts(result["settings"])),
        fold("Machine and versions", facts(result["manifest"])),
    )
    page.write(path)


def _add_camera(
    page: Any, topic: str, scores: list[FrameScore], figures: dict[str, Any], scorer: FrameScorer
) -> None:
    from rain_removal_ros.report import gallery, histogram, line_plot, side_by_side, slider, tiles

    page.section(f"{topic}: {verdict(figures)}", tiles(_tiles(figures)))
    first = scores[0].stamp_ns
    times = [(score.stamp_ns - first) / 1e9 for score in scores]
    stride = -(-len(scores) // _MOST_POINTS)

    def series(name: str) -> list[tuple[float, float]]:
        values = [getattr(score, name) for score in scores]
        pairs = [(t, v) for t, v in zip(times, values, strict=True) if v is not None]
        return pairs[::stride]

    plots = []
    for name, title, unit in (
        ("psnr", "PSNR against the scene without rain", "dB"),
        ("ssim", "SSIM against the scene without rain", ""),
        ("flicker", "Flicker", "grey levels"),
        ("rain", "Rain level, measured in the frame", ""),
        ("sharp", "Sharpness", "grey levels"),
        ("moves", "Change from frame to frame", "grey levels"),
    ):
        before, after = series(f"{name}_before"), series(f"{name}_after")
        if before and after:
            lines = {"before": before, "after": after}
            plots.append(line_plot(lines, title=title, x="s", y=unit or "0 to 1"))
    if times_ms := [s.network_ms for s in scores if s.network_ms is not None]:
        title = "Time in the network"
        plots.append(line_plot({"network": series("network_ms")}, title=title, x="s", y="ms"))
        plots.append(histogram({"network": times_ms}, title=title, x="ms"))
    if figures["psnr_after"] is not None:
        gains = [
            s.psnr_after - s.psnr_before
            for s in scores
            if s.psnr_after is not None and s.psnr_before is not None
        ]
        plots.append(histogram({"gain": gains}, title="Gain in PSNR", x="dB"))
    page.section(f"{topic}: over time", side_by_side(*plots))
    sliders = [
        slider(
            moment.before,
            moment.after,
            attention=moment.attention,
            truth=moment.truth,
            caption=_caption(moment.score, first),
        )
        for moment in scorer.moments(topic)[:_PICTURES]
    ]
    page.section(f"{topic}: worst moments first", gallery(*sliders))


def verdict(figures: dict[str, Any]) -> str:
    """Whether the result is better, in a few words."""
    if figures["psnr_after"] is not None:
        gain = figures["psnr_after"] - figures["psnr_before"]
        if abs(gain) < 0.1:
            return "neither better nor worse than the input"
        return f"{'better' if gain > 0 else 'worse'} by {abs(gain):.1f} dB"
    before, after = figures["rain_before"], figures["rain_after"]
    if before is None or before < 0.02:
        return "hardly any rain to remove"
    share = 1 - after / before
    return f"{100 * share:.0f} % less rain visible" if share > 0 else "no less rain visible"


def _tiles(figures: dict[str, Any]) -> dict[str, str]:
    shown = {"frames": str(figures["frames"])}
    if figures["psnr_after"] is not None:
        shown["PSNR"] = f"{figures['psnr_before']:.2f} → {figures['psnr_after']:.2f} dB"
        shown["SSIM"] = f"{figures['ssim_before']:.3f} → {figures['ssim_after']:.3f}"
    if figures["flicker_after"] is not None:
        shown["flicker"] = f"{figures['flicker_before']:.2f} → {figures['flicker_after']:.2f}"
    shown["rain level"] = f"{figures['rain_before']:.2f} → {figures['rain_after']:.2f}"
    shown["sharpness"] = f"{figures['sharp_before']:.1f} → {figures['sharp_after']:.1f}"
    if figures["steadiness"] is not None:
        shown["change between frames"] = f"× {figures['steadiness']:.2f}"
    shown["pixels changed"] = f"{100 * figures['changed']:.1f} %"
    if figures["network_ms_median"] is not None:
        shown["network, median"] = f"{figures['network_ms_median']:.1f} ms"
        shown["network, p95"] = f"{figures['network_ms_p95']:.1f} ms"
    return shown


def _reading(result: dict[str, Any]) -> list[Any]:
    from rain_removal_ros.report import facts, table

    rows = [
        (
            camera["topic"],
            camera["clean_topic"],
            camera["cleaned"],
            _counts(camera["passed"]),
            _counts(camera["dropped"]),
            camera["unreadable"],
            _counts(camera["resets"]),
            ", ".join(camera["sizes"]),
        )
        for camera in result["cameras"]
    ]
    head = (
        "topic", "derained topic", "derained", "as they came", "dropped", "unreadable",
        "fresh starts", "sizes",
    )  # fmt: skip
    said = {
        "recording": result["source"],
        "written": result["output"],
        "messages copied unchanged": result["copied"],
        "beside the network": f"{result['overhead_ms']:.1f} ms a frame",
        "lost": "; ".join(result["losses"]) or "nothing",
    }
    if faults := [camera["last_fault"] for camera in result["cameras"] if camera["last_fault"]]:
        said["last faults"] = "; ".join(faults)
    return [facts(said), table(head, rows)]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _caption(score: FrameScore, first_ns: int) -> str:
    said = f"at {(score.stamp_ns - first_ns) / 1e9:.2f} s"
    if score.psnr_before is not None and score.psnr_after is not None:
        return f"{said}: {score.psnr_before:.1f} → {score.psnr_after:.1f} dB"
    return f"{said}: rain level {score.rain_before:.2f} → {score.rain_after:.2f}"
