"""Named bundles of the arrays that compiled loops take: weights, activations for the backward pass, gradients.

All are flat, contiguous float32; weights are [inputs, outputs] going forward and [outputs, inputs] going back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Core", "Dense", "FilterGradients", "FilterSteps", "Layer", "Posterior"]


class Layer(NamedTuple):
    """A dense layer with norm and activation."""

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray  # of the norm


class Dense(NamedTuple):
    """A dense layer; outputs padded with zeros to a multiple of eight."""

    weight: np.ndarray
    bias: np.ndarray


class Core(NamedTuple):
    """The recurrent step: layers of deter and stoch, the mix, the gates."""

    deter: Layer
    stoch: Layer
    shared: np.ndarray  # the mix from the inputs that all blocks share, [3 h, D]
    mix_bias: np.ndarray
    blocks: np.ndarray  # the mix within blocks, [g, D/g, D/g]
    mix_scale: np.ndarray
    gates: np.ndarray  # [g, D/g, 3 D/g]
    gates_bias: np.ndarray


class Posterior(NamedTuple):
    """The posterior's two layers; inside the filter the first lacks the columns of tokens and has no bias."""

    first: Layer
    last: Dense


class FilterSteps(NamedTuple):
    """What the filter computes in all steps [T, B, ..]; names as in :meth:`lore.dreamer.rssm.RSSM.core`."""

    deter: Any  # the state that went in, D
    stoch: Any  # S K
    deter_in: Any  # before its norm, h
    deter_root: Any  # 1 / rms of it, 1
    stoch_in: Any
    stoch_root: Any
    shared: Any  # inputs that all blocks share, 3 h
    mix: Any  # before its norm, D
    mix_root: Any
    mixed: Any  # after it, D
    gates: Any  # [g, T, B, 3 D/g]
    post_in: Any  # before its norm, h
    post_root: Any
    hidden: Any  # after it, h
    logits: Any  # S K


class FilterGradients(NamedTuple):
    """Gradients of what came out of the filter's products in all steps [T, B, ..]."""

    logits: Any
    post: Any
    gates: Any  # [g, T, B, 3 D/g]
    mix: Any
    deter: Any
    stoch: Any
    action: Any
