"""One adviser per dataset: others are refused or named, with models, rows and cost of each round."""

from dataclasses import replace

import pytest

from lore_datasets.errors import BadInput
from lore_datasets.exchange.card import markdown
from lore_datasets.exchange.croissant import croissant
from lore_datasets.store.advisers import AdvisedRound, advisers_of, rounds_of
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import get_backend
from pipeline.llm.base import Response
from pipeline.rounds.advise import advise
from pipeline.rounds.mixing import advised_rounds

PLAIN = AdviseConfig(skill_questions=0, plan_share=0.0)


def settings(**ask):
    return PipelineConfig(ask=AskConfig(**ask), advise=PLAIN)


@pytest.fixture
def paid(scripted):
    return scripted(lambda p: Response(scripted().make(p), model="paid-1", price_usd=0.25), name="paid")


def test_another_adviser_is_refused_before_a_question_is_asked(env, states, store, scripted, paid):
    advise(states[:8], env, get_backend("rules"), store, "a", settings())
    with pytest.raises(BadInput, match=r"a@v1#\w+ is advised by rules: advice of paid") as stop:
        advise(states[8:12], env, paid, store, "a", settings())
    assert "--ask.allow-mixed-advisers" in stop.value.hint and not paid.asked and store.versions("a") == [1]
    assert advise(states[8:12], env, get_backend("rules"), store, "a", settings()).version == 2


def test_every_round_is_named_with_adviser_models_rows_and_cost(env, states, store, paid):
    advise(states[:8], env, get_backend("rules"), store, "a", settings())
    mixed = settings(allow_mixed_advisers=True)
    manifest = store.manifest(advise(states[8:12], env, paid, store, "a", mixed))
    wanted = [AdvisedRound("rules", ("rules",), 8, 0.0), AdvisedRound("paid", ("paid-1",), 4, 1.0)]
    assert rounds_of(manifest) == wanted == advised_rounds(store, "a")
    assert advisers_of(manifest) == "rules, paid" and manifest.cost["price_usd_total"] == 1.0
    card = markdown(manifest)
    assert "| 1 | rules | rules | 8 | 0.0000 |\n| 2 | paid | paid-1 | 4 | 1.0000 |" in card
    told = croissant(manifest)["description"]
    assert "by rules, paid" in told and "Round 2: paid (paid-1), 4 rows, 1.0000 USD." in told


def test_a_list_of_rounds_from_elsewhere_is_read_whatever_it_holds(env, states, store):
    manifest = store.manifest(advise(states[:8], env, get_backend("rules"), store, "a", settings()))
    strange = [{"adviser": 3, "models": 7, "rows": "x", "price_usd": float("nan")}, "text", {"rows": True}]
    found = rounds_of(replace(manifest, provenance={"rounds": strange}))
    assert found == [AdvisedRound("3", (), 0, 0.0), AdvisedRound("unknown", (), 0, 0.0)]
    assert advisers_of(replace(manifest, provenance={"rounds": "none"}))


def test_versions_from_before_the_list_are_read_from_their_ancestors(env, states, store, paid, monkeypatch):
    monkeypatch.setattr("pipeline.rounds.commit.record", lambda rounds: None)  # what an earlier release wrote
    advise(states[:8], env, get_backend("rules"), store, "a", settings())
    newest = advise(states[8:12], env, paid, store, "a", settings(allow_mixed_advisers=True))
    monkeypatch.undo()
    assert [(each.adviser, each.rows) for each in advised_rounds(store, "a")] == [("rules", 8), ("paid", 4)]
    assert [each.adviser for each in rounds_of(store.manifest(newest))] == ["unknown", "paid"]
    with pytest.raises(BadInput, match="advised by paid"):
        advise(states[12:14], env, get_backend("rules"), store, "a", settings())
