"""The conformance suite of environments: what everything above an adapter relies on, tried on a game in a second."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.keys import fine_keys, goal_keys
from lore_datasets.language.conditions import compile_condition
from lore_datasets.language.evaluator import Evaluator
from lore_datasets.language.geometry import StateView
from lore_datasets.language.programs import program_json_schema
from lore_datasets.language.skills import MAX_BOUND, bound, skill_json_schema
from lore_datasets.types import SymbolicState

__all__ = ["Finding", "check_adapter"]

STEPS = 1000
"""Random steps that are played, and saved and loaded in between."""


@dataclass(frozen=True)
class Finding:
    """One property: what was looked at, and what is wrong; ``fault`` is empty where it holds.

    ``skipped``: why it could not be looked at.
    """

    name: str
    fault: str = ""
    skipped: str = ""


def check_adapter(
    make: Callable[[], Any], describe: Callable[[SymbolicState, Environment], str], *, steps: int = STEPS, seed: int = 0
) -> list[Finding]:
    """Every property of an adapter with its fault, in a fixed order; what raises counts as a fault, by name.

    Args:
        make: makes the game (:class:`lore.envs.base.Env`), the same one every time.
        describe: text of one state. steps: random steps to play. seed: of worlds and actions.
    """
    played: dict[str, Any] = {}
    checks: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("plays, and every action is listed", lambda: _plays(make, played, steps, seed)),
        ("one seed is one world", lambda: _repeats(make, seed)),
        ("goes on where it was saved", lambda: _resumes(make, played)),
        ("the description is pure", lambda: _describes(played, describe)),
        ("keys are equal where the description is", lambda: _keys(played, describe)),
        ("schemas of skills and programs build", lambda: _schemas(played["env"])),
        ("skills are bounded, and one can start", lambda: _skills(played)),
        ("the rule book speaks", lambda: _rules(played)),
        ("the symbolic view hides what the player cannot see", lambda: _hides(make, seed)),
    ]
    out = []
    for name, check in checks:
        needs = name.startswith(("plays", "one seed"))
        if not needs and "states" not in played:
            out.append(Finding(name, skipped="the game could not be played"))
            continue
        if not needs and not played["env"].symbolic and not name.startswith("goes on"):
            out.append(Finding(name, skipped="the environment has no symbolic view"))
            continue
        try:
            faults = list(check())
        except Exception as error:
            faults = [f"{type(error).__name__}: {error}"]
        skipped = next((f.removeprefix("skip ") for f in faults if f.startswith("skip ")), "")
        out.append(Finding(name, "" if skipped else "; ".join(faults[:3]), skipped))
    return out


def _plays(make: Callable[[], Any], played: dict[str, Any], steps: int, seed: int) -> Iterator[str]:
    """Random play, every action in turn at first; states and actions are kept for the other checks."""
    game = make()
    env: Environment = game.spec
    played["env"] = env
    rng, count = np.random.default_rng(seed), len(env.vocab.actions)
    now, states, actions = game.reset(seed=seed), [], []
    if not now.is_first:
        yield "reset gives a step without is_first"
    for number in range(steps):
        states.append(np.array(now.state))
        if now.state.dtype != np.uint8 or now.state.shape != (env.layout.size,):
            yield f"a state is {now.state.dtype}{list(now.state.shape)}, its words say uint8[{env.layout.size}]"
            return
        if len(now.info["achievements"]) != len(env.vocab.achievements) or not {"episode", "length"} <= set(now.info):
            yield "info needs achievements, one count each, and episode and length"
            return
        if now.is_terminal and not now.is_last:
            yield "a step is terminal but not the last"
        action = -1 if now.is_last else number % count if number < 2 * count else int(rng.integers(count))
        actions.append(action)
        now = game.reset() if action < 0 else game.step(action)
    played |= {"states": np.stack(states), "actions": actions, "seed": seed}


def _repeats(make: Callable[[], Any], seed: int) -> Iterator[str]:
    game, other = make(), make()
    if not np.array_equal(game.reset(seed=seed).state, other.reset(seed=seed).state):
        yield "two games of one seed begin differently"


def _resumes(make: Callable[[], Any], played: dict[str, Any]) -> Iterator[str]:
    """Saved as JSON at a third and at two thirds of the play, loaded into a fresh game, played on to the end."""
    game, actions = make(), played["actions"]
    now = game.reset(seed=played["seed"])
    other: Any = None
    for number, action in enumerate(actions):
        if number in (len(actions) // 3, 2 * len(actions) // 3) and not now.is_last:
            saved = json.loads(json.dumps(game.state_dict()))
            other = make()
            other.load_state_dict(saved)
        now = game.reset() if action < 0 else game.step(action)
        if other is None:
            continue
        then = other.reset() if action < 0 else other.step(action)
        told = (now.reward, now.is_first, now.is_last, now.is_terminal)
        if told != (then.reward, then.is_first, then.is_last, then.is_terminal) or (now.state != then.state).any():
            yield f"step {number} differs from that of a game loaded before it"
            return


def _samples(played: dict[str, Any], most: int = 200) -> tuple[Environment, SymbolicState]:
    env, states = played["env"], played["states"]
    picks = np.unique(np.linspace(0, len(states) - 1, min(most, len(states))).astype(int))
    return env, SymbolicState.unpack(states[picks], env.layout)


def _describes(played: dict[str, Any], describe: Callable[[SymbolicState, Environment], str]) -> Iterator[str]:
    env, states = _samples(played, 50)
    for i in range(len(states)):
        before = states[i].pack()
        text = describe(states[i], env)
        if describe(SymbolicState.unpack(before, env.layout), env) != text or (states[i].pack() != before).any():
            yield f"two descriptions of state {i} differ, or describing changed it"
            return
        if not text.isprintable() and not text.replace("\n", "").isprintable():
            yield f"the description of state {i} has unprintable characters"
            return


def _keys(played: dict[str, Any], describe: Callable[[SymbolicState, Environment], str]) -> Iterator[str]:
    env, states = _samples(played)
    goals, fine = goal_keys(states, env), fine_keys(states, env)
    known: dict[str, int] = {}
    for i in range(len(states)):
        before = known.setdefault(describe(states[i], env), i)
        if goals[before] != goals[i]:
            yield f"states {before} and {i} read the same and have different goal keys"
            return
    packed = states.pack()
    for i in range(1, len(states)):
        if (packed[i] == packed[i - 1]).all() and fine[i] != fine[i - 1]:
            yield f"states {i - 1} and {i} are equal and have different keys"


def _schemas(env: Environment) -> Iterator[str]:
    names = [skill.name for skill in env.skills]
    for what, schema in (("skill", skill_json_schema(env.vocab)), ("program", program_json_schema(env.vocab, names))):
        text = json.dumps(schema)
        if '"enum": []' in text:
            yield f"the schema of a {what} has a choice among nothing"


def _skills(played: dict[str, Any]) -> Iterator[str]:
    env, states = _samples(played)
    names = [skill.name for skill in env.skills]
    if len(set(names)) < len(names):
        yield "two skills have one name"
    long = [skill.name for skill in env.skills if not 1 <= bound(skill) <= MAX_BOUND]
    if long:
        yield f"no bound: {', '.join(long)}"
    starts = [compile_condition(skill.start, env.vocab) for skill in env.skills]
    views = [StateView(state, env.vocab) for state in states.pack()]
    if starts and not any(start(view) for start in starts for view in views):
        yield "no skill can start in any state that random play meets"
    if not starts:
        yield "skip the environment has no skills"


def _rules(played: dict[str, Any]) -> Iterator[str]:
    env, states = _samples(played)
    if env.rules is None:
        yield "skip the environment has no rule book"
        return
    spoken = Evaluator(env.rules, env.skills, env.vocab).spoken(states.pack())
    if not (spoken >= 0).any():
        yield "no rule speaks in any state that random play meets"


def _hides(make: Callable[[], Any], seed: int) -> Iterator[str]:
    """The game changes what the player cannot see (``unseen_changed(rng) -> state``), and nothing may show."""
    game = make()
    if not hasattr(game, "unseen_changed"):
        yield "skip the game has no unseen_changed(rng)"
        return
    rng = np.random.default_rng(seed)
    now = game.reset(seed=seed)
    for _ in range(20):
        before, after = np.array(now.state), game.unseen_changed(rng)
        if (before != after).any():
            yield f"a state shows what the player cannot see, bytes {np.flatnonzero(before != after)[:8].tolist()}"
            return
        game.reset(seed=int(rng.integers(2**31)))
        now = game.step(int(rng.integers(len(game.spec.vocab.actions))))
        if now.is_last:
            now = game.reset()
