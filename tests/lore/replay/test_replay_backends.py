"""Where replay may live: three backends with the same records, and refusals before anything starts."""

import numpy as np
import pytest
import torch

from lore.config import load_config
from lore.replay import backends as replay_backends
from lore.replay.backends import BACKENDS, DeviceReplay, check_room, make_replay, records_kept
from lore.replay.ring import Replay
from lore.training.loop import train
from lore.training.records import read_jsonl
from lore_datasets.errors import ConfigError, SchemeMismatch

FIELDS = {
    "t": ((), np.int64), "image": ((2, 3), np.uint8), "reward": ((), np.float32), "is_last": ((), np.bool_),
    "deter": ((4,), np.float16), "stoch": ((3,), np.uint8),
}  # fmt: skip
SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0, "horizon": 5,
    "warmup": 5, "log_interval": 20, "threads": 1, "replay_capacity": 100, "env.length": 40, "env.area": (24, 24),
    "device": "cpu", "save_interval_s": 3600.0,
}  # fmt: skip


def made(name: str, folder, monkeypatch) -> Replay:
    monkeypatch.setenv("LORE_REPLAY_BACKEND", name)
    return make_replay(FIELDS, 40, 2, 5, length=9, folder=folder, device=torch.device("cpu"))


def record(stream: int, t: int) -> dict:
    return {
        "t": 100 * stream + t, "image": np.full((2, 3), t % 256), "reward": t / 2, "is_last": t % 5 == 4,
        "deter": np.full(4, t / 64, np.float32), "stoch": np.full(3, t % 4),
    }  # fmt: skip


def host(batch: dict) -> dict[str, np.ndarray]:
    """A batch copied to numpy arrays."""
    return {k: v.numpy().copy() if isinstance(v, torch.Tensor) else v.copy() for k, v in batch.items()}


def course(replay: Replay) -> list[dict[str, np.ndarray]]:
    """Batches of a replay that is filled past its capacity and whose latents are written back."""
    out = []
    for t in range(60):
        for stream in range(2):
            replay.add(stream, record(stream, t))
        if t >= 12:
            batch = replay.sample(3)
            out.append(host(batch))
            fresh = torch.full((3, 8, 4), t / 128), torch.nn.functional.one_hot(torch.full((3, 8, 3), t % 4), 4)
            replay.write_back(batch["indices"], *fresh)
    return out


@pytest.mark.parametrize("name", ["memmap", "device"])
def test_a_backend_gives_the_batches_that_memory_gives(name, tmp_path, monkeypatch, held):
    plain, other = made("tensor", tmp_path, monkeypatch), made(name, tmp_path, monkeypatch)
    for a, b in zip(course(plain), course(other), strict=True):
        assert a.keys() == b.keys()
        for field in a:
            assert a[field].dtype == b[field].dtype and np.array_equal(a[field], b[field]), field
    ours, theirs = held(plain), held(other)
    assert plain.cursors() == other.cursors()
    assert all(np.array_equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("name", BACKENDS)
def test_what_one_backend_saved_every_other_goes_on_with(name, tmp_path, monkeypatch, held):
    first = made("tensor", tmp_path / "a", monkeypatch)
    course(first)
    arrays, cursors = held(first), first.cursors()
    second = made(name, tmp_path / "b", monkeypatch)
    second.restore(arrays, cursors)
    for _ in range(3):
        a, b = host(first.sample(4)), host(second.sample(4))
        assert all(np.array_equal(a[k], b[k]) for k in a)
    with pytest.raises(SchemeMismatch):
        second.restore({k: v for k, v in arrays.items() if k != "0/t"}, cursors)


def test_memory_maps_lie_in_the_runs_folder_and_device_rings_are_tensors(tmp_path, monkeypatch):
    made("memmap", tmp_path, monkeypatch)
    assert {p.stem for p in (tmp_path / "replay").iterdir()} == set(FIELDS)
    replay = made("device", tmp_path, monkeypatch)
    assert isinstance(replay, DeviceReplay) and isinstance(replay.arrays["image"], torch.Tensor)


def test_a_run_is_the_same_on_every_backend(tmp_path, monkeypatch):
    rows = []
    for name in BACKENDS:
        monkeypatch.setenv("LORE_REPLAY_BACKEND", name)
        train(load_config(**SMALL, steps=40), tmp_path / name, tensorboard=False)
        train(load_config(**SMALL, steps=120), tmp_path / name, tensorboard=False)
        found = read_jsonl(tmp_path / name / "metrics.jsonl")
        rows.append([{k: v for k, v in row.items() if k != "fps/policy"} for row in found])
    assert rows[0] == rows[1] == rows[2]
    assert "loss/dyn" in rows[0][-1]


def test_an_unknown_backend_is_refused_by_name(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"tape.*tensor, memmap, device"):
        made("tape", tmp_path, monkeypatch)


def test_bytes_needed_are_those_of_the_arrays():
    replay = Replay(FIELDS, 40, 2, 0, length=9)
    assert Replay.bytes_needed(FIELDS, 40) == sum(a.nbytes for a in replay.arrays.values())


@pytest.mark.parametrize("name", BACKENDS)
def test_a_replay_that_does_not_fit_is_refused_before_the_start_naming_the_knob(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LORE_REPLAY_BACKEND", name)
    huge = load_config(**(SMALL | {"replay_capacity": 10**12, "steps": 10**13}))
    with pytest.raises(ConfigError, match=r"GiB.*train\.replay_capacity"):
        train(huge, tmp_path, tensorboard=False)
    assert not (tmp_path / "config.json").exists()


def test_replay_on_a_device_is_checked_for_the_rings_that_are_allocated_not_for_what_the_run_fills(
    tmp_path, monkeypatch
):
    config = load_config(**(SMALL | {"replay_capacity": 10**6, "steps": 1000}))
    monkeypatch.setattr(replay_backends, "free_memory", lambda: 10**6)
    check_room(config, {"t": ((), np.int64)}, tmp_path, torch.device("cpu"))
    monkeypatch.setenv("LORE_REPLAY_BACKEND", "device")
    with pytest.raises(ConfigError, match="1,000,000 records"):
        check_room(config, {"t": ((), np.int64)}, tmp_path, torch.device("cpu"))


def test_a_short_run_needs_no_room_for_a_capacity_that_it_never_fills():
    config = load_config(**(SMALL | {"replay_capacity": 10**9, "steps": 1000}))
    assert 1000 < records_kept(config) < 1200
    assert replay_backends.free_memory() > 2**20
