"""Settings of path B, the policy prior: how much weight stored advice has in a decision, and how long one holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lore_datasets.errors import ConfigError, check_ranges

__all__ = ["GateConfig"]

_INF = float(2**53)


@dataclass(frozen=True)
class GateConfig:
    """Path B, the policy prior: how much weight stored advice has in the policy, and how long a decision holds."""

    enabled: bool = False
    """Mix stored advice into the policy through the gate."""
    beta_max: float = 0.3
    """Highest weight of advice logits."""
    delta_target: float = 0.1
    """Bound on the mean KL(pi_mix || pi_wm) per decision, in nats."""
    beta_max_end: float | None = None
    """Value that ``beta_max`` falls to, and keeps; not given, it stays as it is."""
    delta_target_end: float | None = None
    """Value that ``delta_target`` falls to, and keeps; not given, it stays as it is."""
    budget_steps: int = 20_000
    """Environment steps over which both fall, linearly."""
    guided: Literal["always", "episodes", "blocks"] = "always"
    """When the gate may guide in training: always, in a share of the episodes, or in one stretch of such a share; at
    other steps the agent acts by itself and the advice is stored as what it should have done."""
    guided_end: float = 0.1
    """Share of such episodes at the end; it falls from 1."""
    guided_steps: int = 20_000
    """Environment steps over which it falls, linearly."""
    guided_block: int = 100
    """Steps of a guided stretch."""
    uncertainty_threshold: float = 0.5
    """Uncertainty (0..1) at which the gate is half open."""
    hold: int = 10
    """Steps an advised choice holds at most; 1 is the original's per-step form."""
    temperature: float = 0.1
    """Softness of the threshold (tau)."""
    weights: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Weights of entropy, standard deviation of the value and disagreement; normalised to sum 1."""
    anneal_steps: int = 0
    """Steps over which beta falls linearly to 0; 0 keeps it."""
    clip: float = 5.0
    """Advice logits run from minus this (what the advice gives nothing) to this (its first choice)."""
    kickstart: float = 1.0
    """Weight at the start of the cross-entropy that draws the actor to the advice at replayed states; 0 = off."""
    kickstart_floor: float = 0.1
    """Weight that it falls to, and keeps; 0 lets the actor go entirely."""
    kickstart_steps: int = 20_000
    """Environment steps over which it falls, linearly."""
    goal_bonus: float = 0.0
    """Path D: what reaching the goal of a certain advice pays in imagination at the start, once per trajectory; 0 =
    off."""
    goal_bonus_steps: int = 20_000
    """Environment steps over which it falls to 0, linearly."""
    cut_traces: bool = False
    """End the critic's replayed return before a step that advice took: the policy in imagination is not advised."""

    def __post_init__(self) -> None:
        check_ranges(
            "gate",
            self,
            {
                "hold": (1, 1000),
                "temperature": (1e-4, 10.0),
                "beta_max": (0.0, 100.0),
                "delta_target": (0.0, 100.0),
                "uncertainty_threshold": (0.0, 1.0),
                "anneal_steps": (0, _INF),
                "clip": (0.0, 100.0),
                "kickstart": (0.0, 100.0),
                "kickstart_floor": (0.0, 100.0),
                "kickstart_steps": (1, _INF),
                "goal_bonus": (0.0, 100.0),
                "goal_bonus_steps": (1, _INF),
                "budget_steps": (1, _INF),
                "guided_end": (0.0, 1.0),
                "guided_steps": (1, _INF),
                "guided_block": (1, _INF),
            },
        )
        if self.guided not in ("always", "episodes", "blocks"):
            raise ConfigError.out_of_range("gate.guided", self.guided, "always, episodes or blocks")
        for name, end in (
            ("kickstart", "kickstart_floor" if self.kickstart else ""),
            ("beta_max", "beta_max_end"),
            ("delta_target", "delta_target_end"),
        ):
            self._check_falls(name, end)
        if len(self.weights) != 3 or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ConfigError.out_of_range("gate.weights", self.weights, "three numbers >= 0, not all 0")

    def _check_falls(self, name: str, end: str) -> None:
        """ConfigError when the schedule from the setting ``name`` to the setting ``end`` rises."""
        if not end or getattr(self, end) is None:
            return
        check_ranges("gate", self, {end: (0.0, 100.0)})
        first, last = getattr(self, name), getattr(self, end)
        if last > first:
            raise ConfigError(
                f"gate.{end} = {last:g} lies above gate.{name} = {first:g}: what the advice may do can fall, not rise",
                hint=f"give at most gate.{name}",
            )
