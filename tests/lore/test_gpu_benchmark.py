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


FAST = ["update_12m_eager_bf16", "acting_8", "replay", "streams_4", "advice_abc"]


@pytest.mark.parametrize("row", [*FAST, pytest.param("update_12m_compiled_tf32", marks=pytest.mark.slow)])
def test_every_row_without_processes_gives_a_figure_at_toy_size(row):
    out = gpu.ROWS[row](CPU)
    assert out["ms"] > 0 and json.loads(json.dumps(out)) == out
    if row.startswith("update"):
        assert out["minutes_per_million_steps_at_ratio_512"] > 0


def test_all_goes_on_where_it_stopped_and_names_the_rows_that_failed(tmp_path, monkeypatch, capsys):
    ran, figures = [], {"replay": {"ms": 1.0}, "acting_8": {"failed": "given up: took too long"}}
    monkeypatch.setattr(gpu, "_measured", lambda _setting, name, _left: ran.append(name) or figures[name])
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--tiny", "--rows", "replay", "acting_8", "--out", str(out)]
    assert gpu.main(words) == 1 and ran == ["replay", "acting_8"]
    assert "given up" in capsys.readouterr().out
    figures["acting_8"] = {"ms": 2.0}
    assert gpu.main(words) == 0 and ran[2:] == ["acting_8"]
    assert json.loads(out.read_text())["rows"] == figures
    assert gpu.main([*words, "--again"]) == 0 and ran[3:] == ["replay", "acting_8"]


@pytest.mark.slow
def test_a_row_that_fails_in_its_process_says_why(tmp_path):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--tiny", "--rows", "update_1m_graph_tf32", "--out", str(out)]) == 1
    assert "failed" in json.loads(out.read_text())["rows"]["update_1m_graph_tf32"]


def test_a_plain_update_with_replay_on_the_device_never_waits_for_the_device(monkeypatch):
    learner, replay = make_learner(CPU, "tiny", "f32"), make_replay(CPU, "tiny")

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
