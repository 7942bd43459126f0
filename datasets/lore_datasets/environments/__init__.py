"""What the contract knows about each environment: words, recipes, keys, skills, program, texts. Data and numpy, no game
code.

A name is looked up in :data:`ENVIRONMENTS`, then among the installed entry points of the group ``lore.environments``,
then read as ``module:attribute`` where a person named it. What is found is an :class:`Environment` or makes one. A
family serves all names that begin with its own and a colon, such as ``minigrid:MiniGrid-DoorKey-8x8-v0``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from lore_datasets.errors import BadInput, NotFound, shown
from lore_datasets.types import StateLayout, layout_of

if TYPE_CHECKING:
    from lore_datasets.language.geometry import StateView
    from lore_datasets.language.programs import Program
    from lore_datasets.language.skills import Skill
    from lore_datasets.vocab import Vocab

__all__ = [
    "DEFAULT",
    "ENVIRONMENTS",
    "GROUP",
    "TRUSTED",
    "Environment",
    "Score",
    "get_environment",
    "known_environments",
]

DEFAULT = "crafter"
"""The environment that is played where nobody names one."""
GROUP = "lore.environments"
"""Entry points of installed packages: the name of an environment or family -> what gives its :class:`Environment`."""
TRUSTED = "LORE_ENVIRONMENTS"
"""Environment variable: the ``module:attribute`` names, comma-separated, that stored files may make us import."""
ENVIRONMENTS: dict[str, Any] = {
    DEFAULT: "lore_datasets.environments.crafter:environment",
    "minigrid": "lore_datasets.environments.minigrid:environment",
    "ale": "lore_datasets.environments.ale:environment",
}
"""Name -> ``module:attribute``, or the :class:`Environment` or maker itself."""


@dataclass(frozen=True)
class Score:
    """What a player's success is called and compared with: the geometric mean of the success rates of the achievements,
    in per cent; with one achievement its success rate.

    Attributes:
        name, protocol: in words, for reports. chance: a random player's score, None where nobody measured it.
        references: (who, score, source) of what others reached. observation: what they saw, ``pixels`` or ``symbolic``.
    """

    name: str = "success"
    protocol: str = "all training episodes"
    chance: float | None = None
    references: tuple[tuple[str, float, str], ...] = ()
    observation: str = ""


@dataclass(frozen=True)
class Environment:
    """The contract's view of one environment.

    Attributes:
        name: as it is looked up. vocab: its words. key_scheme: names the hash of its states.
        skills: its library. rules: the rule book as a priority program, None where nobody wrote one.
        game: module (or ``module:function``) that makes the game; empty where there is words alone.
        family: environments of one family share words, skills and keys: advice on one is of use in the others.
        symbolic: False where states show nothing, so that nobody can advise.
        unlocks: (goal, achievement) where the two have different names.
        about: the rules of the game, told to a model. templates: package with question templates of its own; empty
            takes the shared ones, which tell ``about``.
        plans: ``(goal, view) -> action names``, a goal as the rule book plays it; None where a goal is its own plan.
        more_skills: what the rule book answers when it is asked for skills, beside the library; JSON values.
        players: name -> ``module:function`` that makes a player for ``lore collect``.
        score: how success is measured. tiles: target -> colour of a drawn state, where the game has no tiles itself.
    """

    name: str
    vocab: Vocab
    key_scheme: str
    skills: tuple[Skill, ...] = ()
    unlocks: tuple[tuple[str, str], ...] = ()
    rules: Program | None = None
    game: str = ""
    family: str = ""
    symbolic: bool = True
    about: str = ""
    templates: str = ""
    plans: Callable[[str, StateView], list[str]] | None = None
    more_skills: tuple[dict[str, Any], ...] = ()
    players: Mapping[str, str] = field(default_factory=dict)
    score: Score = Score()
    tiles: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> StateLayout:
        """Byte layout of packed states."""
        return layout_of(self.vocab)

    def shares_words_with(self, other: Environment) -> bool:
        """True when advice on ``other`` can be followed here: the same one, or one of the family with the same keys."""
        if self.name == other.name:
            return True
        return bool(self.family) and (self.family, self.key_scheme) == (other.family, other.key_scheme)


def known_environments() -> dict[str, str]:
    """Name of every environment and family that is known without a module -> where it comes from."""
    found = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    told = {name: value if isinstance(value, str) else type(value).__name__ for name, value in ENVIRONMENTS.items()}
    return dict(sorted((found | told).items()))


def get_environment(name: str, *, named: bool = False) -> Environment:
    """The environment of that name, the same object every time; NotFound lists the known ones.

    Args:
        named: a person named it, on a command line or in settings: then ``module:attribute`` is imported, and trusted
            from then on, in child processes too (:data:`TRUSTED`). A name that was read from a file never imports one.
    """
    family, colon, rest = name.partition(":")
    given = ENVIRONMENTS.get(name, ENVIRONMENTS.get(family) if colon else None)
    if given is None:
        for entry in entry_points(group=GROUP):
            if entry.name == name or (colon and entry.name == family):
                given = entry.value
    is_module = bool(colon) and re.fullmatch(r"[A-Za-z_][\w.]*", family, re.ASCII) is not None and rest.isidentifier()
    if given is None and is_module and (named or name in _trusted()):
        made = _from_module(name, name)
        if name not in _trusted():
            os.environ[TRUSTED] = ",".join([*_trusted(), name])
        return made
    if given is None:
        hint = f"one of: {', '.join(known_environments())}; or your own as module:Class"
        if is_module and not named:
            hint = f"a module that a file names is not imported by itself: set {TRUSTED}={shown(name)} if you trust it"
        raise NotFound(f"unknown environment {shown(name)!r}", hint=hint)
    if isinstance(given, str):
        return _from_module(name, given)
    if name not in _made or _made[name][0] is not given:
        _made[name] = given, _checked(name, given)
    return _made[name][1]


_made: dict[str, tuple[Any, Environment]] = {}
"""Name -> what is registered in this process, and the environment that it is or made."""


def _trusted() -> list[str]:
    return [name for name in os.environ.get(TRUSTED, "").split(",") if name]


@cache
def _from_module(name: str, target: str) -> Environment:
    """What ``module:attribute`` gives for a name; remembered, so that its vocabulary is one object.

    Only what was registered (a table's or entry point's target) may be a function; a bare name never calls one.
    """
    module, _, attribute = target.partition(":")
    hint = "a module on the Python path with an Environment, or what makes one, as module:Class"
    try:
        found = getattr(import_module(module), attribute or "environment")
    except (ImportError, AttributeError) as error:
        raise NotFound(f"environment {shown(name)!r}: {target}: {shown(error)}", hint=hint) from error
    return _checked(name, found, is_registered=target != name)


def _checked(name: str, found: Any, *, is_registered: bool = True) -> Environment:
    """An :class:`Environment` called ``name``; BadInput for what is none and makes none."""
    made = found
    if isinstance(found, type) and issubclass(found, Environment):
        made = found()  # type: ignore[call-arg] - a class whose fields all have defaults
    elif is_registered and callable(found):
        made = found(name)
    if not isinstance(made, Environment):
        raise BadInput(
            f"environment {shown(name)!r} is a {type(made).__name__}, no Environment",
            hint="give a lore_datasets.environments.Environment; a registered name may have a function that makes one",
        )
    if (made.name, made.vocab.environment) != (name, name):
        made = replace(made, name=name, vocab=replace(made.vocab, environment=name))
    return made
