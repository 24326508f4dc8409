"""The one definition of every setting.

A field of these frozen dataclasses is at once the ROS parameter, the YAML key and the command line
flag: ``stream.max_gap_s`` is the parameter, nested keys in a file, ``--stream.max-gap-s`` a flag.
Its help, unit and range become the parameter's descriptor, the flag's help and the reference page.
Defaults are overridden by a file, and the file by flags. Any dataclass made of ``setting`` fields
can be read the same way, such as training recipes.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import reprlib
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from rain_removal_ros import parsing
from rain_removal_ros.errors import SettingsError, near

T = TypeVar("T")

_NAMESPACE = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
_MOST_INTEGER = 2**63 - 1
"""The largest value of a ROS integer parameter."""


@dataclass(frozen=True)
class Described:
    """What is known of one setting besides its name and type."""

    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = True
    """Whether it can be changed while the node runs."""


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = True,
) -> Any:
    """A dataclass field that describes itself."""
    described = Described(help, unit, low, high, choices, live)
    return dataclasses.field(default=default, metadata={"described": described})


def group(cls: type) -> Any:
    """A nested group of settings, all at their defaults."""
    return dataclasses.field(default_factory=cls)


@dataclass(frozen=True)
class NetworkSettings:
    """Which network derains the frames."""

    name: str = setting(
        "auto",
        "network to run, or one of its sizes such as rainstream_s; auto takes the best that ships",
    )
    weights: str = setting(
        "",
        "weight file, or the name of weights that ship; empty takes the one that ships for the "
        "network",
    )
    stages: int = setting(
        0, "passes over each frame, 0 for the network's own number", low=0, high=32
    )


@dataclass(frozen=True)
class EngineSettings:
    """What runs the network, and how."""

    name: str = setting(
        "auto", "what runs the network", choices=("auto", "torch", "onnxruntime", "openvino")
    )
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    precision: str = setting(
        "auto",
        "number format in the network; auto: float16 on a GPU, bfloat16 on a CPU that supports it",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    compile: bool = setting(False, "let torch compile the network: slower to start, then faster")
    threads: int = setting(0, "CPU threads of the network, 0 for as many as cores", low=0, high=256)
    cache: str = setting(
        "", "folder in which each user's built engines are kept; empty is the user's cache folder"
    )


@dataclass(frozen=True)
class StreamSettings:
    """What a camera's stream carries from frame to frame, and when it starts fresh."""

    carry_state: bool = setting(
        True,
        "carry the network's state from frame to frame, unless measurements found that it makes "
        "these weights worse",
    )
    carry_state_always: bool = setting(
        False,
        "carry the state even of weights that it makes worse; 'rain-removal networks' and the "
        "log name them",
    )
    max_gap_s: float = setting(
        0.5, "start fresh after a longer pause between two frames", unit="s", low=0.0, high=3600.0
    )
    scene_cut: float = setting(
        0.25,
        "start fresh if a frame differs from the last one by more than this; 0 for never",
        low=0.0,
        high=1.0,
    )
    strength: float = setting(
        1.0, "share of the correction to apply; 0 leaves frames unchanged", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class BypassSettings:
    """When frames pass through unchanged."""

    mode: str = setting(
        "never",
        "never: derain every frame; always: derain none; auto: derain while rain is seen",
        choices=("never", "auto", "always"),
    )
    on_above: float = setting(
        0.2, "auto starts to derain when the rain level rises above this", low=0.0, high=1.0
    )
    off_below: float = setting(
        0.1, "auto stops deraining when the rain level stays below this", low=0.0, high=1.0
    )
    hold_s: float = setting(
        2.0,
        "how long the level must stay low before auto stops deraining",
        unit="s",
        low=0.0,
        high=600.0,
    )


@dataclass(frozen=True)
class InputSettings:
    """What the node subscribes to."""

    cameras: tuple[str, ...] = setting(
        (),
        "names of the cameras, each the namespace of its topics; empty for one unnamed camera",
        live=False,
    )
    transport: str = setting(
        "auto",
        "raw images, compressed ones, or whichever is offered",
        choices=("auto", "raw", "compressed"),
        live=False,
    )
    reliability: str = setting(
        "auto",
        "of the image subscription: auto is reliable if every publisher is, else best effort",
        choices=("auto", "reliable", "best_effort"),
    )
    max_age_ms: float = setting(
        0.0,
        "drop frames that are older than this on arrival; 0 for never",
        unit="ms",
        low=0.0,
        high=60000.0,
    )

    def __post_init__(self) -> None:
        for name in self.cameras:
            if not _NAMESPACE.fullmatch(name):
                raise SettingsError(
                    f"input.cameras: {name!r} cannot be a namespace; letters, digits and _ can"
                )
        if len(set(self.cameras)) < len(self.cameras):
            raise SettingsError("input.cameras names a camera twice")


@dataclass(frozen=True)
class OutputSettings:
    """What the node publishes beside the derained image."""

    attention: str = setting(
        "mono8",
        "what the attention topic shows: the map alone, or drawn over the frame",
        choices=("mono8", "overlay"),
    )
    compressed: bool = setting(
        False,
        "also publish compressed images: in the input's format, raw ones as JPEG",
        live=False,
    )
    jpeg_quality: int = setting(90, "quality of JPEG images", low=1, high=100)
    namespace: str = setting(
        "",
        "publish NAME/image, NAME/camera_info and NAME/attention, where image_transport looks for "
        "calibration, instead of image_derained, camera_info_derained and attention",
        live=False,
    )
    keep_warm: bool = setting(
        False, "derain even while nobody subscribes, so that the state is ready"
    )

    def __post_init__(self) -> None:
        if self.namespace and not _NAMESPACE.fullmatch(self.namespace):
            raise SettingsError(
                f"output.namespace: {self.namespace!r} cannot be a namespace; words of letters, "
                "digits and _ with / between them can"
            )


@dataclass(frozen=True)
class SafetySettings:
    """What happens when something goes wrong or takes too long."""

    on_fault: str = setting(
        "passthrough",
        "whether a frame that cannot be derained passes through unchanged or is dropped",
        choices=("passthrough", "drop"),
    )
    retry_s: float = setting(
        1.0,
        "wait before retrying the network after a fault; doubles up to 30 s",
        unit="s",
        low=0.01,
        high=30.0,
    )
    watchdog_s: float = setting(
        2.0,
        "a frame that takes longer, from decoding to publishing, counts as hung; 0 for no watchdog",
        unit="s",
        low=0.0,
        high=600.0,
    )
    budget_ms: float = setting(
        0.0,
        "time a frame may take; quality is lowered step by step to keep it; 0 for no limit",
        unit="ms",
        low=0.0,
        high=60000.0,
    )
    memory_mb: int = setting(
        0,
        "memory of the process beyond which frames pass through unchanged; 0 for no limit",
        unit="MB",
        low=0,
        high=10_000_000,
        live=False,
    )
    model_paths: tuple[str, ...] = setting(
        (),
        "folders from which weights and engine caches may be taken when set over ROS; weights "
        "may also come from the folder of shipped models",
        live=False,
    )


@dataclass(frozen=True)
class LimitSettings:
    """What a frame, or reading a recording from disk, may cost."""

    frame_mp: float = setting(
        13.0,
        "largest frame, padded for the network, that is derained, and largest compressed one that "
        "is decoded: memory and time grow with it",
        unit="MP",
        low=0.01,
        high=1000.0,
        live=False,
    )
    jpeg_scans: int = setting(
        16,
        "most scans of a JPEG that is decoded: ordinary ones have 1, progressive ones about 10",
        low=1,
        high=10_000,
        live=False,
    )

    expansion: float = setting(
        1000.0,
        "how many times its size a recording may unpack to; 100 MB are always allowed",
        low=1.0,
        high=100_000.0,
        live=False,
    )
    chunk_mb: int = setting(
        512,
        "largest chunk or message of a recording that is unpacked into memory",
        unit="MB",
        low=1,
        high=65536,
        live=False,
    )


@dataclass(frozen=True)
class NodeSettings:
    """How the node itself behaves."""

    autostart: bool = setting(
        True,
        "configure and activate by itself; false leaves that to a lifecycle manager",
        live=False,
    )
    diagnostics_s: float = setting(
        1.0, "interval of diagnostics messages", unit="s", low=0.1, high=60.0, live=False
    )


@dataclass(frozen=True)
class Settings:
    """All settings."""

    network: NetworkSettings = group(NetworkSettings)
    engine: EngineSettings = group(EngineSettings)
    stream: StreamSettings = group(StreamSettings)
    bypass: BypassSettings = group(BypassSettings)
    input: InputSettings = group(InputSettings)
    output: OutputSettings = group(OutputSettings)
    safety: SafetySettings = group(SafetySettings)
    limits: LimitSettings = group(LimitSettings)
    node: NodeSettings = group(NodeSettings)

    def __post_init__(self) -> None:
        if self.bypass.off_below > self.bypass.on_above:
            raise SettingsError(
                f"bypass.off_below ({self.bypass.off_below}) must not exceed bypass.on_above "
                f"({self.bypass.on_above})"
            )


@dataclass(frozen=True)
class Entry:
    """One leaf of a settings tree."""

    name: str
    kind: Any
    default: Any
    described: Described


def entries(cls: type, prefix: str = "") -> Iterator[Entry]:
    """Every setting of a tree under its dotted name, in the order of definition."""
    kinds = _kinds(cls)
    for field in dataclasses.fields(cls):
        name, kind = prefix + field.name, kinds[field.name]
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            yield from entries(kind, name + ".")
        else:
            described = field.metadata.get("described", Described(""))
            yield Entry(name, kind, field.default, described)


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    """The types of a tree's fields. To find them anew takes most of the time of a change."""
    return get_type_hints(cls)


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """A tree's values under their dotted names."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            values.update(flatten(value, f"{prefix}{field.name}."))
        else:
            values[prefix + field.name] = value
    return values


def replace(settings: T, changes: Mapping[str, Any]) -> T:
    """A copy with some values changed, given by dotted name; all are checked first."""
    return build(type(settings), {**flatten(settings), **changes})


def build(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """A tree from nested or dotted values; the rest keeps its defaults.

    ``where`` names the source in errors, such as a file.
    """
    flat = _flat(values)
    known = {entry.name: entry for entry in entries(cls)}
    for name in flat:
        if name not in known:
            raise SettingsError(
                f"{_at(where)}unknown setting {name!r}; near: {near(name, sorted(known))}"
            )
    checked = {name: _checked(known[name], value, where) for name, value in flat.items()}
    return _assemble(cls, checked, "")


def refuse(settings: Any, unusable: Mapping[str, str], who: str) -> None:
    """Raise if a setting was changed that ``who`` cannot honour; the values of ``unusable`` say
    why.
    """
    values, defaults = flatten(settings), flatten(type(settings)())
    changed = [name for name in unusable if values[name] != defaults[name]]
    if changed:
        reasons = dict.fromkeys(unusable[name] for name in changed)
        raise SettingsError(f"{who} cannot honour {', '.join(changed)}: {'; '.join(reasons)}")


def load(cls: type[T], path: Path | str, overrides: Mapping[str, Any] | None = None) -> T:
    """A tree from a YAML file, plain or a ROS parameter file, with overrides applied."""
    return build(cls, {**_flat(read_yaml(path)), **(overrides or {})}, where=str(path))


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file; for a ROS parameter file, the parameters of all its nodes."""
    try:
        content = parsing.from_yaml(parsing.text_of(Path(path)))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path} must hold names and values, not a {type(content).__name__}")
    nodes = [
        node["ros__parameters"]
        for node in content.values()
        if isinstance(node, dict) and "ros__parameters" in node
    ]
    if not nodes:
        return content
    merged: dict[str, Any] = {}
    for parameters in nodes:
        if not isinstance(parameters, dict | None):
            kind = type(parameters).__name__
            raise SettingsError(f"{path}: ros__parameters must hold names and values, not a {kind}")
        merged.update(_flat(parameters or {}))
    # ROS's own parameters are in the same file.
    ours = ("use_sim_time", "qos_overrides")
    return {name: value for name, value in merged.items() if name.split(".")[0] not in ours}


def reference(cls: type) -> str:
    """The reference table of a tree, as Markdown."""
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for entry in entries(cls):
        limits = _limits(entry.described)
        unit = f" [{entry.described.unit}]" if entry.described.unit else ""
        start_up = "" if entry.described.live else " Start-up only."
        rows.append(
            f"| `{entry.name}` | {_kind_name(entry.kind)}{unit} | `{_shown(entry.default)}` | "
            f"{entry.described.help}{f' ({limits})' if limits else ''}.{start_up} |"
        )
    return "\n".join(rows) + "\n"


def parameter_file(cls: type, title: str) -> str:
    """A ROS parameter file with every setting at its default, each with its help as a comment."""
    lines = [f"# {title}", "/**:", "  ros__parameters:"]
    groups: list[str] = []
    for entry in entries(cls):
        *path, name = entry.name.split(".")
        if path != groups:
            lines += ["", *(f"{'  ' * (2 + depth)}{part}:" for depth, part in enumerate(path))]
            groups = path
        indent = "  " * (2 + len(path))
        limits = _limits(entry.described)
        unit = f" [{entry.described.unit}]" if entry.described.unit else ""
        start_up = "" if entry.described.live else "; start-up only"
        said = f"{entry.described.help}{f' ({limits})' if limits else ''}{unit}{start_up}"
        lines += textwrap.wrap(
            said, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        lines.append(f"{indent}{name}: {_as_yaml(entry.default)}")
    return "\n".join(lines) + "\n"


def _as_yaml(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value) or [""]  # a ROS parameter file cannot have an empty list
    return json.dumps(value)


def _limits(described: Described) -> str:
    if described.choices:
        return ", ".join(described.choices)
    if described.low is not None and described.high is not None:
        return f"{described.low:g} to {described.high:g}"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return '""' if value == "" else str(value)


def _kind_name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"list of {_kind_name(get_args(kind)[0])}"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
        getattr(kind, "__name__", ""), str(kind)
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _checked(entry: Entry, value: Any, where: str) -> Any:
    try:
        value = _converted(entry.kind, value)
    except (TypeError, ValueError, OverflowError):
        raise SettingsError(
            f"{_at(where)}{entry.name} is {_kind_name(entry.kind)}, not {reprlib.repr(value)}"
        ) from None
    described = entry.described
    if described.choices and value not in described.choices:
        choices = ", ".join(described.choices)
        raise SettingsError(
            f"{_at(where)}{entry.name} is one of {choices}, not {reprlib.repr(value)}"
        )
    low, high = described.low, described.high
    if (low is not None and value < low) or (high is not None and value > high):
        raise SettingsError(
            f"{_at(where)}{entry.name} is {_limits(described)}"
            f"{' ' + described.unit if described.unit else ''}, not {value!r}"
        )
    return value


def _converted(kind: Any, value: Any) -> Any:
    """``value`` as ``kind``; only the lossless conversions that YAML makes necessary."""
    if get_origin(kind) is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise TypeError
        items = list(value)
        # An empty string list cannot be written in a ROS parameter file; [""] stands for it.
        if get_args(kind)[0] is str and items == [""]:
            items = []
        return tuple(_converted(get_args(kind)[0], item) for item in items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError
    if kind is int and not -_MOST_INTEGER <= value <= _MOST_INTEGER:
        raise ValueError
    return value


def _assemble(cls: type[T], flat: Mapping[str, Any], prefix: str) -> T:
    kinds = _kinds(cls)  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name, kind = prefix + field.name, kinds[field.name]
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            arguments[field.name] = _assemble(kind, flat, name + ".")
        elif name in flat:
            arguments[field.name] = flat[name]
    return cls(**arguments)
