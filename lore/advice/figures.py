"""Agreement, coverage and calibration of stored advice on held-out rows, in all and by who visited the states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lore.advice.informative import LEAST_ROWS, blind_scores
from lore.advice.key_table import KeyTable
from lore_datasets.errors import LoreError
from lore_datasets.keys import fine_keys, goal_keys
from lore_datasets.schema import STATE_SOURCES
from lore_datasets.types import SymbolicState

if TYPE_CHECKING:
    from lore.advice.model import AdviceModel
    from lore_datasets.advice import AdviceData, AdviceRows

__all__ = ["by_source", "calibration_error", "held_out_figures", "reliability", "sources_of"]

BINS = 10


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> np.ndarray:
    """float32[bins, 3] over equal bins of confidence in 0..1: mean confidence, share right, answers (0: empty bin)."""
    which = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    share = [np.bincount(which, weights=np.asarray(v, float), minlength=bins) / np.maximum(count, 1)
             for v in (confidence, right)]  # fmt: skip
    return np.stack([*share, count], -1).astype(np.float32)


def calibration_error(table: np.ndarray) -> float:
    """Expected calibration error: mean over answers of |share right - confidence| per bin (Guo et al. 2017, eq. 5)."""
    table = np.asarray(table, np.float64)
    return float((np.abs(table[:, 1] - table[:, 0]) * table[:, 2]).sum() / max(table[:, 2].sum(), 1.0))


def _goal_answers(rows: AdviceRows, kept: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(whether the goal table of rows ``kept`` holds each of ``keys``, its best entry there)."""
    mask = rows.mask[kept].astype(bool)
    table = KeyTable(rows.key_goal[kept], rows.logits[kept], mask, rows.confidence[kept])
    at = table.find(keys)
    best = np.where(table.known, table.logits, -np.inf).argmax(-1)
    return at >= 0, best[at]


def _gain(rows: AdviceRows, p: np.ndarray, best: np.ndarray, kept: np.ndarray, held: np.ndarray) -> float | None:
    """How much more often than a state-blind guesser, taught by rows ``kept``, the model names the first choice of rows
    ``held``, both among the options of the row; None where too few rows advise what can start.
    """
    actions = rows.mask.shape[1] - rows.applicable.shape[1]
    offered = rows.mask.astype(bool)
    offered[:, :actions] = offered[:, :actions].any(-1, keepdims=True)  # a row that names one could have named any
    offered[:, actions:] &= rows.applicable.astype(bool)
    p = p[offered[held, best[held]]]
    kept, held = (at[offered[at, best[at]]] for at in (kept, held))
    if len(held) < LEAST_ROWS:
        return None
    scores = blind_scores(best[kept], offered[kept])
    guess, said = (np.where(offered[held], x, -np.inf).argmax(-1) for x in (scores[None], p))
    return float((said == best[held]).mean() - (guess == best[held]).mean())


def held_out_figures(
    model: AdviceModel, rows: AdviceRows, best: np.ndarray, kept: np.ndarray, held: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(figures, calibration arrays) of rows ``held`` for a model and a goal table made from rows ``kept``.

    ``best``: int64[rows], the entry that each row advises first.
    """
    p = model.probabilities(rows.state[held])
    right = p.argmax(-1) == best[held]
    hit, said = _goal_answers(rows, kept, rows.key_goal[held])
    goal_right = said[hit] == best[held][hit]
    table = reliability(p.max(-1), right)
    gain = _gain(rows, p, best, kept, held)
    report = {
        "held_out_rows": len(held),
        "model_agreement": float(right.mean()),
        "model_confidence": float(p.max(-1).mean()),
        "calibration_error": calibration_error(table),
        "goal_coverage": float(hit.mean()),
        "goal_agreement": float(goal_right.mean()) if hit.any() else 0.5,
        "temperature": model.temperature,
    } | ({} if gain is None else {"gain_over_state_blind": gain})
    arrays = {
        f"calibration/{name}": np.array([report[name]], np.float32)
        for name in ("goal_agreement", "model_agreement", "gain_over_state_blind")
        if name in report
    }
    return report, arrays | {"calibration/reliability": table}


def by_source(
    model: AdviceModel, data: AdviceData, best: np.ndarray, kept: np.ndarray, held: np.ndarray,
    sources: dict[str, np.ndarray],
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Figures per source of states: who visited them.

    ``row_coverage``, ``goal_coverage`` and ``model_confidence`` are over all ``states`` of the source; the agreements
    over its ``held_out`` rows (absent where there are none): of the goal table where it answers, and of the model.
    """
    rows, environment = data.rows, data.environment
    out = {}
    for name, packed in sources.items():
        states = SymbolicState.unpack(packed, environment.layout)
        fine = fine_keys(states, environment)
        sample = packed[:: max(1, len(packed) // 2000)]
        figures = {
            "states": len(packed),
            "row_coverage": float(np.isin(fine, rows.key_fine).mean()),
            "goal_coverage": float(np.isin(goal_keys(states, environment), rows.key_goal).mean()),
            "model_confidence": float(model.probabilities(sample).max(-1).mean()),
        }
        mine = held[np.isin(rows.key_fine[held], fine)]
        if len(mine):
            hit, said = _goal_answers(rows, kept, rows.key_goal[mine])
            figures |= {
                "held_out": len(mine),
                "model_agreement": float((model.probabilities(rows.state[mine]).argmax(-1) == best[mine]).mean()),
            }
            if hit.any():
                figures["goal_agreement"] = float((said[hit] == best[mine][hit]).mean())
        out[name] = figures
    return out


def sources_of(data: AdviceData, store: Any) -> dict[str, np.ndarray]:
    """Packed states by who visited them, from the states versions that an advice version or its parents name.

    Versions that are not in ``store`` are passed over.
    """
    found: dict[str, list[np.ndarray]] = {}
    seen: set[str] = set()
    todo = list(data.manifest.parents)
    while todo:
        parent = todo.pop()
        if parent in seen:
            continue
        seen.add(parent)
        try:
            manifest = store.manifest(parent)
            if manifest.kind == "advice":
                todo += manifest.parents
            elif manifest.kind == "states" and manifest.environment == data.environment.name:
                arrays = store.open(parent).arrays
                names = manifest.provenance.get("sources", STATE_SOURCES)
                for path in (p for p in arrays if p.endswith("/state")):
                    source = arrays[path.removesuffix("state") + "source"]
                    for i in np.unique(source):
                        name = names[i] if i < len(names) else f"source {i}"
                        found.setdefault(str(name), []).append(arrays[path][source == i])
        except LoreError:
            continue
    return {name: np.concatenate(parts) for name, parts in sorted(found.items())}
