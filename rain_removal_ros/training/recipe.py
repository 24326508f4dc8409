"""The settings of a training run, as one tree that is read from YAML."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from rain_removal_ros.data.mix import DataSettings, SourceSettings
from rain_removal_ros.errors import SettingsError, near
from rain_removal_ros.parsing import from_yaml
from rain_removal_ros.runtime.files import recipe_folders
from rain_removal_ros.settings import build, group, read_yaml, setting

T = TypeVar("T")


@dataclass(frozen=True)
class OptimiserSettings:
    """The optimiser's settings."""

    name: str = setting("adamw", "the method", choices=("adamw", "adam", "sgd"))
    rate: float = setting(1e-3, "peak learning rate", low=0.0, high=10.0)
    helper_rate: float = setting(
        0.0,
        "learning rate of players other than the network, such as a discriminator; 0 for the same",
        low=0.0,
        high=10.0,
    )
    betas: tuple[float, ...] = setting((0.9, 0.999), "betas of adam and adamw")
    momentum: float = setting(0.9, "of sgd", low=0.0, high=1.0)
    weight_decay: float = setting(0.0, "weight decay", low=0.0, high=1.0)


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate changes over the run, as a factor on ``optimiser.rate``."""

    name: str = setting("cosine", "form of the schedule", choices=("cosine", "poly", "constant"))
    warmup_steps: int = setting(0, "steps of linear increase at the beginning", low=0)
    final: float = setting(0.01, "factor at the end of the cosine", low=0.0, high=1.0)
    power: float = setting(0.9, "of poly", low=0.0, high=10.0)
    milestones: tuple[int, ...] = setting((), "steps after which the rate is multiplied by gamma")
    gamma: float = setting(0.5, "factor at a milestone", low=0.0, high=1.0)


@dataclass(frozen=True)
class ValidationSettings:
    """A set that is measured while training."""

    name: str = setting("", "its name in the log")
    path: str = setting("", "as a source's")
    kind: str = setting("pairs", "as a source's", choices=("pairs", "clean"))
    clips: bool = setting(False, "as a source's")
    only_every: int = setting(
        0,
        "takes only every n-th, those that skip_every of a source left out; 0 for all",
        low=0,
    )
    limit: int = setting(16, "use at most so many, evenly chosen", low=1)


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    network: dict[str, Any] = field(default_factory=dict)
    """``name`` and the fields of its ``Config`` that differ from their defaults."""
    data: DataSettings = group(DataSettings)
    optimiser: OptimiserSettings = group(OptimiserSettings)
    schedule: ScheduleSettings = group(ScheduleSettings)
    validation: tuple[ValidationSettings, ...] = ()
    """The first of them decides which weights are the best."""
    run: str = setting("", "folder for all the run writes; empty is runs/ and the network's name")
    steps: int = setting(100_000, "total number of steps", low=1)
    init_from: str = setting("", "weights to start from: a file, or the name of weights that ship")
    teacher: str = setting(
        "",
        "weights whose output is imitated too: a file, or the name of weights that ship",
    )
    precision: str = setting(
        "float32",
        "number format of the forward pass; float16 is for CUDA",
        choices=("float32", "bfloat16", "float16"),
    )
    truncate: int = setting(
        0, "frames of a clip that gradients flow back over; 0 for all", unit="frames", low=0
    )
    clip_norm: float = setting(0.0, "gradients are clipped to this norm; 0 for no limit", low=0.0)
    ema: float = setting(
        0.0,
        "share of the running mean of the weights that is kept at each step; 0 for no mean",
        low=0.0,
        high=0.99999,
    )
    revive_every: int = setting(
        0,
        "steps between two looks for hidden units that have died, which then start anew; none in "
        "the last third of the run. 0 for never",
        low=0,
    )
    seed: int = setting(0, "seed of weights, samples and noise", low=0)
    device: str = setting("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, "CPU threads; 0 for torch's default", low=0)
    log_every: int = setting(20, "steps between two lines of the log", low=1)
    validate_every: int = setting(1000, "steps between validations", low=1)
    save_every: int = setting(500, "steps between two saves, which a killed run can lose", low=1)
    max_minutes: float = setting(
        0.0,
        "stop after this time; the same command continues. 0 for never",
        unit="min",
        low=0.0,
    )
    core_hours: float = setting(
        0.0,
        "total processor time of the training process; 0 for no limit",
        unit="h",
        low=0.0,
    )


def find_recipe(name_or_file: str) -> Path:
    """The file of a recipe: a path, or the name of one that ships."""
    if (path := Path(name_or_file)).suffix or path.is_file():
        return path
    shipped = {
        file.stem: file for folder in reversed(recipe_folders()) for file in folder.glob("*.yaml")
    }
    if name_or_file not in shipped:
        names = near(name_or_file, sorted(shipped))
        raise SettingsError(f"no recipe is called {name_or_file!r}; there are {names}")
    return shipped[name_or_file]


def load_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from YAML; ``overrides`` are by dotted name, ``data.root`` or ``network.stages``."""
    values = copy.deepcopy(read_yaml(path))
    changes = dict(overrides or {})
    network = values.pop("network", None)
    if not isinstance(network, dict) or not isinstance(network.get("name"), str):
        raise SettingsError(f"{path}: network must be given, with its name and its settings")
    for name in [name for name in changes if name.startswith("network.")]:
        network[name.removeprefix("network.")] = changes.pop(name)
    data = values.get("data")
    sources = data.pop("sources", []) if isinstance(data, dict) else []
    sources = changes.pop("data.sources", sources)
    validation = changes.pop("validation", values.pop("validation", []))
    recipe = build(Recipe, {**_dotted(values), **changes}, where=str(path))
    if len(recipe.optimiser.betas) != 2:
        raise SettingsError(f"{path}: optimiser.betas are two, not {recipe.optimiser.betas}")
    return replace(
        recipe,
        network=network,
        data=replace(
            recipe.data, sources=_entries(SourceSettings, sources, f"{path}: data.sources")
        ),
        validation=_entries(ValidationSettings, validation, f"{path}: validation"),
    )


def parse_override(text: str) -> tuple[str, Any]:
    """``optimiser.rate=0.001`` as its name and its value, which is read as YAML."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingsError(f"an override is NAME=VALUE, not {text!r}")
    try:
        return name, from_yaml(value)
    except ValueError as error:
        raise SettingsError(f"the value of {name} is not YAML: {value!r}") from error


def _dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{below}": item for below, item in _dotted(value).items()})
        else:
            flat[name] = value
    return flat


def _entries(kind: type[T], items: Any, where: str) -> tuple[T, ...]:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise SettingsError(f"{where} must be a list of settings")
    return tuple(build(kind, item, where=f"{where}[{i}]") for i, item in enumerate(items))
