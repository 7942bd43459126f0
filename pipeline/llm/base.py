"""The one Protocol between the offline phase and whatever answers its questions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Protocol, runtime_checkable

__all__ = ["KINDS", "LLM", "Prompt", "Response", "request_hash", "response_from"]

KINDS = ("prior", "plan", "skills")
"""The three questions: which goal or action now, which plans, which new skills."""


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
    """

    kind: str
    system: str
    user: str
    schema: dict[str, Any] | None = None
    options: tuple[str, ...] = ()
    template_hash: str = ""
    state: bytes = field(default=b"", repr=False)
    max_tokens: int = 512

    @property
    def text(self) -> str:
        """Everything that a model reads: system and user part."""
        return f"{self.system}\n\n{self.user}"

    @cached_property
    def question(self) -> str:
        """SHA-256 (hex) of the question, whoever is asked: kind, text, schema, length limit."""
        before = _canonical([self.kind, _sha256(self.system), self.user])[:-1]
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
        finish: ``stop``, ``length``, ``blocked`` or ``error``.
        error: None, or what went wrong in one line without secrets.
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


def response_from(body: Mapping[str, Any]) -> Response:
    """The Response whose fields as JSON are ``body``; TypeError when they are not."""
    probabilities = body.get("probabilities")
    return Response(**{**body, "probabilities": None if probabilities is None else tuple(probabilities)})


@runtime_checkable
class LLM(Protocol):
    """An adviser: ``complete`` answers every prompt, in order, one Response each.

    ``name`` is ``backend`` or ``backend:model`` and goes into provenance. What a backend may have besides:

    - ``parameters``: JSON-able dict of all else that answers depend on; part of the journal's key.
    - ``reads_state``: True when answers depend on ``Prompt.state``, which then is part of the key too.
    - ``answers_once``: True when asking again is pointless (deterministic advisers).
    - ``kinds``: the questions it can be asked (default: all of :data:`KINDS`).
    - ``speaks_of``: ``"actions"`` when it is asked about primitive actions alone; goals stay unknown in its rows.
    - ``attach(journal)``: called before questions, for backends that keep more in the journal than answers.
    - ``one_shard``: True to be asked about all states at once.
    - ``letters``: True to be asked for one letter, answered with ``Response.probabilities``.
    - ``chunk``: questions per ``complete`` call, written to the journal together.
    - ``stream(prompts)``: yields (index, Response) as answers come in; each is written before the next is taken.
    - ``answer_to(take, prompts)``: the same, but calls ``take`` with lists of what is there, to be written together.
    - ``spec``: how another process makes the same adviser; it then asks and writes (:mod:`pipeline.llm.http.sender`).
    - ``gives_up``: True when its stream ends by itself, early, after failures in a row; it is then heard to the end.
    - ``where``: who is asked, for messages (default: ``name``).
    - ``has_answer(prompt)``: False where asking again in other words is pointless.
    - ``estimate(prompt)``: highest price of a question in US dollars, for limits on cost.
    - ``about``: what is known of the model beside its name, such as its licence; goes into provenance and card.
    - ``seconds_per_question``, ``concurrency``: for the estimate of a dry run.
    """

    name: str

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """One Response per prompt, in order; failures as Responses with ``error``."""
        ...


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
