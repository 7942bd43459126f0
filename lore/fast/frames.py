"""Stages of the image networks as differentiable operations: compiled loops on CPUs, torch elsewhere.

Maps are channels-last, [N, height, width, channels]. Both bodies compute the same function; tests hold them together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lore.fast import compiled, kernels

try:
    from lore.fast import kernels_conv
except ImportError:  # numba is missing
    kernels_conv = None

loops: Any = kernels_conv

__all__ = ["frame_loss", "is_fused", "pool_stage", "up_stage"]

_VECTOR = 8


def is_fused(weight: Tensor) -> bool:
    """Whether stages with these weights run as compiled loops."""
    return loops is not None and kernels.is_fused(weight) and not torch.is_autocast_enabled("cpu")


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _flat(x: Tensor) -> np.ndarray:
    return (x.detach() if x.requires_grad else x).reshape(-1).numpy()


def _padded(x: Tensor, wide: int) -> np.ndarray:
    """x [..., C], detached, with zeros up to [..., wide], flat."""
    return _flat(F.pad(x.detach(), (0, wide - x.shape[-1])))


# ------------------------------------------------------------------------------------------------------ the encoder
def _packed(weight: Tensor, bias: Tensor, scale: Tensor, wide: int) -> list[np.ndarray]:
    """Weight [5, 5, I, wide], bias and scale [wide] of a stage, flat; made anew when one of them has changed."""
    return compiled.kept(
        weight, (weight, bias, scale), lambda: [_padded(x, wide) for x in (weight.permute(2, 3, 1, 0), bias, scale)]
    )


def _pool_stage(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """The stage's output, then what the way back needs: pooled, which, inverse."""
    rows, height, width, inputs = x.shape
    outputs, wide = len(bias), _up(len(bias), _VECTOR)
    grid = (rows, height // 2, width // 2)
    pooled, which = torch.empty(*grid, wide), torch.empty(*grid, wide, dtype=torch.uint8)
    out, inverse = torch.empty(*grid, outputs), torch.empty(grid)
    taps, biases, scales = _packed(weight, bias, scale, wide)
    kernels.run_shared(
        loops.pool_stage, rows, x.numel() * outputs, _flat(x), height, width, inputs, *_affine(x), taps, biases, wide,
        scales, outputs, *map(_flat, (pooled, which, out, inverse)),
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
        sums = kernels.run_summed(
            loops.pool_stage_back, rows, x.numel() * outputs, outputs * 5 * long + 2 * wide, _flat(grad.contiguous()),
            _flat(x), height, width, inputs, *_affine(x), _padded(kernel, long), long, wide, _padded(scale, wide),
            outputs, *map(_flat, (pooled, which, inverse, own)),
        )  # fmt: skip
        weights, biases, scales = sums.split([outputs * 5 * long, wide, wide])
        taps = weights.view(outputs, 5, long)[..., : 5 * inputs].reshape(outputs, 5, 5, inputs).permute(0, 3, 1, 2)
        return own if ctx.needs_input_grad[0] else None, taps.contiguous(), biases[:outputs], scales[:outputs]


def pool_stage(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """silu(rms_norm(max_pool2d(conv5x5(x))) * scale): x [N, H, W, I] -> [N, H/2, W/2, O].

    weight [O, I, 5, 5], bias and scale [O]; a uint8 x stands for x / 255 - 1/2.
    """
    if is_fused(weight):
        x = x.contiguous()
        if torch.is_grad_enabled():
            return _PoolStage.apply(x, weight, bias, scale)
        return _pool_stage(x, weight, bias, scale)[0]
    if x.dtype == torch.uint8:
        x = x / 255.0 - 0.5
    x = F.max_pool2d(F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=2), 2).permute(0, 2, 3, 1)
    return F.silu(F.rms_norm(x.float(), scale.shape, scale, kernels.NORM_EPS)).to(x.dtype)


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
        packed = _padded(phases.permute(2, 3, 1, 0), wide)
        ctx.scales = np.zeros(0, np.float32) if scale is None else _padded(scale, _up(outputs, _VECTOR))
        kernels.run_shared(
            loops.up_stage, rows, x.numel() * outputs, _flat(x), height, width, inputs, packed, _padded(bias, wide),
            wide, ctx.scales, outputs, normed, *map(_flat, (before, out, inverse)),
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
        sums = kernels.run_summed(
            loops.up_stage_back, rows, x.numel() * outputs, 3 * long * wide + 2 * wide, _flat(grad.contiguous()),
            _flat(x), height, width, inputs, _padded(turned, deep), deep, wide, ctx.scales, outputs, ctx.normed,
            *map(_flat, (before, inverse, own)),
        )  # fmt: skip
        weights, biases, scales = sums.split([3 * long * wide, wide, wide])
        taps = weights.view(3, long, wide)[:, : 3 * inputs, : 4 * outputs].reshape(3, 3, inputs, 4 * outputs)
        return own, taps.permute(3, 2, 0, 1), biases[: 4 * outputs], scales[:outputs] if ctx.normed else None


def up_stage(x: Tensor, phases: Tensor, bias: Tensor, scale: Tensor | None) -> Tensor:
    """conv3x3 to four phases that interleave to a map of twice the size: x [N, H, W, I] -> [N, 2H, 2W, O].

    phases [4 O, I, 3, 3] and bias [4 O]: (row, column) of the phase before the channel. With scale [O]: silu(rms_norm(
    that) * scale).
    """
    if is_fused(phases):
        return _UpStage.apply(x, phases, bias, scale)
    rows, height, width, _ = x.shape
    out = F.conv2d(x.permute(0, 3, 1, 2), phases, bias, padding=1).permute(0, 2, 3, 1)
    out = out.reshape(rows, height, width, 2, 2, -1).transpose(2, 3).reshape(rows, 2 * height, 2 * width, -1)
    if scale is None:
        return out
    return F.silu(F.rms_norm(out.float(), scale.shape, scale, kernels.NORM_EPS)).to(out.dtype)


class _FrameLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor) -> Tensor:
        loss, slope = torch.empty(len(logits)), torch.empty_like(logits)
        kernels.run_shared(
            loops.frame_loss, len(logits), logits.numel(), logits.detach().numpy(), target.numpy(), loss.numpy(),
            slope.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(slope)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        return ctx.saved_tensors[0] * grad.unsqueeze(-1), None


def frame_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Sum [N] of (sigmoid(logits) - target / 255)^2 over logits [N, M] and uint8 target [N, M]."""
    if is_fused(logits):
        return _FrameLoss.apply(logits.contiguous(), target.contiguous())
    return (logits.float().sigmoid() - target / 255.0).square().sum(-1)
