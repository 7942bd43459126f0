"""What a version says of itself to machines: Croissant 1.1 JSON-LD (docs.mlcommons.org/croissant)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lore_datasets.errors import BadInput
from lore_datasets.exchange.card import description, round_groups
from lore_datasets.exchange.played import measured
from lore_datasets.exchange.table import SUFFIX, read_schema
from lore_datasets.store.manifest import ref_of
from lore_datasets.types import ArtifactRef, Manifest

__all__ = ["croissant"]

_TYPES = {
    "uint8": "cr:UInt8", "int16": "cr:Int16", "int32": "cr:Int32", "int64": "cr:Int64", "float32": "cr:Float32",
    "float64": "cr:Float64", "str": "sc:Text",
}  # fmt: skip
_COLUMNS = {"int16": "sc:Integer", "int32": "sc:Integer", "int64": "sc:Integer", "bool": "sc:Boolean",
            "float": "sc:Float", "double": "sc:Float"}  # fmt: skip
"""Types of a Parquet column; all others are texts."""
_PLAIN = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject",
    "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
    "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
    "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"}, "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "name": {"@container": "@language"},
    "description": {"@container": "@language"}, **{name: f"cr:{name}" for name in _PLAIN},
}  # fmt: skip
"""The context of the specification, whole."""
_KINDS = {SUFFIX: "application/x-parquet", ".h5": "application/x-hdf5", ".hdf5": "application/x-hdf5"}


def croissant(
    manifest: Manifest,
    *,
    license: str = "https://spdx.org/licenses/MIT.html",
    files: Sequence[Path] = (),
    url: str = "",
    play: Manifest | None = None,
) -> dict[str, Any]:
    """Croissant 1.1 JSON-LD of a version; ``files``, its HDF5 and Parquet exports, stand with size and SHA-256.

    With a Parquet table there is one record set, ``states``, whose records ``mlcroissant`` loads from beside the card;
    else one per round that describes the arrays. Without files the distribution is the set of files of the Icechunk
    repository. ``url``: where the dataset can be had; without one, a name made of its digest. ``play``: the version's
    newest play without learning, whose figures become ``variableMeasured``. BadInput for a table of another version.
    """
    ref = ref_of(manifest)
    tables = [file for file in files if file.suffix == SUFFIX]
    if tables:
        records = [_states(tables[0], ref)]
    else:
        where = {"fileObject": {"@id": files[0].name}} if files else {"fileSet": {"@id": "repository"}}
        records = [_arrays(manifest, group, where) for group in round_groups(manifest)]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": manifest.name,
        "description": description(manifest),
        "version": f"{manifest.version}.0.0",
        "identifier": f"{manifest.name}@v{manifest.version}#{ref.digest}",
        "url": url or f"urn:sha256:{ref.digest}",
        "license": license,
        "datePublished": manifest.created[:10],
        "creator": {"@type": "sc:Organization", "name": "LoRe"},
        "citeAs": f"LoRe, {ref}",
        "keywords": ["reinforcement learning", manifest.environment, manifest.kind],
        "isBasedOn": list(manifest.parents),
        "distribution": [_file(file) for file in files] or [_repository(manifest)],
        "recordSet": records,
    } | ({"variableMeasured": measured(play)} if play is not None else {})


def _repository(manifest: Manifest) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet", "@id": "repository", "name": "repository", "encodingFormat": "application/vnd+zarr",
        "includes": f"{manifest.name}.icechunk/**",
    }  # fmt: skip


def _file(file: Path) -> dict[str, Any]:
    if file.suffix not in _KINDS:
        raise BadInput(f"{file} is no export of a version", hint=f"files end in {', '.join(_KINDS)}")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject", "@id": file.name, "name": file.name, "contentUrl": file.name,
        "contentSize": f"{file.stat().st_size} B", "encodingFormat": _KINDS[file.suffix], "sha256": digest,
    }  # fmt: skip


def _states(file: Path, ref: ArtifactRef) -> dict[str, Any]:
    """The record set of a table: one record a state, fields ``states/COLUMN``."""
    import pyarrow

    found, schema = read_schema(file)
    if found != str(ref):
        raise BadInput(f"{file} is a table of {found}, not of {ref}", hint=f"lore datasets export '{ref}' {file}")
    fields = []
    for column in schema:
        kind, rank = column.type, 0
        while pyarrow.types.is_list(kind):
            kind, rank = kind.value_type, rank + 1
        field: dict[str, Any] = {
            "@type": "cr:Field", "@id": f"states/{column.name}", "name": f"states/{column.name}",
            "description": (column.metadata or {}).get(b"description", b"").decode(),
            "dataType": _COLUMNS.get(str(kind), "sc:Text"),
            "source": {"fileObject": {"@id": file.name}, "extract": {"column": column.name}},
        }  # fmt: skip
        fields.append(field | ({"isArray": True, "arrayShape": ",".join(["-1"] * rank)} if rank else {}))
    return {"@type": "cr:RecordSet", "@id": "states", "name": "states", "field": fields}


def _arrays(manifest: Manifest, group: str, where: dict[str, Any]) -> dict[str, Any]:
    """The record set of a round: its arrays by path; what they are, not a way to load them."""
    fields = []
    for path, spec in sorted(manifest.arrays.items()):
        folder, _, name = path.rpartition("/")
        if folder != group or spec.dtype not in _TYPES:
            continue
        field: dict[str, Any] = {
            "@type": "cr:Field",
            "@id": path,
            "name": name,
            "description": f"array {path}, {spec.dtype}{list(spec.shape)}, SHA-256 {spec.sha256}",
            "dataType": _TYPES[spec.dtype],
            "source": {**where, "extract": {"fileProperty": "content"}},
        }
        if len(spec.shape) > 1:
            field |= {"isArray": True, "arrayShape": ",".join(map(str, spec.shape[1:]))}
        fields.append(field)
    return {"@type": "cr:RecordSet", "@id": group, "name": group, "field": fields}
