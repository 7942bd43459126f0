"""A state in four lines: exact for a known state, and telling apart what keys tell apart."""

import numpy as np
import pytest

from lore_datasets.keys import fine_keys
from lore_datasets.testing import random_states
from pipeline.questions.describe import daylight_word, describe, offset_words


def test_a_known_state_reads_as_its_golden_four_lines(env, make_state):
    state = make_state(
        inventory={"wood": 3, "wood_pickaxe": 1}, vitals={"drink": 3, "energy": 8}, unlocked=("collect_wood", "wake_up")
    )
    assert describe(state, env) == (
        "Achieved so far: collect_wood, wake_up\n"
        "Inventory: 3 wood, 1 wood_pickaxe\n"
        "Vitals: health 9, food 9, drink 3 (low), energy 8. It is day, you are awake.\n"
        "Facing left: table. Beside you: right cow, up grass, down grass. Farther: zombie 2 down; "
        "tree 3 up (2 in view); stone 2 right 1 up (7 in view); water 3 left (6 in view); lava 3 right 1 down."
    )


def test_an_empty_beginning_says_so(env, make_state):
    text = describe(make_state(rows=("ggggggggg",) * 3 + ("ggggPgggg",) + ("ggggggggg",) * 3, sleeping=1), env)
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[0] == "Achieved so far: nothing" and lines[1] == "Inventory: empty"
    assert "you are asleep: every action is a noop until you wake" in lines[2]
    assert lines[3] == "Facing left: grass. Beside you: the same all round. Farther: nothing else."


def test_what_is_no_option_is_told_with_its_reason_and_so_is_being_walled_in(env, make_state):
    rows = ("ggggggggg",) * 2 + ("gggsssggg", "gggsPsggg", "gggsssggg", "ggggggggg", "gggggggtg")
    text = describe(make_state(rows=rows), env)
    assert "you are awake. You are walled in." in text
    assert text.endswith("No option: stone needs wood_pickaxe; table has no path.")
    with_tool = describe(make_state(rows=rows, inventory={"wood_pickaxe": 1}), env)
    assert with_tool.endswith("No option: table has no path.")


def test_a_hundred_states_with_different_keys_have_different_texts(env):
    states = random_states(env, 100, np.random.default_rng(3))
    texts = {describe(states[i], env) for i in range(100)}
    assert len(set(fine_keys(states, env))) == 100
    assert len(texts) == 100


def test_a_description_is_made_of_words_of_the_vocabulary_and_numbers_alone(env, states):
    vocab = env.vocab
    closed = {*vocab.targets, *vocab.items, *vocab.vitals, *vocab.achievements, *(d[0] for d in vocab.directions)}
    fixed = "facing beside you the same all round farther else inventory vitals it is are awake asleep achieved so far "
    fixed += "nothing empty low day dusk night here in view no option needs has path and walled "
    fixed = {*(fixed + "every action a noop until wake").split()}
    for i in range(len(states)):
        words = describe(states[i], env).lower().replace(".", " ").replace(":", " ").replace(";", " ").replace(",", " ")
        words = words.replace("(", " ").replace(")", " ").split()
        assert {w for w in words if not w.isdecimal()} <= closed | fixed


@pytest.mark.parametrize(("offset", "words"), [((0, 0), "here"), ((-2, 0), "2 left"), ((1, -3), "1 right 3 up")])
def test_offsets_are_said_from_the_players_point_of_view(offset, words):
    assert offset_words(*offset) == words


def test_daylight_has_three_words_with_fixed_borders():
    assert [daylight_word(n) for n in (0, 63, 64, 127, 128, 255)] == ["night", "night", "dusk", "dusk", "day", "day"]
