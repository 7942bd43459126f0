"""The page of choosers says what the committed JSON says, and a table that was stopped goes on after its last row."""

import json

import pytest

from benchmarks import worth
from benchmarks.record import RESULTS


def test_the_table_of_choosers_on_the_page_is_that_of_the_committed_json():
    _, _, rest = worth.PAGE.read_text().partition(worth.BEGIN)
    shown, _, after = rest.partition(worth.END)
    made = worth.page_part(json.loads((RESULTS / "worth.json").read_text()))
    assert after and shown.strip() == made.strip(), "run `python -m benchmarks.worth --table`"


@pytest.fixture
def one(monkeypatch):
    """Rows of one life of the program, played in this process."""
    played = []

    class Here:
        def __init__(self, *args, **more):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def map(self, work, *columns, chunksize):
            for each in zip(*columns, strict=True):
                played.append(each[1:])
                yield work(*each)

    monkeypatch.setattr(worth, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(worth, "PlaySettings", lambda **more: type(real)(**{**vars(real), **more, "length": 30}))
    return played


real = worth.PlaySettings()


def test_a_row_is_kept_and_not_played_again(one, tmp_path):
    only, kept = "program of a language model", tmp_path / "runs" / "worth.jsonl"
    found = worth.measure(2, (24,), 1, only, kept)
    assert one == [(0, 24), (1, 24)] and len(kept.read_text().splitlines()) == 1
    more = worth.measure(2, (24, 26), 1, only, kept)
    assert one[2:] == [(0, 26), (1, 26)] and more["rows"][:1] == found["rows"]
    assert worth.measure(3, (24,), 1, only, kept)["rows"][0]["lives"] == 3
    assert more["environment_steps"] == sum(row["steps"] for row in more["rows"]) <= 4 * 30


def test_the_tables_hold_every_chooser_every_size_and_what_limits_programs(one, tmp_path):
    found = worth.measure(2, (24, 26), 1, "program", tmp_path / "kept.jsonl")
    made = worth.page_part(found)
    assert made.count("return, 2") == 2 and "`eat_plant` |" in made and "2 lives a cell" in made
    programs = [c.name for c in worth.CHOOSERS if "program" in c.name]
    assert len(programs) == 3 and all(f"| {name} |" in made for name in programs)
    assert "| end: alive at the limit | 100.0 | 100.0 | 100.0 |" in made
