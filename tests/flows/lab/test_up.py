"""A lab left alone: a real server, a schedule of one minute, a cancel, a kill, a restart, the page that people see."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from flows.config import AdviceJob, CollectJob
from flows.jobs.advise import advise_states
from flows.jobs.collect import play_states
from flows.jobs.distil import distil_model
from flows.jobs.rounds import finished_rounds
from flows.lab.lab_api import Api
from flows.lab.schedules import FLOWS
from lore.config import load_config
from lore.training import checkpoint
from lore.training.advice_versions import versions
from lore.training.folder import CHECKPOINT
from lore.training.loop import train
from lore_datasets.store.store import Store
from pipeline.config import CollectConfig, SelectConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 2.0, "horizon": 5,
    "warmup": 5, "log_interval": 20, "threads": 1, "replay_capacity": 20_000, "env.length": 60, "device": "cpu",
    "train.save_interval_s": 5.0, "gate.enabled": True,
}  # fmt: skip
EACH_MINUTE = """
[minute]
flow = "refresh-round"
interval = "1m"

[minute.job]
folder = "runs/seed-0"
visits = 40
steps = 40
epochs = 1
select = {budget = 15, novelty = 0.2, coverage = 0.4, unsure = 0.2}
"""
KEPT = Path(os.environ.get("LORE_TEST_ARTIFACTS", Path(__file__).parents[3] / "runs" / "test-artifacts"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Up:
    """A ``lore up`` in a folder, with its API."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder, self.file = folder, folder / "runs" / "prefect" / "lab.json"
        self.log = (folder / "up.log").open("ab")
        stale = self.written()  # of a lab that was killed
        words = [sys.executable, "-m", "flows", "up", "--port", "0", "--reports-port", "0", *more]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore Ctrl-C
        dead = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9") | {
            "ALL_PROXY": "socks5://127.0.0.1:9"
        }
        env = {**os.environ, **dead, "NO_PROXY": "example.org"}  # nobody listens there: loopback must not go there
        self.process = subprocess.Popen(words, cwd=folder, env=env, stdout=self.log, stderr=subprocess.STDOUT)
        wait_for(lambda: self.written() > stale or self.process.poll() is not None, 900)
        assert self.process.poll() is None, self.said()
        self.about = json.loads(self.file.read_text())
        self.secret = folder / "runs" / "prefect" / "auth"
        self.api = Api(self.about["url"], self.secret.read_text())

    def written(self) -> int:
        return self.file.stat().st_mtime_ns if self.file.exists() else 0

    def said(self) -> str:
        return (self.folder / "up.log").read_text()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def deployments(self) -> list[dict]:
        return self.api.call("POST", "/deployments/filter", {"limit": 200})

    def deployment(self, name: str) -> str:
        return next(d["id"] for d in self.deployments() if d["name"] == name and "refresh" in d["entrypoint"])


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.3)
    return condition()


def all_gone(processes) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A store with one advice version, a run that learned from it, and the schedule."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "runs" / "datasets"))
    for name in [n for n in os.environ if n.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    states = play_states(CollectJob("play", CollectConfig(budget=60, stride=2)))
    first = advise_states(AdviceJob(str(states), "talk", select=SelectConfig(budget=30)))
    distil_model(first, 1)
    train(load_config(**SMALL, steps=60, dataset=str(first)), "runs/seed-0", tensorboard=False)
    (tmp_path / "schedules.toml").write_text(EACH_MINUTE)
    started: list[Up] = []

    def start(*more: str) -> Up:
        started.append(Up(tmp_path, *more))
        return started[-1]

    yield tmp_path, str(first), start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        each.log.close()


def test_a_lab_left_alone_refreshes_trains_and_survives(lab):
    folder, first, start = lab
    run = folder / "runs" / "seed-0"
    up = start("--tensorboard-port", "0")
    listens_on_loopback_only(up)
    nobody_else_starts_anything(up)
    two_rounds_by_themselves(run, first)
    finished = next(r for r in up.api.runs(["COMPLETED"]))
    the_page_shows(up, finished)
    cancelled_while_training(up, run)
    killed_and_started_again(up, start, run)


OF_BEFORE = """
[states]
flow = "collect"
interval = "1d"
[states.job]
name = "states"
collect = { budget = 40, seed = 0 }
"""


def test_a_lab_that_an_older_release_started_goes_on(tmp_path, monkeypatch):
    """Its database, of November 2026, with a deployment and three runs that were due; its file with older names."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "runs" / "prefect"
    home.mkdir(parents=True)
    kept = Path(__file__).parents[2] / "data" / "lab-home-2026-11.db.xz"
    (home / "prefect.db").write_bytes(lzma.decompress(kept.read_bytes()))
    (tmp_path / "schedules.toml").write_text(OF_BEFORE)
    up = Up(tmp_path, "--server-only")
    try:
        deployments = {(d["name"], d["entrypoint"].split("/")[-1]) for d in up.deployments()}
        assert ("states", "collect.py:collect") in deployments and len(deployments) == 1 + len(FLOWS)
        assert all("prefect_flows" in d["entrypoint"] for d in up.deployments()), "none of the older release"
        (states,) = [d for d in up.deployments() if d["name"] == "states"]
        assert states["schedules"][0]["schedule"]["anchor_date"].startswith("2024-01-01")
        job = {"dataset": "by-hand", "collect": {"budget": 6}}
        hand = next(d["id"] for d in up.deployments() if d["name"] == "by-hand" and "collect" in d["entrypoint"])
        up.api.call("POST", f"/deployments/{hand}/create_flow_run", {"parameters": {"job": job}})
        assert wait_for(lambda: up.api.runs(["COMPLETED"], deployment_id={"any_": [hand]}), 300), up.said()
    finally:
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(120) == 0
        up.log.close()


def listens_on_loopback_only(up: Up) -> None:
    family = [psutil.Process(up.process.pid), *up.family()]
    found = [c for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(found) >= 3 and {c.laddr.ip for c in found} <= {"127.0.0.1", "::1"}


def nobody_else_starts_anything(up: Up) -> None:
    """Without the auth string no deployment is posted, whose pull steps could run any shell command."""
    assert up.secret.stat().st_mode & 0o777 == 0o600 and up.secret.read_text() not in up.said()
    evil = {"Origin": "http://evil.example"}
    url = up.about["url"]
    for method, path in (("POST", "/flows/"), ("POST", "/deployments/"), ("POST", "/flow_runs/filter")):
        answer = httpx.request(method, url + path, json={}, headers=evil)
        assert answer.status_code == 401 and "access-control-allow-origin" not in answer.headers
        answer = httpx.request(method, url + path, json={}, headers=evil, auth=("lore", "a-wrong-password"))
        assert answer.status_code == 401
    wants = {**evil, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert httpx.options(url + "/deployments/", headers=wants).status_code == 400


def two_rounds_by_themselves(run: Path, first: str) -> None:
    assert wait_for(lambda: len(finished_rounds(run)) >= 2, 900), (run.parents[1] / "up.log").read_text()
    second, third = finished_rounds(run)[:2]
    store = Store()
    assert [r["advice"].split("#")[0] for r in (second, third)] == ["talk@v2", "talk@v3"]
    assert first in store.manifest(second["advice"]).parents
    assert second["advice"] in store.manifest(third["advice"]).parents
    assert [(r["from"], r["to"]) for r in (second, third)] == [(60, 100), (100, 140)]
    assert [(row["step"], row["advice"]) for row in versions(run)][:3] == [
        (0, first), (60, second["advice"]), (100, third["advice"])
    ]  # fmt: skip


def the_page_shows(up: Up, finished: dict) -> None:
    mine = {"artifacts": {"flow_run_id": {"any_": [finished["id"]]}}, "limit": 200}
    made = {a["key"]: a for a in up.api.call("POST", "/artifacts/filter", mine)}
    assert {"markdown", "table", "progress"} <= {a["type"] for a in made.values()}
    url = f"{up.about['links']['reports']}seed-0/report.html"
    assert url in made["report-seed-0"]["data"] and httpx.get(url, trust_env=False).status_code == 200
    assert "round" in finished["name"] and "talk@v" in finished["name"] and "seed 0" in finished["name"]
    if CHROMIUM is None:
        return
    page = f"{up.about['url'].removesuffix('/api')}/v2/runs/flow-run/{finished['id']}?tab=Artifacts"
    KEPT.mkdir(parents=True, exist_ok=True)
    picture = KEPT / "refresh-round.png"
    picture.unlink(missing_ok=True)
    common = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000",
              "--window-size=1400,1100", "--hide-scrollbars"]  # fmt: skip
    profile = [f"--user-data-dir={up.folder / 'chromium'}"]
    shot = subprocess.run([*common, *profile, f"--screenshot={picture}", page], capture_output=True, timeout=300)
    assert shot.returncode == 0 and picture.stat().st_size > 20_000
    dom = subprocess.run([*common, *profile, "--dump-dom", page], capture_output=True, timeout=300, text=True).stdout
    assert finished["name"].split(":")[0] in dom and "Completed" in dom


def cancelled_while_training(up: Up, run: Path) -> None:
    """A long run from its form is cancelled through the API; the checkpoint holds its last step."""
    from flows.jobs.training_process import last_row

    job = {"folder": "runs/seed-0", "visits": 30, "steps": 200_000, "epochs": 1, "select": {"budget": 8}}
    deployment = up.deployment("by-hand")

    def training() -> str:
        mine = up.api.runs(["RUNNING"], deployment_id={"any_": [deployment]})
        if not mine and not up.api.runs(["RUNNING", "PENDING"]):
            up.api.call("POST", f"/deployments/{deployment}/create_flow_run", {"parameters": {"job": job}})
            wait_for(lambda: not up.api.runs(["SCHEDULED", "PENDING"], deployment_id={"any_": [deployment]}), 60)
        row = last_row(run / "progress.jsonl") or {}
        return mine[0]["id"] if mine and row["total"] > 200_000 and row["phase"] == "training" else ""

    mine = wait_for(training, 600)
    assert mine, up.said()
    trainers = [p for p in up.family() if "lore.main" in " ".join(p.cmdline())]
    assert trainers
    began = time.monotonic()
    cancelling = {"type": "CANCELLING", "name": "Cancelling", "message": "cancelled by request"}
    up.api.call("POST", f"/flow_runs/{mine}/set_state", {"state": cancelling, "force": False})
    state = wait_for(lambda: up.api.call("GET", f"/flow_runs/{mine}")["state_type"] == "CANCELLED", 120)
    took = time.monotonic() - began
    print(f"cancelled after {took:.1f} s at load {os.getloadavg()[0]:.1f}")
    assert state and wait_for(lambda: all_gone(trainers), 5)
    assert took < 75  # some ten seconds where the cores are free
    row = last_row(run / "progress.jsonl")
    assert row["phase"] == "interrupted" and checkpoint.load(run / CHECKPOINT)[1]["frames"] == row["step"]


def killed_and_started_again(up: Up, start, run: Path) -> None:
    """SIGKILL takes every child along; the next start marks what was running as crashed, and training goes on."""
    running = wait_for(lambda: up.api.runs(["RUNNING"]), 300)
    assert running
    family = up.family()
    up.process.send_signal(signal.SIGKILL)
    up.process.wait()
    assert wait_for(lambda: all_gone(family), 60)
    before = checkpoint.load(run / CHECKPOINT, fall_back=True)[1]["frames"]
    (run.parents[1] / "schedules.toml").write_text(EACH_MINUTE)
    again = start("--server-only")
    crashed = {r["id"] for r in again.api.runs(["CRASHED"])}
    assert {r["id"] for r in running} <= crashed
    assert wait_for(lambda: checkpoint_step(run) > before, 600), again.said()
    family = again.family()
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(120) == 0
    assert wait_for(lambda: all_gone(family), 10) and not again.file.exists() and not again.secret.exists()
    assert "marked as crashed" in again.said() and "nothing is left running" in again.said()


def checkpoint_step(run: Path) -> int:
    try:
        return int(checkpoint.load(run / CHECKPOINT, fall_back=True)[1]["frames"])
    except Exception:  # being replaced just now
        return 0
