import json

import numpy as np
import pytest

from lore_datasets.environments import get_environment
from lore_datasets.errors import LoreError, SkillError
from lore_datasets.language.skills import MAX_BYTES, OptionSpec, bound, from_option_spec, parse_skill, skill_json_schema

ENV = get_environment("crafter")
VOCAB = ENV.vocab
PLAIN = {
    "version": 1,
    "name": "collect_some_wood",
    "start": {"op": "near", "target": "tree", "within": 9},
    "steps": [{"do": "until", "cond": {"op": "inventory", "item": "wood", "cmp": ">=", "value": 5}, "limit": 10,
               "body": [{"do": "move_toward", "target": ["tree"], "limit": 20}, {"do": "act", "action": "do"}]}],
    "done": {"op": "inventory", "item": "wood", "cmp": ">=", "value": 5},
    "abort": {"op": "vital", "name": "health", "cmp": "<=", "value": 2},
    "max_steps": 60,
}  # fmt: skip


def test_a_skill_survives_its_canonical_json_and_has_a_bound():
    skill = parse_skill(PLAIN, VOCAB)
    assert parse_skill(skill.to_json(), VOCAB) == skill and bound(skill) == 60
    assert all(parse_skill(s.to_json(), VOCAB) == s and 0 < bound(s) <= 500 for s in ENV.skills)


def nested(depth, form):
    return form(nested(depth - 1, form)) if depth else {"op": "true"}


HOSTILE = {
    "an unknown key": {"code": "import os"},
    "an unknown action": {"steps": [{"do": "act", "action": "fly"}]},
    "an unknown step": {"steps": [{"do": "eval", "text": "1"}]},
    "no step": {"steps": []},
    "too many steps": {"steps": [{"do": "act", "action": "noop"}] * 17},
    "a bool for an integer": {"max_steps": True},
    "a float for an integer": {"max_steps": 5.0},
    "a string for an integer": {"max_steps": "5"},
    "too long": {"max_steps": 501},
    "a name that is a path": {"name": "../x"},
    "a name in other letters": {"name": "со_wood"},
    "a line end in the name": {"name": "wood\n"},
    "an escape in the text": {"about": "\x1b[31m"},
    "a target that is none": {"start": {"op": "facing", "target": "castle"}},
    "an unhashable operator": {"start": {"op": ["all"]}},
    "an unhashable comparison": {"done": {"op": "daylight", "cmp": {}, "value": 3}},
    "conditions too deep": {"start": nested(9, lambda c: {"op": "not", "of": c})},
    "conditions too many": {"start": nested(2, lambda c: {"op": "any", "of": [c] * 8})},
    "another version": {"version": 2},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_skill_outside_the_language_is_refused_with_its_place(case):
    with pytest.raises(SkillError) as caught:
        parse_skill({**PLAIN, **HOSTILE[case]}, VOCAB)
    assert str(caught.value).isascii() and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "NaN", "[" * 10_000, "x" * (MAX_BYTES + 1), b"\xff\xfe", '{"version": 1}']
)
def test_text_that_is_no_skill_is_refused(text):
    with pytest.raises(SkillError):
        parse_skill(text, VOCAB)


def test_a_skill_that_could_run_too_long_inside_its_limit_is_refused():
    deep = [{"do": "act", "action": "noop", "times": 50}]
    for _ in range(3):
        deep = [{"do": "repeat", "times": 50, "body": deep}]
    with pytest.raises(SkillError, match="could run 6250000 actions"):
        parse_skill({**PLAIN, "steps": deep}, VOCAB)


def test_the_fixed_action_list_of_the_original_is_a_skill_that_ends_when_it_was_played():
    skill = from_option_spec(OptionSpec("chop", "Chop", "twice", [5, 5, 1], 3, 0.9), VOCAB)
    assert [(s["action"], s["times"]) for s in skill.steps] == [("do", 2), ("move_left", 1)] and bound(skill) == 3
    long = from_option_spec(OptionSpec("zigzag", "Z", "", [1, 2] * 20, 40, 0.5), VOCAB)
    assert bound(long) == 40 and parse_skill(long.to_json(), VOCAB) == long
    for actions, confidence in [
        ([1, 2] * 60, 0.5),
        ([99], 0.5),
        ([], 0.5),
        ([True], 0.5),
        ([1], float("nan")),
        ([1], 2.0),
    ]:
        with pytest.raises(LoreError):
            from_option_spec(OptionSpec("x", "x", "", actions, 1, confidence), VOCAB)


def drawn(schema, rng):
    """A random value that a JSON schema (of the kind sent to models) allows; small, so that size limits hold."""
    if "anyOf" in schema:
        return drawn(schema["anyOf"][rng.integers(len(schema["anyOf"]))], rng)
    if "enum" in schema:
        return schema["enum"][rng.integers(len(schema["enum"]))]
    if schema["type"] == "object":
        return {name: drawn(part, rng) for name, part in schema["properties"].items()}
    if schema["type"] == "array":
        return [drawn(schema["items"], rng) for _ in range(max(schema["minItems"], rng.integers(3)))]
    if schema["type"] == "integer":
        return int(rng.integers(schema["minimum"], min(schema["maximum"], 6) + 1))
    return "drawn_skill"


def test_what_the_schema_for_models_allows_is_in_the_language():
    rng, schema = np.random.default_rng(0), skill_json_schema(VOCAB)
    accepted = 0
    for _ in range(300):
        value = json.loads(json.dumps(drawn(schema, rng)))
        try:
            accepted += bound(parse_skill(value, VOCAB)) >= 1
        except SkillError as error:
            assert "nodes" in str(error) or "could run" in str(error)
    assert accepted > 250
