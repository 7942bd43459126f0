"""What ``lore datasets show`` prints for hubs and machines: cards of a version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.types import ArtifactRef, Manifest

__all__ = ["card", "newest_of"]


def card(store: ShippedStore, ref: str, form: str, license: str, files: tuple[Path, ...]) -> str:
    """The card of a version as ``md`` (Hugging Face) or ``croissant`` (JSON-LD, with exports among ``files``)."""
    from lore_datasets.errors import LoreError
    from lore_datasets.exchange.card import markdown
    from lore_datasets.exchange.croissant import croissant
    from lore_datasets.store.lineage import newest_model

    full = store.resolve(ref)
    manifest = store.manifest(full)
    said = {"license": license} if license else {}
    if form == "croissant":
        return json.dumps(croissant(manifest, files=files, play=newest_of(store, full), **said), indent=2)
    parents = []
    for parent in manifest.parents:
        try:
            parents.append(store.manifest(parent))
        except LoreError:  # a parent may lie in another store; the card names it all the same
            continue
    model = newest_model(store, full, verify=False) if manifest.kind == "advice" else None
    model = model.manifest if model is not None else None
    return markdown(manifest, model=model, play=newest_of(store, full), parents=parents, **said)


def newest_of(store: ShippedStore, ref: ArtifactRef) -> Manifest | None:
    """Manifest of the version's newest play without learning; of itself where it is one."""
    from lore_datasets.store.lineage import newest_play

    manifest = store.manifest(ref)
    if manifest.kind == "play":
        return manifest
    found = newest_play(store, ref, verify=False) if manifest.kind == "advice" else None
    return found.manifest if found is not None else None
