"""The page of a study, from the figures alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.report.ablation import ablation_figures
from flows.report.ablation_page import cells_of
from flows.report.read import RunData
from flows.report.study_page import study_page, study_verdict
from flows.report.study_picture import bands


def figures(**arms):
    """Figures of arms by label as a study leaves them, around a level each; nothing is drawn, so it costs nothing."""
    blank = RunData("x", Path("x"), {"env": {"name": "crafter"}})
    found = ablation_figures({label: [blank] * 3 for label in arms}, 600)
    for label, level in arms.items():
        ends = [level - 0.1, level + 0.1]
        arm = found["arms"][label]
        arm |= {"return_mean": level, "return_interval": ends, "return_iqm": level, "iqm_interval": ends,
                "score_mean": level, "score_interval": ends, "curve": [level] * 60, "band": [ends] * 60}  # fmt: skip
        if label != "none" and "none" in arms:
            difference = level - arms["none"]
            arm |= {"difference": difference, "difference_interval": [difference - 0.2, difference + 0.2],
                    "improvement": 0.9, "improvement_interval": [0.6, 1.0]}  # fmt: skip
    row = {"seed": 4, "file": "results/a b-s4.json", "steps": 600, "episodes": 60, "return": 2.0, "minutes": 1.5,
           "final": {"as_trained": 2.0, "agent_alone": None, "primitives_only": 1.0}, "unused_advice": ""}  # fmt: skip
    more = {"advice": {"mine": "mine@v1#12"}, "command": "lore ablate", "trial_steps": {}, "environment": "crafter"}
    return found | more | {"runs": {label: [row] for label in arms}}


@pytest.fixture(scope="module")
def study():
    """An arm above no advice, one below, one that is not told apart."""
    return figures(**{"none": 2.0, "B mine": 5.0, "A mine": 0.5, "C mine": 2.02})


def test_the_verdict_sorts_arms_by_what_their_intervals_show(study):
    text = " ".join(study_verdict(study))
    assert text.startswith("Without advice the agent makes a return of 2.0")
    assert "1 of 3 arms make more: B mine +3.0 (+2.8 to +3.2)." in text
    assert "1 of 3 arms make less: A mine -1.5" in text and "Not told apart from it: C mine" in text
    assert "3 seeds an arm are few" in text
    alone = figures(**{"B mine": 5.0})
    assert "none of them without advice" in " ".join(study_verdict(alone)) and "Learning curves" in study_page(alone)


def test_every_arm_of_the_table_leads_to_its_runs_and_they_to_their_files(study):
    page = study_page(study)
    links = re.findall(r'<a href="#(runs-of-[^"]+)">', page)
    assert len(links) == len(set(links)) == 4 and all(f'<tbody id="{anchor}">' in page for anchor in links)
    assert page.count('href="results/a%20b-s4.json"') == 4
    assert page.count('<figure class="forest"') == 3 and page.count('<figure class="chart"') == 1
    assert '"bands":' in page and '<table class="sortable pinned">' in page


def test_foreign_names_and_unused_advice_are_shown_and_never_markup(study):
    bad = "<script>alert(1)</script>"
    row = study["runs"]["none"][0] | {"unused_advice": bad, "file": f"{bad}.json"}
    page = study_page(study | {"command": bad, "runs": {"none": [row]}, "advice": {bad: bad}, "trial_steps": {bad: 5}})
    assert "<script>alert" not in page and "none, seed 4: &lt;script&gt;" in page


def test_every_curve_of_a_study_has_a_look_of_its_own():
    found = figures(**{f"arm {i}": 1.0 + i for i in range(18)})
    look = r'style="fill: none;(?: (stroke-dasharray: [^;]+);)?(?: stroke-dashoffset: [^;]+;)? stroke: (#\w+);'
    drawn = re.findall(rf"{look} stroke-width: 2(?=[;\"])", bands(found["grid"], found["arms"]))
    curves = drawn[: len(drawn) // 2] if len(drawn) > 18 else drawn  # the legend repeats them
    assert len(curves) == len(set(curves)) == 18
    lines = re.findall(r'"label":"arm \d+","colour":"(c\d)","kind":"line"(?:,"dash":(\[[^]]+\]))?', study_page(found))
    assert len(lines) == len(set(lines)) == 18


def test_the_table_counts_what_all_versions_of_the_advice_cost():
    found = figures(none=1.0, old=2.0, new=3.0)
    found["arms"]["old"]["cost"] = {"price_usd": 0.5}
    found["arms"]["new"]["cost"] = {"price_usd": 0.0, "price_usd_total": 12.5}
    assert [row[-1] for row in cells_of(found)] == ["–", "0.50", "12.50"]
