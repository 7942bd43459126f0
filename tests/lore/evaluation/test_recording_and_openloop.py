"""A recorded episode tells what happened and who decided; open-loop pictures show what the world model expects."""

import json
import sys

import numpy as np
import pytest
import torch

from flows.cli import main as cli
from lore.advice.distil import distil
from lore.config import load_config
from lore.evaluation.evaluate import evaluate, play_episodes
from lore.evaluation.film import film, why, write_film
from lore.evaluation.open_loop import MARGIN, STRIP, draw, predict
from lore.evaluation.recording import AHEAD, SCHEMA, Recorder, chosen, read_recording, recordings
from lore.gate.gate import kl, softmax
from lore.training.loop import train
from lore.training.policy import load_policy
from lore.training.run import Training
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, CorruptArtifact, NotFound, UsageError
from lore_datasets.exchange.hdf5 import export_hdf5
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice
from lore_datasets.types import SymbolicState

PARTS = ("experiment", "session_start_info", "session_end_info")
SMALL = {
    "size": "tiny", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0, "horizon": 5, "warmup": 5,
    "log_interval": 20, "threads": 1, "replay_capacity": 500, "env.length": 60, "env.area": (24, 24), "device": "cpu",
    "save_interval_s": 3600.0,
}  # fmt: skip


@pytest.fixture(scope="module", params=["symbolic", "pixels"])
def trained(request, tmp_path_factory):
    """A short run of each observation; the symbolic one with all three paths on."""
    folder, paths = tmp_path_factory.mktemp(request.param), {}
    if request.param == "symbolic":
        ref = small_advice(folder / "datasets", get_environment("crafter"), n=40)
        distil(ref, Store(folder / "datasets"), epochs=2)  # so that every state has advice
        export_hdf5(Store(folder / "datasets"), ref, folder / "advice.h5")
        paths = {"dataset": str(folder / "advice.h5"), "gate.enabled": True, "synthetic.enabled": True}
        paths |= {"options.enabled": True, "synthetic.warmup_updates": 2, "hold": 4}
    config = load_config(**SMALL, observation=request.param, steps=70, **paths)
    train(config, folder / "run")
    plain = play_episodes(load_policy(folder / "run", 7), 3)
    found = evaluate(folder / "run", 3, seed=7, record=2)["final_policy"]["as_trained"]
    assert found == plain  # looking on changes no figure
    return folder / "run", config, [read_recording(path) for path in recordings(folder / "run")]


def test_every_frame_of_a_recording_has_its_thoughts_and_its_decider(trained):
    run, config, (worst, best) = trained
    returns = json.loads((run / "evaluation.json").read_text())["final_policy"]["as_trained"]["returns"]
    assert [str(worst["place"]), str(best["place"])] == ["worst", "best"]
    assert (float(worst["return"]), float(best["return"])) == (min(returns), max(returns))
    for found in (worst, best):
        frames = len(found["reward"])
        assert 2 <= frames <= config.env.length + 1 and int(found["schema"]) == SCHEMA
        assert found["reward"].sum() == pytest.approx(float(found["return"]), abs=1e-3)
        per_frame = {"state", "reward", "action", "value", "entropy", "beta", "kl", "charge", "skill", "row", "spoke"}
        assert all(len(found[name]) == frames for name in per_frame)
        assert found["action"][-1] == -1 and (found["action"][:-1] >= 0).all()
        assert np.isfinite(found["value"]).all() and ((found["entropy"] > 0) & (found["entropy"] <= 1.0001)).all()
        assert set(found["charge"]) <= {"policy", "advice", "option", "plan"}
        shape, layout = (frames, 64, 64, 3), get_environment("crafter").layout
        assert found["image"].shape == shape if config.env.observation == "pixels" else "image" not in found
        assert SymbolicState.unpack(found["state"], layout).view.shape == (frames, layout.height, layout.width)
        assert set(found["spoke"]) == {""} or config.needs_advice
        if config.needs_advice:
            assert all(told.split()[0] in ("row", "goal", "model", "none") for told in found["spoke"])
            assert found["beta"].max() > 0 and len(found["skills"]) > 0 and str(found["advice"]).startswith("small@v1#")
            assert set(found["charge"]) != {"policy"} and found["advised"].any()
            in_charge = (found["charge"] == "option") | (found["charge"] == "advice")
            assert (found["skill"][in_charge] >= 0).all()


def test_advice_that_fails_while_an_episode_is_recorded_is_no_advice(trained, tmp_path, monkeypatch):
    run, config, _ = trained
    if not config.needs_advice:
        pytest.skip("plays without advice")
    policy = load_policy(run, 7)
    monkeypatch.setattr(type(policy.controller.source), "lookup_batch", lambda self, states: 1 / 0)
    recorded: list[bytes] = []
    play_episodes(policy, 1, recorded=recorded)
    (tmp_path / "one.npz").write_bytes(recorded[0])
    found = read_recording(tmp_path / "one.npz")
    assert set(found["spoke"]) == {""} and found["goals"].shape[1] == 0


def test_what_a_recording_says_of_a_decision_adds_up_and_leads_to_what_was_done(trained):
    for found in trained[2]:
        decided = np.flatnonzero(found["entry"] >= 0)
        assert len(decided) and decided[0] == 0
        actions = len(found["actions"])
        for t in decided:
            logits = found["logits"][t] + found["beta"][t] * found["advice_logits"][t]
            mixed, own = (softmax(x, found["allowed"][t]) for x in (logits, found["logits"][t]))
            np.testing.assert_allclose(mixed, found["mixed"][t], atol=1e-5)
            assert found["kl"][t] == pytest.approx(kl(mixed, own), abs=1e-4)
            assert found["allowed"][t, found["entry"][t]] and (found["beta"][t] > 0 or not found["followed"][t])
            if found["entry"][t] < actions and found["charge"][t] == "policy":
                assert found["action"][t] == found["entry"][t]
        since = found["since"][:-1]
        assert (since <= np.arange(len(since))).all() and set(since) <= set(decided)
        held = since < np.arange(len(since))
        assert (found["skill"][:-1][held] == found["skill"][since[held]]).all()
        assert (found["advised"][:-1][held] == found["advised"][since[held]]).all()


def test_every_frame_was_foretold_but_the_first_ones(trained):
    found = trained[2][1]
    for k in AHEAD:
        foretold = found[f"ahead_{k}"]
        assert not foretold[:k].any() and len(foretold) == len(found["reward"]) and foretold[k:].any()


def test_what_is_foretold_follows_from_the_action_that_was_played(trained):
    run = trained[0]
    policy = load_policy(run, 7)
    recorder, envs = Recorder(policy), policy.make_envs()
    steps = envs.reset()
    actions, _ = policy.act(steps)
    latent = policy.player.latent
    guesses = []
    for action in (actions[0], (actions[0] + 1) % policy.agent.num_actions):
        recorder._dreams.ages.clear()
        recorder._dreams.generator.manual_seed(1)
        recorder._dreams.step([action])
        guesses.append(recorder._dreams.ages[0].deter)
    assert policy.player.latent is latent and not torch.equal(*guesses)


def test_episodes_are_chosen_by_their_return():
    returns = [3.0, 1.0, 2.0, 5.0, 4.0]
    assert chosen(returns, 3) == [(1, "worst"), (0, "median"), (3, "best")]
    assert chosen(returns, 1) == [(0, "median")] and chosen([2.0], 3) == [(0, "median")]
    assert [name for _, name in chosen(returns, 9)] == ["worst", "rank 2 of 5", "median", "rank 4 of 5", "best"]
    assert [k for k, _ in chosen(returns, 2)] == [1, 3]


def test_a_film_has_a_frame_for_each_step_and_says_who_decided(trained, tmp_path, monkeypatch):
    whole, steps = trained[2][0], 16
    found = {k: v[:steps] if v.shape[:1] == whole["action"].shape else v for k, v in whole.items()}
    frames = list(film(found))
    assert len(frames) == steps and {frame.shape for frame in frames} == {(480, 720, 3)}
    assert len({frame.tobytes() for frame in frames}) == steps
    said = why(found, 0)
    assert said[0] == f"step 0 of {steps - 1}: {found['actions'][found['action'][0]]}"
    assert said[1].split()[0].rstrip(",") in ("policy", "advice", "option")
    assert why(whole, len(whole["action"]) - 1)[0].endswith("end")
    assert sum("->" in line for line in said) == 3
    from PIL import Image

    with Image.open(write_film(found, tmp_path / "episode.gif")) as picture:
        assert (picture.size, picture.n_frames) == ((720, 480), steps)
    with pytest.raises(UsageError, match=r"neither .mp4 nor .gif"):
        write_film(found, tmp_path / "episode.avi")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"mp4 needs PyAV.*-e '.\[video\]"):
        write_film(found, tmp_path / "episode.mp4")
    monkeypatch.undo()
    av = pytest.importorskip("av")
    with av.open(str(write_film(found, tmp_path / "episode.mp4"))) as container:
        assert sum(1 for _ in container.decode(video=0)) == steps


def test_watch_picks_an_episode_and_names_those_that_are_there(trained, tmp_path, capsys):
    run = str(trained[0])
    assert cli.main(["watch", run, "--episode", "worst", "--out", str(tmp_path / "worst.gif")]) == 0
    assert (tmp_path / "worst.gif").read_bytes().startswith(b"GIF8")
    assert cli.main(["watch", run, "--episode", "median"]) == NotFound.exit_code
    assert "one of: worst (number " in capsys.readouterr().err


def test_a_recording_of_an_older_form_is_filmed_without_what_it_lacks(trained):
    lacks = ("schema", "mixed", "entry", "since", "advised", "ahead_1", "ahead_5", "environment")
    found = {k: v for k, v in trained[2][0].items() if k not in lacks}
    assert len(list(film(found, every=20))) == -(-len(found["action"]) // 20)
    with pytest.raises(BadInput, match="nothing of this recording can be drawn"):
        next(film({k: v for k, v in found.items() if k not in ("state", "image")}))


def test_a_file_that_is_no_recording_is_named(tmp_path):
    path = tmp_path / "episode-0001.npz"
    for text in (b"", b"PK\x03\x04 cut", b"\x80\x04pickle"):
        path.write_bytes(text)
        with pytest.raises(CorruptArtifact, match=r"episode-0001.npz is no recorded episode.*lore eval RUN --record"):
            read_recording(path)


def test_a_run_ends_with_a_picture_of_its_predictions(trained):
    run, config, _ = trained
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run)).Reload()
    assert set(events.Tags()["images"]) == {"report/openloop", "report/episode"}
    assert events.Images("report/episode")[0].encoded_image_string.startswith(b"GIF8")
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert b"what the advice does" in layout and b"env/return_mean20" in layout
    assert set(events.PluginTagToContent("hparams")) == {f"_hparams_/{part}" for part in PARTS}
    picture = events.Images("report/openloop")[0]
    height, width = (64, 64) if config.env.observation == "pixels" else (56, 72)
    assert (picture.height, picture.width) == (STRIP + 3 * height, MARGIN + 6 * width)
    assert picture.encoded_image_string.startswith(b"GIF8")


def test_only_the_first_half_is_seen_and_the_rest_follows_from_actions(trained):
    folder, config, _ = trained
    run = Training(config, folder)
    run.restore()
    records = {k: np.array(v) for k, v in run.replay.sample(3, 8, np.random.default_rng(0)).items()}
    model, cpu = run.policy.agent.world_model, torch.device("cpu")

    def predicted(given) -> np.ndarray:
        return predict(model, given, cpu, torch.Generator().manual_seed(1))[1]

    before = predicted(records)
    late = {k: v.copy() for k, v in records.items()}
    late[model.key][:, 1 + 3 :] = 0  # 7 trained steps: three are seen
    assert np.array_equal(predicted(late), before)
    early = {k: v.copy() for k, v in records.items()}
    early[model.key][:, 1:3] = 0
    assert not np.array_equal(predicted(early), before)


def test_pictures_leave_no_trace_in_the_run(tmp_path, monkeypatch):
    from lore.training import loop
    from lore.training.records import read_jsonl

    rows = []
    for name, seconds in (("often", 0.2), ("never", 1e9)):
        monkeypatch.setattr(loop, "REPORT_S", seconds)
        train(load_config(**SMALL, observation="symbolic", steps=150), tmp_path / name)
        rows.append(
            [{k: v for k, v in r.items() if k != "fps/policy"} for r in read_jsonl(tmp_path / name / "metrics.jsonl")]
        )
    assert rows[0] == rows[1]
    assert any("loss/dyn" in row for row in rows[0])


def test_a_drawing_stacks_truth_prediction_and_error_under_a_strip():
    truth = np.zeros((2, 4, 5, 6, 3), np.uint8)
    film = draw(truth, truth + 9)
    assert film.shape == (4, STRIP + 15, MARGIN + 12, 3)
    assert (film[:, STRIP : STRIP + 5, MARGIN:] == 0).all() and (film[:, STRIP + 5 :, MARGIN:] == 9).all()
    assert film[1, 0, 0, 1] > film[1, 0, 0, 0] and film[2, 0, 0, 0] > film[2, 0, 0, 1]
    assert (film[:, STRIP:, :MARGIN].max((1, 2, 3)) > 200).all()  # the rows are named
