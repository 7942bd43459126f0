"""The RSSM's filter on a CPU: one compiled call forward and one back (:mod:`lore.fast.kernels_filter`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lore.fast import kernels
from lore.fast.recurrence_weights import Kept, Slopes, Weights, input_gradients

try:
    from lore.fast import kernels_filter
except ImportError:  # numba is missing
    kernels_filter = None

loops: Any = kernels_filter

__all__ = ["CompiledFilter", "fits"]

_ROWS = 4  # rows of the batch in one piece of work


def fits(seen: Tensor, keep: Tensor, w: Weights) -> bool:
    """Whether a filter over seen [T, B, h] can be one compiled call."""
    widths = (w.gates.shape[0], w.deter.shape[0], w.logits.shape[0])
    return (
        loops is not None
        and kernels.is_fused(seen)
        and keep.shape[1] % _ROWS == 0
        and not any(width % 8 for width in widths)
    )


def _flat(x: Tensor) -> np.ndarray:
    return x.detach().reshape(-1).numpy()


def _packed(w: Weights, transposed: bool) -> tuple[np.ndarray, ...]:
    """The weights as the loops take them: [inputs, outputs] going forward, ``transposed`` going back."""
    own = w.gates.shape[0]
    mix, gates = w.mix[:own].transpose(0, 1), w.gates.transpose(0, 1)  # [g, inputs, outputs]
    shared, thin = w.mix[own:].flatten(1), [w.deter, w.stoch, w.post, w.logits]  # thin: [outputs, inputs]
    if transposed:
        shared, mix, gates = shared.t(), mix.transpose(1, 2), gates.transpose(1, 2)
    else:
        thin = [x.t() for x in thin]
    deter, stoch, post, logits = thin
    parts = (
        deter, w.deter_bias, w.deter_scale, stoch, w.stoch_bias, w.stoch_scale, shared, w.mix_bias, mix, w.mix_scale,
        gates, w.gates_bias, post, w.post_scale, logits, w.logits_bias,
    )  # fmt: skip
    return tuple(_flat(x) for x in parts)


class CompiledFilter(torch.autograd.Function):
    """:class:`lore.fast.recurrence._Filter` on float32 rows of a CPU."""

    @staticmethod
    def forward(ctx, seen, action, keep, deter, stoch, uniform, unimix, kind, *weights):
        w = Weights(*weights)
        (steps, batch, hidden), width, flat = seen.shape, deter.shape[1], stoch.shape[1]
        blocks, classes, rows = w.gates.shape[1], flat // uniform.shape[-1], steps * batch
        widths = (width, flat, hidden, 1, hidden, 1, 3 * hidden, width, 1, width, 3 * width, hidden, 1, hidden, flat)
        kept = [np.empty(rows * n, np.float32) for n in widths]
        following, drawn = (
            np.empty((steps + 1, batch, width), np.float32),
            np.zeros((steps + 1, batch, flat), np.float32),
        )
        following[0], drawn[0] = deter.numpy(), stoch.numpy()
        sizes = (steps, batch, width, hidden, blocks, classes)
        saved = (*kept, following.reshape(-1), drawn.reshape(-1))
        inputs = (_flat(seen), _flat(action), _flat(keep), _flat(uniform), unimix)
        kernels.run_shared(loops.forward, batch // _ROWS, rows * width, *sizes, *inputs, _packed(w, False), saved)
        ctx.sizes, ctx.kept, ctx.keep, ctx.unimix = sizes, tuple(kept), inputs[2], unimix
        after, draws, logits = torch.from_numpy(following)[1:], torch.from_numpy(drawn)[1:], torch.from_numpy(kept[14])
        ctx.save_for_backward(after, *weights)
        return after, draws, logits.view(*uniform.shape, classes)

    @staticmethod
    def backward(ctx, grad_deter, grad_stoch, grad_logits):  # type: ignore[override]
        after, *weights = ctx.saved_tensors
        w, (steps, batch, width, hidden, blocks, _) = Weights(*weights), ctx.sizes
        rows = steps * batch
        widths = (hidden, 3 * width, width, hidden, hidden, hidden)
        slopes = (_flat(grad_logits.contiguous().clone()), *(np.empty(rows * n, np.float32) for n in widths))
        given = (ctx.keep, ctx.unimix, _flat(grad_deter), _flat(grad_stoch), _packed(w, True), ctx.kept, slopes)
        scales = kernels.run_summed(
            loops.backward, batch // _ROWS, rows * width, 3 * hidden + width, *ctx.sizes, *given
        )  # fmt: skip
        deter, stoch, shared, mixed, post = (
            torch.from_numpy(ctx.kept[i]).view(rows, -1) for i in (0, 1, 6, 9, 13)
        )  # fmt: skip
        logits, c, gates, x, a, b, action = (torch.from_numpy(slope).view(rows, -1) for slope in slopes)
        g = Slopes(logits, c, gates.view(blocks, rows, -1), x, a, b, action.view(steps, batch, hidden))
        sums = scales.split([hidden, hidden, width, hidden])
        return input_gradients(Kept(deter, stoch, shared, mixed, post, after.reshape(rows, width)), g, sums)
