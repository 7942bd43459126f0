"""The priority program of an advice version as a source of advice: it speaks in every state, one evaluation a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lore.advice.informative import LEAST_GAIN, LEAST_ROWS, blind_scores
from lore_datasets.errors import CorruptArtifact, ProgramError
from lore_datasets.language.evaluator import Evaluator
from lore_datasets.language.lint import is_state_blind
from lore_datasets.language.programs import parse_program

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData

__all__ = ["ProgramAdvice"]

CONFIDENCE = 0.9
"""How sure a program is of its first choice, where the version does not say."""


class ProgramAdvice:
    """The newest program of a version, evaluated with the version's own settings.

    Args:
        data: a version that holds a program; CorruptArtifact when it is outside the language.

    Attributes:
        confidence: the version's ``advise.program_confidence``.
    """

    def __init__(self, data: AdviceData) -> None:
        vocab = data.environment.vocab
        try:
            program = parse_program(data.programs[-1], vocab, [skill.name for skill in data.skills])
        except ProgramError as error:
            raise CorruptArtifact(f"stored program of {data.ref}: {error.message}") from None
        self.program = program
        self.evaluator = Evaluator(program, data.skills, vocab)
        said: dict[str, Any] = data.manifest.config.get("advise", {})
        self.confidence = float(said.get("program_confidence", CONFIDENCE))
        self._settings = {name: float(said[name]) for name in ("floor", "clip", "gap") if name in said}
        self._last: tuple[bytes, np.ndarray] = (b"", np.zeros(0, np.int16))

    def answer(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(logits float32[B, A+K], known bool[B, A+K], confidence float32[B], 0 where no rule speaks)."""
        logits, known, rule = self.evaluator.advise(states, confidence=self.confidence, **self._settings)
        self._last = states.tobytes(), rule
        return logits, known, np.where(rule >= 0, np.float32(self.confidence), np.float32(0.0))

    def rule_of(self, states: np.ndarray) -> np.ndarray:
        """int16[B]: number of the rule behind the first choice in each state, -1 where no rule speaks.

        Of the states of the last :meth:`answer` it is known already.
        """
        asked, rule = self._last
        if asked == states.tobytes():
            return rule
        return self.evaluator.advise(states, confidence=self.confidence, **self._settings)[2]

    def told(self, rule: int) -> str:
        """One line about a rule: number, goal, why."""
        if rule < 0:
            return "no rule"
        found = self.program.rules[rule]
        return f"rule {rule} {found.goal}" + (f": {found.why}" if found.why else "")

    def gain_over_state_blind(self, states: np.ndarray) -> float | None:
        """Share of held-out states whose first choice a state-blind guesser misses, see
        :mod:`lore.advice.informative`; None under ``LEAST_ROWS`` held-out states. Every second state teaches it.
        """
        logits, known, rule = self.evaluator.advise(states, confidence=self.confidence, **self._settings)
        offered = known & self.evaluator.feasible(states)
        first = np.where(offered, logits, -np.inf).argmax(-1)
        spoken = np.flatnonzero(rule >= 0)
        taught, held = spoken[::2], spoken[1::2]
        if len(held) < LEAST_ROWS:
            return None
        scores = blind_scores(first[taught], offered[taught])
        guess = np.where(offered[held], scores[None], -np.inf).argmax(-1)
        return float((guess != first[held]).mean())

    def is_blind(self, states: np.ndarray) -> bool:
        """Whether the program's choices do not depend on the state, over the version's states uint8[N, S].

        With too few states for that, whether all its conditions are constant.
        """
        gain = self.gain_over_state_blind(states)
        if gain is None:
            return is_state_blind(self.program, self.evaluator.vocab)
        return gain < LEAST_GAIN
