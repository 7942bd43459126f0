"""A GGUF model in this process: refusals always; real answers (slow) where xllamacpp and a model file are there."""

import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput, NotFound, UsageError
from lore_datasets.language.geometry import StateView
from lore_datasets.types import SymbolicState
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import get_backend
from pipeline.llm.backends.local import Local
from pipeline.llm.base import Response, complete
from pipeline.questions.feasible import feasible_goals
from pipeline.questions.prompts import Renderer
from pipeline.rounds.advise import advise

FETCHED = Path(__file__).parents[3] / "runs" / "models" / "qwen2.5-coder-1.5b.gguf"
MODEL = os.environ.get("LORE_TEST_GGUF") or (str(FETCHED) if FETCHED.is_file() else "")


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UsageError, match="needs the package xllamacpp") as error:
        get_backend("local", model="x.gguf")
    assert "pip install xllamacpp" in error.value.hint


@pytest.fixture
def runtime(monkeypatch):
    """Something under the name of the runtime, for checks that come before its first use."""
    monkeypatch.setitem(sys.modules, "xllamacpp", sys)


def test_a_path_that_is_no_model_is_refused_before_anything_is_loaded(runtime, tmp_path):
    with pytest.raises(NotFound):
        get_backend("local", model=str(tmp_path / "none.gguf"))
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(BadInput, match="not a GGUF"):
        get_backend("local", model=str(tmp_path / "text.gguf"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF and more")
    with pytest.raises(BadInput, match="SHA-256"):
        get_backend("local", model=str(tmp_path / "model.gguf"), sha256="0" * 64)
    llm = get_backend("local", model=str(tmp_path / "model.gguf"))
    assert llm.name == "local:model.gguf" and len(llm.capabilities.parameters["sha256"]) == 64


def test_without_a_name_the_fetched_model_is_taken_and_its_absence_says_how_to_fetch_it(runtime, tmp_path, monkeypatch):
    monkeypatch.setenv("LORE_MODELS", str(tmp_path))
    with pytest.raises(NotFound) as error:
        get_backend("local")
    assert error.value.hint == "lore llm fetch qwen2.5-coder-1.5b"
    (tmp_path / "qwen2.5-coder-1.5b.gguf").write_bytes(b"GGUF")
    assert get_backend("local").name == get_backend("local", model="qwen2.5-coder-1.5b").name


def test_questions_are_asked_in_the_order_of_their_texts_and_answered_in_their_own(runtime, env, states, tmp_path):
    class Inner:
        asked = ()

        def answer(self, prompts, take, stop):
            self.asked = [p.text for p in prompts]
            for i, prompt in enumerate(prompts):
                take([(i, Response(prompt.user[-40:]))])

    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    llm = Local(str(tmp_path / "m.gguf"))
    llm._inner = inner = Inner()
    ask = Renderer(env)
    prompts = [ask.prior(states[i], ["explore", "flee"], answer="letter", order=o) for i in range(6) for o in (0, 1)]
    prompts.insert(3, ask.plan(states[0], ["explore"]))
    answers = complete(llm, prompts)
    assert [a.text for a in answers] == [p.user[-40:] for p in prompts] and {a.model for a in answers} == {"m.gguf"}
    assert inner.asked == sorted(inner.asked) != [p.text for p in prompts]


real = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not MODEL, reason="no model: lore llm fetch, or name a GGUF file in LORE_TEST_GGUF"),
]


@pytest.fixture
def offline(monkeypatch):
    """Connections of this process reach loopback alone."""
    pytest.importorskip("xllamacpp", reason="the local backend needs xllamacpp: pip install -e '.[local]'")
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            raise OSError("there is no network in this test")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _usable(data, env, count):
    """Nine of ten states or more have a row, finite, that names as possible what can start in its state alone."""
    rows = data.rows
    assert 0.9 * count <= len(rows) <= count and np.isfinite(rows.logits).all() and np.isfinite(rows.confidence).all()
    width = len(data.actions)
    for i in range(len(rows)):
        view = StateView(rows.state[i].tobytes(), env.vocab)
        goals = [s.name for s, ok in zip(data.skills, rows.applicable[i], strict=True) if ok]
        assert goals == [g.name for g in data.skills if g.name in feasible_goals(data.skills, view)]
        known = np.flatnonzero(rows.mask[i])
        best = known[rows.logits[i][known].argmax()]
        assert best < width or data.skills[best - width].name in goals or not goals


@pytest.mark.usefixtures("offline")
class TestRealModel:
    pytestmark = real

    def test_the_command_advises_twenty_real_states_without_a_network(self, env, tmp_path, monkeypatch):
        from flows.cli.main import main

        monkeypatch.setenv("LORE_DATASETS", str(tmp_path))
        assert main(["collect", "--dataset", "states", "--budget", "30", "--seed", "3"]) == 0
        words = ["--ask.backend", "local", "--ask.model", MODEL, "--ask.retries", "0", "--select.budget", "20"]
        words += ["--advise.plan-share", "0", "--advise.skill-questions", "0", "--rows-only"]
        assert main(["advise", "--states", "states", "--dataset", "a", *words]) == 0
        data = load_advice("a")
        _usable(data, env, 20)
        about = data.manifest.provenance
        assert about["models"] == [Path(MODEL).name] and len(about["parameters"]["sha256"]) == 64
        assert data.manifest.cost["price_usd"] == 0 and data.manifest.counts["rates"]["malformed"] <= 0.1

    def test_the_openai_backend_gets_letters_and_json_from_a_real_server_on_loopback(self, env, states, store):
        from pipeline.llm.backends.local import _serve

        server = _serve(Path(MODEL), 1, 8192)
        url = f"{server.listening_address}/v1"
        llm = get_backend("openai", model=Path(MODEL).name, base_url=url, letters=True, concurrency=1, timeout_s=1800)
        config = PipelineConfig(
            ask=AskConfig(retries=0, timeout_s=1800), advise=AdviseConfig(skill_questions=0, plan_share=0.0)
        )
        data = load_advice(str(advise(states[:3], env, llm, store, "letters", config)), store.root)
        _usable(data, env, 3)
        state = states[0]
        goals = feasible_goals(env.skills, StateView(state.pack().tobytes(), env.vocab))
        answer = complete(llm, [Renderer(env).plan(SymbolicState.unpack(state.pack(), env.layout), goals)])[0]
        assert answer.error is None and answer.tokens_out > 0
        assert '"plans"' in answer.text and answer.finish in ("stop", "length")
        del server
