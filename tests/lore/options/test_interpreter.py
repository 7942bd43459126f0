"""Skills at work: ends, bounds, snapshots, proposals and the base library in the real game."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lore.envs.crafter.adapter import CrafterEnv
from lore.options.interpreter import DONE, PATIENCE, Outcome, SkillRun, propose
from lore.options.play import GoalPlayer
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import OptionSpec, bound, from_option_spec, parse_skill
from lore_datasets.types import SymbolicState

ENV = get_environment("crafter")
VOCAB = ENV.vocab
TRUE, FALSE = {"op": "true"}, {"op": "false"}


def skill(steps, start=TRUE, done=FALSE, max_steps=100, **more):
    body = {"version": 1, "name": "test", "start": start, "steps": steps, "done": done, "max_steps": max_steps}
    return parse_skill({**body, **more}, VOCAB)


def act(action, times=1):
    return {"do": "act", "action": action, "times": times}


def state(**changes):
    """Open grass, the player facing down; fields may be replaced."""
    view = np.full((7, 9), VOCAB.target("grass"), np.uint8)
    view[3, 4] = VOCAB.target("player")
    base = SymbolicState(
        view=view,
        inventory=np.zeros(len(VOCAB.items), np.uint8),
        vitals=np.full(4, 9, np.uint8),
        facing=np.uint8(3),
        sleeping=np.uint8(0),
        daylight=np.uint8(200),
        unlocked=np.zeros(len(VOCAB.achievements), np.uint8),
    )
    return replace(base, **changes)


def changing(i=0, **changes):
    """A view whose count of saplings tells ``i``, so that something always changes."""
    inventory = np.zeros(len(VOCAB.items), np.uint8)
    inventory[0] = i % 7
    return StateView(state(inventory=inventory, **changes), VOCAB)


def run_out(run, limit=600):
    """Actions until the run ends in a world that always changes."""
    actions = []
    for i in range(limit):
        action = run.next_action(changing(i))
        if isinstance(action, Outcome):
            return [VOCAB.actions[a] for a in actions], action
        actions.append(action)
    raise AssertionError("the run never ended")


def test_steps_are_played_in_order_with_their_counts_and_the_run_ends_exhausted():
    body = [act("do", 2), {"do": "repeat", "times": 2, "body": [act("noop"), act("sleep")]}, act("place_stone")]
    actions, outcome = run_out(SkillRun(skill(body), VOCAB))
    assert actions == ["do", "do", "noop", "sleep", "noop", "sleep", "place_stone"] and outcome is Outcome.exhausted


def test_until_and_if_ask_the_present_state():
    has = {"op": "inventory", "item": "sapling", "cmp": ">=", "value": 3}
    body = [
        {"do": "until", "cond": has, "limit": 20, "body": [act("noop")]},
        {"do": "if", "cond": has, "then": [act("do")], "otherwise": [act("sleep")]},
    ]
    actions, _ = run_out(SkillRun(skill(body), VOCAB))
    assert actions == ["noop"] * 3 + ["do"]


def test_done_is_read_before_abort_and_both_before_every_action():
    three = {"op": "inventory", "item": "sapling", "cmp": ">=", "value": 3}
    run = SkillRun(skill([act("noop", 50)], done=three, abort=three), VOCAB)
    assert run_out(run) == (["noop"] * 3, Outcome.done)
    assert run.next_action(changing(0)) is Outcome.done
    run = SkillRun(skill([act("noop", 50)], abort=three), VOCAB)
    assert run_out(run) == (["noop"] * 3, Outcome.aborted)


def test_a_run_stops_at_its_maximum_of_steps():
    actions, outcome = run_out(SkillRun(skill([act("noop", 50)], max_steps=7), VOCAB))
    assert len(actions) == 7 and outcome is Outcome.timeout


def test_falling_health_interrupts_unless_told_otherwise():
    hurt = changing(1, vitals=np.array([7, 9, 9, 9], np.uint8))
    for interruptible in (True, False):
        run = SkillRun(skill([act("noop", 50)]), VOCAB, interruptible=interruptible)
        assert run.next_action(changing(0)) == 0
        assert (run.next_action(hurt) is Outcome.interrupted) == interruptible


def test_eight_actions_without_any_change_are_stuck_but_sleep_is_waiting():
    run = SkillRun(skill([act("do", 50)]), VOCAB)
    answers = [run.next_action(changing(0)) for _ in range(PATIENCE + 1)]
    assert answers == [VOCAB.action("do")] * PATIENCE + [Outcome.stuck]
    asleep = SkillRun(skill([act("sleep", 50)]), VOCAB)
    view = changing(0, sleeping=np.uint8(1))
    assert [asleep.next_action(view) for _ in range(30)] == [VOCAB.action("sleep")] * 30


def test_silent_loops_end_without_an_action():
    empty = {"do": "move_toward", "target": "diamond", "limit": 50}
    body = [{"do": "repeat", "times": 50, "body": [empty]}]
    assert run_out(SkillRun(skill(body), VOCAB)) == ([], Outcome.exhausted)


def random_step(rng, depth):
    kind = rng.integers(7 if depth < 4 else 4)
    target, limit = str(rng.choice(["tree", "grass", "zombie"])), int(rng.integers(1, 5))
    body = lambda: [random_step(rng, depth + 1) for _ in range(rng.integers(1, 3))]  # noqa: E731
    cond = {"op": "inventory", "item": "sapling", "cmp": str(rng.choice(["<", ">="])), "value": int(rng.integers(7))}
    return [
        lambda: act(str(rng.choice(VOCAB.actions)), limit),
        lambda: {"do": "move_toward", "target": target, "limit": limit},
        lambda: {"do": "flee", "target": target, "limit": limit},
        lambda: {"do": "explore", "limit": limit},
        lambda: {"do": "repeat", "times": limit, "body": body()},
        lambda: {"do": "until", "cond": cond, "limit": limit, "body": body()},
        lambda: {"do": "if", "cond": cond, "then": body(), "otherwise": body()},
    ][kind]()


def test_random_skills_end_within_their_bound_and_only_play_known_actions():
    rng = np.random.default_rng(0)
    for _ in range(150):
        made = skill([random_step(rng, 1)], max_steps=int(rng.integers(1, 80)))
        actions, _ = run_out(SkillRun(made, VOCAB, rng))
        assert len(actions) <= bound(made) and set(actions) <= set(VOCAB.actions)


def test_a_saved_run_continues_where_it_was():
    body = [{"do": "repeat", "times": 3, "body": [act("noop", 2), {"do": "explore", "limit": 2}]}, act("do", 3)]
    first = SkillRun(skill(body), VOCAB)
    for i in range(5):
        first.next_action(changing(i))
    second = SkillRun(skill(body), VOCAB)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [first.next_action(changing(i)) for i in range(12)] == [second.next_action(changing(i)) for i in range(12)]
    assert second.elapsed == first.elapsed > 5
    with pytest.raises(BadInput, match="saved run"):
        SkillRun(ENV.skills[0], VOCAB).load_state_dict(first.state_dict())


def test_exploring_holds_a_heading_and_takes_another_only_when_blocked():
    run = SkillRun(ENV.skills[0], VOCAB, np.random.default_rng(3))
    headings = {run.next_action(changing(i)) for i in range(12)}
    assert len(headings) == 1
    wall = state().view.copy()
    wall[:, 3] = wall[:, 5] = wall[2, :] = VOCAB.target("stone")
    wall[4:, 4] = VOCAB.target("grass")
    wall[3, 4] = VOCAB.target("player")
    assert run.next_action(changing(1, view=wall)) == VOCAB.action("move_down")


def test_the_original_fixed_action_lists_run_as_skills():
    spec = OptionSpec("old_style", "old", "three moves", [1, 1, 5], 3, 0.5)
    actions, outcome = run_out(SkillRun(from_option_spec(spec, VOCAB), VOCAB))
    assert actions == ["move_left", "move_left", "do"] and outcome in (Outcome.exhausted, Outcome.timeout)


def test_proposals_are_first_actions_and_say_where_a_skill_cannot_start_and_where_its_goal_is_reached():
    view = changing(0)
    found = dict(zip([s.name for s in ENV.skills], propose(ENV.skills, view).tolist(), strict=True))
    assert found["explore"] == VOCAB.action("move_down") and found["collect_sapling"] == VOCAB.action("do")
    assert found["collect_wood"] == found["make_wood_pickaxe"] == -1 and found["sleep"] == DONE
    assert propose(ENV.skills, view).dtype == np.int16
    over = skill([act("do")], done=TRUE)
    assert propose([over], view).tolist() == [DONE]


def test_proposals_equal_the_first_action_of_a_run_on_played_states():
    env, rng = CrafterEnv(3, area=(32, 32), pixels=False), np.random.default_rng(0)
    env.reset()
    compared = 0
    for _ in range(200):
        step = env.reset() if env.last.is_last else env.step(int(rng.integers(17)))
        view = StateView(step.state, VOCAB)
        for one, first in zip(ENV.skills, propose(ENV.skills, view), strict=True):
            if first >= 0:
                assert SkillRun(one, VOCAB).next_action(view) == first
                compared += 1
    assert compared > 400


def test_the_base_library_is_named_by_goals_and_every_achievement_but_none_is_without_a_skill():
    names = [s.name for s in ENV.skills]
    assert len(set(names)) == len(names) and len(names) == 33
    assert set(VOCAB.achievements) - set(names) == {"wake_up"} and {"sleep", "explore", "flee"} <= set(names)
    assert all(s.about and bound(s) <= 200 for s in ENV.skills)


def test_a_skill_walks_to_a_tree_in_the_real_game_and_collects_wood():
    wood = next(s for s in ENV.skills if s.name == "collect_wood")
    collected = []
    env = CrafterEnv(0, pixels=False)
    for _ in range(5):
        step = env.reset()
        run = SkillRun(wood, VOCAB)
        while not isinstance(action := run.next_action(StateView(step.state, VOCAB)), Outcome):
            step = env.step(action)
        collected.append(step.info["achievements"][VOCAB.index("achievements", "collect_wood")])
    assert max(collected) >= 3 and sum(c > 0 for c in collected) >= 3


def test_the_shelter_closes_a_room_in_the_open_in_the_real_game():
    shelter = next(s for s in ENV.skills if s.name == "shelter")
    env = CrafterEnv(0, area=(32, 32), pixels=False)
    env.reset()
    for thing in env._world.objects:
        if thing is not env._player:
            env._world.remove(thing)
    env._world._mat_map[:] = VOCAB.target("grass")
    env._player.inventory["stone"] = 8
    view = StateView(env.step(0).state, VOCAB)
    assert not view.is_enclosed()
    run = SkillRun(shelter, VOCAB)
    while not isinstance(action := run.next_action(view), Outcome):
        view = StateView(env.step(action).state, VOCAB)
    assert view.is_enclosed() and view.inventory("stone") == 0 and run.elapsed <= 16


def test_a_goal_player_holds_its_choice_and_passes_a_failed_skill_over():
    asked = []

    def choose(view):
        asked.append(view)
        return [("collect_sapling", 2.0), ("explore", 1.0)]

    player, rng = GoalPlayer(choose, ENV.skills, VOCAB, hold=12), np.random.default_rng(0)
    still = StateView(state(), VOCAB)
    actions = [player(still, rng) for _ in range(PATIENCE + 1)]
    assert actions[:PATIENCE] == [VOCAB.action("do")] * PATIENCE and len(asked) == 2
    assert player.goal == "explore" and player.outcomes == {("collect_sapling", "stuck"): 1}
    player.reset()
    assert player.goal is None
    primitive = GoalPlayer(lambda view: [("place_table", 1.0)], [], VOCAB)
    assert primitive(still, rng) == VOCAB.action("place_table")
