"""Acting on a few rows without gradient: one compiled call per network on CPUs, where calls cost more than arithmetic.

:func:`fits` says where this applies; elsewhere the layers compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lore import kernels

try:
    from lore import kernels_few
except ImportError:  # numba is missing
    kernels_few = None

loops: Any = kernels_few
T = TypeVar("T")

__all__ = ["fits", "flat", "head", "kept", "step"]

_MANY = 32  # rows from which torch's own products are as fast


def fits(x: Tensor, *widths: int) -> bool:
    """Whether rows x [R, C] meet layers of these widths in one compiled call."""
    return (
        loops is not None
        and x.dim() == 2
        and len(x) <= _MANY
        and not torch.is_grad_enabled()
        and kernels.is_fused(x)
        and not torch.is_autocast_enabled("cpu")
        and not any(width % 8 for width in widths)
    )


def kept(owner: Any, sources: Sequence[Tensor], make: Callable[[], T]) -> T:
    """``make()``, made anew when one of the tensors it reads has changed; it is kept on ``owner``."""
    state = [(x.data_ptr(), x._version) for x in sources]
    known = getattr(owner, "_packed", None)
    if known is None or known[0] != state:
        known = (state, make())
        owner._packed = known
    return known[1]


def flat(x: Tensor) -> np.ndarray:
    """A contiguous copy or view of x without its shape."""
    return (x.detach() if x.requires_grad else x).reshape(-1).numpy()


def _padded(x: Tensor) -> Tensor:
    return F.pad(x.detach(), (0, -x.shape[-1] % 8))


def head(owner: Any, x: Tensor, layers: Sequence[tuple[Tensor, Tensor, Tensor]], last: tuple[Tensor, Tensor]) -> Tensor:
    """(weight, bias, scale) of dense layers with norm and silu, then (weight, bias) of the last: [R, C] -> [R, O]."""
    sources = [tensor for layer in layers for tensor in layer] + [*last]

    def pack() -> tuple[np.ndarray, ...]:
        out = [flat(v) for weight, bias, scale in layers for v in (weight.detach().t().contiguous(), bias, scale)]
        return (*out, flat(_padded(last[0].t())), flat(_padded(last[1])))

    weights = kept(owner, sources, pack)
    out = torch.empty(len(x), len(last[1]))
    units = len(layers[0][1])
    loops.head(len(x), flat(x), x.shape[1], len(layers), units, weights, out.shape[1], flat(out))
    return out


def step(
    deter: Tensor, stoch: Tensor, keep: Tensor, action: Tensor, tokens: Tensor, uniform: Tensor, unimix: float,
    hidden: int, blocks: int, weights: tuple[np.ndarray, ...],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The filter's next deter [R, D] and one-hot stoch [R, S, K]; weights as :func:`lore.kernels_few.step` has them."""
    following, drawn = torch.empty_like(deter), torch.zeros_like(stoch)
    loops.step(
        len(deter), flat(deter), flat(stoch), flat(keep), flat(action), flat(tokens), hidden, blocks, stoch.shape[-1],
        weights, flat(uniform), unimix, flat(following), flat(drawn),
    )  # fmt: skip
    return following, drawn
