"""Checked advice as the arrays of advice rows: logits over actions and skills, masks, plans, applicable skills."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.config import AdviseConfig
from pipeline.questions.parse import Advice, Plan

__all__ = ["Row", "expand_plan", "merge_orders", "row_arrays"]


class Row:
    """What was found out about one state; it becomes a stored row when ``advice`` or ``plans`` holds something.

    ``goals``: those that can start here. ``goals_known`` is False where the adviser speaks of actions alone.
    """

    __slots__ = ("advice", "goals", "goals_known", "index", "plans")

    def __init__(self, index: int, goals: Sequence[str], goals_known: bool = True) -> None:
        self.index = index
        self.goals = goals
        self.goals_known = goals_known
        self.advice: Advice | None = None
        self.plans: list[Plan] = []


def merge_orders(answers: Sequence[Advice]) -> Advice | None:
    """One piece of advice from several orders of the same question: mean probabilities; agreement scales confidence.

    Agreement is the share of answers whose best choice is the best of the mean.
    """
    if not answers:
        return None
    if len(answers) == 1:
        return answers[0]
    total: dict[str, float] = {}
    for advice in answers:
        for name, p in advice.choices:
            total[name] = total.get(name, 0.0) + p / len(answers)
    choices = tuple(sorted(total.items(), key=lambda pair: (-pair[1], pair[0])))
    agreement = sum(a.choices[0][0] == choices[0][0] for a in answers) / len(answers)
    confidence = agreement * sum(a.confidence for a in answers) / len(answers)
    weight = sum(a.weight for a in answers) / len(answers)
    reason = next((a.reason for a in answers if a.choices[0][0] == choices[0][0] and a.reason), "")
    return Advice("prior", choices, confidence=min(confidence, 1.0), weight=weight, reason=reason)


def expand_plan(plan: Plan, ids: Mapping[str, int], length: int) -> list[int]:
    """Steps as ids over actions + skills, repeats written out, cut to ``length``."""
    out: list[int] = []
    for name, times in plan.steps:
        out += [ids[name]] * min(times, length - len(out))
        if len(out) >= length:
            break
    return out


def row_arrays(
    rows: Sequence[Row], packed: np.ndarray, actions: Sequence[str], skills: Sequence[str], config: AdviseConfig
) -> dict[str, Any]:
    """Arrays of the ``rows`` group (keys left to the writer) for ``rows``; ``packed`` is uint8[states, S].

    With weight w, choices p and F feasible entries: ``q = (1 - floor) (w p + (1 - w) / F) + floor / F``. Logits are
    log q, at most ``clip - gap`` nats under the best; known infeasible skills lie ``clip`` nats under the best; then
    all known are centred, which keeps them inside ``+-clip``. A primitive is known only where the adviser named it.
    """
    n, a, entries = len(rows), len(actions), len(actions) + len(skills)
    ids = {name: i for i, name in enumerate((*actions, *skills))}  # a skill may bear the name of an action
    words = {name: i for i, name in enumerate(actions)}
    chosen = np.zeros((n, entries))
    feasible = np.zeros((n, entries), bool)
    mask = np.zeros((n, entries), bool)
    weight, confidence = np.zeros((n, 1)), np.zeros(n, np.float32)
    plans = np.full((n, config.plans, config.plan_length), -1, np.int16)
    lengths, scores = np.zeros((n, config.plans), np.int16), np.zeros((n, config.plans), np.float32)
    for i, row in enumerate(rows):
        feasible[i, [ids[name] for name in row.goals]] = True
        if row.advice is not None:
            where = ids if row.goals_known else words
            for name, p in row.advice.choices:
                chosen[i, where[name]] += p
            weight[i], confidence[i] = row.advice.weight, row.advice.confidence
            mask[i, a:] = row.goals_known
        for j, plan in enumerate(row.plans[: config.plans]):
            steps = expand_plan(plan, ids, config.plan_length)
            plans[i, j, : len(steps)] = steps
            lengths[i, j], scores[i, j] = len(steps), plan.score
    applicable = feasible[:, a:].astype(np.uint8)
    feasible[[not row.goals_known for row in rows], a:] = False
    feasible |= chosen > 0
    mask[:, :a] = feasible[:, :a]
    return {
        "state": packed[[row.index for row in rows]],
        "logits": _logits(chosen, weight, feasible, mask, config),
        "mask": mask.astype(np.uint8),
        "confidence": confidence,
        "plans": plans,
        "plan_lengths": lengths,
        "plan_scores": scores,
        "applicable": applicable,
        "reason": [row.advice.reason if row.advice else "" for row in rows],
    }


def _logits(
    chosen: np.ndarray, weight: np.ndarray, feasible: np.ndarray, mask: np.ndarray, config: AdviseConfig
) -> np.ndarray:
    """float32[n, entries] from probabilities, weights [n, 1] and boolean masks [n, entries]."""
    if not len(chosen):
        return np.zeros(chosen.shape, np.float32)
    uniform = feasible / np.maximum(feasible.sum(1, keepdims=True), 1)
    q = (1 - config.floor) * (weight * chosen + (1 - weight) * uniform) + config.floor * uniform
    logits = np.log(np.where(feasible, q, 1.0))
    best = np.where(feasible, logits, -math.inf).max(1, keepdims=True)
    best[~np.isfinite(best)] = 0.0
    logits = np.where(feasible, np.maximum(logits, best - config.clip + config.gap), best - config.clip)
    logits -= (logits * mask).sum(1, keepdims=True) / np.maximum(mask.sum(1, keepdims=True), 1)
    return np.where(mask, np.clip(logits, -config.clip, config.clip), 0.0).astype(np.float32)
