"""Networks as one compiled call each on CPUs: heads, and a step of the recurrence.

On few rows calls cost more than arithmetic; on many, rows that go through all layers while they are near the core cost
less than layers that write to memory and read from it. :func:`fits`, :func:`fits_head` and :func:`fits_step` say where
this applies; elsewhere the layers compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lore.config import Size
from lore.fast import kernels, parallel

try:
    from lore.fast import kernels_head, kernels_step
except ImportError:  # numba is missing
    kernels_head = kernels_step = None

heads: Any = kernels_head
loops: Any = kernels_step
T = TypeVar("T")

__all__ = ["divide_threads", "fits", "fits_head", "fits_step", "flat", "head", "imagine", "kept", "step"]

_MANY = 32  # rows from which torch's own products are as fast
_NEAR = 2**17  # weights of a layer that stay in the second cache


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


def fits_step(x: Tensor, hidden: int, part: int, flat: int, core: int) -> bool:
    """Whether imagination's step of rows x [R, D] is one compiled call; ``core``: weights of its largest layer."""
    return (
        loops is not None
        and kernels.is_fused(x)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not (hidden % 8 or part % 8 or flat % 8)
        and core <= _NEAR
    )


def kept(owner: Any, sources: Sequence[Tensor], make: Callable[[], T], what: str = "") -> T:
    """``make()``, made anew when one of the tensors it reads has changed; it is kept on ``owner`` as ``what``."""
    state, kept = [(x.data_ptr(), x._version) for x in sources], f"_packed_{what}"
    known = getattr(owner, kept, None)
    if known is None or known[0] != state:
        known = (state, make())
        setattr(owner, kept, known)
    return known[1]


def flat(x: Tensor) -> np.ndarray:
    """A contiguous copy or view of x without its shape."""
    return (x.detach() if x.requires_grad else x).reshape(-1).numpy()


def _padded(x: Tensor) -> Tensor:
    return F.pad(x.detach(), (0, -x.shape[-1] % 8))


def divide_threads(count: int, size: Size, device: torch.device) -> None:
    """Give ``count`` threads (0: as many as there were) to compiled loops where they do nearly all of a learner's work
    on this device, and one to torch; else to torch, whose number loops follow."""
    count = count or parallel.threads()
    small = (size.deter + size.stoch * size.classes) * size.units <= _NEAR
    loops_lead = device.type == "cpu" and heads is not None and small
    parallel.use(count if loops_lead else 0)
    torch.set_num_threads(1 if loops_lead else count)


def fits_head(x: Tensor, units: int) -> bool:
    """Whether a head of ``units`` on x [..., C] is one compiled call: its weights have to stay near the core."""
    inputs = x.shape[-1]
    return (
        heads is not None
        and kernels.is_fused(x)
        and not torch.is_autocast_enabled("cpu")
        and not (inputs % 8 or units % 8)
        and inputs * units <= _NEAR
    )


def head(owner: Any, x: Tensor, layers: Sequence[tuple[Tensor, Tensor, Tensor]], last: tuple[Tensor, Tensor]) -> Tensor:
    """(weight, bias, scale) of dense layers with norm and silu, then (weight, bias) of the last: [R, C] -> [R, O]."""
    tensors = [*(tensor for layer in layers for tensor in layer), *last]
    if torch.is_grad_enabled():
        return _Head.apply(owner, x, *tensors)
    return _head(owner, x, tensors, False)[0]


def _packed(owner: Any, tensors: Sequence[Tensor]) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """A head's parameters with weights [inputs, outputs], and its weights [outputs, inputs]; outputs padded."""

    def pack() -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        *layers, weight, bias = (t.detach() for t in tensors)
        forms = [v.t().contiguous() if i % 3 == 0 else v for i, v in enumerate(layers)]
        last = _padded(weight.t())
        there = tuple(flat(v) for v in (*forms, last, _padded(bias)))
        return there, tuple(flat(v) for v in (*layers[::3], last.t().contiguous()))

    return kept(owner, tensors, pack)


def _head(owner: Any, x: Tensor, tensors: Sequence[Tensor], keeps: bool) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The output, and with ``keeps`` what the way back needs: [layers, R, units] before the norms, 1 / rms."""
    (weights, _), rows, units = _packed(owner, tensors), len(x), len(tensors[1])
    outputs, many = len(tensors[-1]), len(tensors) // 3 * rows if keeps else 0
    out = torch.empty(rows, outputs)
    before, inverse = np.empty(many * units, np.float32), np.empty(many, np.float32)
    arrays = (flat(x.contiguous()), x.shape[1], units, weights, outputs, flat(out), before, inverse)
    kernels.run_shared(heads.forward, rows, rows * units, *arrays)
    return out, before, inverse


class _Head(torch.autograd.Function):
    """:func:`head` with gradients."""

    @staticmethod
    def forward(ctx, owner: Any, x: Tensor, *tensors: Tensor) -> Tensor:
        out, ctx.before, ctx.inverse = _head(owner, x, tensors, True)
        ctx.owner = owner
        ctx.save_for_backward(x, *tensors)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, *tensors = ctx.saved_tensors
        weights, turned = _packed(ctx.owner, tensors)
        (rows, inputs), units, outputs = x.shape, len(tensors[1]), len(tensors[-1])
        out, sizes = torch.empty(x.shape if ctx.needs_input_grad[1] else 0), [len(v) for v in weights]
        arrays = (flat(grad.contiguous()), flat(x.contiguous()), inputs, units, weights, turned, outputs)
        kept = (ctx.before, ctx.inverse, flat(out))
        sums = kernels.run_summed(heads.backward, rows, rows * units, sum(sizes), *arrays, *kept)
        *layers, weight, bias = sums.split(sizes)
        found = [v.view(-1, units).t().contiguous() if i % 3 == 0 else v for i, v in enumerate(layers)]
        last = weight.view(units, -1)[:, :outputs].t().contiguous()
        return None, out if len(out) else None, *found, last, bias[:outputs]


def step(
    deter: Tensor, stoch: Tensor, keep: Tensor, action: Tensor, tokens: Tensor, uniform: Tensor, unimix: float,
    sizes: tuple[int, int, int], table: np.ndarray, core: tuple[np.ndarray, ...], post: tuple[np.ndarray, ...],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The filter's next deter [R, D] and one-hot stoch [R, S, K]; sizes: hidden, blocks, classes; weights as in
    :mod:`lore.fast.kernels_step`."""
    following, drawn = torch.empty_like(deter), torch.zeros_like(stoch)
    loops.step(
        len(deter), flat(deter), flat(stoch), flat(keep), flat(action), table, flat(tokens), *sizes, core, post,
        flat(uniform), unimix, flat(following), flat(drawn),
    )  # fmt: skip
    return following, drawn


def imagine(
    deter: Tensor, stoch: Tensor, action: Tensor, uniform: Tensor, unimix: float, sizes: tuple[int, int, int],
    table: np.ndarray, core: tuple[np.ndarray, ...], prior: tuple[np.ndarray, ...],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The prior's next deter [R, D] and one-hot stoch [R, S, K]; the rest as in :func:`step`."""
    deter, stoch = deter.contiguous(), stoch.contiguous()
    following, drawn = torch.empty_like(deter), torch.zeros_like(stoch)
    arrays = (flat(deter), flat(stoch), flat(action), table, *sizes, core, prior, flat(uniform), unimix)
    kernels.run_shared(loops.imagine, len(deter), 8 * deter.numel(), *arrays, flat(following), flat(drawn))
    return following, drawn
