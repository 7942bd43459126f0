"""Recurrent state-space model with a block-diagonal GRU (danijar/dreamerv3 rssm.py)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lore.dreamer.dists import straight_through, unimix_probs
from lore.dreamer.nets import BlockLinear, Head, Linear, NormAct
from lore.dreamer.types import Latent, Observed
from lore.sizes import Size

__all__ = ["RSSM", "UNIMIX"]

UNIMIX = 0.01
"""Uniform share mixed into every latent categorical."""


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

    def initial(self, batch: int, device: torch.device | None = None) -> Latent:
        """The all-zero state for ``batch`` rows."""
        device, size = device or self.gates.bias.device, self.size
        stoch = torch.zeros(batch, size.stoch, size.classes, device=device)
        return Latent(torch.zeros(batch, size.deter, device=device), stoch)

    def project_action(self, action: Tensor, keep: Tensor | None = None) -> Tensor:
        """int64 [...] -> action input of the core [..., h]; rows with keep bool [...] False get the zero action.

        The layer on a one-hot action is a row of its weight, so a table of all actions is projected once.
        """
        weight, bias = self.action_in.weight, self.action_in.bias
        table = self.action_norm(torch.cat([weight.t() + bias, bias[None]]))  # the last row is the zero action's
        return F.embedding(action if keep is None else torch.where(keep, action, self.actions), table)

    def core(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """The recurrent step: next deter [N, D] from deter [N, D], stoch [N, S, K] and a projected action [N, h]."""
        rows, blocks = deter.shape[0], self.size.blocks
        inputs = [self.deter_norm(self.deter_in(deter)), self.stoch_norm(self.stoch_in(stoch.flatten(1))), action]
        own, shared = deter.view(rows, blocks, -1).transpose(0, 1), torch.cat(inputs, -1)  # [g, N, D/g], [N, 3 h]
        mixed = self.mix_norm(self.mix.with_shared(own, shared))  # the norm spans all of D
        gates = self.gates.by_block(mixed.view(rows, blocks, -1).transpose(0, 1))  # [g, N, 3 D/g]
        reset, candidate, update = gates.float().chunk(3, -1)  # three slices inside each block
        candidate, update = torch.tanh(reset.sigmoid() * candidate), (update - 1.0).sigmoid()
        return torch.lerp(own, candidate, update).transpose(0, 1).reshape(rows, -1)

    def prior(self, deter: Tensor) -> Tensor:
        """Prior logits float32 [..., S, K] of deter [..., D]."""
        return self._logits(self.prior_net(deter))

    def posterior(self, deter: Tensor, tokens: Tensor) -> Tensor:
        """Posterior logits float32 [..., S, K] of deter [..., D] and tokens [..., E]."""
        hidden = self.post_norm(self.post_in(torch.cat([deter, tokens.to(deter.dtype)], -1)))
        return self._logits(self.post_out(hidden).float())

    def _logits(self, flat: Tensor) -> Tensor:
        return flat.unflatten(-1, (self.size.stoch, self.size.classes))

    def _filter(
        self, tokens: Tensor, action: Tensor, keep: Tensor, latent: Latent, uniform: Tensor
    ) -> tuple[Latent, Tensor]:
        """One step: tokens [B, E], projected action [B, h], keep bool [B] (False zeroes the state before the step),
        uniform [B, S] -> next latent and its posterior logits."""
        kept = keep.float().unsqueeze(-1)
        deter = self.core(latent.deter.float() * kept, latent.stoch.float() * kept.unsqueeze(-1), action)
        logits = self.posterior(deter, tokens)
        return Latent(deter, straight_through(unimix_probs(logits, UNIMIX), uniform)), logits

    def observe(
        self, tokens: Tensor, prev_action: Tensor, is_first: Tensor, start: Latent, uniform: Tensor
    ) -> Observed:
        """Filter a sequence: tokens [B, T, E], prev_action int64 [B, T], is_first bool [B, T], start [B, ...].

        The samples are those of ``uniform`` [T, B, S], numbers in [0, 1). On ``is_first`` the
        carried state and the previous action are zeroed before the step.
        """
        assert tokens.shape[:2] == is_first.shape == prev_action.shape, (tokens.shape, is_first.shape)
        latent, keep, found = start, ~is_first, []
        actions = self.project_action(prev_action, keep)
        for t in range(prev_action.shape[1]):
            latent, logits = self._filter(tokens[:, t], actions[:, t], keep[:, t], latent, uniform[t])
            found.append((*latent, logits))
        deter, stoch, logits = (torch.stack(steps, 1) for steps in zip(*found, strict=True))
        return Observed(Latent(deter, stoch), logits, self.prior(deter))

    def observe_step(
        self, tokens: Tensor, prev_action: Tensor, is_first: Tensor, latent: Latent, uniform: Tensor
    ) -> Latent:
        """One step of :meth:`observe` for acting: tokens [B, E], prev_action int64 [B], is_first bool [B], uniform
        [B, S]."""
        return self._filter(tokens, self.project_action(prev_action, ~is_first), ~is_first, latent, uniform)[0]

    def imagine_step(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """The next latent under the prior: latent [N, ...], action int64 [N], uniform [N, S]."""
        deter = self.core(latent.deter, latent.stoch, self.project_action(action))
        return Latent(deter, straight_through(unimix_probs(self.prior(deter), UNIMIX), uniform))
