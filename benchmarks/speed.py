"""Speeds of the parts on CPUs: the game, an update, what advice adds to it, a policy step, the whole loop, replay,
look-up, the rule book. One thread unless the row says otherwise.

``python -m benchmarks.speed [game|update|overhead|policy|train|replay|lookup|rules ...]`` writes one JSON per row.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import alternated, timed, write
from lore_datasets.environments import get_environment

__all__ = ["ROWS", "main"]


def game() -> dict[str, Any]:
    """Crafter under a random policy, resets included: steps per CPU second of one core, the package beside ours."""
    import crafter

    from lore.envs.crafter import CrafterEnv

    out: dict[str, Any] = {}
    for name, steps in (("symbolic", 20_000), ("pixels", 20_000), ("package", 2000)):
        env = crafter.Env(seed=0) if name == "package" else CrafterEnv(0, pixels=name == "pixels")
        rng, began = np.random.default_rng(0), time.process_time()
        env.reset()
        for _ in range(20):  # loads or compiles what is compiled; the package has nothing to wait for but its noise
            env.step(int(rng.integers(17)))
        first, began = time.process_time() - began, time.process_time()
        for _ in range(steps):
            result = env.step(int(rng.integers(17)))
            if result[2] if name == "package" else result.is_last:
                env.reset()
        out[name] = {"steps": steps, "steps_per_cpu_s": steps / (time.process_time() - began)}
        out[name] |= {"first_reset_and_20_steps_cpu_s": first, "reset": timed(env.reset, 10)}
    return out


PATHS: dict[str, dict[str, Any]] = {
    "plain": {},
    "B": {"use_llm": True, "dataset": "crafter-rules"},
    "A+B+C": {"use_llm": True, "dataset": "crafter-rules", "enable_synthetic_replay": True}
    | {"enable_hierarchical_options": True},
}
"""What is measured against what in the rows about advice."""


def _learner(
    size: str, observation: str, sequences: int, length: int, paths: str = "plain"
) -> tuple[Any, dict[str, np.ndarray]]:
    import torch

    from lore.config import load_config
    from lore.run import Run

    batch = sequences * length
    config = load_config(
        size=size,
        observation=observation,
        batch_size=batch,
        sequence_length=length,
        threads=1,
        replay_capacity=3 * batch,
        **PATHS[paths],
    )
    run = Run(config, Path(tempfile.mkdtemp()))
    steps, (learner, replay) = run.envs.reset(), (run.learner, run.replay)
    assert learner is not None and replay is not None
    while replay.items() < sequences + length:
        actions, records = run.player.act(steps, 0)
        replay.add(0, records[0])
        steps = run.envs.step(actions)
    if paths != "plain":
        learner.updates = config.synthetic.warmup_updates + 1
        if run.slots is not None:
            run.slots.fill(np.ones(len(run.slots.names)))
            learner.set_slots(run.slots.skill)
    torch.manual_seed(0)
    return learner, {k: v.copy() for k, v in replay.sample(sequences).items()}


def update() -> dict[str, Any]:
    """One gradient update: world model, imagination of 15 steps, actor, critic, optimiser."""
    out = {}
    for size, observation, sequences, length, repeats in (
        ("tiny", "symbolic", 8, 32, 10),
        ("tiny", "symbolic", 16, 64, 5),
        ("1m", "pixels", 16, 64, 3),
    ):
        learner, records = _learner(size, observation, sequences, length)
        out[f"{size} {observation} {sequences}x{length}"] = timed(lambda m=learner, r=records: m.update(r), repeats, 2)
    return out


def overhead() -> dict[str, Any]:
    """What advice adds: an update (16x64) and a decision (one game) with paths on, taken in turn with the plain one."""
    from lore.config import load_config
    from lore.run import Run

    out: dict[str, Any] = {}
    for size, observation, repeats in (("tiny", "symbolic", 9), ("1m", "pixels", 3)):
        learners = {name: _learner(size, observation, 16, 64, name) for name in PATHS}
        updates = {name: (lambda m=m, r=r: m.update(r)) for name, (m, r) in learners.items()}
        out[f"update {size} {observation}"] = alternated(updates, repeats, warmup=2)
        games = {}
        for name, flags in PATHS.items():
            config = load_config(size=size, observation=observation, threads=1, **flags)
            games[name] = _player(Run(config, Path(tempfile.mkdtemp()), with_replay=False))
        out[f"decision {size} {observation}"] = alternated(games, 300, warmup=20)
    for rows in out.values():
        for name in ("B", "A+B+C"):
            rows[f"{name} over plain"] = rows[name]["cpu_s"]["median"] / rows["plain"]["cpu_s"]["median"]
    return out


def _player(run: Any) -> Callable[[], None]:
    """One decision and one step of the game per call."""
    if run.slots is not None:
        run.slots.fill(np.ones(len(run.slots.names)))
    steps = [run.envs.reset()]

    def once() -> None:
        actions, _ = run.player.act(steps[0], 0)
        steps[0] = run.envs.step(actions)

    return once


def train() -> dict[str, Any]:
    """Whole training loop (``tiny``, symbolic, train ratio 64, batches of 16x64) on two threads: steps per second."""
    import torch

    from lore import loop
    from lore.config import load_config

    marks: list[tuple[int, int, float, float]] = []
    threads = min(2, os.cpu_count() or 1)

    def mark(row: dict[str, Any]) -> None:
        marks.append((row["step"], row["updates"], time.perf_counter(), time.process_time()))

    config = load_config(
        size="tiny", observation="symbolic", train_ratio=64, total_frames=2600, threads=threads, replay_capacity=10_000
    )
    with tempfile.TemporaryDirectory() as folder:
        loop.train(config, folder, mark, tensorboard=False)
    torch.set_num_threads(1)
    first, last = next(m for m in marks if m[1] > 2), marks[-1]
    steps = last[0] - first[0]
    return {
        "threads": threads, "steps": steps, "updates": last[1] - first[1],
        "steps_per_s": steps / (last[2] - first[2]), "cpu_s_per_step": (last[3] - first[3]) / steps,
        "steps_per_s_if_the_cores_were_free": threads * steps / (last[3] - first[3]),
    }  # fmt: skip


def policy() -> dict[str, Any]:
    """One policy step (encode, posterior, actor, critic, sample) at ``1m`` on pixels, batch 1 and 8."""
    from lore.config import load_config
    from lore.run import Run

    out = {}
    for envs in (1, 8):
        config = load_config(size="1m", observation="pixels", num_envs=envs, threads=1)
        run = Run(config, Path(tempfile.mkdtemp()), with_replay=False)
        steps = run.envs.reset()
        out[f"batch {envs}"] = timed(lambda r=run, s=steps: r.player.act(s, 0), 50, warmup=5)
    return out


def replay() -> dict[str, Any]:
    """Sampling 16 windows of 65 records from 1,000,000 symbolic steps at ``tiny``."""
    from lore.replay import Replay, latent_fields

    fields: dict[str, Any] = {"state": ((104,), np.uint8), "action": ((), np.int64), "reward": ((), np.float32)}
    fields |= {"is_first": ((), np.bool_), "is_last": ((), np.bool_), "is_terminal": ((), np.bool_)}
    ring = Replay(fields | latent_fields(256, 32), 1_000_000, length=65)
    ring.written[:] = 1_000_000
    return {"16x65 of 1M": timed(lambda: ring.sample(16), 200, warmup=20)}


def lookup() -> dict[str, Any]:
    """1,024 keys in a table of 1,000,000 rows, keys given."""
    from lore.advice.table import KeyTable

    rng = np.random.default_rng(0)
    keys = rng.integers(-(2**62), 2**62, 1_000_000)
    n = len(keys)
    table = KeyTable(keys, np.zeros((n, 4), np.float32), np.ones((n, 4), bool), np.ones(n, np.float32))
    asked = rng.choice(keys, 1024)
    return {"1024 of 1M": timed(lambda: table.find(asked), 200, warmup=10)}


def rules() -> dict[str, Any]:
    """From packed states to a committed version with the rule book: states per CPU second."""
    from lore_datasets.store import Store
    from lore_datasets.testing import random_states
    from pipeline.advise import advise
    from pipeline.llm import get_backend

    env = get_environment("crafter")
    states = random_states(env, 1000, np.random.default_rng(0)).pack()

    def whole(some: np.ndarray) -> None:
        with tempfile.TemporaryDirectory() as folder:
            advise(some, env, get_backend("rules"), Store(Path(folder)), "speed")

    whole(states[:50])  # loads what is loaded once
    found = timed(lambda: whole(states), 5, warmup=0)
    return {"states": 1000, **found, "states_per_cpu_s": 1000 / found["cpu_s"]["median"]}


ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    f.__name__: f for f in (game, update, overhead, policy, train, replay, lookup, rules)
}


def main(names: list[str]) -> int:
    """Run the named rows (all when none is named)."""
    import torch

    torch.set_num_threads(1)
    for name in names or list(ROWS):
        print(f"{name}: {ROWS[name].__doc__.splitlines()[0]}", flush=True)
        path = write(f"speed_{name}", ROWS[name]())
        print(path.read_text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
