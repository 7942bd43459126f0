"""One state as a small map, drawn as text: what is near, what can be reached, which step leads there."""

import itertools

import numpy as np
import pytest

from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput
from lore_datasets.language.geometry import StateView
from lore_datasets.types import SymbolicState

ENV = get_environment("crafter")
VOCAB = ENV.vocab
LETTERS = {
    ".": "grass", "T": "tree", "W": "water", "S": "stone", "p": "path", "L": "lava", "c": "coal", "t": "table",
    "f": "furnace", "Z": "zombie", "K": "skeleton", "C": "cow", " ": "nothing", "@": "player", "P": "plant",
}  # fmt: skip
MOVES = {"left": 1, "right": 2, "up": 3, "down": 4}


def draw(text, facing="down", vitals=(9, 9, 9, 9), unlocked=(), sleeping=0, **items):
    """A view from seven rows of nine letters."""
    rows = [row.strip() for row in text.strip().splitlines()]
    rows = [row[1:-1] if row.startswith("|") else row for row in rows]
    view = np.array([[VOCAB.target(LETTERS[c]) for c in row] for row in rows], np.uint8)
    state = SymbolicState(
        view=view,
        inventory=np.array([items.get(name, 0) for name in VOCAB.items], np.uint8),
        vitals=np.array(vitals, np.uint8),
        facing=np.uint8([name for name, *_ in VOCAB.directions].index(facing)),
        sleeping=np.uint8(sleeping),
        daylight=np.uint8(200),
        unlocked=np.array([name in unlocked for name in VOCAB.achievements], np.uint8),
    )
    return StateView(state, VOCAB)


OPEN = """
    |.........|
    |.........|
    |.........|
    |....@....|
    |.........|
    |.........|
    |.........|
"""
WALLED = """
    |T........|
    |...SSS...|
    |...S.S...|
    |..SS@SW..|
    |...S.S...|
    |...S.....|
    |...SSS..C|
"""
LAVA = """
    |LLLLLLLLL|
    |LLLLLLLLL|
    |LLLL.LLLL|
    |.....LLLL|
    |LLLLLLLLL|
    |T...LLLLL|
    |LLLLLLLLL|
"""


def follow(view, actions):
    """Where a list of move actions leads on the drawn map: (dx, dy, facing cell name)."""
    x = y = 0
    dx, dy = view.facing_cell
    for action in actions:
        dx, dy = next((a, b) for _, a, b, name in VOCAB.directions if VOCAB.action(name) == action)
        if view.at(x + dx, y + dy) in VOCAB.walkable:
            x, y = x + dx, y + dy
    return x, y, view.at(x + dx, y + dy)


def test_inventory_vitals_and_unlocked_are_read_by_name():
    view = draw(OPEN, vitals=(7, 6, 5, 4), unlocked=("wake_up",), wood=3, sleeping=1)
    assert (view.inventory("wood"), view.inventory("stone")) == (3, 0)
    assert [view.vital(v) for v in VOCAB.vitals] == [7, 6, 5, 4]
    assert view.unlocked("wake_up") and not view.unlocked("collect_wood") and view.sleeping


def test_near_and_nearest_use_manhattan_distance_in_the_crop():
    view = draw(WALLED)
    assert view.nearest("water") == (2, 0, 2) and view.nearest(("tree", "cow"))[2] == 7 and view.nearest("coal") is None
    assert view.near("water", 2) and not view.near("water", 1) and not view.near("coal", 9)
    assert view.count("stone", within=1) == 2


def test_only_what_a_walkable_path_leads_beside_is_reachable():
    view = draw(WALLED)
    assert view.reachable("cow") and view.reachable("stone") and view.reachable("tree")
    assert view.walk_distance("stone") == 0
    closed = draw(WALLED.replace("|...S.....|", "|...S.S...|"))
    assert not closed.reachable("cow") and not closed.reachable("tree") and closed.near("tree", 9)


def test_a_path_is_shortest_ends_beside_the_target_and_faces_it():
    view = draw(WALLED)
    for target in ("cow", "tree"):
        path = view.path_to(target)
        *_, ahead = follow(view, path)
        assert ahead == target
        assert view.walk_distance(target) <= len(path) <= view.walk_distance(target) + 1
        assert view.step_toward(target) == path[0]


def test_walking_by_steps_reaches_what_walking_by_path_reaches():
    text = ["TT.......", ".S.......", ".SSSSSS..", "....@.S..", "SSSSSSS..", ".........", "........."]
    path = draw("\n".join(text)).path_to("tree")
    x, facing = 4, "down"
    taken = []
    for _ in range(30):  # the crop is the same world, the player's letter moves and the map scrolls with it
        rows = [row.replace("@", ".") for row in text]
        padded = [" " * 9 + row + " " * 9 for row in rows]
        pad = [" " * 27] * 7
        world = [*pad, *padded, *pad]
        y = next(i for i, row in enumerate(text) if "@" in row)
        crop = [world[y + 7 - 3 + j][x + 9 - 4 : x + 9 + 5] for j in range(7)]
        crop[3] = crop[3][:4] + "@" + crop[3][5:]
        view = draw("\n".join(f"|{row}|" for row in crop), facing=facing)
        action = view.step_toward("tree")
        if action is None:
            break
        taken.append(action)
        facing = next(name for name, number in MOVES.items() if number == action)
        dx, dy = next((a, b) for name, a, b, _ in VOCAB.directions if name == facing)
        if rows[y + dy][x + dx] == ".":
            text = rows
            x, y = x + dx, y + dy
            text[y] = text[y][:x] + "@" + text[y][x + 1 :]
    assert view.facing == "tree" and len(taken) == len(path)


def test_a_turn_without_a_walk_is_the_move_towards_the_target_and_none_when_facing_it():
    assert draw(WALLED, facing="down").step_toward("stone") in (MOVES["left"], MOVES["right"])
    facing = draw(WALLED, facing="left")
    assert facing.facing == "stone" and facing.step_toward("stone") is None and facing.path_to("stone") == []
    assert draw(OPEN).step_toward("coal") is None and draw(OPEN).path_to("coal") == []


def test_turning_onto_free_ground_prefers_sideways_so_that_what_was_ahead_stays_near():
    table = OPEN.replace("@....", "@t...")
    assert draw(table, facing="right").step_toward("grass") in (MOVES["up"], MOVES["down"])


@pytest.mark.parametrize("facing", list(MOVES))
def test_no_proposed_step_ever_leads_onto_lava(facing):
    view = draw(LAVA.replace("|.....LLLL|", "|....@LLLL|"), facing=facing)
    deadly = {MOVES["right"], MOVES["down"]}
    steps = {view.step_toward(t) for t in VOCAB.targets} | {view.step_away(t) for t in VOCAB.targets}
    steps |= {view.step_along(d) for d in range(4)} | {view.path_to(t)[0] for t in VOCAB.targets if view.path_to(t)}
    assert not steps & deadly and MOVES["left"] in steps
    assert view.reachable("lava") and not view.reachable("tree")
    assert not view.feasible_actions()[list(deadly)].any()


def test_no_path_ends_on_or_crosses_lava_in_random_maps():
    rng = np.random.default_rng(0)
    letters = np.array(list("...TSLLpW"))
    for _ in range(300):
        rows = ["".join(rng.choice(letters, 9)) for _ in range(7)]
        rows[3] = rows[3][:4] + "@" + rows[3][5:]
        view = draw("\n".join(f"|{row}|" for row in rows), facing=str(rng.choice(list(MOVES))))
        paths = [view.path_to(target) for target in ("tree", "stone", "water", "lava", "grass")]
        for path in [*paths, *(view.path_along(direction) for direction in range(4))]:
            x = y = 0
            for action in path:
                dx, dy = next((a, b) for _, a, b, name in VOCAB.directions if VOCAB.action(name) == action)
                assert view.at(x + dx, y + dy) != "lava"
                if view.at(x + dx, y + dy) in VOCAB.walkable:
                    x, y = x + dx, y + dy


def test_stepping_away_gains_distance_or_is_not_proposed():
    zombie = OPEN.replace("@....", "@Z...")
    view = draw(zombie)
    assert view.step_away("zombie") in (MOVES["left"], MOVES["up"], MOVES["down"])
    assert draw(OPEN).step_away("zombie") is None
    assert draw(WALLED.replace("|...S.S...|", "|...SZS...|", 1)).step_away("zombie") == MOVES["down"]
    corner = "\n".join(["|SSSSSSSSS|"] * 3 + ["|SSSS@ZSSS|"] + ["|SSSSSSSSS|"] * 3)
    assert draw(corner).step_away("zombie") is None and draw(corner).free_directions() == ()


def test_exploring_goes_round_obstacles_and_stops_at_closed_walls():
    view = draw(OPEN.replace("@....", "@T..."), facing="right")
    assert view.step_along(1) in (MOVES["up"], MOVES["down"])
    tunnel = "\n".join(["|SSSSSSSSS|"] * 3 + ["|ppppppSSS|".replace("pppppp", "pppp@S")] + ["|SSSSSSSSS|"] * 3)
    assert draw(tunnel).step_along(1) is None and draw(tunnel).step_along(0) == MOVES["left"]
    assert draw(tunnel).free_directions() == (0,)
    assert draw(tunnel).path_along(0) == [MOVES["left"]] * 4 and draw(tunnel).path_along(1) == []


def test_can_follows_the_recipe_table():
    ahead = lambda letter: OPEN.replace("@....", f"@{letter}...")  # noqa: E731
    assert draw(ahead("T"), "right").can("do") and not draw(ahead("S"), "right").can("do")
    assert draw(ahead("S"), "right", wood_pickaxe=1).can("do")
    assert not draw(OPEN, wood=1).can("place_table") and draw(OPEN, wood=2).can("place_table")
    assert not draw(ahead("T"), "right", wood=2).can("place_table")
    assert draw(ahead("W"), "right", stone=1).can("place_stone") and draw(ahead("L"), "right", stone=1).can(
        "place_stone"
    )
    assert not draw(OPEN, stone=3).can("place_furnace") and draw(OPEN, stone=4).can("place_furnace")
    assert draw(OPEN).can("noop") and draw(OPEN).can("move_left") and not draw(ahead("T")).can("move_right")


def test_crafting_needs_the_table_in_the_three_by_three_block():
    rows = OPEN.strip().splitlines()
    for y, x in itertools.product(range(7), range(9)):
        if (y, x) == (3, 4):
            continue
        mine = [row.strip().strip("|") for row in rows]
        mine[y] = mine[y][:x] + "t" + mine[y][x + 1 :]
        near = abs(y - 3) <= 1 and abs(x - 4) <= 1
        assert draw("\n".join(mine), wood=1).can("make_wood_pickaxe") == near, (x, y)
    iron = OPEN.replace("|....@....|", "|...t@f...|")
    assert draw(iron, wood=1, coal=1, iron=1).can("make_iron_sword")
    assert not draw(iron.replace("f", "."), wood=1, coal=1, iron=1).can("make_iron_sword")


def test_beside_the_border_of_the_map_nothing_counts_as_near():
    rows = ["|    .....|"] * 7
    rows[3] = "|    @t...|"
    assert draw("\n".join(rows), wood=1).reachable("table") and not draw("\n".join(rows), wood=1).can("make_wood_sword")


def test_a_room_is_enclosed_until_one_wall_is_open():
    assert not draw(OPEN).is_enclosed()
    closed = WALLED.replace("|...S.....|", "|...S.S...|")
    assert draw(closed).is_enclosed() and not draw(WALLED).is_enclosed()


def test_feasible_actions_keep_turns_and_drop_what_has_no_effect():
    view = draw(WALLED, facing="left", wood=2)
    feasible = dict(zip(VOCAB.actions, view.feasible_actions().tolist(), strict=True))
    assert feasible["move_right"] and feasible["move_up"] and not feasible["move_left"]
    assert not feasible["do"] and not feasible["place_table"] and feasible["noop"]


def test_a_batch_or_another_layout_is_refused_and_names_are_checked():
    view = draw(OPEN)
    with pytest.raises(BadInput, match="one packed state"):
        StateView(np.zeros((2, ENV.layout.size), np.uint8), VOCAB)
    wrong = np.zeros(ENV.layout.size, np.uint8)
    wrong[0] = 200
    with pytest.raises(BadInput, match="out of range"):
        StateView(wrong, VOCAB)
    with pytest.raises(BadInput, match="zombi"):
        view.reachable("zombi")
    with pytest.raises(BadInput, match="fly"):
        view.can("fly")
