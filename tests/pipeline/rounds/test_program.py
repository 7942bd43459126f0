"""A program as a kind of advice: asked once or in drafts, checked, kept in a version beside or without rows."""

import json

import numpy as np
import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput, ConfigError
from lore_datasets.language.programs import parse_program
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import get_backend
from pipeline.llm.base import KINDS, Response
from pipeline.llm.journal.journal import Journal
from pipeline.questions.prompts import Renderer, load_template
from pipeline.rounds.advise import advise, dry_run
from pipeline.rounds.commit import commit_round
from pipeline.rounds.prepare import ask_first, prepare
from pipeline.rounds.program import rules_told
from pipeline.rounds.round import ProgramRevision


def config(kinds="program", ask=None, **advice):
    return PipelineConfig(ask=AskConfig(**(ask or {})), advise=AdviseConfig(kinds=kinds, **advice))


def nothing(env):
    return np.zeros((0, env.layout.size), np.uint8)


def order(*goals):
    return json.dumps({"rules": [{"when": {"op": "true"}, "goal": goal, "why": "w"} for goal in goals]})


def test_a_program_alone_needs_no_states_and_is_the_version(env, store):
    ref = advise(nothing(env), env, get_backend("rules"), store, "p", config())
    data = load_advice("p", store.root)
    assert data.programs == (env.rules.text,) and len(data.rows) == 0 and data.ref == ref
    manifest = store.manifest(ref)
    assert manifest.counts["programs"] == 1 and manifest.counts["questions"] == {"program": 1}
    assert manifest.provenance["program_drafts"][0]["digest"] == env.rules.digest
    assert set(manifest.provenance["templates"]) == {"program"}


def test_a_program_stands_beside_rows_and_a_later_round_adds_the_newer_one(env, states, store, scripted):
    kinds = "program,prior,plan"
    first = advise(states[:8], env, get_backend("rules"), store, "p", config(kinds))
    assert len(load_advice("p", store.root).rows) == 8 and store.manifest(first).counts["questions"].keys() == {
        "program", "prior", "plan",
    }  # fmt: skip
    llm = scripted(lambda prompt: order("explore"), answers_once=True)
    advise(nothing(env), env, llm, store, "p", config(ask={"allow_mixed_advisers": True}))
    data = load_advice("p", store.root)
    assert len(data.programs) == 2 and json.loads(data.programs[1])["rules"][0]["goal"] == "explore"
    assert len(data.rows) == 8


@pytest.mark.parametrize("name", ["random", "blind", "degraded"])
def test_every_control_answers_with_a_program(env, store, name):
    advise(nothing(env), env, get_backend(name), store, "p", config())
    assert len(json.loads(load_advice("p", store.root).programs[0])["rules"]) >= 30


def test_drafts_are_asked_apart_played_on_the_same_worlds_and_the_best_is_kept(env, store, scripted):
    answers = iter([order("explore"), order("sleep", "explore"), '{"rules": []}', order("collect_wood", "explore")])
    worth = {"explore": [1.0, 2.0], "sleep": [5.0, 4.0], "collect_wood": [3.0, 3.0]}
    asked, journal = [], Journal()

    def make(prompt):
        asked.append(prompt.draft)
        return next(answers)

    def judge(programs, skills):
        assert skills == env.skills
        return [worth[program.rules[0].goal] for program in programs]

    llm = scripted(make, answers_once=True)
    ref = advise(nothing(env), env, llm, store, "p", config(program_drafts=4), journal, judge=judge)
    assert sorted(asked) == [0, 1, 2, 3]
    assert json.loads(load_advice("p", store.root).programs[0])["rules"][0]["goal"] == "sleep"
    drafts = store.manifest(ref).provenance["program_drafts"]
    assert [draft["return_mean"] for draft in drafts] == [1.5, 4.5, 3.0] and all(d["worlds"] == 2 for d in drafts)
    rejects = store.open(ref).arrays["round-000/rejects/reason"].tolist()
    assert sorted(rejects) == ["malformed", "program_not_best", "program_not_best"]
    again = advise(nothing(env), env, llm, store, "q", config(program_drafts=4), journal, judge=judge)
    assert len(asked) == 4 and store.manifest(again).cost["from_journal"] == 4


def test_drafts_without_a_way_to_play_are_refused(env, store):
    with pytest.raises(ConfigError, match="program_drafts = 3, but nothing here can play them"):
        advise(nothing(env), env, get_backend("rules"), store, "p", config(program_drafts=3))


def test_an_answer_outside_the_language_is_a_named_reject_and_makes_no_version(env, store, scripted):
    deep = {"op": "true"}
    for _ in range(50):
        deep = {"op": "not", "of": deep}
    llm = scripted(lambda prompt: json.dumps({"rules": [{"when": deep, "goal": "explore"}]}), answers_once=True)
    journal = Journal()
    with pytest.raises(BadInput, match=r"no usable advice in 1 answers.*malformed"):
        advise(nothing(env), env, llm, store, "p", config(), journal)
    assert store.names() == []


def test_a_program_outside_the_language_is_asked_for_again_in_other_words(env, store, scripted):
    asked = []

    def make(prompt):
        asked.append(prompt.user)
        return order("fly") if len(asked) == 1 else order("explore")

    ref = advise(nothing(env), env, scripted(make), store, "p", config(ask={"retries": 1}), Journal())
    assert len(asked) == 2 and asked[1].startswith(asked[0]) and "fly" not in asked[1]
    arrays, counts = store.open(ref).arrays, store.manifest(ref).counts
    assert arrays["round-000/rejects/reason"].tolist() == ["malformed"]
    assert "rule 0: goal" in arrays["round-000/rejects/text"][0] and counts["malformed"] == {"program": 1}
    assert json.loads(load_advice("p", store.root).programs[0])["rules"][0]["goal"] == "explore"


@pytest.mark.parametrize(
    "text", ['{"rules": [{"when": {"op": "true"}, "goal": NaN}]}', '{"rules": [], "rules": []}', "x" * 200_000]
)
def test_answers_that_are_no_json_are_malformed(env, store, scripted, text):
    with pytest.raises(BadInput, match="malformed"):
        advise(nothing(env), env, scripted(lambda prompt: text, answers_once=True), store, "p", config())


def test_a_large_program_is_read_and_its_reasons_are_cleaned(env, store, scripted):
    rules = [{"when": {"op": "true"}, "goal": "explore", "why": "\x1b[31m" + "w" * 700}] * 128
    body = json.dumps({"version": 1, "rules": rules})
    assert len(body) > 65_536
    advise(nothing(env), env, scripted(lambda prompt: body), store, "p", config())
    why = json.loads(load_advice("p", store.root).programs[0])["rules"][0]["why"]
    assert len(why) <= 200 and why.isprintable()


def test_rows_alone_are_asked_for_when_the_kinds_say_so(env, states, store):
    ref = advise(states[:6], env, get_backend("rules"), store, "a", config("prior"))
    assert store.manifest(ref).counts["questions"] == {"prior": 6}
    ref = advise(states[:6], env, get_backend("rules"), store, "b", config("plan"))
    assert store.manifest(ref).counts["questions"] == {"plan": 6}
    with pytest.raises(BadInput, match="states of shape"):
        advise(nothing(env), env, get_backend("rules"), store, "c", config("program,prior"))


def test_a_dry_run_counts_the_drafts(env, store):
    found = dry_run(prepare(nothing(env), env, get_backend("rules"), store, "p", config(program_drafts=5)))
    assert (found.questions, found.new) == (5, 5) and found.tokens_out == 5 * 16_384


@pytest.mark.parametrize("kinds", ["", "skills", "prior,poem"])
def test_unknown_kinds_are_named(kinds):
    with pytest.raises(ConfigError, match=r"advise\.kinds"):
        AdviseConfig(kinds=kinds)


def test_the_question_tells_the_language_and_every_start(env):
    prompt, template = Renderer(env).program(), load_template(env, "program")
    assert template.max_tokens == prompt.max_tokens == 16_384 and prompt.kind in KINDS
    for word in (*env.vocab.items, *env.vocab.targets, *env.vocab.achievements, *env.vocab.actions, "enclosed"):
        assert word in prompt.system
    for skill in env.skills:
        assert f"- {skill.name}: {skill.about}; starts when {{" in prompt.system
    drafts = [Renderer(env).program(draft) for draft in range(3)]
    assert len({draft.question for draft in drafts}) == 3 and len({draft.text for draft in drafts}) == 1


def test_a_small_model_is_asked_in_few_words_and_for_bounded_conditions(env, store, scripted):
    asked = []
    llm = scripted(lambda prompt: asked.append(prompt) or order(*["explore"] * 8), letters=True, answers_once=True)
    ref = advise(nothing(env), env, llm, store, "p", config())
    (prompt,) = asked
    assert 2 * len(prompt.text) < len(Renderer(env).program().text) and "at most 20" not in prompt.user
    assert prompt.schema["properties"]["rules"]["maxItems"] == 20 and "with 10 to 20 rules" in prompt.user
    assert all(f"- {skill.name}" in prompt.system for skill in env.skills)
    assert store.manifest(ref).provenance["templates"]["program"]["name"] == "crafter-program-short"


def test_a_failed_answer_is_told_from_a_bad_one(env, store, scripted):
    def fail(prompt):
        return Response("", model="m", finish="error", error="no route")

    with pytest.raises(BadInput, match="failed"):
        advise(nothing(env), env, scripted(fail), store, "p", config(ask={"retries": 0}))


def revised(env, store, llm, gain):
    """A round that asks for a better program than the dataset's; ``gain`` is what the answer's play is said to gain."""
    program = parse_program(load_advice("p", store.root).programs[-1], env.vocab, [s.name for s in env.skills])
    found = {"return": gain, "worlds": 9, "steps": 90}
    revision = ProgramRevision(program, f"{rules_told(program)}\n\nreturn 2.0", lambda *programs: found)
    wanted = config(ask={"allow_mixed_advisers": True})
    now = ask_first(prepare(nothing(env), env, llm, store, "p", wanted, Journal(), revision=revision))
    return now, lambda: commit_round(now, [], store, "p")


def test_a_better_program_takes_the_place_of_the_one_before(env, store, scripted):
    advise(nothing(env), env, scripted(lambda prompt: order("sleep", "explore")), store, "p", config())
    asked = []
    llm = scripted(lambda prompt: asked.append(prompt.user) or order("explore", "flee"))
    now, commit = revised(env, store, llm, [1.0, 0.1, 1.9])
    assert '0: {"when": {"op": "true"}, "goal": "sleep"}' in asked[0] and "return 2.0" in asked[0]
    assert '"why"' not in asked[0]
    ref = commit()
    assert len(load_advice("p", store.root).programs) == 2 and now.verdict["kept"]
    about = store.manifest(ref).provenance
    assert about["program_revisions"] == [now.verdict]
    assert about["templates"]["program"]["name"] == "crafter-revise-program"


def test_a_program_that_is_no_better_is_a_reject_with_its_figures_and_the_one_before_still_speaks(env, store, scripted):
    advise(nothing(env), env, scripted(lambda prompt: order("sleep", "explore")), store, "p", config())
    now, commit = revised(env, store, scripted(lambda prompt: order("explore")), [0.3, -0.2, 0.8])
    ref, data = commit(), load_advice("p", store.root)
    assert [json.loads(text)["rules"][0]["goal"] for text in data.programs] == ["sleep"] and data.ref == ref
    arrays = store.open(ref).arrays
    assert arrays["round-001/rejects/reason"].tolist() == ["program_not_better"]
    assert "return +0.30 (-0.20 to +0.80)" in arrays["round-001/rejects/text"][0]
    assert arrays["round-001/answers/response"].tolist() == [order("explore")]
    assert store.manifest(ref).message.startswith("no better program") and not now.verdict["kept"]


def test_the_rules_backend_answers_with_its_own_program_again(env, store):
    advise(nothing(env), env, get_backend("rules"), store, "p", config())
    now, _ = revised(env, store, get_backend("rules"), [9.0, 9.0, 9.0])
    assert now.verdict["same_rules"] and not now.programs and not now.first.rejects
