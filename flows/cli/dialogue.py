"""``lore skills edit | ask`` and ``lore programs edit | ask``: changes by a person, or by an adviser who is asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lore_datasets.environments import DEFAULT
from lore_datasets.errors import UsageError
from pipeline.config import AskConfig

if TYPE_CHECKING:
    from flows.jobs.dialogue import Accept
    from flows.jobs.subjects import Subject
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.types import ArtifactRef

__all__ = ["ask_program", "ask_skill", "edit_program", "edit_skill"]

Word = Annotated[str, tyro.conf.Positional]
_ASK = AskConfig()


def _accept(yes: bool) -> Accept | None:
    """Who decides: nobody with --yes, else the person at the terminal."""

    def asks(question: str) -> bool:
        if not sys.stdin.isatty():
            raise UsageError("nobody is here to accept the change", hint="--yes accepts what nothing speaks against")
        print(f"{question} [y/N] ", end="", flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return None if yes else asks


def _said(ref: ArtifactRef | None, kept: str) -> int:
    """Say what was stored, after the advice model that look-up would ask is there; or that nothing was."""
    from flows.jobs.distil import distil_model, needs_model

    if ref is None:
        print(f"not stored; {kept}")
        return 0
    if needs_model(ref):
        print(f"model    {distil_model(ref)}")
    print(f"advice   {ref}\nnext: lore datasets play '{ref}' says what that is worth")
    return 0


def _edited(store: ShippedStore, subject: Subject, draft: Path, worlds: int, seed: int, yes: bool) -> int:
    from flows.jobs.dialogue import edit, store_draft

    subject, after = edit(draft, subject)
    ref = store_draft(store, draft, subject, after, worlds=worlds, seed=seed, accept=_accept(yes))
    if subject.ref is None:
        print(f"{draft} holds it\nnext: lore skills edit {draft} --dataset NAME stores it in a dataset")
        return 0
    return _said(ref, f"what was written is kept in {draft}; the same command goes on")


def edit_skill(
    name: Word, dataset: str = "", environment: str = DEFAULT, worlds: int = 20, seed: int = 0, yes: bool = False
) -> int:
    """Edit one skill in $EDITOR: what was written is checked, tried in worlds, shown as a difference and stored.

    With a dataset its next version holds the skill, under its name; without one it is written to NAME.json.

    Args:
        name: A skill's name, or a JSON file with one skill, which is edited where it lies.
        dataset: Advice dataset whose next version is to hold it.
        environment: Whose library the skill is taken from where no dataset is given.
        worlds: Worlds of the try.
        seed: Seed of worlds and walks.
        yes: Store it without asking, unless the try speaks against it.
    """
    from flows.jobs.dialogue import current_version, draft_of
    from flows.jobs.subjects import skill_of
    from lore_datasets.environments import get_environment
    from lore_datasets.exchange.shipped import ShippedStore

    store = ShippedStore()
    subject = skill_of(current_version(store, dataset) if dataset else get_environment(environment, named=True), name)
    beside = Path(name if subject.is_open else f"{name}.json")
    draft = draft_of(store, subject) if dataset and not subject.is_open else beside
    return _edited(store, subject, draft, worlds, seed, yes)


def ask_skill(
    wish: Word, dataset: str, skill: str = "", ask: AskConfig = _ASK, worlds: int = 20, seed: int = 0,
    yes: bool = False,
) -> int:  # fmt: skip
    """Ask an adviser for a change of one skill, or for a new one: checked, tried in worlds, shown as a difference.

    Args:
        wish: What is to change, in plain words: "make it flee at night".
        dataset: Advice dataset whose next version is to hold it.
        skill: The skill that is to change; a new one is asked for where none is named.
        ask: Who is asked, and for how much.
        worlds: Worlds of the try.
        seed: Seed of worlds and walks.
        yes: Store it without asking, unless the try speaks against it.
    """
    from flows.jobs.dialogue import ask_for, current_version
    from flows.jobs.subjects import skill_of
    from lore_datasets.exchange.shipped import ShippedStore

    store = ShippedStore()
    subject = skill_of(current_version(store, dataset), skill)
    ref = ask_for(store, subject, wish, ask, worlds=worlds, seed=seed, accept=_accept(yes))
    return _said(ref, "the answer is kept in the journal; other words ask anew")


def edit_program(dataset: Word, worlds: int = 20, seed: int = 0, yes: bool = False) -> int:
    """Edit a dataset's program in $EDITOR: what was written is checked, played beside the one before, stored.

    Args:
        dataset: Advice dataset whose next version is to hold it.
        worlds: Worlds in which both play one life.
        seed: Seed of the worlds.
        yes: Store it without asking, unless it plays worse.
    """
    from flows.jobs.dialogue import current_version, draft_of
    from flows.jobs.subjects import program_of
    from lore_datasets.exchange.shipped import ShippedStore

    store = ShippedStore()
    subject = program_of(current_version(store, dataset))
    return _edited(store, subject, draft_of(store, subject), worlds, seed, yes)


def ask_program(
    wish: Word, dataset: str, ask: AskConfig = _ASK, worlds: int = 20, seed: int = 0, yes: bool = False
) -> int:
    """Ask an adviser for a change of a dataset's program: checked, played beside the one before, shown rule by rule.

    Args:
        wish: What is to change, in plain words.
        dataset: Advice dataset whose next version is to hold it.
        ask: Who is asked, and for how much.
        worlds: Worlds in which both play one life.
        seed: Seed of the worlds.
        yes: Store it without asking, unless it plays worse.
    """
    from flows.jobs.dialogue import ask_for, current_version
    from flows.jobs.subjects import program_of
    from lore_datasets.exchange.shipped import ShippedStore

    store = ShippedStore()
    subject = program_of(current_version(store, dataset))
    ref = ask_for(store, subject, wish, ask, worlds=worlds, seed=seed, accept=_accept(yes))
    return _said(ref, "the answer is kept in the journal; other words ask anew")
