"""What was measured against weights: it travels in their file, and decides how they are used.

Free of torch, so that graphs and streams can hold it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cautions:
    """Each a few words with figures; empty where nothing speaks against the weights."""

    state: str = ""
    """What carrying state from frame to frame costs. It is then not carried unless
    ``stream.carry_state_always`` is set."""
    harm: str = ""
    """On what kind of pictures the output is worse than the input."""

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Cautions:
        """Out of the facts in a weight file's header; nothing but text is taken from there."""
        found = facts.get("cautions")
        if not isinstance(found, Mapping):
            return cls()
        texts = {name: found.get(name, "") for name in ("state", "harm")}
        return cls(**{name: text for name, text in texts.items() if isinstance(text, str)})

    def lines(self, network: str) -> Iterator[str]:
        """What a user is told, a line each."""
        if self.harm:
            yield f"{network} makes some pictures worse than they were, {self.harm}"
        if self.state:
            yield (
                f"{network} is worse for carrying its state, {self.state}: it does so only with "
                "stream.carry_state_always"
            )
