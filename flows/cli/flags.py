"""Which options a verb has, under which names; older names lead to today's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

import tyro

from lore.main import OLDER as OLDER_OF_TRAIN
from lore.main import full_names, option_names

__all__ = ["OLDER", "known_options", "spelled_out"]

OLDER = OLDER_OF_TRAIN | {
    "frames": "steps",
    "name": "dataset",
    "no_distil": "rows_only",
    "no_prefect": "direct",
    "no_tensorboard": "server_only",
    "runs": "folder",
    "total_frames": "steps",
}
"""Option as it was called -> as it is, in every verb that has the latter."""


def known_options(verb: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """(options, positional arguments) of a verb, dotted."""
    kind = getattr(verb, "flags", verb)
    hints = get_type_hints(kind, include_extras=True)
    given = {name for name, hint in hints.items() if tyro.conf.Positional in getattr(hint, "__metadata__", ())}
    return [name for name in option_names(kind) if name not in given], sorted(given)


def spelled_out(verb: Callable[..., Any], words: Sequence[str]) -> list[str]:
    """``words`` for tyro: options under their full names; ``--folder X`` also where ``X`` alone is what it takes."""
    options, given = known_options(verb)
    plain = [f"--{word[2:].removeprefix('config.')}" if word.startswith("--") else word for word in words]
    out = []
    for word in full_names(plain, options, OLDER):
        flag, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and flag not in options and {flag, f"{flag}s"} & set(given):
            out += [value] if equals else []
        else:
            out.append(word)
    return out
