"""Which advice version a run learned from at which step, and going on with another version of the same dataset.

A version changes only where a run is resumed: between two updates by construction, and saved at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.training.records import read_jsonl
from lore_datasets.atomic import write_text
from lore_datasets.errors import BadInput
from lore_datasets.types import ArtifactRef

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from torch import Tensor

    from lore.advice.lookup import AdviceSource
    from lore.advice.plans import PlanBook

__all__ = ["VERSIONS", "is_same_dataset", "record", "relabel", "versions"]

VERSIONS = "advice.jsonl"
"""File of a run: one row ``{step, updates, advice}`` per change of version, oldest first."""

_CHUNK = 8192


def is_same_dataset(before: str, now: str) -> bool:
    """True when two references ``name@vN#digest`` name versions of one dataset; they may be equal."""
    try:
        return bool(before and now) and ArtifactRef.parse(before)[0] == ArtifactRef.parse(now)[0]
    except BadInput:
        return False


def versions(folder: Path | str) -> list[dict[str, Any]]:
    """Rows of ``advice.jsonl``, oldest first; empty for a run without advice; CorruptArtifact when it is damaged."""
    return read_jsonl(Path(folder) / VERSIONS)


def record(folder: Path | str, step: int, updates: int, advice: str) -> bool:
    """Note that ``advice`` is live from ``step`` on; rows of later steps, which a kill undid, go. True when it is new.

    The file is replaced at once or not at all.
    """
    path = Path(folder) / VERSIONS
    before = versions(folder)
    rows = [row for row in before if row["step"] <= step]
    fresh = not rows or rows[-1]["advice"] != advice
    if fresh:
        rows.append({"step": step, "updates": updates, "advice": advice})
    if rows != before:
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return fresh


def relabel(tensors: MutableMapping[str, Tensor], source: AdviceSource, plans: PlanBook | None = None) -> int:
    """Let replayed steps point at the rows of another version; returns how many steps have a row of it.

    ``tensors``: a checkpoint's, changed in place: ``replay/<stream>/row`` (and ``plan``, ``advice``, ``confidence``
    where the run keeps them) are looked up anew for the stored states, so that newer advice applies to old replay.
    """
    import torch

    found = 0
    for name in [n for n in tensors if n.startswith("replay/") and n.endswith("/row")]:
        stream = name.removesuffix("row")
        states, last = tensors[stream + "state"].numpy(), tensors[stream + "is_last"].numpy()
        row = np.full(len(states), -1, np.int32)
        kept = (stream + "advice") in tensors
        for start in range(0, len(states), _CHUNK):
            part = slice(start, start + _CHUNK)
            batch = source.lookup_batch(np.ascontiguousarray(states[part]))
            row[part] = np.where(last[part], -1, batch.row)
            if plans is not None:
                proposals = tensors[stream + "proposals"].numpy()[part]
                plan = plans.find(states[part], batch, proposals)
                tensors[stream + "plan"][part] = torch.from_numpy(np.where(last[part], -1, plan).astype(np.int32))
            if kept:
                _said(tensors, stream, part, batch, last[part], source)
        tensors[name] = torch.from_numpy(row)
        found += int((row >= 0).sum())
    return found


def _said(
    tensors: MutableMapping[str, Tensor], stream: str, part: slice, batch: Any, last: np.ndarray, source: AdviceSource
) -> None:
    """Renew what replay keeps for kickstarting and advised goals: p over the feasible entries and its confidence."""
    from lore.gate.gate import advice_distribution

    advice, confidence = tensors[stream + "advice"].numpy(), tensors[stream + "confidence"].numpy()
    proposals, none = tensors[stream + "proposals"].numpy()[part], np.zeros(0, np.int64)
    for i in range(len(last)):
        if last[i]:
            continue
        _, p = advice_distribution(batch.logits[i], batch.known[i], proposals[i], none, source.num_actions)
        advice[part.start + i] = p.astype(np.float16)
        confidence[part.start + i] = float(batch.confidence[i]) if p.any() else 0.0
