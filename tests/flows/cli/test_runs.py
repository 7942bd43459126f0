"""Going on with runs, forking them, and ``lore runs``."""

import json
import shutil

import pytest

from flows.cli import main as cli
from lore.training import checkpoint
from lore.training.folder import CHECKPOINT, lock_run
from lore.training.records import read_jsonl
from lore_datasets.errors import BadInput, Busy, ConfigError, CorruptArtifact, NotFound, UsageError

WORDS = [
    "train", "--size", "tiny", "--observation", "symbolic", "--batch-size", "32", "--sequence-length", "8",
    "--train-ratio", "4", "--horizon", "5", "--env.length", "40", "--threads", "1", "--device", "cpu",
    "--log-interval", "20", "--replay-capacity", "300", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert cli.main([*WORDS, "--steps", "60", "--folder", str(folder)]) == 0
    return folder


def test_a_run_goes_on_under_its_own_settings_and_says_what_differs(run, capsys):
    assert cli.main(["train", "--resume", str(run), "--steps", "80"]) == 0
    out = capsys.readouterr().out
    assert "train.steps: 60 -> 80" in out and out.count("->") == 1
    assert checkpoint.load(run / CHECKPOINT)[1]["frames"] == 80
    assert json.loads((run / "config.json").read_text())["config"]["train"]["horizon"] == 5


@pytest.mark.parametrize(("more", "code", "what"), [
    (["--steps", "10"], ConfigError.exit_code, "whole budget"),
    (["--horizon", "9"], ConfigError.exit_code, "train.horizon"),
    (["--folder", "elsewhere"], UsageError.exit_code, "--fork RUN"),
    (["--preset", "smoke"], UsageError.exit_code, "exclude each other"),
    (["--seeds", "0", "1"], UsageError.exit_code, "one run"),
])  # fmt: skip
def test_what_a_resume_cannot_do_is_named_and_the_run_stays(run, capsys, more, code, what):
    before = (run / CHECKPOINT).read_bytes()
    assert cli.main(["train", "--resume", str(run), *more]) == code
    assert what in capsys.readouterr().err and (run / CHECKPOINT).read_bytes() == before


def test_a_fork_goes_on_from_the_checkpoint_with_another_learning_rate_and_leaves_the_first_alone(
    run, tmp_path, capsys
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before, steps = (run / CHECKPOINT).read_bytes(), checkpoint.load(run / CHECKPOINT)[1]["frames"]
    words = ["train", "--fork", str(run), "--folder", str(tmp_path / "fork"), "--learning-rate", "1e-3"]
    assert cli.main(words) == ConfigError.exit_code  # its budget is used up: nothing would be left to do
    assert "nothing would be left to do" in capsys.readouterr().err and not (tmp_path / "fork").exists()
    assert cli.main([*words, "--steps", str(steps + 20)]) == 0
    assert "train.learning_rate: 4e-05 -> 0.001" in capsys.readouterr().out
    told = json.loads((tmp_path / "fork" / "config.json").read_text())
    assert told["forked_from"]["step"] == steps and told["config"]["train"]["learning_rate"] == 1e-3
    assert (run / CHECKPOINT).read_bytes() == before
    assert "custom_scalars__config__" in EventAccumulator(str(tmp_path / "fork")).Reload().Tags()["tensors"]
    meta = checkpoint.load(tmp_path / "fork" / CHECKPOINT, has_replay=True)[1]
    assert meta["frames"] == steps + 20
    assert next(r["step"] for r in read_jsonl(tmp_path / "fork" / "metrics.jsonl")) == 20
    assert cli.main([*words, "--steps", str(steps + 40)]) == 0  # the same command goes on with the fork
    assert checkpoint.load(tmp_path / "fork" / CHECKPOINT)[1]["frames"] == steps + 40


@pytest.mark.parametrize(("more", "error", "what"), [
    (["--size", "1m"], ConfigError, "model.size"),
    (["--env.area", "32", "32"], ConfigError, "env.area"),
    (["--synthetic.capacity", "99"], ConfigError, "synthetic.capacity"),
    (["--advice.prior", "uniform"], ConfigError, "advice.prior"),
    (["--model.numbers-as-classes", "3"], ConfigError, "model.numbers_as_classes"),
])  # fmt: skip
def test_a_fork_keeps_what_networks_and_replay_were_laid_out_for(run, tmp_path, capsys, more, error, what):
    words = ["train", "--fork", str(run), "--folder", str(tmp_path / "fork"), *more]
    assert cli.main(words) == error.exit_code
    assert what in capsys.readouterr().err and not (tmp_path / "fork").exists()


def test_a_fork_of_a_run_whose_replay_is_damaged_is_refused(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "bad")
    (tmp_path / "bad" / f"{CHECKPOINT}.previous").unlink(missing_ok=True)
    segment = next((tmp_path / "bad" / "segments").iterdir())
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    words = ["train", "--fork", str(tmp_path / "bad"), "--folder", str(tmp_path / "fork"), "--steps", "900"]
    assert cli.main(words) == CorruptArtifact.exit_code
    assert segment.name in capsys.readouterr().err and not (tmp_path / "fork").exists()


def test_a_fork_into_something_or_of_nothing_is_refused(run, tmp_path, capsys):
    (tmp_path / "mine").write_text("keep")
    assert cli.main(["train", "--fork", str(run), "--folder", str(tmp_path)]) == BadInput.exit_code
    assert cli.main(["train", "--fork", str(tmp_path), "--folder", str(tmp_path / "new")]) == NotFound.exit_code
    assert (tmp_path / "mine").read_text() == "keep" and "is not empty" in capsys.readouterr().err


def test_runs_are_listed_compared_and_removed_without_touching_other_files(run, tmp_path, capsys):
    here = tmp_path / "a" / "b"
    assert cli.main([*WORDS, "--steps", "30", "--horizon", "6", "--folder", str(here)]) == 0
    (here / "notes.txt").write_text("mine")
    (here / "wandb" / "offline-run-1" / "files").mkdir(parents=True)
    (here / "wandb" / "offline-run-1" / "run-1.wandb").write_text("x")
    (here / "wandb" / "latest-run").symlink_to("offline-run-1")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text("{")
    assert cli.main(["runs", "list", str(tmp_path), "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[str(here)]["state"] == "done" and rows[str(here)]["steps"] == 30 and rows[str(here)]["bytes"] > 10_000
    assert rows[str(tmp_path / "c")]["state"] == "damaged"
    assert cli.main(["runs", "list", str(tmp_path)]) == 0
    assert "30/30" in capsys.readouterr().out
    assert cli.main(["runs", "compare", str(run), str(here)]) == 0
    out = capsys.readouterr().out
    assert "train.horizon" in out and "train.batch_size" not in out and "episodes" in out
    with lock_run(here):
        assert cli.main(["runs", "list", str(tmp_path)]) == 0 and "running" in capsys.readouterr().out
        assert cli.main(["runs", "rm", str(here), "--yes"]) == Busy.exit_code
    assert cli.main(["runs", "rm", str(here)]) == UsageError.exit_code  # no terminal to ask on
    assert (here / CHECKPOINT).exists()
    assert cli.main(["runs", "rm", str(here), "--yes"]) == 0
    assert [p.name for p in here.iterdir()] == ["notes.txt"] and "left alone: notes.txt" in capsys.readouterr().out
    assert cli.main(["runs", "rm", str(here), "--yes"]) == NotFound.exit_code
