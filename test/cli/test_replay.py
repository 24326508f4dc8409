"""``rain-removal replay`` derains recordings; ``bag-bench --offline`` compares settings."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import recordings

from rain_removal_ros import checkpoints, cli, networks
from rain_removal_ros.bags import open_recording

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
SCRIPT = """
<script>
Element.prototype.setPointerCapture = () => {};  // there is no pointer, only its event
addEventListener("load", () => {
  const frame = document.querySelector(".slider .frame"), box = frame.getBoundingClientRect();
  const at = {clientX: box.left + 0.25 * box.width, buttons: 1};
  frame.dispatchEvent(new PointerEvent("pointerdown", at));
  const drawn = [...document.querySelectorAll("svg")].filter((plot) => {
    const shape = plot.querySelector("polyline, rect, circle");
    return shape && shape.getBoundingClientRect().height > 0;
  });
  document.title = JSON.stringify({
    plots: drawn.length,
    at: Number.parseFloat(frame.style.getPropertyValue("--at")),
  });
});
</script>
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoints.save(path, networks.create("rainstream", channels=8, blocks=1), {})
    return path


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return recordings.write(tmp_path / "bag", recordings.entries())


def replay(weights: Path, *arguments: object) -> int:
    flags = ("--model", weights, "--device", "cpu", "--precision", "float32")
    return cli.main(["replay", *map(str, (*arguments, *flags))])


def test_a_recording_is_derained_scored_and_reported(
    bag: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures = tmp_path / "report.html", tmp_path / "figures.json"
    out = tmp_path / "out"
    assert replay(weights, bag, "-o", out, "--report", page, "--json", figures) == 0
    said = capsys.readouterr().out
    assert "/camera/image_raw -> /camera/image_derained: 6 frames" in said
    result = json.loads(figures.read_text())
    assert (result["frames"], result["engine"]["network"]) == (6, "rainstream")
    assert result["settings"]["network.weights"] == result["engine"]["model"] == str(weights)
    assert len(result["each_frame"]["/camera/image_raw"]) == 6
    content = page.read_text()
    assert "/camera/image_raw" in content
    assert f"derained by {weights} on" in content
    assert "http" not in content.replace("http://www.w3.org", "")
    with open_recording(out) as recording:
        assert recording.counts.total() == 18 + 4 * 6


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_the_report_works_in_a_browser(bag: Path, weights: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert replay(weights, bag, "-o", tmp_path / "out", "--report", page) == 0
    page.write_text(page.read_text() + SCRIPT)
    assert BROWSER
    shown = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--virtual-time-budget=5000", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in shown.stderr
    told = shown.stdout.partition("<title>")[2].partition("</title>")[0]
    said = json.loads(html.unescape(told))
    assert said["plots"] >= 3
    assert said["at"] == pytest.approx(25, abs=1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topics", "/camera/image_row"], "images are on /camera/image_raw"),
        (["--every", "0"], "--every must be 1 or more, not 0"),
        (["--start", "-1"], "the start must not be negative"),
        (["--stream.max-gap-s", "soon"], "stream.max_gap_s is number, not 'soon'"),
        (["--network.stages", "99"], "network.stages is 0 to 32, not 99"),
        (["--safety.watchdog-s", "9"], "a replay cannot honour safety.watchdog_s: "),
    ],
)
def test_a_wrong_argument_gives_a_one_line_error_and_writes_nothing(
    bag: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    assert replay(weights, bag, "-o", tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_flags_override_the_settings_of_a_file(bag: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("stream: {strength: 0.5, scene_cut: 0.1}\n")
    figures = tmp_path / "figures.json"
    flags = ("--config", tmp_path / "my.yaml", "--stream.strength", "0.75", "--json", figures)
    assert replay(weights, bag, "-o", tmp_path / "out", *flags) == 0
    settings = json.loads(figures.read_text())["settings"]
    assert (settings["stream.strength"], settings["stream.scene_cut"]) == (0.75, 0.1)


def test_losses_of_a_damaged_recording_are_reported(
    bag: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recordings.storage_file(bag)
    file.write_bytes(file.read_bytes()[:-20_000])
    assert replay(weights, bag, "-o", tmp_path / "out") == 0
    assert "lost: bag.mcap is cut off in the middle of a record" in capsys.readouterr().err


def test_a_bad_recording_in_a_folder_is_reported_and_the_others_are_derained(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    recordings.write(folder / "good", recordings.entries(2))
    (folder / "bad.mcap").write_text("nothing of the kind")
    page = tmp_path / "fleet.html"
    assert replay(weights, folder, "-o", tmp_path / "out", "--report", page) == 1
    said = capsys.readouterr()
    assert "bad: " in said.err
    assert "bad.mcap is no MCAP file" in said.err
    assert said.out.strip() == "1 recordings derained, 2 frames, 1 failed"
    assert 'href="out/good.html"' in page.read_text()
    assert (tmp_path / "out" / "good" / "metadata.yaml").is_file()


def test_bag_bench_offline_compares_settings(
    bag: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, page = tmp_path / "bench.json", tmp_path / "bench.html"
    tried = ("always:", "never:bypass.mode=always", "rain:bypass.mode=auto,bypass.on_above=1.0")
    flags = [word for each in tried for word in ("--try", each)]
    flags += ["--model", str(weights), "--device", "cpu", "--json", str(figures)]
    assert cli.main(["bag-bench", str(bag), "--offline", "--report", str(page), *flags]) == 0
    rows = {row["name"]: row for row in json.loads(figures.read_text())["results"]}
    assert {name: row["passed"] for name, row in rows.items()} == {
        "always": {}, "never": {"bypass": 6}, "rain": {"no rain": 6},
    }  # fmt: skip
    assert rows["always"]["rate_hz"] > 0
    assert rows["never"]["rate_hz"] is None
    assert "bypass 6" in capsys.readouterr().out
    assert cli.main(["bag-bench", str(bag), "--offline", "--try", "x:input.max_age_ms=5"]) == 2
    assert "cannot honour input.max_age_ms" in capsys.readouterr().err
