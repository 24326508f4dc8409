"""Every setting is a parameter with a description, and a change is complete or refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from rcl_interfaces.msg import Parameter as Message
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter
from ros.desk import Desk, Faulty, message, picture, pixels, until

from rain_removal_ros import camera as camera_under_test
from rain_removal_ros import checkpoints, networks, settings
from rain_removal_ros.engines import export
from rain_removal_ros.errors import SettingsError
from rain_removal_ros.ros import parameters
from rain_removal_ros.runtime.files import model_folders
from rain_removal_ros.runtime.threads import usual_threads
from rain_removal_ros.settings import Settings

EXACT = {"engine.precision": "float32", "engine.threads": 1}
IDLE = {"node.autostart": False}


def set_over_ros(desk: Desk, *, kind: Any = SetParameters, **values: Any) -> list[Any]:
    request = kind.Request()
    request.parameters = [
        Parameter(name.replace("__", "."), value=value).to_parameter_msg()
        for name, value in values.items()
    ]
    answer = desk.call(kind, f"/derain/{snake(kind.__name__)}", request)
    return answer.results if kind is SetParameters else [answer.result]


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]


@pytest.mark.parametrize("kind", [SetParameters, SetParametersAtomically])
def test_a_name_that_does_not_exist_is_answered_with_near_ones(desk: Desk, kind: Any) -> None:
    node = desk.derainer(IDLE)
    *_, result = set_over_ros(desk, kind=kind, stream__strength=0.5, safety__budget=50.0)
    assert not result.successful
    assert result.reason.startswith("unknown setting 'safety.budget'; near: safety.budget_ms")
    assert node.settings.stream.strength == (0.5 if kind is SetParameters else 1.0)


def test_every_setting_is_a_parameter_with_its_description_unit_range_and_default(
    desk: Desk,
) -> None:
    desk.derainer(IDLE)
    entries = {entry.name: entry for entry in settings.entries(Settings)}
    listed = desk.call(ListParameters, "/derain/list_parameters").result.names
    assert set(entries) <= set(listed)
    names = list(entries)
    described = desk.call(
        DescribeParameters, "/derain/describe_parameters", DescribeParameters.Request(names=names)
    ).descriptors
    values = desk.call(
        GetParameters, "/derain/get_parameters", GetParameters.Request(names=names)
    ).values
    defaults = {**settings.flatten(Settings()), **IDLE}
    for one, value in zip(described, values, strict=True):
        entry = entries[one.name]
        assert entry.described.help in one.description
        assert entry.described.unit in one.description
        assert one.read_only is not entry.described.live
        assert not one.dynamic_typing
        ranges = [*one.integer_range, *one.floating_point_range]
        if entry.described.low is not None:
            assert (ranges[0].from_value, ranges[0].to_value) == (
                entry.described.low,
                entry.described.high,
            )
        for choice in entry.described.choices:
            assert choice in one.additional_constraints
        given = Parameter.from_parameter_msg(_named(one.name, value)).value
        expected = defaults[one.name]
        assert given == (list(expected) or [""] if isinstance(expected, tuple) else expected)


def _named(name: str, value: Any) -> Any:
    return Message(name=name, value=value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stream__strength": 1.5}, "out of range"),
        ({"stream__strength": "much"}, "type"),
        ({"bypass__mode": "sometimes"}, "never, auto, always"),
        ({"bypass__off_below": 0.9}, "must not exceed"),
        ({"output__jpeg_quality": 0}, "out of range"),
        ({"network__name": "/etc/passwd"}, "not '/etc/passwd'"),
        ({"network__name": "rainsteam"}, "rainstream"),
        ({"node__autostart": True}, "read-only"),
        ({"input__cameras": ["a"]}, "read-only"),
        ({"nonsense": 1}, ""),
    ],
)
def test_an_impossible_change_is_refused_with_the_reason(
    desk: Desk, change: dict[str, Any], reason: str
) -> None:
    node = desk.derainer(IDLE)
    before = node.settings
    (result,) = set_over_ros(desk, **change)
    assert not result.successful
    assert reason in result.reason
    assert node.settings == before


def test_an_overlong_path_is_refused(desk: Desk, tmp_path: Path) -> None:
    desk.derainer({**IDLE, "safety.model_paths": [str(tmp_path)]})
    (result,) = set_over_ros(desk, network__weights=f"{tmp_path}/{'x' * 300}")
    assert not result.successful
    assert "there is no file" in result.reason


@pytest.mark.parametrize("kind", [SetParameters, SetParametersAtomically])
def test_a_check_that_raises_is_answered_with_a_refusal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    node = desk.derainer(IDLE)

    def fail(*_: Any) -> str:
        raise ZeroDivisionError("by mistake")

    monkeypatch.setattr(parameters, "_forbidden_path", fail)
    (result,) = set_over_ros(desk, kind=kind, stream__strength=0.5)
    assert not result.successful
    assert "ZeroDivisionError: by mistake" in result.reason
    assert node.settings.stream.strength == 1.0


@pytest.mark.parametrize("kind", [SetParameters, SetParametersAtomically])
def test_a_value_of_an_unknown_type_is_refused(desk: Desk, kind: Any) -> None:
    desk.derainer(IDLE)
    request = kind.Request()
    request.parameters = [
        Message(name="stream.strength", value=ParameterValue(type=99)),
        Parameter("stream.strength", value=0.5).to_parameter_msg(),
    ]
    answer = desk.call(kind, f"/derain/{snake(kind.__name__)}", request)
    if kind is SetParameters:
        assert [result.successful for result in answer.results] == [False, True]
    else:
        assert not answer.result.successful


def test_atomic_changes_are_made_together_or_not_at_all(desk: Desk) -> None:
    node = desk.derainer(IDLE)
    both = {"bypass__on_above": 0.9, "bypass__off_below": 0.8}
    (result,) = set_over_ros(desk, kind=SetParametersAtomically, **both)
    assert result.successful
    assert (node.settings.bypass.on_above, node.settings.bypass.off_below) == (0.9, 0.8)
    wrong = {"stream__strength": 0.5, "bypass__mode": "sometimes"}
    (result,) = set_over_ros(desk, kind=SetParametersAtomically, **wrong)
    assert not result.successful
    assert node.settings.stream.strength == 1.0


def test_an_integer_is_accepted_for_a_float(desk: Desk) -> None:
    node = desk.derainer({**IDLE, "stream.max_gap_s": 3})
    assert node.settings.stream.max_gap_s == 3.0
    (result,) = set_over_ros(desk, stream__max_gap_s=4)
    assert result.successful
    assert node.settings.stream.max_gap_s == 4.0
    assert node.get_parameter("stream.max_gap_s").type_.value == ParameterType.PARAMETER_DOUBLE


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"stream.strenght": 1.0}, "stream.strength"),
        ({"stream.strength": 2.0}, "0 to 1"),
        ({"input.cameras": ["front camera"]}, "namespace"),
        ({"input.cameras": ["a", "a"]}, "twice"),
        ({"network.name": "nothing"}, "not 'nothing'"),
    ],
)
def test_a_wrong_parameter_at_startup_is_an_error_with_the_reason(
    desk: Desk, parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        desk.derainer(parameters)


def test_a_shipped_size_is_accepted_as_a_network(desk: Desk) -> None:
    node = desk.derainer({**IDLE, "network.name": "rainstream_s"})
    (result,) = set_over_ros(desk, network__name="rainstream_l")
    assert result.successful
    assert node.settings.network.name == "rainstream_l"


def test_a_path_set_over_ros_must_lie_in_a_folder_allowed_at_startup(
    desk: Desk, faulty: Faulty, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    inside, link = allowed / "inside.safetensors", allowed / "link.safetensors"
    inside.write_bytes(faulty.weights.read_bytes())
    link.symlink_to(faulty.weights)
    desk.derainer({**IDLE, "safety.model_paths": [str(allowed)]})
    outside = [
        str(faulty.weights),
        str(allowed / ".." / faulty.weights.name),
        str(link),
        f"{allowed}-beside/weights.safetensors",
        "/etc/passwd",
    ]
    for path in outside:
        (result,) = set_over_ros(desk, network__weights=path)
        assert (result.successful, "safety.model_paths" in result.reason) == (False, True), path
    for path in ("/tmp/elsewhere", str(model_folders()[0] / "engines")):
        (result,) = set_over_ros(desk, engine__cache=path)
        assert (result.successful, "safety.model_paths" in result.reason) == (False, True), path
    (result,) = set_over_ros(desk, network__weights=str(allowed / "missing.safetensors"))
    assert "there is no file" in result.reason
    (result,) = set_over_ros(desk, network__weights=str(inside))
    assert result.successful
    (result,) = set_over_ros(desk, network__weights="")
    assert result.successful


def test_a_change_applies_to_the_next_frame(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    bright = picture().mean()
    for index, (strength, share) in enumerate([(1.0, 0.5), (0.0, 1.0), (0.5, 0.75)]):
        (result,) = set_over_ros(desk, stream__strength=strength)
        assert result.successful
        sent = message(picture(), stamp_ns=index)
        camera.publish(sent)
        received = derained.wait(lambda one, sent=sent: one.header == sent.header)
        assert pixels(received).mean() == pytest.approx(share * bright, abs=1)


def test_the_old_network_stays_until_the_new_one_has_run_once(
    desk: Desk, faulty: Faulty, weights: Path, tmp_path: Path
) -> None:
    node = desk.derainer(
        {
            "network.weights": str(weights),
            "safety.model_paths": [str(tmp_path)],
            "safety.retry_s": 0.05,
            **EXACT,
        }
    )
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    first = node.engine
    faulty.order("raise")
    (result,) = set_over_ros(desk, network__weights=str(faulty.weights))
    assert result.successful
    until(lambda: node.trouble, "a first run that fails")
    camera.publish(message(picture(), stamp_ns=1))
    derained.wait()
    assert node.engine is first
    assert not node.statistics[0].summary().passed
    faulty.order("")
    until(lambda: node.engine is not first, "the new network")
    camera.publish(message(picture(), stamp_ns=2))
    received = derained.wait(lambda one: one.header.stamp.nanosec == 2)
    assert pixels(received).mean() < 0.6 * picture().mean()
    assert node.statistics[0].summary().last_reset == "another network"
    assert not node.trouble


def test_the_set_number_of_threads_computes_and_0_restores_the_usual_number(
    desk: Desk, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed_with: list[int] = []
    step_together = camera_under_test.step_together

    def recorded_call(*arguments: Any, **more: Any) -> Any:
        computed_with.append(torch.get_num_threads())
        return step_together(*arguments, **more)

    monkeypatch.setattr(camera_under_test, "step_together", recorded_call)
    usual = usual_threads()
    node = desk.derainer(
        {"network.weights": str(faulty.weights), **EXACT, "engine.threads": usual + 1}
    )
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    engine = None
    for number, (threads, expected) in enumerate([(usual + 1,) * 2, (usual + 2,) * 2, (0, usual)]):
        set_over_ros(desk, engine__threads=threads)
        engine = until(lambda old=engine: node.engine is not old and node.engine, "the network")
        camera.publish(message(picture(), stamp_ns=number))
        derained.count(number + 1)
        assert computed_with[-1] == expected


def test_an_engine_builds_its_stages_in_the_loader_thread(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    built: list[tuple[str, int]] = []
    whole = export.export

    def recorded_call(network: Any, *, stages: int = 0) -> Any:
        built.append((threading.current_thread().name, stages or network.stages))
        return whole(network, stages=stages)

    monkeypatch.setattr(export, "export", recorded_call)
    weights = tmp_path / "prenet.safetensors"
    checkpoints.save(weights, networks.create("prenet", channels=8, blocks=1, stages=4), {})
    node = desk.derainer(
        {
            "network.weights": str(weights),
            "network.stages": 2,
            "engine.name": "onnxruntime",
            "engine.device": "cpu",
            "engine.cache": str(tmp_path / "engines"),
            "stream.scene_cut": 0.0,
        }
    )
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    engine = until(lambda: node.engine, "a loaded network")
    camera.publish(message(picture(), stamp_ns=0))
    derained.count(1)
    set_over_ros(desk, network__stages=3)
    until(lambda: node.engine is not engine, "another number of stages")
    set_over_ros(desk, safety__budget_ms=0.001)
    number = 1
    while node.rung.derain:
        camera.publish(message(picture(), stamp_ns=number))
        number += 1
        derained.count(number)
    assert built == [("load", 2), ("load", 3)]
    summary = node.statistics[0].summary()
    assert not summary.faults
    assert node.engine.info.stages == 3


def test_parameters_may_change_with_every_frame(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    for index in range(60):
        set_over_ros(
            desk,
            stream__strength=index % 11 / 10,
            network__stages=index % 4,
            output__attention=["mono8", "overlay"][index % 2],
            bypass__mode=["never", "auto", "always"][index % 3],
            safety__budget_ms=float(index % 3 * 100),
            stream__carry_state=bool(index % 2),
        )
        camera.publish(message(picture(), stamp_ns=index))
    derained.wait(lambda one: one.header.stamp.nanosec == 59)
    summary = node.statistics[0].summary()
    assert not summary.faults
    assert summary.received == 60
