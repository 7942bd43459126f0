"""Steps that change the map, played in the real game on ground laid out by the test."""

import numpy as np
import pytest

from lore.envs.crafter.adapter import CrafterEnv
from lore.options.interpreter import Outcome, SkillRun
from lore_datasets.environments import get_environment
from lore_datasets.errors import SkillError
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import bound, parse_skill, skill_json_schema

VOCAB = get_environment("crafter").vocab
LETTERS = {".": "grass", "S": "stone", "T": "tree", "W": "water", "L": "lava", "p": "path", "I": "iron", "t": "table"}


def skill(*steps, done=None, max_steps=100):
    body = {"version": 1, "name": "test", "start": {"op": "true"}, "steps": list(steps), "max_steps": max_steps}
    return parse_skill({**body, "done": done or {"op": "false"}}, VOCAB)


class Ground:
    """A game without creatures on ground of the test's making; the player stands in the middle of the drawing."""

    def __init__(self, rows, facing=(0, 1), default="grass", **items):
        self.env = CrafterEnv(0, area=(32, 32), pixels=False)
        self.env.reset()
        world, player = self.env._world, self.env._player
        for thing in list(world.objects):
            if thing is not player:
                world.remove(thing)
        world._mat_map[:] = VOCAB.target(default)
        x0, y0 = player.pos.tolist()
        for y, row in enumerate(rows):
            for x, letter in enumerate(row):
                if letter != "@":
                    at = x0 + x - len(row) // 2, y0 + y - len(rows) // 2
                    world._mat_map[at] = VOCAB.target(LETTERS[letter])
        player.facing = facing
        player.inventory.update(items)
        self.view = StateView(self.env.step(0).state, VOCAB)

    def play(self, made):
        """Actions until the skill ended."""
        run, actions = SkillRun(made, VOCAB, np.random.default_rng(0)), []
        while not isinstance(action := run.next_action(self.view), Outcome):
            actions.append(VOCAB.actions[action])
            step = self.env.step(action)
            assert not step.is_terminal
            self.view = StateView(step.state, VOCAB)
        return actions, action


WALL_IN = {"do": "wall_in", "action": "place_stone", "limit": 50}


def test_in_the_open_a_room_of_four_cells_takes_eight_stones():
    ground = Ground(["@"], stone=9)
    actions, _ = ground.play(skill(WALL_IN))
    assert ground.view.is_enclosed() and ground.view.inventory("stone") == 1
    assert actions.count("place_stone") == 8 and len(actions) <= 17
    few = Ground(["@"], stone=7)
    assert few.play(skill(WALL_IN))[0] == [] and not few.view.is_enclosed()


def test_what_bars_the_way_already_saves_stones():
    ground = Ground([".SS.", "S@.S", ".SS."], stone=2)
    actions, _ = ground.play(skill(WALL_IN))
    assert ground.view.is_enclosed() and actions.count("place_stone") == 0 and actions == []
    ground = Ground(["..SS.", ".S@..", "..WT."], facing=(1, 0), stone=2)
    actions, _ = ground.play(skill(WALL_IN))
    assert ground.view.is_enclosed() and actions == ["place_stone"]


def test_rock_is_dug_into_and_the_entrance_closed_behind():
    rock = ["SSSSSSSSS"] * 3 + ["....@...."] + ["........."] * 3
    bare = Ground(rock, stone=2, wood_pickaxe=0)
    assert bare.play(skill({**WALL_IN, "through": "stone"}))[0] == []
    ground = Ground(rock, stone=2, wood_pickaxe=1)
    actions, _ = ground.play(skill({**WALL_IN, "through": "stone"}))
    assert ground.view.is_enclosed() and actions.count("place_stone") == 1 and len(actions) <= 8
    assert ground.play(skill(WALL_IN))[0] == []  # inside there is nothing to do


def test_random_ground_is_walled_in_wherever_a_room_is_begun():
    rng, begun, wanted = np.random.default_rng(4), 0, skill({**WALL_IN, "cells": 2, "through": ["stone", "tree"]})
    for _ in range(60):
        letters = rng.choice(list(".STWp"), p=[0.6, 0.15, 0.1, 0.1, 0.05], size=(7, 9))
        letters[3, 4] = "@"
        ground = Ground(["".join(row) for row in letters], stone=int(rng.integers(1, 9)), wood_pickaxe=1)
        actions, _ = ground.play(wanted)
        if actions:
            begun += 1
            assert ground.view.is_enclosed() and len(actions) < 30
    assert begun > 40


def test_a_room_beside_water_has_water_at_a_side():
    ground = Ground(["....WWWWW"] * 7, stone=9)
    ground.play(skill({**WALL_IN, "cells": 2, "beside": "water"}))
    assert ground.view.is_enclosed() and ground.view.reachable("water")


def test_a_creature_in_the_only_opening_leaves_the_player_open():
    from crafter import objects

    ground = Ground([".SSS.", ".S@..", ".SSS."], stone=0)
    assert not ground.view.is_enclosed()
    x, y = ground.env._player.pos.tolist()
    for kind in (objects.Zombie(ground.env._world, (x + 1, y), ground.env._player), objects.Cow):
        thing = kind if isinstance(kind, objects.Zombie) else kind(ground.env._world, (x + 1, y))
        ground.env._world.add(thing)
        view = StateView(ground.env._observe(0.0, False, False).state, VOCAB)
        assert view.at(1, 0) in ("zombie", "cow") and not view.is_enclosed()
        ground.env._world.remove(thing)


def test_ore_inside_rock_is_dug_up_to_with_a_pickaxe_only():
    rock = ["SSSISSSSS"] + ["SSSSSSSSS"] * 2 + ["SSSS@SSSS"] + ["SSSSSSSSS"] * 3
    dig = {"do": "dig_toward", "target": "iron", "through": ["stone"], "limit": 50}
    assert Ground(rock).play(skill(dig))[0] == []
    ground = Ground(rock, wood_pickaxe=1)
    actions, _ = ground.play(skill(dig))
    assert ground.view.facing == "iron" and ground.view.inventory("stone") == 3 and len(actions) <= 11
    assert Ground(rock, wood_pickaxe=1).play(skill({**dig, "limit": 3}))[0] == actions[:3]


def test_water_is_bridged_with_one_stone_that_is_dug_up_again_and_lava_is_left_alone():
    lake = ["WWWWWWWWW"] * 3 + ["WWWW@WWIS"] + ["LLLLLLLLL"] * 3
    dig = {"do": "dig_toward", "target": "iron", "through": ["stone", "water"], "limit": 50}
    assert Ground(lake, stone=1).play(skill(dig))[0] == []
    ground = Ground(lake, stone=1, wood_pickaxe=1)
    actions, _ = ground.play(skill(dig))
    assert ground.view.facing == "iron" and ground.view.inventory("stone") == 1
    assert actions.count("place_stone") == actions.count("do") == 2


def test_exploring_with_something_to_go_through_keeps_straight_on_and_without_walks_round():
    rock = ["SSSSSSSSS"] * 3 + ["SSSS@...."] + ["SSSSSSSSS"] * 3
    ground = Ground(rock, facing=(-1, 0), wood_pickaxe=1)
    actions, _ = ground.play(skill({"do": "explore", "through": ["stone", "coal"], "limit": 8}))
    assert actions == ["do", "move_left"] * 4
    assert Ground(rock, facing=(-1, 0)).play(skill({"do": "explore", "limit": 2}))[0] == ["move_right"] * 2


def test_going_to_what_is_out_of_reach_comes_as_close_as_asked_and_no_closer():
    ground = Ground(["........I"] + ["........."] * 6)
    actions, _ = ground.play(skill({"do": "go_to", "target": "iron", "within": 3, "limit": 50}))
    assert len(actions) == 4 and ground.view.near("iron", 3) and not ground.view.near("iron", 2)
    walled = Ground(
        ["SSSSSSSSI", "SSSSSSSSS", "SSSSpppSS", "SSSS@SSSS", "SSSSpSSSS", *["SSSSSSSSS"] * 2], default="stone"
    )
    assert (
        walled.play(skill({"do": "go_to", "target": "iron", "within": 1, "limit": 50}))[0]
        == ["move_up"] + ["move_right"] * 2
    )
    assert walled.view.nearest("iron") == (2, -2, 4)  # as near as a walk leads
    assert walled.play(skill({"do": "go_to", "target": "diamond", "within": 1, "limit": 50}))[0] == []


def test_a_plant_is_fenced_on_all_four_sides_and_eaten_through_the_fence_when_ripe():
    from crafter import objects

    library = {made.name: made for made in get_environment("crafter").skills}
    ground = Ground(["@"], stone=4, wood_pickaxe=1)
    world, (x, y) = ground.env._world, ground.env._player.pos.tolist()
    plant = objects.Plant(world, (x, y + 1))
    world.add(plant)
    ground.view = StateView(ground.env.step(0).state, VOCAB)
    actions, _ = ground.play(library["fence_plant"])
    assert actions.count("place_stone") == 4 and len(actions) <= 25
    assert all(world[(x + dx, y + 1 + dy)][0] == "stone" for dx, dy in ((0, 1), (0, -1), (1, 0), (-1, 0)))
    assert ground.play(library["fence_plant"])[0] == []
    plant.grown = 301
    ground.play(library["eat_plant"])
    assert ground.view.unlocked("eat_plant")


def test_standing_near_table_and_furnace_finds_the_cell_between_them():
    ground = Ground(["t........", ".........", "........."], stone=0)
    near = {"do": "stand_near", "target": ["table", "iron"], "limit": 20}
    assert ground.play(skill(near))[0] == []
    ground = Ground(["t.I......", ".........", "........."])
    assert len(ground.play(skill(near))[0]) == 3
    assert ground.view.near("table", 2) and ground.view.near("iron", 2)


def test_exploring_towards_rock_takes_the_heading_where_most_of_it_is_in_view():
    ground = Ground(["......SSS"] * 7, facing=(-1, 0), wood_pickaxe=1)
    step = {"do": "explore", "toward": ["stone", "coal"], "through": ["stone"], "limit": 6}
    assert ground.play(skill(step))[0] == ["move_right", "do"] * 3
    assert Ground(["@"], facing=(-1, 0)).play(skill({**step, "limit": 2}))[0] == ["move_left"] * 2


def test_waiting_is_not_being_stuck_but_the_same_action_by_name_is():
    ground = Ground(["@"])
    assert ground.play(skill({"do": "wait", "limit": 30}))[0] == ["noop"] * 30
    assert len(Ground(["@"]).play(skill({"do": "act", "action": "noop", "times": 30}))[0]) < 12


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ({"do": "go_to", "target": "iron", "limit": 5}, "missing"),
        ({"do": "go_to", "target": "iron", "within": 10, "limit": 5}, "within"),
        ({"do": "dig_toward", "target": "iron", "through": ["lava"], "limit": 5}, "no action opens lava"),
        ({"do": "dig_toward", "target": "iron", "through": [], "limit": 5}, "1..32"),
        ({"do": "explore", "through": "cow", "limit": 5}, "no action opens cow"),
        ({"do": "wall_in", "action": "sleep", "limit": 5}, "puts nothing"),
        ({"do": "fence", "target": "plant", "limit": 5}, "missing"),
        ({"do": "wait", "times": 5}, "missing"),
        ({"do": "wall_in", "action": "place_stone", "cells": 5, "limit": 5}, "1..4"),
        ({"do": "wall_in", "action": "place_stone", "limit": 51}, "1..50"),
    ],
)
def test_steps_outside_the_language_are_refused_with_their_place(step, what):
    with pytest.raises(SkillError, match=what):
        skill(step)


def test_every_new_step_is_bounded_survives_its_canonical_form_and_stands_in_the_schema():
    steps = [
        {"do": "go_to", "target": ["iron", "coal"], "within": 2, "limit": 5},
        {"do": "dig_toward", "target": "iron", "through": ["stone"], "limit": 6},
        {"do": "explore", "through": ["stone", "water"], "limit": 7},
        {**WALL_IN, "cells": 2, "beside": "water", "through": "stone", "limit": 8},
        {"do": "stand_near", "target": ["table", "furnace"], "limit": 9},
        {"do": "fence", "target": "plant", "action": "place_stone", "limit": 10},
        {"do": "wait", "limit": 11},
    ]
    made = skill(*steps)
    assert bound(made) == 56 and parse_skill(made.to_json(), VOCAB) == made
    forms = skill_json_schema(VOCAB)["properties"]["steps"]["items"]["anyOf"]
    assert {"go_to", "dig_toward", "wall_in", "stand_near", "fence", "wait"} <= {
        form["properties"]["do"]["enum"][0] for form in forms
    }
