"""The beginning of a round: its states, skills and budget, then the questions for new skills and for a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lore_datasets.advice import skills_of
from lore_datasets.environments import Environment
from lore_datasets.errors import BadInput, ConfigError
from lore_datasets.exchange.revisions import Revision
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import Skill
from lore_datasets.schema import MAX_ROUNDS
from lore_datasets.store.store import Store
from lore_datasets.types import SymbolicState
from pipeline.config import PipelineConfig
from pipeline.llm.base import LLM, Prompt, as_llm
from pipeline.llm.journal.budget import Budget
from pipeline.llm.journal.journal import Journal
from pipeline.questions.check import TrialRun, check_skills
from pipeline.questions.feasible import GoalCheck
from pipeline.questions.prompts import Renderer
from pipeline.rounds.mixing import refuse_mixed
from pipeline.rounds.program import Judge, add_program
from pipeline.rounds.revise import add_revisions
from pipeline.rounds.round import ProgramRevision, Round

__all__ = ["ask_first", "asks_for_skills", "prepare", "sample_views", "skill_prompts"]

_SAMPLE = 256


def prepare(
    states: SymbolicState | np.ndarray,
    environment: Environment,
    llm: Any,
    store: Store,
    name: str,
    config: PipelineConfig | None = None,
    journal: Journal | None = None,
    *,
    revisions: Sequence[Revision] = (),
    revision: ProgramRevision | None = None,
) -> Round:
    """A round that has asked nothing yet: the skills of the version before, the limits, the question renderer. Without
    states only a program can be asked for.

    ``revisions``: skills that fail too often in a training run; each is asked about once per dataset. ``revision``: a
    program to be revised, where otherwise a first one is asked for.
    """
    config, llm, journal = config or PipelineConfig(), as_llm(llm), Journal() if journal is None else journal
    refuse_mixed(store, name, llm.name, config.ask.allow_mixed_advisers)
    packed = states.pack() if isinstance(states, SymbolicState) else np.asarray(states)
    SymbolicState.unpack(packed, environment.layout)  # BadInput when it is another environment's
    if packed.ndim != 2 or not (len(packed) or config.advise.wanted == {"program"}):
        raise BadInput(f"states of shape {list(packed.shape)}, expected [N, {environment.layout.size}] with N >= 1")
    if config.ask.max_cost and llm.capabilities.estimate is None:
        raise ConfigError(
            f"ask.max_cost is set, but no price is known for {llm.name}", hint="set ask.max_requests instead"
        )
    before, skills = store.newest_manifest(name), environment.skills
    if before is not None:
        skills = skills_of(store.open(name, wanted=lambda path: "/skills/" in path), environment)
        if before.counts.get("rounds", 0) >= MAX_ROUNDS:
            raise BadInput(
                f"{name} has {MAX_ROUNDS} rounds, the most that a dataset holds", hint="give a new --dataset"
            )
    return Round(
        packed=packed,
        environment=environment,
        llm=llm,
        config=config,
        journal=journal,
        budget=_budget(llm, config, journal),
        skills=skills,
        renderer=Renderer(environment, skills, seed=config.advise.seed),
        feasible=GoalCheck(skills, environment.vocab),
        revisions=revisions,
        revised=dict(before.provenance.get("revisions", {})) if before else {},
        revision=revision,
    )


def ask_first(now: Round, trial: TrialRun | None = None, judge: Judge | None = None) -> Round:
    """``now`` after the questions that come before those about states: for better and new skills, then for a program.

    ``trial`` plays each new skill in real worlds before it enters (see :class:`pipeline.questions.check.Trial`),
    ``judge`` the drafts of a program.
    """
    sample = sample_views(now)
    if "skills" in now.llm.capabilities.kinds:
        _enter(now, add_revisions(now, sample, trial))
    if asks_for_skills(now.llm, now.config):
        _add_skills(now, sample, trial)
    add_program(now, judge)
    return now


def _budget(llm: LLM, config: PipelineConfig, journal: Journal) -> Budget:
    """The limits of a round; what the journal has paid counts, and where nothing is bought no answer is a waste."""
    unusable = 0 if llm.capabilities.answers_once else config.ask.max_unusable
    return Budget(
        config.ask.max_requests,
        config.ask.max_cost,
        llm.capabilities.estimate,
        paid=journal.paid(),
        max_unusable=unusable,
    )


def _enter(now: Round, skills: Sequence[tuple[Skill, str]]) -> None:
    """Extend the round by new skills."""
    if not skills:
        return
    now.new_skills += skills
    now.skills = (*now.skills, *(skill for skill, _ in skills))
    now.renderer = Renderer(now.environment, now.skills, seed=now.config.advise.seed)
    now.feasible = GoalCheck(now.skills, now.environment.vocab)


def asks_for_skills(llm: LLM, config: PipelineConfig) -> bool:
    """Whether a round asks this adviser for new skills."""
    wanted = config.advise.skill_questions and config.advise.max_new_skills and "skills" in config.advise.wanted
    return bool(wanted) and "skills" in llm.capabilities.kinds


def skill_prompts(now: Round, sample: Sequence[StateView]) -> list[Prompt]:
    """The questions for new skills, equal ones once; each sums up another part of the sampled states."""
    config = now.config.advise
    parts = [sample[i :: config.skill_questions] or sample for i in range(config.skill_questions)]
    prompts = [now.renderer.new_skills(_summary(part, now), min(8, config.max_new_skills)) for part in parts]
    return list({prompt.user: prompt for prompt in prompts}.values())


def sample_views(now: Round) -> list[StateView]:
    """At most 256 of the round's states, evenly spread."""
    return [now.view(int(i)) for i in np.linspace(0, len(now.packed) - 1, min(_SAMPLE, len(now.packed)))]


def _add_skills(now: Round, sample: Sequence[StateView], trial: TrialRun | None) -> None:
    """Ask for new skills and extend the round by those that hold and work."""
    limit, result = now.config.advise.max_new_skills - len(now.new_skills), now.first
    asked = now.ask(skill_prompts(now, sample), result)
    offered = [(body, a.where) for a in asked if a.advice for body in a.advice.skills]
    taken = [skill.name for skill in now.skills]
    found, rejected, trials = check_skills(offered, now.environment.vocab, taken, sample, limit, trial)
    now.trials |= trials
    result.rejects += rejected
    result.counts["new_skills.offered"] += len(offered)
    result.counts["new_skills.kept"] += len(found)
    _enter(now, found)


def _summary(views: Sequence[StateView], now: Round) -> str:
    """Where the player tends to be: share of states in which goals can start, things are seen, achievements are had."""
    vocab, n = now.environment.vocab, len(views)
    starts = Counter(name for view in views for name in now.feasible(view))
    seen = Counter(name for view in views for name in view.in_view() if name not in ("nothing", "player"))
    had = Counter(a for view in views for a, on in zip(vocab.achievements, view.flags, strict=True) if on)

    def shares(counts: Counter[str]) -> str:
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return ", ".join(f"{name} {round(100 * c / n)} %" for name, c in ordered) or "none"

    starting = f"Share of {n} visited states in which a goal can start: {shares(starts)}."
    return f"{starting}\nIn view: {shares(seen)}.\nAchieved already: {shares(had)}."
