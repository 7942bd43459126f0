"""Checkpoints: one safetensors file with JSON meta data and a SHA-256 over everything in it.

A save writes a temporary file, fsyncs it, keeps the file it replaces as ``<name>.previous`` and renames. At any moment
a whole checkpoint stands at the path or at its previous name. The replay of a run lies in files of its own, which the
meta data list (:mod:`lore.training.segments`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lore.training import segments
from lore.training.tensor_file import Stored, stored, write
from lore_datasets.atomic import clear_drafts, replacing, sync
from lore_datasets.errors import CorruptArtifact, NewerSchema, NotFound, SchemeMismatch, shown
from lore_datasets.json_text import parsed

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SCHEMA", "check", "clean", "load", "previous_path", "save"]

_LOG = logging.getLogger("lore")

SCHEMA = 2
"""Version of the file's layout; only grows. 1: the replay was in the file itself."""


def previous_path(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint that a save replaced is kept."""
    path = Path(path)
    return path.with_name(path.name + ".previous")


def _digest(tensors: Mapping[str, Stored], meta: str) -> str:
    digest = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        digest.update(json.dumps([name, f"torch.{dtype}", list(shape)]).encode())
        digest.update(data.data)
    return digest.hexdigest()


def _keep_previous(path: Path) -> None:
    """Give the present file a second name; the rename that follows then takes only its first one away."""
    with replacing(previous_path(path)) as draft:
        try:
            os.link(path, draft)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, draft)


def save(path: str | os.PathLike[str], tensors: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """Write torch or numpy tensors (or what :func:`lore.training.tensor_file.stored` made of them) and JSON-able
    ``meta`` to ``path``; returns the SHA-256 of the content; NoSpace on a full disk."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: value if isinstance(value, tuple) else stored(value) for name, value in tensors.items()}
    text = json.dumps({"schema": SCHEMA, **meta})  # key order is data: snapshots of games keep orders in it
    digest = _digest(plain, text)
    with replacing(path) as draft:
        write(draft, plain, {"lore": text, "sha256": digest})
        if path.exists():
            sync(draft)
            _keep_previous(path)
    return digest


def clean(path: str | os.PathLike[str]) -> None:
    """Remove what saves that were killed left beside ``path``; only for the one process that writes there."""
    clear_drafts(path)
    clear_drafts(previous_path(path))


def load(
    path: str | os.PathLike[str], expect: Mapping[str, Any] | None = None, *, fall_back: bool = False,
    has_replay: bool = False, sets_aside: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Any]]:  # fmt: skip
    """Read (tensors, meta) of a checkpoint; with ``has_replay`` those of its replay too.

    NotFound; CorruptArtifact when a file is cut, changed or missing; NewerSchema; SchemeMismatch when ``meta`` differs
    from ``expect`` in one of its entries. With ``fall_back`` a missing or corrupt file is replaced by the one before,
    which a warning says; with ``sets_aside`` it is renamed ``<name>.damaged`` then, so that the next save does not keep
    it in place of the whole one.
    """
    path = Path(path)
    try:
        return _read(path, expect, has_replay)
    except NewerSchema:
        raise
    except (CorruptArtifact, NotFound) as error:
        kept = previous_path(path)
        if fall_back and kept.exists():
            tensors, meta = _read(kept, expect, has_replay)
            if sets_aside and path.exists():
                os.replace(path, path.with_name(path.name + ".damaged"))
            _LOG.warning("%s: going on from the one before it, of step %s", error.message, meta.get("frames", "?"))
            return tensors, meta
        if kept.exists():
            error.kept, error.hint = kept.name, error.hint or "resume from the one before it"
        raise


def _read(
    path: Path, expect: Mapping[str, Any] | None, has_replay: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise NotFound(f"no checkpoint at {shown(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            meta = parsed(header["lore"])
            schema = meta.pop("schema")
            if isinstance(schema, int) and schema > SCHEMA:
                raise NewerSchema(
                    f"checkpoint {shown(path.name)} has schema {schema}, this LoRe reads up to {SCHEMA}",
                    hint="update LoRe",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        same = _digest({name: stored(value) for name, value in tensors.items()}, header["lore"]) == header["sha256"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"checkpoint {shown(path.name)} cannot be read: {shown(error)}") from error
    if not same:
        raise CorruptArtifact(f"checkpoint {shown(path.name)} does not match its SHA-256")
    check(path, meta, expect or {})
    if has_replay and meta.get("segments"):
        import torch

        arrays = segments.read(path.parent, meta["segments"], meta["replay"])
        tensors |= {f"replay/{name}": torch.from_numpy(array) for name, array in arrays.items()}
    return tensors, meta


def check(path: str | os.PathLike[str], meta: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    """SchemeMismatch, naming what does fit, when the ``meta`` of a checkpoint differs from ``expect``."""
    path = Path(path)
    differing = [name for name, value in expect.items() if meta.get(name) != value]
    if differing:
        raise SchemeMismatch(
            f"checkpoint {shown(path.name)} is for "
            + ", ".join(f"{name} {shown(meta.get(name))}" for name in differing)
            + "; this run has "
            + ", ".join(f"{name} {shown(expect[name])}" for name in differing),
            kept="the checkpoint",
            hint="it fits " + ", ".join(f"{name} {shown(meta.get(name))}" for name in expect),
        )
