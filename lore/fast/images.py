"""Image networks whose stages are compiled loops. Maps are channels-last, [N, height, width, channels]."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lore.dreamer.nets import ImageDecoder, ImageEncoder
from lore.fast import kernels_conv
from lore.fast.packing import packed, raw
from lore.fast.parallel import run_shared, run_summed

__all__ = ["CompiledImageDecoder", "CompiledImageEncoder"]

_VECTOR = 8


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _padded(x: Tensor, wide: int) -> np.ndarray:
    """x [..., C], detached, with zeros up to [..., wide], flat."""
    return raw(F.pad(x.detach(), (0, wide - x.shape[-1])))


# ------------------------------------------------------------------------------------------------------ the encoder
def _taps(weight: Tensor, bias: Tensor, scale: Tensor, wide: int) -> list[np.ndarray]:
    """Weight [5, 5, I, wide], bias and scale [wide] of a stage, flat; made anew when one of them has changed."""
    return packed(
        weight, (weight, bias, scale), lambda: [_padded(x, wide) for x in (weight.permute(2, 3, 1, 0), bias, scale)]
    )


def _pool_stage(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """The stage's output, then what the backward pass needs: pooled, which, inverse (see the kernel)."""
    rows, height, width, inputs = x.shape
    outputs, wide = len(bias), _up(len(bias), _VECTOR)
    grid = (rows, height // 2, width // 2)
    pooled, which = torch.empty(*grid, wide), torch.empty(*grid, wide, dtype=torch.uint8)
    out, inverse = torch.empty(*grid, outputs), torch.empty(grid)
    taps, biases, scales = _taps(weight, bias, scale, wide)
    run_shared(
        kernels_conv.pool_stage, rows, x.numel() * outputs, raw(x), height, width, inputs, *_affine(x), taps, biases,
        wide, scales, outputs, *map(raw, (pooled, which, out, inverse)),
    )  # fmt: skip
    return out, pooled, which, inverse


def _affine(x: Tensor) -> tuple[float, float]:
    return (1.0 / 255.0, -0.5) if x.dtype == torch.uint8 else (1.0, 0.0)


class _PoolStage(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        out, *kept = _pool_stage(x, weight, bias, scale)
        ctx.save_for_backward(x, weight, scale, *kept)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, weight, scale, pooled, which, inverse = ctx.saved_tensors
        rows, height, width, inputs = x.shape
        outputs, wide = len(scale), _up(len(scale), _VECTOR)
        long = 16 if 5 * inputs <= 16 and not ctx.needs_input_grad[0] else _up(5 * inputs, 40)
        kernel = weight.detach().permute(0, 2, 3, 1).reshape(outputs, 5, -1)
        own = torch.empty(x.shape if ctx.needs_input_grad[0] else 0)
        sums = run_summed(
            kernels_conv.pool_stage_back, rows, x.numel() * outputs, outputs * 5 * long + 2 * wide,
            raw(grad.contiguous()), raw(x), height, width, inputs, *_affine(x), _padded(kernel, long), long, wide,
            _padded(scale, wide), outputs, *map(raw, (pooled, which, inverse, own)),
        )  # fmt: skip
        weights, biases, scales = sums.split([outputs * 5 * long, wide, wide])
        taps = weights.view(outputs, 5, long)[..., : 5 * inputs].reshape(outputs, 5, 5, inputs).permute(0, 3, 1, 2)
        return own if ctx.needs_input_grad[0] else None, taps.contiguous(), biases[:outputs], scales[:outputs]


def pool_stage(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """silu(rms_norm(max_pool2d(conv5x5(x))) * scale): x [N, H, W, I] -> [N, H/2, W/2, O].

    weight [O, I, 5, 5], bias and scale [O]; a uint8 x stands for x / 255 - 1/2.
    """
    x = x.contiguous()
    if torch.is_grad_enabled():
        return _PoolStage.apply(x, weight, bias, scale)
    return _pool_stage(x, weight, bias, scale)[0]


# ------------------------------------------------------------------------------------------------------ the decoder
class _UpStage(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, phases: Tensor, bias: Tensor, scale: Tensor | None) -> Tensor:
        rows, height, width, inputs = x.shape
        outputs, wide = len(bias) // 4, _up(len(bias), 2 * _VECTOR)
        x = x.contiguous()
        before = torch.empty(rows, 2 * height, 2 * width, outputs)
        normed, nothing = scale is not None, torch.empty(0)
        out, inverse = (torch.empty_like(before), torch.empty(before.shape[:3])) if normed else (nothing, nothing)
        taps = _padded(phases.permute(2, 3, 1, 0), wide)
        ctx.scales = np.zeros(0, np.float32) if scale is None else _padded(scale, _up(outputs, _VECTOR))
        run_shared(
            kernels_conv.up_stage, rows, x.numel() * outputs, raw(x), height, width, inputs, taps,
            _padded(bias, wide), wide, ctx.scales, outputs, normed, *map(raw, (before, out, inverse)),
        )  # fmt: skip
        ctx.normed, ctx.outputs = normed, outputs
        ctx.save_for_backward(x, phases, before if normed else nothing, inverse)
        return out if normed else before

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, phases, before, inverse = ctx.saved_tensors
        rows, height, width, inputs = x.shape
        outputs, wide, deep, long = ctx.outputs, _up(4 * ctx.outputs, 2 * _VECTOR), _up(inputs, _VECTOR), _up(inputs, 2)
        turned = F.pad(phases.detach().flip(2, 3).permute(2, 3, 0, 1), (0, 0, 0, wide - 4 * outputs))
        own, long = torch.empty_like(x), 3 * long
        sums = run_summed(
            kernels_conv.up_stage_back, rows, x.numel() * outputs, 3 * long * wide + 2 * wide, raw(grad.contiguous()),
            raw(x), height, width, inputs, _padded(turned, deep), deep, wide, ctx.scales, outputs, ctx.normed,
            *map(raw, (before, inverse, own)),
        )  # fmt: skip
        weights, biases, scales = sums.split([3 * long * wide, wide, wide])
        taps = weights.view(3, long, wide)[:, : 3 * inputs, : 4 * outputs].reshape(3, 3, inputs, 4 * outputs)
        return own, taps.permute(3, 2, 0, 1), biases[: 4 * outputs], scales[:outputs] if ctx.normed else None


def up_stage(x: Tensor, phases: Tensor, bias: Tensor, scale: Tensor | None) -> Tensor:
    """conv3x3 to four phases that interleave to a map of twice the size: x [N, H, W, I] -> [N, 2H, 2W, O].

    phases [4 O, I, 3, 3] and bias [4 O]: (row, column) of the phase before the channel. With scale [O]: silu(rms_norm(
    that) * scale).
    """
    return _UpStage.apply(x, phases, bias, scale)


class _FrameLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor) -> Tensor:
        loss, slope = torch.empty(len(logits)), torch.empty(logits.shape)
        arrays = (raw(logits), raw(target), logits.shape[1], raw(loss), raw(slope))
        run_shared(kernels_conv.frame_loss, len(logits), logits.numel(), *arrays)
        ctx.save_for_backward(slope)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        return ctx.saved_tensors[0] * grad.unsqueeze(-1), None


def frame_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Sum [N] of (sigmoid(logits) - target / 255)^2 over logits [N, M] and uint8 target [N, M]."""
    return _FrameLoss.apply(logits, target)


# ------------------------------------------------------------------------------------------------------ the networks
class CompiledImageEncoder(ImageEncoder):
    """:class:`lore.dreamer.nets.ImageEncoder` with convolution, pool, norm and activation in one pass per stage."""

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [..., size, size, 3] -> float [..., tokens]."""
        if torch.is_autocast_enabled("cpu"):
            return super().forward(image)
        x = image.reshape(-1, *image.shape[-3:])
        stages: Any = zip(self.convs, self.norms, strict=True)
        for conv, norm in stages:
            x = pool_stage(x, conv.weight, conv.bias, norm.scale)
        return x.reshape(*image.shape[:-3], -1)


class CompiledImageDecoder(ImageDecoder):
    """:class:`lore.dreamer.nets.ImageDecoder` with doubling, convolution, norm and activation in one pass per stage."""

    def logits(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """deter [..., D], stoch [..., S*K] -> float32 [N, size * size * 3]."""
        if torch.is_autocast_enabled("cpu"):
            return super().logits(deter, stoch)
        x = self.norm(self._first_map(deter.flatten(0, -2), stoch.flatten(0, -2)))
        stages: Any = zip(self.convs, self.norms, strict=True)
        for conv, norm in stages:
            phases, bias = conv.phases()
            x = up_stage(x, phases, bias, norm.scale)
        phases, bias = self.out.phases()
        return up_stage(x, phases, bias, None).flatten(1)

    def loss(self, features: Tensor, image: Tensor) -> Tensor:
        """Squared errors [...] of the frame of features [..., F] against image uint8 [..., size, size, 3]."""
        logits = self.logits(*self.split(features))
        return frame_loss(logits, image.reshape(logits.shape)).view(image.shape[:-3])
