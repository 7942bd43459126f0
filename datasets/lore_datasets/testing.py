"""For tests: the conformance suite of adapters, random symbolic states, rows of advice, small ready versions. No
network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lore_datasets.conformance import Finding, check_adapter
from lore_datasets.environments import Environment
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef, SymbolicState
from lore_datasets.vocab import CLOCK

__all__ = ["Finding", "check_adapter", "random_advice", "random_states", "small_advice", "small_model", "small_states"]


def random_states(env: Environment, n: int, rng: np.random.Generator) -> SymbolicState:
    """A batch of ``n`` well-formed states: mostly ground in view, the player in the centre, all fields varied."""
    vocab, layout = env.vocab, env.layout
    weights = np.array([4.0 if t in vocab.walkable else 1.0 for t in vocab.targets])
    weights[[i for i, t in enumerate(vocab.targets) if t == "player"]] = 0
    view = rng.choice(len(vocab.targets), (n, layout.height, layout.width), p=weights / weights.sum())
    if "player" in vocab.targets:
        view[:, layout.height // 2, layout.width // 2] = vocab.target("player")
    counts = rng.integers(0, vocab.max_count + 1, (n, layout.items)) * (rng.random((n, layout.items)) < 0.4)
    drawn = {
        "view": view,
        "inventory": counts,
        "vitals": rng.integers(0, vocab.max_count + 1, (n, layout.vitals)),
        "facing": rng.integers(0, 1 if vocab.turns else len(vocab.directions), n),
        "sleeping": rng.random(n) < 0.1,
        "daylight": rng.integers(0, 256, n),
        "unlocked": rng.random((n, layout.achievements)) < 0.3,
        "mission": rng.integers(0, len(vocab.mission_words) + 1, (n, layout.mission)),
    }
    kept = {name for name in drawn if name not in CLOCK or name in vocab.clock}
    return SymbolicState(**{name: drawn[name].astype(np.uint8) for name in kept})


def random_advice(
    env: Environment, n: int, rng: np.random.Generator, skills: int | None = None, plans: int = 2, steps: int = 4
) -> dict[str, Any]:
    """Arrays of ``n`` rows for ``Writer.append("rows", ...)``, without keys (the writer fills them in)."""
    k = len(env.skills) if skills is None else skills
    entries = len(env.vocab.actions) + k
    mask = rng.random((n, entries)) < 0.8
    logits = np.clip(rng.normal(0, 2, (n, entries)), -5, 5) * mask
    lengths = rng.integers(0, steps + 1, (n, plans))
    ids = rng.integers(0, entries, (n, plans, steps))
    return {
        "state": random_states(env, n, rng).pack(),
        "logits": logits.astype(np.float32),
        "mask": mask.astype(np.uint8),
        "confidence": rng.random(n).astype(np.float32),
        "plans": np.where(np.arange(steps) < lengths[..., None], ids, -1).astype(np.int16),
        "plan_lengths": lengths.astype(np.int16),
        "plan_scores": rng.random((n, plans)).astype(np.float32),
        "applicable": (rng.random((n, k)) < 0.5).astype(np.uint8),
        "reason": [f"row {i} \u2192 because" for i in range(n)],
    }


def small_advice(
    root: Path | str, env: Environment, n: int = 64, seed: int = 0, name: str = "small", skills: tuple | None = None
) -> ArtifactRef:
    """Commit a version of ``n`` random rows (the next round if the dataset exists) and return its reference."""
    rng = np.random.default_rng(seed)
    skills = env.skills if skills is None else skills
    writer = Store(root).writer(name, "advice", environment=env, skills=skills, provenance={"adviser": "random"})
    writer.append("rows", **random_advice(env, n, rng, len(skills)))
    writer.append(
        "answers",
        kind=["prior"] * n,
        prompt_hash=[f"{i:064x}" for i in range(n)],
        prompt=[f"state {i}: caf\u00e9" for i in range(n)],
        response=['{"ranked": ["do"]}'] * n,
        model=["random"] * n,
        tokens_in=np.full(n, 10),
        tokens_out=np.full(n, 5),
        latency_s=np.full(n, 0.5),
        price_usd=np.zeros(n),
    )
    writer.append("rejects", reason=["malformed"], where=["answer 3"], text=["not JSON"])
    writer.count(rejected={"malformed": 1})
    writer.spent(requests=n, tokens_in=10 * n, tokens_out=5 * n, price_usd=0.0, seconds=0.5 * n)
    return writer.commit(f"{n} random rows")


def small_states(root: Path | str, env: Environment, n: int = 64, seed: int = 0, name: str = "states") -> ArtifactRef:
    """Commit a ``states`` version of ``n`` random states."""
    rng = np.random.default_rng(seed)
    writer = Store(root).writer(name, "states", environment=env, provenance={"sources": ["random", "rules", "half"]})
    state = random_states(env, n, rng).pack()
    writer.append("rows", state=state, episode=np.arange(n) // 16, step=np.arange(n) % 16, source=np.arange(n) % 3)
    return writer.commit(f"{n} random states")


def small_model(root: Path | str, env: Environment, parent: ArtifactRef, seed: int = 0) -> ArtifactRef:
    """Commit an ``advice_model`` of random weights as the child of ``parent``."""
    rng = np.random.default_rng(seed)
    writer = Store(root).writer(
        f"{parent.name}-model", "advice_model", environment=env, parents=[parent], skills=[s.name for s in env.skills]
    )
    writer.append("model", **{"dense.0.weight": rng.normal(size=(8, 4)).astype(np.float32), "steps": np.int64(7)})
    writer.append("calibration", temperature=np.float32(1.5))
    return writer.commit("random weights")
