"""A version's priority program at look-up: after the rows, in every state, unless it never looks at the state."""

from dataclasses import replace

import numpy as np
import pytest

from lore.advice.distil import distil
from lore.advice.lookup import AdviceSource
from lore.advice.program import ProgramAdvice
from lore.advice.types import SOURCES
from lore.advice.uniform import uniform_advice
from lore_datasets.advice import AdviceData, load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import CorruptArtifact
from lore_datasets.language.geometry import StateView
from lore_datasets.language.programs import parse_program
from lore_datasets.store.store import Store
from lore_datasets.testing import random_states, small_advice

ENV = get_environment("crafter")
NAMES = [skill.name for skill in ENV.skills]
A = len(ENV.vocab.actions)
ORDER = ("sleep", "collect_drink", "eat_cow", "collect_wood", "collect_sapling", "explore")
BLIND = parse_program({"rules": [{"when": {"op": "true"}, "goal": goal} for goal in ORDER]}, ENV.vocab, NAMES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> AdviceData:
    """A version of 400 rows with an advice model, without a program."""
    root = tmp_path_factory.mktemp("advice")
    ref = small_advice(root, ENV, n=400)
    distil(ref, Store(root), epochs=1)
    return load_advice(str(ref), root=root)


def with_program(data: AdviceData, *programs, **advise) -> AdviceData:
    manifest = replace(data.manifest, config={"advise": advise})
    return replace(data, manifest=manifest, programs=tuple(program.text for program in programs))


def strange(n: int = 200) -> np.ndarray:
    return random_states(ENV, n, np.random.default_rng(7)).pack()


def test_a_row_speaks_first_and_the_program_in_every_other_state(plain):
    source = AdviceSource(with_program(plain, ENV.rules))
    rows = source.lookup_batch(plain.rows.state)
    assert (rows.source == SOURCES.index("row")).all()
    np.testing.assert_allclose(rows.logits, plain.rows.logits, atol=1e-6)
    found = source.lookup(strange())
    assert source.coverage()["program"] == 1.0 and source.model is None
    np.testing.assert_array_equal(found.confidence, np.float32(0.9))
    for logits, state in zip(found.logits, strange(), strict=True):
        best = source.program.evaluator.explain(StateView(state, ENV.vocab))[0]
        assert logits.argmax() == A + NAMES.index(best.goal)


def test_the_newest_program_of_a_version_speaks_with_the_settings_of_the_version(plain):
    data = with_program(plain, ENV.rules, BLIND, program_confidence=0.5, floor=0.2)
    source = AdviceSource(data)
    found = source.lookup_batch(strange())
    assert source.program.program == BLIND and (found.confidence == 0.5).all()
    sharp = AdviceSource(with_program(plain, BLIND)).lookup_batch(strange())
    assert (found.logits.max(-1) < sharp.logits.max(-1)).all()
    assert (AdviceSource(data, min_confidence=0.6).lookup_batch(strange()).source == SOURCES.index("none")).all()


def test_an_answer_names_the_rule_that_spoke(plain):
    source = AdviceSource(with_program(plain, ENV.rules))
    told = source.explain(np.concatenate([plain.rows.state[:2], strange(50)]))
    assert told[:2] == ["row 0", "row 1"]
    rules = ENV.rules.rules
    for line in told[2:]:
        number, goal = line.split()[1:3]
        assert line == f"rule {number} {goal} {rules[int(number)].why}".replace(f"{goal} ", f"{goal.rstrip(':')}: ", 1)
        assert rules[int(number)].goal == goal.rstrip(":")
    assert len(set(told[2:])) >= 5
    assert {line.split()[0] for line in AdviceSource(plain).explain(strange(20))} <= {"goal", "model", "none"}


def test_a_program_that_never_looks_at_the_state_is_left_unused(plain):
    for data in (plain, replace(plain, rows=replace(plain.rows, **{
        name: getattr(plain.rows, name)[:0] for name in vars(plain.rows)
    }))):  # fmt: skip
        blind = AdviceSource(with_program(data, BLIND), only_informative=True)
        assert blind.ignored and (blind.lookup_batch(strange()).confidence == 0).all()
        assert not AdviceSource(with_program(data, BLIND)).ignored
        looks = AdviceSource(with_program(data, ENV.rules), only_informative=True)
        assert not looks.ignored and (looks.lookup_batch(strange()).confidence > 0).all()
    gains = [ProgramAdvice(with_program(plain, p)).gain_over_state_blind(plain.rows.state) for p in (BLIND, ENV.rules)]
    assert gains[0] < 0.03 < 0.3 < gains[1]


def test_a_hidden_blind_program_is_found_by_its_choices(plain):
    either = {"op": "any", "of": [{"op": "daylight", "cmp": ">=", "value": 1}, {"op": "flag", "name": "sleeping"}]}
    hidden = parse_program({"rules": [{"when": either, "goal": goal} for goal in ORDER]}, ENV.vocab, NAMES)
    assert AdviceSource(with_program(plain, hidden), only_informative=True).ignored


def test_the_control_of_equal_skills_keeps_no_program(plain):
    assert uniform_advice(with_program(plain, ENV.rules)).programs == ()


def test_a_stored_program_outside_the_language_is_a_corrupt_artifact(plain):
    with pytest.raises(CorruptArtifact, match="rule 0: goal: unknown goal 'fly'"):
        AdviceSource(replace(plain, programs=('{"rules":[{"goal":"fly","when":{"op":"true"}}]}',)))


def test_counts_of_before_programs_are_read(plain):
    source = AdviceSource(plain)
    saved = source.state_dict() | {"counts": [3, 2, 1, 4]}
    source.load_state_dict(saved)
    assert source.coverage() == {"row": 0.3, "program": 0.0, "goal": 0.2, "model": 0.1, "none": 0.4}
    again = AdviceSource(plain)
    again.load_state_dict(source.state_dict())
    assert again.coverage() == source.coverage()
