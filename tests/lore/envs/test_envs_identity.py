"""The fast game against the package itself with insertion-ordered chunks: frames, rewards, info, draws."""

import collections

import crafter
import numpy as np
import pytest
from crafter import engine, objects, worldgen

from lore.envs.crafter.adapter import CrafterEnv
from lore_datasets.types import SymbolicState

TOOLS = ("wood_pickaxe", "stone_pickaxe", "iron_pickaxe")
MADE = {"place_stone", "place_table", "place_plant", "collect_sapling"}


class Members(dict):
    """Insertion order is the only difference from the set of the package."""

    def add(self, item):
        self[item] = None

    def remove(self, item):
        del self[item]


class StockWorld(engine.World):
    def reset(self, seed=None):
        super().reset(seed)
        self._chunks = collections.defaultdict(Members)


def stock_game(seed, area=(64, 64), length=10_000):
    env = crafter.Env(area=area, seed=seed, length=length)
    env._world = StockWorld(area, crafter.constants.materials, (12, 12))
    env._local_view = engine.LocalView(env._world, env._textures, [9, 7])
    kinds = [objects.Player, objects.Cow, objects.Zombie, objects.Skeleton, objects.Arrow, objects.Plant]
    env._sem_view = engine.SemanticView(env._world, kinds)
    return env


def hidden(world):
    """Everything that decides the future, in the order in which it is visited."""
    things = []
    for t in world.objects:
        counters = {k: float(v) for k, v in vars(t).items() if isinstance(v, bool | int | float)}
        facing = tuple(int(v) for v in getattr(t, "facing", ()))
        things.append((type(t).__name__, *(int(v) for v in t.pos), dict(t.inventory), counters, facing))
    number = {id(t): i for i, t in enumerate(world.objects)}
    chunks = [(tuple(int(v) for v in key), [number[id(t)] for t in c]) for key, c in world._chunks.items()]
    return things, chunks, world._mat_map.tobytes(), (world._obj_map > 0).tobytes()


def draws(world):
    _, key, position, has_gauss, gauss = world.random.get_state()
    return key.tobytes(), position, has_gauss, gauss


def keep_alive(players, step, rng):
    """The same gifts to both players: health always, now and then all tools, materials and an empty stomach."""
    gifts = {"health": 4 + step % 6}
    if step % 97 == 0:
        gifts |= dict.fromkeys(TOOLS, 1) | {"wood": 9, "stone": 9, "sapling": 5, "coal": 3, "iron": 3}
    if step % 211 == 0:
        gifts |= {"energy": int(rng.integers(1, 9)), "food": 5, "drink": 5}
    if step % 389 == 0:
        gifts |= {"iron_sword": int(rng.integers(2)), "wood_sword": 1}
    for player in players:
        player.inventory.update(gifts)


def play_both(seed, steps, area=(64, 64), god=True, length=10_000, pixels=True, every=25):
    """Play both games for ``steps`` steps comparing everything; returns what was met on the way."""
    stock, fast = stock_game(seed, area, length), CrafterEnv(seed, area, length, pixels)
    rng = np.random.default_rng(seed)
    met = collections.Counter()

    def compare_start():
        image, step = stock.reset(), fast.reset()
        assert np.array_equal(image, fast.render() if not pixels else step.image)
        assert hidden(stock._world) == hidden(fast._world) and draws(stock._world) == draws(fast._world)

    compare_start()
    action = 0
    for i in range(steps):
        if rng.random() < 0.7:  # runs of one action go further than a walk of single steps
            action = int(rng.choice(17, p=[0.02] + [0.14] * 4 + [0.2, 0.03] + [0.019] * 10))
        image, reward, done, info = stock.step(action)
        step = fast.step(action)
        assert np.array_equal(image, step.image if pixels else fast.render()), i
        assert (reward, done, info["discount"] == 0) == (step.reward, step.is_last, step.is_terminal), i
        assert list(info["achievements"].values()) == step.info["achievements"].tolist(), i
        assert info["inventory"] == fast._player.inventory and tuple(info["player_pos"]) == tuple(fast._player.pos), i
        seen = SymbolicState.unpack(step.state, fast.spec.layout)
        x, y = info["player_pos"]
        assert np.array_equal(seen.view, np.pad(info["semantic"], ((4, 4), (3, 3)))[x : x + 9, y : y + 7].T), i
        assert draws(stock._world) == draws(fast._world), i
        if i % every == 0 or done:
            assert hidden(stock._world) == hidden(fast._world), i
        met.update(type(t).__name__ for t in fast._world.objects if i % 10 == 0)
        met["night"] += fast._world.daylight < 0.5
        met["asleep"] += fast._player.sleeping
        met["died"] += step.is_terminal
        met["cut"] += step.is_last and not step.is_terminal
        if done:
            met.update(name for name, count in info["achievements"].items() if count)
            compare_start()
        if god:
            keep_alive((stock._player, fast._player), i, rng)
    met.update(name for name, count in stock._player.achievements.items() if count)
    return met


def test_worlds_of_several_sizes_are_those_of_the_package():
    from lore.envs.crafter.terrain import Generator
    from lore.envs.crafter.world import OrderedWorld

    for area in ((64, 64), (33, 47), (12, 12), (7, 40)):
        generate = Generator(area)
        for seed in range(3):
            worlds = []
            for world, make in ((StockWorld, worldgen.generate_world), (OrderedWorld, generate)):
                world = world(area, crafter.constants.materials, (12, 12))
                world.reset(seed=1000 * seed + area[0])
                player = objects.Player(world, (area[0] // 2, area[1] // 2))
                world.add(player)
                make(world, player)
                worlds.append(world)
            assert hidden(worlds[0]) == hidden(worlds[1]) and draws(worlds[0]) == draws(worlds[1])
        assert len(set(worlds[0]._mat_map.ravel().tolist())) > 1


@pytest.mark.parametrize(
    ("seed", "steps", "area", "god", "length"),
    [
        (1, 1800, (64, 64), True, 10_000),
        (2, 1000, (64, 64), False, 10_000),
        (3, 1300, (32, 40), True, 250),
        (4, 500, (20, 13), True, 10_000),
    ],
    ids=["kept alive", "as it comes", "wide and cut", "at the borders"],
)
def test_frames_rewards_info_and_draws_are_those_of_the_package(seed, steps, area, god, length):
    met = play_both(seed, steps, area, god, length)
    assert met["night"] > 20 and (met["asleep"] or not god)
    if god and area == (64, 64):
        assert met["place_stone"] and met["place_table"] and met["Zombie"] and met["asleep"] > 20
    if length < 1000:
        assert met["cut"]


def test_without_pixels_the_course_and_the_frames_on_demand_are_those_of_the_package():
    assert play_both(5, 400, (40, 40), pixels=False)["night"] > 20


LIVING = {"Player", "Cow", "Zombie", "Skeleton", "Arrow", "Plant", "night", "asleep"}
CHUNKS = [
    *(((64, 64), (2 * i, 2 * i + 1), 5000, True, 10_000, True, LIVING | MADE) for i in range(100, 112)),
    *(((64, 64), (i,), 10_000, False, 10_000, True, {"died", "night", "Zombie", "Skeleton"}) for i in range(300, 303)),
    ((96, 96), (400,), 10_000, True, 400, True, LIVING | {"cut"}),
    ((128, 40), (401, 402), 5000, True, 10_000, True, LIVING),
    ((24, 24), (403,), 10_000, True, 500, True, {"cut", "night", "asleep", "Cow", "Zombie"}),
    ((13, 50), (404, 405), 5000, True, 10_000, True, {"night", "asleep", "Zombie"}),
    ((9, 9), (406, 407), 5000, True, 10_000, True, {"night", "asleep"}),
    ((64, 64), (408,), 5000, True, 10_000, False, LIVING),
]
"""205,000 steps: area, seeds, steps of each, kept alive, length of an episode, pixels, what must be met."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("area", "seeds", "steps", "god", "length", "pixels", "wanted"),
    CHUNKS,
    ids=[f"{a[0]}x{a[1]}-from-{s[0]}" for a, s, *_ in CHUNKS],
)
def test_two_hundred_thousand_steps_are_those_of_the_package(area, seeds, steps, god, length, pixels, wanted):
    """Some 40 s of CPU time a chunk, the world of the package compiled; what was met is printed."""
    met = collections.Counter()
    for seed in seeds:
        met += play_both(seed, steps, area, god, length, pixels, every=50)
    print(steps * len(seeds), dict(met))
    assert not {name for name in wanted if not met[name]}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_episodes_are_distributed_as_those_of_the_unchanged_package():
    """Permutation test of the means of 200 episodes each: lengths, returns and frequent achievements."""
    names = ("collect_wood", "collect_sapling", "place_plant", "wake_up", "collect_drink")
    rows = {"stock": [], "fast": []}
    for which, rng in (("stock", np.random.default_rng(1)), ("fast", np.random.default_rng(2))):
        env = crafter.Env(seed=11) if which == "stock" else CrafterEnv(12)
        for _ in range(200):
            env.reset()
            total, steps, done = 0.0, 0, False
            while not done:
                action = int(rng.integers(17))
                if which == "stock":
                    _, reward, done, info = env.step(action)
                    counts = info["achievements"]
                else:
                    step = env.step(action)
                    reward, done, counts = step.reward, step.is_last, env._player.achievements
                total, steps = total + reward, steps + 1
            rows[which].append([steps, total] + [counts[name] > 0 for name in names])
    a, b = np.array(rows["stock"], float), np.array(rows["fast"], float)
    both, rng = np.concatenate([a, b]), np.random.default_rng(3)
    gap = np.abs(a.mean(0) - b.mean(0))
    shuffled = np.array([rng.permutation(len(both)) for _ in range(4000)])
    gaps = np.abs(both[shuffled[:, :200]].mean(1) - both[shuffled[:, 200:]].mean(1))
    p = (1 + (gaps >= gap).sum(0)) / 4001
    print(dict(zip(("length", "return", *names), p.round(3).tolist(), strict=True)), a.mean(0), b.mean(0))
    assert (p > 0.01 / len(p)).all(), p  # seven tests together at one in a hundred
