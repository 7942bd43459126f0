"""Training runs: resume to the bit, stop signals, refusals, evaluation, and what a run leaves on disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from operator import attrgetter

import numpy as np
import pytest
import torch

from lore.config import Config, load_config
from lore.evaluation.evaluate import evaluate
from lore.training import checkpoint, segments
from lore.training.agent import resolve_device
from lore.training.folder import CHECKPOINT, CONFIG
from lore.training.loop import train
from lore.training.policy import load_policy
from lore.training.records import read_jsonl
from lore.training.run import Training
from lore_datasets.atomic import held
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, Busy, ConfigError, CorruptArtifact, Diverged, NotFound
from lore_datasets.testing import small_advice

SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0, "horizon": 5,
    "learning_rate": 1e-3, "warmup": 5, "log_interval": 20, "threads": 1, "replay_capacity": 2000, "env.length": 60,
    "train.save_interval_s": 3600.0,
}  # fmt: skip


@pytest.fixture
def advice(own_datasets) -> str:
    return str(small_advice(own_datasets, get_environment("crafter"), n=40))


def config(frames: int, advice: str = "", **more) -> Config:
    paths = {}
    if advice:
        paths = {
            "dataset": advice,
            "gate.enabled": True,
            "synthetic.enabled": True,
            "options.enabled": True,
        }
        paths |= {"synthetic.warmup_updates": 2, "hold": 4}
    return load_config(**(SMALL | {"steps": frames} | paths | more))


def test_a_checkpoint_that_an_older_release_wrote_goes_on_bit_equal(tmp_path, monkeypatch, digest):
    train(config(90, ""), tmp_path / "straight", tensorboard=False)
    train(config(45, ""), tmp_path / "older", tensorboard=False)
    tensors, meta = checkpoint.load(tmp_path / "older" / CHECKPOINT, has_replay=True)
    del meta["segments"]
    with monkeypatch.context() as before:
        before.setattr(checkpoint, "SCHEMA", 1)
        checkpoint.save(tmp_path / "older" / CHECKPOINT, tensors, meta)
    shutil.rmtree(tmp_path / "older" / segments.FOLDER)
    train(config(90, ""), tmp_path / "older", tensorboard=False)
    assert digest(tmp_path / "straight") == digest(tmp_path / "older")


def test_a_lost_checkpoint_and_rows_of_something_else_are_refused_and_nothing_is_deleted(tmp_path):
    run, foreign = tmp_path / "run", tmp_path / "foreign"
    train(config(45, ""), run, tensorboard=False)
    rows = (run / "metrics.jsonl").read_bytes()
    for path in run.glob("checkpoint.*"):
        path.unlink()
    with pytest.raises(CorruptArtifact, match="lost its checkpoint"):
        train(config(90, ""), run, tensorboard=False)
    foreign.mkdir()
    (foreign / "metrics.jsonl").write_text("another program's\n")
    with pytest.raises(BadInput, match=r"metrics\.jsonl and no run"):
        train(config(45, ""), foreign, tensorboard=False)
    assert (run / "metrics.jsonl").read_bytes() == rows
    assert (foreign / "metrics.jsonl").read_text() == "another program's\n"


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "episodes.jsonl"])
def test_a_damaged_line_stops_the_resume_and_nothing_after_it_is_lost(tmp_path, name):
    train(config(90, "", **{"env.length": 20}), tmp_path, tensorboard=False)
    lines = (tmp_path / name).read_text().splitlines(keepends=True)
    assert len(lines) > 2
    damaged = "".join([lines[0], "{" + lines[1], *lines[2:]])
    (tmp_path / name).write_text(damaged)
    with pytest.raises(CorruptArtifact, match=name):
        train(config(120, "", **{"env.length": 20}), tmp_path, tensorboard=False)
    assert (tmp_path / name).read_text() == damaged


@pytest.mark.parametrize("paths", [False, True], ids=["plain", "all-paths"])
def test_stopping_and_resuming_ends_bit_equal_to_the_undisturbed_run(tmp_path, advice, paths, digest):
    ref = advice if paths else ""
    train(config(160, ref), tmp_path / "straight", tensorboard=False)
    for frames in (45, 90, 160):
        train(config(frames, ref), tmp_path / "pieces", tensorboard=False)
    assert digest(tmp_path / "straight") == digest(tmp_path / "pieces")
    rows = [[{k: v for k, v in r.items() if k != "fps/policy"} for r in read_jsonl(tmp_path / d / "metrics.jsonl")]
            for d in ("straight", "pieces")]  # fmt: skip
    assert [r["step"] for r in rows[0]] == [r["step"] for r in rows[1]]
    assert read_jsonl(tmp_path / "straight" / "episodes.jsonl") == read_jsonl(tmp_path / "pieces" / "episodes.jsonl")


def plain_update(run: Training, records: dict) -> None:
    """One update of DreamerV3 alone: no path, no hook."""
    from lore.dreamer.losses import Paths, loss
    from lore.dreamer.types import Noise

    agent, generator, train = run.policy.agent, run.learner.generator, run.config.train
    model, critic = agent.world_model, agent.actor_critic
    batch, start = model.split_context({k: torch.from_numpy(v) for k, v in records.items() if k != "indices"})
    (rows, steps), stoch = batch["reward"].shape, model.size.stoch
    shapes = (steps, rows, stoch), (train.horizon + 1, 1, rows * steps), (train.horizon, rows * steps, stoch)
    uniform, *numbers = (torch.rand(shape, generator=generator) for shape in shapes)
    noise = Noise(*numbers)
    found = loss(
        model, critic, agent.imagination, batch, start, uniform, paths=Paths.none(critic, noise), entropy=train.entropy
    )  # fmt: skip
    run.learner.optimiser.zero_grad()
    agent.imagination.backward(found.losses, found.scales)
    run.learner.optimiser.step()
    critic.update_slow()


def test_with_every_path_off_the_learner_is_bit_equal_to_the_plain_learner(tmp_path, advice):
    off = config(200, dataset=advice, **{"gate.weights": (0.2, 0.2, 0.6), "gate.hold": 3})
    runs = [Training(off, tmp_path / "paths-off"), Training(config(200), tmp_path / "plain")]
    for run in runs:
        run.steps = run.envs.reset()
    assert (
        runs[0].policy.agent.ensemble is None
        and runs[0].policy.agent.heads is None
        and runs[0].learner.synthetic is None
    )
    assert runs[0].policy.gate is None and runs[0].policy.source is None
    for step in range(70):
        for run in runs:
            actions, records = run.policy.act(run.steps)
            run.replay.add(0, records[0])
            run.steps = run.envs.step(actions)
        if step >= 45 and step % 5 == 0:
            batches = [run.replay.sample(run.config.train.sequences) for run in runs]
            assert all(np.array_equal(batches[0][k], batches[1][k]) for k in batches[0])
            runs[0].learner.update(batches[0])
            plain_update(runs[1], batches[1])
    states = [run.policy.agent.state_dict() for run in runs]
    assert set(states[0]) == set(states[1])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    for part in ("learner", "policy.player"):
        first, second = (attrgetter(part)(run).generator.get_state() for run in runs)
        assert torch.equal(first, second), f"{part} drew other random numbers"


def test_another_seed_is_another_run(tmp_path, digest):
    train(config(60), tmp_path / "a", tensorboard=False)
    train(config(60, **{"train.seed": 1}), tmp_path / "b", tensorboard=False)
    assert digest(tmp_path / "a") != digest(tmp_path / "b")


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    words = [f"--{name}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "lore.main", "--folder", str(tmp_path / "run"), "--steps=100000", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    try:
        while not (tmp_path / "run" / "metrics.jsonl").exists() or not read_jsonl(tmp_path / "run" / "metrics.jsonl"):
            assert child.poll() is None and time.monotonic() - began < 90, child.communicate()
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 143
    assert "goes on from there" in errors
    stopped = read_jsonl(tmp_path / "run" / "progress.jsonl")[-1]["step"]
    assert stopped > 0
    summary = train(config(stopped + 20), tmp_path / "run", tensorboard=False)
    assert summary["step"] == stopped + 20


def test_a_run_leaves_its_files_and_the_originals_tags(tmp_path, advice):
    summary = train(config(200, advice), tmp_path / "run")
    run = tmp_path / "run"
    for name in ("config.json", "metrics.jsonl", "episodes.jsonl", "progress.jsonl", CHECKPOINT):
        assert (run / name).stat().st_size > 0, name
    tags = {tag for row in read_jsonl(run / "metrics.jsonl") for tag in row}
    for tag in ("loss/policy", "loss/value", "loss/dyn", "uncertainty_gate/avg_kl", "uncertainty_gate/beta",
                "uncertainty_gate/entropy", "uncertainty_gate/value_spread", "uncertainty_gate/disagreement",
                "synthetic/ratio", "synthetic/weight", "synthetic/false_unlock_rate", "options/avg_success_rate",
                "options/active", "llm_adapter/cache_hit_rate", "llm_adapter/coverage_row", "llm_adapter/coverage_goal",
                "llm_adapter/coverage_model", "llm_adapter/coverage_none", "train/rand/action"):  # fmt: skip
        assert tag in tags, tag
    assert summary["advice"] == advice
    assert summary["step"] == 200
    shares = [row["synthetic/ratio"] for row in read_jsonl(run / "metrics.jsonl") if "synthetic/ratio" in row]
    assert max(shares) <= 0.25
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars = set(EventAccumulator(str(run)).Reload().Tags()["scalars"])
    assert {"env/episode_return", "env/episode_length", "env/crafter_score", "env/achievement/wake_up"} <= scalars


def test_every_update_is_made_no_more_and_no_less(tmp_path):
    summary = train(config(120, replay_capacity=500), tmp_path, tensorboard=False)
    # the first window set exists at record 9 + 31, i.e. after 39-40 steps; from then on 1 + 4/32 per step
    assert summary["updates"] == pytest.approx(1 + (120 - 40) * 4 / 32, abs=1)


def test_evaluation_reports_both_protocols_with_intervals(tmp_path, advice):
    train(config(150, advice), tmp_path, tensorboard=False)
    report = evaluate(tmp_path, episodes=2)
    assert json.loads((tmp_path / "evaluation.json").read_text())["run"] == tmp_path.name
    assert list(report["final_policy"]) == ["as_trained", "agent_alone", "primitives_only"]
    assert report["final_policy"]["as_trained"]["episodes"] == 2
    trained = report["training"]
    assert trained["episodes"] == len(read_jsonl(tmp_path / "episodes.jsonl"))
    low, high = trained["return_interval"]
    assert low <= trained["return_mean"] <= high
    assert set(trained["achievements"]) == set(get_environment("crafter").vocab.achievements)
    assert evaluate(tmp_path, episodes=2)["final_policy"] == report["final_policy"]  # same seed, same figures


def test_a_folder_of_another_configuration_is_refused_and_kept(tmp_path, digest):
    train(config(20), tmp_path, tensorboard=False)
    before = digest(tmp_path)
    with pytest.raises(ConfigError, match=r"train\.seed"):
        train(config(40, **{"train.seed": 9}), tmp_path, tensorboard=False)
    assert digest(tmp_path) == before


@pytest.mark.parametrize(("change", "name"), [({"size": "1m"}, "size"), ({"options.enabled": False}, "enabled")])
def test_a_lost_config_is_made_anew_from_the_checkpoint_which_another_form_does_not_fit(
    tmp_path, advice, change, name, caplog
):  # fmt: skip
    train(config(20, advice), tmp_path, tensorboard=False)
    kept = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).unlink()
    with pytest.raises(ConfigError, match=name):
        train(config(40, advice, **change), tmp_path, tensorboard=False)
    assert "made anew from the checkpoint" in caplog.text
    assert json.loads((tmp_path / CONFIG).read_text())["config"] == kept["config"]
    assert train(config(40, advice), tmp_path, tensorboard=False)["step"] == 40


def test_a_setting_of_a_path_that_stays_off_keeps_no_run_from_going_on(tmp_path):
    before = config(20, **{"gate.kickstart": 0.0})  # the default of an earlier release
    train(before, tmp_path, tensorboard=False)
    assert config(40).gate.kickstart == 1.0 and not config(40).gate.enabled
    assert train(config(40), tmp_path, tensorboard=False)["step"] == 40


def test_two_trainers_never_share_a_folder(tmp_path):
    with held(tmp_path / "run" / ".lock", "", hint=""), pytest.raises(Busy, match="another trainer"):
        train(config(20), tmp_path / "run", tensorboard=False)


def test_advice_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(NotFound, match="nowhere"):
        train(config(20, "nowhere@v3"), tmp_path, tensorboard=False)


def test_a_corrupt_checkpoint_falls_back_to_the_one_before(tmp_path):
    train(config(40), tmp_path, tensorboard=False)
    train(config(60), tmp_path, tensorboard=False)
    path = tmp_path / CHECKPOINT
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    summary = train(config(80), tmp_path, tensorboard=False)
    assert summary["step"] == 80


def test_non_finite_updates_are_skipped_and_ten_in_a_row_stop_the_run(tmp_path):
    run = Training(config(200), tmp_path)
    from lore.training import loop

    run.steps = run.envs.reset()
    for _ in range(60):
        actions, records = run.policy.act(run.steps)
        run.replay.add(0, records[0])
        run.steps = run.envs.step(actions)
    before = {k: v.clone() for k, v in run.policy.agent.state_dict().items()}
    run.replay.arrays["reward"][:] = np.nan
    for _ in range(9):
        loop._update(run)
    kept = [k for k, v in run.policy.agent.state_dict().items() if not torch.equal(v, before[k])]
    assert kept == []
    with pytest.raises(Diverged, match="10 updates"):
        loop._update(run)
    assert (tmp_path / "diverged_batch.npz").exists()


def test_help_of_the_learner_names_every_setting_once():
    environment = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "lore.main", "--help"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0
    for flag in ("--train.steps", "--gate.enabled", "--synthetic.enabled", "--options.enabled", "--folder"):
        assert done.stdout.count(f"{flag} ") == 1, flag
    assert "total-frames" not in done.stdout  # the original's names are understood, and shown nowhere


def test_bad_settings_on_the_command_line_give_one_line_and_exit_code_3():
    words = [sys.executable, "-m", "lore.main", "--ratio_max", "1.5"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "ratio_max" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_bfloat16_updates_stay_finite_and_are_another_arithmetic(tmp_path, advice, digest):
    train(config(60, advice), tmp_path / "float32", tensorboard=False)
    train(config(60, advice, bf16=True), tmp_path / "bf16", tensorboard=False)
    assert digest(tmp_path / "float32") != digest(tmp_path / "bf16")
    rows = read_jsonl(tmp_path / "bf16" / "metrics.jsonl")
    assert not any(row.get("opt/skipped") for row in rows)
    run = Training(config(60, advice, bf16=True), tmp_path / "bf16")
    run.restore()
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in run.policy.agent.parameters())


def test_a_run_goes_on_on_another_kind_of_device_and_says_that_it_is_not_bit_exact(tmp_path, caplog):
    train(config(45, ""), tmp_path, tensorboard=False)
    tensors, meta = checkpoint.load(tmp_path / CHECKPOINT)
    for name in ("player/generator", "learner/generator"):
        tensors[name] = torch.zeros(16, dtype=torch.uint8)  # what a CUDA generator's state looks like
    checkpoint.save(tmp_path / CHECKPOINT, tensors, meta)
    assert train(config(90, ""), tmp_path, tensorboard=False)["step"] == 90
    assert caplog.text.count("saved on another kind of device") == 2


def test_a_run_of_a_gpu_is_played_on_a_machine_without_one(tmp_path, caplog):
    train(config(45, ""), tmp_path, tensorboard=False)
    told = json.loads((tmp_path / "config.json").read_text())
    told["config"]["train"]["device"] = "cuda:1"
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert load_policy(tmp_path, 0).device.type == "cpu"
    assert "trained on cuda:1" in caplog.text
    with pytest.raises(ConfigError, match="no CUDA device"):
        train(config(45, "", device="cuda"), tmp_path / "other", tensorboard=False)


def test_auto_leaves_small_networks_on_symbolic_states_to_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda" and resolve_device("auto", is_small=True).type == "cpu"
    assert resolve_device("cuda:0", is_small=True).type == "cuda"


def test_a_replay_too_small_for_one_update_is_refused_and_a_run_too_short_for_one_says_so(tmp_path, caplog):
    with pytest.raises(ConfigError, match=r"holds 22 windows, and updates begin with 32"):
        train(config(45, "", replay_capacity=30), tmp_path / "small", tensorboard=False)
    assert train(config(20, ""), tmp_path / "short", tensorboard=False)["updates"] == 0
    assert "no update was made: replay holds" in caplog.text
