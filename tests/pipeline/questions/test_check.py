"""Checks against the state: what cannot start, kills, or cannot be paid for is refused and kept with its reason."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lore_datasets.language.conditions import compile_condition
from lore_datasets.language.skills import bound, parse_skill
from pipeline.questions.check import Trial, check_plans, check_prior, check_skills
from pipeline.questions.feasible import feasible_actions, feasible_goals
from pipeline.questions.parse import Advice, Plan


def prior(*names, confidence=0.8):
    p = 1 / len(names)
    return Advice("prior", tuple((n, p) for n in names), confidence=confidence, weight=confidence)


def plans(*steps):
    return Advice("plan", plans=(Plan(tuple((s, 1) if isinstance(s, str) else s for s in steps), 0.5),))


def skill(name="fell_tree", **changes):
    body = {"version": 1, "name": name, "start": {"op": "reachable", "target": "tree"},
            "steps": [{"do": "move_toward", "target": "tree", "limit": 9}, {"do": "act", "action": "do"}],
            "done": {"op": "inventory", "item": "wood", "cmp": ">=", "value": 9}, "max_steps": 12}  # fmt: skip
    return {**body, **changes}


def test_goals_follow_start_and_done_of_their_skills(env, make_view):
    poor = feasible_goals(env.skills, make_view())
    rich = feasible_goals(env.skills, make_view(inventory={"wood": 1, "stone": 1}))
    assert "make_stone_pickaxe" in rich and "make_stone_pickaxe" not in poor
    assert {"explore", "collect_wood", "eat_cow"} <= set(poor)
    assert "collect_iron" not in rich


@pytest.mark.parametrize(
    ("cond", "expected"),
    [
        ({"op": "inventory", "item": "wood", "cmp": ">=", "value": 2}, True),
        ({"op": "inventory", "item": "wood", "cmp": "!=", "value": 2}, False),
        ({"op": "vital", "name": "food", "cmp": "<", "value": 4}, True),
        ({"op": "daylight", "cmp": ">", "value": 100}, True),
        ({"op": "flag", "name": "sleeping"}, False),
        ({"op": "unlocked", "achievement": "collect_wood"}, True),
        ({"op": "facing", "target": "table"}, True),
        ({"op": "near", "target": ["cow", "zombie"], "within": 1}, True),
        ({"op": "near", "target": "lava", "within": 2}, False),
        ({"op": "reachable", "target": "water"}, True),
        ({"op": "can", "action": "make_wood_pickaxe"}, True),
        ({"op": "not", "of": {"op": "true"}}, False),
        ({"op": "all", "of": [{"op": "true"}, {"op": "false"}]}, False),
        ({"op": "any", "of": [{"op": "false"}, {"op": "true"}]}, True),
    ],
)
def test_every_condition_of_the_skill_language_is_read(env, make_view, cond, expected):
    view = make_view(inventory={"wood": 2}, vitals={"food": 3}, unlocked=("collect_wood",))
    assert compile_condition(cond, env.vocab)(view) is expected


def test_infeasible_choices_are_dropped_and_cost_confidence(make_view):
    advice, rejected = check_prior(prior("explore", "collect_iron"), ["explore"], make_view(), "prior x")
    assert advice.choices == (("explore", 1.0),)
    assert advice.confidence == pytest.approx(0.4)
    assert [(r.reason, r.text) for r in rejected] == [("infeasible", "collect_iron")]


def test_advice_of_nothing_feasible_is_none_and_wholly_kept_as_rejects(make_view):
    advice, rejected = check_prior(prior("collect_iron", "make_iron_sword"), ["explore"], make_view(), "w")
    assert advice is None and len(rejected) == 2


def test_a_primitive_action_is_checked_by_the_recipe_table(make_view):
    view = make_view(inventory={"wood": 1})
    advice, rejected = check_prior(prior("make_wood_pickaxe", "make_iron_pickaxe"), [], view, "w")
    assert advice.choices == (("make_wood_pickaxe", 1.0),)
    assert rejected[0].text == "make_iron_pickaxe"


def test_a_plan_must_begin_with_something_that_can_start(make_view):
    view = make_view()
    choices = ["explore", *feasible_actions(view)]
    kept, rejected = check_plans(plans("collect_iron", "explore"), choices, view, "w")
    assert not kept and rejected[0].reason == "infeasible"
    assert check_plans(plans("explore", "collect_iron"), choices, view, "w")[0]


def test_a_plan_that_walks_into_lava_is_lethal(make_view):
    view = make_view()
    choices = feasible_actions(view)
    into = plans("move_up", ("move_right", 3), "move_down")  # stone is in the way: the third step right is blocked
    assert check_plans(into, choices, view, "w")[0]
    assert check_plans(plans("move_down", ("move_right", 2)), choices, view, "w")[0]
    kept, rejected = check_plans(plans("move_down", ("move_right", 3)), choices, view, "w")
    assert not kept and rejected[0].reason == "lethal"


def test_a_plan_that_spends_what_nobody_can_have_is_impossible(make_view):
    view = make_view(inventory={"wood": 1})
    choices = ["collect_wood", *feasible_actions(view)]
    kept, rejected = check_plans(plans("make_wood_pickaxe", "make_wood_sword"), choices, view, "w")
    assert not kept and rejected[0].reason == "impossible"
    assert check_plans(plans("make_wood_pickaxe"), choices, view, "w")[0]
    assert check_plans(plans("collect_wood", "make_wood_pickaxe", "make_wood_sword"), choices, view, "w")[0]


def test_plans_come_back_best_first(make_view):
    view = make_view()
    advice = Advice("plan", plans=(Plan((("noop", 1),), 0.2), Plan((("noop", 2),), 0.9)))
    assert [p.score for p in check_plans(advice, ["noop"], view, "w")[0]] == [0.9, 0.2]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (skill(name="explore"), "skill_name_taken"),
        (skill(name="do"), "skill_name_taken"),
        (skill(name="Bad Name"), "skill_malformed"),
        (skill(steps=[{"do": "run", "code": "import os"}]), "skill_malformed"),
        (skill(max_steps=10**9), "skill_malformed"),
        (skill(start={"op": "false"}), "skill_never_starts"),
        (skill(done={"op": "true"}), "skill_done_at_start"),
    ],
)
def test_a_bad_skill_is_refused_with_its_reason(env, make_view, body, reason):
    kept, rejected, _ = check_skills([(body, "skills abc")], env.vocab, ["explore"], [make_view()], 8)
    assert not kept and rejected[0].reason == reason and rejected[0].where == "skills abc"


def test_good_skills_enter_up_to_the_limit_and_once(env, make_view):
    found = [(skill(), "a"), (skill(), "b"), (skill("fell_more"), "c"), (skill("fell_most"), "d")]
    kept, rejected, _ = check_skills(found, env.vocab, [], [make_view()], 2)
    assert [(s.name, origin) for s, origin in kept] == [("fell_tree", "a"), ("fell_more", "c")]
    assert [r.reason for r in rejected] == ["skill_name_taken", "skill_over_limit"]


def test_a_skill_enters_only_when_its_trial_in_real_worlds_starts_and_does_something(env, make_view):
    found = {"works": Trial(4, 3, 40, worlds=6), "still": Trial(3, 0, 24, worlds=6, idle=3),
             "silent": Trial(2, 2, 0, worlds=6), "absent": Trial(0, 0, 0, worlds=6)}  # fmt: skip
    tried = []

    def trial(skill):
        tried.append(skill.name)
        return found[skill.name]

    offered = [(skill(name), "s") for name in (*found, "explore")]
    kept, rejected, trials = check_skills(offered, env.vocab, ["explore"], [make_view()], 8, trial)
    assert [s.name for s, _ in kept] == ["works"] and trials == {"works": found["works"]}
    assert trials["works"].success_rate == 0.75
    reasons = {r.text.split(":")[0]: r.reason for r in rejected}
    assert reasons == {"still": "skill_does_nothing", "silent": "skill_does_nothing", "absent": "skill_never_started",
                       "explore": "skill_name_taken"}  # fmt: skip
    assert "explore" not in tried  # what the lint refuses is not played


json_leaves = st.none() | st.booleans() | st.integers(-5, 600) | st.floats() | st.text(max_size=6)
words = st.sampled_from(
    [
        "act",
        "move_toward",
        "flee",
        "explore",
        "repeat",
        "until",
        "if",
        "all",
        "any",
        "not",
        "true",
        "false",
        "inventory",
        "vital",
        "near",
        "facing",
        "tree",
        "wood",
        "do",
        "noop",
        "health",
        ">=",
        "<",
        "op",
        "cmp",
        "value",
        "item",
        "name",
        "target",
        "within",
        "cond",
        "body",
        "then",
        "otherwise",
        "limit",
        "times",
        "action",
    ]
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_mutation_of_a_skill_enters_whole_or_is_refused(env, make_view, data):
    body = json.loads(json.dumps(skill()))
    for _ in range(data.draw(st.integers(1, 4))):
        node = body
        while isinstance(node, (dict, list)) and node:
            key = data.draw(st.sampled_from(sorted(node)) if isinstance(node, dict) else st.integers(0, len(node) - 1))
            if not isinstance(node[key], (dict, list)) or data.draw(st.booleans()):
                node[key] = data.draw(json_leaves | words | st.lists(words, max_size=2))
                break
            node = node[key]
    kept, rejected, _ = check_skills([(body, "fuzz")], env.vocab, ["explore"], [make_view()], 4)
    assert len(kept) + len(rejected) == 1
    for made, _ in kept:
        assert 1 <= bound(made) <= 500 and parse_skill(made.to_json(), env.vocab) == made
    for reject in rejected:
        assert reject.reason.startswith("skill_") and reject.text.isprintable()
