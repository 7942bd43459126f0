"""A checkpoint laid out for another version of the advice with other skills: what belongs to a skill moves by its name.

Heads, optimiser moments, replayed proposals and statistics of a skill that both versions know are kept; a new skill
starts fresh, and its proposals on replayed states are computed; what belonged to a skill that is gone is dropped. Of a
skill that was mended under its name the networks keep what they learned; its proposals and statistics start afresh.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.dreamer.actor_critic import charge_width
from lore.options.slots import GONE, NOBODY, SkillStatistics
from lore_datasets.errors import SchemeMismatch
from lore_datasets.language.geometry import StateView

if TYPE_CHECKING:
    from torch import Tensor

    from lore_datasets.language.skills import Skill
    from lore_datasets.vocab import Vocab

__all__ = ["carry_over", "digests_of"]

_HEADS = ("heads.action.weight", "heads.action.bias", "heads.signs.weight", "heads.signs.bias", "heads.patience")
_CRITICS = "critic.mlp.linears.0.weight"
"""Of the critic and the slow one; its last columns tell which skill is in charge."""
_SQUARES = "optimiser/square."
"""Second moments. Their bias is corrected by the age of the whole network, so a new skill gets the mean of the others':
from 0 its first steps would be many times too long."""


def carry_over(
    tensors: MutableMapping[str, Tensor], meta: dict[str, Any], fresh: dict[str, Tensor], skills: Sequence[Skill],
    vocab: Vocab,
) -> bool:  # fmt: skip
    """Lay a checkpoint out for ``skills``; False when it knows the same ones. Skills under way end in any case.

    Checkpoints that do not say what their skills did (``skill_digests``) are taken at the skills' names.

    SchemeMismatch when the checkpoint does not say which skills it knew, and their number differs.

    Args:
        tensors, meta: of the checkpoint, changed in place. fresh: tensors of a run that begins, of the wanted shapes.
        skills: K of the version that is gone on with. vocab: of its environment.
    """
    after = [skill.name for skill in skills]
    before = list(meta.get("skill_names", after))
    if len(before) != meta["skills"]:
        raise SchemeMismatch(
            f"the checkpoint knows {meta['skills']} skills, the version {len(after)}, and not by which names",
            kept="the checkpoint", hint="go on with the version that it learned from",
        )  # fmt: skip
    for charge in meta["controller"]["charges"]:
        if (
            charge["run"] is not None or charge["plan"]
        ):  # a skill of the same name may have other steps in another version
            charge.update(
                kind="policy", run=None, skill=-1, left=0, plan=[], goal=-1, actions=[], began="", advised=False
            )
    digests = digests_of(skills)
    were = meta.get("skill_digests") or [digests[after.index(name)] if name in after else "" for name in before]
    if before == after and were == digests:
        return False
    old = np.array([before.index(name) if name in before else -1 for name in after], np.int64)  # per new skill
    new = {k: j for j, k in enumerate(old.tolist()) if k >= 0}
    same = np.array([k if k >= 0 and were[k] == digests[j] else -1 for j, k in enumerate(old.tolist())], np.int64)
    for name in [n for n in tensors if n.endswith(_HEADS)]:
        tensors[name] = _rows(name, tensors[name], fresh[name], old, len(before))
    for name in [n for n in tensors if n.endswith(_CRITICS) and "agent/heads.patience" in tensors]:
        tensors[name] = _columns(name, tensors[name], fresh[name], old, len(before))
    for name in [n for n in tensors if n.startswith("replay/") and n.endswith("/proposals")]:
        stream = name.removesuffix("proposals")
        tensors[name] = _proposals(tensors[name], tensors[stream + "state"].numpy(), same, skills, vocab)
        held = tensors[stream + "skill"].numpy()
        held[:] = [new.get(k, -1) for k in held.tolist()]
        if stream + "advice" in tensors:
            tensors[stream + "advice"] = _advice(tensors[stream + "advice"], old, len(vocab.actions))
    _controller(meta["controller"], same, new)
    meta["skills"], meta["skill_names"], meta["skill_digests"] = len(after), after, digests
    return True


def digests_of(skills: Sequence[Skill]) -> list[str]:
    """What each skill does, in 12 hexadecimal digits."""
    return [hashlib.sha256(skill.to_json().encode()).hexdigest()[:12] for skill in skills]


def _rows(name: str, value: Tensor, fresh: Tensor, old: np.ndarray, before: int) -> Tensor:
    """Parameters [K * n, ...] of the new skills: the old rows where there are any, else the fresh ones."""
    out = fresh.detach().cpu().clone().unflatten(0, (len(old), -1))
    parts = value.unflatten(0, (before, -1))
    if _SQUARES in name:
        out[:] = parts.mean(0)
    for new, was in enumerate(old.tolist()):
        if was >= 0:
            out[new] = parts[was]
    return out.flatten(0, 1)


def _columns(name: str, value: Tensor, fresh: Tensor, old: np.ndarray, before: int) -> Tensor:
    """Weights [units, F + charges] of a critic's first layer: columns of the latent and of skills that there were, the
    others fresh."""
    out, latent = fresh.detach().cpu().clone(), value.shape[1] - charge_width(before)
    out[:, :latent] = value[:, :latent]
    if _SQUARES in name:
        out[:, latent : latent + len(old)] = value[:, latent : latent + before].mean(1, keepdim=True)
    kept = np.flatnonzero(old >= 0)
    out[:, latent + kept] = value[:, latent + old[kept]]
    return out


def _proposals(value: Tensor, states: np.ndarray, old: np.ndarray, skills: Sequence[Skill], vocab: Vocab) -> Tensor:
    """int8 [N, K]: what each skill would do in each stored state."""
    import torch

    from lore.options.interpreter import propose

    out = np.full((len(states), len(old)), -1, np.int8)
    out[:, old >= 0] = value.numpy()[:, old[old >= 0]]
    strange = np.flatnonzero(old < 0)
    if len(strange):
        unknown = [skills[k] for k in strange.tolist()]
        for i, state in enumerate(states):
            out[i, strange] = propose(unknown, StateView(state, vocab))
    return torch.from_numpy(out)


def _advice(value: Tensor, old: np.ndarray, actions: int) -> Tensor:
    """float16 [N, A+K], what kickstarting draws the actor to."""
    out = value.new_zeros(len(value), actions + len(old))
    out[:, :actions] = value[:, :actions]
    kept = np.flatnonzero(old >= 0)
    out[:, actions + kept] = value[:, actions + old[kept]]
    return out


def _controller(state: dict[str, Any], old: np.ndarray, new: dict[int, int]) -> None:
    """``old``: per skill where the same one was, -1 = nowhere. ``new``: where each name has gone."""
    if state.get("guard"):
        broken = state["guard"]["broken"]
        state["guard"]["broken"] = [k >= 0 and broken[k] for k in old.tolist()]
    state["appeal"] = [state["appeal"][k] if k >= 0 else 0.0 for k in old.tolist()]
    if state["slots"]:
        slots = state["slots"]
        unused = asdict(SkillStatistics())
        taught = slots.get("taught", slots["skill"])
        slots["taught"] = [NOBODY if k == NOBODY else new.get(k, GONE) for k in taught]
        slots["skill"] = [new.get(k, -1) for k in slots["skill"]]
        if "worth" in slots:
            means = slots["worth"]["means"]
            kept = [means[k] if k >= 0 else [0.0, 0.0, 0.0] for k in old.tolist()]
            slots["worth"] = {"means": [*kept, means[-1]], "open": []}
        slots["statistics"] = [slots["statistics"][k] if k >= 0 else dict(unused) for k in old.tolist()]
