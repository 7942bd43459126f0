"""The recurrent state-space model as compiled calls: the filter over a sequence, a step of acting, an imagined step."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lore.dreamer.rssm import RSSM, UNIMIX
from lore.dreamer.types import Latent, Observed
from lore.fast import kernels_step
from lore.fast.bundles import Core, Dense, Layer, Posterior
from lore.fast.filter import ROWS, FilterWeights, filter_sequence
from lore.fast.packing import CACHED, fits, packed, raw
from lore.fast.parallel import run_shared

__all__ = ["CompiledRSSM"]

_MANY = 32  # rows from which a step of acting is as fast by torch's own products


class CompiledRSSM(RSSM):
    """:class:`lore.dreamer.rssm.RSSM` as compiled calls where widths are multiples of eight."""

    def observe(
        self, tokens: Tensor, prev_action: Tensor, is_first: Tensor, start: Latent, uniform: Tensor
    ) -> Observed:
        """All steps in one call, forward and back, where sequences come in fours."""
        if len(prev_action) % ROWS or not self._fits(tokens):
            return super().observe(tokens, prev_action, is_first, start, uniform)
        keep = (~is_first).t()  # [T, B]
        actions = self.project_action(prev_action.t(), keep)
        # Everything of the posterior's first layer that does not depend on the state, for all steps at once.
        weight, width = self.post_in.weight, self.size.deter
        seen = F.linear(tokens.transpose(0, 1), weight[:, width:], self.post_in.bias)
        weights = FilterWeights(
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
        self, tokens: Tensor, prev_action: Tensor, is_first: Tensor, latent: Latent, uniform: Tensor
    ) -> Latent:
        """One call for few rows, without gradient."""
        if torch.is_grad_enabled() or len(tokens) > _MANY or not self._fits(tokens):
            return super().observe_step(tokens, prev_action, is_first, latent, uniform)
        keep = ~is_first
        action = torch.where(keep, prev_action, self.actions)
        deter, stoch = latent.deter.float(), latent.stoch.float()
        following, drawn = torch.empty_like(deter), torch.zeros_like(stoch)
        table, core = self._core()
        kernels_step.step(
            len(deter), raw(deter), raw(stoch), raw(keep), raw(action), table, raw(tokens), *self._sizes(), core,
            self._posterior(), raw(uniform), UNIMIX, raw(following), raw(drawn),
        )  # fmt: skip
        return Latent(following, drawn)

    def imagine_step(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """One call without gradient while the weights fit the second cache."""
        cached = 3 * self.size.hidden * self.size.deter <= CACHED
        if torch.is_grad_enabled() or not cached or not self._fits(latent.deter):
            return super().imagine_step(latent, action, uniform)
        deter, stoch = latent.deter.contiguous(), latent.stoch.contiguous()
        following, drawn = torch.empty_like(deter), torch.zeros_like(stoch)
        table, core = self._core()
        run_shared(
            kernels_step.imagine, len(deter), 8 * deter.numel(), raw(deter), raw(stoch), raw(action), table,
            *self._sizes(), core, *self._prior(), raw(uniform), UNIMIX, raw(following), raw(drawn),
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

    def _core(self) -> tuple[np.ndarray, Core]:
        """The table of projected actions [A+1, h], and the weights of the recurrent step."""

        def make() -> tuple[np.ndarray, Core]:
            own, mix, gates = self.mix.weight.shape[2], self.mix.weight, self.gates.weight.transpose(0, 1)
            weight, bias = self.action_in.weight, self.action_in.bias
            table = self.action_norm(torch.cat([weight.t() + bias, bias[None]]))  # as in project_action
            core = Core(
                _layer(self.deter_in, self.deter_norm), _layer(self.stoch_in, self.stoch_norm), raw(mix[own:]),
                raw(self.mix.bias), raw(mix[:own].transpose(0, 1)), raw(self.mix_norm.scale), raw(gates),
                raw(self.gates.bias),
            )  # fmt: skip
            return raw(table), core

        return packed(self, self._parts["core"], make, "core")

    def _posterior(self) -> Posterior:
        def make() -> Posterior:
            return Posterior(_layer(self.post_in, self.post_norm), _dense(self.post_out))

        return packed(self, self._parts["post"], make, "posterior")

    def _prior(self) -> tuple[tuple[Layer, ...], Dense]:
        def make() -> tuple[tuple[Layer, ...], Dense]:
            mlp = self.prior_net.mlp
            return tuple(map(_layer, mlp.linears, mlp.norms)), _dense(self.prior_net.out)

        return packed(self, self._parts["prior"], make, "prior")


def _layer(linear: Any, norm: Any) -> Layer:
    return Layer(raw(linear.weight.t()), raw(linear.bias), raw(norm.scale))


def _dense(linear: Any) -> Dense:
    return Dense(raw(linear.weight.t()), raw(linear.bias))
