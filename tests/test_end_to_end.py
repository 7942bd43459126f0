"""The main job on the real game: one walk through Prefect, and walks that are killed and go on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main as cli
from lore_datasets.advice import load_advice
from lore_datasets.store.store import Store

pytestmark = pytest.mark.timeout(600)

SMALL = ("--quick", "--states", "150", "--rows", "80", "--steps", "160", "--epochs", "1")


DEAD_PROXIES = {
    "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9",
    "NO_PROXY": "example.org",
}  # fmt: skip
"""Nobody listens there: whatever the environment says, nothing of a demo may go through a proxy."""


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """``lore demo`` in a folder of its own, with its own datasets."""
    env = {**os.environ, "LORE_DATASETS": str(folder / "datasets"), "COLUMNS": "120", **DEAD_PROXIES}
    env.pop("PREFECT_API_URL", None)
    return subprocess.Popen(
        [sys.executable, "-m", "flows", "demo", *SMALL, *words], cwd=folder, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=_listen,
    )  # fmt: skip


def _listen() -> None:
    """Ctrl-C must reach the child even where the tests run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finished(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 0, out
    return out


def processes_in(folder: Path) -> list[str]:
    """Command lines of live processes that work for this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd") == str(folder):
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return [line for line in found if line]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """(folder, output, what a stranger got from the server): the demo, run once on the only server that tests start."""
    folder = tmp_path_factory.mktemp("demo")
    process = start(folder)
    strange = stranger(process)
    return folder, finished(process), strange


def stranger(process: subprocess.Popen[str]) -> list[tuple[int, str | None]]:
    """(status, allowed origin) that a web page gets who posts to the server of the demo without its auth string."""
    import httpx
    import psutil

    while process.poll() is None:
        words = [w for child in psutil.Process(process.pid).children(recursive=True) for w in _words(child)]
        if "--port" in words:
            url = f"http://127.0.0.1:{words[words.index('--port') + 1]}/api"
            with suppress(httpx.HTTPError), httpx.Client(trust_env=False) as client:  # no proxy stands before loopback
                if client.get(f"{url}/health").status_code == 200:
                    asked = [client.post(url + path, json={}, headers={"Origin": "http://evil.example"})
                             for path in ("/deployments/", "/flows/", "/flow_runs/filter")]  # fmt: skip
                    return [(each.status_code, each.headers.get("access-control-allow-origin")) for each in asked]
        time.sleep(0.2)
    return []


def _words(process: Any) -> list[str]:
    import psutil

    with suppress(psutil.Error):
        return process.cmdline()
    return []


def test_the_walk_ends_with_a_report_and_the_next_commands(walked):
    folder, out, _ = walked
    report = folder / "runs" / "demo-quick" / "report.html"
    assert str(report) in out and "lore datasets show" in out
    text = report.read_text()
    assert "A + B + C" in text and "Final policy" in text and "a rule book, not a language model" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_a_stranger_starts_nothing_on_the_server_of_the_demo(walked):
    *_, strange = walked
    assert strange == [(401, None)] * 3


def test_every_phase_ran_as_a_prefect_flow(walked):
    import sqlite3

    folder, *_ = walked
    with sqlite3.connect(folder / "runs" / "demo-quick" / "prefect" / "prefect.db") as db:
        flows = dict(
            db.execute("SELECT f.name, r.state_type FROM flow_run r JOIN flow f ON f.id = r.flow_id").fetchall()
        )
        names = [row[0] for row in db.execute("SELECT name FROM flow_run")]
    assert flows == dict.fromkeys(("demo", "collect", "advice-batch", "train-runs", "evaluate"), "COMPLETED")
    assert any("crafter-demo-quick@v1#" in name and "seeds 0" in name for name in names)


def test_both_arms_learned_from_one_pinned_version_and_were_evaluated(walked):
    folder, *_ = walked
    runs = folder / "runs" / "demo-quick"
    configs = {arm: json.loads((runs / arm / "config.json").read_text())["config"] for arm in ("none", "abc")}
    ref = configs["abc"]["advice"]["dataset"]
    assert configs["none"]["advice"]["dataset"] == "" and ref.startswith("crafter-demo-quick@v1#")
    data = load_advice(ref, folder / "datasets")
    assert len(data.rows) > 60 and data.model is not None
    for arm in configs:
        last = json.loads((runs / arm / "progress.jsonl").read_text().splitlines()[-1])
        assert last["step"] == last["total"] == 160
        assert json.loads((runs / arm / "evaluation.json").read_text())["final_policy"]["as_trained"]["episodes"] == 1


def test_nothing_outlives_the_walk(walked):
    folder, *_ = walked
    assert processes_in(folder) == []


@pytest.fixture
def there(walked, monkeypatch):
    """The folder of the walk, as the one that ``lore`` is called in."""
    monkeypatch.chdir(walked[0])
    monkeypatch.setenv("LORE_DATASETS", str(walked[0] / "datasets"))
    return walked[0]


def test_a_second_walk_skips_what_is_done_and_makes_no_new_version(there, capsys):
    folder = there
    before = {name: Store(folder / "datasets").versions(name) for name in Store(folder / "datasets").names()}
    began = time.monotonic()
    assert cli.main(["demo", *SMALL, "--direct"]) == 0
    out = capsys.readouterr().out
    assert out.count("done before, skipped") == 4 and time.monotonic() - began < 60
    after = {name: Store(folder / "datasets").versions(name) for name in Store(folder / "datasets").names()}
    assert before == after


def test_other_settings_in_the_same_folder_are_refused(there, capsys):
    assert cli.main(["demo", *SMALL, "--direct", "--seed", "5"]) == 3
    assert "was begun with seed 0" in capsys.readouterr().err


def test_ctrl_c_while_training_saves_and_says_how_to_go_on(walked, tmp_path):
    """Begun where states and advice are stored already."""
    for name in ("datasets", "runs"):
        shutil.copytree(walked[0] / name, tmp_path / name, ignore=shutil.ignore_patterns("none", "abc", "prefect"))
    process = start(tmp_path, "--direct", "--steps", "100000")
    assert _until(tmp_path / "runs" / "demo-quick" / "abc" / "progress.jsonl", process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on with `lore demo" in out and "Traceback" not in out
    assert (tmp_path / "runs" / "demo-quick" / "abc" / "checkpoint.safetensors").is_file()
    assert processes_in(tmp_path) == []


def _until(path: Path, process: subprocess.Popen[str], seconds: float = 120.0) -> bool:
    """Wait until a file has a training row."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and '"phase": "training"' in path.read_text():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_a_walk_killed_at_random_moments_completes_and_leaves_no_orphan(tmp_path):
    moments = random.Random(0)
    for _ in range(6):
        process = start(tmp_path)
        try:
            process.communicate(timeout=moments.uniform(3, 40))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        time.sleep(1.0)
        assert processes_in(tmp_path) == []
    out = finished(start(tmp_path))
    assert "report: " in out
    store = Store(tmp_path / "datasets")
    assert {name: store.versions(name) for name in store.names()} == {name: [1] for name in store.names()}
    for name in store.names():
        store.verify(name)
