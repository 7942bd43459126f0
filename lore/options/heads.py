"""Options inside imagination: a head that imitates each skill's next action, and one for whether the skill can act.

The world model never sees an option; an imagined trajectory carries its skill in charge, draws that skill's primitive
actions
from the cloned head, and lets the actor decide again when the skill can no longer act (call-and-return, Sutton et al.
1999).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lore.dreamer.actor_critic import Choice
from lore.dreamer.dists import policy_log_probs, sample_index, unimix_probs
from lore.dreamer.nets import MLP, Linear

__all__ = ["OptionHeads", "OptionPolicy"]

MAX_HELD = 50
"""Imagined steps after which a skill hands control back."""


class OptionHeads(nn.Module):
    """Per skill: logits of its next primitive action, and the logit that it can act in this state.

    Args:
        features: F. num_actions: A. num_skills: K of the library. units: width of the shared hidden layer.
    """

    def __init__(
        self, features: int, num_actions: int, num_skills: int, units: int, generator: Generator | None = None
    ) -> None:
        super().__init__()
        self.num_actions, self.num_skills = num_actions, num_skills
        self.body = MLP(features, 1, units, generator)
        self.action = Linear(units, num_skills * num_actions, generator)
        self.ready = Linear(units, num_skills, generator)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(action logits [N, K, A], ready logits [N, K]) of features [N, F]."""
        hidden = self.body(features)
        return self.action(hidden).view(-1, self.num_skills, self.num_actions), self.ready(hidden)

    def loss(self, features: Tensor, proposals: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy to the interpreters' proposals (int64 [N, K], -1 = cannot act) on detached features [N, F];
        [N]."""
        action, ready = self(features.detach())
        can = proposals >= 0
        clone = F.cross_entropy(action.flatten(0, 1), proposals.clamp(min=0).flatten(), reduction="none").view_as(can)
        start = F.binary_cross_entropy_with_logits(ready, can.float(), reduction="none")
        with torch.no_grad():
            agree = ((action.argmax(-1) == proposals) & can).sum() / can.sum().clamp(min=1)
            known = ((ready > 0) == can).float().mean()
        return (clone * can).sum(-1) / can.sum(-1).clamp(min=1) + start.mean(-1), {
            "options/clone_agreement": agree,
            "options/start_agreement": known,
        }


class OptionPolicy:
    """The ``policy_step`` of imagination over A primitives + M slots.

    Args:
        actor: features [N, F] -> logits [N, A+M]. heads: the cloned skills.
        slots: int64 [M], skill of each slot or -1.
    """

    def __init__(self, actor, heads: OptionHeads, slots: Tensor, unimix: float = 0.0) -> None:
        self.actor, self.heads, self.slots, self.unimix = actor, heads, slots, unimix

    def __call__(self, features: Tensor, carry: tuple[Tensor, Tensor] | None, generator: Generator | None) -> Choice:
        """One imagined step at features [N, F]; carry = (skill [N] or -1, steps held [N])."""
        n, primitives = len(features), self.heads.num_actions
        if carry is None:
            carry = (features.new_full((n,), -1, dtype=torch.int64), features.new_zeros(n, dtype=torch.int64))
        skill, held = carry
        action_logits, ready = self.heads(features)
        ready = ready > 0
        goes_on = (skill >= 0) & ready.gather(1, skill.clamp(min=0)[:, None])[:, 0] & (held < MAX_HELD)
        open_slots = (self.slots >= 0) & ready[:, self.slots.clamp(min=0)]
        mask = torch.cat([open_slots.new_ones(n, primitives), open_slots], -1)
        uniform = torch.rand(2, n, device=features.device, generator=generator)
        with torch.enable_grad():
            logits = self.actor(features)
        decision = sample_index(policy_log_probs(logits.detach(), mask, self.unimix).exp(), uniform[0])
        chosen = torch.where(decision >= primitives, self.slots[(decision - primitives).clamp(min=0)], -1)
        now = torch.where(goes_on, skill, chosen)
        cloned = action_logits.gather(1, now.clamp(min=0)[:, None, None].expand(-1, 1, primitives))[:, 0]
        option_action = sample_index(unimix_probs(cloned, 0.0), uniform[1])
        action = torch.where(now >= 0, option_action, decision.clamp(max=primitives - 1))
        held = torch.where(goes_on, held + 1, torch.zeros_like(held))
        return Choice(logits, action, decision, ~goes_on, mask, (now, held))
