"""Answers by file: questions out in every service's form, results back in any form and order, by id alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput, ConfigError
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig, to_dict
from pipeline.llm import backend_from
from pipeline.llm.backends import file_formats
from pipeline.llm.backends.file import FileAdviser
from pipeline.llm.journal.journal import Journal
from pipeline.questions.prompts import Renderer
from pipeline.rounds.advise import advise
from pipeline.rounds.prepare import ask_first, prepare

GOOD = json.dumps({"ranked": ["explore"], "confidence": 0.9, "reason": "because"})
CONFIG = PipelineConfig(ask=AskConfig(backend="file", shard=4), advise=AdviseConfig(kinds="prior"))


def by_openai(key, text):
    body = {"model": "gpt-x", "choices": [{"index": 0, "message": {"role": "assistant", "content": text},
            "finish_reason": "stop"}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}  # fmt: skip
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": key, "response": response, "error": None}


def by_gemini(key, text):
    candidate = {"content": {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": text}]}}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 3}
    response = {"candidates": [candidate | {"finishReason": "STOP"}], "usageMetadata": usage, "modelVersion": "gem-x"}
    return {"key": key, "response": response}


def by_anthropic(key, text):
    message = {"id": "msg", "type": "message", "role": "assistant", "model": "claude-x",
               "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
               "usage": {"input_tokens": 7, "output_tokens": 3}}  # fmt: skip
    return {"custom_id": key, "result": {"type": "succeeded", "message": message}}


def plainly(key, text):
    return {"key": key, "text": text}


FORMS = {"openai": by_openai, "gemini": by_gemini, "anthropic": by_anthropic, "plain": plainly}


def answers(folder, rows, name="a.jsonl"):
    path = folder / "answers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def ids(folder):
    return [json.loads(line)["custom_id"] for line in (folder / "openai-001.jsonl").read_text().splitlines()]


def written(states, env, store, folder):
    """Questions about ten states, written into ``folder``; their ids."""
    llm = FileAdviser(folder)
    with pytest.raises(BadInput, match="no usable advice"):
        advise(states[:10], env, llm, store, "none", CONFIG)
    assert llm.said == "0 of 10 answered, 10 waiting"
    llm.write()
    return ids(folder)


def test_questions_go_out_in_the_form_of_each_service(states, env, store, tmp_path):
    keys = written(states, env, store, tmp_path)
    prompts = FileAdviser(tmp_path)
    assert len(set(keys)) == 10 and all(len(key) == 64 for key in keys) and prompts.notes == []
    first = json.loads((tmp_path / "openai-001.jsonl").read_text().splitlines()[0])
    assert (first["method"], first["url"]) == ("POST", "/v1/chat/completions")
    assert [m["role"] for m in first["body"]["messages"]] == ["system", "user"]
    shape = first["body"]["response_format"]
    assert shape["type"] == "json_schema" and shape["json_schema"]["schema"]["type"] == "object"
    gemini = json.loads((tmp_path / "gemini-001.jsonl").read_text().splitlines()[0])
    assert gemini["key"] == keys[0] and gemini["request"]["contents"][0]["parts"][0]["text"]
    assert gemini["request"]["generation_config"]["response_mime_type"] == "application/json"
    batch = json.loads((tmp_path / "anthropic-001.json").read_text())["requests"]
    assert [each["custom_id"] for each in batch] == keys and batch[0]["params"]["max_tokens"] == 256
    told = (tmp_path / "pack-001.md").read_text()
    assert all(f"## {key}" in told for key in keys) and told.count("Exact rules") == 1


@pytest.mark.parametrize("form", FORMS)
def test_results_of_each_form_are_read_in_any_order(states, env, store, tmp_path, form):
    keys = written(states, env, store, tmp_path)
    answers(tmp_path, [FORMS[form](key, GOOD) for key in reversed(keys)])
    llm = FileAdviser(tmp_path, "me")
    ref = advise(states[:10], env, llm, store, form, CONFIG)
    assert llm.said == "10 of 10 answered, 0 waiting" and llm.notes == [] and llm.unknown() == []
    assert len(load_advice(form, store.root).rows) == 10
    models = {"openai": "gpt-x", "gemini": "gem-x", "anthropic": "claude-x", "plain": "me"}
    about = store.manifest(ref)
    assert about.provenance["models"] == [models[form]]
    assert about.cost["tokens_in"] == (0 if form == "plain" else 70)
    llm.write()
    assert not list(tmp_path.glob("openai-*")) and not list(tmp_path.glob("pack-*"))


def test_counts_of_tokens_that_are_none_count_as_nothing():
    _, response = file_formats.answer_of(by_openai("k", GOOD))
    assert (response.tokens_in, response.tokens_out) == (7, 3)
    row = by_openai("k", GOOD)
    row["response"]["body"]["usage"] = {"prompt_tokens": 3 * 10**9, "completion_tokens": -5}
    _, response = file_formats.answer_of(row)
    assert (response.tokens_in, response.tokens_out) == (0, 0)


def test_partial_results_over_several_files_leave_the_others_waiting(states, env, store, tmp_path):
    keys = written(states, env, store, tmp_path)
    failed = {"custom_id": keys[5], "result": {"type": "errored", "error": {"error": {"message": "overloaded"}}}}
    late = {"custom_id": keys[6], "response": {"status_code": 429, "body": {"error": {"message": "slow"}}}}
    answers(tmp_path, [by_openai(keys[0], GOOD), by_openai(keys[0], "{}"), late, "not json"])
    answers(tmp_path, [plainly(keys[3], GOOD), failed, plainly("f" * 64, GOOD), '{"key": "' + keys[4]], "b.jsonl")
    answers(tmp_path, [plainly(keys[7], GOOD)], "c.md")
    answers(tmp_path, [plainly(keys[7], GOOD)], ".hidden")
    llm = FileAdviser(tmp_path)
    mixed = replace(CONFIG, ask=replace(CONFIG.ask, allow_mixed_models=True))
    ref = advise(states[:10], env, llm, store, "part", mixed)
    assert llm.said == "2 of 10 answered, 8 waiting" and len(load_advice("part", store.root).rows) == 2
    assert llm.unknown() == ["f" * 64]
    told = "\n".join(llm.notes)
    assert "1 files end neither in .jsonl nor in .json and are not read: c.md" in told and "hidden" not in told
    assert f"a.jsonl:2: {keys[0][:12]} is answered twice; the first answer counts" in told
    assert "overloaded" in told and "slow" in told and "a.jsonl:4: no result" in told and "b.jsonl:4: no result" in told
    assert store.manifest(ref).counts["waiting"] == {"prior": 8}
    llm.write()
    assert sorted(ids(tmp_path)) == sorted(set(keys) - {keys[0], keys[3]})


def test_a_corrected_answer_is_read_in_place_of_the_one_that_could_not_be_used(states, env, store, tmp_path):
    keys, journal = written(states, env, store, tmp_path), Journal(tmp_path / "j.sqlite")
    answers(tmp_path, [plainly(key, "I think: explore") for key in keys])
    with pytest.raises(BadInput, match="no usable advice in 10 answers"):
        advise(states[:10], env, FileAdviser(tmp_path), store, "odd", CONFIG, journal)
    answers(tmp_path, [plainly(key, GOOD) for key in keys])
    ref = advise(states[:10], env, FileAdviser(tmp_path), store, "odd", CONFIG, journal)
    assert store.manifest(ref).counts["rows"] == 10 == len(journal)


def test_a_program_by_file_is_the_version(env, store, tmp_path):
    config = PipelineConfig(advise=AdviseConfig(kinds="program"))
    key = Renderer(env).program().question
    answers(tmp_path, [plainly(key, env.rules.text)])
    llm = backend_from(AskConfig(backend="file", folder=str(tmp_path), model="people"))
    advise(np.zeros((0, env.layout.size), np.uint8), env, llm, store, "p", config)
    assert load_advice("p", store.root).programs == (env.rules.text,) and llm.name == "file:people"


def test_an_answer_serves_its_own_question_and_no_other_about_the_same_thing(env, tmp_path):
    first, again = (Renderer(env).asked_skill("eat_cow", wish) for wish in ("faster", "only by day"))
    llm = FileAdviser(tmp_path)
    assert llm.capabilities.waits(first)
    llm.write()
    answers(tmp_path, [plainly(first.question, '{"skills": []}')])
    llm = FileAdviser(tmp_path)
    assert not llm.capabilities.waits(first) and llm.capabilities.waits(again)


def test_files_are_split_at_a_services_limits(states, env, store, tmp_path, monkeypatch):
    limits = file_formats.LIMITS | {"openai": (4, 10**9, "jsonl"), "anthropic": (10**9, 20_000, "json")}
    monkeypatch.setattr("pipeline.llm.backends.file.LIMITS", limits)
    llm = FileAdviser(tmp_path, pack_size=3)
    with pytest.raises(BadInput):
        advise(states[:10], env, llm, store, "none", CONFIG)
    llm.write()
    assert [len(p.read_text().splitlines()) for p in sorted(tmp_path.glob("openai-*"))] == [4, 4, 2]
    parts = sorted(tmp_path.glob("anthropic-*"))
    assert len(parts) > 1 and all(p.stat().st_size < 20_100 for p in parts) and len(list(tmp_path.glob("pack-*"))) == 4
    assert sum(len(json.loads(p.read_text())["requests"]) for p in parts) == 10


def test_a_line_of_many_megabytes_is_named_and_passed_over(states, env, store, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.llm.backends.file._LINE", 1000)
    answers(tmp_path, ["x" * 5000, plainly("b" * 64, GOOD)])
    llm = FileAdviser(tmp_path)
    assert len(llm.notes) == 1 and "a.jsonl:1" in llm.notes[0] and llm.unknown() == ["b" * 64]


def test_a_folder_is_needed_and_stands_in_no_manifest(tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        backend_from(AskConfig(backend="file"))
    assert to_dict(PipelineConfig(ask=AskConfig(backend="file", folder="/home/me/x")))["ask"]["folder"] == ""
    (tmp_path / "about.json").write_text("[1]")
    with pytest.raises(BadInput, match=r"about\.json is a list"):
        FileAdviser(tmp_path)


def test_results_of_two_models_make_no_version_unless_that_is_wanted(states, env, store, tmp_path):
    keys = written(states, env, store, tmp_path)
    answers(tmp_path, [plainly(key, GOOD) | {"model": f"m{i % 2}"} for i, key in enumerate(keys)])
    with pytest.raises(BadInput, match="answers of 2 models in one version: m0, m1") as said:
        advise(states[:10], env, FileAdviser(tmp_path), store, "two", CONFIG)
    assert "every answer" in said.value.kept and "two" not in store.names()
    mixed = replace(CONFIG, ask=replace(CONFIG.ask, allow_mixed_models=True))
    assert store.manifest(advise(states[:10], env, FileAdviser(tmp_path), store, "two", mixed)).counts["rows"] == 10


def test_an_answer_under_the_id_of_another_question_is_a_named_reject_and_the_others_stand(
    states, env, store, tmp_path
):
    keys = written(states, env, store, tmp_path)
    plan = json.dumps({"plans": [{"steps": [{"do": "explore", "times": 1}], "score": 0.5}]})
    gone = json.dumps({"ranked": ["fly"], "confidence": 0.9, "reason": ""})
    answers(tmp_path, [plainly(keys[0], plan), plainly(keys[1], gone), *(plainly(key, GOOD) for key in keys[2:])])
    ref = advise(states[:10], env, FileAdviser(tmp_path), store, "odd", CONFIG)
    manifest = store.manifest(ref)
    assert manifest.counts["rows"] == 8 and manifest.counts["malformed"] == {"prior": 2}
    assert set(store.open(ref).arrays["round-000/rejects/reason"]) == {"malformed"}
    assert len(store.open(ref).arrays["round-000/answers/response"]) == 10  # what was answered is kept


def test_answers_about_states_of_another_environment_are_of_no_question_here(states, env, store, tmp_path):
    other = {"key": "b" * 64, "kind": "prior", "user": "a chess board", "state": "00" * 64, "draft": 0}
    (tmp_path / "questions.jsonl").write_text(json.dumps(other) + "\n")
    answers(tmp_path, [plainly("b" * 64, GOOD)])
    llm = FileAdviser(tmp_path)
    with pytest.raises(BadInput, match="no usable advice in 0 answers"):
        advise(states[:4], env, llm, store, "none", CONFIG)
    assert llm.said == "0 of 4 answered, 4 waiting" and store.names() == []
    with pytest.raises(BadInput, match="64"):
        advise(np.zeros((4, 64), np.uint8), env, llm, store, "none", CONFIG)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"rules": [{"when": {"op": "true"}, "goal": "fly"}]}', "rule 0: goal: unknown goal 'fly'"),
        ('{"rules": [' + '{"when": {"op": "true"}, "goal": "noop"},' * 2000 + "1]}", "2001 rules"),
        ('{"rules": [{"when": {"op": "true"}, "goal": "noop", "goal": "sleep"}]}', "twice"),
        ('{"rules": [{"when": {"op": "daylight", "cmp": "<", "value": NaN}, "goal": "noop"}]}', "NaN"),
        ('{"rules": [{"when": ', "JSON"),
        ("x" * 200_000, "bytes"),
    ],
    ids=["goal", "rules", "twice", "NaN", "truncated", "large"],
)
def test_a_program_outside_the_language_by_file_says_why_and_its_answer_is_kept(env, store, tmp_path, text, reason):
    config = PipelineConfig(advise=AdviseConfig(kinds="program"))
    answers(tmp_path, [plainly(Renderer(env).program().question, text)])
    nothing, llm = np.zeros((0, env.layout.size), np.uint8), FileAdviser(tmp_path)
    with pytest.raises(BadInput, match=r"no usable advice in 1 answers.*malformed") as refused:
        advise(nothing, env, llm, store, "p", config)
    assert reason in refused.value.hint
    now = ask_first(prepare(nothing, env, llm, store, "p", config))
    (reject,) = now.first.rejects
    assert reject.reason == "malformed" and reason in reject.text and len(now.first.answers) == 1
