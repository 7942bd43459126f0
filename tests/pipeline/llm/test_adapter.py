"""A user's LLMAdapter as a backend: its logits become rows, and whatever it does wrong fails one question alone."""

import numpy as np
import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import ConfigError, NotFound, UsageError
from lore_datasets.language.geometry import StateView
from pipeline.config import AskConfig, PipelineConfig
from pipeline.llm import backend_from, get_backend
from pipeline.llm.backends.adapter import AdapterBackend, LLMAdapter
from pipeline.llm.base import LLM
from pipeline.llm.journal.journal import Journal
from pipeline.questions.feasible import feasible_actions
from pipeline.questions.prompts import Renderer
from pipeline.rounds.advise import advise, dry_run, prepare

SOURCE = """
import numpy as np
from pipeline.llm.backends.adapter import LLMAdapter

class Mine(LLMAdapter):
    def __init__(self, model="none"):
        self.parameters = {"model": model}

    def infer(self, obs_np, num_actions):
        return {"prior_logits": np.arange(num_actions), "confidence": [0.6], "features": None}

class Whole:
    name = "whole"
    def complete(self, prompts):
        return []

class Needs(Whole):
    def __init__(self, weights):
        pass


number = 3
"""


class Scripted(LLMAdapter):
    """Answers with what it was given, or raises it; keeps what it saw."""

    def __init__(self, answer):
        self.answer, self.seen = answer, []

    def infer(self, obs_np, num_actions):
        self.seen.append((obs_np, num_actions))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "own_adviser.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.delitem(__import__("sys").modules, "own_adviser", raising=False)


def test_its_logits_become_rows_about_actions_with_its_own_confidence(env, states, store, tmp_path):
    logits = np.linspace(-1, 1, len(env.vocab.actions))
    adapter = Scripted({"prior_logits": logits[None], "confidence": [0.25], "features": np.ones(3)})
    with Journal(tmp_path / "j.sqlite") as journal:
        ref = advise(states, env, AdapterBackend(adapter, env), store, "a", journal=journal)
        again = Scripted({"prior_logits": logits, "confidence": 0.5})
        assert advise(states, env, AdapterBackend(again, env, "Scripted"), store, "b", journal=journal)
    assert not again.seen and len(adapter.seen) == len({s.pack().tobytes() for s in map(states.__getitem__, range(64))})
    assert adapter.seen[0][1] == len(env.vocab.actions) and np.array_equal(adapter.seen[0][0], states[0].pack())
    rows, a = load_advice(str(ref), store.root).rows, len(env.vocab.actions)
    assert len(rows) == 64 and np.allclose(rows.confidence, 0.25) and not rows.mask[:, a:].any()
    assert rows.applicable.any() and (rows.plan_lengths == 0).all()
    for i in range(64):
        view = StateView(states[i], env.vocab)
        open_to = [env.vocab.actions.index(name) for name in feasible_actions(view)]
        assert sorted(np.flatnonzero(rows.mask[i])) == sorted(open_to)
        known = rows.logits[i, open_to]
        assert np.allclose(known - known[0], logits[open_to] - logits[open_to][0], atol=0.01)
    counts = store.manifest(ref).counts
    assert set(counts["questions"]) == {"prior"} and counts["rates"]["malformed"] == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"prior_logits": [0.0] * 3, "confidence": 1}, "expected \\[17\\]"),
        ({"prior_logits": [float("nan")] * 17, "confidence": 1}, "not finite"),
        ({"prior_logits": [1e400] * 17, "confidence": 1}, "not finite"),
        ({"prior_logits": ["x"] * 17, "confidence": 1}, "not numbers"),
        ({"prior_logits": [0.0] * 17, "confidence": 1.5}, "0..1"),
        ({"prior_logits": [0.0] * 17, "confidence": float("nan")}, "0..1"),
        ({"prior_logits": [0.0] * 17, "confidence": [0.1, 0.2]}, "0..1"),
        ({"prior_logits": [0.0] * 17}, "no dict with"),
        ({"prior_logits": [0.0] * 17, "confidence": 1, "advice": 2}, "unknown entries advice"),
        (None, "no dict with"),
        (RuntimeError("key AIzaSECRET"), "^infer raised RuntimeError$"),
    ],
)
def test_an_answer_outside_the_contract_fails_that_question_alone(env, states, answer, error):
    import re

    prompt = Renderer(env).prior(states[0], ["noop", "do"])
    [response] = AdapterBackend(Scripted(answer), env).complete([prompt])
    assert response.finish == "error" and re.search(error, response.error) and response.probabilities is None


def test_the_command_line_form_loads_a_class_from_the_working_folder(env, states, store, mine):
    llm = backend_from(AskConfig(backend="own_adviser:Mine", model="seven"), environment=env)
    assert (llm.name, llm.capabilities.parameters) == ("adapter:own_adviser:Mine", {"model": "seven"}) and isinstance(
        llm, LLM
    )
    planned = dry_run(prepare(states, env, llm, store, "a", PipelineConfig()))
    assert planned.questions == 64 and planned.price_usd == 0
    assert get_backend("own_adviser:Whole").name == "whole"
    with pytest.raises(NotFound, match="no module nowhere"):
        get_backend("nowhere.at_all:Mine", environment=env)
    with pytest.raises(NotFound, match="has no Yours"):
        get_backend("own_adviser:Yours", environment=env)
    with pytest.raises(ConfigError, match="no infer"):
        get_backend("own_adviser:number", environment=env)
    with pytest.raises(ConfigError, match="Popen has no infer method"):
        get_backend("subprocess:Popen", environment=env)
    with pytest.raises(ConfigError, match="missing a required argument"):
        get_backend("own_adviser:Needs", environment=env)
    with pytest.raises(UsageError, match="environment"):
        get_backend("own_adviser:Mine")
    for bad in ("own adviser:Mine", "a:b:c", "../x:Y", "x:", ":Y"):
        with pytest.raises(ConfigError):
            AskConfig(backend=bad)
