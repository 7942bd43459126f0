"""A better program in place of a dataset's own: asked with what its play showed, kept only if it plays better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.jobs.asked import exchange, paid
from flows.jobs.program_trials import ProgramTrials
from flows.report.play import play_text
from flows.terminal import current
from lore_datasets.advice import advice_from
from lore_datasets.errors import BadInput, shown
from lore_datasets.language.programs import parse_program
from pipeline.config import PipelineConfig
from pipeline.llm import backend_from
from pipeline.llm.journal.journal import Journal
from pipeline.rounds.advise import DryRun, dry_run
from pipeline.rounds.commit import commit_round, program_revisions
from pipeline.rounds.mixing import refuse_mixed
from pipeline.rounds.prepare import ask_first, prepare
from pipeline.rounds.program import rules_told
from pipeline.rounds.round import ProgramRevision, Round

if TYPE_CHECKING:
    from flows.config import AdviceJob
    from lore_datasets.advice import AdviceData
    from lore_datasets.language.programs import Program
    from lore_datasets.store.store import Store
    from lore_datasets.types import ArtifactRef
    from pipeline.llm.base import LLM

__all__ = ["advise_better", "estimate_better"]


def advise_better(job: AdviceJob, store: Store, journal_path: Path) -> ArtifactRef:
    """Play the program of ``job.dataset``, ask for a better one, play both; the next version, or the one before.

    The next version holds the better program, or the record of the one that was refused: its figures and the steps that
    were played belong to the data. An answer with the same rules is not played and leaves no record. A stop loses the
    lives in flight; answers and finished lives are found again. BadInput when the dataset holds no program.
    """
    data, program = _program_of(store, job.dataset)
    with Journal(journal_path) as journal:
        llm = backend_from(job.ask, data.environment, job.advise.seed, journal)
        refuse_mixed(store, job.dataset, llm.name, job.ask.allow_mixed_advisers)
        trials = ProgramTrials(
            data.environment, job.advise.seed, compared=job.revise_worlds,
            round=len(program_revisions(store, job.dataset)),
        )  # fmt: skip
        report = play_text(trials.report(program, data.skills, "The program", data.ref.version))
        revision = _revision(store, job.dataset, program, trials, f"{rules_told(program)}\n\n{report}")
        now = ask_first(_prepared(job, data, llm, store, journal, revision), judge=trials)
        exchange(llm, job)
        ref = _committed(job, store, now, trials.steps)
        current().say(paid(now, [], journal))
        return ref


def estimate_better(job: AdviceJob, store: Store, journal_path: Path) -> DryRun:
    """What :func:`advise_better` would ask, without a play: the question lacks the report, some thousand tokens."""
    data, program = _program_of(store, job.dataset)
    trials = ProgramTrials(data.environment)
    with Journal(journal_path if journal_path.exists() else ":memory:") as journal:
        llm = backend_from(job.ask, data.environment, job.advise.seed, journal)
        revision = _revision(store, job.dataset, program, trials, rules_told(program))
        return dry_run(_prepared(job, data, llm, store, journal, revision))


def _program_of(store: Store, name: str) -> tuple[AdviceData, Program]:
    """The dataset's current version and the program that speaks in it; BadInput when it holds none."""
    data = advice_from(store.open(name))
    if not data.programs:
        raise BadInput(
            f"{data.ref} holds no program to revise",
            hint=f"lore advise --kinds program --dataset {name} --environment {data.environment.name} asks for one",
        )
    return data, parse_program(data.programs[-1], data.environment.vocab, [skill.name for skill in data.skills])


def _prepared(
    job: AdviceJob, data: AdviceData, llm: LLM, store: Store, journal: Journal, revision: ProgramRevision
) -> Round:
    """The round of one question, about no state."""
    states = np.zeros((0, data.environment.layout.size), np.uint8)
    return prepare(states, data.environment, llm, store, job.dataset, _settings(job), journal, revision=revision)


def _settings(job: AdviceJob) -> PipelineConfig:
    return PipelineConfig(ask=job.ask, advise=replace(job.advise, kinds="program"))


def _revision(store: Store, name: str, program: Program, trials: ProgramTrials, told: str) -> ProgramRevision:
    """The question about ``program``; another draft after each answer to it that was refused."""
    before = [each for each in program_revisions(store, name) if each.get("before") == program.digest]
    return ProgramRevision(program, told, trials.compare, sum(int(each["drafts"]) for each in before))


def _committed(job: AdviceJob, store: Store, now: Round, steps: int) -> ArtifactRef:
    """The next version; the one before where the answer was the same program, or of no use."""
    base, verdict, say = store.resolve(job.dataset), now.verdict, current().say
    if not verdict:
        why = now.first.rejects[0].text if now.first.rejects else "nothing was answered"
        say(f"  no gain: no answer of {now.llm.name} could be used ({shown(why, 200)}); nothing is committed")
        ref = base
    elif verdict.get("same_rules"):
        say(f"  no gain: {now.llm.name} answered with the program of {base} itself; nothing is committed")
        ref = base
    else:
        ref = commit_round(now, [], store, job.dataset, provenance={"environment_steps": steps})
        gain, low, high = verdict["return"]
        said = "better" if verdict["kept"] else "no gain: the program before stays, the new one is kept as a reject"
        say(
            f"  {said}: return {verdict['return_after'][0]:.2f} against {verdict['return_before'][0]:.2f}, "
            f"difference {gain:+.2f} ({low:+.2f} to {high:+.2f}) in {verdict['worlds']} worlds"
        )
    say(f"  {steps:,} environment steps were played for it")
    return ref
