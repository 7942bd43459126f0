"""Play, and keep what was seen: states of random, competent and half-and-half play, in one batch.

The environment and the players come from outside; an environment has ``reset(seed) -> step`` and
``step(action) -> step`` with ``step.state`` (packed uint8[S]) and ``step.is_last``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.errors import BadInput, LoreError, shown
from lore_datasets.language.geometry import StateView
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef

__all__ = ["CollectedStates", "HalfAndHalf", "Policy", "RandomPolicy", "collect", "commit_states"]


class Policy(Protocol):
    """A player: an action id per state. ``reset`` comes before each episode."""

    def __call__(self, view: StateView, rng: np.random.Generator) -> int:
        """The next primitive action."""
        ...

    def reset(self) -> None:
        """Forget the episode that has ended."""
        ...


class RandomPolicy:
    """Every primitive action with the same probability."""

    def __call__(self, view: StateView, rng: np.random.Generator) -> int:
        """A uniformly random action id."""
        return int(rng.integers(len(view.vocab.actions)))

    def reset(self) -> None:
        """Nothing to forget."""


class HalfAndHalf:
    """Another player, each of whose actions is replaced by a random one with probability ``share``.

    Random stretches last ``hold`` steps, so that the player ends up where it would not have gone by itself.
    """

    def __init__(self, policy: Policy, share: float = 0.5, hold: int = 10) -> None:
        self.policy, self.share, self.hold = policy, share, hold
        self._random, self._left, self._astray = RandomPolicy(), 0, False

    def __call__(self, view: StateView, rng: np.random.Generator) -> int:
        """The inner player's action, or a random one."""
        if self._left == 0:
            self._astray, self._left = bool(rng.random() < self.share), self.hold
        self._left -= 1
        action = self.policy(view, rng)  # asked always, so that a running skill sees every state
        return self._random(view, rng) if self._astray else action

    def reset(self) -> None:
        """Start the next episode afresh."""
        self._left = 0
        self.policy.reset()


@dataclass(frozen=True, eq=False)
class CollectedStates:
    """States with where they came from. N states, S bytes each.

    Attributes:
        state: uint8[N, S] packed states.
        episode: int32[N] episode number, unique over all players.
        step: int32[N] step inside the episode.
        source: uint8[N] index into ``sources``.
        sources: names of the players.
        seed: seed of worlds and players; a continued collection goes on with it.
        complete: False when the collection was interrupted.
        failure: what a game raised, which ended the collection; empty where none did.
    """

    state: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    source: np.ndarray
    sources: tuple[str, ...]
    seed: int
    complete: bool = True
    failure: str = ""

    def __len__(self) -> int:
        return len(self.state)


def collect(
    make_env: Callable[[], Any],
    policies: Mapping[str, Policy],
    budget: int,
    rng: np.random.Generator,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    stride: int = 5,
    max_steps: int = 2000,
    start: CollectedStates | None = None,
) -> CollectedStates:
    """Play whole episodes with each player in turn until ``budget`` states are kept, one in ``stride`` steps at random.

    An interrupt (SIGINT) or a game that raises returns what there is with ``complete=False``; passing that as ``start``
    continues it with new episodes of the same seed. ``on_progress(kept, budget)`` is called about once per hundred
    states.
    """
    if not policies or budget < 1 or stride < 1:
        raise BadInput(f"collect: {len(policies)} players, budget {budget}, stride {stride}", hint="all at least 1")
    names = tuple(policies)
    if start is not None and start.sources != names:
        raise BadInput(f"collect: continued with players {names}, begun with {start.sources}")
    seed = int(rng.integers(2**31 - 1)) if start is None else start.seed
    kept: list[tuple[np.ndarray, int, int, int]] = []
    have = 0 if start is None else len(start)
    episode = 0 if start is None or not have else int(start.episode.max()) + 1
    shares = _shares(budget, names, start)
    env, complete, failure = make_env(), True, ""
    try:
        while any(shares):
            source = int(np.argmax(shares))
            game = np.random.default_rng([seed, episode])
            policy = policies[names[source]]
            for step, state in _play(env, policy, game, max_steps):
                if game.random() * stride < 1:
                    kept.append((np.array(state, np.uint8), episode, step, source))
                    shares[source] -= 1
                    if on_progress and (len(kept) + have) % 100 == 0:
                        on_progress(len(kept) + have, budget)
                    if shares[source] == 0:
                        break
            episode += 1
    except KeyboardInterrupt:
        complete = False
    except Exception as error:  # a game's own; what was kept so far is returned with it
        if isinstance(error, LoreError):
            raise
        complete, failure = False, f"episode {episode}: {type(error).__name__}: {shown(error)}"
    finally:
        close = getattr(env, "close", None)
        if close is not None:
            close()
    fresh = replace(_arrays(kept, names, seed, complete), failure=failure)
    return fresh if start is None or not have else _joined(start, fresh)


def _shares(budget: int, names: tuple[str, ...], start: CollectedStates | None) -> list[int]:
    """States still to keep per player; earlier players get the remainder."""
    whole = [budget // len(names) + (i < budget % len(names)) for i in range(len(names))]
    if start is None:
        return whole
    had = np.bincount(start.source, minlength=len(names))
    return [max(0, n - int(h)) for n, h in zip(whole, had, strict=True)]


def _play(env: Any, policy: Policy, rng: np.random.Generator, max_steps: int):
    """(step, packed state) of one episode in a fresh world, its last state included."""
    policy.reset()
    now = env.reset(seed=int(rng.integers(2**31 - 1)))
    vocab = env.spec.vocab
    for step in range(max_steps):
        yield step, now.state
        if now.is_last:
            return
        now = env.step(policy(StateView(now.state, vocab), rng))


def _arrays(
    kept: list[tuple[np.ndarray, int, int, int]], names: tuple[str, ...], seed: int, complete: bool
) -> CollectedStates:
    state = np.stack([k[0] for k in kept]) if kept else np.zeros((0, 0), np.uint8)
    episode, step = (np.array([k[i] for k in kept], np.int32) for i in (1, 2))
    return CollectedStates(state, episode, step, np.array([k[3] for k in kept], np.uint8), names, seed, complete)


def _joined(a: CollectedStates, b: CollectedStates) -> CollectedStates:
    if not len(b):
        return replace(a, complete=b.complete, failure=b.failure)
    parts = {f: np.concatenate([getattr(a, f), getattr(b, f)]) for f in ("state", "episode", "step", "source")}
    return CollectedStates(**parts, sources=a.sources, seed=a.seed, complete=b.complete, failure=b.failure)


def commit_states(
    collected: CollectedStates,
    environment: Environment,
    store: Store,
    name: str,
    config: Mapping[str, Any] | None = None,
) -> ArtifactRef:
    """Commit collected states as the next version of dataset ``name``; BadInput when there are none."""
    if not len(collected):
        raise BadInput("no states were collected", hint="collect again with a larger budget")
    provenance = {"sources": list(collected.sources), "seed": collected.seed, "complete": collected.complete}
    writer = store.writer(name, "states", environment=environment, config=config, provenance=provenance)
    writer.append(
        "rows", state=collected.state, episode=collected.episode, step=collected.step, source=collected.source
    )
    counts = np.bincount(collected.source, minlength=len(collected.sources)).tolist()
    writer.count(by_source=dict(zip(collected.sources, counts, strict=True)))
    return writer.commit(f"{len(collected)} states of {', '.join(collected.sources)} play")
