"""Rolling advised plans out inside the world model (path A), and asking it what a plan would unlock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from lore.dreamer.types import Latent
from lore.synthetic.buffer import SyntheticBatch

if TYPE_CHECKING:
    from lore.dreamer.disagreement import Ensemble
    from lore.synthetic.calibration import Calibration
    from lore.synthetic.plan_policy import PlanPolicy

__all__ = ["HORIZON", "UNLOCK", "capped_share", "foretells_unlock", "roll_out"]

HORIZON = 15
"""Steps of a plan that are imagined, and played in a test, at most."""
UNLOCK = 0.5
"""Predicted reward above which the model is taken to promise an unlock (an unlock pays 1, health at most 0.1 a
point)."""
MIN_CONTINUE = 0.5


def capped_share(real: int, maximum: float) -> int:
    """Most synthetic rows n with n / (real + n) <= maximum."""
    return int(real * maximum / (1.0 - maximum)) if maximum < 1.0 else real


@torch.no_grad()
def roll_out(
    world_model, value, start: Latent, plans: PlanPolicy, generator: Generator | None,
    trusted: tuple[Ensemble, Calibration] | None = None, horizon: int = HORIZON,
) -> SyntheticBatch:  # fmt: skip
    """Drive the RSSM with plans from posterior latents.

    A roll-out stops at its plan's end, where the predicted continue falls under 0.5, or before the step at which the
    ensemble's summed disagreement passes the limit calibrated for that depth. The return of the rest of a plan is the
    predicted rewards, discounted by the predicted continues, with the critic's value where it stops.

    Args:
        world_model: with ``rssm.imagine_step`` and ``predict(features) -> (reward, cont)``.
        value: features [N, F] -> value [N]. start: [R, ...]. plans: of each start.
        trusted: one-step heads and the limits of their disagreement (None: no such stop).

    Returns:
        The states at which a plan action was taken and lived through, weight 1.
    """
    latent, carry = start, plans.begin()
    alive = torch.ones(len(start.deter), dtype=torch.bool, device=start.deter.device)
    doubt, steps, states, rewards, conts, masks = start.deter.new_zeros(len(alive)), [], [], [], [], []
    for i in range(horizon):
        features = latent.features()
        step = plans(features, carry, generator)
        alive = alive & step.plays
        if trusted is not None:
            doubt = doubt + trusted[0].disagreement(features, step.action)
            alive = alive & (doubt <= trusted[1].limit(i))
        if not alive.any():
            break
        masks.append(alive)
        states.append(latent)
        steps.append(step)
        carry = step.carry
        latent = world_model.rssm.imagine_step(latent, step.action, latent.numbers(generator))
        reward, cont = world_model.predict(latent.features())
        rewards.append(reward)
        conts.append(cont)
        alive = alive & (cont >= MIN_CONTINUE)
    return _kept(value, [*states, latent], steps, rewards, conts, masks)


def _kept(value, states: list[Latent], steps: list, rewards: list, conts: list, masks: list) -> SyntheticBatch:
    """The states that were lived through, one after the other, with the return of what followed."""
    following = value(states[-1].features())
    returns: list[Tensor] = []
    for i in reversed(range(len(rewards))):
        # Where the plan does not go on at i+1, the critic's value of that state stands for the rest.
        goes_on = masks[i + 1] if i + 1 < len(masks) else torch.zeros_like(masks[i])
        tail = torch.where(goes_on, following, value(states[i + 1].features()))
        following = rewards[i] + conts[i] * tail
        returns.insert(0, following)
    if not masks:
        none = torch.zeros(0, dtype=torch.int64, device=following.device)
        latent = Latent(states[-1].deter[:0], states[-1].stoch[:0])
        return SyntheticBatch(latent, none, none, none.bool(), following[:0], following[:0])
    keep = torch.stack(masks, 1).flatten()

    def pick(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts, 1).flatten(0, 1)[keep]

    latent = Latent(pick([s.deter for s in states[:-1]]), pick([s.stoch for s in states[:-1]]))
    action, skill, begins = (pick([getattr(s, name) for s in steps]) for name in ("action", "skill", "begins"))
    plan_return = pick(returns)
    return SyntheticBatch(latent, action, skill, begins, plan_return, torch.ones_like(plan_return))


@torch.no_grad()
def foretells_unlock(world_model, latent: Latent, plan: PlanPolicy, generator: Generator | None) -> bool:
    """True when the world model, driven by one plan from ``latent`` [1, ...], predicts a reward that only an unlock
    pays."""
    carry = plan.begin()
    for _ in range(HORIZON):
        step = plan(latent.features(), carry, generator)
        if not bool(step.plays[0]):
            return False
        carry = step.carry
        latent = world_model.rssm.imagine_step(latent, step.action, latent.numbers(generator))
        reward, cont = world_model.predict(latent.features())
        if float(reward[0]) > UNLOCK:
            return True
        if float(cont[0]) < MIN_CONTINUE:
            return False
    return False
