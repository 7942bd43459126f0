"""The Python API: a walk through all of it, its settings by name, and what it says of wrong ones."""

import json
import runpy
import signal
import threading
import time
from pathlib import Path

import pytest

import flows.api
import lore_rl
from lore_datasets.errors import ConfigError, NotFound

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

    run = lore_rl.train(tmp_path / "run", preset="smoke", advice=program, steps=60, **LEARNER)
    assert (run.steps, run.is_interrupted, run.unused_advice) == (60, False, "") and run.updates > 0
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert told["advice"] == str(program) and told["config"]["model"]["size"] == "tiny"
    assert lore_rl.train(run.folder, preset="smoke", advice=program, steps=80, **LEARNER).steps == 80
    found = lore_rl.evaluate(run, 1)
    assert found.as_trained.episodes == 1 and set(found.agent_alone.achievements) >= {"collect_wood"}
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


def test_the_small_module_holds_nothing_else():
    assert set(lore_rl.__all__) <= set(flows.api.__all__)
    public = {name for name in vars(lore_rl) if not name.startswith("_")}
    assert public == set(lore_rl.__all__)
    assert all(getattr(lore_rl, name).__doc__ for name in lore_rl.__all__)
