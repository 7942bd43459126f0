"""What the shards of one round of questions share: states, skills, adviser, journal, budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.exchange.revisions import Revision
from lore_datasets.language.geometry import StateView, shared_view
from lore_datasets.language.programs import Program
from lore_datasets.language.skills import Skill
from pipeline.config import PipelineConfig
from pipeline.llm.base import LLM, Prompt, Stop, never
from pipeline.llm.journal.budget import Budget
from pipeline.llm.journal.journal import Journal
from pipeline.questions.check import Trial
from pipeline.questions.feasible import GoalCheck
from pipeline.questions.prompts import Renderer
from pipeline.rounds.ask import Asked, Check, ShardResult, ask

__all__ = ["ProgramRevision", "Round"]


@dataclass(frozen=True)
class ProgramRevision:
    """A program that a round asks to have revised.

    Attributes:
        program: the one that speaks. told: its rules and how it played, as text.
        compare: plays (before, after, skills) in the same fresh worlds; JSON figures, among them ``return``, what the
            second gains in return over the first: [mean, lower, upper bound of its paired 95 % interval].
        first_draft: number of the first draft, over those that earlier rounds asked about the same program.
    """

    program: Program
    told: str
    compare: Callable[[Program, Program, Sequence[Skill]], dict[str, Any]]
    first_draft: int = 0


@dataclass
class Round:
    """What the shards of one round share; made by :func:`prepare`.

    Attributes:
        packed: uint8[N, S] states that are asked about.
        skills: skills of the version before, then the new ones, in the order of the extended action space.
        feasible: goals that can start in a state.
        new_skills: (skill, origin) of this round.
        trials: how the new skills fared in real worlds, by name; empty where nobody tried them.
        revisions: requests for better skills of a training run. revised: skill -> the one that took its place, "" for
        none; of this round and those before.
        programs: (program, origin) of this round, one at most. drafts: what is known of each usable draft of it.
        findings: what is doubtful about the program.
        revision: the program that the round asks to have revised. verdict: what came of it, empty before.
        edit: record of the change that a person asked for, with the ``kind`` and ``template`` of its question; empty in
            other rounds.
        first: answers, rejects and counts of the questions for skills and programs.
    """

    packed: np.ndarray
    environment: Environment
    llm: LLM
    config: PipelineConfig
    journal: Journal
    budget: Budget
    skills: tuple[Skill, ...]
    renderer: Renderer
    feasible: GoalCheck
    new_skills: list[tuple[Skill, str]] = field(default_factory=list)
    trials: dict[str, Trial] = field(default_factory=dict)
    revisions: Sequence[Revision] = ()
    revised: dict[str, str] = field(default_factory=dict)
    programs: list[tuple[Program, str]] = field(default_factory=list)
    drafts: list[dict[str, Any]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    revision: ProgramRevision | None = None
    verdict: dict[str, Any] = field(default_factory=dict)
    edit: dict[str, Any] = field(default_factory=dict)
    first: ShardResult = field(default_factory=ShardResult)
    started: float = field(default_factory=time.monotonic)

    def shards(self, least: int = 1) -> list[range]:
        """Ranges of state indices, one per shard of ``least`` states or more; one where the adviser wants all."""
        size = max(1, len(self.packed)) if self.llm.capabilities.one_shard else max(least, self.config.ask.shard)
        return [range(i, min(i + size, len(self.packed))) for i in range(0, len(self.packed), size)]

    @property
    def kinds(self) -> frozenset[str]:
        """The questions that are wanted and that the adviser can be asked."""
        return self.config.advise.wanted & set(self.llm.capabilities.kinds)

    @property
    def names(self) -> frozenset[str]:
        """All goals and actions that an answer may name."""
        return frozenset((*self.environment.vocab.actions, *(s.name for s in self.skills)))

    def view(self, index: int) -> StateView:
        """State ``index`` with its questions."""
        return shared_view(self.packed[index].tobytes(), self.environment.vocab)

    def ask(
        self, prompts: Sequence[Prompt], result: ShardResult, stop: Stop = never, check: Check | None = None
    ) -> list[Asked]:
        """:func:`pipeline.rounds.ask.ask` with this round's adviser, journal and budget."""
        return ask(
            self.llm,
            prompts,
            self.names,
            result,
            journal=self.journal,
            budget=self.budget,
            retries=self.config.ask.retries,
            stop=stop,
            check=check,
        )
