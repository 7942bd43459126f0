"""Datasets that come with LoRe: one HDF5 file each, found by name where the store has no dataset of that name.

In a checkout they lie in ``datasets/``, in an installed wheel under ``share/lore/datasets`` of the environment.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from lore_datasets.errors import BadInput, NotFound
from lore_datasets.exchange.hdf5 import import_hdf5
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef

__all__ = ["ShippedStore", "check_meant", "shipped_file", "shipped_files"]


def shipped_files() -> dict[str, Path]:
    """Name -> file of the datasets that came with this installation."""
    beside = Path(__file__).resolve().parents[2]
    places = [Path(sysconfig.get_path("data"), "share", "lore", "datasets")]
    places += [beside] if beside.name == "datasets" else []
    return {path.stem: path for place in places if place.is_dir() for path in sorted(place.glob("*.h5"))}


def shipped_file(where: str | ArtifactRef, store: Store) -> Path | None:
    """The file of the shipped dataset that ``where`` names, None when the store has that name or none is shipped."""
    try:
        name = where.name if isinstance(where, ArtifactRef) else ArtifactRef.parse(where)[0]
    except BadInput:
        return None
    file = shipped_files().get(name)
    return None if file is None or name in store.names() else file


def check_meant(where: str | ArtifactRef, found: ArtifactRef) -> None:
    """NotFound unless the version and the digest that ``where`` states are those of ``found``."""
    _, version, digest = ArtifactRef.parse(str(where))
    if version not in (None, found.version) or not found.digest.startswith(digest or ""):
        raise NotFound(f"no version {where} comes with LoRe", hint=f"there is: {found}")


class ShippedStore(Store):
    """A :class:`Store` where the datasets that come with LoRe stand too: each is imported at its first use.

    Every digest is recomputed first: CorruptArtifact names the array that does not hold, and nothing enters the store.
    """

    def _open(self, name: str) -> Any:
        try:
            return super()._open(name)
        except NotFound:
            file = shipped_file(name, self)
            if file is None:
                raise
            import_hdf5(file, self, name)
            return super()._open(name)
