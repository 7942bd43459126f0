"""The recurrent state-space model as compiled calls: the filter over a sequence, a step of acting, an imagined step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lore.dreamer.rssm import RSSM, UNIMIX
from lore.dreamer.types import Latent, Observed
from lore.fast import kernels_filter, kernels_step
from lore.fast.layers import weight_gradient
from lore.fast.packing import CACHED, fits, packed, raw
from lore.fast.parallel import run_shared, run_summed

__all__ = ["CompiledRSSM"]

_MANY = 32  # rows from which a step of acting is as fast by torch's own products


class CompiledRSSM(RSSM):
    """:class:`lore.dreamer.rssm.RSSM` as compiled calls where widths are multiples of eight."""

    def observe(
        self, tokens: Tensor, prev_action: Tensor, is_first: Tensor, start: Latent, generator: Generator | None = None
    ) -> Observed:
        """All steps in one call, forward and back, where sequences come in fours."""
        batch, steps = prev_action.shape
        if batch % _ROWS or not self._fits(tokens):
            return super().observe(tokens, prev_action, is_first, start, generator)
        keep = (~is_first).t()  # [T, B]
        actions = self.project_action(prev_action.t(), keep)
        uniform = self._uniform((steps, batch), prev_action.device, generator)
        # Everything of the posterior's first layer that does not depend on the state, for all steps at once.
        weight, width = self.post_in.weight, self.size.deter
        seen = F.linear(tokens.transpose(0, 1), weight[:, width:], self.post_in.bias)
        weights = Weights(
            self.deter_in.weight, self.deter_in.bias, self.deter_norm.scale,
            self.stoch_in.weight, self.stoch_in.bias, self.stoch_norm.scale,
            self.mix.weight, self.mix.bias, self.mix_norm.scale, self.gates.weight, self.gates.bias,
            weight[:, :width], self.post_norm.scale, self.post_out.weight, self.post_out.bias,
        )  # fmt: skip
        deter, stoch, logits = _Filter.apply(
            seen, actions, keep, start.deter.float(), start.stoch.float().flatten(1), uniform, UNIMIX, *weights
        )
        latent = Latent(deter.transpose(0, 1), self._logits(stoch).transpose(0, 1))
        return Observed(latent, logits.transpose(0, 1), self.prior(latent.deter))

    def observe_step(
        self, tokens: Tensor, prev_action: Tensor, is_first: Tensor, latent: Latent, generator: Generator | None = None
    ) -> Latent:
        """One call for few rows, without gradient: tokens [B, E], prev_action int64 [B], is_first bool [B]."""
        if torch.is_grad_enabled() or len(tokens) > _MANY or not self._fits(tokens):
            return super().observe_step(tokens, prev_action, is_first, latent, generator)
        uniform, keep = self._uniform(tokens.shape[:1], tokens.device, generator), ~is_first
        action = torch.where(keep, prev_action, self.actions)
        deter, stoch = latent.deter.float(), latent.stoch.float()
        following, drawn = torch.empty_like(deter), torch.zeros_like(stoch)
        table, core = self._core()
        kernels_step.step(
            len(deter), raw(deter), raw(stoch), raw(keep), raw(action), table, raw(tokens), *self._sizes(), core,
            self._posterior(), raw(uniform), UNIMIX, raw(following), raw(drawn),
        )  # fmt: skip
        return Latent(following, drawn)

    def imagine_step(self, latent: Latent, action: Tensor, generator: Generator | None = None) -> Latent:
        """One call without gradient while the weights fit the second cache: latent [N, ...], action int64 [N]."""
        cached = 3 * self.size.hidden * self.size.deter <= CACHED
        if torch.is_grad_enabled() or not cached or not self._fits(latent.deter):
            return super().imagine_step(latent, action, generator)
        uniform = self._uniform(action.shape, action.device, generator)
        deter, stoch = latent.deter.contiguous(), latent.stoch.contiguous()
        following, drawn = torch.empty_like(deter), torch.zeros_like(stoch)
        table, core = self._core()
        run_shared(
            kernels_step.imagine, len(deter), 8 * deter.numel(), raw(deter), raw(stoch), raw(action), table,
            *self._sizes(), core, self._prior(), raw(uniform), UNIMIX, raw(following), raw(drawn),
        )  # fmt: skip
        return Latent(following, drawn)

    def _fits(self, x: Tensor) -> bool:
        size = self.size
        widths = size.hidden, size.deter // size.blocks, size.stoch * size.classes
        return fits(x) and not any(width % 8 for width in widths)

    def _sizes(self) -> tuple[int, int, int]:
        return self.size.hidden, self.size.blocks, self.size.classes

    @cached_property
    def _parts(self) -> dict[str, list[Tensor]]:
        """Parameters of core, posterior and prior: the last two by the first letters of their names."""
        parts: dict[str, list[Tensor]] = {"core": [], "post": [], "prior": []}
        for name, parameter in self.named_parameters():
            parts[name.split("_")[0] if name.startswith(("post_", "prior_net.")) else "core"].append(parameter)
        return parts

    def _core(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """The table of actions, and the weights of the core as :mod:`lore.fast.kernels_step` takes them."""

        def make() -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
            own, mix = self.mix.weight.shape[2], self.mix.weight.detach()  # D / g
            weight, bias = self.action_in.weight, self.action_in.bias
            parts = [
                self.deter_in.weight.t(), self.deter_in.bias, self.deter_norm.scale,
                self.stoch_in.weight.t(), self.stoch_in.bias, self.stoch_norm.scale,
                mix[own:], self.mix.bias, mix[:own].transpose(0, 1), self.mix_norm.scale,
                self.gates.weight.transpose(0, 1), self.gates.bias,
            ]  # fmt: skip
            table = self.action_norm(torch.cat([weight.t() + bias, bias[None]]))  # as in project_action
            return raw(table), tuple(raw(x.detach().contiguous()) for x in parts)

        return packed(self, self._parts["core"], make, "core")

    def _posterior(self) -> tuple[np.ndarray, ...]:
        def make() -> tuple[np.ndarray, ...]:
            first, last = self.post_in, self.post_out
            parts = (first.weight.t(), first.bias, self.post_norm.scale, last.weight.t(), last.bias)
            return tuple(raw(x.detach().contiguous()) for x in parts)

        return packed(self, self._parts["post"], make, "posterior")

    def _prior(self) -> tuple[np.ndarray, ...]:
        def make() -> tuple[np.ndarray, ...]:
            net = self.prior_net
            pairs: Any = zip(net.mlp.linears, net.mlp.norms, strict=True)
            parts = [x for linear, norm in pairs for x in (linear.weight.t(), linear.bias, norm.scale)]
            return tuple(raw(x.detach().contiguous()) for x in (*parts, net.out.weight.t(), net.out.bias))

        return packed(self, self._parts["prior"], make, "prior")


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
    blocks, product = len(g.gates), weight_gradient
    mix = torch.cat([
        torch.bmm(by_block(kept.deter, blocks).transpose(1, 2), by_block(g.mix, blocks)).transpose(0, 1),
        product(kept.shared, g.mix).view(kept.shared.shape[1], blocks, -1),
    ])  # fmt: skip
    gates = torch.bmm(by_block(kept.mixed, blocks).transpose(1, 2), g.gates).transpose(0, 1)
    post = product(g.post, kept.following)
    w = Weights(
        product(g.deter, kept.deter), g.deter.sum(0), scales[0], product(g.stoch, kept.stoch), g.stoch.sum(0),
        scales[1], mix, g.mix.sum(0), scales[2], gates, g.gates.sum(1).flatten(), post, scales[3],
        product(g.logits, kept.hidden), g.logits.sum(0),
    )  # fmt: skip
    seen = g.post.view(*g.action.shape[:2], -1)
    return seen, g.action, None, None, None, None, None, *w


_ROWS = 4  # rows of the batch in one piece of work


def _filter_weights(w: Weights, transposed: bool) -> tuple[np.ndarray, ...]:
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
    return tuple(raw(x) for x in parts)


class _Filter(torch.autograd.Function):
    """The posterior sequence as one operation; the gradients of weights are sums over all steps, one product each."""

    @staticmethod
    def forward(ctx, seen, action, keep, deter, stoch, uniform, unimix, *weights):
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
        inputs = (raw(seen), raw(action), raw(keep), raw(uniform), unimix)
        run_shared(
            kernels_filter.forward, batch // _ROWS, rows * width, *sizes, *inputs, _filter_weights(w, False), saved
        )
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
        slopes = (raw(grad_logits.contiguous().clone()), *(np.empty(rows * n, np.float32) for n in widths))
        given = (
            ctx.keep,
            ctx.unimix,
            raw(grad_deter),
            raw(grad_stoch),
            _filter_weights(w, True),
            ctx.kept,
            slopes,
        )
        scales = run_summed(
            kernels_filter.backward, batch // _ROWS, rows * width, 3 * hidden + width, *ctx.sizes, *given
        )  # fmt: skip
        deter, stoch, shared, mixed, post = (
            torch.from_numpy(ctx.kept[i]).view(rows, -1) for i in (0, 1, 6, 9, 13)
        )  # fmt: skip
        logits, c, gates, x, a, b, action = (torch.from_numpy(slope).view(rows, -1) for slope in slopes)
        g = Slopes(logits, c, gates.view(blocks, rows, -1), x, a, b, action.view(steps, batch, hidden))
        sums = scales.split([hidden, hidden, width, hidden])
        return input_gradients(Kept(deter, stoch, shared, mixed, post, after.reshape(rows, width)), g, sums)
