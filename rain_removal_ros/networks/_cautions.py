"""What measurements found against weights: stored in their file, it decides how they are used.

This module does not import torch, so that exported graphs and streams can hold cautions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cautions:
    """Each is a few words with figures, or empty if nothing was found."""

    state: str = ""
    """What carrying state from frame to frame costs. Streams then do not carry it, unless
    ``stream.carry_state_always`` is set."""
    harm: str = ""
    """On which sets of pictures the output is worse than the input."""

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Cautions:
        """From the facts in a weight file's header; anything but text is ignored."""
        found = facts.get("cautions")
        if not isinstance(found, Mapping):
            return cls()
        texts = {name: found.get(name, "") for name in ("state", "harm")}
        return cls(**{name: text for name, text in texts.items() if isinstance(text, str)})

    def lines(self, network: str) -> Iterator[str]:
        """One line for each, to show to users."""
        if self.harm:
            yield f"{network} makes some pictures worse: {self.harm}"
        if self.state:
            yield (
                f"{network} is worse with its state carried: {self.state}; the state is carried "
                "only with stream.carry_state_always"
            )
