"""Checkpoints: one safetensors file with JSON meta data and a SHA-256 over everything in it.

A save writes a temporary file, fsyncs it, keeps the file it replaces as ``<name>.previous`` and renames. At any moment
a whole checkpoint stands at the path or at its previous name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lore_datasets.atomic import clear_drafts, replacing, sync
from lore_datasets.errors import CorruptArtifact, NewerSchema, NotFound, SchemeMismatch, shown

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SCHEMA", "check", "clean", "load", "previous_path", "save"]

SCHEMA = 1
"""Version of the file's layout; only grows."""


def previous_path(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint that a save replaced is kept."""
    path = Path(path)
    return path.with_name(path.name + ".previous")


def _digest(tensors: Mapping[str, Tensor], meta: str) -> str:
    import torch

    digest = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, none of them sharing memory."""
    import torch

    out: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value)
            value = torch.from_numpy(value if value.flags.writeable else value.copy())
        value = value.detach().cpu().contiguous()
        if value.numel() and value.untyped_storage().data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        out[name] = value
    return out


def _keep_previous(path: Path) -> None:
    """Give the present file a second name; the rename that follows then takes only its first one away."""
    with replacing(previous_path(path)) as draft:
        try:
            os.link(path, draft)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, draft)


def save(path: str | os.PathLike[str], tensors: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """Write torch or numpy tensors and JSON-able ``meta`` to ``path``; returns the SHA-256; NoSpace on a full disk."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = _plain(tensors)
    text = json.dumps({"schema": SCHEMA, **meta})  # key order is data: snapshots of games keep orders in it
    digest = _digest(plain, text)
    with replacing(path) as draft:
        try:
            save_file(plain, draft, metadata={"lore": text, "sha256": digest})
        except SafetensorError as error:
            if "No space left" not in str(error):
                raise
            raise OSError(errno.ENOSPC, str(error)) from error
        if path.exists():
            sync(draft)
            _keep_previous(path)
    return digest


def clean(path: str | os.PathLike[str]) -> None:
    """Remove what saves that were killed left beside ``path``; only for the one process that writes there."""
    clear_drafts(path)
    clear_drafts(previous_path(path))


def load(
    path: str | os.PathLike[str], expect: Mapping[str, Any] | None = None, *, fall_back: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read (tensors, meta) of a checkpoint.

    NotFound; CorruptArtifact when the file is cut or changed; NewerSchema; SchemeMismatch when ``meta`` differs from
    ``expect`` in one of its entries. With ``fall_back`` a missing or corrupt file is replaced by the one before it.
    """
    path = Path(path)
    try:
        return _read(path, expect)
    except NewerSchema:
        raise
    except (CorruptArtifact, NotFound) as error:
        kept = previous_path(path)
        if fall_back and kept.exists():
            return _read(kept, expect)
        if kept.exists():
            error.kept, error.hint = kept.name, error.hint or "resume from the one before it"
        raise


def _read(path: Path, expect: Mapping[str, Any] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise NotFound(f"no checkpoint at {shown(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            meta = json.loads(header["lore"])
            schema = meta.pop("schema")
            if isinstance(schema, int) and schema > SCHEMA:
                raise NewerSchema(
                    f"checkpoint {shown(path.name)} has schema {schema}, this LoRe reads up to {SCHEMA}",
                    hint="update LoRe",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        same = _digest(tensors, header["lore"]) == header["sha256"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"checkpoint {shown(path.name)} cannot be read: {shown(error)}") from error
    if not same:
        raise CorruptArtifact(f"checkpoint {shown(path.name)} does not match its SHA-256")
    check(path, meta, expect or {})
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
