"""Visited states: where a trained agent goes, how sure it is there, and that a dataset keeps it."""

import numpy as np
import pytest

from lore.config import load_config
from lore.evaluation.visits import commit_visits, uncertainty_of, visit
from lore.training.loop import train
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput
from lore_datasets.exchange.hdf5 import export_hdf5, read_hdf5
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice, small_states
from lore_datasets.types import SymbolicState

ENV = get_environment("crafter")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder of a short run with path B, root of its datasets)."""
    base = tmp_path_factory.mktemp("visits")
    patch = pytest.MonkeyPatch()
    patch.setenv("LORE_DATASETS", str(base / "datasets"))
    ref = str(small_advice(base / "datasets", ENV, n=30))
    config = load_config(
        size="tiny", observation="symbolic", batch_size=32, sequence_length=8, train_ratio=1.0, horizon=3, threads=1,
        replay_capacity=1000, steps=60, dataset=ref, **{"gate.enabled": True}, num_envs=2,
        **{"env.length": 40},
    )  # fmt: skip
    train(config, base / "run", tensorboard=False)
    yield base / "run", base / "datasets"
    patch.undo()


@pytest.fixture
def folder(trained, monkeypatch):
    monkeypatch.setenv("LORE_DATASETS", str(trained[1]))
    return trained[0]


def test_the_agents_states_come_with_episode_step_and_uncertainty(folder):
    seen = []
    visits = visit(folder, 120, stride=1, on_progress=lambda kept, budget: seen.append((kept, budget)))
    assert len(visits) == 120 and visits.complete and seen == [(100, 120), (120, 120)]
    states = SymbolicState.unpack(visits.state, ENV.layout)
    assert (states.vitals[visits.step == 0] == 9).all()
    for episode in np.unique(visits.episode):
        steps = visits.step[visits.episode == episode]
        assert (np.diff(steps) == 1).all() and steps[0] == 0 and steps[-1] < 40
    assert ((visits.uncertainty >= 0) & (visits.uncertainty <= 1)).all() and visits.uncertainty.std() > 0
    assert visits.about["advice"] and visits.about["frames"] == 60


def test_the_seed_alone_decides_what_is_visited(folder):
    a, b, c = (visit(folder, 20, stride=3, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.state, b.state)
    np.testing.assert_array_equal(a.uncertainty, b.uncertainty)
    assert not np.array_equal(a.state, c.state)


def test_an_agent_alone_plays_without_advice(folder):
    assert visit(folder, 10, alone=True).about["alone"] is True


def test_an_interrupt_keeps_what_was_visited(folder):
    def stop(kept, budget):
        raise KeyboardInterrupt

    visits = visit(folder, 500, stride=1, on_progress=stop)
    assert len(visits) == 100 and not visits.complete


def test_visited_states_are_stored_exported_and_read_back(folder, tmp_path):
    visits, store = visit(folder, 15), Store(tmp_path)
    ref = commit_visits(visits, store, "seen", {"budget": 15})
    artifact = store.open(ref)
    assert artifact.manifest.provenance["sources"][3] == "agent"
    assert artifact.manifest.parents == (visits.about["advice"],)
    np.testing.assert_array_equal(artifact.arrays["round-000/uncertainty"], visits.uncertainty)
    assert (artifact.arrays["round-000/source"] == 3).all()
    export_hdf5(store, ref, tmp_path / "seen.h5")
    np.testing.assert_array_equal(read_hdf5(tmp_path / "seen.h5").arrays["round-000/state"], visits.state)


def test_signals_that_are_missing_lose_their_weight():
    signals = np.array([[0.0, 5.0, np.nan], [1.0, 5.0, np.nan], [1.0, 9.0, np.nan]], np.float32)
    u = uncertainty_of(signals, (0.5, 0.25, 0.25))
    assert u[0] == pytest.approx(0.0, abs=1e-6) and u[1] == pytest.approx(2 / 3) and u[2] == pytest.approx(1.0)
    assert np.isnan(uncertainty_of(np.full((2, 3), np.nan), (1.0, 1.0, 1.0))).all()


def test_states_without_uncertainty_stay_valid_and_values_out_of_range_are_refused(tmp_path):
    store = Store(tmp_path)
    old = small_states(tmp_path, ENV, 16)
    assert "round-000/uncertainty" not in store.manifest(old).arrays
    state = store.open(old).arrays["round-000/state"]
    rows = {"state": state, "episode": np.zeros(16), "step": np.arange(16), "source": np.zeros(16, np.uint8)}
    rows["episode"] = rows["episode"].astype(np.int32)
    writer = store.writer("states", "states", environment=ENV)
    with pytest.raises(BadInput, match="uncertainty"):
        writer.append("rows", **rows, uncertainty=np.full(16, 1.5, np.float32))
    writer.append("rows", **rows, uncertainty=np.full(16, np.nan, np.float32))
    with pytest.raises(BadInput, match="uncertainty"):
        writer.append("rows", **rows)
    again = store.open(writer.commit("unknown"))
    assert np.isnan(again.arrays["round-000/uncertainty"]).all()
