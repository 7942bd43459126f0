"""docs/architecture.md names files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_file_and_folder_that_the_page_names_exists():
    named = set(re.findall(r"`((?:lore|flows|pipeline|datasets|tests|docs)/[\w/.-]*)`", PAGE))
    assert len(named) >= 50
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_the_page_answers_twenty_questions_with_a_file_each():
    rows = PAGE.split("## Where do I change ...")[1].split("\n## ")[0].splitlines()
    rows = [row for row in rows if row.startswith("| ")][1:]
    assert len(rows) == 20
    assert all(re.search(r"`[\w/.]+/[\w.]*`", row.split("|")[2]) for row in rows)
