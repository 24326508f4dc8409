"""Reports in one HTML file: no server, no network, readable on a phone and on paper.

The parts of a page are made by functions that return ``Html``; plain text is escaped everywhere.

    page = Page("Evaluation", "What was measured, in a sentence.")
    page.section(
        "Results",
        tiles({"PSNR": "31.2 dB", "gain": "+4.1 dB"}),
        table(["model", "PSNR"], [["rranet", "31.20"], ["input", "27.10"]]),
        side_by_side(
            line_plot({"rranet": [(0, 27.1), (1, 31.2)]}, title="PSNR", x="epoch", y="dB"),
            scatter_plot({"rranet": [(27.1, 31.2, "image 1")]}, title="Gain", x="in", y="out"),
            histogram({"rranet": [4.1, 3.9, -0.2]}, title="Gain", x="dB"),
        ),
        gallery(slider(rainy, derained, attention=map, truth=reference, caption="image 1")),
        fold("How it was measured", facts({"images": 100, "protocol": "..."})),
    )
    page.write(Path("report.html"))

Pictures are RGB, H x W x 3 of uint8; attention maps H x W of uint8. Points of a plot are
``(x, y)`` or ``(x, y, name)``; the name is shown as a tooltip. Values that are not finite are left
out.
"""

from __future__ import annotations

from rain_removal_ros.report._page import (
    Html,
    Page,
    facts,
    fold,
    gallery,
    heading,
    side_by_side,
    table,
    text,
    tiles,
)
from rain_removal_ros.report._pictures import picture, slider
from rain_removal_ros.report._plots import histogram, line_drawing, line_plot, scatter_plot

__all__ = [
    "Html",
    "Page",
    "facts",
    "fold",
    "gallery",
    "heading",
    "histogram",
    "line_drawing",
    "line_plot",
    "picture",
    "scatter_plot",
    "side_by_side",
    "slider",
    "table",
    "text",
    "tiles",
]
