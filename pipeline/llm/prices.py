"""What a question costs, from the dated list ``prices.json``."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from lore_datasets.errors import ConfigError, shown
from pipeline.llm.base import Prompt

__all__ = ["estimate_tokens", "price"]

_CHARACTERS_PER_TOKEN = 3.5


@cache
def _table() -> dict:
    return json.loads(resources.files("pipeline.llm").joinpath("prices.json").read_text(encoding="utf-8"))


def price(model: str, tokens_in: int, tokens_out: int, *, cached: int = 0, batch: bool = False) -> float:
    """US dollars for one question to ``model`` (a listed name, version suffix allowed); ConfigError when unlisted.

    ``cached`` of ``tokens_in`` were read before and cost what the list says for those, in a batch job too.
    """
    models = _table()["models"]
    listed = [name for name in models if model == name or model.startswith((f"{name}-", f"{name}@"))]
    if not listed:
        raise ConfigError(f"no price is known for model {shown(model)!r}", hint=f"listed: {', '.join(models)}")
    row = models[max(listed, key=len)]
    cached = min(cached, tokens_in)
    dollars = ((tokens_in - cached) * row["in"] + tokens_out * row["out"]) * (0.5 if batch else 1.0)
    return (dollars + cached * row["cached"]) / 1e6


def estimate_tokens(prompt: Prompt) -> tuple[int, int]:
    """(tokens read, most tokens written) of a question, from its characters and its cap; a rough upper figure."""
    return int(len(prompt.text) / _CHARACTERS_PER_TOKEN) + 1, prompt.max_tokens
