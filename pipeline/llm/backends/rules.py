"""The rule book for Crafter: a deterministic priority list over what is in view. It is no language model and is never
called one.

:func:`rank_goals` sees one :class:`StateView` only: no map memory, no hidden state. :class:`RulesAdviser` puts it
behind the adviser's Protocol and answers with the JSON text that a model would give, so that the whole offline phase
runs without a model or network.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lore_datasets.environments import Environment, get_environment
from lore_datasets.errors import BadInput
from lore_datasets.language.geometry import StateView, shared_view
from pipeline.llm.base import Capabilities, Completing, Prompt, Response

__all__ = ["RulesAdviser", "rank_goals"]

_dump = json.JSONEncoder().encode
_GROUND = ("grass", "sand", "path")
_MAKES = {
    "make_wood_pickaxe": ("wood_pickaxe", {"wood": 1}, ("table",), 84.0),
    "make_stone_pickaxe": ("stone_pickaxe", {"wood": 1, "stone": 1}, ("table",), 83.0),
    "make_iron_pickaxe": ("iron_pickaxe", {"wood": 1, "coal": 1, "iron": 1}, ("table", "furnace"), 82.0),
    "make_wood_sword": ("wood_sword", {"wood": 1}, ("table",), 81.0),
    "make_stone_sword": ("stone_sword", {"wood": 1, "stone": 1}, ("table",), 80.0),
    "make_iron_sword": ("iron_sword", {"wood": 1, "coal": 1, "iron": 1}, ("table", "furnace"), 79.0),
}

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


class _Book:
    """One state's advice while it is written: goal -> weight, the highest wins."""

    def __init__(self, view: StateView) -> None:
        self.view = view
        self.weights: dict[str, float] = {}
        self.has = dict(zip(view.vocab.items, view.counts, strict=True))
        self.health, self.food = view.vital("health"), view.vital("food")
        self.drink, self.energy = view.vital("drink"), view.vital("energy")
        self.new = {name for name, had in zip(view.vocab.achievements, view.flags, strict=True) if not had}

    def say(self, goal: str, weight: float, when: bool = True) -> None:
        if when and weight > self.weights.get(goal, 0.0):
            self.weights[goal] = weight

    def todo(self, kind: str) -> list[str]:
        """Tools of one material (wood, stone, iron) that are still to be made."""
        return [t for t in (f"{kind}_pickaxe", f"{kind}_sword") if not self.has[t]]


def _fight(book: _Book) -> None:
    view, health = book.view, book.health
    armed = book.has["wood_sword"] + book.has["stone_sword"] + book.has["iron_sword"]
    if view.reachable("zombie"):
        close = view.near("zombie", 2)
        book.say("defeat_zombie", 95, close and (health >= 4 or (armed > 0 and health >= 3)))
        book.say("defeat_zombie", 66, "defeat_zombie" in book.new and health >= 5)
        book.say("defeat_zombie", 40, view.near("zombie", 4) and health >= 5)
    book.say("flee", 94, view.near("zombie", 3) and health <= 3)
    if view.reachable("skeleton"):
        book.say("defeat_skeleton", 72, "defeat_skeleton" in book.new and health >= 5)
        book.say("defeat_skeleton", 86, view.near("skeleton", 1) and health >= 4)
    book.say("flee", 87, view.near(("skeleton", "arrow"), 4) and health <= 4)


_ROOM = ((1, 0), (1, -1), (0, -1))
_WALLS = ((-1, 0), (0, 1), (1, 1), (2, 0), (2, -1), (1, -2), (0, -2), (-1, -1))
"""The shelter: the room beside the player, and the cells around room and player that must be closed."""
_OPEN = (*_GROUND, "zombie", "cow", "skeleton", "arrow")
_WALKED_TO = (*_GROUND, "water")


def _rest(book: _Book) -> None:
    """Sleep walled in: through the night, or by day when tired; in the open only when there is no other way."""
    view = book.view
    dark, tired = view.daylight < 120, book.energy <= 4
    if view.is_enclosed() and not view.reachable(("zombie", "skeleton", "arrow", "cow")):
        book.say("sleep", 93 if dark else 68, book.energy < 9 and (dark or tired))
        book.say("wait_for_day", 91, dark)
        return
    if (dark or tired) and all(view.at(*cell) in _GROUND for cell in _ROOM):
        open_walls = sum(view.at(*cell) in _OPEN for cell in _WALLS)
        book.say("shelter", 89 if dark else 68, book.has["stone"] >= open_walls and not view.near("zombie", 2))
    if book.energy < 9 and not view.near(("zombie", "skeleton", "arrow"), 9):
        bright = view.daylight >= 140
        book.say("sleep", 67, "wake_up" in book.new and bright)
        book.say("sleep", 88, book.energy <= 1)
        book.say("sleep", 66, book.energy <= 2 and bright)


def _live(book: _Book) -> None:
    view = book.view
    evening = view.daylight < 200 and "wake_up" not in book.new
    if view.reachable("water"):
        book.say("collect_drink", 92 if book.drink <= 2 else 70 if book.drink <= 4 else 36, book.drink <= 6)
        book.say("collect_drink", 65, evening and book.drink <= 6)
        book.say("collect_drink", 60, "collect_drink" in book.new)
    if view.reachable("cow"):
        book.say("eat_cow", 90 if book.food <= 2 else 69 if book.food <= 4 else 35, book.food <= 5)
        book.say("eat_cow", 64, evening and book.food <= 5)
        book.say("eat_cow", 58, "eat_cow" in book.new)
    if view.reachable("plant"):
        book.say("eat_plant", 89, book.food <= 1)


def _build(book: _Book) -> None:
    view, has = book.view, book.has
    table, furnace = view.reachable("table"), view.reachable("furnace")
    for goal, (tool, uses, near, weight) in _MAKES.items():
        ready = not has[tool] and all(has[item] >= n for item, n in uses.items())
        book.say(goal, weight, ready and all(view.reachable(place) for place in near))
        if ready and len(near) > 1 and view.reachable("table") and not view.can_stand_near(near):
            book.say("place_furnace", 85, has["stone"] >= 4)
            book.say("collect_stone", 85, has["stone"] < 4 and view.reachable("stone"))
    if view.reachable("grass") and has["sapling"]:
        book.say("place_plant", 78, "place_plant" in book.new)
    if not view.reachable(_WALKED_TO):
        return
    book.say("place_stone", 77, has["stone"] >= 1 and "place_stone" in book.new)
    iron_ready = has["iron"] >= 1 and has["coal"] >= 1 and bool(book.todo("iron"))
    if not table and view.reachable(_GROUND):
        wood = has["wood"]
        first = bool(book.todo("wood")) and wood >= 4
        stone_tools = len(book.todo("stone"))
        enough = wood >= 2 + stone_tools or (wood >= 3 and not view.reachable("tree"))
        second = has["wood_pickaxe"] and stone_tools and has["stone"] >= stone_tools and enough
        book.say("place_table", 76, first or second or (iron_ready and wood >= 3))
    if view.reachable(_GROUND) and has["stone"] >= 4 and not furnace:
        book.say("place_furnace", 75, "place_furnace" in book.new and (not book.todo("stone") or has["stone"] >= 6))
        book.say("place_furnace", 78, iron_ready and table and has["wood"] >= 1)


def _gather(book: _Book) -> None:
    view, has = book.view, book.has
    todo = [len(book.todo(kind)) for kind in ("wood", "stone", "iron")]
    need_wood = sum(n + 2 for n in todo if n)  # the tools, and a table on each of their sites
    if view.reachable("tree"):
        early = bool(book.todo("wood"))
        book.say("collect_wood", 52 if early else 48, has["wood"] < min(need_wood, 9))
        book.say("collect_wood", 57.5, not early and has["wood"] < 2 + todo[1] and todo[1] > 0)
        book.say("collect_wood", 62, "collect_wood" in book.new)
    if view.reachable("grass"):
        book.say("collect_sapling", 61, "collect_sapling" in book.new and has["sapling"] == 0)
    if has["wood_pickaxe"]:
        if view.reachable("stone"):
            short = has["stone"] < (9 if view.daylight < 190 else len(book.todo("stone")) + 5)
            book.say("collect_stone", 56, short)
            book.say("collect_stone", 63, "collect_stone" in book.new)
        if view.reachable("coal"):
            book.say("collect_coal", 64 if "collect_coal" in book.new else 57, has["coal"] < len(book.todo("iron")))
            book.say("collect_coal", 64, "collect_coal" in book.new)
    if has["stone_pickaxe"] and view.reachable("iron"):
        book.say("collect_iron", 71, has["iron"] < len(book.todo("iron")) or "collect_iron" in book.new)
    if has["iron_pickaxe"] and view.reachable("diamond"):
        book.say("collect_diamond", 73, has["diamond"] < 1)


def rank_goals(view: StateView) -> list[tuple[str, float]]:
    """Goals worth pursuing in this state with positive weights (0..100), best first; ``explore`` is always among
    them.
    """
    if view.sleeping:
        return [("sleep", 100.0), ("explore", 5.0)]
    book = _Book(view)
    book.say("explore", 10)
    _fight(book)
    _live(book)
    _rest(book)
    _build(book)
    _gather(book)
    return sorted(book.weights.items(), key=lambda entry: (-entry[1], entry[0]))


_ranking = lru_cache(maxsize=8)(rank_goals)
"""The questions about one state follow each other and bring the same view."""


def _plan(goal: str, view: StateView) -> list[str]:
    """One goal as primitive action names over the crop as it stands; empty where it has no such form."""
    names = view.vocab.actions
    if goal == "sleep":
        return ["sleep"] * 12
    if goal == "explore":
        return [names[a] for a in view.path_along(view.facing_direction)]
    if goal in _MAKES:
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


@cache
def _book_digest() -> str:
    """Names this edition of the rule book, so that a journal never serves the answers of another."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


class RulesAdviser(Completing):
    """The rule book behind the adviser's Protocol; reads the packed state beside each prompt, never its text.

    Answers are the JSON (or, for a one-token question, the letter) that a model would write. They are not timed and
    cost nothing, so that the same questions give the same bytes.
    """

    name = "rules"

    def __init__(self, environment: Environment | str = "crafter") -> None:
        self.capabilities = Capabilities(
            parameters={"book": _book_digest()}, reads_state=True, answers_once=True, chunk=256
        )
        self.environment = get_environment(environment) if isinstance(environment, str) else environment
        if self.environment.name != "crafter":
            raise BadInput(f"the rule book knows crafter only, not {self.environment.name}")

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """One Response per prompt, in order; a prompt without a readable state gets a Response with ``error``."""
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: Prompt) -> Response:
        try:
            if prompt.kind == "skills":
                return Response(_dump(self._skills(prompt)), self.name)
            view = shared_view(bytes(prompt.state), self.environment.vocab)
            if prompt.kind == "plan":
                return Response(_dump(self._plans(prompt, view)), self.name)
            if prompt.kind == "prior":
                return Response(self._prior(prompt, view), self.name)
        except BadInput as error:
            return Response("", self.name, finish="error", error=str(error))
        return Response("", self.name, finish="error", error=f"the rule book has no answer to {prompt.kind!r}")

    @staticmethod
    def _ranked(prompt: Prompt, view: StateView) -> tuple[list[tuple[str, float]], float]:
        """The advised options with their weights, and a confidence in 0.5..1 that grows with the lead of the first."""
        allowed = set(prompt.options)
        ranked = [(goal, weight) for goal, weight in _ranking(view) if not allowed or goal in allowed]
        if not ranked:
            return [(prompt.options[0], 0.0)], 0.0
        lead = ranked[0][1] - (ranked[1][1] if len(ranked) > 1 else 0.0)
        return ranked, round(1.0 - 0.5 * math.exp(-lead / 10), 3)

    def _prior(self, prompt: Prompt, view: StateView) -> str:
        ranked, confidence = self._ranked(prompt, view)
        if prompt.schema is None and prompt.max_tokens <= 8:
            from pipeline.questions.prompts import LETTERS

            return LETTERS[prompt.options.index(ranked[0][0])]
        reason = "rule book: " + ", ".join(f"{goal} {weight:g}" for goal, weight in ranked[:3])
        return _dump({"ranked": [goal for goal, _ in ranked[:6]], "confidence": confidence, "reason": reason})

    def _plans(self, prompt: Prompt, view: StateView) -> dict[str, Any]:
        ranked, confidence = self._ranked(prompt, view)
        names = view.vocab.actions
        allowed = set(prompt.options) or {name for name, ok in zip(names, view.feasible_actions(), strict=True) if ok}
        plans = []
        for goal, _ in ranked[:3]:
            steps = _runs(_plan(goal, view))
            if not steps or steps[0]["do"] not in allowed:
                steps = [{"do": goal, "times": 1}]
            plans.append({"steps": steps, "score": round(confidence * 0.6 ** len(plans), 3)})
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
