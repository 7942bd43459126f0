"""JSON that comes from outside: every text that is none is a ValueError, however deep it nests."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["parsed"]


def parsed(text: str | bytes) -> Any:
    """What a JSON text says; ValueError when it is none, or nests deeper than Python's parser goes."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None
