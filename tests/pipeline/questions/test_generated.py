"""Generated answers and skills: no uncaught error, no number that is not finite, no skill over its bound."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lore.options.interpreter import Outcome, SkillRun
from lore_datasets.environments import get_environment
from lore_datasets.errors import AnswerError, SkillError
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import MAX_BOUND, bound, parse_skill, skill_json_schema
from lore_datasets.testing import random_states
from pipeline.config import AdviseConfig
from pipeline.llm.base import Prompt, Response
from pipeline.questions.check import check_plans, check_prior, check_skills
from pipeline.questions.feasible import GoalCheck, feasible_actions
from pipeline.questions.parse import parse
from pipeline.rounds.rows import Row, row_arrays

ENV = get_environment("crafter")
STATES = random_states(ENV, 64, np.random.default_rng(3)).pack()
VIEWS = [StateView(row.tobytes(), ENV.vocab) for row in STATES]
SKILLS = [skill.name for skill in ENV.skills]
NAMES = frozenset((*ENV.vocab.actions, *SKILLS))
FEASIBLE = GoalCheck(ENV.skills, ENV.vocab)
SCHEMA = skill_json_schema(ENV.vocab)
COUNTS = [pytest.param(300), pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]

known = st.sampled_from(sorted(NAMES))
words = known | known | st.text(max_size=8)
numbers = st.floats() | st.integers() | st.booleans() | st.sampled_from(["0.5", None, 0.5, 1, 10**30])
unit = st.floats(0, 1) | st.floats(0, 1) | numbers
step = st.fixed_dictionaries({"do": words}, optional={"times": numbers | st.integers(1, 20)})
good_step = st.fixed_dictionaries({"do": known, "times": st.integers(1, 20)})
steps = st.lists(good_step, min_size=1, max_size=12) | st.lists(step, max_size=14)
plan = st.fixed_dictionaries({"steps": steps, "score": unit})
ranked = st.lists(known, min_size=1, max_size=6, unique=True) | st.lists(words, max_size=8)
priors = st.fixed_dictionaries({"ranked": ranked, "confidence": unit}, optional={"reason": st.text(max_size=300)})
plans = st.fixed_dictionaries({"plans": st.lists(plan, min_size=1, max_size=3) | st.lists(plan, max_size=4)})
others = st.dictionaries(st.text(max_size=4), numbers, max_size=3)
cut = st.tuples((priors | plans).map(json.dumps), st.integers(0, 400)).map(lambda pair: pair[0][: pair[1]])
answers = st.one_of(priors.map(json.dumps), plans.map(json.dumps), (priors | plans | others).map(json.dumps), cut,
                    st.text(max_size=200))  # fmt: skip
weights = st.none() | st.none() | st.lists(st.floats(0, 1) | st.floats(), max_size=12)


def letters_from(values, options, fit):
    """Probabilities as a backend might give them: none, as drawn, or made to fit the options and to sum to one."""
    if values is None or not fit:
        return values and tuple(values)
    clean = [abs(v) if np.isfinite(v) and abs(v) <= 1 else 0.5 for v in values]
    clean = (clean + [0.1] * options)[:options]
    total = sum(clean) or 1.0
    return tuple(v / total for v in clean)


@pytest.mark.parametrize("count", COUNTS)
def test_generated_answers_become_finite_rows_or_are_refused(count):
    used = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(answers, weights, st.booleans(), st.integers(0, len(VIEWS) - 1), st.booleans())
    def one(text, values, fit, at, is_plan):
        view = VIEWS[at]
        goals = FEASIBLE(view)
        prompt = Prompt("plan" if is_plan else "prior", "", "", options=tuple(goals or feasible_actions(view)))
        row, probabilities = Row(at, goals), letters_from(values, len(prompt.options), fit)
        try:
            advice = parse(Response(text, probabilities=probabilities), prompt, NAMES)
        except AnswerError as error:
            assert str(error).isprintable()
            return
        if is_plan:
            row.plans, _ = check_plans(advice, [*goals, *feasible_actions(view)], view, "here")
        else:
            row.advice, _ = check_prior(advice, goals, view, "here")
        arrays = row_arrays([row], STATES, ENV.vocab.actions, SKILLS, AdviseConfig())
        for name in ("logits", "confidence", "plan_scores"):
            assert np.isfinite(arrays[name]).all() and np.abs(arrays[name]).max(initial=0) <= 5.0
        assert arrays["confidence"].min() >= 0 and arrays["confidence"].max() <= 1
        used.append(row.advice is not None or bool(row.plans))

    one()
    assert sum(used) > count // 30


def drawn(schema, rng, depth=0):
    """A random value of a JSON schema, now and then one that it forbids."""
    if rng.random() < 0.003:
        return [None, True, float("nan"), 10**20, "\x1b[31m", [], {}, "../x"][rng.integers(8)]
    if "anyOf" in schema:
        return drawn(schema["anyOf"][rng.integers(len(schema["anyOf"]))], rng, depth)
    if "enum" in schema:
        return schema["enum"][rng.integers(len(schema["enum"]))]
    if schema["type"] == "object":
        return {name: drawn(part, rng, depth + 1) for name, part in schema["properties"].items()}
    if schema["type"] == "array":
        return [drawn(schema["items"], rng, depth + 1) for _ in range(max(schema["minItems"], rng.integers(1, 4)))]
    if schema["type"] == "integer":
        return int(rng.integers(schema["minimum"], min(schema["maximum"], 12) + 1))
    return "drawn_skill"


@pytest.mark.parametrize("count", COUNTS)
def test_generated_skills_end_within_their_bound_in_a_hostile_world_or_are_refused(count):
    kept = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**63))
    def one(seed):
        rng = np.random.default_rng(seed)
        body = drawn(SCHEMA, rng)
        if not isinstance(body, dict):
            return
        check_skills([(body, "here")], ENV.vocab, SKILLS, VIEWS[:8], 1)
        try:
            skill = parse_skill(body, ENV.vocab)
        except SkillError as error:
            assert str(error).isascii()
            return
        run, actions = SkillRun(skill, ENV.vocab, rng, interruptible=False), 0
        while not isinstance(action := run.next_action(VIEWS[rng.integers(len(VIEWS))]), Outcome):
            assert 0 <= action < len(ENV.vocab.actions)
            actions += 1
            assert actions <= bound(skill) <= MAX_BOUND
        kept.append(actions)

    one()
    assert len(kept) > count // 3 and max(kept) > 3
