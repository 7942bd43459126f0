"""Answers: what is usable is read, everything else is an AnswerError, and no number is ever other than finite."""

import json
import math
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lore_datasets.errors import AnswerError
from pipeline.llm.base import Prompt, Response
from pipeline.questions.parse import MAX_ANSWER, Advice, clean_text, extract_json, parse

NAMES = ("explore", "collect_wood", "place_table", "flee", "do", "noop")
OPTIONS = NAMES[:4]
GOOD = {
    "prior": {"ranked": ["collect_wood", "explore"], "confidence": 0.75, "reason": "trees are near"},
    "plan": {"plans": [{"steps": [{"do": "collect_wood", "times": 2}, {"do": "do"}], "score": 0.5}]},
    "skills": {"skills": [{"name": "x"}]},
}


def ask(text, kind="prior", **response):
    prompt = Prompt(kind, "", "", options=OPTIONS)
    return parse(Response(text, **response), prompt, NAMES)


def numbers(advice: Advice):
    yield advice.confidence
    yield advice.weight
    yield from (p for _, p in advice.choices)
    yield from (plan.score for plan in advice.plans)


def test_a_ranked_answer_gives_geometric_probabilities_that_sum_to_one():
    advice = ask(json.dumps(GOOD["prior"]))
    assert advice.choices == (("collect_wood", 2 / 3), ("explore", 1 / 3))
    assert (advice.confidence, advice.weight, advice.reason) == (0.75, 0.75, "trees are near")
    six = ask(json.dumps({"ranked": list(NAMES), "confidence": 1}))
    assert sum(p for _, p in six.choices) == pytest.approx(1.0)
    assert six.choices[0][1] == pytest.approx(2 * six.choices[1][1])


def test_a_plan_keeps_steps_times_and_score():
    assert ask(json.dumps(GOOD["plan"]), "plan").plans[0].steps == (("collect_wood", 2), ("do", 1))


@pytest.mark.parametrize(
    "wrap",
    ["{}", "  \n{}\n", "```json\n{}\n```", "Sure! Here it is:\n```\n{}\n```\nGood luck.", "I think {} is best."],
)
def test_the_object_may_be_fenced_or_stand_in_prose(wrap):
    body = json.dumps(GOOD["prior"])
    assert ask(wrap.replace("{}", body)).choices[0][0] == "collect_wood"


def test_a_fence_of_blanks_that_does_not_end_is_refused_in_time_that_grows_with_its_length():
    started = time.process_time()
    for body in ("```json\n" + " " * 60_000, "```json\n{" + " \n" * 30_000):
        with pytest.raises(AnswerError):
            extract_json(body)
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize("tag", ["think", "thinking", "THINK"])
def test_a_draft_in_a_thought_is_no_second_answer(tag):
    body, draft = json.dumps(GOOD["prior"]), json.dumps({"ranked": ["flee"], "confidence": 1})
    for thought in (f"<{tag}>perhaps {draft} or {{}}</{tag}>\n", f"{draft}\n</{tag}>", f"<{tag}></{tag}>"):
        assert ask(thought + body).choices[0][0] == "collect_wood"
        assert ask(thought + f"```json\n{body}\n```").choices[0][0] == "collect_wood"
        assert ask(thought + "B").choices == ask("B").choices
    quoted = {**GOOD["prior"], "reason": "</think> {}"}
    assert ask(json.dumps(quoted)).choices[0][0] == "collect_wood"
    with pytest.raises(AnswerError):
        ask(f"<{tag}>{draft} and then nothing</{tag}>")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON object"),
        ("collect wood, I would say", "no JSON object"),
        ('["collect_wood"]', "no JSON object"),
        ('{"ranked": ["explore"], "confidence": 0.5} {"ranked": ["flee"], "confidence": 0.5}', "several"),
        ('{"ranked": ["explore"], "confidence": 0.5', "no JSON object"),
        ("{" * 1000, "braces"),
        ('{"ranked": ["explore"], "confidence": NaN}', "not a number"),
        ('{"ranked": ["explore"], "confidence": Infinity}', "not a number"),
        ('{"ranked": ["explore"], "confidence": 1e999}', "overflows"),
        ('{"ranked": ["explore"], "confidence": ' + "9" * 400 + "}", "too long"),
        ('{"ranked": ["explore"], "confidence": 1.5}', "0..1"),
        ('{"ranked": ["explore"], "confidence": -0.1}', "0..1"),
        ('{"ranked": ["explore"], "confidence": true}', "0..1"),
        ('{"ranked": ["explore"], "confidence": "0.5"}', "0..1"),
        ('{"ranked": ["explore"], "confidence": null}', "0..1"),
        ('{"ranked": ["explore"]}', "missing confidence"),
        ('{"ranked": ["explore"], "confidence": 0.5, "logits": [1]}', "unknown logits"),
        ('{"ranked": [], "confidence": 0.5}', "list of 1..6"),
        ('{"ranked": "explore", "confidence": 0.5}', "list of 1..6"),
        ('{"ranked": ["explore", "explore"], "confidence": 0.5}', "twice"),
        ('{"ranked": [1], "confidence": 0.5}', "unknown name"),
        ('{"ranked": ["explorе"], "confidence": 0.5}', "unknown name"),
        ('{"ranked": ["explore"], "confidence": 0.5, "confidence": 0.6}', "twice"),
        ('{"ranked": ["explore"], "confidence": 0.5, "reason": ["x"]}', "not text"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "nested|no JSON|braces"),
        ("[" * 60000, "no JSON object"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_is_wrong(text, says):
    with pytest.raises(AnswerError, match=says):
        ask(text)


@pytest.mark.parametrize(
    "plan",
    [
        {"steps": [{"do": "do", "times": 0}], "score": 0.5},
        {"steps": [{"do": "do", "times": 21}], "score": 0.5},
        {"steps": [{"do": "do", "times": 1.0}], "score": 0.5},
        {"steps": [{"do": "do"}] * 13, "score": 0.5},
        {"steps": [], "score": 0.5},
        {"steps": [{"do": "fly"}], "score": 0.5},
        {"steps": [{"do": "do"}], "score": 2},
        {"steps": [{"do": "do"}]},
        "do",
    ],
)
def test_a_plan_outside_its_limits_is_refused(plan):
    with pytest.raises(AnswerError):
        ask(json.dumps({"plans": [plan]}), "plan")


def test_a_near_name_is_suggested():
    with pytest.raises(AnswerError) as error:
        ask('{"ranked": ["colect_wood"], "confidence": 0.5}')
    assert "collect_wood" in error.value.hint


def test_ten_megabytes_are_refused_before_they_are_parsed():
    started = time.perf_counter()
    with pytest.raises(AnswerError, match="10000000 characters"):
        ask("x" * 10_000_000)
    with pytest.raises(AnswerError):
        ask("\u20ac" * (MAX_ANSWER // 2))
    assert time.perf_counter() - started < 5


def test_a_failed_cut_or_blocked_answer_is_no_answer():
    for response in ({"error": "HTTP 500"}, {"finish": "length"}, {"finish": "blocked"}):
        with pytest.raises(AnswerError):
            ask(json.dumps(GOOD["prior"]), **response)


def test_letter_probabilities_become_the_whole_distribution():
    advice = ask("B", probabilities=(0.1, 0.6, 0.2, 0.1))
    assert advice.choices[0] == ("collect_wood", pytest.approx(0.6))
    assert sum(p for _, p in advice.choices) == pytest.approx(1.0) and advice.weight == 1.0
    assert ask("A", probabilities=(1.0, 0.0, 0.0, 0.0)).confidence == 1.0
    assert ask("A", probabilities=(0.25,) * 4).confidence == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("bad", [(0.5, 0.5), (float("nan"), 0.5, 0.5, 0.0), (0.1,) * 4, (2.0, -1.0, 0.0, 0.0)])
def test_letter_probabilities_that_are_none_are_refused(bad):
    with pytest.raises(AnswerError):
        ask("A", probabilities=bad)


def test_one_letter_alone_names_its_option():
    assert ask(" (b). ".strip()).choices == (("collect_wood", 1.0),)
    with pytest.raises(AnswerError, match="none of the 4"):
        ask("Z")


def test_free_text_loses_what_a_terminal_or_page_could_run():
    assert clean_text("a\x1b[31mb\u202ec\ud800d\x00e\u200bf") == "a [31mb cd e f"
    assert clean_text("x" * 1000) == "x" * 200
    assert clean_text("cafe\u0301") == "café"


def test_a_foreign_text_in_an_error_is_escaped_and_short():
    with pytest.raises(AnswerError) as error:
        ask('{"ranked": ["\\u001b[31m' + "x" * 500 + '"], "confidence": 0.5}')
    assert "\x1b" not in str(error.value) and len(str(error.value)) < 300


KEYS = ["ranked", "confidence", "reason", "plans", "steps", "do", "times", "score", "skills", "x"]
PIECES = ["NaN", "1e999", "-1", "null", "}", "{", '"', "```", "0.5"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


def usable_or_refused(text, kind):
    try:
        advice = ask(text, kind)
    except AnswerError as error:
        assert str(error)
        return
    assert all(math.isfinite(x) and 0 <= x <= 1.0000001 for x in numbers(advice))
    assert all(name in NAMES for name, _ in advice.choices)
    assert all(name in NAMES and 1 <= times <= 20 for plan in advice.plans for name, times in plan.steps)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=300), kind=st.sampled_from(sorted(GOOD)))
def test_any_text_is_usable_or_refused(text, kind):
    usable_or_refused(text, kind)


@settings(max_examples=400, deadline=None)
@given(value=json_values, kind=st.sampled_from(sorted(GOOD)))
def test_any_json_is_usable_or_refused(value, kind):
    usable_or_refused(json.dumps(value), kind)


@settings(max_examples=500, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(GOOD)))
def test_any_mutation_of_a_good_answer_is_usable_or_refused(data, kind):
    text = json.dumps(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        end = min(len(text), at + data.draw(st.integers(0, 6)))
        piece = data.draw(st.text(max_size=3) | st.sampled_from(PIECES))
        text = text[:at] + piece + text[end:]
    usable_or_refused(text, kind)


@settings(max_examples=200, deadline=None)
@given(value=st.dictionaries(st.text(max_size=5), json_values, max_size=3))
@example({"```": None})
@example({"a": "```\n", "b": "}```{"})
def test_an_object_survives_fences_and_prose_unchanged(value):
    text = json.dumps(value)
    try:
        direct = extract_json(text)
    except AnswerError:
        return
    assert extract_json(f"Well:\n```json\n{text}\n```") == direct
