"""Programs that are in no version yet, played without learning: drafts against each other, a new one against the old.

Three sets of worlds, apart from each other, from training's, from evaluation's and from those of a card's figure
(:mod:`flows.jobs.play`): one chooses among drafts, one shows the adviser how its program played, one compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.jobs.play import play_programs
from lore.evaluation.play import PlaySettings, difference, figures

if TYPE_CHECKING:
    from lore.evaluation.play import Life
    from lore_datasets.environments import Environment
    from lore_datasets.language.programs import Program
    from lore_datasets.language.skills import Skill

__all__ = ["WORLDS", "ProgramTrials"]

WORLDS = 20
"""Worlds in which every draft plays one life, and the program that is to be revised another twenty."""
_DRAFTS, _REPORT, _COMPARE = 52_000_000, 53_000_000, 54_000_000
_SEEDS = 900_000


class ProgramTrials:
    """``ProgramTrials(environment, seed)(programs, skills) -> returns``, of each one per world of the drafts.

    Args:
        environment: the game. seed: chooses the worlds, the same ones for the same seed.
        worlds: of the drafts and of a report. compared: of a comparison. length: steps after which a life is cut.
        round: number of comparisons before; each has fresh worlds. workers: processes, 0 for one per core.

    Attributes:
        steps: environment steps of all lives so far.
    """

    def __init__(
        self, environment: Environment, seed: int = 0, *, worlds: int = WORLDS, compared: int = 2 * WORLDS,
        round: int = 0, length: int = 10_000, workers: int = 0,
    ) -> None:  # fmt: skip
        self.environment, self.seed, self.worlds, self.compared = environment, seed, worlds, compared
        self.round, self.length, self.workers, self.steps = round, length, workers, 0

    def __call__(self, programs: Sequence[Program], skills: Sequence[Skill]) -> list[list[float]]:
        """Play one life of each program in every world of the drafts."""
        lives = self._lives(programs, skills, _DRAFTS + self.seed % _SEEDS, self.worlds)
        return [[life.reward for life in each] for each in lives]

    def report(self, program: Program, skills: Sequence[Skill], name: str, version: int = 0) -> dict[str, Any]:
        """What a program's play shows, for :func:`flows.report.play.play_text`; ``name`` is what the text calls it.

        Each ``version`` of a dataset has fresh worlds, so that a later round does not ask what was answered before.
        """
        settings = self._settings(_REPORT + (self.seed + 1000 * version) % _SEEDS)
        lives = self._lives([program], skills, settings.seed, self.worlds)[0]
        steps, names = sum(life.length for life in lives), self.environment.vocab.achievements
        return {
            "ref": name, "settings": asdict(settings), "episodes": len(lives), "steps": steps,
            "players": {"advice": figures(lives, names)},
        }  # fmt: skip

    def compare(self, before: Program, after: Program, skills: Sequence[Skill]) -> dict[str, Any]:
        """Both in the same fresh worlds: what ``after`` gains over ``before``, paired, with 95 % intervals; the return
        of each; worlds and environment steps.
        """
        seed = _COMPARE + (self.seed + 1000 * self.round) % _SEEDS
        old, new = self._lives([before, after], skills, seed, self.compared)
        names = self.environment.vocab.achievements
        return {
            "worlds": len(old), **difference(new, old, names),
            "return_before": figures(old, names)["return"], "return_after": figures(new, names)["return"],
            "steps": sum(life.length for life in (*old, *new)),
        }  # fmt: skip

    def _settings(self, seed: int) -> PlaySettings:
        return PlaySettings(seed=seed, length=self.length)

    def _lives(self, programs: Sequence[Program], skills: Sequence[Skill], seed: int, worlds: int) -> list[list[Life]]:
        found = play_programs(programs, skills, self.environment, self._settings(seed), worlds, self.workers)
        self.steps += sum({program.digest: sum(life.length for life in lives)
                           for program, lives in zip(programs, found, strict=True)}.values())  # fmt: skip
        return found
