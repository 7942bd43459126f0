"""Batches on their way to a device: one copy from memory that the device reads by itself, whatever their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Upload", "pack", "unpack"]

_ALIGNED = 16  # bytes: any dtype can be viewed there


def pack(tensors: Mapping[str, Tensor], buffer: Tensor | None = None) -> tuple[Tensor, dict[str, int]]:
    """All of ``tensors`` behind each other as uint8 [bytes], and where each begins; in ``buffer`` where it is large
    enough."""
    places, size = {}, 0
    for name, value in tensors.items():
        places[name], size = size, size + -(-value.nbytes // _ALIGNED) * _ALIGNED
    if buffer is None or len(buffer) < size:
        buffer = torch.empty(size, dtype=torch.uint8)
    for name, value in tensors.items():
        _view(buffer, places[name], value).copy_(value)
    return buffer[:size], places


def unpack(buffer: Tensor, places: Mapping[str, int], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that :func:`pack` put there, as views of ``buffer``; shapes and dtypes are those of ``like``."""
    return {name: _view(buffer, place, like[name]) for name, place in places.items()}


def _view(buffer: Tensor, place: int, like: Tensor) -> Tensor:
    return buffer[place : place + like.nbytes].view(like.dtype).view(like.shape)


class Upload:
    """Host arrays to a device: on a CPU as they are, else packed and sent by one copy that the host does not wait for.

    Two page-locked buffers are used in turn, so that a batch is packed while the one before it is still on its way.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: list[Any] = [None, None]
        self._sent: list[Any] = [None, None]
        self._turn = 0

    def __call__(self, arrays: Mapping[str, np.ndarray | np.generic | Tensor]) -> dict[str, Tensor]:
        """The arrays by name, on the device; those that are there already stay as they are."""
        tensors = {name: torch.as_tensor(value) for name, value in arrays.items()}
        away = {name: value for name, value in tensors.items() if value.device.type != self.device.type}
        if not away:
            return tensors
        self._turn ^= 1
        buffer, sent = self._buffers[self._turn], self._sent[self._turn]
        if sent is not None:
            sent.synchronize()  # of the batch before the last: long over
        packed, places = pack(away, buffer)
        if self.device.type == "cuda":
            if buffer is None or packed.data_ptr() != buffer.data_ptr():
                packed = packed.pin_memory()
            self._buffers[self._turn], self._sent[self._turn] = packed, torch.cuda.Event()
        there = packed.to(self.device, non_blocking=True)
        if self.device.type == "cuda":
            self._sent[self._turn].record()
        return tensors | unpack(there, places, away)
