"""Answers of a model into advice: strict, size-capped, and nothing but AnswerError for what cannot be used."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from lore_datasets.errors import AnswerError, shown
from lore_datasets.language.programs import MAX_PROGRAM_BYTES
from pipeline.llm.base import Prompt, Response
from pipeline.questions.prompts import LETTERS
from pipeline.questions.schemas import MAX_RANKED, MAX_TIMES

__all__ = ["MAX_ANSWER", "Advice", "Plan", "clean_text", "extract_json", "parse"]

MAX_ANSWER = 65_536
"""Largest answer in bytes; longer ones are refused before they are parsed. A program may be larger."""
MAX_REASON = 200
MAX_PLANS, MAX_STEPS, MAX_SKILLS = 3, 12, 8

_FENCE = re.compile(r"```[a-zA-Z]{0,10}[ \t]*\n(.*?)```", re.DOTALL)
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
"""What a model thought before its answer; some write no opening tag."""
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")
_ATTEMPTS = 16
_STEP = {"do", "times"}


@dataclass(frozen=True)
class Plan:
    """Steps (name, times) of one plan, and how sure the adviser is of it (0..1)."""

    steps: tuple[tuple[str, int], ...]
    score: float


@dataclass(frozen=True)
class Advice:
    """What one usable answer says; which fields are filled depends on ``kind``.

    Attributes:
        kind: ``prior``, ``plan``, ``skills`` or ``program``.
        choices: (name, probability) pairs, best first, probabilities sum to 1 (prior).
        confidence: 0..1 (prior).
        weight: 0..1, how much of the probability follows ``choices``; the rest is spread over all that is feasible.
        reason: cleaned free text of at most 200 characters; never put into a prompt (prior).
        plans: at most three plans (plan).
        program: raw program object, for ``lore_datasets.language.programs.parse_program`` to judge (program).
        skills: raw skill objects, for ``lore_datasets.language.skills.parse_skill`` to judge (skills).
    """

    kind: str
    choices: tuple[tuple[str, float], ...] = ()
    confidence: float = 0.0
    weight: float = 1.0
    reason: str = ""
    plans: tuple[Plan, ...] = ()
    skills: tuple[dict[str, Any], ...] = ()
    program: dict[str, Any] | None = None


def parse(response: Response, prompt: Prompt, names: Collection[str]) -> Advice:
    """The advice in ``response`` to ``prompt``; AnswerError says what is wrong with it.

    ``names`` are all goals and actions that may be named. Letter probabilities win over the text where both are given.
    """
    if response.error is not None:
        raise AnswerError(f"no answer: {shown(response.error)}")
    if response.finish in ("length", "blocked") and not response.probabilities:
        raise AnswerError(f"answer was {'cut at its length limit' if response.finish == 'length' else 'blocked'}")
    if prompt.kind == "prior":
        if response.probabilities is not None:
            advice = _letters(response.probabilities, prompt.options)
            if response.confidence is None:
                return advice
            return replace(advice, confidence=_unit(response.confidence, "confidence"))
        said = _THOUGHT.sub("", response.text) if len(response.text) <= MAX_ANSWER else ""
        letter = _LETTER.fullmatch(said.strip()) if len(said) < 16 else None
        if letter:
            return _one_letter(letter[1], prompt.options)
    if prompt.kind == "program":
        return Advice("program", program=_program(extract_json(response.text, MAX_PROGRAM_BYTES)))
    value = extract_json(response.text)
    if prompt.kind == "prior":
        return _prior(value, names)
    return _plans(value, names) if prompt.kind == "plan" else _skills(value)


def extract_json(text: str, limit: int = MAX_ANSWER) -> dict[str, Any]:
    """The one JSON object in ``text`` (bare, fenced, or with prose around it); AnswerError for anything else, or for
    more than ``limit`` bytes.
    """
    if not isinstance(text, str):
        raise AnswerError("answer is not text")
    if len(text) > limit or len(text.encode("utf-8", "replace")) > limit:
        raise AnswerError(f"answer of {len(text)} characters", hint=f"at most {limit} bytes")
    body = text.strip()
    if body.startswith("{") and body.endswith("}"):
        try:
            return _object(_DECODER.decode(body))
        except _NotJson:
            pass
    text = _THOUGHT.sub("", text)  # drafts in a thought are no answer
    if text.strip() != body:
        return extract_json(text, limit)
    fences = _FENCE.findall(text)
    if len(fences) == 1 and fences[0].strip().startswith("{"):
        try:
            return _object(_DECODER.decode(fences[0].strip()))
        except _NotJson as error:
            if text.count("```") == 2:
                raise AnswerError(f"fenced answer is not JSON: {shown(error)}") from None
    return _object(_only_object(text))  # also where a text within the object holds a fence


class _NotJson(ValueError):
    """The text is not JSON at all (as opposed to JSON that breaks a rule)."""


class _Decoder(json.JSONDecoder):
    """JSON without NaN, infinity, overflowing numbers or duplicate keys; syntax errors become _NotJson."""

    def __init__(self) -> None:
        super().__init__(
            parse_constant=self._constant, parse_float=self._float, parse_int=self._int, object_pairs_hook=self._pairs
        )

    @staticmethod
    def _constant(word: str) -> float:
        raise AnswerError(f"{word} is not a number")

    @staticmethod
    def _float(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise AnswerError(f"number {shown(digits, 20)} overflows")
        return number

    @staticmethod
    def _int(digits: str) -> int:
        if len(digits) > 18:
            raise AnswerError(f"number {shown(digits, 20)} is too long")
        return int(digits)

    @staticmethod
    def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise AnswerError("a key stands twice in one object")
        return found

    def decode(self, text: str) -> Any:  # type: ignore[override]
        try:
            return super().decode(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise _NotJson(str(error)) from None

    def raw_decode(self, text: str, idx: int = 0) -> tuple[Any, int]:
        try:
            return super().raw_decode(text, idx)
        except RecursionError:
            raise AnswerError("answer is nested too deeply") from None


_DECODER = _Decoder()


def _only_object(text: str) -> Any:
    """The single top-level object inside prose; more than one is ambiguous."""
    found, at = [], text.find("{")
    for _ in range(_ATTEMPTS):
        if at < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, at)
            found.append(value)
        except json.JSONDecodeError:
            end = at + 1
        at = text.find("{", end)
    if at >= 0 or len(found) > 1:
        raise AnswerError("answer holds several objects or too many braces to be one answer")
    if not found:
        raise AnswerError(f"answer holds no JSON object: {shown(text.strip(), 40)!r}")
    return found[0]


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise AnswerError(f"answer is a {type(value).__name__}, not an object")
    return value


def _fields(value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise AnswerError(f"{where} is a {type(value).__name__}, not an object")
    if value.keys() == {*required, *optional}:
        return value
    missing = [k for k in required if k not in value]
    unknown = [shown(k, 20) for k in value if k not in required and k not in optional]
    if missing or unknown:
        raise AnswerError(
            f"{where}: missing {', '.join(missing)}" if missing else f"{where}: unknown {', '.join(unknown[:4])}"
        )
    return value


def _unit(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise AnswerError(f"{where} = {shown(value, 20)} is not a number in 0..1")
    return float(value)


def _list(value: Any, where: str, low: int, high: int) -> list[Any]:
    if not isinstance(value, list) or not low <= len(value) <= high:
        size = len(value) if isinstance(value, list) else type(value).__name__
        raise AnswerError(f"{where}: {size} where a list of {low}..{high} belongs")
    return value


def _name(value: Any, where: str, names: Collection[str]) -> str:
    if isinstance(value, str) and value in names:
        return value
    near = get_close_matches(value[:40], sorted(names), n=3) if isinstance(value, str) else []
    raise AnswerError(f"{where}: unknown name {shown(value, 40)!r}", hint=f"near: {', '.join(near)}" if near else "")


def clean_text(value: str, limit: int = MAX_REASON) -> str:
    """Foreign text in NFC without control, format, surrogate, private or unassigned characters, cut at ``limit``."""
    if value.isascii() and value.isprintable():
        return value[:limit]
    value = value[: 4 * limit].encode("utf-8", "ignore").decode()
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in unicodedata.normalize("NFC", value))
    return " ".join(kept.split())[:limit]


def _prior(value: dict[str, Any], names: Collection[str]) -> Advice:
    _fields(value, "answer", ("ranked", "confidence"), ("reason",))
    ranked = [_name(v, f"ranked[{i}]", names) for i, v in enumerate(_list(value["ranked"], "ranked", 1, MAX_RANKED))]
    if len(set(ranked)) != len(ranked):
        raise AnswerError("ranked holds a name twice")
    reason = value.get("reason", "")
    if not isinstance(reason, str):
        raise AnswerError(f"reason is a {type(reason).__name__}, not text")
    sure = _unit(value["confidence"], "confidence")
    return Advice("prior", _geometric(ranked), confidence=sure, weight=sure, reason=clean_text(reason))


def _geometric(ranked: Sequence[str]) -> tuple[tuple[str, float], ...]:
    total = 2.0 - 0.5 ** (len(ranked) - 1)
    return tuple((name, 0.5**i / total) for i, name in enumerate(ranked))


def _one_letter(letter: str, options: Sequence[str]) -> Advice:
    at = LETTERS.find(letter if len(options) > 26 else letter.upper())
    if not 0 <= at < len(options):
        raise AnswerError(f"letter {letter} is none of the {len(options)} options")
    return Advice("prior", ((options[at], 1.0),), confidence=0.5, weight=0.5)


def _letters(probabilities: Sequence[float], options: Sequence[str]) -> Advice:
    """Choices from letter probabilities; confidence is one minus the entropy over ln(number of options)."""
    if len(probabilities) != len(options) or not options:
        raise AnswerError(f"{len(probabilities)} letter probabilities for {len(options)} options")
    values = [_unit(p, "letter probability") for p in probabilities]
    total = sum(values)
    if not 0.5 <= total <= 1.001:
        raise AnswerError(f"letter probabilities sum to {total:.3g}")
    pairs = sorted(((name, p / total) for name, p in zip(options, values, strict=True)), key=lambda pair: -pair[1])
    entropy = -sum(p * math.log(p) for _, p in pairs if p > 0)
    confidence = 1.0 - entropy / math.log(len(options)) if len(options) > 1 else 1.0
    return Advice("prior", tuple(pairs), min(max(confidence, 0.0), 1.0))


def _plans(value: dict[str, Any], names: Collection[str]) -> Advice:
    _fields(value, "answer", ("plans",))
    plans = []
    for i, plan in enumerate(_list(value["plans"], "plans", 1, MAX_PLANS)):
        where = f"plans[{i}]"
        _fields(plan, where, ("steps", "score"))
        steps = []
        for j, step in enumerate(_list(plan["steps"], f"{where}.steps", 1, MAX_STEPS)):
            if _is_step(step, names):
                steps.append((step["do"], step["times"]))
                continue
            at = f"{where}.steps[{j}]"
            _fields(step, at, ("do",), ("times",))
            times = step.get("times", 1)
            if type(times) is not int or not 1 <= times <= MAX_TIMES:
                raise AnswerError(f"{at}.times = {shown(times, 20)} is not an integer in 1..{MAX_TIMES}")
            steps.append((_name(step["do"], at, names), times))
        plans.append(Plan(tuple(steps), _unit(plan["score"], f"{where}.score")))
    return Advice("plan", plans=tuple(plans))


def _is_step(step: Any, names: Collection[str]) -> bool:
    """Whether a step is whole and right as it stands; one that is not is read again, to say what is wrong with it."""
    if type(step) is not dict or step.keys() != _STEP:
        return False
    do, times = step["do"], step["times"]
    return type(do) is str and do in names and type(times) is int and 1 <= times <= MAX_TIMES


def _program(value: dict[str, Any]) -> dict[str, Any]:
    """The program with its reasons cleaned; all else is the language's to judge."""
    rules = value.get("rules")
    if isinstance(rules, list):
        for rule in rules:
            if isinstance(rule, dict) and isinstance(rule.get("why"), str):
                rule["why"] = clean_text(rule["why"])
    return value


def _skills(value: dict[str, Any]) -> Advice:
    _fields(value, "answer", ("skills",))
    found = _list(value["skills"], "skills", 0, MAX_SKILLS)
    for i, skill in enumerate(found):
        if not isinstance(skill, dict):
            raise AnswerError(f"skills[{i}] is a {type(skill).__name__}, not an object")
    return Advice("skills", skills=tuple(found))
