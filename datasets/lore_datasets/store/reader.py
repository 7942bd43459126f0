"""Read one version out of an Icechunk repository, checked against its manifest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lore_datasets.environments import get_environment
from lore_datasets.errors import CorruptArtifact
from lore_datasets.schema import check_layout
from lore_datasets.store.manifest import Artifact, check_array, unsealed
from lore_datasets.store.repository import guarded
from lore_datasets.types import Manifest

__all__ = ["open_version", "read_arrays", "read_manifest", "skill_texts", "stored_arrays"]

_MAX_CHUNK_BYTES = 2**30
_MAX_CHUNKS = 2**17
_SMALL_BYTES = 2**26


def open_version(repository: Any, name: str, version: int) -> tuple[Any, Manifest]:
    """The root Zarr group (read-only) and the checked manifest of ``name@vN``."""
    import zarr

    where = f"{name}@v{version}"
    with guarded(f"opening {where}", "the other versions"):
        session = repository.readonly_session(tag=f"v{version}")
        group = zarr.open_group(session.store, mode="r")
        stored = dict(group.attrs)
    manifest = unsealed(stored, where)
    if (manifest.name, manifest.version) != (name, version):
        raise CorruptArtifact(
            f"{where} calls itself {manifest.name}@v{manifest.version}",
            hint="a repository keeps its name; use export and import to make a renamed copy",
        )
    return group, manifest


def read_manifest(repository: Any, name: str, version: int) -> Manifest:
    """The checked manifest of ``name@vN``."""
    return open_version(repository, name, version)[1]


def read_arrays(
    group: Any, manifest: Manifest, *, verify: bool = True, wanted: Callable[[str], bool] | None = None
) -> Artifact:
    """All arrays of an opened version (or those whose path is ``wanted``), each checked against its spec.

    Shapes are compared with the manifest before anything is allocated; with ``verify`` every digest is recomputed.
    CorruptArtifact names the array.
    """
    where = f"{manifest.name}@v{manifest.version}"
    specs = _specs(manifest)
    members = _checked_members(group, manifest, where) if verify else {}
    paths = [path for path in manifest.arrays if wanted is None or wanted(path)]

    def read(path: str) -> np.ndarray:
        with guarded(f"reading array {path} of {where}", "the other versions"):
            dtype = specs[path][1]
            stored = _as_stated(members[path] if members else group[path], specs[path], f"array {path} of {where}")
            values = np.asarray(stored[...])
            values = values.astype(object) if dtype == "str" else values
        if verify:
            check_array(manifest, path, values, where)
        return values

    heavy_first = sorted(paths, key=lambda path: -math.prod(specs[path][0]) * (8 if specs[path][1] == "str" else 1))
    with ThreadPoolExecutor(2) as pool:
        futures = {path: pool.submit(read, path) for path in heavy_first}
        return Artifact(manifest, {path: futures[path].result() for path in paths})


def skill_texts(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Name -> JSON of the skills among the arrays of an advice version; a later round may hold one anew."""
    texts: dict[str, str] = {}
    for path in sorted(arrays):
        if path.endswith("/skills/name"):
            texts.update(zip(arrays[path], arrays[path.removesuffix("name") + "json"], strict=True))
    return texts


def stored_arrays(group: Any, manifest: Manifest, wanted: Callable[[str], bool]) -> dict[str, Any]:
    """The read-only Zarr arrays of an opened version whose path is ``wanted``; nothing is read but their shapes.

    CorruptArtifact when a shape or type is not the stated one. Digests are not recomputed.
    """
    where, specs = f"{manifest.name}@v{manifest.version}", _specs(manifest)
    with guarded(f"opening the arrays of {where}", "the other versions"):
        return {
            path: _as_stated(group[path], specs[path], f"array {path} of {where}") for path in specs if wanted(path)
        }


def _specs(manifest: Manifest) -> dict[str, tuple[tuple[int, ...], str]]:
    """Path -> (shape, type) as the manifest states them; checked against the layout of its kind."""
    specs = {path: (spec.shape, spec.dtype) for path, spec in manifest.arrays.items()}
    environment = get_environment(manifest.environment)
    check_layout(manifest.kind, specs, environment, len(manifest.actions), len(manifest.skills))
    return specs


def _as_stated(stored: Any, spec: tuple[tuple[int, ...], str], what: str) -> Any:
    """``stored`` when shape, type and chunks are in order."""
    found = "str" if stored.dtype.kind == "T" else stored.dtype.newbyteorder("=").name
    if (stored.shape, found) != spec:
        raise CorruptArtifact(f"{what} is {found}{list(stored.shape)}, stated {spec[1]}{list(spec[0])}")
    _check_stored(stored, what)
    return stored


def _check_stored(stored: Any, what: str) -> None:
    """Nothing huge is allocated for chunks that are absurd or not there (missing small ones change the digest)."""
    chunk_bytes = math.prod(stored.chunks) * stored.dtype.itemsize
    if chunk_bytes > _MAX_CHUNK_BYTES or stored.nchunks > _MAX_CHUNKS:
        raise CorruptArtifact(f"{what} is cut into {stored.nchunks} chunks of {chunk_bytes} bytes")
    if stored.nbytes > _SMALL_BYTES and stored.nchunks_initialized != stored.nchunks:
        raise CorruptArtifact(f"{what} has {stored.nchunks_initialized} of {stored.nchunks} chunks")


def _checked_members(group: Any, manifest: Manifest, where: str) -> dict[str, Any]:
    with guarded(f"listing the arrays of {where}", "the other versions"):
        members = {path: member for path, member in group.members(max_depth=None) if hasattr(member, "shape")}
    if members.keys() != manifest.arrays.keys():
        missing, extra = sorted(manifest.arrays.keys() - members), sorted(members.keys() - manifest.arrays.keys())
        reason = "missing" if missing else "not in the manifest"
        raise CorruptArtifact(f"{where}: array {(missing + extra)[0]} is {reason}")
    return members
