"""A report is one file that any browser can show and print."""

from __future__ import annotations

import base64
import html
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rain_removal_ros.errors import DataError
from rain_removal_ros.report import (
    Html,
    Page,
    facts,
    fold,
    gallery,
    heading,
    histogram,
    line_drawing,
    line_plot,
    picture,
    scatter_plot,
    side_by_side,
    slider,
    table,
    text,
    tiles,
)

RED = np.full((30, 40, 3), (200, 30, 20), np.uint8)
GREEN = np.full((30, 40, 3), (20, 190, 30), np.uint8)


def full_page() -> Page:
    page = Page("Wet & dry", "A lead that is long enough to be broken on a phone, I should think.")
    page.section(
        "Figures",
        tiles({"gain": "+4.1 dB"}),
        table(["set", *(f"column {n}" for n in range(12))], [["rain", *"0123456789ab"]]),
        side_by_side(
            line_plot({"one": [(0, 1), (5, 3)], "two": [(0, 2), (5, 2)]}, title="Lines"),
            scatter_plot({"one": [(1, 2, "first")]}, title="Dots", diagonal="equal"),
            histogram({"one": [1, 2, 2, 3]}, title="Bars"),
        ),
        heading("Pictures"),
        gallery(
            slider(RED, GREEN, attention=RED[..., 0], truth=GREEN, caption="a scene"),
            picture(RED, caption="red"),
        ),
        fold("More", facts({"checksum": "0123456789abcdef" * 8})),
    )
    return page


def pictures_in(page: str) -> list[NDArray[np.uint8]]:
    """All embedded pictures, in RGB."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    data = [np.frombuffer(base64.b64decode(each), np.uint8) for each in found]
    return [np.asarray(cv2.imdecode(each, cv2.IMREAD_COLOR))[..., ::-1] for each in data]


def drawing(plot: Html) -> ElementTree.Element:
    svg = re.search(r"<svg.*?</svg>", plot, re.S)
    assert svg
    return ElementTree.fromstring(svg[0])


def test_a_page_loads_nothing_from_elsewhere() -> None:
    page = full_page().html()
    assert not re.search(r"https?:|<link|@import|src=\"(?!data:)", page)


def test_all_text_is_escaped() -> None:
    evil = "<b>&\"'"
    page = Page(evil, evil)
    page.section(
        evil,
        evil,
        table([evil], [[evil]], caption=evil),
        tiles({evil: evil}),
        facts({evil: evil}),
        heading(evil),
        fold(evil, evil),
        line_plot({evil: [(0, 1)], "b": [(1, 1)]}, title=evil, x=evil, y=evil),
        scatter_plot({evil: [(0, 1, evil)]}, title=evil, diagonal=evil),
        histogram({evil: [1.0]}, title=evil),
        slider(RED, GREEN, caption=evil, labels=(evil, evil)),
        picture(RED, caption=evil),
    )
    assert "<b>" not in page.html()
    assert page.html().count("&lt;b&gt;") > 20
    assert text(Html("<b>")) == "<b>"


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    full_page().write(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == full_page().html()
    with pytest.raises(DataError, match=r"cannot write .*: File exists"):
        full_page().write(tmp_path / "page.html" / "page.html")


def test_columns_of_numbers_are_right_aligned() -> None:
    made = table(["name", "dB", "n"], [["a", "+1.20", 3], ["b", "−0.31", ""], ["c", "-", 12]])
    assert re.findall(r"<th scope=\"col\"( class=\"number\")?>", made) == [
        "",
        ' class="number"',
        ' class="number"',
    ]


def test_a_slider_keeps_the_colours_of_its_pictures() -> None:
    before, after, attention, truth = pictures_in(
        slider(RED, GREEN, attention=np.zeros((30, 40), np.uint8), truth=GREEN)
    )
    for found, expected in ((before, RED), (after, GREEN), (truth, GREEN)):
        assert np.abs(found.astype(int) - expected).max() < 6
    # Where the network saw nothing, the map is black and darkens the picture.
    assert attention.mean() < before.mean() / 2


def test_large_pictures_are_reduced_and_keep_their_proportions() -> None:
    (shown,) = pictures_in(picture(np.zeros((1000, 2000, 3), np.uint8)))
    assert shown.shape == (480, 960, 3)


def test_a_line_goes_through_its_points() -> None:
    plot = drawing(line_plot({"one": [(0, 0), (1, 10), (2, float("nan")), (4, 20)]}))
    line = next(plot.iter("polyline"))
    places = [tuple(map(float, each.split(","))) for each in line.attrib["points"].split()]
    assert len(places) == 3  # points that are not finite are left out
    (x0, y0), (x1, y1), (x4, y4) = places
    assert (x1 - x0) / (x4 - x0) == pytest.approx(1 / 4, abs=0.01)
    assert (y0 - y1) / (y0 - y4) == pytest.approx(1 / 2, abs=0.01)
    assert y4 < y1 < y0  # larger values are higher


def test_line_drawings_have_logarithmic_axes() -> None:
    lines = {"<double>": [(1, 20), (10, 200), (100, 2000)], "single": [(1, 10), (100, 1000)]}
    made = line_drawing(lines, title="Times", x="pixels", y="ms")
    assert "var(--" in made
    svg = ElementTree.fromstring(made)  # a complete file: escaped names, a name space
    name = "{http://www.w3.org/2000/svg}"
    double, single, *keys = svg.iter(f"{name}polyline")
    assert len(keys) == 2
    places = [
        [tuple(map(float, each.split(","))) for each in line.attrib["points"].split()]
        for line in (double, single)
    ]
    (x0, y0), (x1, y1), (x2, y2) = places[0]
    assert (x1 - x0, y0 - y1) == pytest.approx((x2 - x1, y1 - y2), abs=0.11)
    assert y0 - places[1][0][1] == pytest.approx(y2 - places[1][1][1], abs=0.11)
    labels = [each.text for each in svg.iter(f"{name}text")]
    assert labels[:4] == ["1", "2", "5", "10"]
    assert {"<double>", "Times", "pixels", "ms"} <= set(labels)


@pytest.mark.parametrize("value", [1e-3, 0.3, 1.0, 2000.0])
def test_a_single_value_can_be_drawn(value: float) -> None:
    assert "nan" not in line_drawing({"a": [(value, value)]}, title="", x="", y="")


def test_axes_are_numbered_in_round_steps_that_enclose_the_data() -> None:
    plot = drawing(line_plot({"one": [(-0.13, 1003), (0.92, 1009)]}))
    labels = [each.text or "" for each in plot.iter("text")]
    across, up = labels[:7], labels[7:14]
    assert across == ["−0.2", "0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert up == ["1003", "1004", "1005", "1006", "1007", "1008", "1009"]


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-9, 1e12, 1e-300])
def test_a_single_value_can_be_plotted(value: float) -> None:
    for plot in (line_plot({"a": [(value, value)]}), histogram({"a": [value] * 3})):
        assert "nan" not in plot
        assert "inf" not in plot


def test_dots_have_tooltips() -> None:
    plot = drawing(scatter_plot({"model": [(20, 25, "street"), (21, float("inf"), "odd")]}))
    assert [each.text for each in plot.iter("title")] == ["model: street, 20, 25"]


def test_every_finite_value_is_in_one_bar() -> None:
    values = [0, 0.1, 0.5, 1, 1, float("nan")]
    said = [each.text for each in drawing(histogram({"a": values}, bins=4)).iter("title")]
    counts = [int(re.match(r"a: (\d+) from", each or "")[1]) for each in said]  # type: ignore[index]
    assert counts == [2, 1, 2]


def test_an_empty_plot_says_so() -> None:
    assert "nothing to show" in line_plot({"a": []}, title="Curve")
    assert "nothing to show" in histogram({}, title="Values")


def test_series_differ_in_more_than_colour() -> None:
    lines = drawing(line_plot({name: [(0, 0), (1, 1)] for name in "abcd"})).iter("polyline")
    assert len({line.attrib["stroke-dasharray"] for line in lines}) == 4


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
ASK = """
<iframe style="border:0;width:WIDTHpx;height:900px" srcdoc="PAGE"></iframe>
<script>
document.querySelector("iframe").addEventListener("load", (event) => {
  const page = event.target.contentDocument, root = page.documentElement;
  const said = {wide: root.scrollWidth - root.clientWidth};
  const frame = page.querySelector(".slider .frame"), box = frame.getBoundingClientRect();
  const press = new PointerEvent("pointerdown", {clientX: box.left + box.width / 4, buttons: 1});
  frame.dispatchEvent(press);
  said.at = Number.parseFloat(frame.style.getPropertyValue("--at"));
  const button = page.querySelector("button[data-layer=truth]");
  const layer = page.querySelector("[data-layer=truth].layer");
  const states = [layer.hidden];
  for (let clicks = 0; clicks < 2; clicks++) { button.click(); states.push(layer.hidden); }
  said.hidden = states;
  document.title = JSON.stringify(said);
});
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
@pytest.mark.parametrize("width", [340, 480])
def test_in_a_browser_a_page_fits_a_phone_and_its_slider_moves(tmp_path: Path, width: int) -> None:
    asking = ASK.replace("WIDTH", str(width)).replace("PAGE", html.escape(full_page().html()))
    (tmp_path / "ask.html").write_text(asking, encoding="utf-8")
    assert BROWSER
    shown = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            f"file://{tmp_path / 'ask.html'}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    said = html.unescape(shown.partition("<title>")[2].partition("</title>")[0])
    assert said == '{"wide":0,"at":25,"hidden":[true,false,true]}'
