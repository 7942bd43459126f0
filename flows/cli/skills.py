"""``lore skills ...``: look at skills, check them, play them."""

from __future__ import annotations

import json as _json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from flows.terminal import current
from lore_datasets.environments import DEFAULT
from lore_datasets.errors import BadInput, NotFound, SkillError, UsageError, shown

if TYPE_CHECKING:
    from lore_datasets.environments import Environment
    from lore_datasets.language.skills import Skill

__all__ = ["lint", "list_skills", "run", "show", "update"]

Word = Annotated[str, tyro.conf.Positional]
File = Annotated[Path, tyro.conf.Positional]


def _library(environment: str, dataset: str) -> tuple[Environment, tuple[Skill, ...]]:
    if dataset:
        from lore_datasets.advice import load_advice

        data = load_advice(dataset)
        return data.environment, data.skills
    from lore_datasets.environments import get_environment

    found = get_environment(environment, named=True)
    return found, found.skills


def _find(name: str, environment: str, dataset: str) -> tuple[Environment, Skill]:
    """A skill by its name, or the one in the file of that name."""
    where, skills = _library(environment, dataset)
    path = Path(name)
    if path.suffix == ".json":
        found = _read(path, where)
        if len(found) != 1:
            raise BadInput(f"{path} holds {len(found)} skills, expected one")
        return where, found[0]
    named = {skill.name: skill for skill in skills}
    if name not in named:
        raise NotFound(f"no skill {shown(name)!r}", hint=f"one of: {', '.join(named)}")
    return where, named[name]


def _entries(path: Path) -> list:
    """The JSON objects of a file of skills; one object counts as a list of one."""
    if not path.is_file():
        raise NotFound(f"no file {path}", hint="give a JSON file with one skill or a list of them")
    if path.stat().st_size > 4_000_000:
        raise BadInput(f"{path} is larger than 4 MB", hint="a skill has at most 16 kB")
    try:
        body = _json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SkillError(f"{path} is not JSON: {shown(error)}") from None
    return body if isinstance(body, list) else [body]


def _read(path: Path, environment: Environment) -> list[Skill]:
    from lore_datasets.language.skills import parse_skill

    return [parse_skill(entry, environment.vocab) for entry in _entries(path)]


def list_skills(environment: str = DEFAULT, dataset: str = "") -> int:
    """List the skill library of an environment, or of an advice version.

    Args:
        environment: Whose library.
        dataset: An advice dataset instead: name, name@vN or an .h5 file.
    """
    from lore_datasets.language.skills import bound

    _, skills = _library(environment, dataset)
    width = max((len(skill.name) for skill in skills), default=0)
    for skill in skills:
        print(f"{skill.name:<{width}}  at most {bound(skill):>4} steps  {skill.about}")
    return 0


def show(name: Word, environment: str = DEFAULT, dataset: str = "") -> int:
    """Show one skill as JSON; on standard error, after how many steps it ends at the latest.

    Args:
        name: Its name, or a JSON file.
        environment: Whose library.
        dataset: An advice dataset instead.
    """
    from lore_datasets.language.skills import bound

    _, skill = _find(name, environment, dataset)
    print(_json.dumps(_json.loads(skill.to_json()), indent=2))
    print(f"ends after at most {bound(skill)} steps", file=sys.stderr)
    return 0


def lint(path: File, environment: str = DEFAULT) -> int:
    """Check a file of skills, or of a priority program: what does not hold is named with its reason.

    Args:
        path: JSON file with one skill, a list of skills, or one program ({"rules": [...]}).
        environment: Whose words the skills use, and whose skills the program names.
    """
    from lore_datasets.environments import get_environment
    from lore_datasets.language.skills import bound, parse_skill

    where, bad = get_environment(environment, named=True), 0
    if len(entries := _entries(path)) == 1 and isinstance(entries[0], dict) and "rules" in entries[0]:
        return _lint_program(entries[0], where)
    for index, entry in enumerate(entries):
        try:
            skill = parse_skill(entry, where.vocab)
            print(f"ok    {skill.name}: at most {bound(skill)} steps")
        except BadInput as error:
            bad += 1
            print(f"bad   entry {index}: {error}")
    if bad:
        raise SkillError(f"{path}: {bad} skills do not hold", hint="mend the entries listed above")
    return 0


def _lint_program(body: dict, where: Environment) -> int:
    from lore_datasets.language.lint import lint_program
    from lore_datasets.language.programs import parse_program

    program = parse_program(body, where.vocab, [skill.name for skill in where.skills])
    found = lint_program(program, where.skills, where.vocab)
    for line in found:
        print(f"doubt {line}")
    print(f"ok    a program of {len(program)} rules, digest {program.digest[:12]}, {len(found)} doubts")
    return 0


def run(name: Word, environment: str = DEFAULT, dataset: str = "", episodes: int = 5, seed: int = 0) -> int:
    """Play one skill in fresh worlds, from the first state where it may start, and say how it ended.

    Args:
        name: Its name, or a JSON file.
        environment: Whose library and which game.
        dataset: An advice dataset instead.
        episodes: Worlds to play.
        seed: Seed of worlds and walks.
    """
    import numpy as np

    from lore.config import EnvConfig
    from lore.envs import make_env
    from lore.options.interpreter import Outcome, SkillRun, propose
    from lore_datasets.language.geometry import StateView

    if seed < 0:
        raise UsageError(f"--seed {seed} is out of range", hint="0 or more")
    where, skill = _find(name, environment, dataset)
    game = make_env(EnvConfig(name=where.name, observation="symbolic"), seed)
    rng = np.random.default_rng(seed)
    moves = sorted({where.vocab.action(name) for *_, name in where.vocab.directions})
    for episode in range(1, episodes + 1):
        step, waited, reward = game.reset(), 0, 0.0
        while propose((skill,), StateView(step.state, where.vocab))[0] < 0 and waited < 500 and not step.is_last:
            step = game.step(moves[int(rng.integers(len(moves)))])
            waited += 1
        outcome: int | Outcome = Outcome.aborted
        player = SkillRun(skill, where.vocab, rng)
        before = StateView(step.state, where.vocab)
        while not step.is_last:
            outcome = player.next_action(StateView(step.state, where.vocab))
            if isinstance(outcome, Outcome):
                break
            step = game.step(outcome)
            reward += step.reward
        after = StateView(step.state, where.vocab)
        gained = {item: after.inventory(item) - before.inventory(item) for item in where.vocab.items}
        change = ", ".join(f"{item} {n:+d}" for item, n in gained.items() if n) or "inventory unchanged"
        ended = "episode over" if step.is_last else outcome.value if isinstance(outcome, Outcome) else "running"
        took = f"waited {waited} steps, {ended} after {player.elapsed} steps"
        current().say(f"world {episode}: {took}, reward {reward:+.1f}, {change}")
    return 0


def update(dataset: Word) -> int:
    """Give an advice dataset the skills of today's library; the next version holds them, rows and programs stay.

    Where no program speaks, the version's advice model is distilled too.

    Args:
        dataset: Its name; the skills of its environment's library take the place of those stored under their names.
    """
    from flows.jobs.advise import asking
    from flows.jobs.distil import distil_model, needs_model
    from lore_datasets.exchange.shipped import ShippedStore
    from pipeline.rounds.library import update_skills

    store = ShippedStore()
    with asking(store, dataset):  # a round under way commits with the skills that it began with
        made = update_skills(store, dataset)
    if not made.replaced and not made.added:
        print(f"{made.ref} has the skills of the library already")
        return 0
    for what, names in (("replaced", made.replaced), ("added", made.added)):
        print(f"{what:<9}{', '.join(names) or 'none'}")
    if needs_model(made.ref):
        print(f"model    {distil_model(made.ref)}")
    print(f"advice   {made.ref}\nnext: lore datasets play '{made.ref}' says what that is worth")
    return 0
