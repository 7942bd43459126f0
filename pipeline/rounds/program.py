"""The question for a priority program, or for a better one: drafts asked, checked, played on the same worlds, the best
kept; one that is to take another's place only where it plays better.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lore_datasets.errors import ConfigError
from lore_datasets.language.lint import lint_program
from lore_datasets.language.programs import MAX_RULES, Program, diff_programs, parse_program
from lore_datasets.language.skills import Skill
from pipeline.llm.base import Prompt
from pipeline.questions.check import Rejected

if TYPE_CHECKING:
    from pipeline.questions.parse import Advice
    from pipeline.rounds.round import ProgramRevision, Round

__all__ = ["Judge", "add_program", "program_prompts", "rules_told"]

Judge = Callable[[Sequence[Program], Sequence[Skill]], Sequence[Sequence[float]]]
"""Plays programs with these skills without learning; of each the return in every one of the same worlds."""
_RULES, _FEW = 80, 20
"""Most rules that are asked for, where no program is revised that has more; of a small model."""


def program_prompts(now: Round) -> list[Prompt]:
    """The question for a program, once per draft; none where it is not wanted or the adviser is not asked it."""
    if "program" not in now.kinds:
        return []
    drafts, revision = range(now.config.advise.program_drafts), now.revision
    if revision is None:
        short = now.llm.capabilities.letters
        return [now.renderer.program(draft, _FEW if short else _RULES, short=short) for draft in drafts]
    count = min(MAX_RULES, max(_RULES, len(revision.program)))
    about, first = (revision.program.digest, revision.told), revision.first_draft
    return [now.renderer.revised_program(*about, first + draft, count) for draft in drafts]


def rules_told(program: Program) -> str:
    """The rules by number, one a line, without their free text: what was checked alone may enter a question."""
    rules = [json.dumps({"when": rule.when, "goal": rule.goal}) for rule in program.rules]
    return "\n".join(f"{number}: {rule}" for number, rule in enumerate(rules))


def add_program(now: Round, judge: Judge | None) -> None:
    """Ask for the round's program: the best of all usable drafts by mean return enters, the others are kept as rejects.

    An answer outside the language is asked for again. In a revision the best draft enters only where it plays better
    than the program before. ConfigError when there are several drafts and no way to play them.
    """
    prompts, result = program_prompts(now), now.first
    if len(prompts) > 1 and judge is None:
        raise ConfigError(
            f"advise.program_drafts = {len(prompts)}, but nothing here can play them", hint="ask for one draft"
        )
    names = [skill.name for skill in now.skills]

    def read(advice: Advice) -> Program:
        return parse_program(advice.program or {}, now.environment.vocab, names)

    asked = now.ask(prompts, result, check=read) if prompts else []
    result.counts["programs.offered"] += len(asked)
    found = [(read(each.advice), each.where) for each in asked if each.advice is not None]
    if not found:
        return
    programs = [program for program, _ in found]
    returns = judge(programs, now.skills) if judge is not None and len(prompts) > 1 else [[] for _ in found]
    best = int(np.argmax([float(np.mean(each)) if len(each) else 0.0 for each in returns]))
    for number, ((program, where), each) in enumerate(zip(found, returns, strict=True)):
        about = {"digest": program.digest, "rules": len(program), "from": where}
        if len(each):
            about |= {"worlds": len(each), "return_mean": round(float(np.mean(each)), 4)}
        now.drafts.append(about)
        if number != best:
            told = f"{program.digest[:12]}: return {np.mean(each):.2f} in {len(each)} worlds, the best had more"
            result.rejects.append(Rejected("program_not_best", where, told))
    program, where = found[best]
    if now.revision is not None and not _is_better(now, now.revision, program, where, len(prompts)):
        return
    now.programs.append((program, where))
    now.findings += lint_program(program, now.skills, now.environment.vocab)
    result.counts["programs.kept"] += 1


def _is_better(now: Round, revision: ProgramRevision, program: Program, where: str, drafts: int) -> bool:
    """Play the answer beside the program before, note the verdict, keep one that is no better as a reject.

    Better: the paired 95 % interval of what it gains in return lies above 0. The same rules again are not played.
    """
    before = revision.program
    now.verdict = {"before": before.digest, "after": program.digest, "from": where, "drafts": drafts, "kept": False}
    if not diff_programs(before, program):
        now.verdict["same_rules"] = True
        return False
    found = revision.compare(before, program, now.skills)
    gain, low, high = found["return"]
    now.verdict |= {**found, "kept": low > 0}
    if low <= 0:
        told = f"{program.digest[:12]}: return {gain:+.2f} ({low:+.2f} to {high:+.2f}) against {before.digest[:12]}"
        now.first.rejects.append(Rejected("program_not_better", where, f"{told} in {found['worlds']} worlds"))
    return low > 0
