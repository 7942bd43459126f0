"""Speeds on CPUs: the game, an update, what advice adds to it, a policy step, the whole loop, replay, look-up, the rule
book. One thread unless the row says otherwise.

``python -m benchmarks.speed [game|update|overhead|policy|train|replay|lookup|rules ...]`` writes one JSON per row.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts import game, lookup, replay, rules
from benchmarks.record import alternated, spread, timed, write

__all__ = ["ROWS", "main", "make_learner"]


_B: dict[str, Any] = {"gate.enabled": True, "gate.kickstart": 0.0, "dataset": "crafter-rules"}
PATHS = {"plain": {}, "B": _B, "A+B+C": _B | {"synthetic.enabled": True, "options.enabled": True}}
"""What is measured against what in the rows about advice; nothing is kickstarted."""


def make_learner(
    size: str, observation: str, sequences: int, length: int, paths: str = "plain", threads: int = 1
) -> tuple[Any, dict[str, np.ndarray]]:
    """A learner and one batch of ``sequences`` times ``length`` records of random play for it."""
    import torch

    from lore.config import load_config
    from lore.training.run import Training

    batch = sequences * length
    config = load_config(
        size=size,
        observation=observation,
        batch_size=batch,
        sequence_length=length,
        threads=threads,
        replay_capacity=3 * batch,
        **PATHS[paths],
    )
    run = Training(config, Path(tempfile.mkdtemp()))
    slots = run.policy.slots
    steps, (learner, replay) = run.envs.reset(), (run.learner, run.replay)
    while replay.items() < sequences + length:
        actions, records = run.policy.act(steps)
        replay.add(0, records[0])
        steps = run.envs.step(actions)
    if paths != "plain":
        learner.updates = config.synthetic.warmup_updates + 1
        if slots is not None:
            slots.fill(np.ones(len(slots.names)))
            learner.set_slots(slots.skill)
    torch.manual_seed(0)
    return learner, {k: v.copy() for k, v in replay.sample(sequences).items()}


def update() -> dict[str, Any]:
    """One gradient update: world model, imagination of 15 steps, actor, critic, optimiser; ``1m`` on two threads."""
    import torch

    out = {}
    for size, observation, sequences, length, repeats, threads in (
        ("tiny", "symbolic", 8, 32, 10, 1),
        ("tiny", "symbolic", 16, 64, 5, 1),
        ("1m", "pixels", 16, 64, 5, 2),
    ):
        learner, records = make_learner(size, observation, sequences, length, threads=threads)
        found = timed(lambda m=learner, r=records: m.update(r), repeats, 2)
        out[f"{size} {observation} {sequences}x{length}"] = {"threads": threads, **found}
    torch.set_num_threads(1)
    return out


def overhead() -> dict[str, Any]:
    """What advice adds: an update (16x64) and a decision (one game) with paths on, taken in turn with the plain one."""
    from lore.config import load_config
    from lore.training.policy import Policy

    out: dict[str, Any] = {}
    for size, observation, repeats in (("tiny", "symbolic", 9), ("1m", "pixels", 5)):
        learners = {name: make_learner(size, observation, 16, 64, name) for name in PATHS}
        updates = {name: (lambda m=m, r=r: m.update(r)) for name, (m, r) in learners.items()}
        out[f"update {size} {observation}"] = alternated(updates, repeats, warmup=2, base="plain")
        games = {}
        for name, flags in PATHS.items():
            config = load_config(size=size, observation=observation, threads=1, **flags)
            games[name] = _player(Policy(config))
        out[f"decision {size} {observation}"] = alternated(games, 300, warmup=20, base="plain")
    return out


def _player(policy: Any) -> Callable[[], None]:
    """One decision and one step of the game per call."""
    if policy.slots is not None:
        policy.slots.fill(np.ones(len(policy.slots.names)))
    envs = policy.make_envs()
    steps = [envs.reset()]

    def once() -> None:
        actions, _ = policy.act(steps[0])
        steps[0] = envs.step(actions)

    return once


def train() -> dict[str, Any]:
    """Whole training loop (``tiny``, symbolic, train ratio 64, batches of 16x64) on two threads: steps per second."""
    import torch

    from lore.config import load_config
    from lore.envs.crafter.adapter import CrafterEnv
    from lore.training import loop

    marks: list[tuple[int, int, float, float]] = []
    resets: list[float] = []
    threads, reset = min(2, os.cpu_count() or 1), CrafterEnv.reset

    def mark(row: dict[str, Any]) -> None:
        marks.append((row["step"], row["updates"], time.perf_counter(), time.process_time()))

    def timed_reset(self: CrafterEnv, seed: int | None = None) -> Any:
        began = time.perf_counter()
        try:
            return reset(self, seed)
        finally:
            resets.append(time.perf_counter() - began)

    config = load_config(
        size="tiny", observation="symbolic", train_ratio=64, steps=2600, threads=threads, replay_capacity=10_000
    )
    CrafterEnv.reset = timed_reset
    try:
        with tempfile.TemporaryDirectory() as folder:
            loop.train(config, folder, mark, tensorboard=False)
    finally:
        CrafterEnv.reset = reset
    torch.set_num_threads(1)
    rows = [m for m in marks if m[1] > 2]
    if len(rows) < 2:
        raise RuntimeError(f"stopped after {marks[-1][1]} updates")
    first, last = rows[0], rows[-1]
    steps, wall, cpu = last[0] - first[0], last[2] - first[2], last[3] - first[3]
    parts = [(b[0] - a[0]) / (b[2] - a[2]) for a, b in zip(rows[::2], rows[2::2], strict=False)] or [steps / wall]
    return {
        "threads": threads,
        "steps": steps,
        "updates": last[1] - first[1],
        "n": len(parts),
        "steps_per_s": spread(parts),
        "steps_per_s_overall": steps / wall,
        "cpu_s_per_step": cpu / steps,
        "steps_per_s_if_the_cores_were_free": threads * steps / cpu,
        "resets": {
            "n": len(resets),
            "median_s": statistics.median(resets),
            "share_of_the_loop": statistics.median(resets) * len(resets) / last[0] * steps / wall,
        },
    }


def policy() -> dict[str, Any]:
    """One policy step (encode, posterior, actor, critic, sample) at ``1m`` on pixels, batch 1 and 8."""
    from lore.config import load_config
    from lore.training.policy import Policy

    out = {}
    for envs in (1, 8):
        config = load_config(size="1m", observation="pixels", num_envs=envs, threads=1)
        policy = Policy(config)
        steps = policy.make_envs().reset()
        out[f"batch {envs}"] = timed(lambda p=policy, s=steps: p.act(s), 500, warmup=20)
    return out


ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    f.__name__: f for f in (game, update, overhead, policy, train, replay, lookup, rules)
}


def main(names: list[str]) -> int:
    """Run the named rows (all when none is named)."""
    import torch

    torch.set_num_threads(1)
    for name in names or list(ROWS):
        print(f"{name}: {(ROWS[name].__doc__ or name).splitlines()[0]}", flush=True)
        path = write(f"speed_{name}", ROWS[name](), f"python -m benchmarks.speed {name}")
        print(path.read_text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
