"""Who plays an environment without learning: chance, its rule book where it has one, and players of its own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lore_datasets.errors import NotFound

if TYPE_CHECKING:
    from lore_datasets.environments import Environment

__all__ = ["best_player", "collecting_players"]


def best_player(environment: Environment) -> Any:
    """A player by the rule book; by chance where there is none."""
    from lore.options.play import GoalPlayer
    from pipeline.llm.backends.rules import rule_book
    from pipeline.rounds.collect import RandomPolicy

    if environment.rules is None:
        return RandomPolicy()
    return GoalPlayer(rule_book(environment), environment.skills, environment.vocab)


def collecting_players(environment: Environment) -> dict[str, Any]:
    """Name -> player whose states ``lore collect`` keeps: ``random``, with a rule book ``rules`` and ``half_and_half``
    too, and the environment's own; NotFound for one of these that cannot be made.
    """
    from pipeline.rounds.collect import HalfAndHalf, RandomPolicy

    found: dict[str, Any] = {"random": RandomPolicy()}
    if environment.rules is not None:
        found |= {"rules": best_player(environment), "half_and_half": HalfAndHalf(best_player(environment))}
    for name, where in environment.players.items():
        module, _, function = where.partition(":")
        try:
            found[name] = getattr(import_module(module), function)(environment)
        except (ImportError, AttributeError) as error:
            raise NotFound(f"{environment.name}: player {name} at {where}: {error}") from error
    return found
