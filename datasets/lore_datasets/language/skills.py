"""The skill language: a skill is data, never code, and always ends.

::

    Skill := {version: 1, name, about?, start: Cond, steps: [Step] 1..16, done: Cond, abort?: Cond, max_steps: 1..500}
    Step  := {do: "act", action, times?: 1..50}    {do: "move_toward", target, limit: 1..50}
           | {do: "flee", target, limit: 1..50}    {do: "go_to", target, within: 1..9, limit: 1..50}
           | {do: "stand_near", target, limit: 1..50}    {do: "fence", target, action, limit: 1..50}
           | {do: "wait", limit: 1..50}
           | {do: "explore", limit: 1..50, through?: kinds, toward?: target}
           | {do: "dig_toward", target, limit: 1..50, through?: kinds}
           | {do: "wall_in", action, limit: 1..50, cells?: 1..4, beside?: target, through?: kinds}
           | {do: "repeat", times: 1..50, body: [Step] 1..8}
           | {do: "until", cond: Cond, limit: 1..50, body: [Step] 1..8}
           | {do: "if", cond: Cond, then: [Step] 1..8, otherwise?: [Step] 0..8}

``Cond``: see :mod:`lore_datasets.language.conditions`; ``target`` may be a list of names (any of them). A step that
walks ends by itself where it has nothing to do. ``move_toward`` faces the nearest reachable target, ``step_onto`` steps
onto it, ``go_to`` comes
close to one that may be out of reach, ``stand_near`` goes where all its targets are in the 3x3 block (as crafting needs
it), ``dig_toward`` reaches one through cells of the kinds ``through`` that the player can open (stone with a pickaxe,
water with a stone and a pickaxe). ``explore`` keeps a heading, where most cells ``toward`` are in view, straight
through such cells. ``fence`` closes all sides of the nearest target by the placing ``action``, ``wall_in`` those of a
room of at least ``cells`` cells around the player, one side of it a target ``beside``
(:mod:`lore_datasets.language.rooms`). ``wait`` does nothing, and no change is needed meanwhile.
Termination is by construction: :func:`bound` is finite for every skill that parses. Execution lives in
``lore.options``.

The parser is plain Python so that the learner reads skills on a machine without pydantic; one definition serves the
artifact, the learner and the JSON schema that is sent to language models (ADR-0002).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from lore_datasets.errors import SkillError, shown
from lore_datasets.language.conditions import Checker, condition_schema, target_names
from lore_datasets.vocab import NAME_PATTERN, Vocab

__all__ = [
    "MAX_BOUND",
    "MAX_BYTES",
    "OptionSpec",
    "Skill",
    "bound",
    "from_option_spec",
    "parse_skill",
    "skill_json_schema",
]

MAX_BYTES = 16_384
MAX_NODES = 64
MAX_DEPTH = 5
MAX_BOUND = 10_000

_WALKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "move_toward": (("target",), ()),
    "step_onto": (("target",), ()),
    "flee": (("target",), ()),
    "wait": ((), ()),
    "explore": ((), ("through", "toward")),
    "go_to": (("target", "within"), ()),
    "stand_near": (("target",), ()),
    "fence": (("target", "action"), ()),
    "dig_toward": (("target",), ("through",)),
    "wall_in": (("action",), ("cells", "beside", "through")),
}
"""Steps that walk until ``limit`` or until they have nothing to do: keys they need besides, keys they may have."""


@dataclass(frozen=True)
class Skill:
    """A checked skill: option (initiation ``start``, policy ``steps``, termination ``done`` / ``abort`` /
    ``max_steps``).

    ``start``, ``done``, ``abort`` and ``steps`` keep the JSON form (dicts with known keys and checked values).
    """

    name: str
    start: dict[str, Any]
    steps: tuple[dict[str, Any], ...]
    done: dict[str, Any]
    max_steps: int
    abort: dict[str, Any] | None = None
    about: str = ""

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces; ``parse_skill`` of it gives an equal skill."""
        body: dict[str, Any] = {
            "version": 1,
            "name": self.name,
            "start": self.start,
            "steps": list(self.steps),
            "done": self.done,
            "max_steps": self.max_steps,
        }
        if self.about:
            body["about"] = self.about
        if self.abort is not None:
            body["abort"] = self.abort
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    def __hash__(self) -> int:
        return hash(self.to_json())


@dataclass(frozen=True)
class OptionSpec:
    """The original's skill: a fixed list of primitive action ids. Accepted wherever a skill is."""

    option_id: str
    name: str
    description: str
    primitive_actions: list[int] | tuple[int, ...]
    expected_duration: int
    confidence: float


class _Checker(Checker):
    """Strict reader of one skill: conditions and steps count together."""

    def __init__(self, vocab: Vocab) -> None:
        super().__init__(vocab, "skill", MAX_NODES, MAX_DEPTH)

    def steps(self, value: Any, where: str, depth: int, low: int, high: int) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self.fail(where, f"expected a list of {low}..{high} steps")
        return [self.step(v, f"{where}[{i}]", depth) for i, v in enumerate(value)]

    def step(self, value: Any, where: str, depth: int) -> dict[str, Any]:
        self.node(where, depth)
        do = value.get("do") if isinstance(value, dict) else None
        if do == "act":
            self.fields(value, where, ("do", "action"), ("times",))
            times = self.integer(value.get("times", 1), f"{where}.times", 1, 50)
            return {"do": do, "action": self.word(value["action"], where, "actions"), "times": times}
        if isinstance(do, str) and do in _WALKS:
            return self.walk(do, value, where)
        if do == "repeat":
            self.fields(value, where, ("do", "times", "body"))
            times = self.integer(value["times"], f"{where}.times", 1, 50)
            return {"do": do, "times": times, "body": self.steps(value["body"], f"{where}.body", depth + 1, 1, 8)}
        if do == "until":
            self.fields(value, where, ("do", "cond", "limit", "body"))
            return {
                "do": do,
                "cond": self.cond(value["cond"], f"{where}.cond", depth + 1),
                "limit": self.integer(value["limit"], f"{where}.limit", 1, 50),
                "body": self.steps(value["body"], f"{where}.body", depth + 1, 1, 8),
            }
        if do == "if":
            self.fields(value, where, ("do", "cond", "then"), ("otherwise",))
            return {
                "do": do,
                "cond": self.cond(value["cond"], f"{where}.cond", depth + 1),
                "then": self.steps(value["then"], f"{where}.then", depth + 1, 1, 8),
                "otherwise": self.steps(value.get("otherwise", []), f"{where}.otherwise", depth + 1, 0, 8),
            }
        raise self.fail(where, f"unknown step {shown(do)}")

    def walk(self, do: str, value: dict[str, Any], where: str) -> dict[str, Any]:
        """One of the steps that walk: keys that may be left out stay out."""
        needed, optional = _WALKS[do]
        if self.vocab.turns and do in ("fence", "wall_in"):
            raise self.fail(where, f"{do} is not for a player that turns on the spot")
        if do == "wait":
            self.word("noop", where, "actions")
        self.fields(value, where, ("do", *needed, "limit"), optional)
        out: dict[str, Any] = {"do": do, "limit": self.integer(value["limit"], f"{where}.limit", 1, 50)}
        for key in (*needed, *(key for key in optional if key in value)):
            if key in ("target", "beside", "toward"):
                out[key] = self.targets(value[key], f"{where}.{key}")
            elif key == "through":
                out[key] = self.kinds(value[key], f"{where}.{key}")
            elif key == "action":
                out[key] = self.word(value[key], f"{where}.{key}", "actions")
                if not any(recipe.facing for recipe in self.vocab.recipes.get(out[key], ())):
                    raise self.fail(f"{where}.{key}", f"{out[key]} puts nothing straight ahead")
            else:
                out[key] = self.integer(value[key], f"{where}.{key}", 1, 9 if key == "within" else 4)
        return out

    def kinds(self, value: Any, where: str) -> str | list[str]:
        """Targets that an action opens."""
        found, known = self.targets(value, where), [kind for kind, _, _ in self.vocab.clears]
        barred = [name for name in target_names(found) if name not in known]
        if barred:
            raise self.fail(where, f"no action opens {', '.join(barred)}", f"one of: {', '.join(known)}")
        return found


def parse_skill(text: str | bytes | dict[str, Any], vocab: Vocab) -> Skill:
    """Read one skill strictly: unknown keys, names, types or sizes raise SkillError, nothing is guessed."""
    if isinstance(text, (str, bytes)):
        if len(text) > MAX_BYTES:
            raise SkillError(f"skill of {len(text)} bytes", hint=f"at most {MAX_BYTES} bytes")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SkillError(f"skill is not JSON: {shown(error)}") from None
    else:
        value = text
    check = _Checker(vocab)
    check.fields(value, "skill", ("version", "name", "start", "steps", "done", "max_steps"), ("about", "abort"))
    check.integer(value["version"], "version", 1, 1)
    name = value["name"]
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise check.fail("name", f"{shown(name)} is not a name (a-z, 0-9, _, at most 40)")
    about = value.get("about", "")
    if not isinstance(about, str) or len(about) > 200 or not about.isprintable():
        raise check.fail("about", "expected at most 200 printable characters")
    skill = Skill(
        name=name,
        about=about,
        start=check.cond(value["start"], "start", 1),
        steps=tuple(check.steps(value["steps"], "steps", 1, 1, 16)),
        done=check.cond(value["done"], "done", 1),
        abort=check.cond(value["abort"], "abort", 1) if value.get("abort") is not None else None,
        max_steps=check.integer(value["max_steps"], "max_steps", 1, 500),
    )
    if static_bound(skill.steps) > MAX_BOUND:
        raise check.fail("steps", f"could run {static_bound(skill.steps)} actions, at most {MAX_BOUND}")
    return skill


def static_bound(steps: tuple[dict[str, Any], ...] | list[dict[str, Any]]) -> int:
    """Most interpreter ticks that a list of steps can take (an empty iteration counts one)."""
    total = 0
    for step in steps:
        do = step["do"]
        if do == "act":
            total += step["times"]
        elif do in _WALKS:
            total += step["limit"]
        elif do == "repeat":
            total += step["times"] * max(1, static_bound(step["body"]))
        elif do == "until":
            total += step["limit"] * max(1, static_bound(step["body"]))
        else:
            total += max(1, static_bound(step["then"]), static_bound(step["otherwise"]))
    return total


def bound(skill: Skill) -> int:
    """Most primitive actions the skill can take: ``min(max_steps, static bound)``."""
    return min(skill.max_steps, static_bound(skill.steps))


def from_option_spec(spec: OptionSpec, vocab: Vocab) -> Skill:
    """The original's fixed action list as a skill: always startable, done when the list has been played.

    SkillError for a list that takes more than :data:`MAX_NODES` steps, runs of one action and the groups of eight that
    hold them counted: a version could not hold its skill.
    """
    name = spec.option_id
    actions = list(spec.primitive_actions)
    if not 1 <= len(actions) <= 500 or any(type(a) is not int or not 0 <= a < len(vocab.actions) for a in actions):
        raise SkillError(
            f"option {shown(name)}: primitive_actions must be 1..500 ids below {len(vocab.actions)}",
            hint="ids follow the environment's action list",
        )
    if (
        not isinstance(spec.confidence, (int, float))
        or not math.isfinite(spec.confidence)
        or not 0 <= spec.confidence <= 1
    ):
        raise SkillError(f"option {shown(name)}: confidence {shown(spec.confidence)} is not in 0..1")
    steps: list[dict[str, Any]] = []
    for action in actions:
        word = vocab.actions[action]
        if steps and steps[-1]["action"] == word and steps[-1]["times"] < 50:
            steps[-1]["times"] += 1
        else:
            steps.append({"do": "act", "action": word, "times": 1})
    while len(steps) > 16:  # nest runs of eight so that long lists stay inside the language
        steps = [{"do": "repeat", "times": 1, "body": steps[i : i + 8]} for i in range(0, len(steps), 8)]
    about = "".join(c for c in spec.description if c.isprintable())[:200]
    body = {"version": 1, "name": name, "about": about, "start": {"op": "true"}, "steps": steps}
    return parse_skill({**body, "done": {"op": "false"}, "max_steps": len(actions)}, vocab)


def skill_json_schema(vocab: Vocab, depth: int = 3) -> dict[str, Any]:
    """JSON schema of a skill for constrained decoding; recursion is unrolled to ``depth`` levels."""
    condition = condition_schema(vocab, condition_schema(vocab, None))
    return _object(
        version={"type": "integer", "enum": [1]},
        name={"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"},
        start=condition,
        steps=_list(_step_schema(vocab, depth), 16),
        done=condition,
        abort=condition,
        max_steps=_integer(1, 500),
    )


def _step_schema(vocab: Vocab, level: int) -> dict[str, Any]:
    """Schema of a step that holds others at most ``level - 1`` deep."""
    forms = _plain_steps(vocab)
    if level > 1:
        body, condition = _list(_step_schema(vocab, level - 1)), condition_schema(vocab, None)
        forms += [
            _object(do=_one_of("repeat"), times=_integer(1, 50), body=body),
            _object(do=_one_of("until"), cond=condition, limit=_integer(1, 50), body=body),
            _object(do=_one_of("if"), cond=condition, then=body, otherwise={**body, "minItems": 0}),
        ]
    return {"anyOf": forms}


def _plain_steps(vocab: Vocab) -> list[dict[str, Any]]:
    """Schemas of the steps that hold no others; those that the environment has nothing for are left out."""
    target, limit = _one_of(*vocab.targets), _integer(1, 50)
    forms = [
        _object(do=_one_of("act"), action=_one_of(*vocab.actions), times=_integer(1, 50)),
        _object(do=_one_of("move_toward", "step_onto", "flee"), target=target, limit=limit),
        _object(do=_one_of("explore"), limit=limit),
        _object(do=_one_of("go_to"), target=target, within=_integer(1, 9), limit=limit),
        _object(do=_one_of("stand_near"), target=_list(target), limit=limit),
    ]
    if vocab.clears:
        through = _list(_one_of(*(kind for kind, _, _ in vocab.clears)))
        forms += [
            _object(do=_one_of("dig_toward"), target=target, through=through, limit=limit),
            _object(do=_one_of("explore"), through=through, limit=limit),
        ]
    placing = [name for name, recipes in vocab.recipes.items() if any(r.facing and r.uses for r in recipes)]
    if placing and not vocab.turns:
        forms += [
            _object(do=_one_of("wall_in"), action=_one_of(*placing), cells=_integer(1, 4), limit=limit),
            _object(do=_one_of("fence"), target=target, action=_one_of(*placing), limit=limit),
        ]
    if "noop" in vocab.actions:
        forms.append(_object(do=_one_of("wait"), limit=limit))
    return forms


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _integer(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def _one_of(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


def _list(items: dict[str, Any], most: int = 8) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}
