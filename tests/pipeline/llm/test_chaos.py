"""What a service can do wrong, through the whole walk: a named stop that loses nothing, or states masked and counted.

docs/reliability.md says which test covers which promise; the last test here holds it to that.
"""

import json
import logging
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput, ServiceError
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import get_backend
from pipeline.llm.journal.journal import Journal
from pipeline.rounds.advise import advise

KEY = "AIzaCANARYCANARYCANARYCANARYCANARYCANAR"
ROOT = Path(__file__).parents[3]
BOTH = pytest.mark.parametrize("name", ["gemini", "openai"])
STOPS = ("401", "404", "429", "500", "503", "html", "trunc", "huge", "hang", "drip")


def walk(name, server, env, states, store, journal, *, timeout_s=60.0, **ask):
    url = server.url + ("/v1" if name == "openai" else "")
    llm = get_backend(name, model="m", base_url=url, attempts=1, backoff_s=0.01, timeout_s=timeout_s, concurrency=4)
    config = PipelineConfig(
        ask=AskConfig(retries=0, **ask), advise=AdviseConfig(skill_questions=0, plan_share=0.0)
    )  # fmt: skip
    return advise(states, env, llm, store, "a", config, journal)


def is_odd(question):
    return zlib.crc32(question.encode()) % 2 == 1


def no_key_anywhere(tmp_path, caplog, *texts):
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    return KEY.encode() not in written and KEY not in caplog.text and not any(KEY in text for text in texts)


@BOTH
@pytest.mark.parametrize("mode", STOPS)
def test_a_service_that_only_fails_stops_the_walk_with_nothing_committed_and_no_key_shown(
    name, mode, server, env, states, store, tmp_path, caplog
):
    caplog.set_level(logging.DEBUG)
    server.mode = mode
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(ServiceError, match="partial: 5 questions in a row failed") as stop:
            walk(name, server, env, states[:12], store, journal, timeout_s=0.5 if mode in ("hang", "drip") else 60.0)
        assert len(journal) == 0 and len(journal.failures()) >= 5 and store.names() == []
        assert stop.value.exit_code == 4 and stop.value.kept and stop.value.hint
        assert no_key_anywhere(tmp_path, caplog, repr(stop.value), str(journal.failures()))
        server.mode = "ok"
        ref = walk(name, server, env, states[:12], store, journal)
    assert store.manifest(ref).counts["rows"] == 12 and no_key_anywhere(tmp_path, caplog)


@BOTH
@pytest.mark.parametrize("mode", ["safety", "maxtok"])
def test_blocked_and_cut_answers_mask_their_states_and_are_counted(name, mode, server, env, states, store, tmp_path):
    server.mode = lambda question, n: mode if is_odd(question) else "ok"
    with Journal(tmp_path / "j.sqlite") as journal:
        ref = walk(name, server, env, states[:24], store, journal)
    odd = sum(is_odd(messages_of(body)) for _, _, body in server.seen)
    counts = store.manifest(ref).counts
    assert 0 < odd < 24 and counts["rows"] == 24 - odd and counts["no_advice"] == odd
    assert sum(counts["rejected"].values()) >= odd
    assert len(load_advice("a", store.root).rows) == 24 - odd


def messages_of(body):
    return body["messages"][-1]["content"] if "messages" in body else body["contents"][0]["parts"][0]["text"]


GOOD = '{"ranked": ["explore"], "confidence": 0.5, "reason": "r"}'
ANSWERS = {
    "prose": "I would go exploring.",
    "a list": '["explore"]',
    "two objects": GOOD + GOOD,
    "cut in the middle": GOOD[:30],
    "a name that is none": GOOD.replace("explore", "fly"),
    "a name in other letters": GOOD.replace("explore", "explor\u0435"),
    "NaN": GOOD.replace("0.5", "NaN"),
    "an overflow": GOOD.replace("0.5", "1e999"),
    "a number as text": GOOD.replace("0.5", '"0.5"'),
    "true for a number": GOOD.replace("0.5", "true"),
    "a key twice": GOOD.replace('"reason"', '"confidence"'),
    "seventeen logits": '{"logits": [0.1, 0.2]}',
    "70 kB": GOOD.replace('"r"', '"' + "r" * 70_000 + '"'),
    "nested": '{"ranked": ' * 2000 + "1" + "}" * 2000,
    "nothing": "",
    "escapes and markup": "\x1b[31m<script>\u202e\x00=cmd()",
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_cannot_be_used_masks_its_state_and_the_rest_goes_on(
    case, server, env, states, store, tmp_path, caplog
):
    server.answer = lambda question: ANSWERS[case] if is_odd(question) else GOOD
    with Journal(tmp_path / "j.sqlite") as journal:
        ref = walk("openai", server, env, states[:16], store, journal)
    odd = sum(is_odd(question) for question in server.answered)
    manifest, rows = store.manifest(ref), load_advice("a", store.root).rows
    assert 0 < odd < 16 and len(rows) == 16 - odd and manifest.counts["malformed"]["prior"] == odd
    assert all(np.isfinite(a).all() for a in (rows.logits, rows.confidence, rows.plan_scores))
    assert "\x1b" not in json.dumps(manifest.counts) and "<script>" not in "".join(rows.reason)


@BOTH
def test_a_model_version_that_changes_midway_is_not_mixed_in_unless_allowed(name, server, env, states, store, tmp_path):
    server.version = lambda question: f"m-{is_odd(question):d}"
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(BadInput, match="2 models") as stop:
            walk(name, server, env, states[:12], store, journal)
        assert "journal" in stop.value.kept and len(journal) == 12 and store.names() == []
        ref = walk(name, server, env, states[:12], store, journal, allow_mixed_models=True)
    assert store.manifest(ref).provenance["models"] == ["m-0", "m-1"] and len(server.seen) == 12


def test_every_test_that_the_page_on_reliability_names_is_there():
    page = (ROOT / "docs/reliability.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 25
    missing = [f"{path}::{test}" for path, test in named if f"def {test}(" not in (ROOT / path).read_text()]
    assert not missing
