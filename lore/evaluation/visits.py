"""States that a trained agent visits, with its uncertainty there: what a refresh round chooses its questions from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.gate.signals import SIGNALS
from lore.training.policy import Policy, load_policy
from lore_datasets.errors import BadInput
from lore_datasets.schema import STATE_SOURCES

if TYPE_CHECKING:
    from lore_datasets.store.store import Store
    from lore_datasets.types import ArtifactRef

__all__ = ["Visits", "commit_visits", "uncertainty_of", "visit"]


@dataclass(frozen=True, eq=False)
class Visits:
    """States that a trained agent visited. N states, S bytes each; states may repeat, as often as they were visited.

    Attributes:
        state: uint8[N, S] packed states; terminal ones, where nothing is decided, are left out.
        episode, step: int32[N] episode number, and step inside it.
        uncertainty: float32[N] in 0..1, weighted mean of ``signals``, each between its 5th and 95th percentile here.
        signals: float32[N, 3] as :func:`lore.gate.signals.raw_signals` gives them; disagreement NaN without heads.
        environment: name of the game. about: run, frames (steps of its training), advice, seed, stride, alone.
        complete: False when the play was interrupted before the budget was reached.
    """

    state: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    uncertainty: np.ndarray
    signals: np.ndarray
    environment: str
    about: dict[str, Any]
    complete: bool = True

    def __len__(self) -> int:
        return len(self.state)


def uncertainty_of(signals: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Weighted mean float32[N] in 0..1 of signals [N, 3]; columns of NaN lose their weight.

    The entropy is a share of its largest value already; the others lie between their own 5th and 95th percentile.
    """
    signals = np.asarray(signals, np.float64)
    weight = np.where(np.isfinite(signals), np.asarray(weights, np.float64), 0.0)
    normal = np.clip(signals, 0.0, 1.0)
    for column in range(1, signals.shape[1]):
        known = signals[:, column][np.isfinite(signals[:, column])]
        if len(known):
            low, high = np.percentile(known, [5, 95])
            normal[:, column] = np.clip((signals[:, column] - low) / max(high - low, 1e-6), 0.0, 1.0)
    total = weight.sum(-1)
    mean = (np.nan_to_num(normal) * weight).sum(-1) / np.maximum(total, 1e-12)
    return np.where(total > 0, mean, np.nan).astype(np.float32)


def visit(
    run_dir: str | Path,
    budget: int,
    *,
    seed: int = 20_000,
    stride: int = 4,
    alone: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Visits:
    """Play the trained agent of a run in fresh worlds until ``budget`` states are kept, one in ``stride`` at random.

    ``alone``: with beta 0, the agent without advice. ``on_progress(kept, budget)`` is called about once per hundred
    states. An interrupt (SIGINT) returns what there is, with ``complete`` False.
    """
    if budget < 1 or stride < 1:
        raise BadInput(f"visit: budget {budget}, stride {stride}", hint="both at least 1")
    policy = load_policy(run_dir, seed, is_advised=not alone)
    kept: list[tuple[np.ndarray, int, int, np.ndarray]] = []
    complete = True
    try:
        _play(policy, budget, stride, np.random.default_rng([seed, stride]), kept, on_progress)
    except KeyboardInterrupt:
        complete = False
    signals = np.array([k[3] for k in kept], np.float32).reshape(len(kept), len(SIGNALS))
    if policy.agent.ensemble is None:
        signals[:, SIGNALS.index("disagreement")] = np.nan
    return Visits(
        state=np.stack([k[0] for k in kept]) if kept else np.zeros((0, policy.environment.layout.size), np.uint8),
        episode=np.array([k[1] for k in kept], np.int32),
        step=np.array([k[2] for k in kept], np.int32),
        uncertainty=uncertainty_of(signals, policy.config.gate.weights),
        signals=signals,
        environment=policy.environment.name,
        about={
            "run": Path(run_dir).name, "frames": policy.env_steps, "advice": policy.reference,
            "seed": seed, "stride": stride, "alone": alone,
        },
        complete=complete,
    )  # fmt: skip


def _play(
    policy: Policy,
    budget: int,
    stride: int,
    rng: np.random.Generator,
    kept: list[tuple[np.ndarray, int, int, np.ndarray]],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Append (state, episode, step, signals) to ``kept`` until it holds ``budget``."""
    envs = policy.make_envs()
    steps = envs.reset()
    episode, at = list(range(len(steps))), [0] * len(steps)
    while True:
        actions, _ = policy.act(steps)
        for env, step in enumerate(steps):
            if step.is_last:
                episode[env], at[env] = max(episode) + 1, -1
            elif rng.random() * stride < 1:
                kept.append((step.state.copy(), episode[env], at[env], policy.player.signals()[env].numpy()))
                if on_progress is not None and (len(kept) % 100 == 0 or len(kept) == budget):
                    on_progress(len(kept), budget)
                if len(kept) == budget:
                    return
            at[env] += 1
        steps = envs.step(actions)


def commit_visits(
    visits: Visits, store: Store, name: str, config: Mapping[str, Any] | None = None, parents: Sequence[Any] = ()
) -> ArtifactRef:
    """Commit visited states as the next version of the states dataset ``name``; BadInput when there are none.

    Its source is ``agent``; without ``parents`` its parent is the advice the agent was trained with, where it had any.
    """
    if not len(visits):
        raise BadInput("no states were visited", hint="play the agent again with a larger budget")
    advice = visits.about.get("advice", "")
    writer = store.writer(
        name, "states", environment=visits.environment, config=config, parents=parents or ((advice,) if advice else ()),
        provenance={"sources": list(STATE_SOURCES), "complete": visits.complete, **visits.about},
    )  # fmt: skip
    source = np.full(len(visits), STATE_SOURCES.index("agent"), np.uint8)
    writer.append(
        "rows", state=visits.state, episode=visits.episode, step=visits.step, source=source,
        uncertainty=visits.uncertainty,
    )  # fmt: skip
    writer.count(by_source={"agent": len(visits)})
    who = f"{visits.about.get('run', 'an agent')} after {visits.about.get('frames', 0):,} frames"
    return writer.commit(f"{len(visits)} states that {who} visited")
