"""The advice head: imitates the advice on latents, where there is no symbolic state to look up, so that it can enter
imagination.

It speaks only where it has been taught: its confidence is the taught one, times how often it is right, times a support
that falls to 0 as a latent leaves the replayed ones or its members disagree.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lore.dreamer.actor_critic import Choice
from lore.dreamer.dists import policy_log_probs
from lore.dreamer.nets import Linear, init_weight
from lore.gate.signals import raw_signals

if TYPE_CHECKING:
    from lore.dreamer.actor_critic import ActorCritic
    from lore.dreamer.disagreement import Ensemble
    from lore.gate.gate import Gate

__all__ = ["AdviceHead", "AdvisedPolicy", "advice_targets", "held_out", "is_needed"]

HELD_OUT = 10
"""One state in so many teaches the head nothing and measures it instead."""
MEMBERS = 3
RATE = 0.02


def is_needed(config: Any) -> bool:
    """True when advice enters imagination."""
    return config.gate.enabled and config.gate.imagine


def held_out(states: Tensor) -> Tensor:
    """bool [N]: which packed states uint8 [N, S] are held out; a state is always held out or never."""
    place = torch.arange(1, states.shape[-1] + 1, device=states.device)
    mixed = (states.long() * (place * 2654435761 % 1000003)).sum(-1)
    return (mixed * 2654435761 % 1000003) % HELD_OUT == 0


def advice_targets(extended: Tensor, proposals: Tensor, slots: Tensor, num_actions: int) -> Tensor:
    """Advice over A+K feasible entries [N, A+K] as a distribution over the policy's A+M entries (rows of 0 stay 0).

    A skill gives its mass to its next action (proposals int64 [N, K], -1 = cannot start), and to its slot (int64 [M]).
    """
    skills = extended[:, num_actions:] * (proposals >= 0)
    out = extended.new_zeros(len(extended), num_actions + len(slots))
    out[:, :num_actions] = extended[:, :num_actions]
    out.scatter_add_(1, proposals.clamp(min=0), skills)
    if len(slots):
        out[:, num_actions:] = skills[:, slots.clamp(min=0)] * (slots >= 0)
    return out / out.sum(-1, keepdim=True).clamp(min=1e-6)


class AdviceHead(nn.Module):
    """Members that imitate the advice: features -> distribution over A+M entries, and its confidence.

    Args:
        features: F. entries: A+M. units: hidden width of each member. generator: draws the initial weights.
    """

    mean: Tensor
    variance: Tensor
    far: Tensor
    unsure: Tensor
    agreement: Tensor

    def __init__(self, features: int, entries: int, units: int, generator: Generator | None = None) -> None:
        super().__init__()
        self.units, self.entries = units, entries
        self.features_in = Linear(features, MEMBERS * units, generator)
        self.out = nn.Parameter(torch.empty(MEMBERS, units, entries + 1))
        self.bias = nn.Parameter(torch.zeros(MEMBERS, 1, entries + 1))
        init_weight(self.out, units, generator)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        for name in ("far", "unsure", "agreement"):  # 0 = knows nothing yet: no support anywhere
            self.register_buffer(name, torch.zeros(()))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(logits [members, N, A+M], confidence logits [members, N]) of features [N, F]."""
        hidden = F.silu(self.features_in(features)).view(len(features), MEMBERS, self.units).transpose(0, 1)
        both = torch.baddbmm(self.bias, hidden, self.out)
        return both[..., :-1], both[..., -1]

    def loss(
        self, features: Tensor, target: Tensor, confidence: Tensor, held: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Imitation loss [N] on detached features [N, F]; moves the calibration.

        Args:
            target: [N, A+M], rows of 0 where there was no advice. confidence: [N], 0 where there was none.
            held: bool [N], rows that teach nothing and only measure: how often the head is right and how far its
                members differ is then what was found on them. Without it, what was found on all rows.
        """
        features = features.detach()
        logits, sure = self(features)
        confidence = confidence * (target.sum(-1) > 0.5)
        taught = 1.0 if held is None else (~held).float()
        imitation = -(target * logits.log_softmax(-1)).sum(-1).mean(0) * confidence * taught
        spoken = F.binary_cross_entropy_with_logits(sure, confidence.expand_as(sure), reduction="none").mean(0) * taught
        with torch.no_grad():
            metrics = self._measure(features, logits.softmax(-1), target, confidence, held)
        return imitation + spoken, metrics

    def _measure(
        self, features: Tensor, probs: Tensor, target: Tensor, confidence: Tensor, held: Tensor | None
    ) -> dict[str, Tensor]:
        """Move agreement and support by what this batch shows; metrics. ``claimed`` beside ``agreement`` is how
        reliable the head is: the mean probability of its first choice, and how often that is the advised one."""
        advised = confidence > 0
        measured = advised if held is None else advised & held
        first, entry = probs.mean(0).max(-1)
        count = measured.sum().clamp(min=1)
        hit = ((entry == target.argmax(-1)) & measured).sum() / count
        claimed = torch.where(measured.any(), (first * measured).sum() / count, self.agreement)
        self.agreement += RATE * measured.any() * (hit - self.agreement)
        self._calibrate(features, probs, held)
        agreement = self.agreement.clone()
        return {
            "advice_head/agreement": agreement,
            "advice_head/claimed": claimed,
            "advice_head/calibration_gap": (claimed - agreement).abs(),
        }

    def _calibrate(self, features: Tensor, probs: Tensor, held: Tensor | None) -> None:
        fresh = self.far == 0
        rate = torch.where(fresh, 1.0, RATE)
        self.mean += rate * (features.mean(0) - self.mean)
        self.variance += rate * ((features - self.mean).square().mean(0) - self.variance)
        far, unsure = self._distance(features), self._disagreement(probs)
        self.far += rate * (torch.quantile(far, 0.99) - self.far)
        if held is not None:
            unsure = torch.where(held | ~held.any(), unsure, torch.nan)
        self.unsure += rate * (torch.nanquantile(unsure, 0.99) - self.unsure)

    def _distance(self, features: Tensor) -> Tensor:
        return ((features - self.mean).square() / (self.variance + 1e-2)).mean(-1)

    @staticmethod
    def _disagreement(probs: Tensor) -> Tensor:
        return probs.var(0, unbiased=False).sum(-1)

    @torch.no_grad()
    def advise(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(distribution [N, A+M], confidence [N]) at features [N, F]; confidence is exactly 0 far from replay."""
        logits, sure = self(features)
        probs = logits.softmax(-1)
        # 1 up to the 99 % quantile of replay, 0 from twice of it on.
        support = (2.0 - self._distance(features) / self.far.clamp(min=1e-9)).clamp(0.0, 1.0)
        support = support * (2.0 - self._disagreement(probs) / self.unsure.clamp(min=1e-9)).clamp(0.0, 1.0)
        return probs.mean(0), sure.sigmoid().mean(0) * self.agreement * support


class AdvisedPolicy:
    """The actor with the gated advice of the head added to its logits; stands where an actor stands.

    The weight is that of the acting gate, with its kappa, trust and percentiles. With a hard cap c it stays under
    sqrt(8 c) / range of the advice, which bounds KL(pi_mix || pi_wm) by c (Hoeffding's lemma).
    """

    def __init__(
        self, critic: ActorCritic, head: AdviceHead, gate: Gate, ensemble: Ensemble | None, num_actions: int
    ) -> None:
        self.critic, self.head, self.gate, self.ensemble = critic, head, gate, ensemble
        self.num_actions = num_actions

    def __call__(self, features: Tensor) -> Tensor:
        """Logits of the mixed policy [N, A+M]."""
        return self.critic.actor(features).float() + self.bias(features)

    @torch.no_grad()
    def bias(self, features: Tensor) -> Tensor:
        """beta * advice logits [N, A+M] at features [N, F], a constant to every gradient."""
        gate, config = self.gate, self.gate.config
        probs, confidence = self.head.advise(features)
        logits = config.clip * (2.0 * probs / probs.amax(-1, keepdim=True).clamp(min=1e-6) - 1.0)
        own = self.critic.actor(features).float()
        u, _ = gate.uncertainty(raw_signals(self.critic, self.ensemble, features, own, self.num_actions))
        beta = gate.beta(u, confidence)
        if config.hard_cap:
            width = (logits.amax(-1) - logits.amin(-1)).clamp(min=1e-6)
            beta = torch.minimum(beta, math.sqrt(8.0 * config.hard_cap) / width)
        return beta[:, None] * logits

    def policy_step(self, features: Tensor, carry: Any = None, generator: Generator | None = None) -> Choice:
        """One step of the mixed policy over primitives, in the form that ``imagine`` takes."""
        with torch.enable_grad():
            logits = self(features)
        action = self.critic.sample(policy_log_probs(logits.detach(), None, self.critic.unimix), generator)
        return Choice(logits, action, action, torch.full_like(action, -1), None, carry)
