"""The rule book behind the adviser's Protocol: an environment's own priority program, written by people. It is no
language model and is never called one.

The priorities are data (:attr:`lore_datasets.environments.Environment.rules`), evaluated as every program is. The
adviser answers with the JSON text that a model would give, so that the whole offline phase runs without a model or
network; asked for a program, it answers with that program.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lore_datasets.environments import DEFAULT, Environment, get_environment
from lore_datasets.errors import BadInput
from lore_datasets.language.evaluator import Evaluator, Spoken
from lore_datasets.language.geometry import StateView, shared_view
from pipeline.llm.base import Capabilities, Completing, Prompt, Response

__all__ = ["CONFIDENCE", "RulesAdviser", "rule_book"]

CONFIDENCE = 0.9
"""How sure the rule book is of its first choice."""
_dump = json.JSONEncoder().encode


def _evaluator(environment: Environment) -> Evaluator:
    if environment.rules is None:
        raise BadInput(
            f"{environment.name} has no rule book", hint="write a priority program for it, or take another adviser"
        )
    return Evaluator(environment.rules, environment.skills, environment.vocab)


def rule_book(environment: Environment | str) -> Callable[[StateView], list[tuple[str, float]]]:
    """``choose(view)`` of an environment's rule book: goals that can be pursued with falling weights, best first;
    BadInput where there is none.
    """
    return _evaluator(get_environment(environment) if isinstance(environment, str) else environment).ranking


def _runs(names: Sequence[str], limit: int = 12) -> list[dict[str, Any]]:
    """Action names as at most ``limit`` plan steps with repeat counts."""
    steps: list[dict[str, Any]] = []
    for name in names:
        if steps and steps[-1]["do"] == name and steps[-1]["times"] < 20:
            steps[-1]["times"] += 1
        elif len(steps) == limit:
            break
        else:
            steps.append({"do": name, "times": 1})
    return steps


class RulesAdviser(Completing):
    """Reads the packed state beside each prompt, never its text.

    Answers are the JSON (or, for a one-token question, the letter) that a model would write. They are not timed and
    cost nothing, so that the same questions give the same bytes.
    """

    name = "rules"

    def __init__(self, environment: Environment | str = DEFAULT) -> None:
        self.environment = get_environment(environment) if isinstance(environment, str) else environment
        self.evaluator = _evaluator(self.environment)
        self.capabilities = Capabilities(
            parameters={"program": self.evaluator.program.digest[:12]}, reads_state=True, answers_once=True, chunk=256
        )

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """One Response per prompt, in order; a prompt without a readable state gets a Response with ``error``."""
        ranked = self._rankings({bytes(prompt.state) for prompt in prompts if prompt.kind in ("plan", "prior")})
        return [self._answer(prompt, ranked) for prompt in prompts]

    def _rankings(self, states: set[bytes]) -> dict[bytes, list[Spoken]]:
        """What the program says of each readable state."""
        readable = [state for state in states if len(state) == self.environment.layout.size]
        packed = np.array([np.frombuffer(state, np.uint8) for state in readable])
        return dict(zip(readable, self.evaluator.explain_many(packed), strict=True)) if readable else {}

    def _answer(self, prompt: Prompt, ranked: Mapping[bytes, list[Spoken]]) -> Response:
        try:
            if prompt.kind == "skills":
                return Response(_dump(self._skills(prompt)), self.name)
            if prompt.kind == "program":
                return Response(self.evaluator.program.text, self.name)
            state = bytes(prompt.state)
            view = shared_view(state, self.environment.vocab)
            allowed = set(prompt.options)
            told = [each for each in ranked.get(state, ()) if not allowed or each.goal in allowed]
            if prompt.kind == "plan":
                return Response(_dump(self._plans(prompt, view, told)), self.name)
            if prompt.kind == "prior":
                return Response(self._prior(prompt, told), self.name)
        except BadInput as error:
            return Response("", self.name, finish="error", error=str(error))
        return Response("", self.name, finish="error", error=f"the rule book has no answer to {prompt.kind!r}")

    def _prior(self, prompt: Prompt, told: list[Spoken]) -> str:
        """The options with their rules, best first; the first option where no rule speaks of any."""
        ranked = told or [Spoken(prompt.options[0], -1)]
        if prompt.schema is None and prompt.max_tokens <= 8:
            from pipeline.questions.prompts import LETTERS

            return LETTERS[prompt.options.index(ranked[0][0])]
        rule = ranked[0][1]
        why = f"rule {rule}, {self.evaluator.program.rules[rule].why}" if rule >= 0 else "no rule speaks"
        confidence = CONFIDENCE if rule >= 0 else 0.0
        return _dump(
            {"ranked": [goal for goal, _ in ranked[:6]], "confidence": confidence, "reason": f"rule book: {why}"}
        )

    def _plans(self, prompt: Prompt, view: StateView, told: list[Spoken]) -> dict[str, Any]:
        names = view.vocab.actions
        allowed = set(prompt.options) or {name for name, ok in zip(names, view.feasible_actions(), strict=True) if ok}
        plans = []
        for goal, _ in (told or [Spoken(prompt.options[0], -1)])[:3]:
            steps = _runs(plan(goal, view)) if (plan := self.environment.plans) else []
            if not steps or steps[0]["do"] not in allowed:
                steps = [{"do": goal, "times": 1}]
            plans.append({"steps": steps, "score": round(CONFIDENCE * 0.6 ** len(plans), 3)})
        return {"plans": plans}

    def _skills(self, prompt: Prompt) -> dict[str, Any]:
        """Skills of the base library and of the rule book that the question does not list as known already; none in
        place of one that fails."""
        if prompt.options:
            return {"skills": []}
        known = {line[2:].partition(":")[0].strip() for line in prompt.system.splitlines() if line.startswith("- ")}
        limit = 8
        if prompt.schema is not None:
            limit = min(limit, prompt.schema.get("properties", {}).get("skills", {}).get("maxItems", limit))
        library = [json.loads(skill.to_json()) for skill in self.environment.skills]
        library += self.environment.more_skills
        return {"skills": [skill for skill in library if skill["name"] not in known][:limit]}
