"""Advisers that are no models: controls without which no claim that advice helped can be made, and replay.

None of them is a language model or is labelled one. All are deterministic: the same prompt gives the same answer.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lore_datasets.errors import BadInput, ConfigError, NotFound
from pipeline.llm.base import LLM, Capabilities, Completing, Prompt, Response, Stop, Take
from pipeline.llm.journal.journal import Journal

__all__ = ["Blind", "Degraded", "RandomAdviser", "Replay"]

_RANKED, _STEPS = 6, 6


def _rng(seed: int, prompt: Prompt, salt: str) -> random.Random:
    draft = f"/{prompt.draft}" if prompt.draft else ""
    text = f"{salt}/{seed}/{prompt.kind}/{prompt.user}{draft}".encode()
    return random.Random(hashlib.sha256(text + prompt.state).digest())


def _answer(body: dict[str, Any], name: str) -> Response:
    return Response(json.dumps(body, separators=(",", ":")), model=name)


def _ranked(names: Sequence[str], confidence: float, reason: str) -> dict[str, Any]:
    return {"ranked": list(names)[:_RANKED], "confidence": confidence, "reason": reason}


def _goals(prompt: Prompt) -> list[str]:
    """The goals that the question for a program may name."""
    rule = (prompt.schema or {})["properties"]["rules"]["items"]
    return list(rule["properties"]["goal"]["enum"])


def _fixed_order(goals: Sequence[str], why: str) -> dict[str, Any]:
    """A program that never looks at the state."""
    return {"rules": [{"when": {"op": "true"}, "goal": goal, "why": why} for goal in goals]}


class RandomAdviser(Completing):
    """Uniformly random feasible choices, by seed and prompt: the control for what the skills alone are worth."""

    name = "random"

    def __init__(self, seed: int = 0, confidence: float = 0.8) -> None:
        self.seed, self.confidence = seed, confidence
        parameters = {"seed": seed, "confidence": confidence}
        self.capabilities = Capabilities(parameters=parameters, reads_state=True, answers_once=True, chunk=256)

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """One uniformly random answer per prompt; no new skills."""
        return [_answer(self._body(prompt), self.name) for prompt in prompts]

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        rng = _rng(self.seed, prompt, "random")
        if prompt.kind == "skills":
            return {"skills": []}
        mixed = _goals(prompt) if prompt.kind == "program" else list(prompt.options)
        rng.shuffle(mixed)
        if prompt.kind == "program":
            return _fixed_order(mixed, "drawn at random")
        if prompt.kind == "prior":
            return _ranked(mixed, self.confidence, "drawn at random")
        steps = [{"do": name, "times": 1} for name in mixed[:_STEPS]]
        return {"plans": [{"steps": steps, "score": self.confidence}]}


class Blind(Completing):
    """The same priorities in every state, filtered to what is on offer: advice that never looks at the state."""

    name = "blind"

    def __init__(self, seed: int = 0, confidence: float = 0.8) -> None:
        self.seed, self.confidence = seed, confidence
        parameters = {"seed": seed, "confidence": confidence}
        self.capabilities = Capabilities(parameters=parameters, answers_once=True, chunk=256)

    def _rank(self, name: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/{name}".encode()).digest()

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """One answer per prompt from a fixed order of all names, drawn once by the seed; no new skills."""
        out = []
        for prompt in prompts:
            fixed = sorted(prompt.options, key=self._rank)
            if prompt.kind == "prior":
                body = _ranked(fixed, self.confidence, "fixed order, the state was not looked at")
            elif prompt.kind == "plan":
                steps = [{"do": name, "times": 1} for name in fixed[:_STEPS]]
                body = {"plans": [{"steps": steps, "score": self.confidence}]}
            elif prompt.kind == "program":
                body = _fixed_order(sorted(_goals(prompt), key=self._rank), "fixed order")
            else:
                body = {"skills": []}
            out.append(_answer(body, self.name))
        return out


class Degraded:
    """Another adviser's answers, a share of them dropped (no answer) and a share made wrong (a random choice)."""

    def __init__(self, inner: LLM, dropped: float = 0.0, wrong: float = 0.0, seed: int = 0) -> None:
        for field, value in (("dropped", dropped), ("wrong", wrong)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ConfigError.out_of_range(field, value, "a share in 0..1")
        if dropped + wrong > 1:
            raise ConfigError.out_of_range("dropped + wrong", dropped + wrong, "shares that sum to at most 1")
        self.inner, self.dropped, self.wrong, self.seed = inner, dropped, wrong, seed
        self.name = f"degraded:{inner.name}"
        inside = dict(inner.capabilities.parameters)
        parameters = {"dropped": dropped, "wrong": wrong, "seed": seed, "inner": inside}
        self.capabilities = replace(inner.capabilities, parameters=parameters, answers_once=True)
        self._random = RandomAdviser(seed)

    def answer(self, prompts: Sequence[Prompt], take: Take, stop: Stop) -> None:
        """The inner answers, some of them empty, some random, drawn per prompt by the seed."""
        self.inner.answer(prompts, lambda part: take([(i, self._spoilt(prompts[i], r)) for i, r in part]), stop)

    def _spoilt(self, prompt: Prompt, response: Response) -> Response:
        draw = _rng(self.seed, prompt, "degraded").random()
        if response.error is not None or draw >= self.dropped + self.wrong:
            return response
        text = "" if draw < self.dropped else self._random.complete([prompt])[0].text
        return replace(response, text=text, probabilities=None)


class Replay(Completing):
    """Answers from a stored journal, under the name of the adviser that gave them; what is not there is an error.

    A question is asked again where the stored run had asked it again, so that its rows come out the same.
    """

    def __init__(self, journal: Path | str | Journal, adviser: str = "") -> None:
        if not isinstance(journal, Journal) and not Path(journal).is_file():
            raise NotFound(f"no journal {journal}", hint="give the journal file of an earlier run")
        self._journal = journal if isinstance(journal, Journal) else Journal(journal)
        known = self._journal.advisers()
        matching = [found for found in known if not adviser or found[0] == adviser]
        if len(matching) != 1:
            listed = ", ".join(sorted({found[0] for found in known})) or "nobody"
            raise BadInput(
                f"journal {self._journal.path} holds answers of {len(matching)} matching advisers",
                hint=f"name one of: {listed}",
            )
        self.name, text, reads_state = matching[0]
        parameters = json.loads(text)
        self.capabilities = Capabilities(
            kinds=self._journal.kinds(self.name, text),
            parameters=parameters,
            reads_state=reads_state,
            speaks_of="actions" if self.name.startswith("adapter:") else "goals",
            letters=parameters.get("letters") is True,
            chunk=256,
            has_answer=self.has_answer,
        )

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """The stored answer per prompt, or a Response with ``error`` where there is none."""
        missing = Response("", model=self.name, finish="error", error="this question is not in the journal")
        keys = self._journal.keys(self, prompts)
        found = self._journal.get_many(keys)
        return [found.get(key, missing) for key in keys]

    def has_answer(self, prompt: Prompt) -> bool:
        """Whether the journal holds an answer to this question."""
        return self._journal.get(self._journal.keys(self, [prompt])[0]) is not None
