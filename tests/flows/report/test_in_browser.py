"""The pages in a real browser: no message, no request, nothing cut, two widths, two themes; keys and values."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from flows.jobs.skill_trials import films_of
from flows.report.dataset_page import write_dataset_page
from flows.report.sections import build_report
from flows.report.study_page import study_page
from lore.config import load_config
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.testing import small_advice
from tests.flows.report.test_report import write_run
from tests.flows.report.test_study_page import figures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report, a dataset's page and a study's."""
    base, environment = tmp_path_factory.mktemp("pages"), get_environment("crafter")
    ref = small_advice(base / "store", environment, n=40)
    advice = dataclasses.replace(load_advice(str(ref), base / "store"), programs=(environment.rules.text,))
    on = {"gate.enabled": True, "synthetic.enabled": True, "options.enabled": True}
    runs = {
        "none": write_run(base / "none", load_config(observation="symbolic"), gated=False),
        "</script><b>all": write_run(base / "abc", load_config(observation="symbolic", dataset=str(ref), **on), seed=1),
    }
    films, _ = films_of(environment, advice.skills[:3])
    (base / "study.html").write_text(study_page(figures(**{"none": 2.0, "B mine": 5.0, "A mine": 1.0})))
    return {
        "report": build_report(runs, base / "report.html", advice=advice, commands=["lore demo"]),
        "dataset": write_dataset_page(str(ref), base / "dataset.html", base / "store", films),
        "study": base / "study.html",
    }


@pytest.mark.parametrize(
    ("name", "width", "dark"), list(itertools.product(("report", "dataset", "study"), (1440, 390), (False, True)))
)
def test_a_page_is_whole_and_quiet_at_every_size_and_in_every_theme(browser, pages, tmp_path, name, width, dark):
    browser.open(pages[name], width, dark=dark)
    assert browser.complaints() == [] and not browser.is_cut()
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 31)" if dark else "rgb(255, 255, 255)")
    drawn = "[...document.querySelectorAll('figure.chart')].map(f => f.querySelector('canvas')?.clientWidth ?? 0)"
    assert all(0 < w <= width for w in browser.run(drawn))
    if width == 1440:  # charts of one grid are as wide as each other, and the page uses its width
        widths = browser.run("[...document.querySelectorAll('.charts')].map(g => [...new Set([...g.children].map("
                             "f => Math.round(f.getBoundingClientRect().width)))])")  # fmt: skip
        assert all(len(each) == 1 for each in widths)
        assert browser.run("document.querySelector('main').getBoundingClientRect().right") > 1380
    assert browser.shot(tmp_path / f"{name}-{width}-{'dark' if dark else 'light'}.png").stat().st_size > 20_000


def test_values_follow_the_pointer_and_the_arrow_keys(browser, pages):
    browser.open(pages["report"])
    figure = "document.querySelector('figure.chart')"
    values = f"[...{figure}.querySelectorAll('.u-value')].map(v => v.textContent)"
    box = browser.run(f"(() => {{ const f = {figure}; f.scrollIntoView(); const r = f.querySelector('.u-over')"
                      ".getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()")  # fmt: skip
    assert set(browser.run(values)) == {"–"}
    browser.move(box[0] + box[2] / 2, box[1] + box[3] / 2)
    pointed = browser.run(values)
    assert "–" not in pointed
    browser.run(f"{figure}.focus()")
    browser.press("Home")
    first = browser.run(values)
    browser.press("ArrowRight")
    second = browser.run(values)
    assert first[0] == "100" and second[0] == "200" and pointed != second


def test_the_theme_switch_and_the_sorting_of_tables_work_by_keys(browser, pages):
    browser.open(pages["study"])
    browser.run("document.getElementById('theme').focus()")
    browser.press("Enter")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)"
    column = "[...document.querySelectorAll('table.pinned tbody tr')].map(r => parseFloat(r.cells[3].textContent))"
    browser.run("document.querySelector('table.pinned thead').rows[0].cells[3].focus()")
    browser.press("Enter")
    down = browser.run(column)
    browser.press("Enter")
    up = browser.run(column)
    assert down == sorted(down, reverse=True) and up == sorted(up) and len(set(up)) == 3
    assert browser.complaints() == []


def test_only_the_scripts_that_the_policy_names_run(browser, pages, tmp_path):
    text = pages["report"].read_text().replace("</main>", "<script>window.stranger = 1</script></main>")
    (tmp_path / "tampered.html").write_text(text)
    browser.open(tmp_path / "tampered.html")
    assert browser.run("window.stranger") is None
    assert "Content Security Policy" in json.dumps(browser.complaints())
