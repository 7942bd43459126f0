"""What the agents of a Crafter study keep of the advice, from the files of its runs; what the docs say of it."""

import json
import math
import re
from pathlib import Path

import pytest

from benchmarks import kept
from flows.report.results import MODES
from lore_datasets.errors import BadInput, NotFound

ROOT = Path(__file__).parents[1]
FIGURE = re.compile(r"-?\d+\.\d \(-?\d+\.\d to -?\d+\.\d\)")


def put(root, cell, seed, returns, score):
    """A run whose last evaluation made ``returns`` as trained, half of it alone, a tenth over primitive actions."""
    last = {
        mode: {"returns": [r / part for r in returns], "score": score / part, "achievements": {}}
        for mode, part in zip(MODES, (1, 2, 10), strict=True)
    }
    first = {mode: {"returns": [99.0], "score": 99.0, "achievements": {}} for mode in MODES}
    first, last = ({"step": step, "after_guidance": None} | body for step, body in ((5, first), (9, last)))
    n = len(returns)
    episodes = {"step": [9] * n, "return": returns, "length": [9] * n, "unlocked": [[0, 1], [1]][:n]}
    run = {
        "schema": 1, "cell": cell, "seed": seed, "steps": 9, "settings": "", "minutes": 2.0, "episodes": episodes,
        "evaluations": [first, last], "environment": "crafter", "advice": "", "unused_advice": "", "statistics": {},
    }  # fmt: skip
    (root / "quick").mkdir(exist_ok=True)
    (root / "quick" / f"{cell}-{seed}.json".replace("+", "-")).write_text(json.dumps(run))


@pytest.fixture
def study(tmp_path):
    for seed, (mean, score) in enumerate(((8.0, 20.0), (10.0, 30.0))):
        put(tmp_path, kept.KICK, seed, [mean, mean], score)
        put(tmp_path, kept.UNIFORM, seed, [4.0, 4.0], 6.0)
    put(tmp_path, "none", 0, [1.0], 1.0)
    return kept.read("quick", tmp_path)


def test_the_last_evaluation_counts_and_cells_stand_in_the_order_of_the_study(study):
    assert list(study) == ["none", kept.KICK, kept.UNIFORM]
    score = math.expm1((math.log1p(50) + math.log1p(100)) / 22)
    assert kept.cell_table(study).splitlines()[3] == (
        f"| BC+kick claude | 2 | 9.0 (8.0 to 10.0), {score:.1f} | 9.0 (8.0 to 10.0), 25.0 | 4.5 (4.0 to 5.0), 12.5 "
        "| 0.9 (0.8 to 1.0), 2.5 | 2.0 |"
    )


def test_pairs_are_compared_where_both_are_there(study):
    rows = kept.difference_table(study).splitlines()[2:]
    assert rows == [
        "| BC+kick claude less BC+kick uniform | 5.0 (4.0 to 6.0) | 2.5 (2.0 to 3.0) | 0.5 (0.4 to 0.6) |",
        "| BC+kick claude less none | 8.0 (7.0 to 9.0) | 4.0 (3.5 to 4.5) | 0.8 (0.7 to 0.9) |",
        "| BC+kick uniform less none | 3.0 (3.0 to 3.0) | 1.5 (1.5 to 1.5) | 0.3 (0.3 to 0.3) |",
    ]


def test_an_agent_stands_beside_what_its_version_plays(study, monkeypatch):
    monkeypatch.setattr(kept, "play_return", lambda *asked: {("crafter-claude@v2", "all"): 15.0}[asked])
    (row,) = kept.own_advice_table(study).splitlines()[2:]
    assert row == "| BC+kick claude | 15.0 | -6.0 (-7.0 to -5.0) | -10.5 (-11.0 to -10.0) |"


def test_an_earlier_form_is_compared_with_today_s_runs_of_its_seeds(study, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "read", lambda name: {"quick": study}[name])
    (row,) = kept.form_table("quick-soft", {kept.KICK: study[kept.KICK][:1], "gone": study["none"]}).splitlines()[2:]
    assert row == "| BC+kick claude | 0.0 (0.0 to 0.0) | 0.0 (0.0 to 0.0) | 0.0 (0.0 to 0.0) |"


def test_what_is_no_study_of_crafter_or_has_no_runs_is_named(tmp_path):
    with pytest.raises(NotFound, match="no figures of runs"):
        kept.read("quick", tmp_path)
    with pytest.raises(BadInput, match="another game"):
        kept.read("doorkey")
    with pytest.raises(BadInput, match="no study"):
        kept.read("slow")


@pytest.mark.parametrize("name", ["quick", "quick-soft", "laptop", "laptop-soft", "laptop-before", "paper"])
def test_the_page_shows_the_tables_of_the_committed_runs(name):
    earlier = "-" in name
    text = (ROOT / "docs" / ("results-earlier.md" if earlier else "results.md")).read_text()
    cells, *others = kept.page_part(name).split("\n\n")
    for table in [cells, others[-1]] if earlier else [cells, *others]:
        assert table in text, f"paste what `python -m benchmarks.kept {name}` prints"


@pytest.mark.parametrize(("name", "mark"), [("quick", "kept"), ("laptop", "kept-laptop")])
def test_the_figures_of_the_readme_s_tables_are_those_of_the_runs(name, mark):
    shown = (ROOT / "README.md").read_text().partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]
    made = kept.cell_table(kept.read(name))
    figures = FIGURE.findall(shown)
    assert len(figures) >= 20 and [f for f in figures if f not in made] == []
