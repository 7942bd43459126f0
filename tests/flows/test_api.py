"""The Python API: a walk through all of it, its settings by name, and what it says of wrong ones."""

import json
import runpy
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import flows.api
import lore_rl
from flows.cli import main as cli
from flows.jobs.evaluations import over_seeds
from flows.report.play import play_text
from flows.terminal import Terminal
from lore.training.checkpoint import previous_path
from lore.training.folder import CHECKPOINT
from lore_datasets.errors import ConfigError, CorruptArtifact, NotFound
from lore_datasets.store.store import Store

LEARNER = {
    "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0, "horizon": 5, "env.length": 40, "log_interval": 20,
    "replay_capacity": 400,
}  # fmt: skip


def test_the_whole_walk_from_python(own_datasets, tmp_path, capsys):
    states = lore_rl.collect(budget=40, max_steps=60)
    rows = lore_rl.advise(states, "rows", kinds="prior,plan", **{"select.budget": 12}, rows_only=True)
    program = lore_rl.advise(dataset="told")
    data = lore_rl.open_advice(rows)
    assert str(states).startswith("states@v1#") and data.rows.state.shape == (12, data.environment.layout.size)
    assert lore_rl.open_advice(program).programs and len(lore_rl.open_advice("told").rows.state) == 0

    worth = lore_rl.play(program, 2, area=24, length=60, workers=1)
    low, high = worth.advice.interval
    assert worth.advice.episodes == 2 and low <= worth.advice.mean <= high and worth.report["ref"] == str(program)
    assert worth.against is not None and 0 < worth.steps <= 240 and "uniform" in worth.text
    settings = worth.report["settings"] | {"area": 64}
    assert "fresh worlds of 24x24, seed" in worth.text
    assert "fresh worlds, seed" in play_text({**worth.report, "settings": settings}), "no size where nobody chose one"

    run = lore_rl.train(tmp_path / "run", preset="smoke", advice=program, steps=60, **LEARNER)
    assert (run.steps, run.is_interrupted, run.unused_advice) == (60, False, "") and run.updates > 0
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert told["advice"] == str(program) and told["config"]["model"]["size"] == "tiny"
    assert lore_rl.train(run.folder, preset="smoke", advice=program, steps=80, **LEARNER).steps == 80
    found = lore_rl.evaluate(run, 1)
    assert (
        found.runs == (run.folder,)
        and found.as_trained.episodes == 1
        and set(found.agent_alone.achievements) >= {"collect_wood"}
    )
    page = lore_rl.report([run], tmp_path / "page.html")
    assert page.read_text().startswith("<!doctype html>") and "100 %" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_of_the_readme_runs_as_it_stands(own_datasets, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    code = text.partition("<!-- python -->")[2].partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(code)
    runpy.run_path(str(tmp_path / "example.py"))
    assert "Evaluation(" in capsys.readouterr().out and (tmp_path / "runs" / "python" / "report.html").exists()


def test_quiet_calls_print_nothing(own_datasets, capsys):
    lore_rl.collect(budget=10, max_steps=20, quiet=True)
    assert capsys.readouterr().out == ""


def test_a_setting_that_there_is_not_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"no setting 'bugdet'.*budget"):
        lore_rl.collect(bugdet=3)
    with pytest.raises(ConfigError, match=r"no setting 'ask\.modell'.*ask\.model"):
        lore_rl.advise("states", **{"ask.modell": "x"})
    with pytest.raises(ConfigError, match="preset"):
        lore_rl.train("nowhere", preset="huge")
    with pytest.raises(NotFound):
        lore_rl.evaluate("nowhere")


def test_an_interrupted_kernel_keeps_the_run_and_the_same_call_goes_on(tmp_path):
    def interrupt():
        while (
            not (tmp_path / "run" / "episodes.jsonl").exists() or not (tmp_path / "run" / "episodes.jsonl").read_text()
        ):
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    run = lore_rl.train(tmp_path / "run", preset="smoke", steps=100_000, quiet=True, **LEARNER)
    thread.join()
    assert run.is_interrupted and 40 <= run.steps < 100_000
    again = lore_rl.train(tmp_path / "run", preset="smoke", steps=run.steps + 5, quiet=True, **LEARNER)
    assert not again.is_interrupted and again.steps == run.steps + 5


@pytest.fixture(autouse=True)
def _hears_ctrl_c():
    """Tests that a shell runs in the background are born deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Two runs that differ in their seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        lore_rl.train(folder / f"seed-{seed}", preset="smoke", steps=60, seed=seed, quiet=True, **LEARNER)
    return folder


def test_a_run_goes_on_under_its_own_settings_and_a_fork_says_what_is_new(seeds, tmp_path, capsys):
    fork = lore_rl.train(
        tmp_path / "fork", fork=seeds / "seed-0", steps=80, learning_rate=1e-3, **{"gate.budget_steps": 70}
    )
    assert fork.changes == {
        "train.steps": (60, 80), "train.learning_rate": (4e-4, 1e-3), "gate.budget_steps": (20_000, 70)
    }  # fmt: skip
    assert fork.steps == 80 and "train.learning_rate: 0.0004 -> 0.001" in capsys.readouterr().out
    again = lore_rl.train(fork.folder, steps=90, quiet=True)
    assert again.steps == 90 and again.changes == {"train.steps": (80, 90)}
    with pytest.raises(ConfigError, match="whole budget"):
        lore_rl.train(fork.folder, steps=50)
    with pytest.raises(ConfigError, match=r"cannot change env\.length"):
        lore_rl.train(tmp_path / "other", fork=fork, **{"env.length": 9})
    with pytest.raises(NotFound, match="no run in"):
        lore_rl.train(tmp_path / "other", fork=tmp_path / "nothing")
    assert not (tmp_path / "other").exists()


def test_a_crashed_run_is_forked_from_the_last_checkpoint_that_is_whole(seeds, tmp_path, caplog):
    crashed = tmp_path / "crashed"
    shutil.copytree(seeds / "seed-1", crashed)
    lore_rl.train(crashed, steps=70, quiet=True)  # a second checkpoint; the first is kept beside it
    damaged = (crashed / CHECKPOINT).read_bytes()[:-100]
    (crashed / CHECKPOINT).write_bytes(damaged)
    fork = lore_rl.train(tmp_path / "fork", fork=crashed, steps=75, quiet=True)
    assert fork.steps == 75 and "forked from the one before it, of step 60" in caplog.text
    assert (crashed / CHECKPOINT).read_bytes() == damaged
    assert json.loads((fork.folder / "config.json").read_text())["forked_from"]["step"] == 60
    previous_path(crashed / CHECKPOINT).unlink()
    with pytest.raises(CorruptArtifact, match=r"cannot be read|does not match"):
        lore_rl.train(tmp_path / "none", fork=crashed, steps=80)
    assert not (tmp_path / "none").exists()


def test_a_folder_of_seeds_is_evaluated_and_reported_as_one(seeds, capsys):
    assert cli.main(["eval", str(seeds), "--episodes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("as trained" in line and "return" in line for line in lines) == 3
    assert f"next: lore report {seeds}" in lines[-1]
    runs = [seeds / "seed-0", seeds / "seed-1"]
    found = {run: json.loads((run / "evaluation.json").read_text()) for run in runs}
    one, two = (found[run]["final_policy"]["as_trained"] for run in runs)
    whole = over_seeds(found)["as_trained"]
    assert whole["return_mean"] == pytest.approx((one["return_mean"] + two["return_mean"]) / 2)
    two["score"] = one["score"] + 3.0  # the mean of the runs' scores, not the score of their mean rates
    assert over_seeds(found)["as_trained"]["score"] == pytest.approx(one["score"] + 1.5)
    low, high = whole["return_interval"]
    assert low <= whole["return_mean"] <= high and whole["episodes"] == 4
    assert any(f"all 2 seeds: as trained      return {whole['return_mean']:6.2f}" in line for line in lines)
    assert cli.main(["report", str(seeds)]) == 0
    page = (seeds / "report.html").read_text()
    assert "seed-0" in page and "seed-1" in page
    with pytest.raises(NotFound, match="no run in"):
        lore_rl.report(seeds / "seed-0" / "segments")


def test_runs_that_differ_in_more_than_seeds_have_no_figure_over_all(seeds, tmp_path):
    shutil.copytree(seeds, tmp_path / "runs")
    config = json.loads((tmp_path / "runs" / "seed-1" / "config.json").read_text())
    config["config"]["train"]["horizon"] = 6
    (tmp_path / "runs" / "seed-1" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="differ in more than their seeds"):
        lore_rl.evaluate(tmp_path / "runs", 1, quiet=True)
    assert over_seeds({tmp_path / "runs" / f"seed-{seed}": {} for seed in (0, 1)}) is None


class Interrupting(Terminal):
    """A terminal on which somebody presses Ctrl-C once, as soon as a bar has moved."""

    @contextmanager
    def bars(self):
        pressed = []

        class Bar:
            def update(self, done, total=None, note="", waits=""):
                if done > 0 and not pressed:
                    pressed.append(done)
                    signal.raise_signal(signal.SIGINT)

        yield lambda label, total=None: Bar()


CALLS = {
    "collect": lambda root: lore_rl.collect("fresh", budget=30, max_steps=60),
    "advise": lambda root: lore_rl.advise("states", "rows", kinds="prior", rows_only=True, **{"select.budget": 8}),
    "play": lambda root: lore_rl.play("told", 2, area=24, length=40, workers=1),
    "train": lambda root: lore_rl.train(root / "run", preset="smoke", steps=60, **LEARNER),
    "evaluate": lambda root: lore_rl.evaluate(root / "seed", 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_in_any_call_names_what_is_kept_and_the_same_call_goes_on(
    name, seeds, own_datasets, tmp_path, monkeypatch
):
    if name == "advise":
        lore_rl.collect(budget=20, max_steps=40, quiet=True)
    elif name == "play":
        lore_rl.advise(dataset="told", quiet=True)
    shutil.copytree(seeds / "seed-0", tmp_path / "seed")
    (tmp_path / "seed" / "evaluation.json").unlink(missing_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(flows.api, "open_terminal", Interrupting)
        if name == "train":
            assert CALLS[name](tmp_path).is_interrupted
        else:
            with pytest.raises(KeyboardInterrupt, match=f"{name} was interrupted; kept: .*the same call goes on"):
                CALLS[name](tmp_path)
    patch.undo()
    done = CALLS[name](tmp_path)
    store = Store(own_datasets)
    if name == "collect":
        assert done == store.resolve("fresh") and len(store.open(done).arrays["round-000/state"]) == 30
    elif name == "advise":
        assert len(lore_rl.open_advice(done).rows) == 8
    elif name == "play":
        assert done.advice.episodes == 2
    elif name == "train":
        assert done.steps == 60 and not done.is_interrupted
    else:
        assert done.as_trained.episodes == 2


def test_the_small_module_holds_nothing_else():
    assert set(lore_rl.__all__) <= set(flows.api.__all__)
    public = {name for name in vars(lore_rl) if not name.startswith("_")}
    assert public == set(lore_rl.__all__)
    assert all(getattr(lore_rl, name).__doc__ for name in lore_rl.__all__)
