"""A version on one screen, for people."""

from __future__ import annotations

import math
from typing import Any

from lore_datasets.errors import shown
from lore_datasets.manifest import ref_of
from lore_datasets.types import Manifest

__all__ = ["summary"]


def summary(manifest: Manifest) -> str:
    """ASCII card of a manifest: identity, environment, counts, adviser, cost, parents, arrays; no last newline."""
    ref = ref_of(manifest)
    size = sum(math.prod(s.shape) * _width(s.dtype) for s in manifest.arrays.values())
    lines = [f"{ref}  ({manifest.kind})"]
    if manifest.message:
        lines.append(f"  {shown(manifest.message, 200)}")
    fields: list[tuple[str, Any]] = [
        ("created", manifest.created),
        ("environment", f"{manifest.environment}, keys {manifest.key_scheme}, schema {manifest.schema}"),
        ("words", f"{len(manifest.actions)} actions, {len(manifest.skills)} skills"),
        ("counts", _pairs(manifest.counts)),
        ("made by", _pairs(manifest.provenance)),
        ("cost", _pairs(manifest.cost)),
        ("parents", ", ".join(manifest.parents)),
        ("arrays", f"{len(manifest.arrays)}, {size / 2**20:.1f} MiB of numbers"),
        ("sha256", ref.digest),
    ]
    lines += [f"  {name:<12} {shown(text, 300)}" for name, text in fields if text]
    return "\n".join(lines)


def _pairs(values: dict[str, Any]) -> str:
    parts = []
    for name, value in values.items():
        if isinstance(value, dict):
            parts += [f"{name}.{inner} {_short(v)}" for inner, v in value.items()]
        else:
            parts.append(f"{name} {_short(value)}")
    return ", ".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _width(dtype: str) -> int:
    return {"uint8": 1, "int16": 2, "int32": 4, "float32": 4, "int64": 8, "float64": 8}.get(dtype, 0)
