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

from lore_datasets.environments import Environment, get_environment
from lore_datasets.errors import BadInput
from lore_datasets.language.evaluator import Evaluator, Spoken
from lore_datasets.language.geometry import StateView, shared_view
from pipeline.llm.base import Capabilities, Completing, Prompt, Response

__all__ = ["CONFIDENCE", "RulesAdviser", "rule_book"]

CONFIDENCE = 0.9
"""How sure the rule book is of its first choice."""
_dump = json.JSONEncoder().encode
_GROUND = ("grass", "sand", "path")
_TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "collect_wood": (("tree",), ("do",)),
    "collect_stone": (("stone",), ("do",)),
    "collect_coal": (("coal",), ("do",)),
    "collect_iron": (("iron",), ("do",)),
    "collect_diamond": (("diamond",), ("do",)),
    "collect_drink": (("water",), ("do",) * 4),
    "collect_sapling": (("grass",), ("do",) * 8),
    "eat_cow": (("cow",), ("do",) * 3),
    "eat_plant": (("plant",), ("do",)),
    "defeat_zombie": (("zombie",), ("do",) * 3),
    "defeat_skeleton": (("skeleton",), ("do",) * 2),
    "place_plant": (("grass",), ("place_plant",)),
    "place_stone": ((*_GROUND, "water"), ("place_stone",)),
    "place_table": (_GROUND, ("place_table",)),
    "place_furnace": (_GROUND, ("place_furnace",)),
}
"""Goal -> what to stand before, and what to do there."""

_COMPOSITES = (
    ("wood_tools_on_the_spot", {"wood": 4}, ("place_table", "make_wood_pickaxe", "make_wood_sword"), "wood_sword"),
    (
        "stone_tools_on_the_spot",
        {"wood": 4, "stone": 2},
        ("place_table", "make_stone_pickaxe", "make_stone_sword"),
        "stone_sword",
    ),
)
"""Skills of the rule book's own: name, needs, actions in order, tool that ends it."""


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


def _plan(goal: str, view: StateView) -> list[str]:
    """One goal as primitive action names over the crop as it stands; empty where it has no such form."""
    names = view.vocab.actions
    if goal == "sleep":
        return ["sleep"] * 12
    if goal == "explore":
        return [names[a] for a in view.path_along(view.facing_direction)]
    if goal.startswith("make_"):
        return [*(names[a] for a in ([] if view.can(goal) else view.path_to("table"))), goal]
    if goal not in _TARGETS:
        return []
    targets, last = _TARGETS[goal]
    steps = [*(names[a] for a in view.path_to(targets)), *last]
    if goal == "place_table":
        wood = view.inventory("wood") - 2
        todo = [t for t in ("make_wood_pickaxe", "make_wood_sword") if not view.inventory(t.removeprefix("make_"))]
        steps += todo[: max(0, wood)]
    return steps


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


def _composite(name: str, needs: dict[str, int], actions: Sequence[str], tool: str) -> dict[str, Any]:
    have = [{"op": "inventory", "item": item, "cmp": ">=", "value": n} for item, n in needs.items()]
    done = {"op": "inventory", "item": tool, "cmp": ">=", "value": 1}
    if "stone" in needs:
        have.append({"op": "inventory", "item": "wood_pickaxe", "cmp": ">=", "value": 1})
    return {
        "version": 1,
        "name": name,
        "about": "place a table here and make both tools at once",
        "start": {"op": "all", "of": [*have, {"op": "not", "of": done}, {"op": "reachable", "target": list(_GROUND)}]},
        "steps": [
            {"do": "move_toward", "target": list(_GROUND), "limit": 6},
            *({"do": "act", "action": action, "times": 1} for action in actions),
        ],
        "done": done,
        "max_steps": 12,
    }


class RulesAdviser(Completing):
    """Reads the packed state beside each prompt, never its text.

    Answers are the JSON (or, for a one-token question, the letter) that a model would write. They are not timed and
    cost nothing, so that the same questions give the same bytes.
    """

    name = "rules"

    def __init__(self, environment: Environment | str = "crafter") -> None:
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
            steps = _runs(_plan(goal, view))
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
        library += [_composite(*entry) for entry in _COMPOSITES]
        return {"skills": [skill for skill in library if skill["name"] not in known][:limit]}
