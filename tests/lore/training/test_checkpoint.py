import json
import os

import numpy as np
import pytest
import torch

from lore.sizes import Size
from lore.training import checkpoint
from lore_datasets.errors import CorruptArtifact, NewerSchema, NoSpace, NotFound, SchemeMismatch

SMALL = Size(deter=64, hidden=16, classes=4, depth=4, units=32, stoch=8)
META = {"size": "1m", "observation": "pixels", "step": 7, "rng": {"state": 2**100}}


def tensors() -> dict:
    return {
        "weight": torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
        "half": torch.ones(4).bfloat16(),
        "count": torch.tensor(3.0, dtype=torch.float64),
        "frames": np.arange(48, dtype=np.uint8).reshape(2, 24)[:, ::2],
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float16),
    }


def flip(path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(bytes(data))


def test_everything_comes_back_bit_for_bit(tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    digest = checkpoint.save(path, tensors(), META)
    loaded, meta = checkpoint.load(path)
    assert meta == META and len(digest) == 64
    assert set(loaded) == set(tensors())
    for name, value in tensors().items():
        value = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        assert loaded[name].dtype == value.dtype and torch.equal(loaded[name], value), name


def test_the_same_content_has_the_same_digest_and_one_bit_more_another(tmp_path):
    one = checkpoint.save(tmp_path / "a", tensors(), META)
    assert checkpoint.save(tmp_path / "b", tensors(), META) == one
    assert checkpoint.save(tmp_path / "b", tensors() | {"count": torch.tensor(4.0)}, META) != one
    assert checkpoint.save(tmp_path / "b", tensors(), META | {"step": 8}) != one


def test_the_one_before_is_kept_and_no_temporary_file_stays(tmp_path):
    path = tmp_path / "model"
    for step in range(3):
        checkpoint.save(path, {"x": torch.full((2,), float(step))}, {"step": step})
    assert checkpoint.load(path)[1]["step"] == 2
    assert checkpoint.load(checkpoint.previous_path(path))[1]["step"] == 1
    assert sorted(os.listdir(tmp_path)) == ["model", "model.previous"]


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_file_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "model"
    checkpoint.save(path, tensors(), META)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CorruptArtifact, match="model"):
        checkpoint.load(path)


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    path = tmp_path / "model"
    checkpoint.save(path, tensors(), META)
    whole = path.read_bytes()
    for position in [*range(0, len(whole), 7), len(whole) - 1]:
        flip(path, position)
        with pytest.raises(CorruptArtifact):
            checkpoint.load(path)
        path.write_bytes(whole)
    assert checkpoint.load(path)[1] == META


def test_falling_back_to_the_one_before_only_when_told_so(tmp_path):
    path = tmp_path / "model"
    for step in range(2):
        checkpoint.save(path, tensors(), META | {"step": step})
    flip(path, path.stat().st_size - 1)
    with pytest.raises(CorruptArtifact) as refused:
        checkpoint.load(path)
    assert refused.value.kept == "model.previous"
    assert checkpoint.load(path, fall_back=True)[1]["step"] == 0
    path.unlink()
    assert checkpoint.load(path, fall_back=True)[1]["step"] == 0


def test_a_checkpoint_of_another_size_or_observation_names_what_does_fit(tmp_path):
    path = tmp_path / "model"
    checkpoint.save(path, tensors(), META)
    assert checkpoint.load(path, {"size": "1m"})[1]["step"] == 7
    with pytest.raises(SchemeMismatch, match="size 1m; this run has size 12m") as refused:
        checkpoint.load(path, {"size": "12m", "observation": "pixels"})
    assert refused.value.hint == "it fits size 1m, observation pixels"


def test_a_newer_schema_is_refused_even_when_an_older_file_could_stand_in(tmp_path, monkeypatch):
    path = tmp_path / "model"
    checkpoint.save(path, tensors(), META)
    with monkeypatch.context() as newer:
        newer.setattr(checkpoint, "SCHEMA", 99)
        checkpoint.save(path, tensors(), META)
    with pytest.raises(NewerSchema, match="99"):
        checkpoint.load(path, fall_back=True)


def test_a_missing_checkpoint_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        checkpoint.load(tmp_path / "none")


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "foreign")
    with pytest.raises(CorruptArtifact):
        checkpoint.load(tmp_path / "foreign")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_keeps_the_checkpoint_before_and_leaves_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "model"
    checkpoint.save(path, tensors(), META)

    def full(descriptor: int) -> None:
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace):
        checkpoint.save(path, tensors(), META | {"step": 8})
    assert os.listdir(tmp_path) == ["model"] and checkpoint.load(path)[1] == META


def test_nothing_but_json_and_safetensors_is_in_the_file(tmp_path):
    path = tmp_path / "model"
    checkpoint.save(path, tensors(), META)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert set(header["__metadata__"]) == {"lore", "sha256"}
    with pytest.raises(TypeError):
        checkpoint.save(path, {}, {"object": object()})


def test_tensors_that_share_memory_are_saved_apart(tmp_path):
    base = torch.arange(6.0)
    checkpoint.save(tmp_path / "model", {"whole": base, "part": base[2:4], "same": base}, {})
    loaded, _ = checkpoint.load(tmp_path / "model")
    assert torch.equal(loaded["whole"], base) and loaded["part"].tolist() == [2.0, 3.0]
    assert torch.equal(loaded["same"], base)


def test_what_killed_saves_left_is_removed_and_both_checkpoints_stay(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, tensors(), META)
    checkpoint.save(path, tensors(), META)
    for left in (".c.safetensors.123-0.tmp", ".c.safetensors.previous.123-1.tmp", ".other.safetensors.9-0.tmp"):
        (tmp_path / left).write_bytes(b"half")
    checkpoint.clean(path)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, path.name + ".previous", ".other.safetensors.9-0.tmp"}
    assert checkpoint.load(path)[1] == META
