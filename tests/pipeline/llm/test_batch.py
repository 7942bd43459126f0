"""Gemini's Batch API with the real SDK against a server on loopback: kills, partial results, no answer paid twice."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from lore_datasets.errors import ConfigError, ServiceError
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import backend_from
from pipeline.llm.backends.gemini import Gemini
from pipeline.llm.backends.gemini_batch import GeminiBatch
from pipeline.llm.base import Prompt
from pipeline.llm.journal.budget import JournalStats
from pipeline.llm.journal.journal import Journal
from pipeline.rounds.advise import advise
from tests.llm_server import killed_when_reached

KEY = "AIzaCANARYCANARYCANARYCANARYCANARYCANAR"
CHILD = """
import sys
from pipeline.llm.base import Prompt
from pipeline.llm.backends.gemini_batch import GeminiBatch
from pipeline.llm.backends.gemini import Gemini
from pipeline.llm.journal.journal import Journal
gemini = Gemini(base_url=sys.argv[1], backoff_s=0.01)
prompts = [Prompt("prior", "system", f"state {i}", {"type": "object"}, ("explore",)) for i in range(20)]
with Journal(sys.argv[2]) as journal:
    journal.ask(GeminiBatch(gemini, journal, sys.argv[3], poll_s=0.05), prompts)
"""


class Batches(BaseHTTPRequestHandler):
    """The parts of the service that batch jobs need; ``server.answers(key, text)`` makes each answer."""

    def log_message(self, *args):
        pass

    def _send(self, body, status=200, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        server, body = self.server, self.rfile.read(int(self.headers["content-length"]))
        if server.refused:
            self._send({"error": {"code": 401, "status": "UNAUTHENTICATED", "message": KEY}}, 401)
        elif ":batchGenerateContent" in self.path:
            job = json.loads(body)["batch"]
            source = job["inputConfig"]
            if "fileName" in source:
                lines = [json.loads(line) for line in server.files[source["fileName"]].splitlines()]
                asked = {line["key"]: line["request"] for line in lines}
            else:
                asked = {r["metadata"]["key"]: r["request"] for r in source["requests"]["requests"]}
            with server.lock:
                name = f"batches/job{len(server.jobs)}"
                server.jobs[name] = {"display": job["displayName"], "asked": asked, "file": "fileName" in source}
            if server.hold == "create":
                server.reached.set()
                server.release.wait(20)
                return
            self._send(self._job(name, "PENDING"))
        elif self.path.startswith("/upload"):
            url = f"http://127.0.0.1:{server.server_port}/put"
            self._send({}, headers=[("x-goog-upload-url", url), ("x-goog-upload-status", "active")])
        elif self.path.startswith("/put"):
            name = f"files/in{len(server.files)}"
            server.files[name] = body.decode()
            self._send({"file": {"name": name}}, headers=[("x-goog-upload-status", "final")])
        else:
            server.interactive += 1
            self._send(answer("alone"))

    def do_GET(self):
        server = self.server
        if ":download" in self.path:
            name = "batches/" + re.search(r"files/out-(job\d+)", self.path)[1]
            lines = [json.dumps({"key": r["metadata"]["key"], **{k: r[k] for k in r if k != "metadata"}})
                     for r in self._results(name)]  # fmt: skip
            self._send("\n".join([*lines, "not json"]).encode())
            return
        name = re.search(r"batches/(job\d+)", self.path)
        if name is None:
            self._send({"operations": [self._job(n, "PENDING") for n in server.jobs]})
            return
        server.polls += 1
        if server.hold == "poll":
            server.reached.set()
            server.release.wait(20)
            return
        if server.gone or f"batches/{name[1]}" not in server.jobs:
            self._send({"error": {"code": 404, "status": "NOT_FOUND", "message": KEY}}, 404)
        elif server.polls % 2:
            self._send(self._job(f"batches/{name[1]}", "RUNNING"))
        else:
            self._send(self._job(f"batches/{name[1]}", next(server.passing, server.state)))

    def _results(self, name):
        out = []
        for key, request in self.server.jobs[name]["asked"].items():
            made = self.server.answers(request["contents"][0]["parts"][0]["text"], name)
            if made is not None:
                about = {"metadata": {"key": key}} if self.server.keyed else {}
                out.append({**about, **({"error": {"code": 13}} if made == "error" else {"response": made})})
        return out[::-1] if self.server.shuffled else out

    def _job(self, name, state):
        job = self.server.jobs[name]
        about = {"state": f"BATCH_STATE_{state}", "displayName": job["display"]}
        if state in ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"):
            inlined = {"inlinedResponses": {"inlinedResponses": self._results(name)}}
            about["output"] = {"responsesFile": f"files/out-{name[8:]}"} if job["file"] else inlined
        return {"name": name, "metadata": about}


def answer(text):
    body = json.dumps({"ranked": ["explore"], "confidence": 0.5, "reason": text})
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": body}]}, "finishReason": "STOP"}],
            "modelVersion": "served-1",
            "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 10}}  # fmt: skip


@pytest.fixture
def server(serve):
    return serve(
        Batches, jobs={}, files={}, polls=0, interactive=0, hold="", gone=False, state="SUCCEEDED", keyed=True,
        refused=False, passing=iter(()), shuffled=False,
        answers=lambda text, job: answer(text), reached=threading.Event(),
    )  # fmt: skip


def batch(server, journal, mode="inline", **options):
    return GeminiBatch(Gemini(base_url=server.url, backoff_s=0.01), journal, mode, poll_s=0.02, **options)


def questions(n=20):
    return [Prompt("prior", "system", f"state {i}", {"type": "object"}, ("explore",)) for i in range(n)]


def test_answers_without_a_key_are_never_matched_by_their_position(server):
    """A service that shuffles its answers and drops their keys answers nothing; nobody is told to try again."""
    server.keyed, server.shuffled = False, True
    with Journal() as journal:
        with pytest.raises(ServiceError, match="10 answers without the keys of their questions") as said:
            journal.ask(batch(server, journal), questions(10))
        assert "later" not in said.value.hint and "pay them once more" in said.value.hint
        assert len(server.jobs) == 1 and len(journal) == 0
    server.keyed = True
    with Journal() as journal:
        responses = journal.ask(batch(server, journal), questions(10))
        assert [json.loads(r.text)["reason"] for r in responses] == [f"state {i}" for i in range(10)]


@pytest.mark.filterwarnings("ignore:.*not a valid JobState")  # as users have it
@pytest.mark.parametrize("state", ["FINALIZING", "UPDATING", "CANCELLING"])
def test_a_job_in_a_state_that_nobody_knows_is_waited_for_and_ordered_once(server, state):
    server.passing = iter([state] * 3)
    with Journal() as journal:
        assert len(journal.ask(batch(server, journal), questions(10))) == 10
    assert len(server.jobs) == 1 and server.polls >= 4


MODES = pytest.mark.parametrize("mode", ["inline", "file"])


@MODES
def test_all_questions_go_out_in_one_job_and_come_back_to_their_places(mode, server, tmp_path):
    with Journal(tmp_path / "j.sqlite") as journal:
        stats = JournalStats()
        responses = journal.ask(batch(server, journal, mode), questions(), stats=stats)
        assert [json.loads(r.text)["reason"] for r in responses] == [f"state {i}" for i in range(20)]
        assert responses[0].model == "served-1" and responses[0].tokens_in == 100 and stats.asked == 20
        assert len(server.jobs) == 1 and server.interactive == 0 and not journal.batches("gemini:gemini-2.5-flash-lite")
        request = next(iter(server.jobs["batches/job0"]["asked"].values()))
        assert request["systemInstruction"]["parts"][0]["text"] == "system"
        assert request["generationConfig"]["responseMimeType"] == "application/json"
        assert request["generationConfig"]["thinkingConfig"] in ({"thinkingBudget": 0}, {"thinking_budget": 0})
        assert journal.ask(Gemini(base_url=server.url), questions()) == responses  # the same key as interactively
    assert len(server.jobs) == 1 and server.interactive == 0
    assert KEY.encode() not in b"".join(p.read_bytes() for p in tmp_path.rglob("*"))


@MODES
@pytest.mark.parametrize("moment", ["create", "poll"])
def test_a_kill_before_the_name_is_known_or_before_the_first_poll_orders_nothing_twice(mode, moment, server, tmp_path):
    server.hold = moment
    killed_when_reached(server, CHILD, server.url, tmp_path / "j.sqlite", mode)
    with Journal(tmp_path / "j.sqlite") as journal:
        assert len(journal) == 0 and len(journal.batches("gemini:gemini-2.5-flash-lite")) == 1
        responses = journal.ask(batch(server, journal, mode), questions())
        assert [json.loads(r.text)["reason"] for r in responses] == [f"state {i}" for i in range(20)]
        assert not journal.batches("gemini:gemini-2.5-flash-lite")
    assert len(server.jobs) == 1


@MODES
@pytest.mark.parametrize("state", ["PARTIALLY_SUCCEEDED", "EXPIRED", "CANCELLED", "FAILED"])
def test_partial_results_are_used_and_the_rest_is_asked_again(mode, state, server):
    odd = {f"state {i}" for i in range(1, 20, 2)}
    server.state = state if state != "PARTIALLY_SUCCEEDED" else "SUCCEEDED"
    server.answers = lambda text, job: answer(text) if text not in odd or job != "batches/job0" else (
        None if text == "state 3" else "error")  # fmt: skip
    journal = Journal()
    responses = journal.ask(batch(server, journal, mode), questions())
    assert [json.loads(r.text)["reason"] for r in responses] == [f"state {i}" for i in range(20)]
    assert [len(job["asked"]) for job in server.jobs.values()] == [20, 10]


def test_what_no_job_answers_is_a_failure_that_the_next_run_asks_again(server, tmp_path):
    server.answers = lambda text, job: "error" if text < "state 2" else answer(text)
    with Journal(tmp_path / "j.sqlite") as journal:
        left = [r for r in journal.ask(batch(server, journal), questions()) if r.error is not None]
        assert {r.error for r in left} == {"batch request failed (code 13)"} and len(left) == 12  # the round goes on
        assert len(journal) == 9 - 1 and len(journal.failures()) == 12
        server.answers = lambda text, job: answer(text)
        assert all(r.error is None for r in journal.ask(batch(server, journal), questions()))
    assert [len(job["asked"]) for job in server.jobs.values()] == [20, 12, 12]


def test_a_job_that_the_service_forgot_is_ordered_again(server, tmp_path):
    with Journal(tmp_path / "j.sqlite") as journal:
        llm = batch(server, journal)
        journal.put_batch("batches/job77", llm.name, journal.keys(llm, questions()))
        assert all(r.error is None for r in journal.ask(llm, questions()))
        assert not journal.batches(llm.name) and len(server.jobs) == 1


def test_a_job_that_the_service_refuses_for_good_never_says_to_run_again_later(server):
    journal = Journal()
    server.refused = True
    with pytest.raises(ServiceError, match="batch job: the service refuses the key: HTTP 401") as stop:
        journal.ask(batch(server, journal), questions())
    assert "later" not in stop.value.hint and "check the key" in stop.value.hint


def test_few_questions_go_out_interactively(server):
    journal = Journal()
    assert all(r.error is None for r in journal.ask(batch(server, journal), questions(3)))
    assert server.interactive == 3 and not server.jobs


def test_a_whole_round_is_one_job_at_half_the_price(server, env, states, store):
    ask = AskConfig(backend="gemini", base_url=server.url, batch="inline", shard=16)
    journal = Journal()
    llm = backend_from(ask, journal=journal)
    assert isinstance(llm, GeminiBatch)
    llm.poll_s = 0.02
    config = PipelineConfig(ask=ask, advise=AdviseConfig(skill_questions=0, plan_share=0.0))
    ref = advise(states, env, llm, store, "a", config, journal)
    assert len(server.jobs) == 1 and store.manifest(ref).counts["rows"] > 0
    paid = Gemini()
    assert GeminiBatch(paid, journal).estimate(questions(1)[0]) == pytest.approx(paid.estimate(questions(1)[0]) / 2)
    for bad in ({"batch": "inline"}, {"batch": "later", "backend": "gemini"}):
        with pytest.raises(ConfigError, match="batch"):
            AskConfig(**bad)
