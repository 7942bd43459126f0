"""The page of an advice version: what was asked, what it is worth and what it says, made from the store alone."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flows.cli.dataset_report import report
from flows.jobs.skill_trials import Film
from flows.report.advice_text import program_rules, skills_with_films
from flows.report.dataset_page import write_dataset_page
from flows.report.language import condition_in_words, steps_in_words
from flows.report.read import Subject, read_run
from flows.report.run_charts import final_policy, learning_curves
from lore.config import load_config
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput
from lore_datasets.store.lineage import play_name
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice, small_states
from tests.flows.report.test_report import write_run

CRAFTER = get_environment("crafter")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def ref(root):
    small_advice(root, CRAFTER, n=32)
    return small_advice(root, CRAFTER, n=40)


@pytest.fixture(scope="module")
def page(root, ref, tmp_path_factory):
    return write_dataset_page(
        str(ref), tmp_path_factory.mktemp("page") / "p.html", root, {}, ("<b>a note</b>",)
    ).read_text()


def section(page, title):
    return page.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]


def test_the_page_has_its_parts_and_loads_nothing(page, ref):
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["What was asked", "What the advice said", "Coverage and agreement", "Skills", "Cost by round",
                      "Where it came from"]  # fmt: skip
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)
    assert "&lt;b&gt;a note" in page and str(ref) in page and "nobody knows: not played" in page


def test_questions_stand_beside_their_answers_and_the_state_where_the_row_is_known(page, root, ref):
    arrays = Store(root).open(ref).arrays
    prompt = next(array[0] for path, array in arrays.items() if path.endswith("answers/prompt"))
    asked = section(page, "What was asked")
    assert prompt.splitlines()[0] in asked and asked.count('<pre class="asked"') >= 2


def test_another_kind_is_refused_by_name(root, tmp_path):
    states = small_states(root, CRAFTER)
    with pytest.raises(BadInput, match="is of kind states"):
        write_dataset_page(str(states), tmp_path / "p.html", root)


def test_the_verb_writes_where_it_is_told(root, ref, tmp_path, capsys):
    out = tmp_path / "made" / "page.html"
    assert report(str(ref), out=out, root=root, quick=True) == 0
    assert str(out) in capsys.readouterr().out and out.is_file()


@pytest.fixture(scope="module")
def played(root, ref):
    """The version with the rule book's program, its play and a film; a why that is hostile."""
    advice = load_advice(str(ref), root)
    text = json.loads(CRAFTER.rules.text)
    text["rules"][0]["why"] = HOSTILE[:200]
    advice = dataclasses.replace(advice, programs=(json.dumps(text),))
    goal = text["rules"][0]["goal"]
    figures = {"return": [9.0, 8.0, 10.0], "score": [30.0, 25.0, 35.0], "length": [300.0, 250.0, 350.0]}
    mine = figures | {"lives": 40, "spoke": {f"rule 0 {goal}": [3.25, 2.0, 4.0]},
                      "goals": {goal: {"held": [0.5, 0.1, 0.9], "done": [2.75, 2.0, 3.0]}}}  # fmt: skip
    writer = Store(root).writer(
        play_name(ref.name), "play", environment=CRAFTER, parents=(str(ref),), skills=advice.manifest.skills,
        provenance={"report": {"players": {"advice": mine, "uniform": figures}}},
    )  # fmt: skip
    writer.append("rows", player=["advice"], number=[0], reward=[9.0], length=[300], life=["{}"])
    writer.commit("a play")
    return Subject((), advice, root=root)


def test_each_rule_says_how_often_it_spoke_what_came_of_it_and_why(played):
    html = str(program_rules(played).html)
    first = html.partition("<tbody>")[2].partition("</tr>")[0]
    assert "<td>3.25</td>" in first and "done 2.75, held 0.50" in first and "&lt;script&gt;alert(1)" in first
    assert "<script>" not in html and "mean of 40 lives" in html


def test_each_skill_has_its_text_its_ends_and_the_film_of_a_run(played):
    skill = played.advice.skills[0]
    film = Film(np.asarray(played.advice.rows.state[:20]), "done")
    html = str(skills_with_films(played, {skill.name: film}).html)
    card = html.partition("<article>")[2].partition("</article>")[0]
    assert skill.about in card and card.count("data:image/png;base64,") == 7 and "19 steps, then done" in card
    assert 'title="step 0"' in card and 'title="step 19"' in card


def test_the_page_of_a_played_version_compares_it_with_the_control(played, root, ref, tmp_path):
    text = write_dataset_page(str(ref), tmp_path / "p.html", root).read_text()
    assert "makes a return of 9.0 (8.0 to 10.0); uniform choice among the same skills makes 9.0" in text
    assert "the intervals overlap" in text and "of another form" in text


def test_conditions_and_steps_read_as_words():
    near = {"op": "near", "target": ["zombie", "skeleton"], "within": 2}
    low = {"op": "vital", "name": "health", "cmp": "<=", "value": 3}
    both = {"op": "any", "of": [{"op": "all", "of": [near, low]}, {"op": "not", "of": {"op": "enclosed"}}]}
    assert condition_in_words(both) == "(zombie or skeleton within 2 and health ≤ 3) or not walled in"
    for skill in CRAFTER.skills:
        assert all(line.strip() for line in steps_in_words(skill.steps)) and condition_in_words(skill.start)
    for rule in CRAFTER.rules.rules:
        assert "{" not in condition_in_words(rule.when)


def test_a_run_stands_beside_the_play_of_its_version_where_both_play_without_learning(played, root, tmp_path):
    run = read_run(write_run(tmp_path / "run", load_config(observation="symbolic")))
    subject = Subject((run,), played.advice, root=root)
    final, curves = str(final_policy(subject).html), str(learning_curves(subject).html)
    assert final.count("the version&#39;s own play") >= 2 and final.count("uniform over its skills") >= 2
    assert "9.00 (8.00 to 10.00)" in final and f"chance: {CRAFTER.score.chance:g}" in final
    assert "own play" not in curves and '"label":"chance"' in curves and "DreamerV3" not in curves
    pixels = read_run(write_run(tmp_path / "pixels", load_config(observation="pixels")))
    assert "DreamerV3, 1,000,000 steps" in str(learning_curves(Subject((pixels,))).html)


def test_a_version_of_the_first_schema_has_a_page_too(tmp_path):
    old = Path(__file__).parents[2] / "datasets" / "data" / "schema1.store.zip"
    with zipfile.ZipFile(old) as archive:
        archive.extractall(tmp_path / "store")
    [name] = [n for n in Store(tmp_path / "store").names() if Store(tmp_path / "store").manifest(n).kind == "advice"]
    text = write_dataset_page(name, tmp_path / "p.html", tmp_path / "store").read_text()
    assert "caf\u00e9" in section(text, "What was asked")
