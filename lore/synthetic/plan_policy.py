"""Playing plans inside the world model: primitive actions as they are written, goals by their skills' cloned heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from lore.options.heads import OptionHeads

__all__ = ["PlanCarry", "PlanPolicy", "PlanStep"]


class PlanCarry(NamedTuple):
    """How far each plan has come."""

    at: Tensor  # int64 [R], entry that is played or comes next
    skill: Tensor  # int64 [R], goal that is pursued, -1 = none
    elapsed: Tensor  # int64 [R], steps that it was pursued for


class PlanStep(NamedTuple):
    """What the plans do in one state."""

    action: Tensor  # int64 [R], primitive
    skill: Tensor  # int64 [R], goal that is pursued, -1 = the action itself is the plan's
    begins: Tensor  # bool [R], the goal is taken up here
    plays: Tensor  # bool [R], False where the plan is over, or its goal cannot begin
    carry: PlanCarry


class PlanPolicy:
    """Plans in the form of a policy.

    A goal ends as an option does in imagination (:meth:`lore.options.heads.OptionHeads.ends`); the next entry then
    follows in the same state. A goal that is reached already is passed over.

    Args:
        entries: int64 [R, L], ids over A + K. lengths: int64 [R]. num_actions: A.
        heads: the cloned skills; None where the version has no skills.
    """

    def __init__(self, entries: Tensor, lengths: Tensor, num_actions: int, heads: OptionHeads | None) -> None:
        self.entries, self.lengths, self.num_actions, self.heads = entries, lengths, num_actions, heads

    def begin(self) -> PlanCarry:
        """The carry at the start of every plan."""
        zero = torch.zeros_like(self.lengths)
        return PlanCarry(zero, zero - 1, zero)

    @torch.no_grad()
    def __call__(self, features: Tensor, carry: PlanCarry, generator: Generator | None) -> PlanStep:
        """One step at features [R, F]."""
        at, skill, elapsed = carry
        if self.heads is None:
            plays = at < self.lengths
            return PlanStep(self._entry(at), skill, torch.zeros_like(plays), plays, PlanCarry(at + 1, skill, elapsed))
        uniform = torch.rand(2, len(at), device=at.device, generator=generator)
        hidden = self.heads(features)
        signs = self.heads.read(hidden)
        reached = signs.done > 0
        over = (skill >= 0) & (uniform[0] < self.heads.ends(signs, skill, elapsed))
        at, skill = at + over, torch.where(over, -1, skill)
        free = skill < 0
        for _ in range(self.entries.shape[1]):
            passed = free & (at < self.lengths) & self._of(self._entry(at), reached)
            if not passed.any():
                break
            at = at + passed
        entry = self._entry(at)
        begins = free & (at < self.lengths) & (entry >= self.num_actions)
        starts = ~begins | self._of(entry, signs.ready > 0)
        plays = ~free | ((at < self.lengths) & starts)
        skill = torch.where(begins, entry - self.num_actions, skill)
        action = torch.where(
            skill >= 0, self.heads.act(hidden, skill, uniform[1]), entry.clamp(max=self.num_actions - 1)
        )
        elapsed = torch.where(begins, 0, elapsed) + 1
        return PlanStep(action, skill, begins, plays, PlanCarry(at + (skill < 0), skill, elapsed))

    def _entry(self, at: Tensor) -> Tensor:
        return self.entries.gather(1, at.clamp(max=self.entries.shape[1] - 1)[:, None])[:, 0]

    def _of(self, entry: Tensor, known: Tensor) -> Tensor:
        """What ``known`` bool [R, K] says of the goal ``entry``, False where it is a primitive action."""
        goal = entry - self.num_actions
        return (goal >= 0) & known.gather(1, goal.clamp(min=0)[:, None])[:, 0]
