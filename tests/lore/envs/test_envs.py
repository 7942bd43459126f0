"""The Crafter adapter: what is seen, what is hidden, what is reproducible."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from lore.config import EnvConfig
from lore.envs import make_env
from lore.envs.base import Env
from lore.envs.crafter.adapter import CrafterEnv
from lore_datasets.errors import BadInput, ConfigError, CorruptArtifact, UsageError
from lore_datasets.types import SymbolicState

SMALL = (32, 32)

TRAJECTORY = """
import hashlib, numpy as np
from lore.envs.crafter.adapter import CrafterEnv
env = CrafterEnv(5, area=(32, 32)); rng = np.random.default_rng(0); digest = hashlib.sha256(); step = env.reset()
for i in range(2000):
    step = env.reset() if step.is_last else env.step(int(rng.integers(17)))
    env._player.health = max(env._player.health, 4 + i % 6)
    digest.update(step.image.tobytes() + step.state.tobytes())
    digest.update(repr((step.reward, step.is_first, step.is_last, step.is_terminal)).encode())
print(digest.hexdigest())
"""


def view_of(env):
    return SymbolicState.unpack(env.last.state, env.spec.layout)


def walk(env, steps, seed=0, alive=False):
    """Random play; ``alive`` keeps the health up so that one episode runs through nights."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(steps):
        out.append(env.reset() if env.last.is_last else env.step(int(rng.integers(17))))
        if alive:
            env._player.health = 9
    return out


def same(a, b):
    return (
        a[2:6] == b[2:6]
        and np.array_equal(a.state, b.state)
        and np.array_equal(a.info["achievements"], b.info["achievements"])
    )


@pytest.fixture(scope="module")
def played():
    env = CrafterEnv(1, area=SMALL)
    env.reset()
    walk(env, 60)
    return env


def test_two_fresh_processes_with_other_hash_seeds_play_the_same_trajectory():
    found = set()
    for hash_seed in ("1", "77"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", TRAJECTORY], env=env, capture_output=True, text=True, check=True)
        found.add(done.stdout.strip())
    assert len(found) == 1 and len(found.pop()) == 64


def test_the_frames_and_rewards_are_those_of_the_package_with_ordered_chunks():
    import crafter
    from crafter import engine

    from lore.envs.crafter.world import OrderedWorld

    stock = crafter.Env(area=SMALL, seed=3)
    stock._world = OrderedWorld(SMALL, crafter.constants.materials, (12, 12))
    stock._local_view = engine.LocalView(stock._world, stock._textures, [9, 7])
    stock._sem_view = lambda: None
    env, rng = CrafterEnv(3, area=SMALL), np.random.default_rng(0)
    assert np.array_equal(stock.reset(), env.reset().image)
    for i in range(700):
        action = int(rng.integers(17))
        image, reward, done, _ = stock.step(action)
        step = env.step(action)
        assert np.array_equal(image, step.image) and reward == step.reward and done == step.is_last, i
        if done:
            assert np.array_equal(stock.reset(), env.reset().image)
        stock._player.health = env._player.health = 9
    assert stock._world.random.randint(2**31 - 1) == env._world.random.randint(2**31 - 1)


def test_pixels_and_symbolic_runs_are_the_same_game_through_a_night():
    runs = []
    for pixels in (True, False):
        env = CrafterEnv(7, area=SMALL, pixels=pixels)
        env.reset()
        runs.append((walk(env, 330, alive=True), env._world.random.get_state()[1:3]))
    (first, random_a), (second, random_b) = runs
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert random_a[1] == random_b[1] and np.array_equal(random_a[0], random_b[0])
    assert first[0].image.shape == (64, 64, 3) and second[0].image is None


def test_rendering_between_steps_changes_nothing_and_symbolic_renders_equal_the_pixel_frames():
    envs = [CrafterEnv(9, area=SMALL), CrafterEnv(9, area=SMALL, pixels=False)]
    for env in envs:
        env.reset()
    rng = np.random.default_rng(2)
    for _ in range(260):
        action = int(rng.integers(17))
        steps = [env.step(action) for env in envs]
        assert np.array_equal(steps[0].image, envs[1].render())
        assert np.array_equal(envs[1].render(), envs[0].render())
        for env in envs:
            env._player.health = 9


def test_nothing_outside_the_crop_reaches_the_state(played):
    env = CrafterEnv(1, area=SMALL)
    env.load_state_dict(played.state_dict())
    x, y = (int(v) for v in env._player.pos)
    before, frame = env._observe(0.0, False, False).state, env._paint(*env._crop())
    rng = np.random.default_rng(0)
    hidden = np.ones(SMALL, bool)
    hidden[max(0, x - 4) : x + 5, max(0, y - 3) : y + 4] = False
    env._world._mat_map[hidden] = rng.integers(1, 13, hidden.sum())
    for thing in env._world.objects:
        if hidden[tuple(thing.pos)]:
            env._world.remove(thing)
    after = env._observe(0.0, False, False).state
    assert np.array_equal(before, after) and np.array_equal(frame, env._paint(*env._crop()))
    env._world._mat_map[x, y - 3] = 7
    assert not np.array_equal(env._observe(0.0, False, False).state, before)


def test_a_plants_age_and_a_creatures_health_are_not_in_the_state():
    from crafter import objects

    env = CrafterEnv(1, area=SMALL, pixels=False)
    env.reset()
    plant = objects.Plant(env._world, env._player.pos + np.array([1, 0]))
    cow = objects.Cow(env._world, env._player.pos + np.array([-1, 0]))
    for thing in (plant, cow):
        if env._world[thing.pos][1] is None:
            env._world.add(thing)
    before = env._observe(0.0, False, False).state
    plant.grown, cow.health = 400, 1
    assert plant.ripe
    assert np.array_equal(env._observe(0.0, False, False).state, before)
    assert "plant" in [env.spec.vocab.targets[i] for i in before[:63]]


def test_the_state_matches_the_packages_own_semantic_map(played):
    from crafter import engine, objects

    env = CrafterEnv(4, area=SMALL, pixels=False)
    env.reset()
    kinds = [objects.Player, objects.Cow, objects.Zombie, objects.Skeleton, objects.Arrow, objects.Plant]
    semantic = engine.SemanticView(env._world, kinds)
    for step in walk(env, 150, seed=3, alive=True):
        x, y = env._player.pos
        padded = np.pad(semantic(), ((4, 4), (3, 3)))
        assert np.array_equal(view_of(env).view, padded[x : x + 9, y : y + 7].T)
        assert step.state.dtype == np.uint8 and step.state.shape == (env.spec.layout.size,)


def test_facing_sleeping_inventory_and_daylight_come_from_the_player_and_the_world():
    env = CrafterEnv(2, area=SMALL, pixels=False)
    env.reset()
    vocab = env.spec.vocab
    for direction, (_, dx, dy, action) in enumerate(vocab.directions):
        env.step(vocab.action(action))
        assert view_of(env).facing == direction and tuple(env._player.facing) == (dx, dy)
    env._player.inventory.update(energy=3, wood=5, iron_sword=1)
    env.step(vocab.action("sleep"))
    state = view_of(env)
    assert state.sleeping == 1 and state.vitals[3] == env._player.inventory["energy"]
    assert state.inventory[vocab.index("items", "wood")] == 5
    assert state.inventory[vocab.index("items", "iron_sword")] == 1
    assert state.daylight == round(255 * env._world.daylight)


def test_outside_the_map_the_view_shows_nothing():
    env = CrafterEnv(2, area=(12, 12), pixels=True)
    env.reset()
    env._world.move(env._player, (0, 0)) if env._world[(0, 0)][1] is None else None
    env._player.pos = np.array((0, 0))
    step = env._observe(0.0, False, False)
    view = view_of(env).view
    assert (view[:3] == 0).all() and (view[:, :4] == 0).all() and view[3, 4] == env.spec.vocab.target("player")
    assert (step.image[:21, :63] == step.image[0, 0]).all()


def test_unlocked_achievements_stay_for_the_episode_and_pay_once():
    env = CrafterEnv(6, area=SMALL, pixels=False)
    env.reset()
    index = env.spec.vocab.index("achievements", "place_stone")
    env._player.achievements["place_stone"] += 1
    assert env.step(0).reward == pytest.approx(1.0)
    env._player.achievements["place_stone"] += 1
    step = env.step(0)
    assert step.reward == 0.0 and step.info["achievements"][index] == 2 and view_of(env).unlocked[index] == 1
    env.reset()
    assert view_of(env).unlocked.sum() == 0


def test_death_is_terminal_and_the_time_limit_is_not():
    env = CrafterEnv(0, area=SMALL, length=5, pixels=False)
    env.reset()
    steps = [env.step(0) for _ in range(5)]
    assert [s.is_last for s in steps] == [False] * 4 + [True] and not steps[-1].is_terminal
    assert steps[-1].info["length"] == 5
    with pytest.raises(UsageError, match="episode is over"):
        env.step(0)
    env.reset()
    env._player.health = 0
    step = env.step(0)
    assert step.is_last and step.is_terminal and step.reward == pytest.approx(-0.9)


def test_every_episode_is_a_new_world_and_a_seed_starts_the_sequence_anew():
    env = CrafterEnv(11, area=SMALL, pixels=False)
    worlds = [env.reset() and env._world._mat_map.copy() for _ in range(2)]
    assert not np.array_equal(*worlds)
    assert env.last.info["episode"] == 2
    step = env.reset(seed=11)
    assert step.info["episode"] == 1 and step.is_first and np.array_equal(env._world._mat_map, worlds[0])


def test_a_restored_game_continues_identically_for_a_thousand_steps():
    env = CrafterEnv(13, area=SMALL)
    env.reset()
    walk(env, 215, seed=1, alive=True)
    saved = json.loads(json.dumps(env.state_dict()))
    other = CrafterEnv(0, area=SMALL)
    other.load_state_dict(saved)
    assert same(other.last, env.last) and np.array_equal(other.last.image, env.last.image)
    assert other.state_dict() == saved
    rng = np.random.default_rng(4)
    for i in range(1000):
        action = int(rng.integers(17))
        steps = [e.reset() if e.last.is_last else e.step(action) for e in (env, other)]
        assert same(*steps) and np.array_equal(steps[0].image, steps[1].image), i
        if i % 2:
            env._player.health = other._player.health = 9
    assert env.state_dict() == other.state_dict()


def test_a_snapshot_holds_every_kind_of_creature_with_its_hidden_fields():
    from crafter import objects

    env = CrafterEnv(3, area=SMALL, pixels=False)
    env.reset()
    free = [tuple(p) for p in np.argwhere(env._world._obj_map == 0)[:5]]
    world, player = env._world, env._player
    made = [
        objects.Zombie(world, free[0], player),
        objects.Skeleton(world, free[1], player),
        objects.Arrow(world, free[2], np.array((0, 1))),
        objects.Plant(world, free[3]),
        objects.Cow(world, free[4]),
    ]
    for thing in made:
        world.add(thing)
    made[0].cooldown, made[1].reload, made[3].grown, made[4].health = 4, 3, 299, 1
    other = CrafterEnv(0, area=SMALL, pixels=False)
    other.load_state_dict(json.loads(json.dumps(env.state_dict())))
    copies = {tuple(t.pos): t for t in other._world.objects}
    assert copies[free[0]].cooldown == 4 and copies[free[0]].player is other._player
    assert copies[free[1]].reload == 3 and tuple(copies[free[2]].facing) == (0, 1)
    assert copies[free[3]].grown == 299 and copies[free[4]].health == 1


@pytest.mark.parametrize(
    "damage", ["drop", "version", "area", "random", "image"], ids=lambda name: f"damaged by {name}"
)
def test_a_damaged_snapshot_is_refused_by_name(played, damage):
    saved = json.loads(json.dumps(played.state_dict()))
    if damage == "drop":
        del saved["world"]["objects"]
    elif damage == "version":
        saved["version"] = 2
    elif damage == "area":
        saved["world"]["area"] = [8, 8]
    elif damage == "random":
        saved["world"]["random"][0] = saved["world"]["random"][0][:100]
    else:
        saved["image"] = "AAAA"
    with pytest.raises(CorruptArtifact, match="snapshot"):
        CrafterEnv(0, area=SMALL).load_state_dict(saved)


def test_environments_of_one_run_have_worlds_of_their_own_and_the_configuration_decides_the_view():
    config = EnvConfig(observation="symbolic", area=SMALL, length=50)
    a, b, again = make_env(config, 0, 0), make_env(config, 0, 1), make_env(config, 0, 0)
    assert isinstance(a, Env) and a.reset().image is None
    b.reset(), again.reset()
    assert not np.array_equal(a._world._mat_map, b._world._mat_map)
    assert np.array_equal(a._world._mat_map, again._world._mat_map)


def test_wrong_use_is_named():
    env = CrafterEnv(0, area=SMALL, pixels=False)
    with pytest.raises(UsageError, match="not been reset"):
        env.step(0)
    env.reset()
    with pytest.raises(BadInput, match="action 17"):
        env.step(17)
    with pytest.raises(ConfigError, match="length"):
        CrafterEnv(0, length=0)


PLAY = """
import hashlib, sys
if "--without-numba" in sys.argv:
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "numba":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Absent())
from lore.envs.crafter.adapter import CrafterEnv
env, digest = CrafterEnv(3, area=(16, 16)), hashlib.sha256()
env.reset()
for i in range(60):
    step = env.step(i * 7 % 17)
    digest.update(step.image.tobytes() + step.state.tobytes())
print("numba" in sys.modules, digest.hexdigest())
"""


def test_the_game_is_the_same_without_numba():
    def play(*words: str) -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", PLAY, *words], capture_output=True, text=True, check=True
        ).stdout.split()

    compiled, interpreted = play(), play("--without-numba")
    assert (compiled[0], interpreted[0]) == ("True", "False")
    assert compiled[1] == interpreted[1]
