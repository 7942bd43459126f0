"""The single-file form of a version: HDF5 that a machine with only numpy and h5py can read and check.

Layout: ``/manifest`` (uint8, JSON of :func:`lore_datasets.store.manifest.sealed`) beside the arrays under their
paths. Text
arrays are one uint8 dataset of UTF-8 bytes plus ``<path>.offsets`` (int64[N+1]): HDF5's own variable-length strings are
covered by no checksum. The newest ``advice_model`` of an advice version lies in the same form under ``/advice_model``.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lore_datasets.atomic import clear_drafts, write_bytes
from lore_datasets.attributes import array_attributes, version_attributes
from lore_datasets.environments import get_environment
from lore_datasets.errors import CorruptArtifact, LoreError, NewerSchema, NotFound, shown
from lore_datasets.schema import check_layout, dimension_names
from lore_datasets.store.commit import check_copy, commit_version
from lore_datasets.store.lineage import model_name, newest_model
from lore_datasets.store.manifest import Artifact, canonical_json, check_arrays, sealed, unsealed
from lore_datasets.store.repository import check_space, guarded
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef, Manifest

__all__ = ["export_hdf5", "import_hdf5", "read_hdf5", "write_hdf5"]

_MODEL = "advice_model"
_OFFSETS = ".offsets"
_STORED = "UTF-8; text i is the bytes from .offsets[i] to .offsets[i + 1]"
_MAX_RATIO = 64  # ten times what exports reach; reading needs about as much memory as is declared
_FREE_BYTES = 64 * 2**20  # whatever a file's size, this much may be declared
_TEXT_BYTES = 64  # what a short text takes in memory
_FILTERS = {1, 2, 3}  # HDF5's ids of deflate, shuffle and fletcher32
_MAX_MANIFEST = 64 * 2**20


def export_hdf5(store: Store, ref: ArtifactRef | str, path: Path | str) -> ArtifactRef:
    """Write a version (with the newest advice model of an advice version) to one file, at once or not at all."""
    artifact = store.open(ref)
    model = newest_model(store, artifact.ref) if artifact.manifest.kind == "advice" else None
    write_hdf5(Artifact(artifact.manifest, artifact.arrays, model), path)
    return artifact.ref


def write_hdf5(artifact: Artifact, path: Path | str) -> None:
    """Write an artifact to a file, at once or not at all; NoSpace keeps the old file.

    The file is made in memory: HDF5 itself ends the process where a disk or a quota fills while it writes. Drafts that
    killed exports of the same file left are removed.
    """
    import h5py

    path = Path(path)
    folder = path.parent
    kept = f"{path} as it was" if path.exists() else "the dataset in the store"
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}", hint="make it first")
    check_space(folder, sum(a.nbytes for a in artifact.arrays.values()) // 4, kept)
    with guarded(f"writing {path}", kept):
        clear_drafts(path, alone=False)
        image = io.BytesIO()
        with h5py.File(image, "w", libver="earliest") as file:
            _write_artifact(file, artifact)
            if artifact.model:
                _write_artifact(file.create_group(_MODEL), artifact.model)
        write_bytes(path, image.getbuffer())


def import_hdf5(path: Path | str, store: Store, name: str | None = None) -> ArtifactRef:
    """Check a file wholly and commit it; a version that the store holds already (same digest) is returned as it is.

    The version number is kept where it is free. ``name`` renames the dataset (and its model).
    """
    artifact = read_hdf5(path)
    target = name if name is not None else artifact.manifest.name
    ref = _commit_copy(store, artifact, target, ())
    if artifact.model:
        _commit_copy(store, artifact.model, model_name(target), (str(ref),))
    return ref


def read_hdf5(path: Path | str, verify: bool = True, wanted: Callable[[str], bool] | None = None) -> Artifact:
    """Read an exported file, checking declared shapes before allocation, digests and values after it.

    NotFound when there is no such file; CorruptArtifact or NewerSchema otherwise, naming the array; BadInput where a
    value breaks the rules that :meth:`Writer.append` holds rows to. Needs no store.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFound(f"no file {path}", hint="lore datasets export writes one")
    import h5py

    with guarded(f"reading {path}", "the file as it is"):
        if not h5py.is_hdf5(path):
            raise CorruptArtifact(f"{path} is not an HDF5 file")
        with h5py.File(path, "r") as file:
            budget = _FREE_BYTES + _MAX_RATIO * path.stat().st_size
            artifact = _read_artifact(file, str(path), verify, wanted, budget)
            if _MODEL not in file:
                return artifact
            group = _plain_member(file, _MODEL, h5py.Group, str(path))
            model = _read_artifact(group, f"{path}:/{_MODEL}", verify, None, budget)
    digests = [ArtifactRef.parse(parent)[2] or "-" for parent in model.manifest.parents]
    if not any(artifact.ref.digest.startswith(d) for d in digests):
        raise CorruptArtifact(f"the advice model in {path} was made for other rows")
    return Artifact(artifact.manifest, artifact.arrays, model)


def _commit_copy(store: Store, artifact: Artifact, name: str, parents: tuple[str, ...]) -> ArtifactRef:
    manifest = artifact.manifest
    if name in store.names():
        with suppress(NotFound, CorruptArtifact, NewerSchema):
            return store.resolve(f"{name}#{artifact.ref.digest}")
    provenance = {**manifest.provenance, "imported": str(artifact.ref)}
    draft = replace(manifest, name=name, parents=parents or manifest.parents, provenance=provenance)
    return commit_version(store.root, draft, artifact.arrays, wait=store.wait, version=manifest.version)


def _write_artifact(group: Any, artifact: Artifact) -> None:
    seal = np.frombuffer(canonical_json(sealed(artifact.manifest)).encode(), np.uint8)
    _dataset(group, "manifest", seal)
    group.attrs.update(_texts(version_attributes(artifact.manifest)))
    for path, array in artifact.arrays.items():
        if array.dtype == object:
            encoded = [text.encode() for text in array.tolist()]
            ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
            _dataset(group, path, np.frombuffer(b"".join(encoded), np.uint8))
            _dataset(group, path + _OFFSETS, ends)
        else:
            _dataset(group, path, array)
        labelled = group[path + _OFFSETS if array.dtype == object else path]
        for axis, name in enumerate(dimension_names(artifact.manifest.kind, path, array.ndim)):
            labelled.dims[axis].label = name
        told = array_attributes(artifact.manifest, path)
        group[path].attrs.update(_texts(told if array.dtype != object else told | {"stored": _STORED}))


def _texts(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as h5py gives them back: texts, and lists of texts."""
    return {name: value if isinstance(value, str) else np.array(value, object) for name, value in attributes.items()
            if isinstance(value, str) or value}  # fmt: skip


def _dataset(group: Any, path: str, array: np.ndarray) -> None:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.ndim == 0 or not array.size:
        little = little.reshape(()) if array.ndim == 0 else little
        group.create_dataset(path, data=little, track_times=False)
        return
    rows = max(1, 2**20 // max(1, array[:1].nbytes))
    chunks = (min(rows, len(array)), *array.shape[1:])
    options = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
    group.create_dataset(path, data=little, chunks=chunks, track_times=False, **options)


def _read_artifact(group: Any, where: str, verify: bool, wanted: Callable[[str], bool] | None, budget: int) -> Artifact:
    manifest = _read_manifest(group, where)
    environment = get_environment(manifest.environment)
    shapes = {path: (spec.shape, spec.dtype) for path, spec in manifest.arrays.items()}
    check_layout(manifest.kind, shapes, environment, len(manifest.actions), len(manifest.skills))
    _check_members(group, manifest, where)
    paths = [path for path in manifest.arrays if wanted is None or wanted(path)]
    declared = 0
    for path in paths:
        declared += _check_dataset(group, path, manifest, where)
    if declared > budget:
        raise CorruptArtifact(
            f"{where} declares {declared / 2**20:.0f} MiB of arrays, a file of its size may hold {budget / 2**20:.0f}",
            kept="the file as it is",
        )
    arrays = {}
    for path in paths:
        with _naming(path, where):
            arrays[path] = _read_array(group, path, manifest.arrays[path].dtype)
    if verify:
        check_arrays(manifest, arrays, where)
        try:
            check_copy(manifest, arrays)
        except LoreError as error:
            raise type(error)(f"{where}: {error.message}", kept=error.kept, hint=error.hint) from None
    return Artifact(manifest, arrays)


def _read_manifest(group: Any, where: str) -> Manifest:
    import h5py

    if "manifest" not in group:
        raise CorruptArtifact(
            f"{where} holds no LoRe manifest", hint="lore datasets export writes files that can be read"
        )
    stored = _plain_member(group, "manifest", h5py.Dataset, where)
    if stored.dtype != np.uint8 or stored.ndim != 1 or stored.size > _MAX_MANIFEST or not _is_whole(stored):
        raise CorruptArtifact(f"the manifest of {where} is not a text")
    try:
        body = json.loads(bytes(stored[...]))
    except (ValueError, RecursionError):
        raise CorruptArtifact(f"the manifest of {where} is not JSON") from None
    return unsealed(body, where)


def _check_members(group: Any, manifest: Manifest, where: str) -> None:
    """Exactly the arrays of the manifest, all of them plain datasets inside this file."""
    import h5py

    texts = {path for path, spec in manifest.arrays.items() if spec.dtype == "str"}
    allowed = {*manifest.arrays, *(path + _OFFSETS for path in texts), "manifest"}
    folders = {path[:i] for path in allowed for i, letter in enumerate(path) if letter == "/"}
    found: set[str] = set()
    waiting = [(group, "")]
    while waiting:
        folder, prefix = waiting.pop()
        for key in folder:
            path = prefix + key
            if path == _MODEL and prefix == "" and group.name == "/":
                continue
            if path in folders:
                waiting.append((_plain_member(folder, key, h5py.Group, where), path + "/"))
            elif path in allowed:
                _plain_member(folder, key, h5py.Dataset, where)
                found.add(path)
            else:
                raise CorruptArtifact(f"{where}: unknown array {shown(path)!r}")
    if missing := sorted(allowed - found):
        raise CorruptArtifact(f"{where}: array {missing[0]} is missing")


def _plain_member(folder: Any, key: str, kind: type, where: str) -> Any:
    import h5py

    if not isinstance(folder.get(key, getlink=True), h5py.HardLink) or folder.get(key, getclass=True) is not kind:
        raise CorruptArtifact(f"{where}: {shown(key)!r} is a link or not a {kind.__name__.lower()}")
    return folder[key]


def _check_dataset(group: Any, path: str, manifest: Manifest, where: str) -> int:
    """Bytes that array ``path`` declares, once its dtype, shape, storage and filters are known to be as stated."""
    spec = manifest.arrays[path]
    stored = group[path]
    total = 0
    if spec.dtype == "str":
        offsets = group[path + _OFFSETS]
        _check_stored(offsets, (spec.shape[0] + 1,), "int64", path, where)
        _check_stored(stored, stored.shape if stored.ndim == 1 else (-1,), "uint8", path, where)
        total += _TEXT_BYTES * spec.shape[0] + _bytes(offsets)
    else:
        _check_stored(stored, spec.shape, spec.dtype, path, where)
    return total + _bytes(stored)


def _bytes(stored: Any) -> int:
    """What a dataset takes when it is read, or one of its chunks if that is more."""
    return max(stored.size, math.prod(stored.chunks or ())) * stored.dtype.itemsize


def _check_stored(stored: Any, shape: tuple[int, ...], dtype: str, path: str, where: str) -> None:
    if stored.dtype.newbyteorder("=").name != dtype or stored.shape != shape:
        raise CorruptArtifact(
            f"array {path} of {where} is {stored.dtype.name}{list(stored.shape)}, stated {dtype}{list(shape)}"
        )
    if stored.external or stored.is_virtual or not _has_known_filters(stored) or not _is_whole(stored):
        raise CorruptArtifact(f"array {path} of {where} is not stored wholly inside the file")


def _has_known_filters(stored: Any) -> bool:
    """True when shuffle, deflate and fletcher32 stand at most once and no other filter stands at all."""
    plist = stored.id.get_create_plist()
    found = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    return len(set(found)) == len(found) and set(found) <= _FILTERS


def _is_whole(stored: Any) -> bool:
    """True when every chunk is present, so that no value is made up from the fill value."""
    if not stored.size:
        return True
    if stored.chunks is None:
        return stored.id.get_storage_size() == stored.size * stored.dtype.itemsize
    needed = 1
    for size, chunk in zip(stored.shape, stored.chunks, strict=True):
        needed *= -(-size // chunk)
    return needed < 2**32 and stored.id.get_num_chunks() == needed


def _read_array(group: Any, path: str, dtype: str) -> np.ndarray:
    values = group[path][...]
    if dtype != "str":
        return np.asarray(values).astype(np.dtype(dtype), copy=False)
    ends = group[path + _OFFSETS][...]
    data = values.tobytes()
    if ends[0] != 0 or ends[-1] != len(data) or (np.diff(ends) < 0).any():
        raise CorruptArtifact(f"array {path}: offsets do not fit its text")
    texts = np.empty(len(ends) - 1, object)
    bounds = ends.tolist()
    texts[:] = [data[a:b].decode() for a, b in pairwise(bounds)]
    return texts


@contextmanager
def _naming(path: str, where: str) -> Iterator[None]:
    try:
        yield
    except (LoreError, MemoryError):
        raise
    except Exception as error:
        raise CorruptArtifact(f"array {path} of {where} cannot be read: {shown(error)}") from error
