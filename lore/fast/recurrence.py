"""The RSSM's filter over a sequence as one differentiable operation with a hand-written backward pass.

Backpropagation through time needs, step by step, only the gradients of the states; those of the weights are sums over
all steps and are taken as one product each after the loop. Against the tape of an automatic differentiation this saves
half of the work of short steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lore.fast import kernels
from lore.fast.recurrence_cpu import CompiledFilter, fits
from lore.fast.recurrence_weights import Kept, Slopes, Weights, by_block, input_gradients

__all__ = ["filter_sequence"]


def filter_sequence(
    seen: Tensor, action: Tensor, keep: Tensor, deter: Tensor, stoch: Tensor, uniform: Tensor, unimix: float, w: Weights
) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior deter [T, B, D], stoch [T, B, S K] (straight-through) and logits [T, B, S, K].

    Args:
        seen: [T, B, h] what tokens and bias add to the posterior's first layer. action: [T, B, h] projected actions.
        keep: bool [T, B], False zeroes the carried state before the step. deter, stoch: start, [B, D] and [B, S K].
        uniform: [T, B, S] in [0, 1).
    """
    kind = seen.dtype if seen.dtype != torch.float64 else torch.float32
    fused = kind == torch.float32 and fits(seen.float(), keep, w)
    how = CompiledFilter if fused else _Filter
    with torch.autocast(seen.device.type, enabled=False):
        return how.apply(seen.float(), action.float(), keep, deter, stoch, uniform, unimix, kind, *w)


class _Parts:
    """The weights in the forms and the precision that products take."""

    def __init__(self, w: Weights, kind: torch.dtype) -> None:
        own = w.gates.shape[0]
        self.kind, self.blocks = kind, w.gates.shape[1]
        self.deter, self.stoch, self.post, self.logits = (x.to(kind) for x in (w.deter, w.stoch, w.post, w.logits))
        mix = w.mix.to(kind)
        self.own, self.shared = mix[:own].transpose(0, 1), mix[own:].flatten(1)  # [g, D/g, D/g], [3 h, D]
        self.gates = w.gates.to(kind).transpose(0, 1)  # [g, D/g, 3 D/g]
        self.biases = [x.to(kind) for x in (w.deter_bias, w.stoch_bias, w.mix_bias, w.logits_bias)]
        self.gates_bias = w.gates_bias.to(kind).view(self.blocks, 1, -1)


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, seen, action, keep, deter, stoch, uniform, unimix, kind, *weights):
        w, kept = Weights(*weights), keep.float().unsqueeze(-1)
        p, steps = _Parts(w, kind), []
        deter_bias, stoch_bias, mix_bias, logits_bias = p.biases
        deter_t, stoch_t, post_t, logits_t = p.deter.t(), p.stoch.t(), p.post.t(), p.logits.t()
        whole = keep.all(1).tolist() if kernels.is_fused(deter) else [False] * len(keep)
        shape = uniform.shape[1:]
        for t, (seen_t, action_t, uniform_t) in enumerate(zip(seen, action, uniform, strict=True)):
            if not whole[t]:
                deter, stoch = deter * kept[t], stoch * kept[t]
            low = deter.to(kind)
            a = torch.addmm(deter_bias, low, deter_t).float()
            b = torch.addmm(stoch_bias, stoch.to(kind), stoch_t).float()
            (from_deter, inverse_a), (from_stoch, inverse_b) = (
                kernels.norm_silu_forward(a, w.deter_scale), kernels.norm_silu_forward(b, w.stoch_scale),
            )  # fmt: skip
            shared = torch.cat([from_deter, from_stoch, action_t], -1).to(kind)
            dense, blocks = torch.addmm(mix_bias, shared, p.shared), torch.bmm(by_block(low, p.blocks), p.own)
            x, mixed, inverse_x = kernels.mixed_norm_silu(dense.float(), blocks.float(), w.mix_scale)
            mixed = mixed.to(kind)
            gates = torch.baddbmm(p.gates_bias, by_block(mixed, p.blocks), p.gates).float()
            following = kernels.gated_forward(gates, deter)
            c = torch.addmm(seen_t, following, post_t) if kind == torch.float32 else (
                seen_t + following.to(kind) @ post_t
            )  # fmt: skip
            hidden, inverse_c = kernels.norm_silu_forward(c, w.post_scale)
            hidden = hidden.to(kind)
            logits = torch.addmm(logits_bias, hidden, logits_t).float()
            drawn = kernels.sample_onehot(logits.view(*shape, -1), uniform_t, unimix).flatten(1)
            steps.append(
                (deter, stoch, a, inverse_a, b, inverse_b, shared, x, inverse_x, mixed, gates, c, inverse_c, hidden,
                 following, logits, drawn)
            )  # fmt: skip
            deter, stoch = following, drawn
        ctx.steps, ctx.whole, ctx.unimix, ctx.kind, ctx.shape = steps, whole, unimix, kind, shape
        ctx.save_for_backward(kept, *weights)
        deters, draws, logits = (torch.stack([step[i] for step in steps]) for i in (14, 16, 15))
        return deters, draws, logits.view(*uniform.shape, -1)

    @staticmethod
    def backward(ctx, grad_deter, grad_stoch, grad_logits):  # type: ignore[override]
        kept, *weights = ctx.saved_tensors
        w, kind, width = Weights(*weights), ctx.kind, weights[0].shape[0]
        p = _Parts(w, kind)
        grads, scales = [], []
        deter_next = stoch_next = None
        grad_logits = grad_logits.flatten(2)
        own_t, gates_t, shared_t = p.own.transpose(1, 2), p.gates.transpose(1, 2), p.shared.t()
        for t in range(len(ctx.steps) - 1, -1, -1):
            deter, _, a, inverse_a, b, inverse_b, _, x, inverse_x, _, gates, c, inverse_c, _, _, logits, _ = ctx.steps[
                t
            ]
            stoch_grad = grad_stoch[t] if stoch_next is None else grad_stoch[t] + stoch_next
            straight = kernels.softmax_backward(
                stoch_grad.view(*ctx.shape, -1), logits.view(*ctx.shape, -1), 1.0 - ctx.unimix
            )
            logits_grad = (grad_logits[t] + straight.flatten(1)).to(kind)
            c_grad, post_scale = kernels.norm_silu_backward(
                (logits_grad @ p.logits).float(), c, w.post_scale, inverse_c
            )
            deter_grad = grad_deter[t] + (c_grad.to(kind) @ p.post).float()
            if deter_next is not None:
                deter_grad += deter_next
            gates_grad, own_grad = kernels.gated_backward(deter_grad, gates, deter)
            gates_grad = gates_grad.to(kind)
            mixed_grad = torch.bmm(gates_grad, gates_t).float().transpose(0, 1).flatten(1)
            x_grad, mix_scale = kernels.norm_silu_backward(mixed_grad, x, w.mix_scale, inverse_x)
            low = x_grad.to(kind)
            shared_grad = (low @ shared_t).float()
            own_grad += torch.bmm(by_block(low, p.blocks), own_t).float().transpose(0, 1).flatten(1)
            a_grad, deter_scale = kernels.norm_silu_backward(shared_grad[:, :width], a, w.deter_scale, inverse_a)
            b_grad, stoch_scale = kernels.norm_silu_backward(
                shared_grad[:, width : 2 * width], b, w.stoch_scale, inverse_b
            )
            a_low, b_low = a_grad.to(kind), b_grad.to(kind)
            deter_next, stoch_next = own_grad + (a_low @ p.deter).float(), (b_low @ p.stoch).float()
            if not ctx.whole[t]:
                deter_next, stoch_next = deter_next * kept[t], stoch_next * kept[t]
            grads.append((logits_grad, c_grad, gates_grad, low, a_low, b_low, shared_grad[:, 2 * width :]))
            scales.append((deter_scale, stoch_scale, mix_scale, post_scale))
        sums = [torch.stack(parts).sum(0) for parts in zip(*scales, strict=True)]
        logits, c, gates, x, a, b, action = zip(*grads[::-1], strict=True)
        wide = [torch.cat(parts) for parts in (logits, c, x, a, b)]
        slopes = Slopes(wide[0], wide[1], torch.cat(gates, 1), wide[2], wide[3], wide[4], torch.stack(action))
        kept_steps = Kept._make(torch.cat([step[i] for step in ctx.steps]).to(kind) for i in (0, 1, 6, 9, 13, 14))
        return input_gradients(kept_steps, slopes, sums)
