"""Statistics over the chunks of a version: what numpy says over the whole, here and on workers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flows.cli import main as cli
from flows.jobs.array_statistics import BINS, _named, array_statistics, statistics_text
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, ConfigError, CorruptArtifact, NotFound
from lore_datasets.store.store import Store
from lore_datasets.testing import random_states, small_advice, small_model, small_states

CRAFTER = get_environment("crafter")


@pytest.fixture
def two_rounds(own_datasets):
    small_advice(own_datasets, CRAFTER, n=90)
    return small_advice(own_datasets, CRAFTER, n=50, seed=1)


def expected(ref):
    """The same counts over whole arrays in memory."""
    arrays = Store().open(ref).arrays

    def all_of(name):
        return np.concatenate([arrays[f"round-00{n}/{name}"] for n in (0, 1)])

    mask, logits, able = all_of("mask").astype(bool), all_of("logits"), all_of("applicable")
    best = np.where(mask, logits, -np.inf).argmax(-1)[mask.any(-1)]
    return {
        "rows": len(mask),
        "first": np.bincount(best, minlength=mask.shape[1]).tolist(),
        "known": mask.sum(0).tolist(),
        "can_start": able.sum(0).tolist(),
        "goal_keys": len(np.unique(all_of("key_goal"))),
        "with_plans": int((all_of("plan_lengths") > 0).any(-1).sum()),
        "confidence": np.histogram(all_of("confidence"), BINS, (0, 1))[0].tolist(),
        "mean": float(all_of("confidence").mean()),
    }


def agrees(found, want):
    options = found["options"]
    assert all(found[key] == want[key] for key in ("rows", "goal_keys", "with_plans"))
    assert [each["first"] for each in options] == want["first"] and [each["known"] for each in options] == want["known"]
    assert [each["can_start"] for each in options if "can_start" in each] == want["can_start"]
    assert found["confidence"]["histogram"] == want["confidence"] and sum(want["first"]) == found["advised"]
    assert found["confidence"]["mean"] == pytest.approx(want["mean"], abs=1e-6)


def test_the_statistics_are_those_of_all_rows_of_all_rounds(two_rounds, capsys):
    want = expected(two_rounds)
    assert want["rows"] == 140
    agrees(array_statistics(str(two_rounds)), want)
    assert cli.main(["datasets", "show", str(two_rounds), "--statistics"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == f"{two_rounds}: 140 rows" and table[4].split() == [
        "option",
        "first",
        "choice",
        "share",
        "known",
        "can",
        "start",
    ]
    assert cli.main(["datasets", "show", str(two_rounds), "--statistics", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    agrees(shown, want)
    names = [*CRAFTER.vocab.actions, *(skill.name for skill in CRAFTER.skills)]
    best = max(shown["options"], key=lambda option: option["first"])
    assert table[5].split()[:3] == [best["name"], str(best["first"]), f"{100 * best['first'] / 140:.1f}"]
    assert shown["ref"] == str(two_rounds) and [each["name"] for each in shown["options"]] == names


def test_a_mean_over_no_rows_is_no_number_in_json():
    nothing = _named({"rows": 0, "confidence": {"mean": float("nan"), "histogram": [0] * BINS}}, [], [])
    assert json.loads(json.dumps(nothing, allow_nan=False))["confidence"]["mean"] is None
    assert "confidence mean -;" in statistics_text(nothing | {"ref": "a@v1"})


@pytest.mark.slow
def test_workers_count_the_same(two_rounds, started_cluster):
    with started_cluster(2) as client:
        agrees(array_statistics(str(two_rounds), dask=client.scheduler.address), expected(two_rounds))


def test_states_are_counted_by_who_visited_them(own_datasets):
    ref = small_states(own_datasets, CRAFTER, 64)
    assert array_statistics(str(ref)) == {
        "ref": str(ref), "rows": 64, "sources": {"random": 22, "rules": 21, "half": 21},
    }  # fmt: skip
    writer = Store().writer("visits", "states", environment=CRAFTER, provenance={"sources": ["agent"]})
    state, unsure = random_states(CRAFTER, 10, np.random.default_rng(0)).pack(), np.full(10, 0.95, np.float32)
    unsure[:3], unsure[3] = 0.05, np.nan
    zeros = np.zeros(10, int)
    writer.append("rows", state=state, episode=zeros, step=np.arange(10), source=zeros, uncertainty=unsure)
    found = array_statistics(str(writer.commit("ten visits")))
    assert found["sources"] == {"agent": 10} and found["uncertainty"]["histogram"] == [3, *[0] * 8, 6]
    assert found["uncertainty"]["mean"] == pytest.approx((3 * 0.05 + 6 * 0.95) / 9, abs=1e-6)


def test_what_has_no_rows_and_what_is_not_there_is_named(two_rounds, own_datasets, monkeypatch, capsys):
    model = small_model(own_datasets, CRAFTER, two_rounds)
    with pytest.raises(BadInput, match="of kind advice_model"):
        array_statistics(str(model))
    with pytest.raises(NotFound):
        array_statistics("nothing")
    with pytest.raises(ConfigError, match="dask"):
        array_statistics(str(two_rounds), dask="somewhere")
    monkeypatch.setattr("flows.cluster.cluster._SECONDS", 0.5)
    assert cli.main(["datasets", "show", str(two_rounds), "--dask", "tcp://127.0.0.1:9"]) == 4
    assert "no Dask scheduler answers" in capsys.readouterr().err
    for chunk in (own_datasets / "small.icechunk" / "chunks").iterdir():
        chunk.write_bytes(b"broken")
    with pytest.raises(CorruptArtifact, match="failed while reading statistics"):
        array_statistics(str(two_rounds))
    monkeypatch.setattr("lore_datasets.store.reader._MAX_CHUNKS", 0)
    with pytest.raises(CorruptArtifact, match="is cut into"):
        array_statistics(str(two_rounds))
