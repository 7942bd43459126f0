"""How many slots the network has: as many as the version has skills, or as many as are asked for."""

import pytest

from lore.config import load_config, replace
from lore.options.slots import with_slots
from lore.training.loop import train
from lore.training.policy import load_policy
from lore.training.run import Training
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice

CRAFTER = get_environment("crafter")
FEW = CRAFTER.skills[:9]


def config(ref: str, frames: int = 60, slots: int | None = 0):
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0,
        "horizon": 3, "threads": 1, "replay_capacity": 500, "steps": frames, "dataset": ref, "log_interval": 20,
        "device": "cpu", "train.save_interval_s": 3600.0, "options.enabled": True, "env.length": 50,
    }  # fmt: skip
    return load_config(**(small | ({} if slots is None else {"options.max_options": slots})))


def test_slots_follow_the_library_and_keep_their_number_when_the_library_grows(tmp_path, own_datasets, digest):
    first = str(small_advice(own_datasets, CRAFTER, n=20, name="lib", skills=FEW))
    train(config(first), tmp_path / "straight", tensorboard=False)
    for frames in (30, 60):
        train(config(first, frames), tmp_path / "pieces", tensorboard=False)
    assert digest(tmp_path / "straight") == digest(tmp_path / "pieces")
    policy = load_policy(tmp_path / "pieces", 1)
    assert policy.config.options.max_options == len(FEW) == len(policy.slots.skill)
    assert sorted(policy.slots.skill.tolist()) == list(range(len(FEW)))
    more = str(small_advice(own_datasets, CRAFTER, n=20, seed=1, name="lib", skills=CRAFTER.skills))
    assert Store(own_datasets).resolve("lib").version == 2
    train(config(more, 80), tmp_path / "pieces", tensorboard=False)  # goes on with the network that it has
    again = load_policy(tmp_path / "pieces", 1)
    assert (len(again.skills), len(again.slots.skill)) == (len(CRAFTER.skills), len(FEW))


def test_more_slots_than_skills_are_refused_where_they_are_asked_for(tmp_path, own_datasets):
    ref = str(small_advice(own_datasets, CRAFTER, n=20, skills=FEW[:3]))
    with pytest.raises(ConfigError, match=r"max_options = 26, but .* 3 skills") as caught:
        train(config(ref, slots=26), tmp_path / "run", tensorboard=False)
    assert "0 for one slot per skill" in caught.value.hint
    assert not (tmp_path / "run" / "config.json").exists()
    default = Training(config(ref, slots=None), tmp_path / "default")
    assert default.policy.slots.active == 3 and len(default.policy.slots.skill) == 8


def test_a_run_goes_on_with_the_smaller_library_of_an_earlier_version(tmp_path, own_datasets):
    fewer = str(small_advice(own_datasets, CRAFTER, n=20, name="lib", skills=FEW[:4]))
    whole = str(small_advice(own_datasets, CRAFTER, n=20, seed=1, name="lib", skills=FEW))
    train(config(whole, 30, slots=len(FEW)), tmp_path, tensorboard=False)
    train(config(fewer, 60, slots=len(FEW)), tmp_path, tensorboard=False)
    policy = load_policy(tmp_path, 1)
    assert (policy.slots.skill >= 0).sum() <= 4 and len(policy.slots.skill) == len(FEW)


def test_a_version_without_skills_serves_every_path_but_options(tmp_path, own_datasets):
    ref = str(small_advice(own_datasets, CRAFTER, n=20, skills=()))
    paths = {"gate.enabled": True, "synthetic.enabled": True, "options.enabled": False, "options.max_options": 8}
    with_paths = replace(config(ref, slots=None), **paths)
    assert train(with_paths, tmp_path / "run", tensorboard=False)["step"] == 60
    with pytest.raises(ConfigError, match="has no skills"):
        train(config(ref), tmp_path / "options", tensorboard=False)


def test_more_skills_than_a_network_has_slots_need_a_number():
    with pytest.raises(ConfigError, match="has 65 skills, and a network at most 64 slots"):
        with_slots(config("lib@v1"), 65)
    assert with_slots(config("lib@v1", slots=8), 65).options.max_options == 8


@pytest.mark.parametrize("slots", [-1, 65])
def test_a_number_of_slots_that_no_network_has_is_refused_by_name(slots):
    with pytest.raises(ConfigError, match=r"options\.max_options"):
        load_config(**{"options.max_options": slots})
