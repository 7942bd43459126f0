"""A save writes what is new; replay comes back whole, whatever was written over, refreshed or damaged."""

import json
import os
import threading

import numpy as np
import pytest
import torch

from lore.replay.backends import DeviceReplay
from lore.replay.ring import Replay, latent_fields
from lore.training import checkpoint, saver, segments
from lore.training.saver import Saver
from lore_datasets.errors import CorruptArtifact, LoreError, NoSpace

FIELDS = {"state": ((3,), np.uint8), "action": ((), np.int64), "is_last": ((), np.bool_), **latent_fields(4, 2)}


def ring(kind="tensor", capacity=140, streams=2):
    if kind == "device":
        return DeviceReplay(FIELDS, capacity, streams, 0, length=4, device=torch.device("cpu"))
    return Replay(FIELDS, capacity, streams, 0, length=4)


def grow(replay, steps, rng):
    for _ in range(steps):
        for stream in range(replay.streams):
            replay.add(stream, {
                "state": rng.integers(0, 256, 3), "action": rng.integers(9), "is_last": rng.random() < 0.1,
                "deter": rng.normal(size=4), "stoch": rng.integers(0, 4, 2),
            })  # fmt: skip


def refresh(replay, rng, batch=3):
    sample = replay.sample(batch)
    deter, stoch = rng.normal(size=(batch, 3, 4)).astype(np.float16), rng.integers(0, 4, (batch, 3, 2)).astype(np.uint8)
    replay.write_back(sample["indices"], deter, stoch)


def saved(folder, replay, writer, *, is_beside=False):
    writer.save({"w": torch.ones(2)}, {"replay": replay.cursors()}, replay, is_beside=is_beside)
    writer.finish()


def replayed(folder, name="checkpoint"):
    tensors, meta = checkpoint.load(folder / name, has_replay=True)
    return {k.removeprefix("replay/"): v.numpy() for k, v in tensors.items() if k.startswith("replay/")}, meta


@pytest.mark.parametrize("kind", ["tensor", "device"])
def test_replay_comes_back_bit_for_bit_while_the_ring_turns_and_latents_are_refreshed(tmp_path, kind, held):
    rng, replay, writer = np.random.default_rng(0), ring(kind), Saver(tmp_path / "checkpoint", 9.0)
    before, most = None, 0
    for turn in range(75):
        grow(replay, int(rng.integers(0, 9)), rng)
        if replay.items(4) > 3 and turn % 3:
            refresh(replay, rng)
        saved(tmp_path, replay, writer, is_beside=bool(turn % 2))
        found, meta = replayed(tmp_path)
        wanted = held(replay)
        assert found.keys() == wanted.keys() and all(np.array_equal(found[k], wanted[k]) for k in wanted), turn
        if before is not None:  # the checkpoint before it is whole too
            last = replayed(tmp_path, "checkpoint.previous")[0]
            assert all(np.array_equal(last[k], before[k]) for k in before)
        before, most = wanted, max(most, len(os.listdir(tmp_path / segments.FOLDER)))
        if turn == 40:  # as a new process goes on
            writer = Saver(tmp_path / "checkpoint", 9.0)
            writer.restored(meta, is_same=True)
    assert int(replay.written.min()) > 2 * replay.slots and most <= 2 * segments.SLICES + 40
    assert not [name for name in os.listdir(tmp_path / segments.FOLDER) if name.startswith(".")]


def test_a_save_costs_the_same_at_any_step_once_the_ring_is_full():
    rng, replay = np.random.default_rng(0), ring(capacity=6400, streams=1)
    kept, sizes = segments.Segments("nowhere"), []
    for _ in range(40):
        grow(replay, 320, rng)
        refresh(replay, rng, batch=8)
        sizes.append(kept.draft(replay)[2])
    whole = Replay.bytes_needed(FIELDS, replay.slots)
    assert max(sizes[20:]) < 1.15 * min(sizes[20:]) and max(sizes[20:]) < 0.15 * whole


def test_a_replay_that_was_relabelled_or_came_from_an_older_file_is_written_whole(tmp_path, held):
    rng, replay = np.random.default_rng(0), ring()
    grow(replay, 100, rng)
    other = ring()
    arrays = held(replay)
    other.restore(arrays, json.loads(json.dumps(replay.cursors())))
    saved(tmp_path, other, Saver(tmp_path / "checkpoint", 9.0))
    found = replayed(tmp_path)[0]
    assert all(np.array_equal(found[k], v) for k, v in arrays.items())


@pytest.mark.parametrize("harm", ["flipped", "cut", "missing"])
def test_a_damaged_segment_is_named_and_the_checkpoint_before_stands_in(tmp_path, harm, caplog):
    rng, replay, writer = np.random.default_rng(0), ring(), Saver(tmp_path / "checkpoint", 9.0)
    for _ in range(2):
        grow(replay, 10, rng)
        saved(tmp_path, replay, writer)
    last = sorted((tmp_path / segments.FOLDER).glob("segment-*"))[-1]
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 4
    last.write_bytes(data if harm == "flipped" else data[:-1])
    if harm == "missing":
        last.unlink()
    with pytest.raises(CorruptArtifact, match=last.name):
        checkpoint.load(tmp_path / "checkpoint", has_replay=True)
    _, meta = checkpoint.load(tmp_path / "checkpoint", has_replay=True, fall_back=True, sets_aside=True)
    assert meta["replay"]["written"] == [10, 10]
    assert "going on from the one before it" in caplog.text and last.name in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["checkpoint.damaged", "checkpoint.previous"]


def test_files_of_others_in_the_folder_stay(tmp_path):
    rng, replay, writer = np.random.default_rng(0), ring(), Saver(tmp_path / "checkpoint", 9.0)
    (tmp_path / segments.FOLDER).mkdir()
    for name in ("mine.safetensors", "segment-1.safetensors", ".segment-00000009.safetensors.1-2.tmp"):
        (tmp_path / segments.FOLDER / name).touch()
    grow(replay, 10, rng)
    saved(tmp_path, replay, writer)
    left = set(os.listdir(tmp_path / segments.FOLDER))
    assert {"mine.safetensors", "segment-1.safetensors"} < left and not any(name.startswith(".") for name in left)


def test_training_goes_on_beside_a_save_and_what_changes_meanwhile_is_not_in_it(tmp_path, monkeypatch, held):
    rng, replay, writer = np.random.default_rng(0), ring(), Saver(tmp_path / "checkpoint", 9.0)
    go, write = threading.Event(), segments.write
    monkeypatch.setattr(segments, "write", lambda *words: (go.wait(20), write(*words)))
    grow(replay, 10, rng)
    weight, meta, wanted = torch.zeros(3), {"replay": replay.cursors(), "list": [1]}, held(replay)
    writer.save({"w": weight}, meta, replay, is_beside=True)
    assert not writer.is_due() and not (tmp_path / "checkpoint").exists()
    weight += 1.0
    meta["list"].append(2)
    grow(replay, 70, rng)  # over what is being written
    go.set()
    writer.finish()
    tensors, told = checkpoint.load(tmp_path / "checkpoint", has_replay=True)
    assert tensors["w"].tolist() == [0.0, 0.0, 0.0] and told["list"] == [1]
    assert all(np.array_equal(tensors[f"replay/{k}"].numpy(), v) for k, v in wanted.items())


@pytest.mark.parametrize(("number", "error"), [(28, NoSpace), (122, NoSpace), (27, NoSpace), (5, LoreError)])
@pytest.mark.parametrize("is_beside", [False, True])
def test_a_disk_that_fails_is_named_and_the_last_checkpoint_stays_whole(
    tmp_path, monkeypatch, number, error, is_beside
):
    rng, replay, writer = np.random.default_rng(0), ring(), Saver(tmp_path / "checkpoint", 0.001)
    grow(replay, 10, rng)
    saved(tmp_path, replay, writer)
    grow(replay, 10, rng)

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", fail)
        with pytest.raises(error, match=r"checkpoint|segment"):
            saved(tmp_path, replay, writer, is_beside=is_beside)
    assert replayed(tmp_path)[1]["replay"]["written"] == [10, 10]
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_next_save_waits_a_hundred_times_as_long_as_the_last_one_took(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(saver.time, "monotonic", lambda: clock[0])
    replay, writer = ring(), Saver(tmp_path / "checkpoint", 0.0)
    write, due = segments.write, []
    for took in (0.1, 2.0, 60.0):
        monkeypatch.setattr(
            segments, "write", lambda *words, t=took: (clock.__setitem__(0, clock[0] + t), write(*words))
        )
        saved(tmp_path, replay, writer)
        ended = clock[0]
        while not writer.is_due():
            clock[0] += 1.0
        due.append(clock[0] - ended)
    assert due == pytest.approx([30.0, 200.0, 900.0])
