"""The documents: links have targets, commands parse, examples run, tables agree with their data."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rain_removal_ros import cli
from rain_removal_ros.training import load_recipe

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "models/*.md", "benchmarks/**/*.md", ".github/**/*.md")
    for path in REPOSITORY.glob(pattern)
)


def links(text: str) -> list[str]:
    """The targets of links and images, in Markdown and in HTML."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    return re.findall(r"\]\(([^()\s]+)\)", prose) + re.findall(r"(?:src|href)=\"([^\"]+)\"", prose)


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_has_a_target(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_links_finds_markdown_and_html_links_outside_code() -> None:
    assert links('[a](b.md) ![c](d.png) <img src="e.webp">\n`[f](g)`') == [
        "b.md",
        "d.png",
        "e.webp",
    ]
    assert anchors("# What's new?\n## `engine.name`: a, b\n") == {"whats-new", "enginename-a-b"}


def test_the_picture_of_the_readme_is_animated_and_small() -> None:
    path = REPOSITORY / "docs" / "images" / "derain.webp"
    assert "docs/images/derain.webp" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert path.stat().st_size < 2_000_000
    with Image.open(path) as picture:
        assert picture.n_frames >= 24  # type: ignore[attr-defined]
        assert picture.width <= 1012, "no wider than a page on GitHub"


def commands(text: str) -> list[str]:
    """The calls of ``rain-removal`` in a page's blocks of code, each on one line."""
    blocks = re.findall(r"^```(?:console)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    calls = [line.removeprefix("$ ").strip() for line in lines]
    return [call for call in calls if re.match(r"rain-removal [a-z]", call)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_command_line_parses_every_command_in_the_documents(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = cli._parser()
    for call in commands(path.read_text(encoding="utf-8")):
        words = shlex.split(call, comments=True)[1:]
        try:
            parser.parse_args(words)
            code: object = 0
        except SystemExit as ended:
            code = ended.code
        assert code == 0, f"{call}: {capsys.readouterr().err}"


def test_commands_joins_lines_and_reads_unmarked_blocks() -> None:
    text = "```console\n$ rain-removal eval \\\n --clean a\n```\n\n```\nls\nrain-removal -h\n```\n"
    assert commands(text) == ["rain-removal eval   --clean a"]


def test_the_recipe_of_the_tutorial_is_valid(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    path = tmp_path / "my.yaml"
    path.write_text(block)
    recipe = load_recipe(path)
    assert recipe.data.sources
    assert recipe.validation


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for index in range(2):
        cv2.imwrite(f"frame{index}.png", np.full((48, 64, 3), 100 + index, np.uint8))
    exec(compile(block, "README.md", "exec"), {})
    assert cv2.imread("derained_frame1.png").shape == (48, 64, 3)
    assert cv2.imread("attention_frame1.png", cv2.IMREAD_UNCHANGED).shape == (48, 64)


@pytest.mark.parametrize("name", ["detection", "detection_drives"])
def test_the_table_of_a_page_agrees_with_its_data(name: str) -> None:
    page = (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8")
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.partition("<!-- tables -->")[2].splitlines()
        if line.startswith("|")
    ]
    conditions = table[0][2:-1]
    with (REPOSITORY / "benchmarks" / "results" / f"{name}.csv").open(newline="") as file:
        lines = {
            (row["detector"], row["condition"], row["shown"]): row for row in csv.DictReader(file)
        }
    compared = 0
    for detector, shown, *cells, _ in table[2:]:
        for condition, cell in zip(conditions, cells, strict=True):
            if cell:
                line = lines[detector, condition, shown]
                score, *verdict = cell.split(", ")
                assert float(score) == round(float(line["AP50"]), 1), (detector, shown, condition)
                assert verdict[:1] == ([line["verdict"]] if line["verdict"] and verdict else [])
                compared += 1
    assert compared > 40


def test_the_table_in_contributing_names_existing_code() -> None:
    """Each row names a file and a function or class that is defined there."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| Where .*\? \| `(.+)` \| `(\w+)` \|$", text, re.MULTILINE)
    assert len(rows) == 10
    for file, name in rows:
        code = (REPOSITORY / "rain_removal_ros" / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *(?:def|class) {name}\b", code, re.MULTILINE), (file, name)
