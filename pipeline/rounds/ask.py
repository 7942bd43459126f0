"""Questions to one adviser through the journal: asked, asked again where the answer cannot be used, counted, kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

from lore_datasets.errors import AnswerError, BadInput, shown
from lore_datasets.language.programs import MAX_PROGRAM_BYTES
from pipeline.llm.base import LLM, Prompt, Response, Stop, never
from pipeline.llm.journal.budget import Budget, JournalStats, is_final
from pipeline.llm.journal.journal import Journal
from pipeline.questions.check import Rejected
from pipeline.questions.parse import Advice, clean_text, parse
from pipeline.rounds.rows import Row

__all__ = ["Asked", "Check", "ShardResult", "ask", "storable"]

Check = Callable[[Advice], object]
"""Raises BadInput when an answer of the right form cannot be used all the same."""

_AGAIN = "\n\nYour last answer to this question could not be used (attempt {n}). Answer exactly in the form asked for."


@dataclass(frozen=True)
class Asked:
    """One question and what came of it; ``advice`` is None when no answer could be used."""

    where: str
    prompt: Prompt
    advice: Advice | None


@dataclass
class ShardResult:
    """What one shard of questions gave.

    Attributes:
        rows: states with usable advice.
        answers: (request hash, prompt, response) of everything that was answered or failed, in order.
        rejects: what was refused, with reasons.
        counts: dotted name -> number.
        stats: journal hits, questions asked, tokens, dollars, seconds.
    """

    rows: list[Row] = field(default_factory=list)
    answers: list[tuple[str, Prompt, Response]] = field(default_factory=list)
    rejects: list[Rejected] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    stats: JournalStats = field(default_factory=JournalStats)


def ask(
    llm: LLM,
    prompts: Sequence[Prompt],
    names: Collection[str],
    result: ShardResult,
    *,
    journal: Journal,
    budget: Budget | None = None,
    retries: int = 0,
    stop: Stop = never,
    check: Check | None = None,
) -> list[Asked]:
    """Ask, parse, and ask again what failed or could not be used (``retries`` times); one Asked per prompt, in order.

    A question whose answer could not be used is asked again in other words, one that failed in the same words: so a
    later run finds the answer of the second attempt under the same key. An answer that was cut at its length limit,
    refused by model or service, or held a key, is not asked for again: it would end the same way. ``names`` are all
    goals and actions that an answer may name, ``check`` judges what each says. Answers, rejects and counts are added to
    ``result``. Stopped as soon as ``stop()`` is True.
    """
    out: list[Asked | None] = [_waiting(llm, prompt, result) for prompt in prompts]
    read: dict[str, Advice | AnswerError] = {}

    def judge(key: str, prompt: Prompt, response: Response) -> str:
        try:
            read[key] = advice = parse(response, prompt, names)
            if check is not None:
                check(advice)
        except (BadInput, RecursionError) as error:
            read[key] = found = error if isinstance(error, AnswerError) else AnswerError(shown(error, 200))
            return found.message
        return ""

    unusable = [0] * len(prompts)
    todo = [i for i, waiting in enumerate(out) if waiting is None]
    if llm.capabilities.rereads:
        journal.forget(journal.keys(llm, [prompts[i] for i in todo]))
    for attempt in range(0 if not todo else 1 if llm.capabilities.answers_once else retries + 1):
        asked = [_again(prompts[i], unusable[i]) for i in todo]
        if attempt:
            can = [llm.capabilities.has_answer(prompt) for prompt in asked]
            asked, todo = list(compress(asked, can)), list(compress(todo, can))
        keys = journal.keys(llm, asked)
        read.clear()  # what failed is asked again under the same key
        result.stats.retrying = attempt > 0
        first = None if attempt else judge  # one that is asked again counts in no row of unusable ones
        responses = journal.ask(llm, asked, budget=budget, stats=result.stats, keys=keys, stop=stop, judge=first)
        for kind, n in Counter([prompt.kind for prompt in asked]).items():
            result.counts[f"questions.{kind}"] += n
        left = []
        for i, key, prompt, response in zip(todo, keys, asked, responses, strict=True):
            result.answers.append((key, prompt, response))
            where = f"{prompt.kind} {key[:12]}"
            if key not in read:  # from the journal, or asked again
                judge(key, prompt, response)
            advice = read[key]
            out[i] = Asked(where, prompt, advice if isinstance(advice, Advice) else None)
            if isinstance(advice, AnswerError):
                unusable[i] += response.error is None
                left += [i] if _refuse(result, response, prompt, where, advice) else []
        todo = left
        if not todo:
            break
    return [a for a in out if a is not None]


def _waiting(llm: LLM, prompt: Prompt, result: ShardResult) -> Asked | None:
    """The outcome, counted, of a question whose answer has yet to come; None for one that can be asked."""
    if not llm.capabilities.waits(prompt):
        return None
    result.counts[f"waiting.{prompt.kind}"] += 1
    return Asked(f"{prompt.kind} waiting", prompt, None)


def _refuse(result: ShardResult, response: Response, prompt: Prompt, where: str, error: AnswerError) -> bool:
    """Count an answer that cannot be used; whether asking again could end otherwise."""
    reason = {"leaked": "leaked", "error": "failed", "length": "cut", "blocked": "blocked"}.get(response.finish)
    reason = reason or ("failed" if response.error else "malformed")
    result.counts[f"{reason}.{prompt.kind}"] += 1
    result.rejects.append(Rejected(reason, where, clean_text(shown(error, 160))))
    return reason not in ("cut", "leaked", "blocked") and not is_final(response.status)


def _again(prompt: Prompt, unusable: int) -> Prompt:
    """The question after ``unusable`` answers that could not be used; only fixed words are added, nothing of them."""
    return replace(prompt, user=prompt.user + _AGAIN.format(n=unusable)) if unusable else prompt


def storable(text: str) -> str:
    """Foreign text as the store takes it: valid Unicode, no NUL, at most as long as the longest answer."""
    return text[:MAX_PROGRAM_BYTES].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
