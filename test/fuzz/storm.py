"""A storm of parameter changes, with transitions and services, while a camera sends frames."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from fuzz.effort import Effort, Figures, Process, slowness
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as Message
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_parameters
from ros.desk import (
    PATIENCE_S,
    Desk,
    Faulty,
    flags,
    message,
    networks_of_tests,
    picture,
    until,
    until_frames_pass,
)
from std_srvs.srv import SetBool, Trigger

from rain_removal_ros import settings
from rain_removal_ros.settings import Settings

__all__ = ["LONG", "SHORT", "attack"]

SHORT, LONG = 8, 300
"""Numbers of seconds."""
RATE_HZ = 100.0
ANSWER_S = 2.0
"""The time within which every request must be answered."""
THREADS = 40
_FRAME_S = 0.1
_TRANSITIONS = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
    99,
)
_NOT_CHANGED = ("engine.compile", "safety.retry_s")
"""Compiling takes all cores for minutes. A late retry would delay the end of the attack."""


class _Clients:
    """Sends requests, and notes how long each waits for its answer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._clients: dict[str, Any] = {}
        self.waits_s: list[float] = []
        self.waiting: dict[int, tuple[str, float]] = {}
        self.sent: Counter[str] = Counter()

    def send(self, kind: Any, name: str, request: Any) -> None:
        if name not in self._clients:
            # By default a client keeps only the last ten of the answers that it has not read yet.
            self._clients[name] = self._desk.tools.create_client(
                kind, f"/derain/{name}", qos_profile=qos_profile_parameters
            )
            assert self._clients[name].wait_for_service(60), f"no service {name}"
        number, began = self.sent.total(), time.monotonic()
        self.sent[name] += 1
        self.waiting[number] = name, began
        future = self._clients[name].call_async(request)
        future.add_done_callback(lambda _: self._answered(number, began))

    def _answered(self, number: int, began: float) -> None:
        self.waits_s.append(time.monotonic() - began)
        del self.waiting[number]


def attack(effort: Effort) -> Figures:
    """Send a hundred requests a second for ``count`` seconds."""
    with networks_of_tests(), closing(Desk(effort.domain)) as desk:
        return _attack(desk, effort)


def _attack(desk: Desk, effort: Effort) -> Figures:
    faulty = Faulty(effort.folder)
    other = faulty.saved(stages=2)
    parameters = {
        "network.weights": faulty.weights,
        "safety.model_paths": f"[{effort.folder}]",
        "engine.threads": 1,
        "engine.cache": effort.folder / "engines",
    }
    node = desk.process(*flags(parameters), log=effort.folder / "node.log")
    camera, derained, attention = desk.publisher(), desk.inbox(), desk.inbox("attention")
    desk.listened(camera)
    until_frames_pass(camera, attention, PATIENCE_S)
    held = Process(node.pid)
    held.look()
    clients = _Clients(desk)
    for kind, name, request in _requests_at(RATE_HZ, effort, str(faulty.weights), str(other)):
        clients.send(kind, name, request)
        if clients.sent.total() % int(RATE_HZ * _FRAME_S) == 0:
            camera.publish(message(picture()))
            held.look()
            derained.clear()
    until(lambda: not clients.waiting, f"answers to {list(clients.waiting.values())[:5]}", 60.0)
    assert node.poll() is None, (effort.folder / "node.log").read_text()[-2000:]
    clients.send(SetParameters, "set_parameters", _working_settings(str(faulty.weights)))
    _activate(desk)
    until_frames_pass(camera, attention, PATIENCE_S)
    waits_s = sorted(clients.waits_s)
    longest_s = waits_s[-1]
    assert longest_s < ANSWER_S * slowness(), f"an answer took {longest_s:.1f} s"
    held.check(memory_mb=300, threads=THREADS, files=10)
    return {
        "requests": clients.sent.total(),
        "of them for parameters": clients.sent["set_parameters"],
        "of them transitions": clients.sent["change_state"],
        "median wait [ms]": round(1e3 * waits_s[len(waits_s) // 2], 1),
        "longest wait [s]": round(longest_s, 2),
        **held.figures(),
    }


def _requests_at(rate_hz: float, effort: Effort, *weights: str) -> Iterator[tuple[Any, str, Any]]:
    """Requests, each yielded when it is due."""
    began = time.monotonic()
    for number in range(int(effort.count * rate_hz)):
        time.sleep(max(0.0, began + number / rate_hz - time.monotonic()))
        yield _request(effort.choice, weights)


def _request(choice: random.Random, weights: tuple[str, ...]) -> tuple[Any, str, Any]:
    kind = choice.random()
    if kind < 0.02:
        request = ChangeState.Request(transition=Transition(id=choice.choice(_TRANSITIONS)))
        return ChangeState, "change_state", request
    if kind < 0.04:
        return GetState, "get_state", GetState.Request()
    if kind < 0.06:
        return Trigger, "reset_state", Trigger.Request()
    if kind < 0.08:
        return SetBool, "enable", SetBool.Request(data=choice.random() < 0.5)
    names = [_name(choice) for _ in range(choice.randrange(4))]
    if kind < 0.10:
        return GetParameters, "get_parameters", GetParameters.Request(names=names)
    if kind < 0.12:
        return DescribeParameters, "describe_parameters", DescribeParameters.Request(names=names)
    if kind < 0.14:
        return ListParameters, "list_parameters", ListParameters.Request(prefixes=names)
    changes = [_change(choice, weights) for _ in range(choice.choice([1, 1, 1, 2, 5]))]
    if kind < 0.3:
        request = SetParametersAtomically.Request(parameters=changes)
        return SetParametersAtomically, "set_parameters_atomically", request
    return SetParameters, "set_parameters", SetParameters.Request(parameters=changes)


def _entries() -> list[settings.Entry]:
    return [entry for entry in settings.entries(Settings) if entry.name not in _NOT_CHANGED]


def _name(choice: random.Random) -> str:
    odd = ["", "nonsense", "x" * 300, "stream.", ".strength", "use_sim_time"]
    return choice.choice([entry.name for entry in _entries()] + odd)


def _change(choice: random.Random, weights: tuple[str, ...]) -> Message:
    if choice.random() < 0.05:
        return Message(name=_name(choice), value=ParameterValue(type=choice.randrange(256)))
    if choice.random() < 0.15:
        folder = weights[0].rpartition("/")[0]
        paths = [*weights, *weights, f"{folder}/{'x' * 300}", "/etc/passwd", f"{folder}/../x", ""]
        return Parameter("network.weights", value=choice.choice(paths)).to_parameter_msg()
    entry = choice.choice(_entries())
    return Parameter(entry.name, value=_value(entry, choice)).to_parameter_msg()


def _value(entry: settings.Entry, choice: random.Random) -> Any:
    """A random value, mostly one that the setting accepts."""
    if choice.random() < 0.15:
        return choice.choice([-1, 10**18, float("nan"), "x" * 300, True, [1, 2], ["a"], [b"\x00"]])
    described = entry.described
    if described.choices:
        # Building an engine delays the engines after it for seconds.
        rare = entry.name == "engine.name" and choice.random() < 0.9
        return "torch" if rare else choice.choice(described.choices)
    if entry.kind is bool:
        return choice.random() < 0.5
    if entry.kind in (int, float):
        low, high = described.low or 0, min(described.high or 1, 8)
        return (
            choice.randint(int(low), int(high)) if entry.kind is int else choice.uniform(low, high)
        )
    return choice.choice(["auto", "cpu", "cuda", "rainstream", "nonsense", ""])


def _working_settings(weights: str) -> Any:
    """A request that makes a node derain again, whatever was set before."""
    kept = ("network.name", "network.stages", "engine.cache")
    defaults = settings.flatten(Settings())
    values = {
        entry.name: defaults[entry.name]
        for entry in _entries()
        if entry.described.live and entry.name not in kept
    }
    values |= {"network.weights": weights, "engine.threads": 1}
    parameters = [Parameter(name, value=value) for name, value in values.items()]
    return SetParameters.Request(parameters=[each.to_parameter_msg() for each in parameters])


def _activate(desk: Desk) -> None:
    """Activate the node, whatever state it is in."""
    for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=number))
        desk.call(ChangeState, "/derain/change_state", request)
    desk.call(SetBool, "/derain/enable", SetBool.Request(data=True))
