"""The posterior filter over a sequence as one differentiable operation of compiled loops.

Going back, each step needs the gradients of its states alone; those of the weights are sums over all steps: one product
each when the loop has ended.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lore.fast import kernels_filter
from lore.fast.bundles import Core, Dense, FilterGradients, FilterSteps, Layer, Posterior
from lore.fast.layers import weight_gradient
from lore.fast.packing import raw
from lore.fast.parallel import run_shared, run_summed

__all__ = ["ROWS", "FilterWeights", "filter_sequence"]

ROWS = 4
"""Sequences that a thread takes at a time."""


class FilterWeights(NamedTuple):
    """Parameters that the filter reads, in the layouts of :mod:`lore.dreamer.nets`."""

    deter: Tensor  # [h, D]
    deter_bias: Tensor
    deter_scale: Tensor
    stoch: Tensor  # [h, S K]
    stoch_bias: Tensor
    stoch_scale: Tensor
    mix: Tensor  # [D/g + 3 h, g, D/g]
    mix_bias: Tensor
    mix_scale: Tensor
    gates: Tensor  # [D/g, g, 3 D/g]
    gates_bias: Tensor
    post: Tensor  # [h, D], the posterior's first layer without its columns for tokens
    post_scale: Tensor
    logits: Tensor  # [S K, h]
    logits_bias: Tensor


def filter_sequence(
    seen: Tensor, action: Tensor, keep: Tensor, deter: Tensor, stoch: Tensor, uniform: Tensor, unimix: float,
    weights: FilterWeights,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Posterior deter [T, B, D], stoch [T, B, S K] (straight-through) and logits [T, B, S, K].

    Args:
        seen: [T, B, h], what tokens and bias add to the posterior's first layer. action: [T, B, h], projected.
        keep: bool [T, B], False zeroes the carried state before the step. deter, stoch: start, [B, D] and [B, S K].
        uniform: [T, B, S] in [0, 1).
    """
    return _Filter.apply(seen, action, keep, deter, stoch, uniform, unimix, *weights)


def _packed(w: FilterWeights, back: bool) -> tuple[Core, Posterior]:
    """The weights as the loops take them: [inputs, outputs] going forward, [outputs, inputs] going back."""
    own = w.gates.shape[0]
    blocks, gates = w.mix[:own].transpose(0, 1), w.gates.transpose(0, 1)  # [g, inputs, outputs]
    shared, thin = w.mix[own:].flatten(1), [w.deter, w.stoch, w.post, w.logits]  # thin: [outputs, inputs]
    if back:
        shared, blocks, gates = shared.t(), blocks.transpose(1, 2), gates.transpose(1, 2)
    else:
        thin = [x.t() for x in thin]
    deter, stoch, post, logits = map(raw, thin)
    core = Core(
        Layer(deter, raw(w.deter_bias), raw(w.deter_scale)), Layer(stoch, raw(w.stoch_bias), raw(w.stoch_scale)),
        raw(shared), raw(w.mix_bias), raw(blocks), raw(w.mix_scale), raw(gates), raw(w.gates_bias),
    )  # fmt: skip
    first = Layer(post, np.zeros(0, np.float32), raw(w.post_scale))  # its bias has gone into ``seen``
    return core, Posterior(first, Dense(logits, raw(w.logits_bias)))


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, seen, action, keep, deter, stoch, uniform, unimix, *weights):
        w = FilterWeights(*weights)
        (steps, batch, hidden), width, flat = seen.shape, deter.shape[1], stoch.shape[1]
        blocks, classes, rows = w.gates.shape[1], flat // uniform.shape[-1], steps * batch
        widths = FilterSteps(
            deter=width, stoch=flat, deter_in=hidden, deter_root=1, stoch_in=hidden, stoch_root=1, shared=3 * hidden,
            mix=width, mix_root=1, mixed=width, gates=3 * width, post_in=hidden, post_root=1, hidden=hidden,
            logits=flat,
        )  # fmt: skip
        computed = FilterSteps(*(np.empty(rows * n, np.float32) for n in widths))
        following = np.empty((steps + 1, batch, width), np.float32)
        drawn = np.zeros((steps + 1, batch, flat), np.float32)
        following[0], drawn[0] = deter.numpy(), stoch.numpy()
        sizes, kept = (steps, batch, width, hidden, blocks, classes), raw(keep)
        run_shared(
            kernels_filter.forward, batch // ROWS, rows * width, *sizes, raw(seen), raw(action), kept, raw(uniform),
            unimix, *_packed(w, False), computed, following.reshape(-1), drawn.reshape(-1),
        )  # fmt: skip
        ctx.sizes, ctx.computed, ctx.keep, ctx.unimix = sizes, computed, kept, unimix
        after = torch.from_numpy(following)[1:]
        ctx.save_for_backward(after, *weights)
        return after, torch.from_numpy(drawn)[1:], torch.from_numpy(computed.logits).view(*uniform.shape, classes)

    @staticmethod
    def backward(ctx, grad_deter, grad_stoch, grad_logits):  # type: ignore[override]
        after, *weights = ctx.saved_tensors
        w, (steps, batch, width, hidden, blocks, _) = FilterWeights(*weights), ctx.sizes
        rows, s = steps * batch, ctx.computed
        widths = (3 * width, width, hidden, hidden, hidden)  # of gates, mix, deter, stoch, action
        found = FilterGradients(
            raw(grad_logits.contiguous().clone()), np.empty(rows * hidden, np.float32),
            *(np.empty(rows * n, np.float32) for n in widths),
        )  # fmt: skip
        scales = run_summed(
            kernels_filter.backward, batch // ROWS, rows * width, 3 * hidden + width, *ctx.sizes, ctx.keep, ctx.unimix,
            raw(grad_deter), raw(grad_stoch), *_packed(w, True), s, found,
        )  # fmt: skip
        deter_scale, stoch_scale, mix_scale, post_scale = scales.split([hidden, hidden, width, hidden])
        g = FilterGradients(*(torch.from_numpy(x).view(rows, -1) for x in found))
        deter, stoch, shared, mixed, hiddens = (
            torch.from_numpy(x).view(rows, -1) for x in (s.deter, s.stoch, s.shared, s.mixed, s.hidden)
        )
        gates = g.gates.view(blocks, rows, -1)
        own = torch.bmm(_by_block(deter, blocks).transpose(1, 2), _by_block(g.mix, blocks)).transpose(0, 1)
        mix = torch.cat([own, weight_gradient(shared, g.mix).view(shared.shape[1], blocks, -1)])
        slopes = FilterWeights(
            weight_gradient(g.deter, deter), g.deter.sum(0), deter_scale,
            weight_gradient(g.stoch, stoch), g.stoch.sum(0), stoch_scale,
            mix, g.mix.sum(0), mix_scale,
            torch.bmm(_by_block(mixed, blocks).transpose(1, 2), gates).transpose(0, 1), gates.sum(1).flatten(),
            weight_gradient(g.post, after.reshape(rows, width)), post_scale,
            weight_gradient(g.logits, hiddens), g.logits.sum(0),
        )  # fmt: skip
        lead = (steps, batch, hidden)
        return g.post.view(lead), g.action.view(lead), None, None, None, None, None, *slopes


def _by_block(x: Tensor, blocks: int) -> Tensor:
    """[N, D] -> [g, N, D/g], a view."""
    return x.view(x.shape[0], blocks, -1).transpose(0, 1)
