"""Options inside imagination: heads that imitate each skill's next action, its start and its ends.

The world model never sees an option; an imagined trajectory carries its skill in charge, draws that skill's primitive
actions from the cloned head, and lets the actor decide again when the skill ends (call-and-return, Sutton et al. 1999).
A skill ends in imagination as it does in the game: where its goal is reached, at its own limit of steps, and with the
chance that recorded uses of it ended there (goal, damage, no progress, nothing left to do, abort).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lore.dreamer.actor_critic import Choice
from lore.dreamer.dists import policy_log_probs, sample_index, unimix_probs
from lore.dreamer.nets import MLP, Linear
from lore.options.charge import OWN_ENDS
from lore.options.interpreter import DONE

__all__ = ["Charges", "OptionHeads", "OptionPolicy", "Signs", "Use", "recorded_uses"]

_UNKNOWN = -2.0
"""Logit of an end before anything is known: a use then lasts about eight steps."""
_PATIENT = 8.0
"""Steps that are many for a skill that gets nowhere."""


class Charges(NamedTuple):
    """Who is in charge of each imagined trajectory on arrival at its next state."""

    skill: Tensor  # int64 [N], -1 = the actor decides
    elapsed: Tensor  # int64 [N], steps that the skill has played
    goals: Tensor  # [N, K], what reaching each skill's goal pays, once; K = 0 where goals pay nothing

    @staticmethod
    def none(goals: Tensor) -> Charges:
        """The actor decides everywhere; goals [N, K]."""
        skill = torch.full((len(goals),), -1, device=goals.device)
        return Charges(skill, torch.zeros_like(skill), goals)


class Signs(NamedTuple):
    """What the heads say of each skill in N states, logits [N, K]."""

    ready: Tensor  # it can start here
    done: Tensor  # its goal is reached here
    stop: Tensor  # a use of it ends here for any reason, but for how long it has lasted


class Use(NamedTuple):
    """Skills that were in charge before the states of a batch, and whether they ended there by themselves."""

    skill: Tensor  # int64 [N], -1 = none, or how it ended says nothing: a decision cut it, or the episode ended
    elapsed: Tensor  # int64 [N], steps that it had played
    ended: Tensor  # bool [N]

    @staticmethod
    def none(states: int, device: torch.device) -> Use:
        """No skill was in charge anywhere."""
        skill = torch.full((states,), -1, device=device)
        return Use(skill, torch.zeros_like(skill), torch.zeros_like(skill, dtype=torch.bool))


def recorded_uses(batch: Mapping[str, Tensor]) -> Use:
    """:class:`Use` before each state of a replayed batch: ``skill``, ``held``, ``ended``, ``is_first``, ``is_last``
    [B, T]; unknown for the first state of each sequence."""
    before = F.pad(batch["skill"].long()[:, :-1], (1, 0), value=-1)
    elapsed = F.pad(batch["held"].long()[:, :-1] + 1, (1, 0))
    ended = batch["ended"].long()
    known = ~batch["is_first"] & ~batch["is_last"] & (ended <= OWN_ENDS)
    return Use(*(x.flatten() for x in (torch.where(known, before, -1), elapsed, (ended > 0) & known)))


class OptionHeads(nn.Module):
    """Per skill: logits of its next primitive action, and the logits that it can start here, that its goal is reached
    here, and that a use of it ends here.

    Args:
        features: F. num_actions: A. num_skills: K of the library. units: width of the shared hidden layer.

    Attributes:
        limits: int64 [K], steps after which a use ends in any case; those of the version, not of a checkpoint.
    """

    limits: Tensor

    def __init__(
        self, features: int, num_actions: int, num_skills: int, units: int, generator: Generator | None = None
    ) -> None:
        super().__init__()
        self.num_actions, self.num_skills = num_actions, num_skills
        self.body = MLP(features, 1, units, generator)
        self.action = Linear(units, num_skills * num_actions, generator)
        self.signs = Linear(units, num_skills * len(Signs._fields), generator)
        self.patience = nn.Parameter(torch.zeros(num_skills, 2))
        with torch.no_grad():
            self.signs.bias.view(num_skills, -1)[:, Signs._fields.index("stop")] = _UNKNOWN
        self.register_buffer("limits", torch.full((num_skills,), 50), persistent=False)

    def set_limits(self, steps: Sequence[int]) -> None:
        """Take the skills' own limits of steps, K of them."""
        self.limits.copy_(torch.tensor(steps))

    def forward(self, features: Tensor) -> Tensor:
        """Hidden layer [N, units] of features [N, F], which all else reads."""
        return self.body(features)

    def actions(self, hidden: Tensor) -> Tensor:
        """Logits [N, K, A] of each skill's next action."""
        return self.action(hidden).view(-1, self.num_skills, self.num_actions)

    def act(self, hidden: Tensor, skill: Tensor, uniform: Tensor) -> Tensor:
        """int64 [N]: the next action of skill int64 [N] (any where it is -1), drawn with uniform [N] in [0, 1)."""
        own = self.actions(hidden).gather(1, skill.clamp(min=0)[:, None, None].expand(-1, 1, self.num_actions))
        return sample_index(unimix_probs(own[:, 0], 0.0), uniform)

    def read(self, hidden: Tensor) -> Signs:
        """:class:`Signs` of states."""
        return Signs(*self.signs(hidden).float().view(-1, self.num_skills, len(Signs._fields)).unbind(-1))

    def ends(self, signs: Signs, skill: Tensor, elapsed: Tensor) -> Tensor:
        """Probability [N] that the use of skill int64 [N] ends here after ``elapsed`` int64 [N] steps; 1 where it is
        -1."""
        own = skill.clamp(min=0)
        sure = (signs.done.gather(1, own[:, None])[:, 0] > 0) | (elapsed >= self.limits[own]) | (skill < 0)
        return torch.where(sure, 1.0, self._stop(signs, own, elapsed).sigmoid())

    def _stop(self, signs: Signs, own: Tensor, elapsed: Tensor) -> Tensor:
        """Logit [N] that a use of skill ``own`` [N] ends here before its limit."""
        lasted = torch.stack([elapsed / self.limits[own], (elapsed / _PATIENT).clamp(max=1.0)], -1)
        return signs.stop.gather(1, own[:, None])[:, 0] + (lasted * self.patience[own]).sum(-1)

    def loss(self, features: Tensor, proposals: Tensor, use: Use) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropies [N] to what the interpreters proposed and to how recorded uses ended; 0-d metrics.

        Args:
            features: [N, F], detached here. proposals: int64 [N, K], next action of each skill, -1 where it cannot
            start, ``DONE`` where its goal is reached. use: who was in charge before each state.
        """
        hidden = self(features.detach())
        can, reached = proposals >= 0, proposals == DONE
        action = self.actions(hidden)
        clone = F.cross_entropy(action.flatten(0, 1), proposals.clamp(min=0).flatten(), reduction="none").view_as(can)
        signs, own = self.read(hidden), use.skill.clamp(min=0)
        start = F.binary_cross_entropy_with_logits(signs.ready, can.float(), reduction="none")
        goal = F.binary_cross_entropy_with_logits(signs.done, reached.float(), reduction="none")
        ended = self._stop(signs, own, use.elapsed)
        stop = F.binary_cross_entropy_with_logits(ended, use.ended.float(), reduction="none")
        settled = (use.skill < 0) | (use.elapsed >= self.limits[own])
        losses = (clone * can).sum(-1) / can.sum(-1).clamp(min=1) + start.mean(-1) + goal.mean(-1) + stop * ~settled
        with torch.no_grad():
            ends, by_skill = self.ends(signs, use.skill, use.elapsed), use.skill >= 0
            ended, going = by_skill & use.ended, by_skill & ~use.ended
            return losses, {
                "options/clone_agreement": ((action.argmax(-1) == proposals) & can).sum() / can.sum().clamp(min=1),
                "options/start_agreement": ((signs.ready > 0) == can).float().mean(),
                "options/goal_agreement": ((signs.done > 0) == reached).float().mean(),
                "options/ends_missed": ((1.0 - ends) * ended).sum() / ended.sum().clamp(min=1),
                "options/ends_invented": (ends * going).sum() / going.sum().clamp(min=1),
            }


class OptionPolicy:
    """The ``policy_step`` of imagination over A primitives + M slots.

    Args:
        actor: features [N, F] -> logits [N, A+M]. heads: the cloned skills.
        slots: int64 [M], skill of each slot or -1. only_skills: primitives only where no slot can start.
    """

    NUMBERS = 3
    """Uniform numbers for each imagined state: the decision, the skill's action, whether it ends."""

    def __init__(
        self, actor, heads: OptionHeads, slots: Tensor, unimix: float = 0.0, only_skills: bool = False
    ) -> None:
        self.actor, self.heads, self.slots, self.unimix = actor, heads, slots, unimix
        self.only_skills = only_skills

    def __call__(self, features: Tensor, carry: Charges | None, uniform: Tensor) -> Choice:
        """One imagined step at features [N, F], uniform [3, N]; without ``carry`` nobody is in charge."""
        n, primitives = len(features), self.heads.num_actions
        skill, elapsed, goals = carry or Charges.none(features.new_zeros(n, 0))
        hidden = self.heads(features)
        signs = self.heads.read(hidden)
        goes_on = uniform[2] >= self.heads.ends(signs, skill, elapsed)
        open_slots = (self.slots >= 0) & (signs.ready > 0)[:, self.slots.clamp(min=0)]
        single = open_slots.new_ones(n, primitives)
        if self.only_skills:
            single = single & ~open_slots.any(-1, keepdim=True)
        mask = torch.cat([single, open_slots], -1)
        with torch.enable_grad():
            logits = self.actor(features)
        decision = sample_index(policy_log_probs(logits.detach(), mask, self.unimix).exp() * mask, uniform[0])
        chosen = torch.where(decision >= primitives, self.slots[(decision - primitives).clamp(min=0)], -1)
        charge = torch.where(goes_on, skill, -1)
        now = torch.where(goes_on, skill, chosen)
        own = self.heads.act(hidden, now, uniform[1])
        action = torch.where(now >= 0, own, decision.clamp(max=primitives - 1))
        bonus = None
        if goals.shape[1]:  # the first state pays too, but nobody reads that: it closes what was reached before
            reached = signs.done > 0
            bonus, goals = (goals * reached).sum(-1), goals * ~reached
        played = torch.where(goes_on, elapsed, 0) + 1
        return Choice(logits, action, decision, charge, mask, Charges(now, played, goals), bonus)
