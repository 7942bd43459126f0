"""A GGUF model in this process; needs xllamacpp and a model file named by LORE_TEST_GGUF, else only refusals run."""

import os
import sys

import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput, ConfigError, NotFound, UsageError
from pipeline.advise import advise
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import get_backend

MODEL = os.environ.get("LORE_TEST_GGUF", "")


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UsageError, match="needs the package xllamacpp") as error:
        get_backend("local", model="x.gguf")
    assert "pip install xllamacpp" in error.value.hint


def test_a_path_that_is_no_model_is_refused_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "xllamacpp", sys)  # the check comes before its first use
    with pytest.raises(ConfigError):
        get_backend("local")
    with pytest.raises(NotFound):
        get_backend("local", model=str(tmp_path / "none.gguf"))
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(BadInput, match="not a GGUF"):
        get_backend("local", model=str(tmp_path / "text.gguf"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF and more")
    with pytest.raises(BadInput, match="SHA-256"):
        get_backend("local", model=str(tmp_path / "model.gguf"), sha256="0" * 64)
    llm = get_backend("local", model=str(tmp_path / "model.gguf"))
    assert llm.name == "local:model.gguf" and len(llm.parameters["sha256"]) == 64


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not MODEL, reason="LORE_TEST_GGUF names no model file")
def test_a_local_model_advises_states_without_a_network(env, states, store):
    pytest.importorskip("xllamacpp")
    config = PipelineConfig(ask=AskConfig(retries=0), advise=AdviseConfig(skill_questions=0, plan_share=0.0))
    with get_backend("local", model=MODEL) as llm:
        ref = advise(states[:3], env, llm, store, "a", config)
    data = load_advice(str(ref), store.root)
    assert len(data.rows) == 3 and (data.rows.mask.sum(1) > 0).all()
    assert data.manifest.provenance["models"] == [os.path.basename(MODEL)]
