"""Option slots: which skills of the library the policy may call, and how each has done so far."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

__all__ = ["SkillStatistics", "Slots"]

MIN_USES = 20
"""Uses after which a skill is judged."""


@dataclass
class SkillStatistics:
    """Running figures of one skill."""

    uses: int = 0
    successes: int = 0
    steps: int = 0
    reward: float = 0.0
    retired: bool = False
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def success_rate(self) -> float:
        """Share of uses that ended in ``done``."""
        return self.successes / self.uses if self.uses else 0.0

    def record(self, outcome: str, steps: int, reward: float) -> None:
        """Account one finished use."""
        self.uses += 1
        self.successes += outcome == "done"
        self.steps += steps
        self.reward += reward
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


class Slots:
    """M slots over a library of K skills.

    Args:
        size: M, slots in the network. names: the K skill names. active: slots that may be filled (<= M).
        threshold: success rate under which a skill that was used often enough is retired.
    """

    def __init__(self, size: int, names: tuple[str, ...], active: int, threshold: float) -> None:
        self.names = names
        self.active = min(size, active, len(names))
        self.threshold = threshold
        self.skill = np.full(size, -1, np.int64)
        self.statistics = [SkillStatistics() for _ in names]

    def fill(self, fit: np.ndarray) -> list[int]:
        """Put the best-fitting free skills (``fit`` float[K], higher is better) into empty slots; returns changed
        slots."""
        taken = {int(s) for s in self.skill if s >= 0}
        free = [
            k
            for k in np.argsort(-fit, kind="stable")
            if k not in taken and not self.statistics[k].retired and fit[k] > 0
        ]
        changed = []
        for slot in range(self.active):
            if self.skill[slot] < 0 and free:
                self.skill[slot] = free.pop(0)
                changed.append(slot)
        return changed

    def retire(self) -> list[str]:
        """Empty the slots of skills that fail too often; returns their names."""
        gone = []
        for slot, k in enumerate(self.skill):
            if k >= 0 and self.statistics[k].uses >= MIN_USES and self.statistics[k].success_rate < self.threshold:
                self.statistics[k].retired = True
                self.skill[slot] = -1
                gone.append(self.names[k])
        return gone

    def metrics(self) -> dict[str, float]:
        """The ``options/*`` tags."""
        used = [s for s in self.statistics if s.uses]
        out = {
            "options/active": float((self.skill >= 0).sum()),
            "options/retired": float(sum(s.retired for s in self.statistics)),
            "options/avg_success_rate": float(np.mean([s.success_rate for s in used])) if used else 0.0,
        }
        for name, s in zip(self.names, self.statistics, strict=True):
            if s.uses:
                out[f"options/{name}/success_rate"] = s.success_rate
                out[f"options/{name}/uses"] = float(s.uses)
                out[f"options/{name}/return_per_step"] = s.reward / max(1, s.steps)
        return out

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"skill": self.skill.tolist(), "statistics": [asdict(s) for s in self.statistics]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.skill = np.array(state["skill"], np.int64)
        self.statistics = [SkillStatistics(**s) for s in state["statistics"]]
