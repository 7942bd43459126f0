"""The baseline ``prefill``: a version plays the first counted steps of a run, and nothing of it comes afterwards."""

import numpy as np
import pytest

from lore.config import load_config
from lore.evaluation.evaluate import evaluate
from lore.evaluation.play import AdvisedChoice
from lore.evaluation.recording import read_recording, recordings
from lore.options.play import GoalPlayer
from lore.training import checkpoint
from lore.training.folder import CHECKPOINT
from lore.training.loop import train
from lore.training.policy import Policy
from lore.training.run import Training
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError
from lore_datasets.language.geometry import StateView
from lore_datasets.testing import small_advice

SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0, "horizon": 5,
    "learning_rate": 1e-3, "warmup": 5, "log_interval": 20, "threads": 1, "replay_capacity": 2000, "env.length": 45,
    "train.save_interval_s": 3600.0, "gate.hold": 4,
}  # fmt: skip


@pytest.fixture
def advice(own_datasets) -> str:
    return str(small_advice(own_datasets, get_environment("crafter"), n=40))


def config(steps: int, advice: str, prefill: int, **more):
    return load_config(**(SMALL | {"steps": steps, "dataset": advice, "advice.prefill_steps": prefill} | more))


def stored(folder):
    """(tensors, meta) of a run's checkpoint; actions and states of its replay."""
    tensors, meta = checkpoint.load(folder / CHECKPOINT, has_replay=True)
    stream = {k.removeprefix("replay/"): v.numpy() for k, v in tensors.items() if k.startswith("replay/")}
    return tensors, meta, {k.rpartition("/")[2]: v for k, v in stream.items()}


def test_the_first_steps_in_replay_are_the_versions_own_play_without_learning(tmp_path, advice):
    run = config(100, advice, 70)
    train(run, tmp_path / "run", tensorboard=False)
    replay = stored(tmp_path / "run")[2]
    policy = Policy(run, is_training=True)
    vocab, source, envs = policy.environment.vocab, policy.source, policy.make_envs()
    assert source is not None
    rng = np.random.default_rng([int(policy.streams[2]), 70])
    player, step, counted, records = (
        GoalPlayer(AdvisedChoice(source, rng), policy.skills, vocab, 4),
        *envs.reset(),
        0,
        [],
    )
    while counted < 70:
        action = 0 if step.is_last else player(StateView(step.state, vocab), rng)
        records.append((step.state.tobytes(), action))
        counted += not step.is_last
        if step.is_last:
            player.reset()
        (step,) = envs.step([action])
    kept = [(s.tobytes(), int(a)) for s, a in zip(replay["state"], replay["action"], strict=True)]
    assert kept[: len(records)] == records
    assert len({action for _, action in records}) > 3


def test_nothing_is_looked_up_or_advised_after_the_prefill(tmp_path, advice):
    run = Training(config(60, advice, 20), tmp_path / "run")
    assert run.policy.source is not None and run.policy.controller.source is None
    asked, look_up = [], run.policy.source.lookup
    run.policy.source.lookup = lambda states: asked.append(run.env_steps) or look_up(states)  # type: ignore[method-assign]
    run.steps = run.envs.reset()
    for _ in range(60):
        actions, records = run.policy.act(run.steps)
        assert not {"advised", "advice", "proposals", "row"} & records[0].keys()
        run.policy.env_steps += not run.steps[0].is_last
        run.steps = run.envs.step(actions)
    assert asked and max(asked) < 20
    assert "kickstart" not in run.learner._scales({})


def test_a_prefill_of_several_environments_counts_every_step_once(tmp_path, advice):
    run = Training(config(60, advice, 5, num_envs=3), tmp_path / "run")
    run.steps = run.envs.reset()
    played: list[int] = []
    prefill = run.policy.player.prefill
    assert prefill is not None
    act = prefill.act
    prefill.act = lambda env, state: played.append(env) or act(env, state)  # type: ignore[method-assign]
    for _ in range(3):
        actions, _ = run.policy.act(run.steps)
        run.policy.env_steps += 3
        run.steps = run.envs.step(actions)
    assert played == [0, 1, 2, 0, 1]


def test_a_run_that_is_stopped_in_the_middle_of_its_prefill_goes_on_to_the_bit(tmp_path, advice, digest):
    train(config(120, advice, 80), tmp_path / "straight", tensorboard=False)
    for steps in (33, 77, 120):
        train(config(steps, advice, 80), tmp_path / "pieces", tensorboard=False)
    assert digest(tmp_path / "straight") == digest(tmp_path / "pieces")
    out = evaluate(tmp_path / "pieces", 1, record=1)["final_policy"]
    assert out["as_trained"] == out["agent_alone"] == out["primitives_only"]
    (kept,) = recordings(tmp_path / "pieces")
    assert set(read_recording(kept)["spoke"].tolist()) == {""}  # nobody advises the policy
    with pytest.raises(ConfigError, match=r"another gate\.hold"):
        train(config(130, advice, 80, **{"gate.hold": 5}), tmp_path / "pieces", tensorboard=False)


def test_a_look_up_that_fails_in_the_prefill_is_a_random_action_that_is_counted(tmp_path, advice, caplog):
    run = Training(config(60, advice, 40), tmp_path / "run")
    run.steps = run.envs.reset()
    assert run.policy.source is not None and run.policy.player.prefill is not None

    def broken(states):
        raise RuntimeError("table gone")

    run.policy.source.lookup = broken  # type: ignore[method-assign]
    for _ in range(3):
        actions, _ = run.policy.act(run.steps)
        run.steps = run.envs.step(actions)
    assert run.policy.player.prefill.failures == 3
    assert sum("table gone" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"gate.enabled": True, "dataset": "a@v1"}, "a path that reads advice is on"),
        ({"options.enabled": True, "dataset": "a@v1"}, "a path that reads advice is on"),
        ({}, "nobody can play"),
        ({"dataset": "a@v1", "advice.prefill_steps": -1}, "prefill_steps"),
    ],
)
def test_a_prefill_beside_a_path_or_without_advice_is_refused(more, said):
    with pytest.raises(ConfigError, match=said):
        load_config(**({"advice.prefill_steps": 10} | more))
