"""schedules.toml: what it may say, what each mistake is called and in which line, and what deployments come of it."""

from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from flows.config import AblateJob, RefreshJob
from flows.lab.notify import Notify
from flows.lab.schedules import FLOWS, check_datasets, read_notify, read_schedules
from flows.lab.up import UpJob, read_auth
from lore.config import replace as configured
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, Busy, ConfigError, LoreError, NotFound, ServiceError, UsageError
from lore_datasets.testing import small_states

ROOT = Path(__file__).parents[3]
NIGHTLY = """# a comment
[nightly]
flow = "refresh-round"
cron = "0 3 * * *"
timezone = "Europe/Zurich"

[nightly.job]
folder = "runs/a"
rounds = 2
select = {budget = 50, coverage = 0.5}
ask.backend = "rules"
"""


def read(tmp_path, text):
    path = tmp_path / "schedules.toml"
    path.write_text(text)
    return read_schedules(path)


def test_a_schedule_says_when_what_and_with_which_settings(tmp_path):
    (found,) = read(tmp_path, NIGHTLY)
    assert (found.name, found.flow, found.when) == ("nightly", "refresh-round", "cron 0 3 * * * (Europe/Zurich)")
    assert isinstance(found.job, RefreshJob) and (found.job.folder, found.job.rounds) == ("runs/a", 2)
    assert (found.job.select.budget, found.job.select.coverage, found.job.ask.backend) == (50, 0.5, "rules")
    both = read(tmp_path, '[a]\nflow = "collect"\ninterval = "90m"\n[b]\nflow = "ablate"\nactive = false\n')
    assert [s.when for s in both] == ["every 90m", "by hand"] and [s.active for s in both] == [True, False]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[a]\nflow = "collect"\ncron = "0 3 * *"\n', 3, "is no cron line"),
        ('[a]\nflow = "collect"\n\ncron = "61 3 * * *"\n', 4, "61"),
        ('[a]\nflow = "collect"\ninterval = "1s"\n', 3, "out of range"),
        ('[a]\nflow = "ablate"\n[a.job]\nsteps = 5\narms = "X"\n', 3, "unknown arm 'X'"),
        ('[a]\nflow = "ablate"\n[a.job]\nsteps = 5\nonly = "nope"\n', 3, "no cell 'nope'"),
        ('[a]\nflow = "ablate"\n[a.job]\npreset = "quick"\nsteps = 5\n', 5, "--steps beside --preset quick"),
        ('[a]\nflow = "evaluate"\n[a.job]\nseed = -4\n', 4, "seed = -4 is out of range"),
        ('[a]\nflow = "collect"\ninterval = 60\n', 3, "out of range"),
        ('[a]\nflow = "collect"\ncron = "0 3 * * *"\ninterval = "1h"\n', 4, "exclude each other"),
        ('[a]\nflow = "refresh"\n', 2, "is no flow"),
        ('[a]\ninterval = "1h"\n', 1, "is no flow"),
        ('[a]\nflow = ["collect"]\n', 2, "is no flow"),
        ('[a]\nflow = "collect"\nevery = "1h"\n', 3, "unknown setting 'every'"),
        ('[a]\nflow = "collect"\ntimezone = "Mars/Base"\n', 3, "unknown"),
        ('[a]\nflow = "collect"\nactive = "no"\n', 3, "active"),
        ('[A b]\nflow = "collect"\n', 1, "Expected"),
        ('["A b"]\nflow = "collect"\n', 1, "is no name"),
        ('[a]\nflow = "collect"\n[a.job]\nnmae = "x"\n', 4, "unknown setting 'job.nmae'"),
        ('[a]\nflow = "collect"\n[a.job.collect]\nseed = 1\nbudgets = 3\n', 5, "job.collect.budgets"),
        ('[a]\nflow = "collect"\n[a.job]\ndataset = 5\n', 4, "job.dataset"),
        ('[a]\nflow = "refresh-round"\n[a.job]\nvisits = 3\nrounds = 0\n', 5, "rounds = 0 is out of range"),
        ('[a]\nflow = "train"\n[a.job]\ndataset = "talk"\n', 4, "names no version exactly"),
        ('[a]\nflow = "train"\n[a.job]\nseeds = 3\nfirst_seed = "x"\n', 5, "unknown setting 'job.first_seed'"),
        ('[a]\nflow = "collect"\njob = 3\n', 3, "job is not a table"),
        ('a = 3\n', 1, "is not a table"),
        ('[b]\nflow = "collect"\n[by-hand]\nflow = "collect"\n', 3, "[by-hand] is taken"),
        ('[a]\nflow = "collect"\ncron = "0 3 * * 5L"\n', 3, "is no cron line"),
        ('[a]\nflow = "collect"\ncron = "0 3 LW * *"\n', 3, "is no cron line"),
        ('[a]\nflow = "collect"\ncron = "0 3 * * 1#2"\n', 3, "is no cron line"),
        ('[a]\nflow = "collect"\nflow = "train"\n', 3, "Cannot overwrite"),
        ('[a\n', 1, "Expected"),
    ],
)  # fmt: skip
def test_every_mistake_is_named_with_its_line(tmp_path, text, line, said):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert f"schedules.toml, line {line}: " in str(caught.value) and said in str(caught.value)


def test_a_table_changes_single_settings_of_what_its_job_has_by_itself(tmp_path):
    from flows.lab.deployments import flow_of

    text = """[r]\nflow = "refresh-round"\n[r.job]\nselect = {budget = 300}
[s]\nflow = "ablate"\n[s.job.config.train]\ntrain_ratio = 32.0\n"""
    refresh, study = read(tmp_path, text)
    assert refresh.job.select == replace(RefreshJob().select, budget=300)
    assert study.job.config == configured(AblateJob().config, **{"train.train_ratio": 32.0})
    for each in (refresh, study):  # what Prefect makes of it, and of a form that is filled in by hand
        assert flow_of(each.flow).validate_parameters({"job": each.parameters})["job"] == each.job


def test_brackets_in_brackets_are_an_error_of_ours(tmp_path):
    with pytest.raises(ConfigError, match="nested too deeply"):
        read(tmp_path, "a = " + "[" * 20_000)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFound, match="no file"):
        read_schedules(tmp_path / "none.toml")


def test_deployments_of_unknown_runs_and_datasets_are_refused_before_anything_starts(tmp_path, own_datasets):
    path = tmp_path / "schedules.toml"
    with pytest.raises(NotFound, match=r"line 2: nightly: no run in runs/a"):
        check_datasets(read(tmp_path, NIGHTLY), path)
    advice = '[ask]\nflow = "advice-batch"\n[ask.job]\nstates = "{}"\n'
    with pytest.raises(NotFound, match="line 1: ask: "):
        check_datasets(read(tmp_path, advice.format("nobody")), path)
    check_datasets(
        read(tmp_path, '[play]\nflow = "collect"\n[play.job]\ndataset = "nobody"\n' + advice.format("nobody")), path
    )
    ref = str(small_states(own_datasets, get_environment("crafter"), n=5))
    check_datasets(read(tmp_path, advice.format(ref)), path)
    wrong = ref.split("#")[0] + "#0123456789ab"
    with pytest.raises(NotFound, match="has digest"):
        check_datasets(read(tmp_path, advice.format(wrong)), path)
    for no_states in ('advise = {kinds = "program"}\n', "revise = true\n"):
        check_datasets(read(tmp_path, advice.format("nobody") + no_states), path)
    study = '[s]\nflow = "ablate"\n[s.job]\nadvisers = "x=nobody"\n'
    with pytest.raises(NotFound, match="line 1: s: no dataset 'nobody'"):
        check_datasets(read(tmp_path, study), path)
    preset = '[s]\nflow = "ablate"\n[s.job]\npreset = "quick"\n[look]\nflow = "evaluate"\n[look.job]\n'
    check_datasets(read(tmp_path, preset + 'folder = "runs/ablate-quick/none/seed-0"\n'), path)
    evaluate = '[look]\nflow = "evaluate"\n[look.job]\nfolder = "runs/seeds/seed-0"\n'
    with pytest.raises(NotFound, match="line 1: look: no run in runs/seeds/seed-0"):
        check_datasets(read(tmp_path, evaluate), path)
    check_datasets(read(tmp_path, evaluate + '[make]\nflow = "train"\n'), path)


def test_the_file_that_ships_is_valid():
    shipped = read_schedules(ROOT / "schedules.toml")
    assert [(s.flow, s.when) for s in shipped] == [("collect", "cron 0 2 * * * (UTC)"), ("advice-batch", "by hand")]
    text = (ROOT / "schedules.toml").read_text()
    start = text.index("# [nightly]")
    live = "\n".join(line.removeprefix("# ").removeprefix("#") for line in text[start:].splitlines())
    assert "[nightly.job]" in live


def test_the_commented_example_is_valid_too(tmp_path):
    text = (ROOT / "schedules.toml").read_text()
    example = text[text.index("# [nightly]") :]
    (found,) = read(tmp_path, "\n".join(line.removeprefix("#").strip() for line in example.splitlines()))
    assert found.flow == "refresh-round" and found.job.select.unsure == 0.2


def test_every_flow_becomes_a_deployment_that_cancels_overlaps(tmp_path):
    from flows.lab.deployments import BY_HAND, TAG, deployments

    made = deployments(read(tmp_path, NIGHTLY))
    assert [(d.flow_name, d.name) for d in made] == [("refresh-round", "nightly")] + [
        (d.flow_name, BY_HAND) for d in made[1:]
    ]
    assert len(made) == 1 + len(FLOWS)
    for each in made:
        assert each.tags == [TAG] and each.concurrency_limit == 1
        assert each.concurrency_options.collision_strategy.value == "CANCEL_NEW"
        assert set(each._parameter_openapi_schema.properties) >= {"job"}
    nightly = made[0]
    assert nightly.parameters["job"]["rounds"] == 2
    assert [s.schedule.cron for s in nightly.schedules] == ["0 3 * * *"]


def test_an_interval_runs_at_the_same_hours_however_often_the_lab_is_started(tmp_path):
    from datetime import UTC, datetime, timedelta

    from flows.lab.deployments import deployments

    text = '[a]\nflow = "collect"\ninterval = "1d"\ntimezone = "Asia/Tokyo"\n'
    first, second = (deployments(read(tmp_path, text))[0].schedules[0].schedule for _ in range(2))
    assert first.anchor_date == second.anchor_date and first.interval == timedelta(days=1)
    assert first.anchor_date.astimezone(UTC) == datetime(2023, 12, 31, 15, tzinfo=UTC), "midnight in Tokyo"


def test_a_lab_on_the_other_loopback_has_addresses_that_can_be_asked(tmp_path):
    from flows.prefect_flows.runtime import free_port, lab_environment, origin_of

    assert lab_environment(tmp_path, "::1", 4321, "a:b")["PREFECT_API_URL"] == "http://[::1]:4321/api"
    assert origin_of("127.0.0.1", 1) == "http://127.0.0.1:1" and origin_of("::", 1) == "http://127.0.0.1:1"
    try:
        assert free_port("::1") > 0
    except OSError:
        pytest.skip("this machine has no IPv6")


RUN = {
    "name": "refresh a",
    "id": "7",
    "state_type": "FAILED",
    "state": {"type": "FAILED", "message": "service: no answer"},
}


def test_a_failed_run_is_handed_to_a_command_or_to_a_page_of_this_machine(tmp_path):
    from http.server import BaseHTTPRequestHandler, HTTPServer

    said = []

    class Page(BaseHTTPRequestHandler):
        def do_POST(self):
            said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if self.path == "/failed" else 500)
            self.end_headers()

        def log_message(self, *_):
            pass

    read(tmp_path, NIGHTLY)
    assert read_notify(tmp_path / "schedules.toml") is None
    with HTTPServer(("127.0.0.1", 0), Page) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        (tmp_path / "schedules.toml").write_text(f'notify = "http://127.0.0.1:{http.server_port}/failed"\n' + NIGHTLY)
        assert [s.name for s in read_schedules(tmp_path / "schedules.toml")] == ["nightly"]
        assert read_notify(tmp_path / "schedules.toml").tell(RUN) == ""
        assert Notify.of(f"http://127.0.0.1:{http.server_port}/x").tell(RUN) == "status 500"
        http.shutdown()
    assert said[0] == {"run": "refresh a", "id": "7", "state": "FAILED", "message": "service: no answer"}
    (tmp_path / "tell.sh").write_text('cat > "$1"\n')
    assert Notify.of(["sh", str(tmp_path / "tell.sh"), str(tmp_path / "told")]).tell(RUN) == ""
    assert json.loads((tmp_path / "told").read_text()) == said[0]
    assert Notify.of(["sh", "-c", "echo no >&2; exit 3"]).tell(RUN) == "code 3: no"
    assert "FileNotFoundError" in Notify.of([str(tmp_path / "absent")]).tell(RUN)


@pytest.mark.parametrize("value", ['"http://example.org/x"', '"ftp://127.0.0.1"', "[]", "3", '["sh", 3]', '"http://["'])
def test_nobody_elsewhere_is_told(tmp_path, value):
    (tmp_path / "schedules.toml").write_text(f"# x\nnotify = {value}\n")
    with pytest.raises(ConfigError, match=r"schedules\.toml, line 2: notify = "):
        read_notify(tmp_path / "schedules.toml")


def test_a_run_that_fails_in_the_lab_is_told_once(monkeypatch):
    from flows.lab import up

    told, rounds = (
        [],
        iter([[], [RUN], [RUN | {"state_type": "FAILED"}], [RUN | {"id": "8", "state_type": "CANCELLED"}]]),
    )

    class Seen:
        def runs(self):
            return next(rounds)

    monkeypatch.setattr(up.time, "sleep", lambda s: None)
    monkeypatch.setattr(Notify, "tell", lambda self, run: told.append(run["id"]) or "")
    left = iter([False, False, False, True])
    up._watch(up.Lab("", Seen()), lambda: next(left), Notify(command=("x",)))
    assert told == ["7"]


def test_the_work_pool_file_names_flows_that_exist_with_settings_that_hold():
    import yaml
    from pydantic import TypeAdapter

    from flows.lab.deployments import flow_of

    body = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    entries = {entry["entrypoint"]: entry for entry in body["deployments"]}
    for name, (target, kind) in FLOWS.items():
        module, _, attribute = target.partition(":")
        entry = entries.pop(f"{module.replace('.', '/')}.py:{attribute}")
        assert flow_of(name) is not None
        TypeAdapter(kind).validate_python(entry["parameters"]["job"])
        if name in ("train", "refresh-round", "ablate"):
            assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert not entries


def test_an_open_address_needs_an_auth_string_from_a_file_of_one_s_own(tmp_path):
    assert read_auth(UpJob(), {}) == ""
    with pytest.raises(UsageError, match="everybody on that network"):
        read_auth(UpJob(host="0.0.0.0"), {})
    secret = tmp_path / "auth"
    secret.write_text("lab:a-long-password\n")
    secret.chmod(0o644)
    job = UpJob(host="0.0.0.0", auth_file=str(secret))
    with pytest.raises(UsageError, match="can be read by others"):
        read_auth(job, {})
    secret.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert read_auth(job, {}) == read_auth(UpJob(host="0.0.0.0"), {"LORE_AUTH": "lab:a-long-password"})
    secret.write_bytes(b"lab:\xff-long-password")
    with pytest.raises(UsageError, match="auth is not text"):
        read_auth(job, {})
    for weak in ("lab", "lab:short", ":a-long-password", "lab:with a space in it"):
        with pytest.raises(UsageError, match="not user:password"):
            read_auth(UpJob(), {"LORE_AUTH": weak})
    with pytest.raises(NotFound, match="no file"):
        read_auth(UpJob(auth_file=str(tmp_path / "gone")), {})


def test_a_taken_port_is_named_before_anything_starts(tmp_path, monkeypatch):
    import socket

    from flows.lab.up import up

    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Busy, match=f"port {port} on 127.0.0.1 is taken"):
            up(UpJob(port=port))
        with pytest.raises(Busy, match="TensorBoard cannot listen there"):
            up(UpJob(port=0, reports_port=0, tensorboard_port=port))
        with pytest.raises(Busy, match="the list of reports cannot listen there"):
            up(UpJob(port=0, reports_port=port))
    assert os.listdir(tmp_path) == []
    with pytest.raises(ConfigError, match="port = 80 is out of range"):
        UpJob(port=80)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
@pytest.mark.parametrize("port", [0, 4200])
def test_a_host_that_is_not_this_machine_is_named(tmp_path, monkeypatch, host, port):
    from flows.lab.up import up

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORE_AUTH", "lab:a-long-password")
    with pytest.raises(BadInput, match=f"{host} is no address of this machine"):
        up(UpJob(host=host, port=port))


def test_reports_are_served_by_name_and_nothing_else(tmp_path):
    import threading

    import httpx

    from flows.lab.report_server import pages, server

    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "report.html").write_text("<p>the report</p>")
    (tmp_path / "runs" / "a" / "config.json").write_text("{}")
    (tmp_path / "secret.html").write_text("no")
    (tmp_path / "runs" / "ablation.html").symlink_to(tmp_path / "secret.html")
    (tmp_path / "runs" / "reports").mkdir()
    evil = '<title>&lt;img src=x&gt;</title><p class="verdict">Much <b>better</b>.</p>'
    (tmp_path / "runs" / "reports" / "talk-v1.html").write_text(evil)
    os.utime(tmp_path / "runs" / "reports" / "talk-v1.html", (1, 1))
    assert pages(tmp_path / "runs") == ["a/report.html", "reports/talk-v1.html"]
    with server(tmp_path / "runs", 0) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{http.server_port}"
        index = httpx.get(base).text
        assert 'href="/a/report.html"' in index and "Much better." in index and "2 of 2" in index
        assert "&lt;img src=x&gt;" in index and "<img" not in index
        assert httpx.get(f"{base}/a/report.html").text == "<p>the report</p>"
        for path in ("/a/config.json", "/../secret.html", "/%2e%2e/secret.html", "/ablation.html", "/a/"):
            assert httpx.get(base + path).status_code == 404
        http.shutdown()


def test_a_web_page_that_points_its_own_name_at_loopback_reads_no_report(tmp_path):
    import threading

    import httpx

    from flows.lab.report_server import server

    (tmp_path / "report.html").write_text("<p>the report</p>")
    with server(tmp_path, 0) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{http.server_port}/report.html"
        for name, code in (("evil.example", 403), ("127.0.0.1.evil.example:80", 403), ("", 403),
                           (f"localhost:{http.server_port}", 200), ("127.0.0.1:8000", 200)):  # fmt: skip
            answer = httpx.get(url, headers={"Host": name, "Origin": "http://evil.example"})
            assert answer.status_code == code and ("report" in answer.text) == (code == 200), name
            assert "access-control-allow-origin" not in answer.headers
        http.shutdown()


def test_errors_survive_being_told_with_their_line(tmp_path, own_datasets):
    with pytest.raises(LoreError) as caught:
        check_datasets(read(tmp_path, NIGHTLY), tmp_path / "schedules.toml")
    assert caught.value.exit_code == 3 and caught.value.hint


def test_the_settings_of_a_lab_are_ones_that_prefect_takes(tmp_path, monkeypatch):
    from prefect.settings import Settings

    from flows.prefect_flows.runtime import lab_environment

    environment = lab_environment(tmp_path, "127.0.0.1", 4321, "lab:a-long-password")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = Settings()
    assert found.server.api.port == 4321 and found.api.url == "http://127.0.0.1:4321/api"
    assert found.server.services.scheduler.max_runs == 5 and not found.server.analytics_enabled
    assert found.server.api.auth_string.get_secret_value() == "lab:a-long-password"
    assert found.api.auth_string.get_secret_value() == "lab:a-long-password"


def test_every_start_has_an_auth_string_of_its_own_that_its_owner_alone_can_read(tmp_path):
    from flows.prefect_flows.runtime import new_auth, write_auth

    first, second = new_auth(), new_auth()
    assert first != second and first.startswith("lore:") and len(first) > 30
    path = write_auth(tmp_path / "home", first)
    path.chmod(0o644)
    with path.open() as before:
        assert write_auth(tmp_path / "home", second) == path
        assert before.read() == first and path.read_text() == second
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lab_of_somebody_else_is_named(tmp_path, monkeypatch):
    from flows.prefect_flows import runtime

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(runtime, "running_lab", lambda home: "http://127.0.0.1:4321/api")
    monkeypatch.setattr(runtime, "prepare", lambda home: None)
    with pytest.raises(ServiceError, match="auth cannot be read"), runtime.embedded_server(tmp_path):
        raise AssertionError("nobody let us in")
    runtime.write_auth(tmp_path, "lore:0123456789ab")
    with runtime.embedded_server(tmp_path) as url:
        assert url == os.environ["PREFECT_API_URL"] and os.environ["PREFECT_API_AUTH_STRING"] == "lore:0123456789ab"
    assert "PREFECT_API_AUTH_STRING" not in os.environ
