"""Weight files: safetensors with a header that has everything needed to use them.

The header has the network's name and config, facts about the training, and a checksum over the
weights, so a damaged file is noticed. Nothing is unpickled that could run code. Finding and reading
files needs no torch; making networks from them does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from rain_removal_ros import networks
from rain_removal_ros.errors import CheckpointError, SettingsError
from rain_removal_ros.networks._cautions import Cautions
from rain_removal_ros.parsing import from_json
from rain_removal_ros.runtime.files import model_folders, write_whole
from rain_removal_ros.settings import NetworkSettings

if TYPE_CHECKING:
    from torch import Tensor

    from rain_removal_ros.networks._base import Network

_FORMAT = "rain_removal_ros/1"
_BEST = "rainstream"  # the default


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a weight file; its network is ready for use, in evaluation mode."""

    name: str
    network: Network
    facts: dict[str, Any]
    checksum: str


@dataclass(frozen=True)
class StoredWeights:
    """The contents of a weight file, as arrays."""

    name: str
    config: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    cautions: Cautions
    checksum: str


def save(path: Path, network: Network, facts: Mapping[str, Any]) -> str:
    """Write a network to ``path``, whole or not at all, and return its checksum."""
    from safetensors.torch import save as serialize

    weights = _weights(network)
    checksum = _checksum(weights)
    header = {
        "format": _FORMAT,
        "network": type(network).__module__.rpartition(".")[2],
        "config": json.dumps(dataclasses.asdict(network.config)),
        "facts": json.dumps(dict(facts)),
        "sha256": checksum,
    }
    content = serialize(weights, metadata=header)
    write_whole(Path(path), content, raises=CheckpointError, durable=True)
    return checksum


def load(path: Path | str) -> Checkpoint:
    """Read a weight file; any problem is a ``CheckpointError``."""
    path = Path(path)
    header, weights = _read(path, "pt")
    _check(path, header, weights)
    name = _noted(path, header, "network")
    config, facts = (_table(path, header, key) for key in ("config", "facts"))
    try:
        network = networks.create(name, **config)
        network.load_state_dict(weights)
    except (SettingsError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} does not fit this version's {name}: {reason}") from error
    network.cautions = Cautions.from_facts(facts)
    return Checkpoint(name, network.eval(), facts, header["sha256"])


def read(path: Path | str) -> StoredWeights:
    """As ``load``, without creating a network. float16, as weights that ship are stored, is widened
    to float32, in which networks compute.
    """
    path = Path(path)
    header, arrays = _read(path, "np")
    _check(path, header, arrays)
    arrays = {
        key: array.astype(np.float32) if array.dtype == np.float16 else array
        for key, array in arrays.items()
    }
    config, facts = (_table(path, header, key) for key in ("config", "facts"))
    cautions = Cautions.from_facts(facts)
    return StoredWeights(
        _noted(path, header, "network"), config, arrays, cautions, header["sha256"]
    )


def _check(path: Path, header: Mapping[str, str], weights: Mapping[str, Any]) -> None:
    if header.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} is not a weight file of this package; published weights come in with "
            "'rain-removal import'"
        )
    if _checksum(weights) != header.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its weights do not match their checksum")


def add_cautions(path: Path, cautions: Cautions) -> None:
    """Record in a weight file what measurements found against its weights; nothing else changes."""
    loaded = load(path)
    facts = {name: value for name, value in loaded.facts.items() if name != "cautions"}
    found = {name: text for name, text in dataclasses.asdict(cautions).items() if text}
    save(path, loaded.network, {**facts, **({"cautions": found} if found else {})})


def checksum(network: Network) -> str:
    """The checksum that a weight file of this network would have."""
    return _checksum(_weights(network))


def name_of(path: Path | str) -> str:
    """The network of a weight file, from its header alone."""
    return _noted(Path(path), _header(Path(path)), "network")


def cautions_of(path: Path | str) -> Cautions:
    """What measurements found against the weights, from the header alone."""
    return Cautions.from_facts(_table(Path(path), _header(Path(path)), "facts"))


def import_published(path: Path, name: str) -> Network:
    """Load weights published elsewhere (a torch state dict) into our network of this name."""
    import torch

    file = networks.module(name)
    if not hasattr(file, "from_published"):
        raise CheckpointError(f"no published weights are known for {name}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # torch raises many kinds of error for a foreign file
        raise CheckpointError(
            f"{path} is not a plain file of weights; nothing in it was run"
        ) from error
    for wrapper in ("state_dict", "model", "params"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise CheckpointError(f"{path} has no table of weights")
    try:
        config, weights = file.from_published(loaded)
        network = networks.build(name, config)
        network.load_state_dict(weights)
    except (KeyError, IndexError, RuntimeError, SettingsError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} does not have weights of {name}: {reason}") from error
    return network.eval()


def find(name: str) -> Path | None:
    """The shipped weight file of this name (a network or one of its sizes), or None."""
    for folder in model_folders():
        if _is_file(path := folder / f"{name}.safetensors"):
            return path
    return None


def shipped() -> list[Path]:
    """All shipped weight files by name; a network may have several sizes."""
    paths = (path for folder in model_folders() for path in folder.glob("*.safetensors"))
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(path.stem, path)
    return [path for _, path in sorted(found.items())]


def names() -> list[str]:
    """All valid names: networks, and weights that ship."""
    return sorted({*networks.available(), *(path.stem for path in shipped())})


def resolve(name_or_file: str) -> Path:
    """The weight file for the name of one that ships, a path, or "auto" for the best."""
    if name_or_file == "auto":
        if (best := find(_BEST) or next(iter(shipped()), None)) is None:
            raise CheckpointError(
                "no weights ship with this installation; name a weight file, or train one with "
                "'rain-removal train'"
            )
        return best
    if (path := Path(name_or_file)).suffix or _is_file(path):
        if not _is_file(path):
            raise CheckpointError(f"there is no weight file {path}")
        return path
    if (found := find(name_or_file)) is None:
        if name_or_file not in (known := names()):
            raise networks.unknown(name_or_file, known)
        raise CheckpointError(
            f"no weights are shipped for {name_or_file}; looked in "
            + ", ".join(str(folder) for folder in model_folders())
        )
    return found


def chosen_file(settings: NetworkSettings) -> Path:
    """The weight file that the settings select; it must belong to the network they name."""
    path = resolve(settings.weights or settings.name)
    if settings.weights and settings.name != "auto" and (name := name_of(path)) != settings.name:
        raise CheckpointError(f"{path} holds weights of {name}, not of {settings.name}")
    return path


def chosen_name(settings: NetworkSettings) -> str:
    """The weights that the settings select, as the user named them."""
    name = settings.weights or settings.name
    return resolve(name).stem if name == "auto" else name


def choose(settings: NetworkSettings) -> tuple[Path, Checkpoint]:
    """The weights that the settings select, which must belong to the network they name, and their
    file.
    """
    path = chosen_file(settings)
    checkpoint = load(path)
    if settings.stages:
        checkpoint.network.stages = settings.stages
    return path, checkpoint


def _header(path: Path) -> dict[str, str]:
    header, _ = _read(path, "np", weights=())
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a weight file of this package")
    return header


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False


def _read(
    path: Path, framework: str, weights: tuple[str, ...] | None = None
) -> tuple[dict[str, str], dict[str, Any]]:
    """Header and the named weights (default: all), as tensors ("pt") or NumPy arrays ("np")."""
    try:
        with safe_open(str(path), framework=framework) as file:
            header = dict(file.metadata() or {})
            names = file.keys() if weights is None else weights
            return header, {key: file.get_tensor(key) for key in names}
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no weight file {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except TypeError as error:  # NumPy has no bfloat16
        raise CheckpointError(f"{path} cannot be read without torch: {error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def _noted(path: Path, header: Mapping[str, str], key: str) -> str:
    if key not in header:
        raise CheckpointError(f"{path} does not say its {key}; save it again")
    return header[key]


def _table(path: Path, header: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        table = from_json(_noted(path, header, key))
    except ValueError as error:
        raise CheckpointError(f"{path}: its {key} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{path}: its {key} is not a table of names and values")
    return table


def _weights(network: Network) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}


def _checksum(weights: Mapping[str, Any]) -> str:
    """The checksum of tensors or arrays; both give the same."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        kind, shape = str(weights[key].dtype), list(weights[key].shape)
        digest.update(f"{key} torch.{kind.removeprefix('torch.')} {shape}\n".encode())
        digest.update(_bytes(weights[key]))
    return digest.hexdigest()


def _bytes(values: Any) -> memoryview:
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    import torch

    content: memoryview = values.reshape(-1).view(torch.uint8).numpy().data
    return content
