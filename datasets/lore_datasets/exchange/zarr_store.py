"""A version as a Zarr store, for xarray, dask and whatever else reads Zarr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lore_datasets.attributes import array_attributes
from lore_datasets.exchange.shipped import ShippedStore
from lore_datasets.schema import dimension_names
from lore_datasets.types import ArtifactRef, Manifest

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["open_zarr_store"]


def open_zarr_store(where: str | ArtifactRef, root: Path | str | None = None) -> ZarrStore:
    """The read-only Zarr store of ``name[@vN][#digest]`` or ``name@label``, every array with named axes and attributes.

    ``xarray.open_datatree(store, engine="zarr", consolidated=False)`` gives all groups of the version,
    ``xarray.open_zarr(store, group="round-000", consolidated=False)`` the rows of a round: one entry per state along
    ``row``. Dataset names that come with LoRe are taken into the store under ``root`` first. Chunks have checksums;
    digests are recomputed by :meth:`lore_datasets.store.store.Store.verify` alone. NotFound names what there is.
    """
    group, manifest = ShippedStore(root).opened(where)
    return _described(group.store, manifest)


def _described(store: Any, manifest: Manifest) -> ZarrStore:
    """``store`` whose arrays have the names and attributes of today, also where an older LoRe wrote them."""
    from zarr.storage import WrapperStore

    class Described(WrapperStore):
        def _with_store(self, store: Any) -> Any:
            return type(self)(store)

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            found = await self._store.get(key, prototype, byte_range)
            path = key.removesuffix("/zarr.json")
            if found is None or path not in manifest.arrays:
                return found
            body = json.loads(found.to_bytes())
            body["dimension_names"] = dimension_names(manifest.kind, path, len(body["shape"]))
            body["attributes"] = array_attributes(manifest, path)
            return prototype.buffer.from_bytes(json.dumps(body).encode())

    return Described(store)
