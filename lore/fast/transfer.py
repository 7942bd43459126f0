"""Between host and device in one piece: many small tensors packed into one copy, from and to page-locked memory, that
neither side waits for until the values are needed. On a CPU nothing is packed or copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Download", "pack", "unpack", "upload"]

_ALIGNED = 16  # bytes: any dtype can be viewed there


def pack(tensors: Mapping[str, Tensor], *, pinned: bool = False) -> tuple[Tensor, dict[str, int]]:
    """All of ``tensors``, which are on one device, behind each other as uint8 [bytes], and where each begins."""
    places, size = {}, 0
    for name, value in tensors.items():
        places[name], size = size, size + -(-value.nbytes // _ALIGNED) * _ALIGNED
    device = next(iter(tensors.values())).device
    buffer = torch.empty(size, dtype=torch.uint8, device=device, pin_memory=pinned)
    for name, value in tensors.items():
        _view(buffer, places[name], value).copy_(value)
    return buffer, places


def unpack(buffer: Tensor, places: Mapping[str, int], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that :func:`pack` put there, as views of ``buffer``; shapes and dtypes are those of ``like``."""
    return {name: _view(buffer, place, like[name]) for name, place in places.items()}


def _view(buffer: Tensor, place: int, like: Tensor) -> Tensor:
    return buffer[place : place + like.nbytes].view(like.dtype).view(like.shape)


def upload(arrays: Mapping[str, np.ndarray | np.generic | Tensor], device: torch.device) -> dict[str, Tensor]:
    """The arrays on ``device``, by name and in their order; those that are there already stay as they are.

    Torch keeps the page-locked buffer from being used again before the copy is over.
    """
    tensors = {name: torch.as_tensor(value) for name, value in arrays.items()}
    away = {name: value for name, value in tensors.items() if value.device.type != device.type}
    if not away:
        return tensors
    packed, places = pack(away, pinned=device.type == "cuda")
    return tensors | unpack(packed.to(device, non_blocking=True), places, away)


class Download:
    """Tensors of one device on their way to the host, begun when it is made."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self._host: Tensor | None = None
        device = next(iter(self._tensors.values())).device
        if device.type == "cpu":
            return
        packed, self._places = pack(self._tensors)
        self._host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._host.copy_(packed, non_blocking=True)
        self._done: Any = torch.cuda.Event() if device.type == "cuda" else None
        if self._done is not None:
            self._done.record()

    def arrays(self) -> dict[str, np.ndarray]:
        """Their values by name; waits until they have come."""
        if self._host is None:
            return {name: value.numpy() for name, value in self._tensors.items()}
        if self._done is not None:
            self._done.synchronize()
        return {name: value.numpy() for name, value in unpack(self._host, self._places, self._tensors).items()}
