"""What the agents of a Crafter study keep of the advice, from the files of its runs."""

import json
import math

import pytest

from benchmarks.kept import KICK, MODES, differences, played, read, table
from lore_datasets.errors import NotFound


def put(root, cell, seed, returns, score):
    """A run whose last evaluation made ``returns`` as trained, one less alone, two less over primitive actions."""
    last = {mode: {"returns": [r - k for r in returns], "score": score} for k, mode in enumerate(MODES)}
    first = {mode: {"returns": [99.0], "score": 99.0} for mode in MODES}
    episodes = {"return": returns, "unlocked": [[0, 1], [1]][: len(returns)]}
    run = {"cell": cell, "minutes": 2.0, "episodes": episodes, "evaluations": [first, last], "environment": "crafter"}
    (root / "quick").mkdir(exist_ok=True)
    (root / "quick" / f"{cell}-{seed}.json".replace("+", "-")).write_text(json.dumps(run))


@pytest.fixture
def study(tmp_path):
    for seed, score in enumerate((20.0, 30.0)):
        put(tmp_path, KICK, seed, [9.0, 9.0], score)
        put(tmp_path, "BC+kick uniform", seed, [4.0, 4.0], 6.0)
    put(tmp_path, "none", 0, [1.0], 1.0)
    return read("quick", tmp_path)


def test_the_last_evaluation_counts_and_cells_stand_in_the_order_of_the_study(study):
    assert list(study) == ["none", KICK, "BC+kick uniform"]
    rows = table(study).splitlines()[2:]
    score = math.expm1((math.log1p(50) + math.log1p(100)) / 22)
    assert rows[1] == (
        f"| BC+kick claude | 2 | 9.0 (9.0 to 9.0), {score:.1f} | 9.0 (9.0 to 9.0), 25.0 | 8.0 (8.0 to 8.0), 25.0 "
        "| 7.0 (7.0 to 7.0), 25.0 | 2.0 |"
    )


def test_pairs_are_told_where_both_are_there_and_agents_beside_what_their_version_plays(study):
    rows = {row.split(" | ")[0].strip("| "): row for row in differences(study).splitlines()[2:]}
    own = played("crafter-claude@v2", "all")
    assert set(rows) == {f"{KICK} less BC+kick uniform", f"{KICK} less none", f"{KICK} less its own advice ({own:.1f})"}
    assert rows[f"{KICK} less BC+kick uniform"].count("5.0 (5.0 to 5.0)") == 3
    assert f"{9.0 - own:.1f} (" in rows[f"{KICK} less its own advice ({own:.1f})"]


def test_a_study_without_runs_is_named(tmp_path):
    with pytest.raises(NotFound, match="no figures of a preset's runs"):
        read("quick", tmp_path)
