"""Train ratio, Crafter score, bootstrap, and the sink of numbers."""

import json
import sys
import time

import numpy as np
import pytest

from lore.training.clock import Ratio
from lore.training.metrics import Means, bootstrap_interval, crafter_score
from lore.training.records import read_jsonl
from lore.training.sinks import JsonLines, TensorBoard, open_sinks
from lore_datasets.errors import UsageError


def test_ratio_half_gives_one_then_an_update_every_second_step():
    ratio = Ratio(0.5)
    assert [ratio(step) for step in range(1, 11)] == [1, 0, 1, 0, 1, 0, 1, 0, 1, 0]


def test_ratio_carries_remainders_and_never_catches_up_at_the_start():
    ratio = Ratio(0.3)
    assert ratio(5_000) == 1
    assert sum(ratio(5_000 + n) for n in range(1, 1001)) in (299, 300)
    resumed = Ratio(0.3)
    resumed.load_state_dict(ratio.state_dict())
    assert [resumed(6_001 + n) for n in range(20)] == [ratio(6_001 + n) for n in range(20)]
    assert Ratio(0.0)(100) == 0


def test_crafter_score_of_the_two_worked_examples():
    assert crafter_score(np.array([100.0] * 10 + [0.0] * 12)) == pytest.approx(7.148, abs=1e-3)
    assert crafter_score(np.full(22, 50.0)) == pytest.approx(50.0)


def test_a_world_without_achievements_has_no_score_and_tensorboard_no_point(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert np.isnan(crafter_score(np.zeros(0)))
    board = TensorBoard(tmp_path)
    board.row(1, {"score": float("nan"), "return": 1.0})
    board.close()
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"] == ["return"]


def test_score_of_mean_rates_differs_from_the_mean_of_scores():
    a, b = np.array([100.0, 0.0]), np.array([0.0, 100.0])
    assert crafter_score((a + b) / 2) != pytest.approx((crafter_score(a) + crafter_score(b)) / 2)


def test_bootstrap_interval_covers_the_mean_and_narrows_with_data():
    rng = np.random.default_rng(0)
    few, many = rng.normal(3, 1, 10), rng.normal(3, 1, 1000)
    low, high = bootstrap_interval(few)
    assert low < few.mean() < high
    wide = high - low
    low, high = bootstrap_interval(many)
    assert high - low < wide / 5
    assert np.isnan(bootstrap_interval(np.zeros(0))[0])


def test_means_average_and_leave_out_what_is_not_finite():
    means = Means()
    means.add({"a": 1.0, "b": float("nan")})
    means.add({"a": 3.0})
    assert means.take() == {"a": 2.0}
    assert means.take() == {}


def test_sink_writes_tags_for_tensorboard_and_rows_for_readers(tmp_path):
    sink = open_sinks(tmp_path)
    sink.row(10, {"loss/policy": 0.5, "bad": float("inf")})
    sink.episode(12, {"episode": 1, "return": 2.0}, {"env/episode_return": 2.0})
    sink.animation("report/openloop", np.zeros((3, 8, 8, 3), np.uint8), 12)
    sink.close()
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 10, "loss/policy": 0.5}]
    assert read_jsonl(tmp_path / "episodes.jsonl")[0]["return"] == 2.0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss/policy", "env/episode_return"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["report/openloop"]


def test_resuming_a_sink_drops_rows_after_the_checkpoint_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s, "a": 1.0}) + "\n" for s in (10, 20, 30)) + '{"step": 4')
    sink = JsonLines(tmp_path, step=20)
    sink.row(25, {"a": 2.0})
    sink.close()
    assert [r["step"] for r in read_jsonl(path)] == [10, 20, 25]


def test_a_resumed_sink_keeps_the_rows_that_the_checkpoint_counted_even_where_steps_are_equal(tmp_path):
    sink = JsonLines(tmp_path)
    sink.episode(20, {"episode": 1}, {})
    counted = dict(sink.rows)
    sink.episode(20, {"episode": 2}, {})  # same step, but after the checkpoint: it will be played again
    sink.close()
    again = JsonLines(tmp_path, 20, counted)
    again.episode(20, {"episode": 2}, {})
    again.close()
    assert [r["episode"] for r in read_jsonl(tmp_path / "episodes.jsonl")] == [1, 2]
    assert again.rows == {"metrics.jsonl": 0, "episodes.jsonl": 2}


def test_tensorboard_shows_every_step_once_after_a_kill_and_a_resume(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer

    # Files of one second and process are read by the name of their counter: the tenth would come before the ninth.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))

    def write(sink, steps):
        for step in steps:
            sink.row(step, {"x": float(step)})
        sink.sync()

    def shown():
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        return [event.step for event in events.Scalars("x")]

    write(TensorBoard(tmp_path), (10, 20))  # killed before the first checkpoint
    write(TensorBoard(tmp_path), (10, 20, 30, 40, 50))  # killed after a checkpoint at 30
    write(TensorBoard(tmp_path, 30), (40, 50, 60))
    assert shown() == [10, 20, 30, 40, 50, 60]


def test_weights_and_biases_without_its_package_is_named_before_anything_is_written(tmp_path, monkeypatch):
    from lore.config import load_config
    from lore.training.loop import train

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"needs wandb; kept: nothing was started; next: pip install -e '.\[wandb\]'"):
        train(load_config(steps=10, wandb=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_weights_and_biases_gets_offline_what_a_checkpoint_kept_and_nothing_twice(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    sink = open_sinks(tmp_path, tensorboard=False, wandb={"seed": 7})
    sink.row(10, {"loss/policy": 0.125, "bad": float("nan")})
    sink.animation("report/openloop", np.zeros((3, 8, 8, 3), np.uint8), 10)
    sink.sync()
    sink.row(20, {"loss/policy": 0.375})  # after the checkpoint: the run is killed here
    sink.all[1].run.finish()
    sink.all[0].close()
    time.sleep(1.1)  # W&B names the folder of a part by the second
    again = open_sinks(tmp_path, 10, sink.rows | {"metrics.jsonl": 1}, tensorboard=False, wandb={"seed": 7})
    again.row(20, {"loss/policy": 0.5})
    again.episode(22, {"episode": 1}, {"env/episode_return": 3.25})
    again.close()
    first, second = (path.read_bytes() for path in sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb")))
    assert b"0.125" in first and b"0.375" not in first + second and b"0.5" in second and b"3.25" in second
    assert b"NaN" not in first and len(list(tmp_path.glob("wandb/offline-run-*/files/media/**/*.gif"))) == 1
    assert (tmp_path / "wandb" / "id.txt").read_text().encode() in first
    assert [row["loss/policy"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [0.125, 0.5]
