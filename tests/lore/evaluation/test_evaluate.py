"""Which worlds, how many episodes and which advice an evaluation is about."""

import json
from functools import partial

import pytest

from lore.config import load_config
from lore.envs.base import EVALUATION, make_env
from lore.envs.crafter.adapter import CrafterEnv
from lore.envs.crafter.world import OrderedWorld
from lore.envs.vector import VectorEnv
from lore.evaluation.evaluate import evaluate, play_episodes
from lore.training.loop import train
from lore.training.policy import Policy
from lore.training.records import read_jsonl
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, SchemeMismatch
from lore_datasets.exchange.hdf5 import export_hdf5
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice

CRAFTER = get_environment("crafter")


def config(**more):
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 1.0,
        "horizon": 3, "threads": 1, "replay_capacity": 500, "env.length": 25, "env.area": (16, 16), "steps": 30,
        "device": "cpu", "save_interval_s": 3600.0,
    }  # fmt: skip
    return load_config(**(small | more))


def test_every_environment_gives_its_share_of_the_episodes_however_short_they_are():
    policy = Policy(config(num_envs=2))
    games = [partial(CrafterEnv, seed, (16, 16), length, False) for seed, length in ((1, 4), (2, 30))]
    policy.make_envs = lambda: VectorEnv(games)
    found = play_episodes(policy, 5)
    assert found["episodes"] == 5
    assert found["length_mean"] == pytest.approx((3 * 4 + 2 * 30) / 5)


def test_no_world_of_an_evaluation_is_one_of_a_training_whatever_its_seed(monkeypatch):
    first = []
    for is_training in (True, False):
        envs = Policy(config(), is_training=is_training).make_envs()
        first.append([step.state.tobytes() for _ in range(3) for step in envs.reset()])
    assert not set(first[0]) & set(first[1])
    seeds, reset = [], OrderedWorld.reset
    monkeypatch.setattr(OrderedWorld, "reset", lambda self, seed=None: (seeds.append(seed), reset(self, seed)))
    for for_evaluation in (False, True):
        env = make_env(config().env, 3, for_evaluation=for_evaluation)
        for _ in range(10):
            env.reset()
    of_each = [seed for seed in seeds if seed is not None]
    assert max(of_each[:10]) < EVALUATION <= min(of_each[10:]) and len(of_each) == 20


def test_the_episode_that_ends_with_the_budget_is_counted_once(tmp_path):
    summary = train(config(steps=50), tmp_path, tensorboard=False)
    rows = read_jsonl(tmp_path / "episodes.jsonl")
    assert summary["episodes"] == len(rows) and [(r["step"], r["length"]) for r in rows] == [(25, 25), (50, 25)]
    assert train(config(steps=75), tmp_path, tensorboard=False)["episodes"] == 3
    assert [r["step"] for r in read_jsonl(tmp_path / "episodes.jsonl")] == [25, 50, 75]


def test_a_run_is_judged_with_the_version_that_it_learned_from(tmp_path, own_datasets):
    first = str(small_advice(own_datasets, CRAFTER, n=30))
    name = first.split("@")[0]
    train(config(dataset=name, **{"gate.enabled": True}), tmp_path, tensorboard=False)
    second = str(small_advice(own_datasets, CRAFTER, n=40))
    assert second.split("@")[0] == name and second != first
    assert evaluate(tmp_path, 1)["advice"] == first


def test_an_export_is_found_from_another_folder_and_refused_when_it_is_another_version(
    tmp_path, own_datasets, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    store, ref = Store(own_datasets), small_advice(own_datasets, CRAFTER, n=30)
    export_hdf5(store, ref, tmp_path / "advice.h5")
    train(config(dataset="advice.h5", **{"gate.enabled": True}), tmp_path / "run", tensorboard=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate(tmp_path / "run", 1)["advice"] == str(ref)
    dataset = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["advice"]["dataset"]
    assert dataset == str(tmp_path / "advice.h5")
    (tmp_path / "advice.h5").unlink()
    export_hdf5(store, small_advice(own_datasets, CRAFTER, n=40), tmp_path / "advice.h5")
    with pytest.raises(SchemeMismatch, match="learned from") as caught:
        evaluate(tmp_path / "run", 1)
    assert str(ref) in caught.value.message and caught.value.hint


def test_a_run_that_cannot_be_written_is_named_before_an_episode_is_played(tmp_path, monkeypatch):
    train(config(), tmp_path / "run", tensorboard=False)
    (tmp_path / "run" / "evaluation.json").mkdir()
    monkeypatch.setattr("lore.evaluation.evaluate.play_episodes", lambda *a: pytest.fail("it played"))
    with pytest.raises(BadInput, match=r"evaluation\.json is a folder"):
        evaluate(tmp_path / "run", 1)
