"""What the two forms of the RSSM's filter share: its weights, and their gradients from those of all steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lore.fast import kernels

__all__ = ["Kept", "Slopes", "Weights", "by_block", "input_gradients"]


def by_block(x: Tensor, blocks: int) -> Tensor:
    """[N, D] -> [g, N, D/g], a view."""
    return x.view(x.shape[0], blocks, -1).transpose(0, 1)


class Weights(NamedTuple):
    """What the filter reads; layouts are those of the layers in :mod:`lore.dreamer.nets`."""

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


class Kept(NamedTuple):
    """What went into the products of all steps [T B, ..], in their precision."""

    deter: Tensor
    stoch: Tensor
    shared: Tensor
    mixed: Tensor
    hidden: Tensor
    following: Tensor


class Slopes(NamedTuple):
    """Gradients of what came out of the products of all steps [T B, ..], and of the actions."""

    logits: Tensor
    post: Tensor
    gates: Tensor  # [g, T B, 3 D/g]
    mix: Tensor
    deter: Tensor
    stoch: Tensor
    action: Tensor  # [T, B, h]


def input_gradients(kept: Kept, g: Slopes, scales: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Gradients of a filter's inputs, each weight's as one product over all steps.

    scales: the gradients of those of deter, stoch, mix and posterior.
    """
    blocks, product = len(g.gates), kernels.weight_gradient
    mix = torch.cat([
        torch.bmm(by_block(kept.deter, blocks).transpose(1, 2), by_block(g.mix, blocks)).transpose(0, 1),
        product(kept.shared, g.mix).view(kept.shared.shape[1], blocks, -1),
    ])  # fmt: skip
    gates = torch.bmm(by_block(kept.mixed, blocks).transpose(1, 2), g.gates).transpose(0, 1)
    post = product(g.post.to(kept.following.dtype), kept.following)
    w = Weights(
        product(g.deter, kept.deter), g.deter.sum(0), scales[0], product(g.stoch, kept.stoch), g.stoch.sum(0),
        scales[1], mix, g.mix.sum(0), scales[2], gates, g.gates.sum(1).flatten(), post, scales[3],
        product(g.logits, kept.hidden), g.logits.sum(0),
    )  # fmt: skip
    seen = g.post.view(*g.action.shape[:2], -1)
    return seen, g.action, None, None, None, None, None, None, *(value.float() for value in w)
