"""Controls and replay: deterministic, usable, and each really what its name says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, ConfigError, NotFound, UsageError
from lore_datasets.store.store import Store
from pipeline.config import AskConfig
from pipeline.llm import BACKENDS, backend_from, get_backend
from pipeline.llm.backends.adapter import AdapterBackend, LLMAdapter
from pipeline.llm.backends.controls import Replay
from pipeline.llm.base import LLM, Response, complete
from pipeline.llm.journal.journal import Journal
from pipeline.questions.parse import parse
from pipeline.questions.prompts import Renderer
from pipeline.rounds.advise import advise


@pytest.fixture
def prompts(env, states):
    renderer, options = Renderer(env), [s.name for s in env.skills]
    return [renderer.prior(states[i], options) for i in range(32)]


def ranked(response):
    return json.loads(response.text)["ranked"]


@pytest.mark.parametrize("name", ["random", "blind", "degraded", "rules"])
def test_offline_advisers_answer_every_kind_of_question_in_the_form_asked_for(name, env, states):
    llm, renderer = get_backend(name), Renderer(env)
    names = [*env.vocab.actions, *(s.name for s in env.skills)]
    asked = [renderer.prior(states[0], ["explore", "flee"]), renderer.plan(states[0], ["explore", "noop"]),
             renderer.new_skills("Share of states.", 2)]  # fmt: skip
    assert isinstance(llm, LLM)
    for prompt, response in zip(asked, complete(llm, asked), strict=True):
        advice = parse(response, prompt, names)
        assert advice.kind == prompt.kind
    assert complete(llm, asked) == complete(llm, asked)


def test_random_advice_is_uniform_over_the_options(prompts):
    firsts = [ranked(r)[0] for r in complete(get_backend("random"), prompts)]
    assert len(set(firsts)) > 12
    assert [ranked(r)[0] for r in complete(get_backend("random", seed=1), prompts)] != firsts


def test_blind_advice_is_the_same_in_every_state(prompts):
    assert len({tuple(ranked(r)) for r in complete(get_backend("blind"), prompts)}) == 1


def test_degraded_advice_drops_and_falsifies_the_shares_it_was_told(env, states, scripted):
    renderer = Renderer(env)
    many = [renderer.prior(states[i], ["explore", "flee", "sleep"], order=j) for i in range(64) for j in range(4)]
    inner = scripted()
    clean = complete(inner, many)
    llm = get_backend("degraded", inner=scripted(), dropped=0.25, wrong=0.25)
    answers = complete(llm, many)
    dropped = sum(not a.text for a in answers)
    same = sum(a.text == c.text for a, c in zip(answers, clean, strict=True))
    assert 40 < dropped < 90 and 100 < same < 160
    with pytest.raises(ConfigError, match=r"dropped \+ wrong"):
        get_backend("degraded", inner=inner, dropped=0.7, wrong=0.7)


def test_replay_serves_a_journal_under_the_name_of_who_answered(tmp_path, prompts, scripted):
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        answers = journal.ask(scripted(name="qwen", parameters={"t": 0}), prompts[:5])
    replay = get_backend("replay", journal=path)
    assert (replay.name, replay.capabilities.parameters) == ("qwen", {"t": 0})
    assert complete(replay, prompts[:5]) == answers
    assert "not in the journal" in complete(replay, prompts[5:6])[0].error
    with pytest.raises(NotFound):
        get_backend("replay", journal=tmp_path / "none.sqlite")
    with pytest.raises(BadInput, match="0 matching"):
        get_backend("replay", journal=path, adviser="gpt")


def test_an_unknown_backend_or_option_is_named(tmp_path):
    with pytest.raises(ConfigError, match="oracle") as error:
        get_backend("oracle")
    assert all(name in error.value.hint for name in BACKENDS)
    with pytest.raises(UsageError, match="temperature"):
        get_backend("random", temperature=1)


def test_the_degraded_control_is_degraded_by_what_the_settings_say():
    llm = backend_from(AskConfig(backend="degraded", dropped=0.5, wrong=0.25), seed=1)
    assert (llm.capabilities.parameters["dropped"], llm.capabilities.parameters["wrong"]) == (
        0.5,
        0.25,
    ) and "rules" in llm.name
    with pytest.raises(ConfigError):
        AskConfig(backend="degraded", dropped=1.5)
    with pytest.raises(ConfigError, match="sum to at most 1"):
        backend_from(AskConfig(backend="degraded", dropped=0.8, wrong=0.8))


def test_controls_cover_every_state_as_the_rule_book_does_except_for_what_is_dropped(env, states, store):
    rows = {}
    for name in ("rules", "blind", "random", "degraded"):
        ref = advise(states, env, backend_from(AskConfig(backend=name, dropped=0.5, wrong=0.0)), store, name)
        counts = store.manifest(ref).counts
        rows[name] = counts["states"] - counts.get("no_advice", 0)
        assert counts["rates"]["infeasible_after"] == 0.0
    assert rows["rules"] == rows["blind"] == rows["random"] == 64
    assert 32 < rows["degraded"] < 64  # a state goes without only when both its answers are dropped


def test_the_configuration_chooses_the_backend():
    assert backend_from(AskConfig(backend="random"), seed=3).capabilities.parameters["seed"] == 3


def test_a_degraded_rule_book_is_that_of_its_environment():
    ask = AskConfig(backend="degraded", dropped=0.0, wrong=0.0)
    llm = backend_from(ask, get_environment("minigrid:MiniGrid-DoorKey-5x5-v0"))
    assert (
        json.loads(complete(llm, [Renderer(llm.inner.environment).program()])[0].text)["rules"][0]["goal"]
        == "reach_goal"
    )


def test_replay_is_asked_in_the_form_that_was_answered(env, states, store, scripted):
    class Logits(LLMAdapter):
        def infer(self, obs_np, num_actions):
            return {"prior_logits": np.arange(num_actions), "confidence": 0.5}

    def letter(prompt):
        return Response("A", probabilities=(1.0, *[0.0] * (len(prompt.options) - 1)))

    small = scripted(letter, name="local:x", letters=True, parameters={"letters": True}, kinds=("prior",))
    for llm in (small, AdapterBackend(Logits(), env)):
        journal = Journal()
        answered = advise(states[:6], env, llm, store, "a", journal=journal)
        assert advise(states[:6], env, Replay(journal), store, "b", journal=journal).digest == answered.digest
        store = Store(store.root / "other")


def test_drafts_of_random_programs_differ(env):
    drafts = [
        r.text for r in complete(get_backend("random"), [replace(Renderer(env).program(), draft=i) for i in range(3)])
    ]
    assert len(set(drafts)) == 3
