"""The contract between the offline phase and whatever answers its questions.

An adviser is an :class:`LLM`: a name, :class:`Capabilities` and ``answer``. A class with ``complete(prompts)`` alone
becomes one through :func:`as_llm`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol, runtime_checkable

from lore_datasets.errors import ConfigError

__all__ = [
    "DRAFT_TEMPERATURE", "KINDS", "LLM", "Capabilities", "Completing", "Prompt", "Response", "Stop", "Take", "as_llm",
    "complete", "never", "request_hash", "response_from",
]  # fmt: skip

KINDS = ("prior", "plan", "skills", "program")
"""The questions: which goal or action now, which plans, which new skills, which priority program."""

DRAFT_TEMPERATURE = 0.8
"""Sampling temperature of every draft of an answer after the first, which is drawn as all others are."""


@dataclass(frozen=True)
class Prompt:
    """One question.

    Attributes:
        kind: one of :data:`KINDS`.
        system: the shared prefix, byte-equal over all prompts of one kind and environment (so that it can be cached).
        user: the part that differs: the state, then the options.
        schema: JSON schema of the answer, None for free text.
        options: feasible choices (goals or actions) in the order in which the prompt letters them (A, B, C, ...).
        template_hash: SHA-256 of the template that rendered it.
        state: packed SymbolicState (uint8 bytes) beside the text; never sent, empty where no state is asked about.
        max_tokens: cap on the answer.
        draft: number of the answer, from 0, where one question is asked several times; never sent.
    """

    kind: str
    system: str
    user: str
    schema: dict[str, Any] | None = None
    options: tuple[str, ...] = ()
    template_hash: str = ""
    state: bytes = field(default=b"", repr=False)
    max_tokens: int = 512
    draft: int = 0

    @property
    def text(self) -> str:
        """Everything that a model reads: system and user part."""
        return f"{self.system}\n\n{self.user}"

    @cached_property
    def question(self) -> str:
        """SHA-256 (hex) of the question, whoever is asked: kind, text, schema, length limit, draft."""
        drafts = [self.draft] if self.draft else []
        before = _canonical([self.kind, _sha256(self.system), self.user, *drafts])[:-1]
        body = f"{before},{_schema_text(self.schema)},{_canonical(self.max_tokens)}]"
        return hashlib.sha256(body.encode()).hexdigest()


@dataclass(frozen=True)
class Response:
    """One answer; a failure is a Response with ``error``, never a hole in the list.

    Attributes:
        text: the answer as it came; empty on failure.
        model: model and version that answered, as the backend names it.
        tokens_in, tokens_out: tokens read and written; 0 where unknown.
        latency_s: seconds from question to answer.
        price_usd: price of this call; 0 for what runs here.
        probabilities: one number per option of the prompt (sums to 1), where the backend exposes letter probabilities.
        confidence: 0..1 beside ``probabilities``, where the backend gives one; else their entropy decides.
        finish: ``stop``, ``length``, ``blocked``, ``error``, ``leaked`` (held a key) or ``left`` (over by batch
            jobs).
        error: None, or what went wrong in one line without secrets.
        status: HTTP status of a failure, where a server gave one; 401 for a key that is refused.
        tokens_cached: those of ``tokens_in`` that the service had read before and charges less for.
    """

    text: str
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    latency_s: float = 0.0
    price_usd: float = 0.0
    probabilities: tuple[float, ...] | None = None
    finish: str = "stop"
    error: str | None = None
    confidence: float | None = None
    status: int = 0
    tokens_cached: int = 0


def response_from(body: Mapping[str, Any]) -> Response:
    """The Response whose fields as JSON are ``body``; TypeError when they are not."""
    probabilities = body.get("probabilities")
    known = {name: value for name, value in body.items() if name != "asked"}  # stands in older journals
    return Response(**{**known, "probabilities": None if probabilities is None else tuple(probabilities)})


Take = Callable[[Sequence[tuple[int, Response]]], None]
"""Receives (index of the prompt, response) pairs; they are written down when it returns."""
Stop = Callable[[], bool]
"""True as soon as no further question may begin."""


def never() -> bool:
    """The :data:`Stop` of a caller that wants all answers."""
    return False


def _free(prompt: Prompt) -> float:
    return 0.0


def _always(prompt: Prompt) -> bool:
    return True


def _nothing_waits(prompt: Prompt) -> bool:
    return False


def _ready() -> None:
    return None


@dataclass(frozen=True)
class Capabilities:
    """What an adviser can be asked and how; the defaults are those of a plain function that answers any question.

    Attributes:
        kinds: the questions that it can be asked.
        parameters: JSON-able dict of all else that answers depend on; part of the journal's key.
        reads_state: answers depend on ``Prompt.state``, which then is part of the key too.
        answers_once: asking again is pointless (deterministic advisers).
        rereads: its answers lie in files that people correct: they are read anew, whatever the journal has of them.
        speaks_of: ``goals``, or ``actions`` when it is asked about primitive actions alone; goals then stay unknown.
        letters: it is small: goals are asked for as one letter, answered with ``Response.probabilities``, a program in
            few words.
        chunk: questions that ``complete`` is given at a time; they are written to the journal together.
        one_shard: it wants all states of a round at once.
        is_service: it waits on a network; its questions are asked by the process that has the journal alone.
        seconds_per_question, concurrency, requests_per_minute, tokens_per_minute: for the estimate of a dry run; the
            limits are 0 where there are none.
        where: who is asked, for messages; empty for the name.
        about: what is known of the model beside its name, such as its licence; goes into provenance and card.
        estimate: highest price of a question in US dollars, for limits on cost; None where no price is known.
        has_answer: whether asking this question again can have an answer.
        waits: whether the answer to a question has yet to come; it is left out for now.
        check: raises what is missing before a question can be asked: UsageError for a key, ServiceError for a server.
    """

    kinds: tuple[str, ...] = KINDS
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reads_state: bool = False
    answers_once: bool = False
    rereads: bool = False
    speaks_of: str = "goals"
    letters: bool = False
    chunk: int = 16
    one_shard: bool = False
    is_service: bool = False
    seconds_per_question: float = 0.001
    concurrency: int = 1
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    where: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    estimate: Callable[[Prompt], float] | None = _free
    has_answer: Callable[[Prompt], bool] = _always
    waits: Callable[[Prompt], bool] = _nothing_waits
    check: Callable[[], None] = _ready

    def seconds(self, questions: int, tokens: int) -> float:
        """Least time that so many questions and tokens take, by speed and by the limits per minute."""
        minutes = questions / self.requests_per_minute if self.requests_per_minute else 0.0
        minutes = max(minutes, tokens / self.tokens_per_minute if self.tokens_per_minute else 0.0)
        return max(60 * minutes, questions * self.seconds_per_question / max(1, self.concurrency))


@runtime_checkable
class LLM(Protocol):
    """An adviser; ``name`` is ``backend`` or ``backend:model`` and goes into provenance."""

    name: str
    capabilities: Capabilities

    def answer(self, prompts: Sequence[Prompt], take: Take, stop: Stop) -> None:
        """Hand one Response per prompt to ``take``, in any order, several at a time or one by one, from any thread.

        A failure is a Response with ``error``. A question begins only while ``stop()`` is False; those that have begun
        are waited for and handed over. What ``take`` raises ends the asking and is raised here.
        """
        ...


class Completing(ABC):
    """An adviser that answers lists of questions: subclasses give ``name``, ``capabilities`` and :meth:`complete`."""

    name: str
    capabilities = Capabilities()

    @abstractmethod
    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """One Response per prompt, in order; failures as Responses with ``error``."""

    def answer(self, prompts: Sequence[Prompt], take: Take, stop: Stop) -> None:
        """:meth:`LLM.answer`, ``capabilities.chunk`` questions at a time."""
        size = max(1, self.capabilities.chunk)
        for begin in range(0, len(prompts), size):
            if stop():
                return
            take(list(enumerate(self.complete(prompts[begin : begin + size]), begin)))


class _Completed(Completing):
    """A user's object with ``complete``, perhaps with ``capabilities``; attributes of their names count too."""

    def __init__(self, inner: Any) -> None:
        self.name, self._inner = str(inner.name), inner
        known = (each.name for each in fields(Capabilities) if hasattr(inner, each.name))
        named = {name: getattr(inner, name) for name in known}
        self.capabilities = replace(getattr(inner, "capabilities", Capabilities()), **named)

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        return list(self._inner.complete(prompts))


@runtime_checkable
class _Completes(Protocol):
    """The least that a user's adviser has."""

    name: str

    def complete(self, prompts: Sequence[Prompt]) -> Sequence[Response]: ...


def as_llm(adviser: Any) -> LLM:
    """``adviser`` itself when it is an :class:`LLM`, else one around its ``complete(prompts)``; ConfigError without."""
    if isinstance(adviser, LLM):
        return adviser
    if not isinstance(adviser, _Completes):
        raise ConfigError(
            f"{type(adviser).__name__} is no adviser", hint="give it a name and complete(prompts), or answer(...)"
        )
    return _Completed(adviser)


def complete(llm: LLM, prompts: Sequence[Prompt]) -> list[Response]:
    """One Response per prompt, in order; those that ``llm`` gave up before have an ``error`` too. Writes no journal."""
    found: dict[int, Response] = {}
    llm.answer(prompts, found.update, never)
    missing = Response("", finish="error", error="not asked")
    return [found.get(i, missing) for i in range(len(prompts))]


def request_hash(model: str, prompt: Prompt, parameters: Mapping[str, Any] | None = None) -> str:
    """SHA-256 (hex) of everything that an answer depends on: model, prompt text, schema, parameters."""
    return hashlib.sha256(_canonical([model, prompt.question, dict(parameters or {})]).encode()).hexdigest()


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


_SCHEMAS: dict[int, tuple[dict[str, Any], str]] = {}


def _schema_text(schema: dict[str, Any] | None) -> str:
    """Canonical JSON of a schema; of those that many questions share it is made once."""
    if schema is None:
        return "null"
    known = _SCHEMAS.get(id(schema))
    if known is None or known[0] is not schema:
        if len(_SCHEMAS) >= 512:
            _SCHEMAS.clear()
        known = _SCHEMAS[id(schema)] = (schema, _canonical(schema))
    return known[1]


@lru_cache(maxsize=64)
def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
