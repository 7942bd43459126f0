"""Skills earn their slots: calls are judged by the reward of as many steps as primitive actions are."""

import json

import numpy as np
import pytest

from lore.options.slots import Slots
from lore.options.worth import DOUBT, HORIZON, MIN_TRIALS, Worth

NAMES = ("a", "b", "c")
PRIMITIVE = -1
FIT = np.array([0.5, 0.4, 0.3])


def live(worth: Worth, rng: np.random.Generator, skill: int, pays: float, steps: int = 150) -> None:
    """An episode: one call of a skill that pays ``pays`` in its fifth step, then primitive actions that pay .02 each
    on average."""
    worth.start(0, skill)
    for step in range(steps):
        worth.step(0, (pays if step == 4 else 0.0) if step < 10 else float(rng.random() < 0.02))
        if step >= 10:
            worth.start(0, PRIMITIVE)
    worth.end(0)


def test_a_skill_is_judged_by_the_steps_after_the_call_as_much_as_by_its_own():
    worth = Worth(1)
    worth.start(0, 0)
    for reward in [0.0] * (HORIZON - 1) + [1.0, 5.0]:  # the last comes too late
        worth.step(0, reward)
    assert (worth.means[0].weight, worth.means[0].mean) == (1.0, 1.0)


def test_an_episode_that_ends_ends_its_trials_and_environments_stay_apart():
    worth = Worth(2)
    worth.start(0, 0)
    worth.start(3, 1)
    worth.step(0, 0.5)
    worth.end(0)
    assert worth.means[0].mean == 0.5 and worth.means[1].weight == 0.0
    worth.forget_open()
    worth.end(3)
    assert worth.means[1].weight == 0.0


def test_a_skill_that_earns_less_than_primitive_actions_waits_and_one_that_earns_more_stays():
    slots, rng = Slots(2, NAMES, threshold=0.0), np.random.default_rng(0)
    slots.fill(FIT)
    for use in range(60):
        live(slots.worth, rng, 0, pays=-0.2)
        live(slots.worth, rng, 1, pays=1.0)
        if use < MIN_TRIALS - 1:
            assert slots.rest(FIT) == []
    assert slots.rest(FIT) == ["a"] and slots.rest(FIT) == []
    slots.fill(FIT)
    assert slots.skill.tolist() == [2, 1]
    assert slots.release(np.array([9.0, 0.4, 0.3])) == []  # what waits takes no place
    assert slots.metrics()["options/waiting"] == 1.0
    slots.recall()
    assert slots.release(np.array([9.0, 0.4, 0.3])) == ["c"]
    slots.fill(np.array([9.0, 0.4, 0.3]))
    assert slots.skill.tolist() == [0, 1] and slots.rest(FIT) == []  # judged afresh


def test_with_a_slot_for_each_nobody_waits():
    slots, rng = Slots(3, NAMES, threshold=0.0), np.random.default_rng(0)
    slots.fill(np.ones(3))
    for _ in range(60):
        live(slots.worth, rng, 0, pays=-0.2)
    assert slots.worth.behind(0) > DOUBT and slots.rest(FIT) == [] and slots.skill.tolist() == [0, 1, 2]


def test_skills_that_do_no_better_and_no_worse_than_primitive_actions_keep_their_slots():
    kept = 0
    for seed in range(20):
        worth, rng = Worth(1), np.random.default_rng(seed)
        kept += 1
        for _ in range(40):
            worth.start(0, 0)
            for _ in range(40):
                worth.step(0, float(rng.random() < 0.02))
                worth.start(0, PRIMITIVE)
            worth.end(0)
            if worth.behind(0) > 3.0:  # asked after every episode
                kept -= 1
                break
    assert kept >= 18


def test_worth_is_saved_with_the_slots_and_a_checkpoint_of_before_has_none():
    slots, other = (Slots(2, NAMES, 0.5) for _ in range(2))
    live(slots.worth, np.random.default_rng(0), 1, 1.0)
    slots.worth.start(0, 2)
    slots.worth.step(0, 0.25)
    slots.statistics[0].waits = True
    state = json.loads(json.dumps(slots.state_dict()))
    other.load_state_dict(state)
    assert other.state_dict() == slots.state_dict()
    other.worth.end(0)
    assert other.worth.means[2].mean == 0.25
    del state["worth"]
    for used in state["statistics"]:
        del used["waits"], used["cut"]
    before = Slots(2, NAMES, 0.5)
    before.load_state_dict(state)
    assert before.worth.behind(1) == 0.0


@pytest.mark.parametrize("calls", [MIN_TRIALS - 1, 0])
def test_nothing_is_concluded_from_a_few_calls(calls):
    worth = Worth(1)
    for _ in range(calls):
        worth.start(0, 0)
        worth.end(0)
    for _ in range(500):
        worth.start(0, PRIMITIVE)
        worth.step(0, 1.0)
    assert worth.behind(0) == 0.0
