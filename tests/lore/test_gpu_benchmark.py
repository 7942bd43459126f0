"""The GPU benchmark's path at toy sizes on a CPU, and what it relies on: an update that never waits for the device."""

import json

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import Setting, make_learner, make_replay, random_batch

CPU = Setting("cpu", True)


def test_without_a_cuda_device_it_says_so_and_measures_nothing(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert gpu.main(["--all"]) == 3
    assert "no CUDA device" in capsys.readouterr().out


@pytest.mark.parametrize("row", ["update_12m", "policy_8", "replay", "advice_abc"])
def test_every_row_without_processes_gives_a_figure_at_toy_size(row):
    out = gpu.ROWS[row](CPU)
    assert out["ms"] > 0 and json.loads(json.dumps(out)) == out
    if row.startswith("update"):
        assert out["minutes_per_million_steps_at_ratio_512"] > 0


@pytest.mark.slow
def test_a_row_that_fails_is_named_in_the_table_and_leaves_the_others_alone(tmp_path, capsys):
    assert (
        gpu.main(["--device", "cpu", "--tiny", "--rows", "update_1m_graph", "--out", str(tmp_path / "gpu.json")]) == 1
    )
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert "failed" in rows["update_1m_graph"]
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("update_1m_graph") and "ms" not in last.split("target")[0][:40]


def test_a_plain_update_with_replay_on_the_device_never_waits_for_the_device(monkeypatch):
    learner, replay = make_learner(CPU, "tiny", False), make_replay(CPU, "tiny")

    def refuse(*_args, **_kwargs):
        raise AssertionError("a value crossed to the host")

    records = replay.sample(CPU.sequences)
    before = [p.detach().clone() for p in learner.agent.parameters()]
    for name in ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for _ in range(2):
        learner.update(records)
    monkeypatch.undo()
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.agent.parameters(), strict=True))


def test_batches_of_noise_have_the_fields_of_every_advice_path():
    batch = random_batch(CPU, "tiny")
    assert {"proposals", "plan", "held", "ended", "skill", "image", "deter", "stoch"} <= set(batch)
    assert batch["stoch"].max() < 4 and batch["plan"].min() >= -1
