"""A game state in four lines of text, made from closed word lists and numbers alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.language.geometry import StateView
from lore_datasets.types import SymbolicState
from lore_datasets.vocab import Vocab

__all__ = ["LOW_VITAL", "daylight_word", "describe", "offset_words"]

LOW_VITAL = 3
"""A vital at or under this is called low."""

_DAYLIGHT = ((64, "night"), (128, "dusk"), (256, "day"))


def offset_words(dx: int, dy: int) -> str:
    """``(-2, 1)`` -> ``"2 left 1 down"``: how far and where, seen from the player."""
    across = f"{abs(dx)} {'left' if dx < 0 else 'right'}" if dx else ""
    along = f"{abs(dy)} {'up' if dy < 0 else 'down'}" if dy else ""
    return f"{across} {along}".strip() or "here"


def daylight_word(daylight: int) -> str:
    """``night`` under a quarter, ``dusk`` under half, else ``day``."""
    return next(word for limit, word in _DAYLIGHT if daylight < limit)


class _Crop:
    """Geometry of a vocabulary's view: cells sorted by distance, with their offsets in words."""

    def __init__(self, size: tuple[int, int]) -> None:
        width, height = size
        x0, y0 = width // 2, height // 2
        cells = [(abs(x - x0) + abs(y - y0), y, x) for y in range(height) for x in range(width)]
        cells.sort()
        self.order = np.array([y * width + x for _, y, x in cells])
        self.words = [offset_words(x - x0, y - y0) for _, y, x in cells]
        self.rank = {(x - x0, y - y0): i for i, (_, y, x) in enumerate(cells)}


@lru_cache(maxsize=8)
def _crop(size: tuple[int, int]) -> _Crop:
    return _Crop(size)


def describe(state: SymbolicState, environment: Environment) -> str:
    """Lines: the mission where there is one, achievements of this episode; inventory, numbers, vitals and daylight
    where the environment has them; what is in view.

    ``state`` is a single state. What changes seldom comes first, so that questions about one episode share their
    beginning. Distances are in cells; of each kind that is not beside the player the nearest is named, and how many are
    in view. What is no option though in view is told with the reason: no path, or the tool that it needs.
    """
    vocab, view = environment.vocab, StateView(state, environment.vocab)
    counts = list(zip(vocab.items, state.inventory.tolist(), strict=True))
    mission = vocab.mission_text(state.mission.tolist())
    lines = [f"Mission: {mission}."] if mission else []
    lines.append("Achieved so far: " + (_flagged(state.unlocked.tolist(), vocab.achievements) or "nothing"))
    if len(vocab.numbers) < len(vocab.items):
        held = ", ".join(f"{n} {name}" for name, n in counts if n and name not in vocab.numbers)
        lines.append(f"Inventory: {held or 'empty'}")
    if vocab.numbers:
        lines.append(
            "Numbers: " + (", ".join(f"{name} {n}" for name, n in counts if name in vocab.numbers and n) or "0")
        )
    if told := _condition(state, view):
        lines.append(told)
    if len(view.cells) > 1:
        lines.append(_view(state, vocab) + _barred(view))
    return "\n".join(lines)


def _condition(state: SymbolicState, view: StateView) -> str:
    """Vitals, time of day, sleep and walls; empty where the environment has neither vitals nor a clock."""
    vocab, said = view.vocab, []
    if vocab.vitals:
        said.append(f"Vitals: {', '.join(_vitals(state, vocab))}.")
    if "daylight" in vocab.clock:
        said.append(f"It is {daylight_word(int(state.daylight))},")
    if "sleeping" in vocab.clock:
        asleep = "asleep: every action is a noop until you wake" if int(state.sleeping) else "awake"
        said.append(f"{'you' if 'daylight' in vocab.clock else 'You'} are {asleep}.")
    if said and view.is_enclosed():
        said.append("You are walled in.")
    return " ".join(said)


def _view(state: SymbolicState, vocab: Vocab) -> str:
    crop, targets = _crop(vocab.view), vocab.targets
    seen = np.asarray(state.view, np.uint8).reshape(-1)[crop.order].tobytes()
    here = {name: targets[seen[crop.rank[dx, dy]]] for name, dx, dy, _ in vocab.directions}
    faced = vocab.directions[int(state.facing) % len(vocab.directions)][0]
    beside = {"player", *here.values()}
    farther = []
    for kind in set(seen[1:]) - {0}:  # index 0 is the player's own cell
        name, at, count = targets[kind], seen.find(kind, 1), seen.count(kind)
        if name not in beside:
            several = f" ({count} in view)" if count > 1 and name not in vocab.walkable else ""
            farther.append((at, f"{name} {crop.words[at]}{several}"))
    hidden = vocab.targets[:1] if vocab.turns else ()  # behind a player that turns with its view
    around = ", ".join(f"{name} {what}" for name, what in here.items() if name != faced and what not in hidden)
    if len(set(here.values())) == 1:
        around = "the same all round"
    nearest = "; ".join(text for _, text in sorted(farther)) or "nothing else"
    return f"Facing {faced}: {here[faced]}. Beside you: {around}. Farther: {nearest}."


def _barred(view: StateView) -> str:
    """What is in view but no option, with the reason; empty where there is none."""
    vocab, reasons = view.vocab, []
    tools = {kind: action for kind, action, _ in vocab.clears}
    for name in view.in_view():
        recipes = [r for r in vocab.recipes.get(tools.get(name, ""), ()) if name in r.facing]
        lacking = [item for r in recipes[:1] for item, n in r.needs if item != name and view.inventory(item) < n]
        if lacking and not any(item in vocab.targets for item in lacking):
            reasons.append(f"{name} needs {' and '.join(lacking)}")
        elif name not in (*vocab.walkable, *vocab.lethal, "nothing", "player") and not view.reachable(name):
            reasons.append(f"{name} has no path")
    return f" No option: {'; '.join(sorted(reasons))}." if reasons else ""


def _flagged(flags: list[int], names: tuple[str, ...]) -> str:
    return ", ".join(name for on, name in zip(flags, names, strict=True) if on)


def _vitals(state: SymbolicState, vocab: Vocab) -> list[str]:
    values = state.vitals.tolist()
    return [f"{n} {v}{' (low)' if v <= LOW_VITAL else ''}" for n, v in zip(vocab.vitals, values, strict=True)]
