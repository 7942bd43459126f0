"""Manifests as JSON, digests of arrays and versions, and the artifact that every reader returns."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from lore_datasets.errors import BadInput, CorruptArtifact, LoreError, NewerSchema, shown
from lore_datasets.schema import SCHEMA
from lore_datasets.store.migrate import migrated
from lore_datasets.types import ArraySpec, ArtifactRef, Manifest

__all__ = [
    "Artifact",
    "array_spec",
    "canonical_json",
    "check_array",
    "check_arrays",
    "from_dict",
    "ref_of",
    "sealed",
    "to_dict",
    "unsealed",
    "version_digest",
]


@dataclass(frozen=True, eq=False)
class Artifact:
    """One opened version: its manifest, its arrays by path, and the attached ``advice_model`` if there is one.

    Text arrays are object arrays of ``str``; all others have the dtype of their :class:`ArraySpec`.
    """

    manifest: Manifest
    arrays: dict[str, np.ndarray]
    model: Artifact | None = None

    @property
    def ref(self) -> ArtifactRef:
        """Identity of this version."""
        return ref_of(self.manifest)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, ASCII only; BadInput when ``value`` is not plain finite JSON."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(
            f"not plain JSON: {shown(error)}", hint="use strings, finite numbers, lists and objects"
        ) from None


def array_spec(array: np.ndarray) -> ArraySpec:
    """Shape, dtype and SHA-256 over shape, dtype and decoded little-endian bytes (texts: lengths, then UTF-8)."""
    if array.dtype == object:
        texts = array.ravel().tolist()
        dtype = "str"
        lengths = np.fromiter(map(len, texts), "<i8", len(texts))
        parts = [lengths.data, "".join(texts).encode()]
    else:
        dtype = array.dtype.newbyteorder("=").name
        flat = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        parts = [flat.reshape(-1).view(np.uint8).data] if flat.size else []
    digest = hashlib.sha256(canonical_json([list(array.shape), dtype]).encode())
    for part in parts:
        digest.update(part)
    return ArraySpec(tuple(int(n) for n in array.shape), dtype, digest.hexdigest())


def check_array(manifest: Manifest, path: str, array: np.ndarray, where: str) -> None:
    """Compare an array with its spec in the manifest; CorruptArtifact when it differs."""
    if array_spec(array) != manifest.arrays[path]:
        raise CorruptArtifact(f"array {path} of {where} does not have the digest that its manifest states")


def check_arrays(manifest: Manifest, arrays: dict[str, np.ndarray], where: str) -> None:
    """:func:`check_array` for all (2 threads); the error names the first that differs."""
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda path: check_array(manifest, path, arrays[path], where), arrays):
            pass


def version_digest(manifest: Manifest) -> str:
    """SHA-256 over what the version *is* (kind, words, arrays), without name, number, time or provenance."""
    body = {
        "kind": manifest.kind,
        "schema": 1,  # of what identity means, not of the file: a migrated version keeps its digest
        "environment": manifest.environment,
        "key_scheme": manifest.key_scheme,
        "actions": list(manifest.actions),
        "skills": list(manifest.skills),
        "arrays": {path: [list(s.shape), s.dtype, s.sha256] for path, s in manifest.arrays.items()},
    }
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def ref_of(manifest: Manifest) -> ArtifactRef:
    """The reference of the version that a manifest describes."""
    return ArtifactRef(manifest.name, manifest.version, version_digest(manifest))


def to_dict(manifest: Manifest) -> dict[str, Any]:
    """Plain JSON form of a manifest (tuples become lists)."""
    return json.loads(canonical_json(asdict(manifest)))


def from_dict(body: Any) -> Manifest:
    """Strict inverse of :func:`to_dict`; NewerSchema or CorruptArtifact when it does not hold."""
    if not isinstance(body, dict) or type(body.get("schema")) is not int:
        raise CorruptArtifact("manifest without a schema version")
    if body["schema"] > SCHEMA:
        raise NewerSchema(
            f"written with schema {body['schema']}, this program reads up to {SCHEMA}", hint="install a newer LoRe"
        )
    kinds = {f.name: str(f.type) for f in fields(Manifest)}
    if set(body) != set(kinds):
        odd = sorted(set(body) ^ set(kinds))
        raise CorruptArtifact(f"manifest has missing or unknown fields {shown(odd)}")
    values: dict[str, Any] = dict(body)
    for name, kind in kinds.items():
        expected = {"int": int, "str": str}.get(kind, list if kind.startswith("tuple") else dict)
        texts = values[name] if expected is list else []
        if type(values[name]) is not expected or not all(isinstance(v, str) for v in texts):
            raise CorruptArtifact(f"manifest field {name} is not of the form {kind}")
        if expected is list:
            values[name] = tuple(values[name])
    values["arrays"] = {path: _spec(path, spec) for path, spec in values["arrays"].items()}
    try:
        for text in (values["name"], *values["parents"]):
            ArtifactRef.parse(text)
    except LoreError as error:
        raise CorruptArtifact(f"manifest: {error.message}") from None
    return Manifest(**values)


def _spec(path: str, spec: Any) -> ArraySpec:
    if isinstance(spec, dict) and set(spec) == {"shape", "dtype", "sha256"} and isinstance(spec["shape"], list):
        shape, texts = tuple(spec["shape"]), (spec["dtype"], spec["sha256"])
        if all(type(n) is int and 0 <= n < 2**48 for n in shape) and all(isinstance(t, str) for t in texts):
            return ArraySpec(shape, *texts)
    raise CorruptArtifact(f"manifest: malformed description of array {shown(path)}")


def sealed(manifest: Manifest) -> dict[str, Any]:
    """What is stored with the arrays: ``{"manifest": ..., "manifest_sha256": ...}``."""
    body = to_dict(manifest)
    return {"manifest": body, "manifest_sha256": hashlib.sha256(canonical_json(body).encode()).hexdigest()}


def unsealed(stored: Any, where: str) -> Manifest:
    """Check and read what :func:`sealed` made, in this or an older schema; CorruptArtifact or NewerSchema names
    ``where``."""
    try:
        body, seal = stored["manifest"], stored["manifest_sha256"]
        schema = body["schema"]
    except (KeyError, TypeError):
        raise CorruptArtifact(f"{where} holds no LoRe manifest") from None
    intact = hashlib.sha256(canonical_json(body).encode()).hexdigest() == seal
    try:
        if intact or (type(schema) is int and schema > SCHEMA):
            return from_dict(migrated(body) if type(schema) is int else body)
    except LoreError as error:
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from None
    raise CorruptArtifact(f"the manifest of {where} does not have its digest")
