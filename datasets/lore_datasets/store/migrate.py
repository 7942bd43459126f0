"""Read what older releases wrote: each migration lifts a sealed manifest by one schema version.

Version 1 is the first, so there is none yet. A later schema adds ``m001_...`` here (1 -> 2) and a file written with the
old one to ``tests/datasets/data``; arrays are never rewritten on disk, only on their way in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from lore_datasets.errors import CorruptArtifact
from lore_datasets.schema import SCHEMA
from lore_datasets.store.manifest import canonical_json

__all__ = ["MIGRATIONS", "migrated"]

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: dict[int, Migration] = {}
"""Schema version -> function that turns its manifest (plain JSON) into one of the next version."""


def migrated(stored: Any, where: str, migrations: Mapping[int, Migration] = MIGRATIONS, target: int = SCHEMA) -> Any:
    """``stored`` (a sealed manifest) lifted to ``target``; the seal is checked before and renewed after each step."""
    if not isinstance(stored, dict) or not isinstance(stored.get("manifest"), dict):
        return stored
    body = stored["manifest"]
    schema = body.get("schema")
    if type(schema) is not int or schema >= target:
        return stored
    if _seal(body) != stored.get("manifest_sha256"):
        raise CorruptArtifact(f"the manifest of {where} does not have its digest")
    while schema < target:
        if schema not in migrations:
            raise CorruptArtifact(f"{where} was written with schema {schema}, which no release can read")
        body = {**migrations[schema](body), "schema": schema + 1}
        schema += 1
    return {"manifest": body, "manifest_sha256": _seal(body)}


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()
