"""What an update asks of a device: one upload, then nothing from the host, and graphs that a compiler takes whole."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.launches import Launches, count, make_learner, records_for
from lore.envs.base import Step
from lore.fast.transfer import Download, pack, unpack, upload
from lore.training.player import Player

TINY = {"size": "tiny", "observation": "symbolic", "batch_size": 4, "sequence_length": 2, "horizon": 1}
MOST = {(4, 2): 1_720, (8, 2): 2_190}
"""Operations that a plain update of ``12m`` from pixels may start, by steps filtered and imagined."""


@pytest.mark.parametrize(("steps", "horizon"), MOST)
def test_an_update_starts_no_more_operations_than_it_did(steps, horizon):
    found = count(size="12m", batch_size=2 * steps, sequence_length=steps, horizon=horizon)
    assert 1_000 < found["started"] <= MOST[steps, horizon]


@pytest.mark.parametrize("paths", ["none", "BC"])
def test_an_update_is_one_upload_and_then_nothing_between_host_and_device(paths):
    found = count(paths, **TINY)
    assert found["handed_over"] == ["aten::_to_copy between host and device"]
    assert found["waits"] == []


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: float(x.sum()), lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: torch.tensor(3.0, device="meta"),
        lambda x: x + torch.ones(2).to("meta"), lambda x: x.cpu(), lambda x: x.copy_(torch.zeros(2)),
        lambda x: bool((x > 0).any()), lambda x: x.masked_select(x > 0), lambda x: x[[0, 1]],
    ],
)  # fmt: skip
def test_the_counter_sees_every_way_to_wait(wait):
    x = torch.ones(2, device="meta")
    with Launches().counting() as seen:
        try:
            wait(x)
        except (RuntimeError, NotImplementedError):  # a value, which meta tensors do not have
            seen.waits.append("no value")
    assert seen.waits


@pytest.mark.filterwarnings("ignore")
def test_both_halves_of_an_update_are_one_graph_each():
    import torch._dynamo

    learner = make_learner("BC", torch.device("cpu"), **TINY)
    inputs = learner.inputs(records_for(learner))
    forward = torch._dynamo.explain(learner.losses)(inputs)
    assert (forward.graph_count, forward.graph_break_count) == (1, 0), forward.break_reasons
    losses, scales, _, _ = learner.losses(inputs)
    learner.agent.imagination.backward(losses, scales)
    norm = learner.agent.actor_critic.norm
    behind = torch._dynamo.explain(learner.move)([(norm.low, norm.low.clone())])
    assert (behind.graph_count, behind.graph_break_count) == (1, 0), behind.break_reasons
    torch._dynamo.reset()


def test_a_batch_goes_as_one_piece_and_comes_out_as_it_was():
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (2, 3, 5), np.uint8), "reward": rng.normal(size=(2, 3)).astype(np.float32),
        "is_first": rng.random((2, 3)) < 0.5, "deter": rng.normal(size=(2, 1, 7)).astype(np.float16),
        "weight": np.float32(0.25), "action": rng.integers(0, 17, (2, 3)),
    }  # fmt: skip
    tensors = {name: torch.as_tensor(value) for name, value in batch.items()}
    buffer, places = pack(tensors)
    assert buffer.dtype == torch.uint8
    for name, value in unpack(buffer, places, tensors).items():
        assert value.dtype == tensors[name].dtype and torch.equal(value, tensors[name]), name
    there = upload(batch, torch.device("meta"))
    assert {n: (v.shape, v.dtype, v.device.type) for n, v in there.items()} == {
        n: (v.shape, v.dtype, "meta") for n, v in tensors.items()
    }
    assert all(np.array_equal(value, batch[name]) for name, value in Download(tensors).arrays().items())


def test_slots_change_in_place():
    learner = make_learner("C", torch.device("cpu"), **TINY)
    place = learner.slots.data_ptr()
    learner.set_slots(np.array([3, -1, 2, 0]))
    assert learner.slots.tolist() == [3, -1, 2, 0] and learner.slots.data_ptr() == place


@pytest.mark.parametrize("paths", ["none", "BC"])
def test_a_step_of_acting_is_one_copy_each_way_and_few_operations(paths, monkeypatch):
    learner = make_learner(paths, torch.device("cpu"), **TINY)
    step, sent = Step(np.zeros(104, np.uint8), None, 0.0, True, False, False, {}), []

    def think(device: str, seen: Launches) -> tuple:
        controller = SimpleNamespace(gate=learner.gate)
        player = Player(learner.agent.to(device), controller, 2, torch.device(device), None)  # type: ignore[arg-type]
        with torch.no_grad(), seen.counting():
            return player._think([step, step])

    def download(tensors):
        sent.append(dict(tensors))
        return SimpleNamespace(arrays=lambda: {n: np.zeros(v.shape) for n, v in tensors.items()})

    logits, signals, deter, stoch = think("cpu", Launches())
    assert (logits.dtype, deter.dtype, stoch.dtype) == (np.float32, np.float16, np.uint8)
    assert bool((signals > 0).any()) == (learner.gate is not None) and signals.shape == (2, 3)
    monkeypatch.setattr("lore.training.player.Download", download)
    seen = Launches()
    think("meta", seen)
    assert len(sent) == 1 and seen.waits == ["aten::_to_copy between host and device"]
    assert 50 < seen.started.total() <= 140
