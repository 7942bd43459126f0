"""Tensors in one file of the safetensors format, hashed while it is written.

The library's own writer leaves ``.tmp`` files behind where it is killed, and its errors do not say which limit of the
disk was met; its reader reads what is written here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Stored", "stored", "write"]

_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""Name of a dtype in torch and numpy -> in the file."""

Stored = tuple[str, tuple[int, ...], np.ndarray]
"""Name of the dtype, shape, bytes uint8 [n]."""


def stored(value: torch.Tensor | np.ndarray, copy: bool = False) -> Stored:
    """A tensor or array as it will be written: views of host memory, or a ``copy`` that later changes do not reach."""
    if isinstance(value, np.ndarray):
        own = np.array(value, order="C") if copy else np.ascontiguousarray(value)
        return str(own.dtype), value.shape, own.reshape(-1).view(np.uint8)
    import torch

    host = value.detach().cpu().contiguous()
    if copy and host.data_ptr() == value.data_ptr():
        host = host.clone()
    flat = host.reshape(-1).view(torch.uint8) if host.numel() else host.new_zeros(0, dtype=torch.uint8)
    return str(host.dtype).removeprefix("torch."), tuple(host.shape), flat.numpy()


def write(path: str | os.PathLike[str], tensors: Mapping[str, Stored], header: Mapping[str, str]) -> str:
    """Write tensors and text entries to ``path``; returns the SHA-256 of the file."""
    names = sorted(tensors, key=lambda name: (-_width(tensors[name]), name))  # wide items first: all stay aligned
    table: dict[str, Any] = {"__metadata__": dict(header)} if header else {}
    end = 0
    for name in names:
        dtype, shape, data = tensors[name]
        table[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [end, end + data.nbytes]}
        end += data.nbytes
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "wb", buffering=0) as file:
        for part in (len(text).to_bytes(8, "little"), text, *(tensors[name][2].data for name in names)):
            digest.update(part)
            view = memoryview(part)
            while view:
                view = view[file.write(view) :]
    return digest.hexdigest()


def _width(value: Stored) -> int:
    _, shape, data = value
    return data.nbytes // max(1, int(np.prod(shape, dtype=np.int64)))
