import json

import numpy as np
import pytest
import torch

from lore.dreamer.world_model import unpack_latent
from lore.replay.ring import Replay, latent_fields, pack_latent
from lore_datasets.errors import BadInput, SchemeMismatch

FIELDS = {"t": ((), np.int64), "stream": ((), np.int64), "is_last": ((), np.bool_), **latent_fields(2, 3)}


def make(capacity: int = 100, streams: int = 1, length: int = 8, **options) -> Replay:
    return Replay(FIELDS, capacity, streams, length=length, **{"online": False} | options)


def fill(replay: Replay, steps: int, stream: int = 0, first: int = 0, is_last=lambda t: False) -> None:
    for t in range(first, first + steps):
        latent = {"deter": np.full(2, t % 100 / 100), "stoch": np.full(3, t % 4)}
        replay.add(stream, {"t": t, "stream": stream, "is_last": is_last(t), **latent})


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("steps", [60, 100, 137, 1003])
def test_windows_are_consecutive_and_never_cross_the_write_seam(steps):
    replay = make()
    fill(replay, steps)
    t = replay.sample(500, rng=seeded())["t"]
    assert (np.diff(t, axis=1) == 1).all()
    assert t.min() >= steps - min(steps, 100) and t.max() <= steps - 1
    assert {steps - min(steps, 100), steps - 8} <= set(t[:, 0].tolist()), "the oldest and the newest window both occur"


def test_starts_are_uniform_over_all_ages_of_all_streams():
    replay = make(capacity=120, streams=3)
    for stream, steps in enumerate((70, 9, 25)):  # 40 held (33 starts), 9 held (2), 25 held (18)
        fill(replay, steps, stream)
    batch = replay.sample(10_600, rng=seeded())
    starts, counts = np.unique(np.stack([batch["stream"][:, 0], batch["t"][:, 0]]), axis=1, return_counts=True)
    assert starts.shape[1] == replay.items() == 53
    chi2 = ((counts - 200.0) ** 2 / 200.0).sum()
    assert chi2 < 95, "99.9 % point of chi-square with 52 degrees of freedom"


def test_windows_cross_episode_ends_and_take_in_episodes_of_three_steps():
    replay = make()
    fill(replay, 60, is_last=lambda t: t % 3 == 2)
    batch = replay.sample(50, rng=seeded())
    assert (batch["is_last"].sum(1) >= 2).all()


def test_the_online_queue_hands_every_record_out_once_and_first():
    replay = make(online=True)
    fill(replay, 35)
    starts = replay.sample(4, rng=seeded())["t"][:, 0].tolist() + replay.sample(1, rng=seeded())["t"][:, 0].tolist()
    assert starts[:4] == [0, 8, 16, 24]
    assert not replay.queue


def test_an_overwritten_online_window_is_skipped():
    replay = make(capacity=20, online=True)
    fill(replay, 41)
    t = replay.sample(6, rng=seeded())["t"]
    assert (np.diff(t, axis=1) == 1).all() and t.min() >= 21
    assert t[:2, 0].tolist() == [24, 32]


@pytest.mark.parametrize("steps", [60, 137])
def test_latents_written_back_land_on_the_same_records(steps):
    replay = make()
    fill(replay, steps)
    batch = replay.sample(16, rng=seeded())
    trained = batch["t"][:, 1:].copy()
    deter = torch.from_numpy(np.stack([trained % 50 / 50, -(trained % 50) / 50], -1)).float()
    stoch = torch.nn.functional.one_hot(torch.from_numpy((trained + 1) % 4)[..., None].expand(-1, -1, 3), 4).float()
    replay.write_back(batch["indices"], deter, stoch)
    held = {int(t): i for i, t in enumerate(replay.arrays["t"][0])}
    for t in range(max(0, steps - 100), steps):
        row, fresh = held[t], t in trained
        sign = t % 50 / 50 if fresh else t % 100 / 100
        assert replay.arrays["deter"][0, row, 0] == pytest.approx(sign, abs=1e-3)
        assert (replay.arrays["stoch"][0, row] == ((t + 1) % 4 if fresh else t % 4)).all()


def test_the_context_record_is_not_written_back():
    replay = make()
    fill(replay, 8)
    batch = replay.sample(1, rng=seeded())
    replay.write_back(batch["indices"], np.full((1, 7, 2), -1, np.float16), np.full((1, 7, 3), 3, np.uint8))
    assert replay.arrays["deter"][0, :8, 0].tolist() == [0.0] + [-1.0] * 7


def test_records_overwritten_since_the_sample_are_left_alone():
    replay = make(capacity=20)
    fill(replay, 20)
    batch = replay.sample(64, rng=seeded())
    fill(replay, 10, first=20)
    kept = replay.arrays["deter"].copy()
    replay.write_back(batch["indices"], np.full((64, 7, 2), -1, np.float16), np.full((64, 7, 3), 3, np.uint8))
    changed = (replay.arrays["deter"] != kept).any(-1)[0]
    assert (replay.arrays["t"][0][changed] < 20).all() and changed.sum() == 10


def test_packed_latents_survive_to_half_precision():
    deter = torch.rand(4, 5, 2) * 2 - 1
    stoch = torch.nn.functional.one_hot(torch.randint(4, (4, 5, 3)), 4).float()
    packed = [value.numpy() for value in pack_latent(deter, stoch).values()]
    assert packed[0].dtype == np.float16 and packed[1].dtype == np.uint8
    latent = unpack_latent(torch.from_numpy(packed[0]), torch.from_numpy(packed[1]), 4)
    torch.testing.assert_close(latent.deter, deter, atol=5e-4, rtol=0)
    assert torch.equal(latent.stoch, stoch)


def test_previous_actions_of_a_window_are_those_of_the_records_before():
    replay = Replay({"action": ((), np.int64), **FIELDS}, 50, length=8, online=False)
    for t in range(30):
        replay.add(0, {"action": 1000 + t, "t": t, "stream": 0, "is_last": False, "deter": 0, "stoch": 0})
    batch = replay.sample(20, rng=seeded())
    assert (batch["action"][:, :-1] == 1000 + batch["t"][:, 1:] - 1).all()


def test_extra_fields_and_a_choice_of_fields():
    replay = Replay({"state": ((104,), np.uint8), "option": ((), np.int16), **FIELDS}, 50, length=4)
    for t in range(6):
        record = {"state": np.full(104, t), "option": -1, "t": t, "stream": 0, "is_last": False, "deter": 0, "stoch": 0}
        replay.add(0, record)
    batch = replay.sample(2, only=("state", "option"))
    assert set(batch) == {"state", "option", "indices"} and batch["state"].shape == (2, 4, 104)


def test_a_missing_field_is_an_error_and_does_not_advance_the_stream():
    replay = make()
    with pytest.raises(KeyError):
        replay.add(0, {"t": 1})
    assert len(replay) == 0


def test_the_last_two_batches_do_not_share_memory():
    replay = make()
    fill(replay, 60)
    one = replay.sample(8, rng=seeded(1))
    kept = one["t"].copy()
    other = replay.sample(8, rng=seeded(2))
    assert np.array_equal(one["t"], kept) and not np.shares_memory(one["t"], other["t"])


def test_an_empty_replay_and_one_too_small_say_so():
    with pytest.raises(BadInput, match="no window of 8"):
        make().sample(1)
    with pytest.raises(BadInput, match="does not hold one window"):
        make(capacity=20, streams=3)


@pytest.mark.parametrize("steps", [60, 137])
def test_a_restored_replay_samples_and_grows_exactly_as_the_original(steps, held):
    replay = make(online=True, seed=3)
    fill(replay, steps)
    replay.sample(4)
    arrays, cursors = held(replay), replay.cursors()
    other = make(online=True, seed=99)
    other.restore(arrays, json.loads(json.dumps(cursors)))
    assert len(other) == len(replay)
    for first in range(steps, steps + 60, 20):
        one, two = replay.sample(6), other.sample(6)
        assert all(np.array_equal(one[name], two[name]) for name in one)
        fill(replay, 20, first=first)
        fill(other, 20, first=first)


def test_a_replay_of_another_shape_is_refused(held):
    replay = make()
    fill(replay, 30)
    arrays, cursors = held(replay), replay.cursors()
    with pytest.raises(SchemeMismatch, match="100"):
        make(capacity=50).restore(arrays, cursors)
    other = Replay({**FIELDS, "deter": ((4,), np.float16)}, 100, length=8)
    with pytest.raises(SchemeMismatch, match="0/deter"):
        other.restore(arrays, cursors)
    assert len(other) == 0
