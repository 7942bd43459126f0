"""Questions from templates: shared prefix first, state last, options lettered in a seeded order.

A template is a Markdown file ``<name>.md`` in the environment's own package of templates, or else among the shared
ones: a head of strict ``field: value`` lines between two
``---``, then the parts ``# system`` and ``# user``. ``{{word}}`` is filled in from the closed list of its kind; nothing
that a model once wrote is ever filled in, except checked skills and programs: names, and in a request for a better one
steps, conditions and rules. What a person asks for stands in the person's own words. ``{{include name}}`` is the system
part of that template.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any

from lore_datasets.environments import Environment
from lore_datasets.errors import BadInput, NotFound, shown
from lore_datasets.language.programs import program_json_schema, short_program_schema
from lore_datasets.language.skills import Skill
from lore_datasets.types import SymbolicState
from lore_datasets.vocab import NAME_PATTERN
from pipeline.llm.base import KINDS, Prompt
from pipeline.questions.describe import describe
from pipeline.questions.schemas import plan_schema, prior_schema, skills_schema

__all__ = ["LETTERS", "Renderer", "Template", "load_template", "parse_template", "render"]

LETTERS = string.ascii_uppercase + string.ascii_lowercase
"""Option letters in order; a question has at most this many options."""


_HEAD = ("name", "version", "kind", "environment", "answer", "max_tokens")
_SHARED = "pipeline.questions.templates"
_TOLD = {"game", "about"}
"""Slots that any shared part may have: the environment's name, and the rules of the game in its own words."""
_WORDS = {
    "prior": ({"goals"}, {"state", "options"}),
    "plan": ({"goals", "actions"}, {"state", "choices"}),
    "skills": ({"goals", "actions", "items", "vitals", "targets"}, {"state", "count"}),
    "program": ({"starts", "goals", "actions", "items", "vitals", "targets", "achievements"}, {"count"}),
}
_MAY = {"program": {"state"}}
"""Slots that the last part of a kind's template may do without: of a program to be revised, its rules and its play."""
_SPARED = {"program": {"goals"}}
"""Slots that the shared part of a kind's template in JSON may do without."""
_INCLUDE = re.compile(r"\{\{include ([a-z_]+)\}\}")
_SLOT = re.compile(r"\{\{([^{}]*)\}\}")


@dataclass(frozen=True)
class Template:
    """One prompt file: its head, its two parts and the SHA-256 of its text (line ends normalised)."""

    name: str
    version: int
    kind: str
    environment: str
    answer: str
    max_tokens: int
    system: str
    user: str
    sha256: str


def parse_template(text: str, where: str = "template") -> Template:
    """Read one template strictly; BadInput names the field or slot that is wrong."""
    text = text.replace("\r\n", "\n")
    match = re.fullmatch(r"---\n(.*?)\n---\n# system\n(.*?)\n# user\n(.*)", text, re.DOTALL)
    if not match:
        raise BadInput(f"{where}: expected a head between two '---', then '# system' and '# user'")
    head: dict[str, str] = {}
    for line in match[1].split("\n"):
        key, colon, value = line.partition(": ")
        if not colon or key not in _HEAD or key in head:
            raise BadInput(f"{where}: bad head line {shown(line)!r}", hint=f"one line each of: {', '.join(_HEAD)}")
        head[key] = value.strip()
    missing = [k for k in _HEAD if k not in head]
    if missing:
        raise BadInput(f"{where}: head lacks {', '.join(missing)}")
    if head["kind"] not in KINDS or head["answer"] not in ("json", "letter", "short"):
        raise BadInput(f"{where}: kind {shown(head['kind'])!r} or answer {shown(head['answer'])!r} is unknown")
    numbers = {k: int(head[k]) for k in ("version", "max_tokens") if head[k].isdecimal() and int(head[k]) > 0}
    if len(numbers) != 2:
        raise BadInput(f"{where}: version and max_tokens must be positive integers")
    shared, own = _WORDS[head["kind"]]
    for part, allowed, needed in (
        (match[2], shared | _TOLD, shared - _SPARED.get(head["kind"], set()) if head["answer"] == "json" else set()),
        (match[3], own | _MAY.get(head["kind"], set()), own),
    ):
        found = set(_SLOT.findall(part))
        if not needed <= found <= allowed:
            raise BadInput(f"{where}: slots {sorted(found)} where {sorted(allowed)} belong")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Template(
        name=head["name"],
        version=numbers["version"],
        kind=head["kind"],
        environment=head["environment"],
        answer=head["answer"],
        max_tokens=numbers["max_tokens"],
        system=match[2].strip(),
        user=match[3].strip(),
        sha256=sha256,
    )


def load_template(environment: Environment, name: str) -> Template:
    """The template ``<name>.md`` of an environment, else the shared one; NotFound when there is none."""
    return _loaded(environment.templates or _SHARED, name)


@lru_cache(maxsize=64)
def _loaded(package: str, name: str) -> Template:
    for home in dict.fromkeys((package, _SHARED)):
        try:
            file = resources.files(home).joinpath(f"{name}.md")
        except ModuleNotFoundError:
            raise NotFound(f"no package of templates {shown(home)}", hint="mend the environment's templates") from None
        if NAME_PATTERN.fullmatch(name) and file.is_file():
            text = _INCLUDE.sub(lambda m: _loaded(package, m[1]).system, file.read_text(encoding="utf-8"))
            return parse_template(text, f"{home}/{name}.md")
    raise NotFound(f"no prompt template {shown(name)} in {shown(package)}")


def _fill(text: str, words: dict[str, str]) -> str:
    return _SLOT.sub(lambda m: words[m[1]], text)


def _when(skill: Skill) -> str:
    """When a skill can start and when it ends."""
    ends = "ends only by its steps" if skill.done == {"op": "false"} else f"done when {json.dumps(skill.done)}"
    return f"starts when {json.dumps(skill.start)}; {ends}; at most {skill.max_steps} steps"


class Renderer:
    """Makes all questions of one environment and skill list; the shared prefixes are rendered once."""

    def __init__(self, environment: Environment, skills: Sequence[Skill] | None = None, *, seed: int = 0) -> None:
        self.environment = environment
        self.skills = tuple(environment.skills if skills is None else skills)
        self.seed = seed
        vocab = environment.vocab
        shipped = {s.name: s.about for s in environment.skills}
        goals = "\n".join(f"- {s.name}" + (f": {about}" if (about := shipped.get(s.name)) else "") for s in self.skills)
        lists = ("actions", "items", "vitals", "targets", "achievements")
        self._words = {name: ", ".join(getattr(vocab, name)) or "none" for name in lists} | {
            "game": environment.name,
            "about": environment.about or "Nothing else is known about it.",
            "goals": goals,
            "starts": "\n".join(
                f"- {s.name}" + (f": {about}" if (about := shipped.get(s.name)) else "") + f"; {_when(s)}"
                for s in self.skills
            ),
        }
        self._names = [s.name for s in self.skills] + list(vocab.actions)
        self._unlocks = {name: i for i, name in enumerate(vocab.achievements)}
        self._unlocks |= {goal: self._unlocks[name] for goal, name in environment.unlocks}
        self._systems: dict[str, str] = {}
        self._plan_schema: dict[str, Any] | None = None
        self._program_schema: dict[str, Any] | None = None

    def system(self, template: Template) -> str:
        """The shared prefix of one template."""
        if template.name not in self._systems:
            self._systems[template.name] = _fill(template.system, self._words)
        return self._systems[template.name]

    def order(self, options: Sequence[str], state: bytes, order: int) -> tuple[str, ...]:
        """``options`` shuffled by seed, state and ``order`` alone, so that a re-run letters them the same."""
        digest = hashlib.sha256(b"%d/%d/" % (self.seed, order) + state).digest()
        mixed = list(options)
        random.Random(digest).shuffle(mixed)
        return tuple(mixed)

    def prior(
        self,
        state: SymbolicState,
        options: Sequence[str],
        *,
        order: int = 0,
        answer: str = "json",
        text: str | None = None,
        packed: bytes = b"",
    ) -> Prompt:
        """Which option now: multiple choice over ``options``; ``answer`` is ``json`` or ``letter``.

        In the short form for a letter a ``*`` marks what unlocks an achievement that the state lacks. ``text`` and
        ``packed`` save making them where the caller has them: the description, the state's bytes.
        """
        if not 1 <= len(options) <= len(LETTERS):
            raise BadInput(f"a question needs 1..{len(LETTERS)} options, got {len(options)}")
        template = load_template(self.environment, "prior" if answer == "json" else "prior_letter")
        packed = packed or state.pack().tobytes()
        mixed = self.order(options, packed, order)
        new = self._new(state, mixed) if answer == "letter" else ()
        marked = [f"{name}*" if name in new else name for name in mixed]
        listed = "\n".join([f"{letter}. {name}" for letter, name in zip(LETTERS, marked, strict=False)])
        words = {"state": describe(state, self.environment) if text is None else text, "options": listed}
        schema = prior_schema(mixed) if answer == "json" else None
        return self._prompt(template, words, schema, mixed, packed)

    def _new(self, state: SymbolicState, options: Sequence[str]) -> set[str]:
        """Those of ``options`` that unlock an achievement which the state lacks."""
        at = {name: self._unlocks[name] for name in options if name in self._unlocks}
        return {name for name, i in at.items() if not int(state.unlocked[i])}

    def plan(
        self, state: SymbolicState, choices: Sequence[str], *, text: str | None = None, packed: bytes = b""
    ) -> Prompt:
        """Up to three plans from this state; ``choices`` can start now. ``text``, ``packed``: see :meth:`prior`."""
        template = load_template(self.environment, "plan")
        shown_state = describe(state, self.environment) if text is None else text
        words = {"state": shown_state, "choices": ", ".join(choices) or "none"}
        if self._plan_schema is None:
            self._plan_schema = plan_schema(self._names)
        return self._prompt(template, words, self._plan_schema, tuple(choices), packed or state.pack().tobytes())

    def new_skills(self, summary: str, count: int) -> Prompt:
        """New skills for a player whose states ``summary`` sums up."""
        return self._skills("skills", summary, count, ())

    def revision(self, name: str, told: str) -> Prompt:
        """One better skill in place of ``name``; ``told`` says how it failed."""
        return self._skills("revise", told, 1, (name,))

    def asked_skill(self, name: str, told: str) -> Prompt:
        """One skill as a person asks for it, in place of ``name`` where that is given; ``told`` holds the wish."""
        return self._skills("ask_skill", told, 1, (name,) if name else ())

    def asked_program(self, digest: str, told: str, count: int) -> Prompt:
        """The program of ``digest``, changed as a person asks; ``told`` holds the wish and its rules."""
        return self._program("ask_program", {"state": told, "count": str(count)}, (digest[:12],), 0)

    def program(self, draft: int = 0, count: int = 80, *, short: bool = False) -> Prompt:
        """A priority program over all goals, of at most ``count`` rules; ``draft`` numbers answers to one question.

        ``short``, for a small model: fewer words, and a schema whose conditions are at most three deep.
        """
        if not short:
            return self._program("program", {"count": str(count)}, (), draft)
        made = self._program("program_short", {"count": str(count)}, (), draft)
        names = [skill.name for skill in self.skills]
        return replace(made, schema=short_program_schema(self.environment.vocab, names, count))

    def revised_program(self, digest: str, told: str, draft: int = 0, count: int = 80) -> Prompt:
        """A better program in place of that of ``digest``; ``told`` holds its rules and what its play showed."""
        return self._program("revise_program", {"state": told, "count": str(count)}, (digest[:12],), draft)

    def _program(self, file: str, words: dict[str, str], options: tuple[str, ...], draft: int) -> Prompt:
        template = load_template(self.environment, file)
        if self._program_schema is None:
            names = [skill.name for skill in self.skills]
            self._program_schema = program_json_schema(self.environment.vocab, names)
        return replace(self._prompt(template, words, self._program_schema, options, b""), draft=draft)

    def _skills(self, file: str, text: str, count: int, options: tuple[str, ...]) -> Prompt:
        template = load_template(self.environment, file)
        schema = skills_schema(self.environment.vocab, count)
        return self._prompt(template, {"state": text, "count": str(count)}, schema, options, b"")

    def _prompt(
        self, template: Template, words: dict[str, str], schema: dict | None, options: tuple[str, ...], state: bytes
    ) -> Prompt:
        return Prompt(
            kind=template.kind,
            system=self.system(template),
            user=_fill(template.user, words),
            schema=schema,
            options=options,
            template_hash=template.sha256,
            state=state,
            max_tokens=template.max_tokens,
        )


def render(
    kind: str, environment: Environment, state: SymbolicState, *, options: Sequence[str] | None = None, seed: int = 0
) -> Prompt:
    """One question about one state; ``options`` default to the goals and actions that the recipes allow."""
    from lore_datasets.language.geometry import StateView
    from pipeline.questions.feasible import feasible_actions, feasible_goals

    renderer = Renderer(environment, seed=seed)
    if kind == "program":
        return renderer.program()
    if kind == "skills":
        return renderer.new_skills(describe(state, environment), 4)
    if kind not in KINDS:
        raise BadInput(f"unknown kind of question {shown(kind)!r}", hint=f"one of: {', '.join(KINDS)}")
    view = StateView(state, environment.vocab)
    goals = feasible_goals(environment.skills, view) if options is None else list(options)
    if kind == "prior":
        return renderer.prior(state, goals)
    return renderer.plan(state, goals if options is not None else [*goals, *feasible_actions(view)])
