"""Distilling one version's rows into its advice model: training, calibration on held-out rows, and the commit of the
version's child."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lore.advice.features import StateFeatures
from lore.advice.figures import by_source, held_out_figures, sources_of
from lore.advice.model import AdviceModel, Member
from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData
    from lore_datasets.environments import Environment
    from lore_datasets.types import ArtifactRef

__all__ = ["distil", "fit", "taught_share", "train_arrays"]

SHARPNESS = 4.0
"""Exponent of the advised probabilities in the targets: what ranks first is what a look-up is asked for."""
LEAST_WEIGHT = 0.05
MOST_UPDATES = 8000
"""Updates of one member at most, whatever the rows and epochs."""
TEMPERATURES = np.geomspace(0.25, 4.0, 25)


def distil(ref: ArtifactRef, store: Any, *, epochs: int = 30, seed: int = 0) -> ArtifactRef:
    """Train, calibrate and commit the advice model of one version as its child; ``store`` is a ``lore_datasets``
    store."""
    data = load_advice(str(ref), root=store.root)
    arrays, report = train_arrays(data, epochs=epochs, seed=seed, sources=sources_of(data, store))
    writer = store.writer(
        f"{ref.name}-model", "advice_model", environment=data.environment.name, parents=(str(ref),),
        actions=data.actions, skills=tuple(s.name for s in data.skills),
        config={"epochs": epochs, "seed": seed}, provenance={"rows_digest": ref.digest, **report},
    )  # fmt: skip
    for path, array in arrays.items():
        group, _, name = path.rpartition("/")
        writer.append(group, **{name: array})
    writer.count(rows=len(data.rows.state))
    return writer.commit(f"advice model of {ref}")


def train_arrays(
    data: AdviceData, *, epochs: int = 30, seed: int = 0, sources: dict[str, np.ndarray] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(weights and calibration arrays, held-out figures) for one advice version.

    ``sources``: packed states uint8[n, S] by who visited them, for figures per source.
    """
    rows = data.rows
    known = rows.mask.astype(bool)
    useful = np.flatnonzero(known.any(-1))
    if len(useful) < 20:
        raise BadInput(
            f"{data.ref} has {len(useful)} rows with advice, too few to distil", hint="advise at least 20 states"
        )
    order = useful[np.random.default_rng(seed).permutation(len(useful))]
    held, kept = order[: max(10, len(order) // 10)], order[max(10, len(order) // 10) :]
    members = fit(
        rows.state[kept], rows.logits[kept], rows.confidence[kept], data.environment, known=known[kept], epochs=epochs,
        seed=seed,
    )  # fmt: skip
    model = AdviceModel(members, 1.0, taught_share(known[kept], len(data.actions)))
    best = np.where(known, rows.logits, -np.inf).argmax(-1)
    model.temperature = _calibrate(model, rows.state[held], best[held])
    report, extra = held_out_figures(model, rows, best, kept, held)
    report["by_source"] = by_source(model, data, best, kept, held, sources or {})
    return model.to_arrays() | extra, report


def taught_share(known: np.ndarray, actions: int) -> np.ndarray:
    """float32[A+K]: share of rows that speak of any primitive, or of any skill; 0 for entries that no row knows."""
    share = np.zeros(known.shape[1], np.float32)
    for block in (slice(0, actions), slice(actions, None)):
        share[block] = known[:, block].any(1).mean() * known[:, block].any(0)
    return share


def _targets(logits: np.ndarray, known: np.ndarray, actions: int) -> tuple[Tensor, Tensor]:
    """(target distributions float32[N, A+K], 0 where unknown; entries that the row speaks of, bool[N, A+K]).

    Rows that name any primitive speak of all of them: what they leave out they do not advise. An unknown skill is one
    that the row's round did not have.
    """
    sharp = np.where(known, SHARPNESS * logits.astype(np.float64), -np.inf)
    p = np.exp(sharp - sharp.max(-1, keepdims=True))
    spoken = known.copy()
    spoken[:, :actions] = known[:, :actions].any(-1, keepdims=True)
    return torch.from_numpy((p / p.sum(-1, keepdims=True)).astype(np.float32)), torch.from_numpy(spoken)


def fit(
    states: np.ndarray, logits: np.ndarray, confidence: np.ndarray, environment: Environment, *,
    known: np.ndarray | None = None, members: int = 2, epochs: int = 30, batch: int = 0, seed: int = 0,
) -> list[Member]:  # fmt: skip
    """Train the ensemble on soft targets weighted by confidence.

    Args:
        states: uint8[N, S]. logits: float32[N, A+K]. confidence: float32[N]. known: bool[N, A+K], entries that a row
            speaks of (default all); rows that know nothing are left out. batch: rows an update, 0 chooses by N.
    """
    known = np.ones(logits.shape, bool) if known is None else np.asarray(known, bool)
    useful = known.any(-1)
    if not useful.any():
        raise BadInput("no row says anything about actions or goals", hint="advise more states, then distil again")
    x = torch.from_numpy(StateFeatures(environment)(states[useful]))
    target, spoken = _targets(logits[useful], known[useful], len(environment.vocab.actions))
    weight = torch.from_numpy(np.ascontiguousarray(confidence[useful])).float().clamp_min(LEAST_WEIGHT)
    batch = batch or (32 if len(x) < 2000 else 64)
    updates = min(max(1, epochs * -(-len(x) // batch)), MOST_UPDATES)
    out = []
    for k in range(members):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + k)
            member = Member(environment, logits.shape[1]).train()
            _train(member, x, target, spoken, weight / weight.mean(), batch, updates)
        out.append(member.eval())
    return out


def _train(member: Member, x: Tensor, target: Tensor, spoken: Tensor, weight: Tensor, batch: int, updates: int) -> None:
    """Minimise the weighted cross-entropy over spoken entries; draws from torch's global generator."""
    optimiser = torch.optim.AdamW(member.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=updates + 1)
    index: list[Tensor] = []
    for _ in range(updates):
        index = index or list(torch.randperm(len(x)).split(batch))
        rows = index.pop()
        said = member(x[rows]).masked_fill(~spoken[rows], -1e9).log_softmax(-1)
        loss = (-(target[rows] * said).sum(-1) * weight[rows]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _calibrate(model: AdviceModel, states: np.ndarray, best: np.ndarray) -> float:
    """Temperature that minimises the negative log-likelihood of held-out choices."""
    losses = []
    for temperature in TEMPERATURES:
        model.temperature = float(temperature)
        p = model.probabilities(states)
        losses.append(-np.log(p[np.arange(len(best)), best] + 1e-8).mean())
    return float(TEMPERATURES[int(np.argmin(losses))])
