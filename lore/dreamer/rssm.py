"""Recurrent state-space model with a block-diagonal GRU (danijar/dreamerv3 rssm.py)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lore.config import Size
from lore.dreamer.nets import BlockLinear, Head, Linear, NormAct
from lore.dreamer.types import Latent, Observed
from lore.fast import compiled, kernels
from lore.fast.recurrence import filter_sequence
from lore.fast.recurrence_weights import Weights

__all__ = ["RSSM", "UNIMIX"]

UNIMIX = 0.01
"""Uniform share mixed into every latent categorical."""


class _Gated(torch.autograd.Function):
    """The gated step as one operation."""

    @staticmethod
    def forward(ctx, gates: Tensor, deter: Tensor) -> Tensor:
        ctx.save_for_backward(gates, deter)
        return kernels.gated_forward(gates, deter)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        return kernels.gated_backward(grad, *ctx.saved_tensors)


class RSSM(nn.Module):
    """Latent dynamics: ``deter`` [.., D] by a gated block recurrence, ``stoch`` [.., S, K] one-hot samples.

    Args:
        size: row of the size table.
        actions: primitive actions A.
        tokens: width E of the encoder's output.
        generator: draws the initial weights.
    """

    def __init__(self, size: Size, actions: int, tokens: int, generator: Generator | None = None) -> None:
        super().__init__()
        deter, hidden, flat = size.deter, size.hidden, size.stoch * size.classes
        self.size, self.actions = size, actions
        self.deter_in, self.deter_norm = Linear(deter, hidden, generator), NormAct(hidden)
        self.stoch_in, self.stoch_norm = Linear(flat, hidden, generator), NormAct(hidden)
        self.action_in, self.action_norm = Linear(actions, hidden, generator), NormAct(hidden)
        self.mix = BlockLinear(deter + size.blocks * 3 * hidden, deter, size.blocks, generator)
        self.mix_norm = NormAct(deter)
        self.gates = BlockLinear(deter, 3 * deter, size.blocks, generator)
        self.post_in, self.post_norm = Linear(deter + tokens, hidden, generator), NormAct(hidden)
        self.post_out = Linear(hidden, flat, generator)
        self.prior_net = Head(deter, flat, 2, hidden, generator)
        named = list(self.named_parameters())
        self._prior_net = [p for name, p in named if name.startswith("prior_net.")]
        self._posterior_net = [p for name, p in named if name.startswith("post_")]
        self._core_net = [p for name, p in named if not name.startswith(("prior_net.", "post_"))]

    def initial(self, batch: int, device: torch.device | None = None) -> Latent:
        """The all-zero state for ``batch`` rows."""
        device = device or self.gates.bias.device
        size = self.size
        return Latent(
            torch.zeros(batch, size.deter, device=device),
            torch.zeros(batch, size.stoch, size.classes, device=device),
        )

    def project_action(self, action: Tensor, keep: Tensor | None = None) -> Tensor:
        """int64 [...] -> action input of the core [..., h]; rows with keep bool [...] False get the zero action."""
        weight, bias = self.action_in.weight, self.action_in.bias
        table = self.action_norm(torch.cat([weight.t() + bias, bias[None]]))  # the last row is the zero action's
        return F.embedding(action if keep is None else torch.where(keep, action, self.actions), table)

    def core(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """Next deter [N, D] from deter [N, D], stoch [N, S, K] and a projected action [N, h]."""
        rows, blocks = deter.shape[0], self.size.blocks
        inputs = [self.deter_norm(self.deter_in(deter)), self.stoch_norm(self.stoch_in(stoch.flatten(1))), action]
        own, shared = deter.view(rows, blocks, -1).transpose(0, 1), torch.cat(inputs, -1)  # [g, N, D/g], [N, 3 h]
        if torch.is_grad_enabled():
            mixed = self.mix_norm(self.mix.with_shared(own, shared))  # the norm spans all of D
        else:
            mixed = kernels.mixed_norm_silu(*self.mix.parts(own, shared), self.mix_norm.scale)[1]
        gates = self.gates.by_block(mixed.view(rows, blocks, -1).transpose(0, 1))  # [g, N, 3 D/g]
        return _Gated.apply(gates.float(), deter)  # three slices inside each block

    def _sample(self, logits: Tensor, uniform: Tensor) -> Tensor:
        return kernels.sample_onehot(logits, uniform, UNIMIX)

    def _uniform(self, shape: tuple[int, ...], device: torch.device, generator: Generator | None) -> Tensor:
        return torch.rand(*shape, self.size.stoch, device=device, generator=generator)

    def _logits(self, flat: Tensor) -> Tensor:
        return flat.unflatten(-1, (self.size.stoch, self.size.classes))

    def _posterior(self, hidden: Tensor) -> Tensor:
        return self._logits(self.post_out(self.post_norm(hidden)).float())

    def prior(self, deter: Tensor) -> Tensor:
        """Prior logits float32 [..., S, K] of deter [..., D]."""
        return self._logits(self.prior_net(deter))

    def observe(
        self, tokens: Tensor, prev_action: Tensor, is_first: Tensor, start: Latent, generator: Generator | None = None
    ) -> Observed:
        """Filter a sequence: tokens [B, T, E], prev_action int64 [B, T], is_first bool [B, T], start [B, ...].

        On ``is_first`` the carried state and the previous action are zeroed before the step.
        """
        batch, steps = prev_action.shape
        assert tokens.shape[:2] == is_first.shape == (batch, steps), (tokens.shape, is_first.shape)
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
        deter, stoch, logits = filter_sequence(
            seen, actions, keep, start.deter.float(), start.stoch.float().flatten(1), uniform, UNIMIX, weights
        )
        latent = Latent(deter.transpose(0, 1), self._logits(stoch).transpose(0, 1))
        return Observed(latent, logits.transpose(0, 1), self.prior(latent.deter))

    def observe_step(
        self, tokens: Tensor, prev_action: Tensor, is_first: Tensor, latent: Latent, generator: Generator | None = None
    ) -> Latent:
        """One step of :meth:`observe` for acting: tokens [B, E], prev_action int64 [B], is_first bool [B]."""
        if compiled.fits(tokens, *self._widths()):
            uniform, rows = self._uniform(tokens.shape[:1], tokens.device, generator), ~is_first
            action = torch.where(rows, prev_action, self.actions)
            carried = latent.deter.float(), latent.stoch.float()
            post = compiled.kept(self, self._posterior_net, self._pack_posterior, "posterior")
            packed = self._sizes(), *compiled.kept(self, self._core_net, self._pack_core, "core"), post
            return Latent(*compiled.step(*carried, rows, action, tokens, uniform, UNIMIX, *packed))
        keep = (~is_first).float().unsqueeze(-1)
        action = self.project_action(prev_action, ~is_first)
        deter = self.core(latent.deter.float() * keep, latent.stoch.float() * keep.unsqueeze(-1), action)
        post = self._posterior(self.post_in(torch.cat([deter, tokens.to(deter.dtype)], -1)))
        return Latent(deter, self._sample(post, self._uniform(deter.shape[:1], deter.device, generator)))

    def _widths(self) -> tuple[int, int, int]:
        return self.size.hidden, self.size.deter // self.size.blocks, self.size.stoch * self.size.classes

    def _sizes(self) -> tuple[int, int, int]:
        return self.size.hidden, self.size.blocks, self.size.classes

    def _pack_core(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """The table of actions, and the weights of the core as :mod:`lore.fast.kernels_step` takes them."""
        own, mix = self.mix.weight.shape[2], self.mix.weight.detach()  # D / g
        weight, bias = self.action_in.weight, self.action_in.bias
        parts = [
            self.deter_in.weight.t(), self.deter_in.bias, self.deter_norm.scale,
            self.stoch_in.weight.t(), self.stoch_in.bias, self.stoch_norm.scale,
            mix[own:], self.mix.bias, mix[:own].transpose(0, 1), self.mix_norm.scale,
            self.gates.weight.transpose(0, 1), self.gates.bias,
        ]  # fmt: skip
        table = self.action_norm(torch.cat([weight.t() + bias, bias[None]]))  # as in project_action
        return compiled.flat(table), tuple(compiled.flat(x.detach().contiguous()) for x in parts)

    def _pack_posterior(self) -> tuple[np.ndarray, ...]:
        first, last = self.post_in, self.post_out
        parts = [first.weight.t(), first.bias, self.post_norm.scale, last.weight.t(), last.bias]
        return tuple(compiled.flat(x.detach().contiguous()) for x in parts)

    def _pack_prior(self) -> tuple[np.ndarray, ...]:
        layers, last = self.prior_net.layers()
        parts = [x for weight, bias, scale in layers for x in (weight.t(), bias, scale)]
        return tuple(compiled.flat(x.detach().contiguous()) for x in (*parts, last[0].t(), last[1]))

    def imagine_step(self, latent: Latent, action: Tensor, generator: Generator | None = None) -> Latent:
        """The next latent under the prior: latent [N, ...], action int64 [N]."""
        if compiled.fits_step(latent.deter, *self._widths(), 3 * self.size.hidden * self.size.deter):
            prior = compiled.kept(self, self._prior_net, self._pack_prior, "prior")
            packed = self._sizes(), *compiled.kept(self, self._core_net, self._pack_core, "core"), prior
            uniform = self._uniform(action.shape, action.device, generator)
            return Latent(*compiled.imagine(*latent, action, uniform, UNIMIX, *packed))
        deter = self.core(latent.deter, latent.stoch, self.project_action(action))
        return Latent(deter, self._sample(self.prior(deter), self._uniform(deter.shape[:1], deter.device, generator)))
