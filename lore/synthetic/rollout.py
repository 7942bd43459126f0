"""Rolling advised plans out inside the world model (path A), and asking it what a plan would unlock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from lore.dreamer.types import Latent
from lore.synthetic.buffer import SyntheticBatch

if TYPE_CHECKING:
    from lore.dreamer.disagreement import Ensemble

__all__ = ["UNLOCK", "capped_share", "foretells_unlock", "plan_table", "roll_out"]

UNLOCK = 0.5
"""Predicted reward above which the model is taken to promise an unlock (an unlock pays 1, health at most 0.1 a
point)."""
MIN_CONTINUE = 0.5


def capped_share(real: int, maximum: float) -> int:
    """Most synthetic rows n with n / (real + n) <= maximum."""
    return int(real * maximum / (1.0 - maximum)) if maximum < 1.0 else real


def plan_table(
    plans: np.ndarray, lengths: np.ndarray, scores: np.ndarray, num_actions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Best-scored plan of each row, cut at its first macro action.

    Args:
        plans: int[N, P, L] ids over A+K, -1 padded. lengths: int[N, P]. scores: float[N, P].

    Returns:
        (int64[N, L] primitive actions, 0 after the end, int64[N] lengths; 0 = no plan).
    """
    n, _, width = plans.shape
    best = np.where(lengths > 0, scores, -np.inf).argmax(-1)
    chosen = plans[np.arange(n), best].astype(np.int64)
    primitive = (chosen >= 0) & (chosen < num_actions) & (np.arange(width) < lengths[np.arange(n), best][:, None])
    length = np.where(primitive.all(-1), width, primitive.argmin(-1))
    return np.where(np.arange(width) < length[:, None], chosen, 0), length


@torch.no_grad()
def roll_out(
    world_model, value, start: Latent, actions: Tensor, lengths: Tensor, generator: Generator | None,
    ensemble: Ensemble | None = None,
) -> SyntheticBatch:  # fmt: skip
    """Drive the RSSM with plan actions from posterior latents.

    A roll-out stops at its plan's end, where the predicted continue falls under 0.5, or before the step at which the
    ensemble's summed disagreement passes the limit calibrated for that depth. The return of the rest of a plan is the
    predicted rewards, discounted by the predicted continues, with the critic's value where it stops.

    Args:
        world_model: with ``rssm.imagine_step`` and ``predict(features) -> (reward, cont)``.
        ensemble: one-step heads with their calibrated limits (None: no such stop).
        value: features [N, F] -> value [N]. start: [R, ...]. actions: int64 [R, L]. lengths: int64 [R].

    Returns:
        The states at which a plan action was taken and lived through, weight 1.
    """
    latent, alive = start, lengths > 0
    states, taken, rewards, conts, masks = [], [], [], [], []
    doubt = start.deter.new_zeros(len(start.deter))
    for i in range(int(actions.shape[1])):
        if ensemble is not None:
            doubt = doubt + ensemble.disagreement(latent.features(), actions[:, i])
            alive = alive & (doubt <= ensemble.limit(i))
        masks.append(alive & (i < lengths))
        states.append(latent)
        taken.append(actions[:, i])
        latent = world_model.rssm.imagine_step(latent, actions[:, i], generator)
        reward, cont = world_model.predict(latent.features())
        rewards.append(reward)
        conts.append(cont)
        alive = masks[-1] & (cont >= MIN_CONTINUE)
    states.append(latent)
    following = value(latent.features())
    returns: list[Tensor] = []
    for i in reversed(range(len(rewards))):
        # Where the plan does not go on at i+1, the critic's value of that state stands for the rest.
        goes_on = masks[i + 1] if i + 1 < len(masks) else torch.zeros_like(masks[i])
        tail = torch.where(goes_on, following, value(states[i + 1].features()))
        following = rewards[i] + conts[i] * tail
        returns.insert(0, following)
    keep = torch.stack(masks, 1).flatten()
    deter = torch.stack([s.deter for s in states[:-1]], 1).flatten(0, 1)[keep]
    stoch = torch.stack([s.stoch for s in states[:-1]], 1).flatten(0, 1)[keep]
    action, plan_return = torch.stack(taken, 1).flatten()[keep], torch.stack(returns, 1).flatten()[keep]
    return SyntheticBatch(Latent(deter, stoch), action, plan_return, torch.ones_like(plan_return))


@torch.no_grad()
def foretells_unlock(world_model, latent: Latent, plan: list[int], generator: Generator | None) -> bool:
    """True when the world model, driven by ``plan`` from ``latent`` [1, ...], predicts a reward that only an unlock
    pays."""
    for action in plan:
        latent = world_model.rssm.imagine_step(latent, torch.tensor([action], device=latent.deter.device), generator)
        reward, cont = world_model.predict(latent.features())
        if float(reward[0]) > UNLOCK:
            return True
        if float(cont[0]) < MIN_CONTINUE:
            return False
    return False
