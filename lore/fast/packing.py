"""Parameters in the layouts that compiled loops read, kept until they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")

__all__ = ["CACHED", "fits", "packed", "raw"]

CACHED = 2**17
"""Weights of a layer (float32) that fit the second-level cache of a core, 512 KiB."""


def fits(x: Tensor) -> bool:
    """Whether compiled loops may take ``x``: float32, and no autocast that would change it."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def packed(owner: Any, sources: Sequence[Tensor], make: Callable[[], T], what: str = "") -> T:
    """``make()``, made anew when one of the tensors it reads has changed; it is kept on ``owner`` as ``what``."""
    state, name = [(x.data_ptr(), x._version) for x in sources], f"_packed_{what}"
    known = getattr(owner, name, None)
    if known is None or known[0] != state:
        known = (state, make())
        setattr(owner, name, known)
    return known[1]


def raw(x: Tensor) -> np.ndarray:
    """A contiguous copy or view of x without its shape."""
    return (x.detach() if x.requires_grad else x).reshape(-1).contiguous().numpy()
