"""Skills and programs by dialogue: a person edits one or asks an adviser for a change; checked, tried, shown, stored.

What a person wrote lies in a draft file until it is stored, so that no error and no stop loses it; the same command
goes on from there. What an adviser answered is in the journal.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.jobs.advise import asking
from flows.jobs.asked import exchange, paid
from flows.terminal import current
from lore_datasets.atomic import write_text
from lore_datasets.errors import AnswerError, BadInput, ConfigError, LoreError, NotFound, UsageError, shown

if TYPE_CHECKING:
    from flows.jobs.subjects import Subject
    from lore_datasets.advice import AdviceData
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.types import ArtifactRef
    from pipeline.config import AskConfig

__all__ = ["Accept", "ask_for", "current_version", "draft_of", "edit", "edit_file", "store_draft"]

Accept = Callable[[str], bool]
"""Shows a person the question whether a change is to be stored; None in its place stands for --yes."""
MAX_WISH = 500
"""Most characters of what a person asks for."""
_DEAF = ("rules", "blind", "random", "degraded")
"""Backends that read no wish: the rule book and the controls."""


def current_version(store: ShippedStore, name: str) -> AdviceData:
    """The current version of an advice dataset, which alone can be changed; BadInput where another is meant."""
    from lore_datasets.advice import advice_from

    meant = store.resolve(name)
    now = store.resolve(meant.name)
    if meant != now:
        raise BadInput(
            f"{meant} is not the current version of {meant.name}, which is {now}: versions never change",
            hint=f"leave the number away, or go back to it first: lore datasets rollback '{meant}'",
        )
    return advice_from(store.open(now))


def draft_of(store: ShippedStore, subject: Subject) -> Path:
    """Where the text of a stored skill or program lies while a person works on it."""
    assert subject.ref is not None
    what = f"skill.{subject.label.split()[1]}" if subject.kind == "skills" else "program"
    return _drafts(store) / f"{subject.ref.name}.{what}.json"


def _drafts(store: ShippedStore) -> Path:
    return store.beside / "drafts"


def edit(draft: Path, subject: Subject) -> tuple[Subject, Any]:
    """Open ``draft`` in $VISUAL or $EDITOR, beginning with the stored text where there is none; what it is about, and
    the checked result.

    UsageError for no editor or one that fails, BadInput for an unchanged text, SkillError or ProgramError for one that
    does not hold. What was written stays in the draft.
    """
    is_new = not draft.exists()
    if is_new and subject.told:
        draft.parent.mkdir(parents=True, exist_ok=True)
        write_text(draft, subject.told)
    elif not is_new:
        current().say(f"  going on with {draft}")
    try:
        edit_file(draft)
        after = subject.read(_text(draft))
        subject = subject.meant(after)
        return subject, changed(subject, after)
    except LoreError as error:
        if is_new and draft.exists() and draft.read_bytes() == subject.told.encode():
            draft.unlink()
            raise
        raise _with_draft(error, draft) from None


def changed(subject: Subject, after: Any) -> Any:
    """``after``; BadInput where it is what is stored already."""
    if not subject.differences(after):
        raise BadInput(f"the {subject.label} is unchanged: nothing was tried and nothing stored")
    return after


def _with_draft(error: LoreError, draft: Path) -> LoreError:
    """The same error, which also says where the text lies."""
    return type(error)(
        error.message, kept=f"what was written, in {draft}", hint=error.hint or "the same command goes on"
    )


def _text(path: Path) -> str:
    if not path.is_file():
        raise NotFound(f"no file {path}", hint="the editor has to save under the name that it was given")
    if path.stat().st_size > 4_000_000:
        raise BadInput(f"{path} is larger than 4 MB", hint="a program has at most 128 kB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text") from None


def edit_file(path: Path) -> None:
    """Open a file in $VISUAL or $EDITOR and wait; UsageError where there is none, it does not start, or it fails."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        command = shlex.split(named)
    except ValueError as error:
        raise UsageError(f"EDITOR is {shown(named)!r}: {error}", hint="export EDITOR=nano") from None
    if not command:
        raise UsageError("no editor is named", hint="export EDITOR=nano, and run the same command")
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the editor's while it is open
    try:
        code = subprocess.Popen([*command, str(path)]).wait()
    except OSError as error:
        raise UsageError(
            f"the editor {shown(command[0])} does not start: {error.strerror}",
            hint="name one that is installed in EDITOR",
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        raise UsageError(f"the editor {shown(command[0])} ended with exit code {code}", hint="the same command goes on")


def show_try(subject: Subject, after: Any, worlds: int, seed: int) -> Any:
    """Try a change in worlds and show what came of it and what it changes; the :class:`flows.jobs.subjects.Tried`."""
    say = current().say
    say(f"  trying the {subject.label} in {worlds} worlds")
    tried = subject.attempt(after, worlds, seed)
    for line in tried.lines:
        say(f"  {line}")
    for line in subject.differences(after):
        say(f"  | {line}")
    if tried.doubt:
        say(f"  doubt   {tried.doubt}")
    return tried


def _is_accepted(subject: Subject, doubt: str, accept: Accept | None) -> bool:
    """Whether the change is to be stored; BadInput where there is a doubt and no person to ask."""
    if accept is not None:
        return accept(f"store it as the next version of {subject.ref.name if subject.ref else ''}?")
    if doubt:
        raise BadInput(
            f"the {subject.label} is not stored unseen: {doubt}", hint="leave --yes away and decide yourself"
        )
    return True


def store_draft(
    store: ShippedStore, draft: Path, subject: Subject, after: Any, *, worlds: int, seed: int, accept: Accept | None
) -> ArtifactRef | None:
    """Try what a person wrote, show it, and commit it as the next version; None where the person says no, and where the
    subject is of no version.

    A draft that was made for it goes once it is stored, a person's own file stays. BadInput where the dataset
    has moved on meanwhile.
    """
    from pipeline.rounds.commit import edits
    from pipeline.rounds.library import commit_written

    try:
        tried = show_try(subject, after, worlds, seed)
        if subject.ref is None or not _is_accepted(subject, tried.doubt, accept):
            return None
        name = subject.ref.name
        with asking(store, name):
            data = current_version(store, name)
            if data.ref != subject.ref:
                raise BadInput(f"{name} has moved on from {subject.ref} to {data.ref}", hint="the same command goes on")
            made = {"by": "a person", "of": str(subject.ref), **subject.record(after), "try": tried.record}
            skills, program = subject.parts(after)
            ref = commit_written(
                store, data, skills, program, about={"edits": [*edits(store, name), made]}, origin="a person",
                message=f"{subject.label} edited", steps=tried.steps,
            )  # fmt: skip
    except LoreError as error:
        raise _with_draft(error, draft) from None
    if draft.parent == _drafts(store):
        draft.unlink(missing_ok=True)
    return ref


def ask_for(
    store: ShippedStore, subject: Subject, wish: str, ask: AskConfig, *, worlds: int, seed: int, accept: Accept | None,
) -> ArtifactRef | None:  # fmt: skip
    """Ask an adviser for the change that a person wants, try and show the answer, commit it; None where it is refused.

    The next version holds question, answer, cost and the record of the try. An answer that cannot be used is asked for
    again (``ask.retries``); AnswerError when none can. Every answer stays in the journal.
    """
    from flows.config import AdviceJob
    from pipeline.config import AdviseConfig, PipelineConfig
    from pipeline.llm import backend_from
    from pipeline.llm.journal.journal import Journal
    from pipeline.rounds.commit import commit_round
    from pipeline.rounds.prepare import prepare

    assert subject.ref is not None
    if not wish.strip() or len(wish) > MAX_WISH or not wish.isprintable():
        raise UsageError(f"say in 1 to {MAX_WISH} printable characters what is to change")
    if ask.backend in _DEAF:
        raise ConfigError(
            f"{ask.backend} reads no wish: it is a rule book or a control",
            hint="--ask.backend gemini, openai, local, file",
        )
    name, settings = subject.ref.name, PipelineConfig(ask=ask, advise=AdviseConfig(kinds="program"))
    nowhere = np.zeros((0, subject.environment.layout.size), np.uint8)
    with asking(store, name), Journal(store.beside / "journal.sqlite") as kept:
        llm = backend_from(ask, subject.environment, seed, kept)
        if subject.kind not in llm.capabilities.kinds:
            raise UsageError(
                f"{llm.name} is never asked for a {subject.kind.removesuffix('s')}", hint="name another backend"
            )
        now = prepare(nowhere, subject.environment, llm, store, name, settings, kept)
        question = subject.prompt(now.renderer, wish)
        [asked] = now.ask([question], now.first, check=lambda found: changed(subject, subject.answered(found)))
        exchange(llm, AdviceJob(dataset=name, ask=ask))
        current().say(paid(now, [], kept))
        if asked.advice is None:
            why = now.first.rejects[-1].text if now.first.rejects else "no answer came"
            raise AnswerError(
                f"no answer of {llm.name} can be used: {why}", kept=f"every answer, in {kept.path}",
                hint="say it in other words, or ask another model",
            )  # fmt: skip
        after = subject.answered(asked.advice)
        try:
            tried = show_try(subject, after, worlds, seed)
            if not _is_accepted(subject, tried.doubt, accept):
                return None
        except LoreError as error:
            raise type(error)(error.message, kept=f"the answer, in {kept.path}", hint=error.hint) from None
        now.edit = {
            "by": llm.name, "asked": wish, "of": str(subject.ref), "kind": subject.kind, "template": subject.template,
            "from": asked.where, **subject.record(after), "try": tried.record,
        }  # fmt: skip
        subject.enter(now, after, asked.where)
        spent = {"environment_steps": tried.steps} if tried.steps else {}
        return commit_round(now, [], store, name, provenance=spent, message=f"{subject.label}: {wish}"[:200])
