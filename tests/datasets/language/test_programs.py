"""Priority programs: what is read, what is refused and named, canonical form, schema, differences, lint."""

import json

import pytest
from jsonschema import Draft202012Validator

from lore_datasets.environments import get_environment
from lore_datasets.errors import ProgramError
from lore_datasets.language.lint import is_state_blind, lint_program
from lore_datasets.language.programs import (
    MAX_PROGRAM_BYTES,
    Program,
    diff_programs,
    parse_program,
    program_json_schema,
    short_program_schema,
)

ENV = get_environment("crafter")
VOCAB = ENV.vocab
NAMES = [skill.name for skill in ENV.skills]
ALWAYS = {"op": "true"}
WOOD = {"op": "inventory", "item": "wood", "cmp": ">=", "value": 4}


def read(*rules, **more) -> Program:
    return parse_program({"rules": [{"when": when, "goal": goal} for when, goal in rules], **more}, VOCAB, NAMES)


def nested(depth):
    cond = ALWAYS
    for _ in range(depth - 1):
        cond = {"op": "not", "of": cond}
    return cond


def test_a_program_survives_its_canonical_form_and_equal_programs_have_equal_digests():
    program = ENV.rules
    assert parse_program(program.text, VOCAB, NAMES) == program and len(program) == 56
    mixed = json.dumps(json.loads(ENV.rules.text), indent=3)
    assert parse_program(mixed, VOCAB, NAMES).digest == program.digest
    assert read((ALWAYS, "explore")).digest == read((ALWAYS, "explore"), version=1).digest != program.digest
    assert program.text.startswith('{"rules":[{"goal":"sleep"') and " " not in program.text.split('"why"')[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rules": [{"when": {"op": "true"}, "goal": "explroe"}]}', "rule 0: goal: unknown goal 'explroe'.*explore"),
        ('{"rules": [{"when": {"op": "true"}, "goal": "explore", "goal": "noop"}]}', "key 'goal' stands twice"),
        ('{"rules": [{"when": {"op": "near", "target": "tree", "within": NaN}, "goal": "noop"}]}', "NaN"),
        ('{"rules": [], "author": "me"}', "unknown keys"),
        ('{"rules": []}', "0 rules"),
        ('{"rules": 3}', "program: int"),
        ('{"version": 2, "rules": []}', "version"),
        ("[1]", "expected an object"),
        ("{", "not JSON"),
        ("[" * 50_000, "not JSON"),
        ('{"rules": [' + "1," * 10_000 + "1]}", "10001 rules"),
        (" " * (MAX_PROGRAM_BYTES + 1), f"program of {MAX_PROGRAM_BYTES + 1} bytes"),
    ],
)
def test_what_is_no_program_is_refused_by_name(text, message):
    with pytest.raises(ProgramError, match=message):
        parse_program(text, VOCAB, NAMES)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"when": nested(9), "goal": "noop"}, "rule 1: when(.not){8}: deeper than 8"),
        ({"when": nested(50), "goal": "noop"}, "rule 1: when.*deeper than 8"),
        ({"when": {"op": "any", "of": [{"op": "all", "of": [ALWAYS] * 8}] * 8}, "goal": "noop"}, "more than 64 nodes"),
        ({"when": {"op": "all", "of": [ALWAYS] * 9}, "goal": "noop"}, "1..8 conditions"),
        ({"when": {"op": "facing", "target": ["tree"] * 33}, "goal": "noop"}, "1..32 names"),
        ({"when": {"op": "near", "target": "tree", "within": 10}, "goal": "noop"}, "within: 10 is not .* 1..9"),
        ({"when": {"op": "vital", "name": "luck", "cmp": "<", "value": 1}, "goal": "noop"}, "unknown name 'luck'"),
        ({"when": {"op": "vital", "name": "food", "cmp": "=<", "value": 1}, "goal": "noop"}, "cmp =< is none of"),
        ({"when": {"op": "vital", "name": "food", "cmp": "<", "value": True}, "goal": "noop"}, "True is not"),
        ({"when": {"op": "eval", "code": "1"}, "goal": "noop"}, "unknown condition eval"),
        ({"when": ALWAYS, "goal": ["noop"]}, "unknown goal"),
        ({"when": ALWAYS, "goal": "noop", "why": "x" * 201}, "why: expected at most 200"),
        ({"when": ALWAYS, "goal": "noop", "why": "\x1b[31m"}, "printable"),
        ({"goal": "noop"}, "missing"),
        ("noop", "expected an object, got str"),
    ],
)
def test_a_wrong_rule_is_named_by_its_number(rule, message):
    with pytest.raises(ProgramError, match="rule 1: ") as caught:
        parse_program({"rules": [{"when": ALWAYS, "goal": "explore"}, rule]}, VOCAB, NAMES)
    assert caught.match(message) and caught.value.kind == "program"


def test_limits_are_reached_and_not_passed():
    many = [{"when": nested(8), "goal": "explore", "why": "w" * 200}] * 128
    assert len(parse_program({"rules": many}, VOCAB, NAMES)) == 128
    with pytest.raises(ProgramError, match="129 rules"):
        parse_program({"rules": [*many, many[0]]}, VOCAB, NAMES)
    wide = {"op": "all", "of": [{"op": "any", "of": [{"op": "near", "target": ["zombie"] * 8, "within": 9}] * 7}] * 7}
    with pytest.raises(ProgramError, match=f"at most {MAX_PROGRAM_BYTES} bytes"):
        parse_program({"rules": [{"when": wide, "goal": "flee"}] * 128}, VOCAB, NAMES)


def test_the_schema_recurses_and_accepts_what_the_parser_accepts():
    schema = program_json_schema(VOCAB, NAMES)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    program = json.loads(ENV.rules.text)
    del program["version"]
    assert list(validator.iter_errors(program)) == []
    known = {form["properties"]["op"]["enum"][0] for form in schema["$defs"]["cond"]["anyOf"]}
    assert known >= {"daylight", "flag", "reachable", "enclosed", "count", "not", "all", "any"}
    for wrong in ({"op": "vital", "name": "luck", "cmp": "<", "value": 1}, {"op": "true", "of": []}, {"op": "all"}):
        bad = {"rules": [{"when": {"op": "not", "of": wrong}, "goal": "explore", "why": ""}]}
        assert list(validator.iter_errors(bad))


def test_the_schema_for_a_small_model_is_bounded_and_lets_through_programs_alone():
    schema = short_program_schema(VOCAB, NAMES, 20)
    Draft202012Validator.check_schema(schema)
    assert "$ref" not in json.dumps(schema["$defs"]["leaf"])
    validator = Draft202012Validator(schema)
    leaves = [form["properties"] for form in schema["$defs"]["leaf"]["anyOf"]]
    assert len(leaves) >= 11
    for leaf in leaves:
        when = {key: _least(value) for key, value in leaf.items()}
        for cond in (when, {"op": "not", "of": when}, {"op": "all", "of": [{"op": "not", "of": when}] * 3}):
            body = {"rules": [{"when": cond, "goal": "explore"}] * 20}
            assert validator.is_valid(body) and parse_program(body, VOCAB, NAMES)
            deep = {"rules": [{"when": {"op": "not", "of": {"op": "not", "of": cond}}, "goal": "explore"}] * 20}
            assert not validator.is_valid(deep)
    for wrong in ([{"when": ALWAYS, "goal": "noop"}] * 8, [{"when": ALWAYS, "goal": "explore"}] * 21):
        assert list(validator.iter_errors({"rules": wrong}))


def _least(schema):
    if "anyOf" in schema:
        return _least(schema["anyOf"][0])
    return schema["enum"][0] if "enum" in schema else schema["minimum"]


def test_differences_are_told_rule_by_rule():
    drink, eat = ({"op": "vital", "name": v, "cmp": "<", "value": 4} for v in ("drink", "food"))
    before = read((drink, "collect_drink"), (eat, "eat_cow"), (WOOD, "place_table"), (ALWAYS, "explore"))
    assert diff_programs(before, before) == []
    later = {**drink, "value": 3}
    after = read((eat, "eat_cow"), (later, "collect_drink"), (ALWAYS, "noop"), (ALWAYS, "explore"))
    lines = diff_programs(before, after)
    assert [line.split()[0] for line in lines] == ["changed", "added", "removed"]
    assert lines[0].startswith("changed 0 -> 1: collect_drink") and '"value":4' in lines[0] and '"value":3' in lines[0]
    assert lines[1].startswith("added   2: noop") and lines[2].startswith("removed 2: place_table")
    swapped = read((eat, "eat_cow"), (drink, "collect_drink"), (WOOD, "place_table"), (ALWAYS, "explore"))
    assert [line.split(":")[0] for line in diff_programs(before, swapped)] in (["moved   0 -> 1"], ["moved   1 -> 0"])


@pytest.mark.parametrize(
    ("when", "goal", "finding"),
    [
        ({"op": "all", "of": [WOOD, {**WOOD, "cmp": "<", "value": 2}]}, "place_table", "contradicts itself"),
        ({"op": "all", "of": [{"op": "not", "of": WOOD}, WOOD]}, "place_table", "contradicts itself"),
        (
            {"op": "all", "of": [{"op": "facing", "target": "tree"}, {"op": "facing", "target": "water"}]},
            "noop",
            "contradicts itself",
        ),
        (
            {"op": "all", "of": [{"op": "near", "target": ["cow", "tree"], "within": 3},
                                 {"op": "not", "of": {"op": "near", "target": ["tree", "cow"], "within": 4}}]},
            "noop",
            "contradicts itself",
        ),
        ({"op": "false"}, "noop", "contradicts itself"),
        ({"op": "inventory", "item": "wood", "cmp": "==", "value": 0}, "place_table", "can never start"),
        ({"op": "daylight", "cmp": ">", "value": 200}, "wait_for_day", "can never start"),
        ({"op": "reachable", "target": "zombie"}, "defeat_zombie", "can never come first, rule 0"),
    ],
)  # fmt: skip
def test_lint_finds_rules_that_say_nothing(when, goal, finding):
    first = ({"op": "not", "of": {"op": "unlocked", "achievement": "wake_up"}}, "sleep")
    program = read(
        ({"op": "reachable", "target": ["zombie", "cow"]}, "defeat_zombie"), first, (when, goal), (ALWAYS, "explore")
    )
    found = lint_program(program, ENV.skills, VOCAB)
    assert len(found) == 1 and found[0].startswith(f"rule 2 ({goal})") and finding in found[0]


def test_lint_passes_the_shipped_program_and_misses_a_last_rule_that_always_speaks():
    program = ENV.rules
    assert lint_program(program, ENV.skills, VOCAB) == []
    assert any(
        "no rule speaks in every state" in line for line in lint_program(read((WOOD, "place_table")), ENV.skills, VOCAB)
    )


def test_a_program_of_constant_conditions_is_blind():
    both = {"op": "any", "of": [WOOD, {"op": "not", "of": WOOD}]}
    assert is_state_blind(read((ALWAYS, "collect_wood"), ({"op": "false"}, "sleep"), (ALWAYS, "explore")), VOCAB)
    assert not is_state_blind(read((WOOD, "place_table"), (ALWAYS, "explore")), VOCAB)
    assert not is_state_blind(ENV.rules, VOCAB)
    assert isinstance(read((both, "explore")), Program)
