"""What the networks are and cost, counted beforehand: to count, torch takes seconds.

``scripts/reference`` writes the file, and a test compares it with the networks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("described.json")


def describe(name: str) -> dict[str, Any]:
    """See ``_cost.describe``, by which networks are counted that did not ship."""
    known: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    if name in known:
        return known[name]
    from rain_removal_ros.networks import _cost

    return _cost.describe(name)
