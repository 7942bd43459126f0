"""Who advised a dataset: one entry per round, kept in the provenance of every version."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lore_datasets.types import Manifest

__all__ = ["AdvisedRound", "advisers", "advisers_of", "record", "rounds_of"]


@dataclass(frozen=True)
class AdvisedRound:
    """One round of advice: adviser and models by name, rows that it added, US dollars that its answers cost."""

    adviser: str
    models: tuple[str, ...]
    rows: int
    price_usd: float

    def __str__(self) -> str:
        models = f" ({', '.join(self.models)})" if self.models else ""
        return f"{self.adviser}{models}, {self.rows:,} rows, {self.price_usd:.4f} USD"


def rounds_of(manifest: Manifest, earlier: Sequence[AdvisedRound] = ()) -> list[AdvisedRound]:
    """The rounds of a version, oldest first; ``earlier`` stand in for those of a manifest that has no list of them.

    Versions made before the list was kept name the adviser of their last round alone; the others are ``unknown``.
    """
    stored = manifest.provenance.get("rounds")
    if isinstance(stored, list):
        return [_read(each) for each in stored if isinstance(each, Mapping)]
    if manifest.kind != "advice":
        return []
    rows = [spec.shape[0] for path, spec in sorted(manifest.arrays.items()) if path.endswith("/state")]
    before = list(earlier) or [AdvisedRound("unknown", (), count, 0.0) for count in rows[:-1]]
    last = {**manifest.provenance, "rows": rows[-1] if rows else 0, "price_usd": manifest.cost.get("price_usd", 0.0)}
    return [*before, _read(last)]


def _read(body: Mapping[str, Any]) -> AdvisedRound:
    name = str(body.get("adviser") or body.get("backend") or "unknown")
    models = body.get("models", ())
    return AdvisedRound(
        name,
        tuple(map(str, models)) if isinstance(models, (list, tuple)) else (),
        int(_number(body.get("rows"))),
        _number(body.get("price_usd")),
    )


def _number(value: Any) -> float:
    """A stored number; 0 for anything else, for a manifest may come from anywhere."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else 0.0


def advisers(rounds: Sequence[AdvisedRound]) -> list[str]:
    """Their names, each once, in the order of their first rounds."""
    return list(dict.fromkeys(each.adviser for each in rounds))


def advisers_of(manifest: Manifest) -> str:
    """All advisers of a version in one line, such as ``rules, random``; empty where nobody advised."""
    return ", ".join(advisers(rounds_of(manifest)))


def record(rounds: Sequence[AdvisedRound]) -> list[dict[str, Any]]:
    """``rounds`` as the provenance keeps them."""
    return [{**asdict(each), "models": list(each.models)} for each in rounds]
