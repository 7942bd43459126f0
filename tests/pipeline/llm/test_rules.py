"""The rule book: what it ranks, how it answers every kind of question, and how well it plays alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.rules_play import main, measure
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput
from lore_datasets.language.geometry import StateView
from lore_datasets.language.programs import parse_program
from lore_datasets.language.skills import parse_skill
from lore_datasets.types import SymbolicState
from pipeline.llm.backends.rules import RulesAdviser, rule_book
from pipeline.llm.base import LLM, Prompt
from pipeline.questions.check import check_plans, check_prior
from pipeline.questions.feasible import feasible_actions, feasible_goals
from pipeline.questions.parse import parse
from pipeline.questions.prompts import LETTERS, Renderer, render

ENV = get_environment("crafter")
VOCAB = ENV.vocab
RANK = rule_book(ENV)
ROOM = {(dx, dy): "stone" for dx in range(-1, 3) for dy in range(-2, 2) if dx in (-1, 2) or dy in (-2, 1)}
NAMES = [s.name for s in ENV.skills] + list(VOCAB.actions)


def state(cells=None, vitals=(9, 9, 9, 9), unlocked=(), sleeping=0, daylight=220, facing=3, **items):
    """Open grass with ``cells`` {(dx, dy): target} and the given inventory."""
    view = np.full((7, 9), VOCAB.target("grass"), np.uint8)
    view[3, 4] = VOCAB.target("player")
    for (dx, dy), name in (cells or {}).items():
        view[3 + dy, 4 + dx] = VOCAB.target(name)
    return SymbolicState(
        view=view,
        inventory=np.array([items.get(name, 0) for name in VOCAB.items], np.uint8),
        vitals=np.array(vitals, np.uint8),
        facing=np.uint8(facing),
        sleeping=np.uint8(sleeping),
        daylight=np.uint8(daylight),
        unlocked=np.array([name in unlocked for name in VOCAB.achievements], np.uint8),
    )


def best(**given):
    return RANK(StateView(state(**given), VOCAB))[0][0]


def random_states(n, seed=0):
    """States of every shape the layout allows, with plausible cells."""
    rng = np.random.default_rng(seed)
    kinds = [i for i, name in enumerate(VOCAB.targets) if name not in ("player", "nothing")]
    for _ in range(n):
        made = state(facing=int(rng.integers(4)), daylight=int(rng.integers(256)))
        view = np.where(rng.random((7, 9)) < 0.4, rng.choice(kinds, (7, 9)), made.view).astype(np.uint8)
        view[3, 4] = VOCAB.target("player")
        yield replace(
            made,
            view=view,
            inventory=rng.integers(0, 10, len(VOCAB.items)).astype(np.uint8) * (rng.random() < 0.8),
            vitals=rng.integers(0, 10, 4).astype(np.uint8),
            unlocked=(rng.random(len(VOCAB.achievements)) < 0.5).astype(np.uint8),
        )


@pytest.mark.parametrize(
    ("given", "goal"),
    [
        ({"cells": {(2, 0): "tree"}}, "collect_wood"),
        ({"cells": {(2, 0): "tree"}, "wood": 6, "unlocked": ("collect_wood",)}, "place_table"),
        ({"cells": {(2, 0): "table"}, "wood": 3, "unlocked": ("place_table",)}, "make_wood_pickaxe"),
        ({"cells": {(2, 0): "table"}, "wood": 1, "stone": 1, "wood_pickaxe": 1, "wood_sword": 1}, "make_stone_pickaxe"),
        ({"cells": {(2, 0): "stone"}, "wood_pickaxe": 1}, "collect_stone"),
        ({"cells": {(2, 0): "iron"}, "wood_pickaxe": 1, "stone_pickaxe": 1, "wood_sword": 1}, "collect_iron"),
        ({"cells": {(2, 0): "diamond"}, "iron_pickaxe": 1, "stone_pickaxe": 1, "wood_pickaxe": 1}, "collect_diamond"),
        ({"cells": {(2, 0): "water", (0, 3): "tree"}, "vitals": (9, 9, 2, 9)}, "collect_drink"),
        ({"cells": {(2, 0): "cow", (0, 3): "tree"}, "vitals": (9, 2, 9, 9)}, "eat_cow"),
        ({"cells": {(1, 0): "zombie"}}, "defeat_zombie"),
        ({"cells": {(2, 0): "zombie"}, "vitals": (2, 9, 9, 9)}, "flee"),
        ({"vitals": (9, 9, 9, 8)}, "sleep"),
        ({"sapling": 1}, "place_plant"),
        ({"stone": 9, "daylight": 40, "vitals": (9, 9, 9, 4)}, "shelter"),
        ({"cells": ROOM, "daylight": 40, "vitals": (9, 9, 9, 4)}, "sleep"),
        ({"cells": ROOM, "daylight": 40}, "wait_for_day"),
    ],
)
def test_the_rule_book_names_the_obvious_goal(given, goal):
    assert best(**given) == goal


def test_rankings_are_deterministic_descending_feasible_goals_in_any_state():
    goals = {s.name for s in ENV.skills}
    offered = 0
    for made in random_states(400):
        view = StateView(made, VOCAB)
        ranked = RANK(view)
        weights = [weight for _, weight in ranked]
        assert weights == sorted(weights, reverse=True) and min(weights) > 0
        assert {goal for goal, _ in ranked} <= goals and "explore" in dict(ranked)
        assert ranked == RANK(StateView(made, VOCAB))
        offered += sum(goal in feasible_goals(ENV.skills, view) for goal, _ in ranked[:1])
    assert offered >= 380


def test_what_is_unlocked_changes_the_advice():
    cells = {(2, 0): "water"}
    assert best(cells=cells, unlocked=("collect_sapling",)) == "collect_drink"
    assert best(cells=cells, unlocked=("collect_sapling", "collect_drink")) == "explore"
    assert best(cells=cells) == "collect_sapling"


def test_the_adviser_answers_every_kind_of_question_so_that_parser_and_checks_accept_it():
    adviser, renderer = RulesAdviser(), Renderer(ENV)
    assert isinstance(adviser, LLM)
    kept = plans_kept = 0
    for made in random_states(120, seed=1):
        view = StateView(made, VOCAB)
        goals = feasible_goals(ENV.skills, view)
        prior, letter = renderer.prior(made, goals), renderer.prior(made, goals, answer="letter")
        choices = [*goals, *feasible_actions(view)]
        plan = renderer.plan(made, choices)
        answers = adviser.complete([prior, letter, plan])
        advice, rejected = check_prior(parse(answers[0], prior, NAMES), goals, view, "row")
        assert advice is not None and not rejected and 0 <= advice.confidence <= 1
        assert answers[1].text in LETTERS and parse(answers[1], letter, NAMES).choices[0][0] == advice.choices[0][0]
        kept += advice.choices[0][0] == next(g for g, _ in RANK(view) if g in goals)
        found, refused = check_plans(parse(answers[2], plan, NAMES), choices, view, "row")
        assert not refused, refused
        plans_kept += len(found)
    assert kept == 120 and plans_kept >= 120


def test_plans_walk_to_the_goal_in_primitive_actions():
    adviser = RulesAdviser()
    made = state(cells={(3, 0): "tree"}, facing=3)
    prompt = render("plan", ENV, made)
    first = json.loads(adviser.complete([prompt])[0].text)["plans"][0]
    assert first["steps"] == [{"do": "move_right", "times": 2}, {"do": "do", "times": 1}] and 0 < first["score"] <= 1
    made = state(wood=5, unlocked=("collect_wood",))
    prompt = render("plan", ENV, made)
    steps = [step["do"] for step in json.loads(adviser.complete([prompt])[0].text)["plans"][0]["steps"]]
    assert steps == ["place_table", "make_wood_pickaxe", "make_wood_sword"]


def test_the_reason_names_the_rule_that_spoke_and_the_confidence_is_the_programs():
    made = state(cells={(1, 0): "zombie"})
    prompt = Renderer(ENV).prior(made, feasible_goals(ENV.skills, StateView(made, VOCAB)))
    answer = json.loads(RulesAdviser().complete([prompt])[0].text)
    assert answer["ranked"][0] == "defeat_zombie" and answer["confidence"] == 0.9
    assert answer["reason"] == f"rule book: rule 1, {ENV.rules.rules[1].why}"


def test_asked_for_a_program_it_answers_with_its_own():
    prompt = Renderer(ENV).program()
    advice = parse(RulesAdviser().complete([prompt])[0], prompt, NAMES)
    assert parse_program(advice.program, VOCAB, NAMES) == ENV.rules


def test_new_skills_are_those_that_the_question_does_not_know_and_all_of_them_parse():
    prompt = Renderer(ENV).new_skills("a summary", 4)
    answer = json.loads(RulesAdviser().complete([prompt])[0].text)["skills"]
    assert 1 <= len(answer) <= 4 and not {s["name"] for s in answer} & {s.name for s in ENV.skills}
    assert all(parse_skill(s, VOCAB).name == s["name"] for s in answer)
    bare = replace(prompt, system="no list of goals", schema=None)
    names = [s["name"] for s in json.loads(RulesAdviser().complete([bare])[0].text)["skills"]]
    assert names == [s.name for s in ENV.skills][:8]


def test_a_question_without_a_readable_state_gets_an_error_and_no_hole():
    good = Renderer(ENV).prior(state(), ["explore"])
    answers = RulesAdviser().complete([replace(good, state=b"xx"), good, Prompt("riddle", "", "", state=good.state)])
    assert [a.error is None for a in answers] == [False, True, False]
    assert answers[0].finish == "error" and "104 bytes" in answers[0].error and answers[1].model == "rules"
    assert RulesAdviser().complete([good]) == RulesAdviser().complete([good])
    with pytest.raises(BadInput, match="chess has no rule book"):
        RulesAdviser(replace(ENV, name="chess", rules=None))


def test_the_rule_book_alone_plays_far_above_chance_in_four_episodes(capsys):
    assert main(["--episodes", "4", "--seed", "1", "--length", "400"]) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    result = json.loads(printed[-1])
    assert result["reward_mean"] >= 9.0 and result["episodes"] == 4 and result["length_mean"] <= 400
    assert any(line.startswith("collect_wood") for line in printed) and "not a language model" in result["player"]


@pytest.mark.slow
def test_the_rule_book_alone_earns_at_least_twelve_over_forty_fresh_episodes():
    result = measure(40, seed=0)
    assert result["reward_mean"] >= 12.0, result
    assert result["success_percent"]["make_stone_pickaxe"] >= 60
