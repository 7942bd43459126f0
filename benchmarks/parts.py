"""Speeds of the parts without a network: the game, replay, look-up, the rule book. Rows of :mod:`benchmarks.speed`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import alternated, spread, timed

__all__ = ["game", "lookup", "replay", "rules"]

PARTS = 5


def game() -> dict[str, Any]:
    """Crafter under a random policy, resets included: steps per CPU second of one core, the package beside ours."""
    import crafter

    from lore.envs.crafter.adapter import CrafterEnv

    out: dict[str, Any] = {}
    plays: dict[str, Callable[[], None]] = {}
    for name, steps in (("symbolic", 4000), ("pixels", 4000), ("package", 400)):
        env = crafter.Env(seed=0) if name == "package" else CrafterEnv(0, pixels=name == "pixels")
        began = time.process_time()
        env.reset()
        plays[name] = _play(env, np.random.default_rng(0), steps, name == "package")
        _play(env, np.random.default_rng(0), 20, name == "package")()  # loads or compiles what is compiled
        out[name] = {"first_reset_and_20_steps_cpu_s": time.process_time() - began}
        out[name] |= {"reset": timed(env.reset, 20), "steps_each": steps}
        if name != "package":
            out[name]["reset_with_the_world_ready_cpu_s"] = _without_generation(env)
    for name, found in alternated(plays, PARTS, warmup=0).items():
        steps, cpu = out[name]["steps_each"], found["cpu_s"]
        rates = {"median": steps / cpu["median"], "min": steps / cpu["max"], "max": steps / cpu["min"]}
        out[name] |= {"n": PARTS, "steps_per_cpu_s": rates}
    return out


def _play(env: Any, rng: np.random.Generator, steps: int, package: bool) -> Callable[[], None]:
    def play() -> None:
        for _ in range(steps):
            result = env.step(int(rng.integers(17)))
            if result[2] if package else result.is_last:
                env.reset()

    return play


def _without_generation(env: Any) -> dict[str, float]:
    """CPU seconds of a reset less those of filling the world, which is all that could be prepared ahead."""
    generate, left = env._generate, []
    spent = [0.0]

    def watched(world: Any, player: Any) -> None:
        began = time.process_time()
        generate(world, player)
        spent[0] = time.process_time() - began

    env._generate = watched
    for _ in range(20):
        began = time.process_time()
        env.reset()
        left.append(time.process_time() - began - spent[0])
    env._generate = generate
    return spread(left)


def replay() -> dict[str, Any]:
    """Sampling 16 windows of 65 records, every page of the ring written; TorchRL's buffer, where installed, in turn."""
    from lore.replay.ring import latent_fields

    fields: dict[str, Any] = {"action": ((), np.int64), "reward": ((), np.float32)}
    fields |= {"is_first": ((), np.bool_), "is_last": ((), np.bool_), "is_terminal": ((), np.bool_)}
    small = fields | {"state": ((104,), np.uint8)} | latent_fields(256, 32)
    large = fields | {"image": ((64, 64, 3), np.uint8)} | latent_fields(512, 32)
    return {"symbolic, tiny, 1M": _rings(small, 1_000_000), "pixels, 1m, 100k": _rings(large, 100_000)}


def _rings(fields: dict[str, Any], records: int) -> dict[str, Any]:
    from lore.replay.ring import Replay

    ring = Replay(fields, records, length=65)
    rng = np.random.default_rng(0)
    for array in ring.arrays.values():
        flat = array.reshape(-1).view(np.uint8)
        for i in range(0, len(flat), 1 << 24):
            part = flat[i : i + (1 << 24)]
            part[:] = rng.integers(0, 2, len(part), np.uint8)
    ring.written[:] = records
    works: dict[str, Callable[[], Any]] = {"ours": lambda: ring.sample(16)}
    peer = _torchrl(ring.arrays, records)
    if peer is not None:
        works["torchrl"] = peer
    found = alternated(works, 60, warmup=5)
    if peer is not None:
        found["torchrl"]["over_ours"] = found["torchrl"]["cpu_s"]["median"] / found["ours"]["cpu_s"]["median"]
    return found


def _torchrl(arrays: dict[str, np.ndarray], records: int) -> Callable[[], Any] | None:
    """The same windows from ``ReplayBuffer(LazyTensorStorage, SliceSampler)``, slices crossing episode ends as ours."""
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tensordict import TensorDict
            from torchrl.data import LazyTensorStorage, SliceSampler, TensorDictReplayBuffer
    except ImportError:
        return None
    sampler = SliceSampler(slice_len=65, traj_key="stream", strict_length=True)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(records), sampler=sampler, batch_size=16 * 65)
    step = max(1, records // 10)
    for i in range(0, records, step):
        part: dict[str, Any] = {name: torch.from_numpy(a[0, i : i + step]) for name, a in arrays.items()}
        part["stream"] = torch.zeros(len(part["action"]), dtype=torch.int64)
        buffer.extend(TensorDict(part, batch_size=[len(part["action"])]))
    return buffer.sample


def lookup() -> dict[str, Any]:
    """1,024 keys in a table of 1,000,000 rows, keys given."""
    from lore.advice.key_table import KeyTable

    rng = np.random.default_rng(0)
    keys = rng.integers(-(2**62), 2**62, 1_000_000)
    n = len(keys)
    table = KeyTable(keys, np.zeros((n, 4), np.float32), np.ones((n, 4), bool), np.ones(n, np.float32))
    asked = rng.choice(keys, 1024)
    return {"1024 of 1M": timed(lambda: table.find(asked), 200, warmup=10)}


def rules() -> dict[str, Any]:
    """From packed states to a committed version with the rule book: states per CPU second."""
    from lore_datasets.environments import get_environment
    from lore_datasets.store.store import Store
    from lore_datasets.testing import random_states
    from pipeline.llm import get_backend
    from pipeline.rounds.advise import advise

    env = get_environment("crafter")
    states = random_states(env, 1000, np.random.default_rng(0)).pack()

    def whole(some: np.ndarray) -> None:
        with tempfile.TemporaryDirectory() as folder:
            advise(some, env, get_backend("rules"), Store(Path(folder)), "speed")

    whole(states[:50])  # loads what is loaded once
    found = timed(lambda: whole(states), 5, warmup=0)
    cpu = found["cpu_s"]
    rates = {"median": 1000 / cpu["median"], "min": 1000 / cpu["max"], "max": 1000 / cpu["min"]}
    return {"states": 1000, **found, "states_per_cpu_s": rates}
