"""Reads YAML and JSON from others; any problem with it is a ``ValueError``.

The parsers alone raise many kinds of errors for deeply nested text, numbers of thousands of digits
or invalid dates, and a few lines of YAML can expand to more than memory holds.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import yaml

__all__ = ["from_json", "from_yaml", "text_of"]

MOST_BYTES = 1 << 18
"""The largest file that is read: people wrote these by hand. Parsing this much YAML takes
seconds."""
_MOST_NODES = 200_000
"""The most values in a YAML text, with every alias counted as a copy."""
_MOST_DEPTH = 64
_TOO_DEEP = "it is nested too deeply"


def text_of(path: Path, *, most_bytes: int = MOST_BYTES) -> str:
    """The text in a file; an ``OSError`` or ``ValueError`` if it cannot be read or is too large."""
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes} bytes")
    return content.decode("utf-8")


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def from_yaml(text: str) -> Any:
    """The value of a YAML text; dates and times stay text."""
    import yaml  # imported late, so that help and flags appear without it

    try:
        loader = _loader()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, {})
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except Exception as error:  # PyYAML raises any kind of error for a tag with an invalid value
        raise ValueError(f"a value cannot be read: {error}") from error


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        yaml_implicit_resolvers: ClassVar = {
            first: [(tag, form) for tag, form in known if not tag.endswith(":timestamp")]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def fetch_flow_collection_start(self, token: type) -> None:
            if self.flow_level >= _MOST_DEPTH:  # every bracket walks all levels again
                raise ValueError(_TOO_DEEP)
            super().fetch_flow_collection_start(token)

    return Loader


def _check_size(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node expands to, and how deeply they are nested."""
    import yaml

    if (found := known.get(id(node))) is not None:
        if not found[0]:
            raise ValueError("a value contains itself")
        return found
    known[id(node)] = (0, 0)
    below: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        below = node.value
    elif isinstance(node, yaml.MappingNode):
        below = [each for pair in node.value for each in pair]
    count, depth = 1, 0
    for each in below:
        inside = _check_size(each, known)
        count, depth = count + inside[0], max(depth, inside[1])
    if depth > _MOST_DEPTH:
        raise ValueError(_TOO_DEEP)
    if count > _MOST_NODES:
        raise ValueError(f"it holds more than {_MOST_NODES} values")
    known[id(node)] = (count, depth + 1)
    return known[id(node)]
