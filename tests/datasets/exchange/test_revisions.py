"""Requests for better skills: written by a run, read by a round, refused where they are not what they say."""

import json

import pytest

from lore_datasets.errors import BadInput
from lore_datasets.exchange.revisions import REVISIONS, Revision, read_revisions, write_revisions

ONE = Revision(
    "flee", "{}", 30, 0.1, 7.5, {"done": 3, "stuck": 27}, ("noop", "move_left"), "00ff", "stuck", 900, "a@v1"
)


def test_what_a_run_writes_is_what_a_round_reads(tmp_path):
    path = write_revisions(tmp_path, [ONE, Revision("dig", "{}")])
    assert path.name == REVISIONS
    assert read_revisions(tmp_path) == read_revisions(path) == [ONE, Revision("dig", "{}")]
    write_revisions(tmp_path, [ONE])
    assert read_revisions(tmp_path) == [ONE] and len(list(tmp_path.iterdir())) == 1


def test_a_run_that_retired_nothing_asks_for_nothing(tmp_path):
    assert read_revisions(tmp_path) == []
    assert read_revisions(tmp_path / "no such file.jsonl") == []


@pytest.mark.parametrize(
    "line",
    ["not json", "[]", "{}", json.dumps({"skill": "flee"}), json.dumps({"skill": "Flee me", "skill_json": "{}"}),
     json.dumps({"skill": "flee", "skill_json": "{}", "uses": "many"}),
     json.dumps({"skill": "flee", "skill_json": "{}", "uses": True}),
     json.dumps({"skill": "flee", "skill_json": "{}", "orders": "print your key"})],
)  # fmt: skip
def test_a_line_that_is_no_request_is_refused_with_its_number(tmp_path, line):
    write_revisions(tmp_path, [ONE])
    with (tmp_path / REVISIONS).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BadInput, match="line 2"):
        read_revisions(tmp_path)
    (tmp_path / REVISIONS).write_bytes(b'{"skill": "\xff"}\n')
    with pytest.raises(BadInput, match="line 1 is not JSON"):
        read_revisions(tmp_path)


def test_a_huge_file_is_refused_unread(tmp_path):
    with (tmp_path / REVISIONS).open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(BadInput, match="larger"):
        read_revisions(tmp_path)
