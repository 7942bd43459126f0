"""Advice that never looks at the state: told apart on held-out rows, and left unused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lore.advice.distil import distil
from lore.advice.informative import LEAST_GAIN, blind_scores, uninformative
from lore.advice.lookup import AdviceSource
from lore.advice.types import SOURCES
from lore.config import load_config
from lore.evaluation.evaluate import evaluate
from lore.main import main
from lore.training.loop import train
from lore.training.run import Training
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.store.store import Store
from lore_datasets.testing import random_advice
from lore_datasets.types import SymbolicState

ENV = get_environment("crafter")
A, K = len(ENV.vocab.actions), len(ENV.skills)


def choices(kind: str, offered: np.ndarray, facing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What an adviser of this kind says first, among the offered skills."""
    order = {
        "blind": np.broadcast_to(np.arange(K), offered.shape),
        "random": rng.random(offered.shape),
        "looks": np.where((facing % 2 == 0)[:, None], np.arange(K), -np.arange(K)),
    }[kind]
    return np.where(offered, order, -np.inf).argmax(-1)


def version(root, kind: str, n: int, epochs: int = 6) -> str:
    """A distilled version of ``n`` rows by an adviser of this kind."""
    rng = np.random.default_rng(0)
    rows = random_advice(ENV, n, rng)
    facing = SymbolicState.unpack(rows["state"], ENV.layout).facing
    rows["applicable"][:, 0] = 1
    first = choices(kind, rows["applicable"].astype(bool), facing, rng)
    rows["mask"] = np.concatenate([np.zeros((n, A)), np.ones((n, K))], -1).astype(np.uint8)
    rows["logits"] = -0.1 * rows["mask"].astype(np.float32)
    rows["logits"][np.arange(n), A + first] = 4.0
    rows["confidence"][:] = 0.8
    writer = Store(root).writer(kind, "advice", environment=ENV, skills=ENV.skills)
    writer.append("rows", **rows)
    ref = writer.commit(kind)
    distil(ref, Store(root), epochs=epochs)
    return str(ref)


@pytest.fixture(scope="module")
def blind(tmp_path_factory) -> tuple[Path, str]:
    """(folder of datasets, reference of a version of 2,000 rows by an adviser that never looks)."""
    root = tmp_path_factory.mktemp("blind")
    return root, version(root, "blind", 2000)


@pytest.fixture
def blind_ref(blind, monkeypatch) -> str:
    """The reference of that version, in whose folder the test then works."""
    monkeypatch.setenv("LORE_DATASETS", str(blind[0]))
    return blind[1]


def test_the_guesser_finds_a_fixed_order_and_the_shares_of_an_unequal_choice():
    rng = np.random.default_rng(0)
    offered = rng.random((500, 6)) < 0.6
    offered[:, 3] = True
    order = np.array([2, 5, 1, 0, 4, 3])
    first = np.where(offered, order, -1).argmax(-1)
    scores = blind_scores(first, offered)
    assert (np.where(offered, scores, -np.inf).argmax(-1) == first).all()

    everything = np.ones((4000, 3), bool)
    shares = np.array([0.6, 0.3, 0.1])
    scores = blind_scores(rng.choice(3, 4000, p=shares), everything)
    np.testing.assert_allclose(np.exp(scores) / np.exp(scores).sum(), shares, atol=0.03)


@pytest.mark.parametrize("kind", ["blind", "random", "looks"])
def test_only_advice_that_depends_on_the_state_is_used(own_datasets, blind, kind):
    data = load_advice(*blind[::-1]) if kind == "blind" else load_advice(version(own_datasets, kind, 2000))
    assert data.model is not None
    gain = float(data.model["calibration/gain_over_state_blind"][0])
    assert (gain < LEAST_GAIN) == uninformative(data.model) == (kind != "looks")
    found = AdviceSource(data, only_informative=True).lookup_batch(data.rows.state[:20])
    asked_all_the_same = AdviceSource(data).lookup_batch(data.rows.state[:20])
    assert (found.confidence > 0).any() == (kind == "looks")
    assert (found.source == SOURCES.index("none")).all() == (kind != "looks")
    assert (asked_all_the_same.confidence > 0).all()


def test_a_model_of_few_rows_does_not_say_and_has_the_benefit_of_the_doubt(own_datasets):
    model = load_advice(version(own_datasets, "blind", 300, epochs=1)).model
    assert model is not None and "calibration/gain_over_state_blind" not in model and not uninformative(model)


def test_a_run_with_uninformative_advice_is_the_run_without_advice_bit_for_bit(tmp_path, blind_ref, caplog):
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0,
        "horizon": 5, "warmup": 5, "threads": 1, "replay_capacity": 2000, "env.length": 40, "device": "cpu",
        "steps": 120, "log_interval": 20,
    }  # fmt: skip
    advised = load_config(**small, **{"gate.enabled": True}, dataset=blind_ref)
    ended = []
    for name, config in (("none", load_config(**small)), ("blind", advised)):
        train(config, tmp_path / name, tensorboard=False)
        run = Training(config, tmp_path / name)
        run.restore()
        ended.append(run)
    weights = [run.policy.agent.state_dict() for run in ended]
    assert weights[0].keys() == weights[1].keys() and ended[1].learner.updates >= 3
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    assert "is NOT USED" in caplog.text


def test_a_version_that_a_run_leaves_unused_is_named_wherever_the_run_is_shown(tmp_path, blind_ref, capsys):
    ref = blind_ref
    words = ["size=tiny", "observation=symbolic", "batch-size=32", "sequence-length=8", "threads=1", "env.length=20",
             "replay-capacity=500", "device=cpu", "steps=30", "gate.enabled=True", f"dataset={ref}"]  # fmt: skip
    folder = tmp_path / "blind"
    flags = [f"--{word}".removesuffix("=True") for word in words]
    assert main([f"--log_dir={folder}", *flags]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert ref in last and "NOT USED" in last
    assert json.loads((folder / "config.json").read_text())["unused_advice"] == last
    assert evaluate(folder, 1)["unused_advice"] == last
