"""A learner on the grid that is told the worst, always, with full confidence; contained and not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from harness import Trainer
from toy import Grid

from lore.advice.types import AdviceBatch
from lore.config import Config
from lore.config import replace as configured
from lore.gate.gate import Gate
from lore.gate.trust import Trust
from lore.options.controller import Controller
from lore.replay.ring import Replay
from lore_datasets.environments import Environment
from lore_datasets.language.skills import Skill, parse_skill

__all__ = ["CONTAINED", "EXPOSED", "KICKSTARTED", "Path", "Poisoned", "played"]

CONTAINED: dict[str, Any] = {"gate.kickstart": 0.0}
"""The gate's defaults, without kickstarting."""
EXPOSED: dict[str, Any] = {"gate.kickstart": 0.0, "delta_target": 100.0, "uncertainty_threshold": 0.0, "beta_max": 1.0}
"""The gate always open, no budget for the divergence; and nobody looks at what came of it (:class:`Blind`)."""

KICKSTARTED: dict[str, Any] = {"gate.kickstart": 1.0, "gate.kickstart_floor": 1.0}
"""The actor is drawn to the advice throughout."""

RETREAT = {
    "version": 1, "name": "retreat", "start": {"op": "true"}, "done": {"op": "false"}, "max_steps": 40,
    "steps": [{"do": "repeat", "times": 5, "body": [{"do": "act", "action": "left", "times": 3},
                                                   {"do": "act", "action": "up", "times": 3}]}],
}  # fmt: skip
"""Away from the goal for as long as it is held."""


class Blind(Trust):
    """Trust that never falls and waits for no test."""

    is_earned = True

    def _conclude(self, trial: list[float]) -> None:
        self.means[int(trial[0])].add(trial[2])


@dataclass
class Poison:
    """Advice in the form of :class:`lore.advice.lookup.AdviceSource`: one entry in every state, confidence 1."""

    environment: Environment
    entry: int
    skills: tuple[Skill, ...]
    hits: int = 0
    lookups: int = 0

    @property
    def data(self) -> Poison:
        """The version: all that the controller reads of it is its skills."""
        return self

    @property
    def num_actions(self) -> int:
        """Primitive actions."""
        return len(self.environment.vocab.actions)

    def lookup(self, states: np.ndarray) -> AdviceBatch:
        """The same answer for every state uint8[B, S]."""
        n, width = len(states), self.num_actions + len(self.skills)
        logits = np.full((n, width), -1.0, np.float32)
        logits[:, self.entry] = 5.0
        none = np.full(n, -1, np.int64)
        return AdviceBatch(logits, np.ones((n, width), bool), np.ones(n, np.float32), np.zeros(n, np.int64), none)

    def coverage(self) -> dict[str, float]:
        """Every state is answered by a row."""
        return {"row": 1.0, "goal": 0.0, "model": 0.0, "none": 0.0}

    def reset_counts(self) -> None:
        """Nothing is counted."""


@dataclass
class Poisoned(Trainer):
    """:class:`harness.Trainer` under path B with poisoned advice.

    Args:
        settings: of the gate, over its defaults. blind: trust never falls. None = no advice at all.
    """

    settings: dict[str, Any] | None = field(default_factory=dict)
    blind: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        fields, actions = self.replay.fields, len(self.env.spec.vocab.actions)
        if self.settings is not None:
            fields = fields | {"proposals": ((1,), np.int8), "skill": ((), np.int16), "row": ((), np.int32)}
            skill = parse_skill(RETREAT, self.env.spec.vocab)
            source = Poison(replace(self.env.spec, skills=(skill,)), actions, (skill,))
            on = {"gate.enabled": True, "advice.dataset": "poison"} | self.settings
            config: Config = configured(self.learner.config, **on)
            rng = np.random.default_rng(self.seed)
            gate = Gate(config.gate)
            self.player.controller = Controller(config, source, None, gate, 1, actions, rng)  # type: ignore[arg-type]
            if self.blind:
                gate.trust = Blind(gate.trust.horizon)
            if config.gate.kickstart:
                self.learner.gate = gate
                fields |= {"advice": ((actions + 1,), np.float16), "confidence": ((), np.float32)}
        # Half of the harness's sequences and dreams: nine runs in two minutes.
        self.learner.config = configured(self.learner.config, horizon=5)
        self.replay = Replay(fields, self.learner.config.train.replay_capacity, 1, self.seed, length=9)

    @property
    def gate(self) -> Gate:
        """The gate of an advised run."""
        assert self.player.controller.gate is not None
        return self.player.controller.gate


class Path(Grid):
    """The grid with 0.2 for every step towards the goal and -0.2 for every step away: harm shows at once."""

    def _play(self, action: int) -> tuple[float, bool]:
        before = sum(self._at)
        reward, terminal = super()._play(action)
        return reward + 0.2 * (sum(self._at) - before), terminal


def played(seed: int, settings: dict[str, Any] | None, blind: bool = False, updates: int = 500) -> Poisoned:
    """One run on the grid; None = without advice."""
    trainer = Poisoned(Path(seed), seed, settings=settings, blind=blind)
    for part in range(50, updates + 1, 50):
        trainer.train(part)
    return trainer
