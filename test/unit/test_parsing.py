"""Any YAML and JSON is read or is a ``ValueError``, and neither takes long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rain_removal_ros import parsing

LAUGHS = "\n".join(
    ["a0: &a0 [ha]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
)
"""A few lines that expand to thousands of millions of values."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line 1: expected"),
        ("- " * 5000, "nested too deeply"),
        ("[" * 70 + "]" * 70, "nested too deeply"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 0x_", "invalid literal"),
        ("a: !!timestamp yesterday", "a value cannot be read"),
        ("a: !!bool perhaps", "a value cannot be read"),
        ("&a [*a]", "contains itself"),
        (LAUGHS, "more than 200000 values"),
        ("? [a]\n: 1", "unhashable"),
        ("a: \x00", "special characters"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_malformed_yaml_is_a_one_line_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        parsing.from_yaml(text)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_dates_are_read_as_text_even_if_they_do_not_exist() -> None:
    read = parsing.from_yaml("run: 2026-11-26\nother: 2026-99-99")
    assert read == {"run": "2026-11-26", "other": "2026-99-99"}


def test_aliases_are_read() -> None:
    assert parsing.from_yaml("a: &x {b: 1}\nc: *x") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "{", ""])
def test_malformed_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parsing.from_json(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text("abc-: 1", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_written_values_are_read_back(value: Any) -> None:
    assert parsing.from_yaml(yaml.safe_dump(value)) == value
    assert parsing.from_json(json.dumps(value)) == value


@given(st.text("[]{}&*a:-? \n!|>#%@0x.,'\"", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsing.from_yaml(text)
    except ValueError:
        return


def test_files_longer_than_a_person_writes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_bytes(b"# " + b"a" * parsing.MOST_BYTES)
    with pytest.raises(ValueError, match="larger than"):
        parsing.text_of(tmp_path / "long.yaml")
    with pytest.raises(ValueError, match="larger than"):
        parsing.text_of(Path("/dev/zero"))
