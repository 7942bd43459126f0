"""Training runs as child processes: command lines, errors, progress."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from flows.config import DemoJob, TrainJob
from flows.jobs.demo import ARMS, arm_config
from flows.jobs.training_process import arguments, follow, last_row, run_child, side_by_side, train_in_process
from flows.prefect_flows import runtime
from flows.terminal import PlainTerminal, use
from lore.config import load_config
from lore.main import parse
from lore_datasets.errors import BadInput, LoreError, NoSpace, ServiceError

CONFIGS = {
    "defaults": load_config(),
    "tuples": load_config(**{"env.area": (32, 48), "gate.weights": (1.0, 2.0, 3.0)}),
    "tiny numbers": load_config(**{"train.learning_rate": 1e-5, "synthetic.clone_scale": 0.0}),
    **{arm: arm_config(DemoJob().resolved(), arm, "crafter-demo@v1#0123456789ab") for arm in ARMS},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_survives_the_way_over_the_command_line(name):
    assert parse(arguments(CONFIGS[name])).config() == CONFIGS[name]


def test_the_arms_differ_only_in_the_paths_and_their_advice():
    none, abc = (arguments(CONFIGS[arm]) for arm in ARMS)
    extra = [word for word in abc if word.startswith("--") and word not in none]
    assert [word for word in none if word.startswith("--") and word not in abc] == []
    assert sorted(extra) == [
        "--advice.dataset", "--gate.enabled", "--options.enabled", "--options.max-options",
        "--synthetic.enabled", "--synthetic.warmup-updates",
    ]  # fmt: skip


def test_a_child_s_error_comes_back_as_one_with_its_code_and_its_last_line(tmp_path):
    config = load_config(**{"gate.enabled": True}, dataset="nope@v1", device="cpu")
    with pytest.raises(LoreError, match="no dataset 'nope'") as caught:
        train_in_process(TrainJob(str(tmp_path / "run"), config), str(tmp_path / "datasets"))
    assert caught.value.exit_code == 3 and "log.txt" in caught.value.hint


def test_a_child_s_full_disk_comes_back_as_one(tmp_path, monkeypatch):
    class Child:
        pid = 0

        def wait(self):
            return NoSpace.exit_code

    monkeypatch.setattr("flows.jobs.training_process.spawn", lambda *_, **__: Child())
    monkeypatch.setattr("flows.jobs.training_process.stop", lambda *_: None)
    (tmp_path / "log.txt").write_text("")
    with pytest.raises(NoSpace, match="failed: exit code 7"):
        run_child("lore.main", [], tmp_path, "log.txt", {})


def test_the_last_whole_row_is_read_while_the_next_is_being_written(tmp_path):
    path = tmp_path / "progress.jsonl"
    assert last_row(path) is None
    path.write_text("x" * 5000 + '\n{"step": 1}\n{"step": 2}\n{"st')
    assert last_row(path) == {"step": 2}
    path.write_text('{"st')
    assert last_row(path) is None


def test_jobs_run_side_by_side_and_come_back_in_order(tmp_path):
    import threading

    both = threading.Barrier(2, timeout=10)

    def work(job, root):
        both.wait()
        return {"folder": job.folder, "root": root}

    jobs = [TrainJob(str(tmp_path / name)) for name in ("b", "a")]
    found = side_by_side(work, jobs, "r", "progress.jsonl", [1, 1])
    assert [Path(f["folder"]).name for f in found] == ["b", "a"] and found[0]["root"] == "r"


def test_a_job_that_waits_for_a_core_has_no_bar_yet(tmp_path):
    shown = io.StringIO()
    paths = {name: tmp_path / name / "progress.jsonl" for name in ("first", "second", "third")}

    def begin(name, step):
        paths[name].parent.mkdir(exist_ok=True)
        paths[name].write_text(json.dumps({"step": step, "total": 8}) + "\n")

    turns = iter([lambda: begin("first", 8), lambda: begin("second", 4), None])

    def finished():
        turn = next(turns)
        if turn is not None:
            turn()
        return turn is None

    with use(PlainTerminal(shown)):
        follow(paths, dict.fromkeys(paths, 8), finished)
    lines = [" ".join(line.split()[:4]) for line in shown.getvalue().splitlines()]
    assert lines == ["first 100 % 8/8", "second 50 % 4/8"]


def test_prefect_is_pointed_at_the_run_s_folder_without_analytics(tmp_path, monkeypatch):
    monkeypatch.delitem(runtime.sys.modules, "prefect", raising=False)
    for name in ("PREFECT_HOME", *runtime.SETTINGS):
        monkeypatch.delenv(name, raising=False)
    runtime.prepare(tmp_path / "home")
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "home")
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false" and os.environ["DO_NOT_TRACK"] == "1"
    assert "pickle" not in os.environ["PREFECT_RESULTS_DEFAULT_SERIALIZER"]
    for name in ("PREFECT_HOME", *runtime.SETTINGS):  # written by prepare, not by monkeypatch
        os.environ.pop(name, None)


def test_a_server_that_the_user_names_is_used_and_none_is_started(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    with runtime.embedded_server(tmp_path / "home") as url:
        assert url == "https://prefect.example/api"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("url", ["http://localhost:abc/api", "xx", "ftp://localhost/api", "http:///api"])
def test_an_address_that_is_none_is_named(tmp_path, monkeypatch, url):
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(BadInput, match=f"{url} is no address"), runtime.embedded_server(tmp_path):
        raise AssertionError("no server is there")


def test_a_local_server_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServiceError, match="no Prefect server answers"), runtime.embedded_server(tmp_path / "home"):
        raise AssertionError("no server is there")
