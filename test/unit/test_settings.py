"""Settings are defined once, read from files and flags, and checked with one-line errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rain_removal_ros import settings
from rain_removal_ros.errors import SettingsError
from rain_removal_ros.settings import Settings

ENTRIES = {entry.name: entry for entry in settings.entries(Settings)}


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_overrides_defaults_and_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "stream: {max_gap_s: 2.0, strength: 0.5}\n")
    loaded = settings.load(Settings, path, {"stream.strength": 0.25})
    assert loaded.stream.strength == 0.25
    assert loaded.stream.max_gap_s == 2.0
    assert loaded.stream.scene_cut == Settings().stream.scene_cut
    assert loaded.engine == Settings().engine


def test_names_may_be_dotted_or_nested() -> None:
    nested = settings.build(Settings, {"safety": {"budget_ms": 50.0}})
    assert nested == settings.build(Settings, {"safety.budget_ms": 50.0})


def test_flattened_settings_can_be_built_again() -> None:
    changed = settings.replace(Settings(), {"network.name": "prenet", "input.cameras": ["left"]})
    assert changed.input.cameras == ("left",)
    assert settings.build(Settings, settings.flatten(changed)) == changed


def test_a_wrong_change_leaves_the_settings_unchanged() -> None:
    before = Settings()
    with pytest.raises(SettingsError):
        settings.replace(before, {"stream.strength": 0.5, "stream.scene_cut": 7.0})
    assert before == Settings()


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("stream.max_gap", "stream.max_gap_s"),
        ("engine.devise", "engine.device"),
        ("safety.watchdog", "safety.watchdog_s"),
    ],
)
def test_an_unknown_name_is_refused_with_similar_ones(
    tmp_path: Path, wrong: str, near: str
) -> None:
    path = write(tmp_path, f"{wrong}: 1\n")
    with pytest.raises(SettingsError) as raised:
        settings.load(Settings, path)
    assert f"{path}: unknown setting '{wrong}'; near: " in str(raised.value)
    assert near in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stream.strength", 1.5, "stream.strength is 0 to 1, not 1.5"),
        ("stream.max_gap_s", -1.0, "stream.max_gap_s is 0 to 3600 s, not -1.0"),
        ("stream.strength", "much", "stream.strength is number, not 'much'"),
        ("stream.strength", float("nan"), "stream.strength is number, not nan"),
        ("stream.carry_state", 1, "stream.carry_state is true or false, not 1"),
        ("network.stages", True, "network.stages is integer, not True"),
        ("network.stages", 2.0, "network.stages is integer, not 2.0"),
        ("network.name", 5, "network.name is text, not 5"),
        ("engine.precision", "float8", "engine.precision is one of auto, float32"),
        ("input.cameras", "left", "input.cameras is list of text, not 'left'"),
        ("input.cameras", [1], "input.cameras is list of text, not [1]"),
        ("input.cameras", ["a b"], "'a b' cannot be a namespace"),
        ("input.cameras", ["a", "a"], "input.cameras names a camera twice"),
        ("bypass.off_below", 0.9, "must not exceed bypass.on_above"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        settings.build(Settings, {name: value})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_integers_are_accepted_for_floats() -> None:
    built = settings.build(Settings, {"stream.max_gap_s": 2})
    assert built.stream.max_gap_s == 2.0
    assert type(built.stream.max_gap_s) is float


RANGED = [
    name
    for name, entry in ENTRIES.items()
    if entry.kind is float and entry.described.low is not None
]


@given(name=st.sampled_from(RANGED), value=st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_are_accepted_only_within_their_range(name: str, value: float) -> None:
    low, high = ENTRIES[name].described.low, ENTRIES[name].described.high
    assert low is not None
    assert high is not None
    try:
        built = settings.flatten(settings.build(Settings, {name: value}))
    except SettingsError:
        # The two thresholds of the bypass also limit each other.
        assert not low <= value <= high or name.startswith("bypass.")
    else:
        assert low <= built[name] <= high


def test_a_ros_parameter_file_can_be_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "/**:\n  ros__parameters:\n    use_sim_time: true\n    stream: {strength: 0.5}\n"
        "/front/derain:\n  ros__parameters:\n    engine.device: cpu\n    input.cameras: ['']\n"
        "    qos_overrides: {/image: {subscription: {depth: 3}}}\n",
    )
    loaded = settings.load(Settings, path)
    assert loaded.stream.strength == 0.5
    assert loaded.engine.device == "cpu"
    assert loaded.input.cameras == ()


def test_the_parameter_file_holds_every_setting_with_its_help() -> None:
    text = settings.parameter_file(Settings, "Everything")
    parameters = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert settings.build(Settings, parameters) == Settings()
    said = " ".join(text.replace("#", " ").split())
    for entry in ENTRIES.values():
        assert entry.described.help in said


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert settings.load(Settings, write(tmp_path, "# nothing\n")) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not YAML"),
        ("- 1\n- 2\n", "must hold names and values, not a list"),
        ("/**: {ros__parameters: word}\n", "ros__parameters must hold names and values, not a str"),
        ("stream: " + "[" * 2000, "is not YAML: it is nested too deeply"),
        ("stream: {strength: " + "9" * 5000 + "}", "is not YAML: Exceeds the limit"),
        ("stream: {strength: " + "9" * 400 + "}", "stream.strength is number, not"),
        ("engine: {threads: " + "9" * 40 + "}", "engine.threads is integer, not"),
        ("stream: {strength: 2026-13-32}", "stream.strength is number, not '2026-13-32'"),
        ("engine: {device: {a: &b [*b]}}", "a value contains itself"),
    ],
)
def test_a_malformed_file_is_a_one_line_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        settings.load(Settings, write(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*: No such file or directory"):
        settings.load(Settings, tmp_path / "none.yaml")


def test_the_reference_describes_every_setting() -> None:
    rows = settings.reference(Settings).splitlines()[2:]
    assert len(rows) == len(ENTRIES)
    for row, entry in zip(rows, ENTRIES.values(), strict=True):
        assert row.startswith(f"| `{entry.name}` | ")
        assert entry.described.help in row
        assert ("Start-up only." in row) == (not entry.described.live)
    by_name = dict(zip(ENTRIES, rows, strict=True))
    assert "number [s] | `0.5`" in by_name["stream.max_gap_s"]
    assert "(0 to 3600)" in by_name["stream.max_gap_s"]
    assert "(never, auto, always)" in by_name["bypass.mode"]
    assert "list of text | `[]`" in by_name["input.cameras"]


def test_every_setting_has_help_and_a_complete_range() -> None:
    for entry in ENTRIES.values():
        assert entry.described.help, entry.name
        assert (entry.described.low is None) == (entry.described.high is None), entry.name


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().stream.strength = 0.5  # type: ignore[misc]
