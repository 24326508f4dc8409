"""The documents hold together: links lead somewhere, and the README's picture is what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "models/*.md", "benchmarks/**/*.md", ".github/**/*.md")
    for path in REPOSITORY.glob(pattern)
)


def links(text: str) -> list[str]:
    """The targets of Markdown links and images, and those in HTML."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    return re.findall(r"\]\(([^()\s]+)\)", prose) + re.findall(r"(?:src|href)=\"([^\"]+)\"", prose)


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_leads_to_something(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_check_of_links_sees_both_kinds_and_skips_code() -> None:
    assert links('[a](b.md) ![c](d.png) <img src="e.webp">\n`[f](g)`') == ["b.md", "d.png", "e.webp"]
    assert anchors("# What's new?\n## `engine.name`: a, b\n") == {"whats-new", "enginename-a-b"}


def test_the_readmes_picture_moves_and_is_small() -> None:
    path = REPOSITORY / "docs" / "images" / "derain.webp"
    assert "docs/images/derain.webp" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert path.stat().st_size < 2_000_000
    with Image.open(path) as picture:
        assert picture.n_frames >= 24  # type: ignore[attr-defined]
        assert picture.width <= 1012, "no wider than a page on GitHub"
