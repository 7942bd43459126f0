"""Recurrent state-space model with a block-diagonal GRU (danijar/dreamerv3 rssm.py)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lore.config import Size
from lore.dists import straight_through, unimix_probs
from lore.nets import BlockLinear, Head, Linear, NormAct
from lore.types import Latent, Observed

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
        device = device or self.gates.bias.device
        size = self.size
        return Latent(
            torch.zeros(batch, size.deter, device=device),
            torch.zeros(batch, size.stoch, size.classes, device=device),
        )

    def project_action(self, action: Tensor, keep: Tensor | None = None) -> Tensor:
        """int64 [...] -> action input of the core [..., h]; rows with keep [..., 1] = 0 get the zero action."""
        onehot = (action.unsqueeze(-1) == torch.arange(self.actions, device=action.device)).float()
        if keep is not None:
            onehot = onehot * keep
        return self.action_norm(self.action_in(onehot))

    def core(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """Next deter [N, D] from deter [N, D], stoch [N, S, K] and a projected action [N, h]."""
        rows, blocks = deter.shape[0], self.size.blocks
        inputs = [self.deter_norm(self.deter_in(deter)), self.stoch_norm(self.stoch_in(stoch.flatten(1))), action]
        own = deter.view(rows, blocks, -1).transpose(0, 1)  # [g, N, D/g]
        mixed = self.mix_norm(self.mix.with_shared(own, torch.cat(inputs, -1)))  # the norm spans all of D
        gates = self.gates.by_block(mixed.view(rows, blocks, -1).transpose(0, 1))  # [g, N, 3 D/g]
        reset, candidate, update = gates.float().chunk(3, -1)  # three slices inside each block
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(own, candidate, torch.sigmoid(update - 1.0)).transpose(0, 1).reshape(rows, -1)

    def _sample(self, logits: Tensor, uniform: Tensor) -> Tensor:
        return straight_through(unimix_probs(logits, UNIMIX), uniform)

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
        keep = (~is_first).float().unsqueeze(-1)  # [B, T, 1]
        actions = self.project_action(prev_action, keep).unbind(1)
        uniform = self._uniform((steps, batch), prev_action.device, generator)
        # Everything of the posterior's first layer that does not depend on the state, for all steps at once.
        weight, width = self.post_in.weight, self.size.deter
        seen = F.linear(tokens, weight[:, width:], self.post_in.bias).unbind(1)
        weight = weight[:, :width]
        deter, stoch = start.deter.float(), start.stoch.float()
        deters, stochs, logits = [], [], []
        for t, kept in enumerate(keep.unbind(1)):
            deter = self.core(deter * kept, stoch * kept.unsqueeze(-1), actions[t])
            post = self._posterior(F.linear(deter, weight) + seen[t])
            stoch = self._sample(post, uniform[t])
            deters.append(deter)
            stochs.append(stoch)
            logits.append(post)
        latent = Latent(torch.stack(deters, 1), torch.stack(stochs, 1))
        return Observed(latent, torch.stack(logits, 1), self.prior(latent.deter))

    def observe_step(
        self, tokens: Tensor, prev_action: Tensor, is_first: Tensor, latent: Latent, generator: Generator | None = None
    ) -> Latent:
        """One step of :meth:`observe` for acting: tokens [B, E], prev_action int64 [B], is_first bool [B]."""
        keep = (~is_first).float().unsqueeze(-1)
        action = self.project_action(prev_action, keep)
        deter = self.core(latent.deter.float() * keep, latent.stoch.float() * keep.unsqueeze(-1), action)
        post = self._posterior(self.post_in(torch.cat([deter, tokens.to(deter.dtype)], -1)))
        return Latent(deter, self._sample(post, self._uniform(deter.shape[:1], deter.device, generator)))

    def imagine_step(self, latent: Latent, action: Tensor, generator: Generator | None = None) -> Latent:
        """The next latent under the prior: latent [N, ...], action int64 [N]."""
        deter = self.core(latent.deter, latent.stoch, self.project_action(action))
        return Latent(deter, self._sample(self.prior(deter), self._uniform(deter.shape[:1], deter.device, generator)))
