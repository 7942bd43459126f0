"""The question for a priority program: drafts asked, checked, played on the same worlds, the best one kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lore_datasets.errors import ConfigError, ProgramError, shown
from lore_datasets.language.lint import lint_program
from lore_datasets.language.programs import Program, parse_program
from lore_datasets.language.skills import Skill
from pipeline.llm.base import Prompt
from pipeline.questions.check import Rejected

if TYPE_CHECKING:
    from pipeline.rounds.round import Round

__all__ = ["Judge", "add_program", "program_prompts"]

Judge = Callable[[Program, Sequence[Skill]], Sequence[float]]
"""Plays a program with these skills without learning; the return in each of the same worlds, whatever the program."""


def program_prompts(now: Round) -> list[Prompt]:
    """The question for a program, once per draft; none where it is not wanted or the adviser is not asked it."""
    return [now.renderer.program(draft) for draft in range(now.config.advise.program_drafts) if "program" in now.kinds]


def add_program(now: Round, judge: Judge | None) -> None:
    """Ask for the round's program: the best of all usable drafts by mean return enters, the others are kept as rejects.

    ConfigError when there are several drafts and no way to play them.
    """
    prompts, result = program_prompts(now), now.first
    if len(prompts) > 1 and judge is None:
        raise ConfigError(
            f"advise.program_drafts = {len(prompts)}, but nothing here can play them", hint="ask for one draft"
        )
    found: list[tuple[Program, str]] = []
    for asked in now.ask(prompts, result) if prompts else ():
        result.counts["programs.offered"] += 1
        body = asked.advice.program if asked.advice is not None else None
        try:
            if body is not None:
                names = [skill.name for skill in now.skills]
                found.append((parse_program(body, now.environment.vocab, names), asked.where))
        except (ProgramError, RecursionError) as error:
            result.rejects.append(Rejected("program_malformed", asked.where, shown(error, 200)))
    if not found:
        return
    returns = [list(judge(program, now.skills)) if judge is not None else [] for program, _ in found]
    best = int(np.argmax([float(np.mean(each)) if each else 0.0 for each in returns]))
    for number, ((program, where), each) in enumerate(zip(found, returns, strict=True)):
        about = {"digest": program.digest, "rules": len(program), "from": where}
        if each:
            about |= {"worlds": len(each), "return_mean": round(float(np.mean(each)), 4)}
        now.drafts.append(about)
        if number != best:
            told = f"{program.digest[:12]}: return {np.mean(each):.2f} in {len(each)} worlds, the best had more"
            result.rejects.append(Rejected("program_not_best", where, told))
    program, where = found[best]
    now.programs.append((program, where))
    now.findings += lint_program(program, now.skills, now.environment.vocab)
    result.counts["programs.kept"] += 1
