"""What a dialogue changes: one skill, or a version's program. How it is read, tried in worlds, shown and stored."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from flows.jobs.program_trials import ProgramTrials
from flows.jobs.skill_trials import SkillTrials
from lore_datasets.environments import Environment
from lore_datasets.errors import AnswerError, LoreError, NotFound, ProgramError, SkillError, shown
from lore_datasets.language.lint import lint_program
from lore_datasets.language.programs import MAX_RULES, Program, diff_programs, parse_program
from lore_datasets.language.skills import Skill, bound, parse_skill

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData
    from lore_datasets.types import ArtifactRef
    from pipeline.llm.base import Prompt
    from pipeline.questions.check import TrialRun
    from pipeline.questions.parse import Advice
    from pipeline.questions.prompts import Renderer
    from pipeline.rounds.round import Round

__all__ = ["ProgramSubject", "SkillSubject", "Subject", "Tried", "program_of", "skill_of"]


@dataclass(frozen=True)
class Tried:
    """What a try in worlds showed: a record for the provenance, lines for a person, why it may be a mistake ("" where
    nothing speaks against it), environment steps that count.
    """

    record: dict[str, Any]
    lines: Sequence[str]
    doubt: str = ""
    steps: int = 0


class Subject(Protocol):
    """A text of the language that is to be changed; ``kind`` and ``template`` are those of the question for it."""

    @property
    def kind(self) -> str: ...
    @property
    def template(self) -> str: ...
    @property
    def environment(self) -> Environment: ...
    @property
    def ref(self) -> ArtifactRef | None: ...
    @property
    def label(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def told(self) -> str:
        """Its text for an editor; empty where there is none yet."""
        ...

    def read(self, text: str | bytes | dict[str, Any]) -> Any:
        """The checked skill or program; a BadInput names what does not hold."""
        ...

    def answered(self, advice: Advice) -> Any:
        """The checked skill or program of an answer."""
        ...

    def prompt(self, renderer: Renderer, wish: str) -> Prompt:
        """The question for a change."""
        ...

    def attempt(self, after: Any, worlds: int, seed: int) -> Tried:
        """Play it before it may enter."""
        ...

    def meant(self, after: Any) -> Any:
        """The subject of a text that says itself what it replaces."""
        ...

    def differences(self, after: Any) -> list[str]:
        """What changed, a line each; empty for nothing."""
        ...

    def record(self, after: Any) -> dict[str, Any]:
        """What the provenance says of it."""
        ...

    def parts(self, after: Any) -> tuple[Sequence[Skill], Program | None]:
        """(skills, program) that the next version gets."""
        ...

    def enter(self, now: Round, after: Any, where: str) -> None:
        """Make it the round's; ``where`` is the answer that it stood in."""
        ...


def _pretty(text: str) -> str:
    return json.dumps(json.loads(text), indent=2) + "\n"


def _digest(skill: Skill | None) -> str:
    return hashlib.sha256(skill.to_json().encode()).hexdigest() if skill else ""


@dataclass(frozen=True)
class SkillSubject:
    """A skill of a version or of a library; ``name`` is empty for one that is to be new, and where ``is_open`` lets the
    text say which one it replaces.
    """

    environment: Environment
    skills: tuple[Skill, ...]
    name: str = ""
    ref: ArtifactRef | None = None
    programs: Sequence[str] = ()
    is_open: bool = False
    trials: Callable[..., TrialRun] = field(default=SkillTrials, repr=False)
    kind = "skills"
    template = "ask_skill"

    @property
    def label(self) -> str:
        return f"skill {self.name}" if self.name else "new skill"

    @property
    def before(self) -> Skill | None:
        """The skill as it is stored; None where none of that name is."""
        return next((skill for skill in self.skills if skill.name == self.name), None)

    @property
    def told(self) -> str:
        return _pretty(self.before.to_json()) if self.before else ""

    def read(self, text: str | bytes | dict[str, Any]) -> Skill:
        """The checked skill; SkillError where it does not hold, or goes by another name than the one it replaces."""
        skill = parse_skill(text, self.environment.vocab)
        if self.name and skill.name != self.name:
            raise SkillError(
                f"the skill is named {skill.name}, not {self.name}: {self._named_by()} find it by its name",
                hint=f"keep the name; one beside it: lore skills edit {skill.name}.json --dataset NAME",
            )
        known = {each.name for each in self.skills}
        taken = (
            set(self.environment.vocab.actions) - known if self.is_open else {*self.environment.vocab.actions, *known}
        )
        if not self.name and skill.name in taken:
            raise SkillError(f"the name {skill.name} is taken", hint="give the new skill a name of its own")
        return skill

    def meant(self, after: Skill) -> SkillSubject:
        known = any(skill.name == after.name for skill in self.skills)
        return replace(self, name=after.name, is_open=False) if self.is_open and known else self

    def _named_by(self) -> str:
        rules = [
            str(number)
            for text in self.programs[-1:]
            for number, rule in enumerate(json.loads(text)["rules"])
            if rule["goal"] == self.name
        ]
        who = f"rules {', '.join(rules)} of its program, " if rules else ""
        return f"{who}rows, runs and other versions"

    def answered(self, advice: Advice) -> Skill:
        """The skill of an answer, under the name of the one that it replaces."""
        if not advice.skills:
            raise AnswerError("it gave no skill")
        body = dict(advice.skills[0])
        return self.read(body | ({"name": self.name} if self.name else {}))

    def prompt(self, renderer: Renderer, wish: str) -> Prompt:
        body = json.loads(self.before.to_json()) if self.before else {}
        body.pop("about", None)
        skill = [f"The skill: {json.dumps(body)}"] if body else ["No skill is given: write a new one."]
        return renderer.asked_skill(self.name, "\n".join([json.dumps(wish, ensure_ascii=False), *skill]))

    def attempt(self, after: Skill, worlds: int, seed: int) -> Tried:
        """Run both from the same places of ``worlds`` worlds that the rule book plays."""
        trial = self.trials(self.environment, seed, worlds=worlds, starts=worlds, steps=300)
        found = {"after": _ran(trial, after)}
        if self.before is not None:
            found["before"] = _ran(trial, self.before)
        lines = [
            f"{when:<7} {t.successes} of {t.starts} runs reached their end, {t.steps / max(1, t.starts):.1f} steps each"
            for when, t in sorted(found.items(), reverse=True)
        ]
        what = {"skill_never_started": f"it could start nowhere in {worlds} worlds",
                "skill_does_nothing": "no run of it changed anything"}  # fmt: skip
        told = {when: {**asdict(t), "success_rate": round(t.success_rate, 4)} for when, t in found.items()}
        return Tried({"worlds": worlds, "seed": seed, **told}, lines, what.get(found["after"].fault, ""))

    def differences(self, after: Skill) -> list[str]:
        """Unified diff of the indented JSON; empty when nothing changed."""
        old, new = self.told.splitlines(), _pretty(after.to_json()).splitlines()
        return list(difflib.unified_diff(old, new, "before", "after", n=2, lineterm=""))

    def record(self, after: Skill) -> dict[str, Any]:
        return {"skill": after.name, "before": _digest(self.before), "after": _digest(after), "bound": bound(after)}

    def parts(self, after: Skill) -> tuple[Sequence[Skill], Program | None]:
        return (after,), None

    def enter(self, now: Round, after: Skill, where: str) -> None:
        """Make the skill one of the round's."""
        now.new_skills.append((after, where))
        others = tuple(after if skill.name == after.name else skill for skill in now.skills)
        now.skills = others if after in others else (*others, after)


def _ran(trial: TrialRun, skill: Skill) -> Any:
    """The trial of a skill; SkillError names what was raised in it."""
    try:
        return trial(skill)
    except LoreError:
        raise
    except Exception as error:
        raise SkillError(
            f"skill {skill.name} raised {type(error).__name__} in its try: {shown(error, 120)}",
            hint="simplify the step that was changed last, and report this: no skill may raise",
        ) from error


@dataclass(frozen=True)
class ProgramSubject:
    """The program that speaks in a version."""

    environment: Environment
    skills: tuple[Skill, ...]
    before: Program
    ref: ArtifactRef
    trials: Callable[..., ProgramTrials] = field(default=ProgramTrials, repr=False)
    kind = "program"
    template = "ask_program"

    @property
    def label(self) -> str:
        return f"program of {self.ref.name}"

    @property
    def told(self) -> str:
        rules = ",\n  ".join(json.dumps(rule.to_dict()) for rule in self.before.rules)
        return f'{{"rules": [\n  {rules}\n]}}\n'

    def read(self, text: str | bytes | dict[str, Any]) -> Program:
        """The checked program; ProgramError names the rule that does not hold."""
        return parse_program(text, self.environment.vocab, [skill.name for skill in self.skills])

    def meant(self, after: Program) -> ProgramSubject:
        return self

    def answered(self, advice: Advice) -> Program:
        return self.read(advice.program or {})

    def prompt(self, renderer: Renderer, wish: str) -> Prompt:
        from pipeline.rounds.program import rules_told

        told = f"{json.dumps(wish, ensure_ascii=False)}\n\n{rules_told(self.before)}"
        return renderer.asked_program(self.before.digest, told, min(MAX_RULES, len(self.before) + 16))

    def attempt(self, after: Program, worlds: int, seed: int) -> Tried:
        """One life of each in the same ``worlds`` worlds."""
        trials = self.trials(self.environment, seed, compared=worlds)
        try:
            found = trials.compare(self.before, after, self.skills)
        except LoreError:
            raise
        except Exception as error:
            raise ProgramError(f"a life raised {type(error).__name__}: {shown(error, 120)}") from error
        gain, low, high = found["return"]
        lines = [f"before  return {found['return_before'][0]:.2f}", f"after   return {found['return_after'][0]:.2f}, "
                 f"difference {gain:+.2f} ({low:+.2f} to {high:+.2f})"]  # fmt: skip
        lines += [f"doubt   {line}" for line in lint_program(after, self.skills, self.environment.vocab)]
        doubt = f"it plays worse: {gain:+.2f} ({low:+.2f} to {high:+.2f})" if high < 0 else ""
        return Tried({"seed": seed, **found}, lines, doubt, trials.steps)

    def differences(self, after: Program) -> list[str]:
        return diff_programs(self.before, after)

    def record(self, after: Program) -> dict[str, Any]:
        return {"before": self.before.digest, "after": after.digest, "rules": len(after)}

    def parts(self, after: Program) -> tuple[Sequence[Skill], Program | None]:
        return (), after

    def enter(self, now: Round, after: Program, where: str) -> None:
        """Make the program the round's."""
        now.programs.append((after, where))
        now.findings += lint_program(after, now.skills, now.environment.vocab)


def skill_of(holder: AdviceData | Environment, name: str) -> SkillSubject:
    """The skill of that name in a version or a library, a new one where ``name`` is empty; NotFound names near ones.

    A name that ends in ``.json`` is a file whose text says which skill it is.
    """
    where = holder if isinstance(holder, Environment) else holder.environment
    ref, programs = (None, ()) if isinstance(holder, Environment) else (holder.ref, holder.programs)
    if name.endswith(".json"):
        return SkillSubject(where, holder.skills, "", ref, programs, is_open=True)
    made = SkillSubject(where, holder.skills, name, ref, programs)
    if name and made.before is None:
        near = difflib.get_close_matches(name[:40], [skill.name for skill in holder.skills], n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "lore skills list names them"
        raise NotFound(f"{ref or where.name} has no skill {shown(name, 40)!r}", hint=hint)
    return made


def program_of(data: AdviceData) -> ProgramSubject:
    """The program that speaks in a version; NotFound where it holds none."""
    if not data.programs:
        raise NotFound(
            f"{data.ref} holds no program",
            hint=f"lore advise --kinds program --dataset {data.ref.name} --environment {data.environment.name}"
            " asks for one",
        )
    names = [skill.name for skill in data.skills]
    program = parse_program(data.programs[-1], data.environment.vocab, names)
    return ProgramSubject(data.environment, data.skills, program, data.ref)
