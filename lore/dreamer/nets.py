"""Layers, encoders and decoders (danijar/dreamerv3 nets.py, rssm.py): they own parameters and nothing else.

Every constructor takes the torch.Generator that draws its initial weights (None = torch's global one).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lore.dreamer.dists import BINS, twohot_bins, twohot_loss, twohot_mean

__all__ = [
    "MLP", "NORM_EPS", "BlockLinear", "Conv", "Head", "ImageDecoder", "ImageEncoder", "Linear", "NormAct", "TwoHotHead",
    "init_weight",
]  # fmt: skip

NORM_EPS = 1e-4
"""Added to the mean square before the root."""
_TRUNCATED = 1.1368  # std of a unit normal cut at two sigma is 1 / 1.1368


def init_weight(weight: Tensor, fan_in: int, generator: Generator | None, outscale: float = 1.0) -> None:
    """Fill with a normal truncated at two sigma whose standard deviation is outscale / sqrt(fan_in)."""
    if weight.is_meta:
        return
    if outscale == 0.0:
        nn.init.zeros_(weight)
        return
    std = outscale * _TRUNCATED / sqrt(fan_in)
    nn.init.trunc_normal_(weight, 0.0, std, -2.0 * std, 2.0 * std, generator=generator)


class Linear(nn.Linear):
    """Dense layer with the truncated normal start and bias 0."""

    def __init__(self, inputs: int, outputs: int, generator: Generator | None = None, outscale: float = 1.0) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        init_weight(self.weight, inputs, generator, outscale)


class BlockLinear(nn.Module):
    """Block-diagonal dense layer: input chunk i -> output chunk i; the start's fan-in is the whole input.

    The weight is stored [in/g, g, out/g]: rows that meet an input shared by all blocks are then one dense matrix, and
    the block-major view [g, in/g, out/g] needs no copy either.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, generator: Generator | None = None) -> None:
        super().__init__()
        assert inputs % blocks == 0 and outputs % blocks == 0, (inputs, outputs, blocks)
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(inputs // blocks, blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        init_weight(self.weight, inputs, generator)

    def by_block(self, x: Tensor) -> Tensor:
        """Block-major form: [g, N, in/g] -> [g, N, out/g]."""
        return torch.baddbmm(self.bias.view(self.blocks, 1, -1), x, self.weight.transpose(0, 1))

    def with_shared(self, own: Tensor, shared: Tensor) -> Tensor:
        """The layer on concat(own [g, N, i], shared [N, in/g - i]) in every block: [N, out]."""
        split = own.shape[-1]
        dense = torch.addmm(self.bias, shared, self.weight[split:].flatten(1))
        blocks = torch.bmm(own, self.weight[:split].transpose(0, 1)).transpose(0, 1)  # [N, g, out/g]
        return (dense.view(blocks.shape) + blocks).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, out]."""
        rows = x.shape[0]
        return self.by_block(x.view(rows, self.blocks, -1).transpose(0, 1)).transpose(0, 1).reshape(rows, -1)


class NormAct(nn.Module):
    """silu(rms_norm(x)) over the last axis: eps 1e-4, learned scale, no shift, computed in float32."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        normed = F.rms_norm(x.float(), self.scale.shape, self.scale, NORM_EPS)
        return F.silu(normed).to(x.dtype)


class MLP(nn.Module):
    """``layers`` times linear -> rms norm -> silu, all of width ``units``."""

    def __init__(self, inputs: int, layers: int, units: int, generator: Generator | None = None) -> None:
        super().__init__()
        self.units, sizes = units, [inputs] + [units] * layers
        self.linears = nn.ModuleList(Linear(a, b, generator) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(NormAct(units) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., units]."""
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = norm(linear(x))
        return x


class Head(nn.Module):
    """MLP plus one linear layer; logits leave in float32."""

    def __init__(
        self, inputs: int, outputs: int, layers: int, units: int, generator: Generator | None = None,
        outscale: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mlp = MLP(inputs, layers, units, generator)
        self.out = Linear(units, outputs, generator, outscale)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> float32 [..., outputs]."""
        return self.out(self.mlp(x)).float()


class TwoHotHead(Head):
    """Head whose logits are a distribution over :data:`lore.dreamer.dists.BINS` symexp-spaced values."""

    bins: Tensor

    def __init__(
        self, inputs: int, layers: int, units: int, generator: Generator | None = None, outscale: float = 0.0
    ) -> None:
        super().__init__(inputs, BINS, layers, units, generator, outscale)
        self.register_buffer("bins", twohot_bins(), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value [...] of logits [..., BINS]."""
        return twohot_mean(logits, self.bins)

    def loss(self, logits: Tensor, *targets: Tensor) -> Tensor:
        """Sum [...] of the cross-entropies of logits [..., BINS] to targets [...]."""
        return twohot_loss(logits, self.bins, *targets)


def _fold(weight: Tensor, axis: int) -> Tensor:
    """Sum the taps of a 5-wide kernel that fall on the same cell of a doubled map: 5 -> 2 phases x 3 taps = 6."""
    a, b, c, d, e = weight.unbind(axis)
    return torch.stack([a + b, c + d, e, a, b + c, d + e], axis)


class Conv(nn.Module):
    """5x5 convolution, stride 1, same padding, bias, and the 2x2 max-pool behind it; with ``upsample`` there is no pool
    and the input is doubled (nearest) before it.

    The doubled map is never made: each of the four output phases is a 3x3 convolution of the small one (9 products per
    output in place of 25).
    """

    def __init__(self, inputs: int, outputs: int, generator: Generator | None = None, upsample: bool = False) -> None:
        super().__init__()
        self.upsample = upsample
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 5, 5))
        self.bias = nn.Parameter(torch.zeros(outputs))
        init_weight(self.weight, inputs * 25, generator)

    def phases(self) -> tuple[Tensor, Tensor]:
        """Weight [4 outputs, inputs, 3, 3] and bias [4 outputs] of the four phases of an upsampling layer."""
        outputs, inputs = self.weight.shape[:2]
        taps = _fold(_fold(self.weight, 3), 2).view(outputs, inputs, 2, 3, 2, 3)
        return taps.permute(2, 4, 0, 1, 3, 5).reshape(4 * outputs, inputs, 3, 3), self.bias.repeat(4)

    def forward(self, x: Tensor) -> Tensor:
        """Channels-last [N, H, W, inputs] -> max-pooled [N, H/2, W/2, outputs], or doubled [N, 2H, 2W, outputs] with
        ``upsample``."""
        rows, height, width, _ = x.shape
        x = x.permute(0, 3, 1, 2)
        if not self.upsample:
            return F.max_pool2d(F.conv2d(x, self.weight, self.bias, padding=2), 2).permute(0, 2, 3, 1)
        weight, bias = self.phases()
        phases = F.conv2d(x, weight, bias, padding=1).permute(0, 2, 3, 1).reshape(rows, height, width, 2, 2, -1)
        return phases.transpose(2, 3).reshape(rows, 2 * height, 2 * width, -1)


class ImageEncoder(nn.Module):
    """Frames -> tokens: per stage conv5x5 -> 2x2 max-pool -> rms norm -> silu, then flattened."""

    def __init__(self, depth: int, image_size: int, mults: Sequence[int], generator: Generator | None = None) -> None:
        super().__init__()
        channels = [3, *(depth * m for m in mults)]
        assert image_size % 2 ** len(mults) == 0, (image_size, mults)
        self.convs = nn.ModuleList(Conv(a, b, generator) for a, b in pairwise(channels))
        self.norms = nn.ModuleList(NormAct(c) for c in channels[1:])
        self.tokens = (image_size // 2 ** len(mults)) ** 2 * channels[-1]

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [..., size, size, 3] -> float [..., tokens]."""
        lead = image.shape[:-3]
        x = image.reshape(-1, *image.shape[-3:]) / 255.0 - 0.5
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
        return x.reshape(*lead, -1)


class ImageDecoder(nn.Module):
    """Latent -> frame in [0, 1]: block-linear from deter plus MLP from stoch, then upsampling convolutions."""

    def __init__(
        self, deter: int, stoch: int, depth: int, units: int, blocks: int, image_size: int, mults: Sequence[int],
        generator: Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.side = image_size // 2 ** len(mults)
        self.deter, self.blocks, self.channels = deter, blocks, depth * mults[-1]
        flat = self.side**2 * self.channels
        self.from_deter = BlockLinear(deter, flat, blocks, generator)
        self.from_stoch = Head(stoch, flat, 1, 2 * units, generator)
        self.norm = NormAct(self.channels)
        channels = [self.channels, *(depth * m for m in reversed(mults[:-1]))]
        self.convs = nn.ModuleList(Conv(a, b, generator, upsample=True) for a, b in pairwise(channels))
        self.norms = nn.ModuleList(NormAct(c) for c in channels[1:])
        self.out = Conv(channels[-1], 3, generator, upsample=True)

    def _first_map(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """deter [N, D], stoch [N, S*K] -> [N, side, side, channels] before its norm."""
        rows, side = len(deter), self.side
        # Each block holds its own [side, side, c/g] map; the maps are laid side by side along the channels.
        by_block = self.from_deter(deter).view(rows, self.blocks, side * side, -1)
        return by_block.transpose(1, 2).reshape(rows, side, side, -1) + self.from_stoch(stoch).view(
            rows, side, side, -1
        )

    def logits(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """deter [..., D], stoch [..., S*K] -> what the sigmoid makes a frame of, float32 [N, size * size * 3]."""
        x = self.norm(self._first_map(deter.flatten(0, -2), stoch.flatten(0, -2)))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
        return self.out(x).float().flatten(1)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """deter [..., D], stoch [..., S*K] -> float32 [..., size, size, 3]."""
        size = 2 ** (len(self.convs) + 1) * self.side
        return self.logits(deter, stoch).sigmoid().view(*deter.shape[:-1], size, size, 3)

    def loss(self, features: Tensor, image: Tensor) -> Tensor:
        """Squared errors [...] of the frame of features [..., D + S*K] against image uint8 [..., size, size, 3], summed
        over its pixels."""
        return (self(*self.split(features)) - image / 255.0).square().sum((-3, -2, -1))

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features [..., D + S*K] -> deter [..., D], stoch [..., S*K]."""
        return features[..., : self.deter], features[..., self.deter :]
