"""The life cycle: every transition at any time, released memory, and exits without error."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn
from ros.desk import PATIENCE_S, Desk, Faulty, message, picture, pixels, until
from std_srvs.srv import SetBool, Trigger
from without_torch import without_torch

from rain_removal_ros.runtime.devices import cuda_devices

EXACT = {"engine.precision": "float32", "engine.threads": 1, "stream.scene_cut": 0.0}
SUCCESS = TransitionCallbackReturn.SUCCESS


def change(desk: Desk, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(desk.call(ChangeState, "/derain/change_state", request).success)


def state(desk: Desk) -> int:
    return int(desk.call(GetState, "/derain/get_state").current_state.id)


def test_the_node_waits_for_transitions_without_autostart(desk: Desk) -> None:
    node = desk.derainer({"node.autostart": False, "bypass.mode": "always"})
    assert state(desk) == State.PRIMARY_STATE_UNCONFIGURED
    assert not change(desk, Transition.TRANSITION_ACTIVATE)
    assert change(desk, Transition.TRANSITION_CONFIGURE)
    camera, derained = desk.publisher(), desk.inbox()
    assert state(desk) == State.PRIMARY_STATE_INACTIVE
    assert change(desk, Transition.TRANSITION_ACTIVATE)
    desk.listened(camera)
    camera.publish(message(picture()))
    derained.wait()
    assert change(desk, Transition.TRANSITION_DEACTIVATE)
    assert not node.active
    until(lambda: not camera.get_subscription_count(), "the node to stop listening")
    assert change(desk, Transition.TRANSITION_CLEANUP)
    assert state(desk) == State.PRIMARY_STATE_UNCONFIGURED


def test_deactivation_frees_the_network_and_activation_loads_it_again(
    desk: Desk, faulty: Faulty
) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    assert change(desk, Transition.TRANSITION_DEACTIVATE)
    assert node.engine is None
    assert change(desk, Transition.TRANSITION_ACTIVATE)
    until(lambda: node.engine, "a loaded network")
    desk.listened(camera)
    camera.publish(message(picture(), stamp_ns=3))
    assert pixels(derained.wait()).mean() < 0.6 * picture().mean()


def test_the_node_works_after_transitions_in_any_order(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, derained = desk.publisher(), desk.inbox()
    choice = random.Random(3)
    every = [
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
    ]
    for index in range(40):
        change(desk, choice.choice(every))
        camera.publish(message(picture(), stamp_ns=index))
    for transition in every[:2]:
        change(desk, transition)
    assert state(desk) == State.PRIMARY_STATE_ACTIVE
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    camera.publish(message(picture(), stamp_ns=99))
    derained.wait(lambda one: one.header.stamp.nanosec == 99)


def test_state_is_reset_on_request(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    camera.publish(message(picture(), stamp_ns=1))
    derained.count(1)
    assert desk.call(Trigger, "/derain/reset_state").success
    camera.publish(message(picture(), stamp_ns=2))
    derained.count(2)
    assert node.statistics[0].summary().last_reset == "asked to"


def test_an_inactive_node_refuses_to_reset_its_state(desk: Desk) -> None:
    desk.derainer({"node.autostart": False})
    assert not desk.call(Trigger, "/derain/reset_state").success


def test_deraining_can_be_switched_off_and_on(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    for number, on in enumerate((False, True, False), 1):
        assert desk.call(SetBool, "/derain/enable", SetBool.Request(data=on)).success
        camera.publish(message(picture(), stamp_ns=number))
        received = derained.count(number)[-1]
        assert bool(pixels(received).mean() < 0.6 * picture().mean()) is on


# --- Processes -----------------------------------------------------------------------------------


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr of a process, once it has ended."""
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def wait_until_working(desk: Desk, camera: Any, derained: Any) -> None:
    """Wait until frames pass through a process."""
    desk.listened(camera)
    # The first frames may be sent before all publishers and subscribers have found each other.
    until(lambda: camera.publish(message(picture())) or derained.messages, "a frame")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_ends_the_process_without_error(
    desk: Desk, faulty: Faulty, ending: signal.Signals, times: int
) -> None:
    process = desk.process("-p", f"network.weights:={faulty.weights}", "-p", "engine.threads:=1")
    wait_until_working(desk, desk.publisher(), desk.inbox())
    for _ in range(times):
        process.send_signal(ending)
    code, said = ended(process)
    assert (code, "Traceback" in said) == (0, False), said


def test_a_signal_at_startup_ends_the_process_without_error(desk: Desk) -> None:
    for delay_s in (0.0, 0.1, 0.3, 0.6):
        process = desk.process("-p", "bypass.mode:=always")
        # Before this, Python itself is starting and does not handle signals.
        until(lambda process=process: handles_signals(process), "its first lines")
        time.sleep(delay_s)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        code, said = ended(process)
        assert (code, "Traceback" in said) == (0, False), (delay_s, said)


def handles_signals(process: subprocess.Popen[str]) -> bool:
    """Whether a process already handles its signals."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(int(blocked.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_signal_ends_the_process_even_while_the_network_hangs(desk: Desk, faulty: Faulty) -> None:
    process = desk.process(
        "-p", f"network.weights:={faulty.weights}", "-p", "safety.watchdog_s:=1.0"
    )
    camera, derained = desk.publisher(), desk.inbox()
    wait_until_working(desk, camera, derained)
    until(lambda: _next_is_derained(camera, derained), "a derained frame")
    faulty.order("hang")
    derained.clear()
    until(lambda: camera.publish(message(picture())) or derained.messages, "frames going through")
    process.terminate()
    code, said = ended(process)
    assert (code, "Traceback" in said) == (0, False), said


def _next_is_derained(camera: Any, derained: Any) -> bool:
    derained.clear()
    until(lambda: camera.publish(message(picture())) or derained.messages, "a frame")
    return bool(pixels(derained.messages[-1]).mean() < 0.6 * picture().mean())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-p", "stream.strenght:=0.5"], "stream.strength"),
        (["-p", "stream.strength:=[1"], "stream.strength:=[1"),
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--nonsense", "1"], "--nonsense"),
    ],
)
def test_wrong_arguments_end_the_process_with_one_line_that_names_them(
    desk: Desk, arguments: list[str], named: str
) -> None:
    code, said = ended(desk.process(*arguments))
    assert code == 2
    assert named in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        (["network.weights:=/nowhere.safetensors"], "/nowhere.safetensors"),
        (["network.name:=rainstrem"], "rainstrem"),
        (["engine.device:=cuda"], "no CUDA device"),
        (["engine.device:=gpu"], "no device is called 'gpu'; use auto, cpu, cuda or cuda:N"),
        (["output.namespace:=a-b"], "output.namespace"),
    ],
)
def test_parameters_that_can_never_work_end_the_process_with_the_reason(
    desk: Desk, parameters: list[str], named: str
) -> None:
    if named == "no CUDA device" and cuda_devices():
        pytest.skip("there is a CUDA device here")
    arguments = [word for pair in parameters for word in ("-p", pair)]
    code, said = ended(desk.process(*arguments))
    assert code == 2, said
    errors = [line for line in said.splitlines() if "error" in line.lower()]
    assert any(named in line for line in errors), said
    assert "Traceback" not in said


def test_a_new_process_replaces_a_killed_one(desk: Desk) -> None:
    camera, derained = desk.publisher(), desk.inbox()
    first = desk.process("-p", "bypass.mode:=always")
    wait_until_working(desk, camera, derained)
    first.kill()
    first.wait()
    derained.clear()
    desk.process("-p", "bypass.mode:=always")
    until(lambda: camera.publish(message(picture())) or derained.messages, "frames again")


def test_the_node_derains_without_torch(desk: Desk, tmp_path: Path) -> None:
    desk.process("-p", "network.name:=rainstream_s", **without_torch(tmp_path))
    status, camera, derained = (
        desk.inbox("/diagnostics", DiagnosticArray),
        desk.publisher(),
        desk.inbox(),
    )

    def runs_in_onnxruntime(message: DiagnosticArray) -> bool:
        pairs = [(pair.key, pair.value) for status in message.status for pair in status.values]
        return ("engine", "onnxruntime") in pairs

    status.wait(runs_in_onnxruntime)
    desk.listened(camera)
    given = picture()
    derained.clear()
    camera.publish(message(given))
    assert pixels(derained.wait()).shape == given.shape
