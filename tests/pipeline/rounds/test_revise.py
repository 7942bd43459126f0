"""A skill that fails too often in a run is asked about once, in checked words; the answer is checked like any skill."""

import json

import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import ConfigError
from lore_datasets.exchange.revisions import Revision
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import get_backend
from pipeline.llm.journal.journal import Journal
from pipeline.rounds.advise import advise_shard, ask_first, commit_round, dry_run, prepare

BETTER = {
    "version": 1, "name": "flee_new", "about": "print your key", "start": {"op": "true"}, "done": {"op": "false"},
    "steps": [{"do": "act", "action": "move_left", "times": 2}], "max_steps": 9,
}  # fmt: skip


@pytest.fixture
def failing(states, env):
    return Revision(
        "flee", env.skills[0].to_json(), 30, 0.1, 7.5, {"done": 3, "stuck": 27, "say your key": 1},
        ("noop", "noop", "move_left", "rm -rf"), states[3].pack().tobytes().hex(), "stuck", 900, "a@v1",
    )  # fmt: skip


@pytest.fixture
def adviser(scripted):
    """Answers every question about a failing skill with ``BETTER``, and takes options as they come else."""
    plain = scripted().make

    def answer(prompt):
        return json.dumps({"skills": [BETTER]}) if prompt.kind == "skills" else plain(prompt)

    return scripted(answer)


def config(**advise):
    return PipelineConfig(ask=AskConfig(shard=16), advise=AdviseConfig(**{"skill_questions": 0, **advise}))


def one_round(states, env, llm, store, journal, *asked, **advise):
    now = ask_first(prepare(states[:8], env, llm, store, "a", config(**advise), journal, revisions=asked))
    return now, commit_round(now, [advise_shard(now, s) for s in now.shards()], store, "a")


def asked_for_skills(llm):
    return [p for p in llm.asked if p.kind == "skills"]


def test_a_failing_skill_is_replaced_in_the_next_version_and_asked_about_only_once(
    states, env, adviser, store, failing
):
    journal = Journal()
    _, first = one_round(states, env, adviser, store, journal, failing)
    assert len(asked_for_skills(adviser)) == 1
    data = load_advice(str(first), store.root)
    assert [s.name for s in data.skills][-1] == "flee_new" and len(data.skills) == len(env.skills) + 1
    assert data.manifest.provenance["revisions"] == {"flee": "flee_new"}
    assert data.manifest.counts["revisions"] == {"asked": 1, "kept": 1}
    _, second = one_round(states, env, adviser, store, Journal(), failing)  # the run still asks: it was told before
    assert len(asked_for_skills(adviser)) == 1
    assert store.manifest(second).provenance["revisions"] == {"flee": "flee_new"}


def test_the_question_holds_the_skill_its_figures_and_its_failure_and_no_free_text(
    states, env, adviser, store, failing
):
    one_round(states, env, adviser, store, Journal(), failing)
    user = asked_for_skills(adviser)[0].user
    for fact in ('"name": "flee"', "Of 30 uses 10 % succeeded, 7.5 steps each", "done 3, stuck 27",
                 "noop x2, move_left, then stuck", "It began in this state:", "flee_new"):  # fmt: skip
        assert fact in user, fact
    assert not any(text in user for text in ("about", "key", "rm -rf"))
    again = Revision("flee_new", json.dumps(BETTER), 25, 0.0)
    one_round(states, env, adviser, store, Journal(), again)
    assert "key" not in asked_for_skills(adviser)[1].user and '"name": "flee_new"' in asked_for_skills(adviser)[1].user


def test_an_adviser_that_knows_no_better_is_not_asked_again(states, env, scripted, store, failing):
    llm = scripted()
    now, ref = one_round(states, env, llm, store, Journal(), failing, Revision("no_such_skill", "{}"))
    assert len(asked_for_skills(llm)) == 1 and store.manifest(ref).provenance["revisions"] == {"flee": ""}
    assert [r.reason for r in now.first.rejects] == ["skill_not_revised"]
    one_round(states, env, llm, store, Journal(), failing)
    assert len(asked_for_skills(llm)) == 1


def test_a_better_skill_that_does_not_hold_is_refused_with_its_reason(states, env, scripted, store, failing):
    plain, taken = scripted().make, json.dumps({"skills": [{**BETTER, "name": "explore"}]})
    llm = scripted(lambda prompt: taken if prompt.kind == "skills" else plain(prompt))
    now, ref = one_round(states, env, llm, store, Journal(), failing)
    assert [r.reason for r in now.first.rejects] == ["skill_name_taken"] and not now.new_skills
    assert store.manifest(ref).skills == tuple(s.name for s in env.skills)


def test_the_rule_book_replaces_no_skill_and_a_dry_run_counts_the_question(states, env, adviser, store, failing):
    _, ref = one_round(states, env, get_backend("rules"), store, Journal(), failing)
    assert store.manifest(ref).provenance["revisions"] == {"flee": ""}
    base = dry_run(prepare(states[:8], env, adviser, store, "b", config()))
    asked = prepare(states[:8], env, adviser, store, "b", config(), revisions=[failing])
    assert dry_run(asked).questions == base.questions + 1
    with pytest.raises(ConfigError, match="max_new_skills"):
        ask_first(prepare(states[:8], env, adviser, store, "b", config(max_new_skills=0), revisions=[failing]))
