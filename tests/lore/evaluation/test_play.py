"""Lives that follow advice without learning: what is counted, equal seeds, and who is said to have spoken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lore.advice.lookup import AdviceSource
from lore.advice.uniform import UniformSource
from lore.evaluation.play import AdvisedChoice, Life, PlaySettings, difference, figures, play_life
from lore.training.metrics import crafter_score
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput
from lore_datasets.language.geometry import StateView
from lore_datasets.language.programs import parse_program
from lore_datasets.testing import random_states, small_advice

ENV = get_environment("crafter")
NAMES = ENV.vocab.achievements
SHORT = PlaySettings(length=80, area=24)
ORDER = parse_program(
    {"rules": [{"when": {"op": "true"}, "goal": goal, "why": "now"} for goal in ("collect_wood", "explore")]},
    ENV.vocab, [skill.name for skill in ENV.skills],
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("advice")
    return load_advice(str(small_advice(root, ENV, n=30)), root=root)


def life(number, reward, *done, ended="dark", goal="flee", length=100):
    return Life(number, reward, length, dict.fromkeys(done, 2), ended, goal, {"flee": {"done": 1}}, {"row": 4}, 4)


def test_figures_are_means_over_lives_with_intervals_around_them():
    found = figures([life(0, 1.0, "collect_wood"), life(1, 3.0, "collect_wood", "place_table", length=300)], NAMES)
    assert found["lives"] == 2 and found["steps"] == 400
    assert found["return"][0] == 2.0 and found["return"][1] == 1.0 and found["return"][2] == 3.0
    assert found["achievements"]["collect_wood"] == [100.0] * 3 and found["achievements"]["place_table"][0] == 50.0
    rates = np.zeros(len(NAMES))
    rates[[NAMES.index("collect_wood"), NAMES.index("place_table")]] = 100, 50
    assert found["score"][0] == pytest.approx(crafter_score(rates), abs=1e-3)
    assert found["score"][1] < found["score"][0] < found["score"][2]
    assert found["ended"] == {"dark": [100.0] * 3} and found["spoke"] == {"row": [4.0] * 3}
    assert found["goals"] == {"flee": {"done": [1.0] * 3}} and found["at_end"] == {"flee": 2}
    with pytest.raises(BadInput, match="no life"):
        figures([], NAMES)


def test_an_interval_covers_the_mean_of_the_lives_that_it_was_drawn_from():
    """Nominal 95 %: of 50 samples of 40 lives each, at least 44 cover the mean they were drawn around."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(50):
        low, high = figures([life(i, float(r)) for i, r in enumerate(rng.normal(5, 2, 40))], NAMES)["return"][1:]
        hits += low <= 5 <= high
    assert 44 <= hits < 50


def test_a_difference_pairs_lives_by_their_world_and_leaves_single_ones_out():
    rng = np.random.default_rng(1)
    base = [life(i, float(r)) for i, r in enumerate(rng.normal(10, 5, 30))]
    better = [life(each.number, each.reward + 1.0, "collect_wood") for each in reversed(base)]
    found = difference(better, [*base, life(99, 1e6)], NAMES)
    assert found["return"] == pytest.approx([1.0, 1.0, 1.0]) and found["length"] == [0.0, 0.0, 0.0]
    assert found["score"][0] > 0 and found["score"][1] == pytest.approx(found["score"][2])
    with pytest.raises(BadInput, match="no world in common"):
        difference(base, [life(99, 1.0)], NAMES)


def test_one_number_is_one_life_whoever_plays_it_again_and_another_is_another(data):
    source = UniformSource(data)
    how = replace(SHORT, sampled=True)
    first = play_life(source, 3, how)
    assert first == play_life(UniformSource(data), 3, how) != replace(play_life(source, 4, how), number=3)
    assert 0 < first.length <= 80 and first.decisions == sum(first.spoke.values())
    assert first.startable and first.ended == ("alive at the limit" if first.length == 80 else first.ended)


def test_a_program_s_rules_are_named_as_those_who_spoke(data):
    empty = replace(data.rows, **{f: getattr(data.rows, f)[:0] for f in data.rows.__dataclass_fields__})
    program = AdviceSource(replace(data, rows=empty, programs=(ORDER.text,)))
    found = play_life(program, 0, SHORT)
    assert set(found.spoke) <= {"rule 0 collect_wood", "rule 1 explore"} and "rule 1 explore" in found.spoke
    assert set(found.goals) | {found.goal} <= {"collect_wood", "explore", ""}


def test_a_choice_is_the_first_or_a_draw_in_proportion_to_the_advice(data):
    states = random_states(ENV, 1, np.random.default_rng(5)).pack()
    view, source = StateView(states[0], ENV.vocab), UniformSource(data)
    firsts = {AdvisedChoice(source, np.random.default_rng(s))(view)[0][0] for s in range(20)}
    drawn = [AdvisedChoice(source, np.random.default_rng(s), sampled=True)(view)[0][0] for s in range(600)]
    assert len(firsts) == 1 and len(set(drawn)) == len(data.skills)
    assert max(drawn.count(name) for name in set(drawn)) < 3 * 600 / len(data.skills)
