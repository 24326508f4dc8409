"""Every setting as a ROS parameter: declared from its description, validated before it is stored.

Parameters from a file or the command line are trusted, because they were chosen by whoever started
the node. A parameter set over ROS can come from anyone on the network, so a path must be inside a
folder that was named at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter

from rain_removal_ros import networks
from rain_removal_ros import settings as tree
from rain_removal_ros.errors import SettingsError, near
from rain_removal_ros.runtime.devices import check_device
from rain_removal_ros.settings import Described, Entry, Settings

T = TypeVar("T")

_PATHS = ("network.weights", "engine.cache")
_OTHERS = ("use_sim_time", "qos_overrides", "start_type_description_service")
"""Parameters that rclpy itself declares or may declare."""


class Parameters:
    """The settings of one node, kept in step with its parameters."""

    def __init__(self, node: Node, changed: Callable[[Settings, Settings], None]) -> None:
        """``changed`` gets the old and new settings after they were found valid and stored."""
        self._node = node
        self._changed = changed
        self.settings = declare(node, Settings)
        if reason := _unknown_network(self.settings):
            raise SettingsError(reason)
        node.add_pre_set_parameters_callback(self._whole_numbers_as_floats)
        node.add_on_set_parameters_callback(self._validate)
        node.add_post_set_parameters_callback(self._store)
        _answer_always(node, self._unknown)

    def _unknown(self, name: str) -> str:
        """Why a parameter is refused that does not exist. rclpy's own reason does not name it."""
        if self._node.has_parameter(name):
            return ""
        known = [entry.name for entry in tree.entries(Settings)]
        return f"unknown setting {name!r}; near: {near(name, known)}"

    def _whole_numbers_as_floats(self, wanted: list[Parameter[Any]]) -> list[Parameter[Any]]:
        """Convert integers to floats where a setting needs that: ``ros2 param set`` reads 2 as an
        integer.
        """
        kinds = {entry.name: entry.kind for entry in tree.entries(Settings)}
        return [
            Parameter(item.name, Parameter.Type.DOUBLE, float(item.value))
            if kinds.get(item.name) is float and item.type_ is Parameter.Type.INTEGER
            else item
            for item in wanted
        ]

    def _validate(self, wanted: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Only check: rclpy may still refuse for other reasons."""
        try:
            reason = self._why_not(wanted)
        except Exception as error:  # noqa: BLE001 - of values that come from anyone
            reason = f"it cannot be checked: {type(error).__name__}: {error}"
        return SetParametersResult(successful=not reason, reason=reason)

    def _why_not(self, wanted: Sequence[Parameter[Any]]) -> str:
        """Why parameters cannot be set, if so."""
        changes = _ours(wanted)
        try:
            proposed = tree.replace(self.settings, changes)
        except SettingsError as error:
            return str(error)
        return (
            _unknown_network(proposed)
            or _absent_device(proposed, changes)
            or _forbidden_path(proposed, changes)
        )

    def _store(self, stored: Sequence[Parameter[Any]]) -> None:
        before, self.settings = self.settings, tree.replace(self.settings, _ours(stored))
        if self.settings != before:
            try:
                self._changed(before, self.settings)
            except Exception as error:  # noqa: BLE001 - they are set, and the caller is to know
                self._node.get_logger().error(
                    f"settings were not applied: {type(error).__name__}: {error}"
                )


def _answer_always(node: Node, unknown: Callable[[str], str]) -> None:
    """Refuse requests for which rclpy raises and leaves the caller waiting, such as a value of no
    known type, and say which name is unknown. The other parameters in the request are still set.
    """
    for service in node.services:
        if service.srv_type is SetParameters:
            service.callback = _one_by_one(service.callback, unknown)
        elif service.srv_type is SetParametersAtomically:
            service.callback = _or_refused(service.callback, unknown)


def _refusal(reason: str) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=reason)


def _raised(error: Exception) -> SetParametersResult:
    return _refusal(f"{type(error).__name__}: {error}")


def _or_refused(callback: Any, unknown: Callable[[str], str]) -> Any:
    def answer(request: Any, response: Any) -> Any:
        for parameter in request.parameters:
            if reason := unknown(parameter.name):
                response.result = _refusal(reason)
                return response
        try:
            return callback(request, response)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits
            response.result = _raised(error)
            return response

    return answer


def _one_by_one(callback: Any, unknown: Callable[[str], str]) -> Any:
    def result(parameter: Any) -> SetParametersResult:
        if reason := unknown(parameter.name):
            return _refusal(reason)
        request = SetParameters.Request(parameters=[parameter])
        try:
            (set_or_not,) = callback(request, SetParameters.Response()).results
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits
            return _raised(error)
        return set_or_not

    def answer(request: Any, response: Any) -> Any:
        response.results = [result(parameter) for parameter in request.parameters]
        return response

    return answer


def declare(node: Node, tree_of: type[T]) -> T:
    """Declare every setting of a tree as a parameter, and return the values the node was given.

    The node must have been created with ``automatically_declare_parameters_from_overrides``, so
    that a misspelt name in a file is reported here instead of being ignored by rclpy.
    """
    given = {
        name: parameter.value
        for name, parameter in node.get_parameters_by_prefix("").items()
        if name.split(".")[0] not in _OTHERS
    }
    settings = tree.build(tree_of, given, where="parameters")
    for name in given:
        node.undeclare_parameter(name)
    values = tree.flatten(settings)
    for entry in tree.entries(tree_of):
        node.declare_parameter(
            entry.name, _as_ros(values[entry.name]), descriptor(entry), ignore_override=True
        )
    return settings


def descriptor(entry: Entry) -> ParameterDescriptor:
    """The description that ``ros2 param describe`` shows."""
    described = entry.described
    unit = f" [{described.unit}]" if described.unit else ""
    built = ParameterDescriptor(
        name=entry.name,
        description=f"{described.help}{unit}",
        additional_constraints=f"one of {', '.join(described.choices)}" * bool(described.choices),
        read_only=not described.live,
    )
    _add_range(built, entry.kind, described)
    return built


def _add_range(built: ParameterDescriptor, kind: Any, described: Described) -> None:
    if described.low is None or described.high is None:
        return
    if kind is int:
        limits = IntegerRange(from_value=int(described.low), to_value=int(described.high), step=1)
        built.integer_range = [limits]
    else:
        between = FloatingPointRange(from_value=described.low, to_value=described.high)
        built.floating_point_range = [between]


def _as_ros(value: Any) -> Any:
    """A value for rclpy, which cannot tell the type of an empty list."""
    if isinstance(value, tuple):
        return list(value) or [""]
    return value


def _ours(parameters: Sequence[Parameter[Any]]) -> dict[str, Any]:
    return {item.name: item.value for item in parameters if item.name.split(".")[0] not in _OTHERS}


def _unknown_network(settings: Settings) -> str:
    """Why the network's name is invalid. It must be a name here; elsewhere it may be a path."""
    if settings.network.name in ("auto", *networks.available()):
        return ""
    from rain_removal_ros.checkpoints import names

    known = ["auto", *names()]
    if settings.network.name in known:
        return ""
    return f"network.name is one of {', '.join(known)}, not {settings.network.name!r}"


def _absent_device(settings: Settings, changes: dict[str, Any]) -> str:
    """Why the device cannot be used, if it changes."""
    if "engine.device" in changes:
        try:
            check_device(settings.engine.device)
        except SettingsError as error:
            return str(error)
    return ""


def _forbidden_path(settings: Settings, changes: dict[str, Any]) -> str:
    """Why a path set over ROS is refused."""
    from rain_removal_ros.runtime.files import model_folders

    values = tree.flatten(settings)
    named = [Path(folder).resolve() for folder in settings.safety.model_paths]
    shipped = [folder.resolve() for folder in model_folders()]
    for name in _PATHS:
        if name in changes and (path := values[name]):
            # Engines are written there, and nothing may be written beside the shipped models.
            allowed = named if name == "engine.cache" else [*named, *shipped]
            # Resolved, so that neither ".." nor a link leads outside.
            if not any(Path(path).resolve().is_relative_to(folder) for folder in allowed):
                return f"{name} must lie under a folder of safety.model_paths, {path!r} does not"
            if name == "network.weights" and not _is_file(path):
                return f"{name}: there is no file {path!r}"
    return ""


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # the name is too long for a file
        return False
