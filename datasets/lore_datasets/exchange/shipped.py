"""Datasets that come with LoRe: one HDF5 file each, found by name where the store has no dataset of that name.

In a checkout they lie in ``datasets/``, in an installed wheel under ``share/lore/datasets`` of the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lore_datasets.errors import BadInput, NotFound
from lore_datasets.exchange.hdf5 import import_hdf5
from lore_datasets.places import shipped_files
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef

__all__ = ["ShippedStore", "check_meant", "shipped_file"]


def shipped_file(where: str | ArtifactRef, store: Store) -> Path | None:
    """The file of the shipped version that ``where`` names, of the newest where it names none; None when the store has
    that dataset or none is shipped.
    """
    try:
        name, version, _ = ArtifactRef.parse(str(where))
    except BadInput:
        return None
    files = shipped_files().get(name)
    if files is None or name in store.names():
        return None
    return next((file for file in files if file.stem == f"{name}@v{version}"), files[0 if version == 1 else -1])


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
            if shipped_file(name, self) is None:
                raise
            for file in shipped_files()[name]:
                import_hdf5(file, self, name)
            return super()._open(name)
