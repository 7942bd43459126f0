"""OpenAI's Batch API over aiohttp against a server on loopback: kills, partial results, cancelling, nothing twice."""

import json
import re
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler

import pytest

from flows.cli import main as cli
from lore_datasets.errors import ConfigError, ServiceError
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import backend_from, get_backend
from pipeline.llm.backends import openai_batch
from pipeline.llm.backends.openai import OpenAI
from pipeline.llm.backends.openai_batch import OpenAIBatch
from pipeline.llm.base import Prompt
from pipeline.llm.journal.journal import Journal
from pipeline.rounds.advise import advise
from tests.llm_server import killed_when_reached

NAME = "openai:m"
CHILD = """
import sys
from pipeline.llm.base import Prompt
from pipeline.llm.backends.openai import OpenAI
from pipeline.llm.backends.openai_batch import OpenAIBatch
from pipeline.llm.journal.journal import Journal
openai = OpenAI("m", base_url=sys.argv[1], backoff_s=0.01)
prompts = [Prompt("prior", "system", f"state {i}", {"type": "object"}, ("explore",)) for i in range(20)]
with Journal(sys.argv[2]) as journal:
    journal.ask(OpenAIBatch(openai, journal, poll_s=0.05), prompts)
"""


class Batches(BaseHTTPRequestHandler):
    """Files and batches as the service documents them; ``server.answers(text, job)`` makes each answer."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _send(self, body, status=200):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        server, body = self.server, self.rfile.read(int(self.headers.get("content-length") or 0))
        server.keys.add(self.headers.get("authorization"))
        if server.refused:
            self._send({"error": {"message": "no"}}, 401)
        elif self.path == "/v1/files":
            head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
            parts = {p.get_param("name", header="content-disposition"): p.get_payload(decode=True)
                     for p in message_from_bytes(head + body).get_payload()}  # fmt: skip
            assert parts["purpose"] == b"batch"
            server.files[f"file-{len(server.files)}"] = parts["file"]
            self._send({"id": f"file-{len(server.files) - 1}", "purpose": "batch"})
        elif self.path == "/v1/batches":
            job = json.loads(body)
            assert (job["endpoint"], job["completion_window"]) == ("/v1/chat/completions", "24h")
            lines = [json.loads(line) for line in server.files[job["input_file_id"]].splitlines()]
            name = f"batch_{len(server.jobs)}"
            server.jobs[name] = {"asked": lines, "metadata": job["metadata"], "status": server.state, "looked": 0}
            if server.hold == "create":
                server.reached.set()
                server.release.wait(20)
                return
            self._send(self._job(name))
        elif found := re.fullmatch(r"/v1/batches/(\w+)/cancel", self.path):
            server.jobs[found[1]]["status"] = "cancelled"
            self._send(self._job(found[1]))
        else:
            server.interactive += 1
            self._send(completion("alone"))

    def do_GET(self):
        server = self.server
        if found := re.fullmatch(r"/v1/files/(out|err)-(\w+)/content", self.path):
            lines = [json.dumps(row) for row in self._rows(found[2]) if bool(row["error"]) == (found[1] == "err")]
            self._send("\n".join([*lines, "not json", ""]).encode())
        elif self.path.startswith("/v1/batches?"):
            names = sorted(server.jobs, reverse=True)
            after = re.search(r"after=(\w+)", self.path)
            names = names[names.index(after[1]) + 1 :] if after else names
            page = {"data": [self._job(name) for name in names[:2]], "has_more": len(names) > 2}
            self._send(page)
        else:
            name = self.path.rpartition("/")[2]
            if server.hold == "poll":
                server.reached.set()
                server.release.wait(20)
                return
            if name in server.jobs:
                server.jobs[name]["looked"] += 1
                self._send(self._job(name))
            else:
                self._send({"error": {"message": "no such batch"}}, 404)

    def _job(self, name):
        job = self.server.jobs[name]
        ended = job["status"] != "completed" or job["looked"] % 2 == 0
        status = job["status"] if ended and job["looked"] else "in_progress"
        about = {"id": name, "object": "batch", "status": status, "metadata": job["metadata"]}
        if status == "failed":
            return {**about, "errors": {"data": [{"code": "invalid_model", "message": "no model m"}]}}
        return {**about, "output_file_id": f"out-{name}", "error_file_id": f"err-{name}"}

    def _rows(self, name):
        for line in self.server.jobs[name]["asked"]:
            text = line["body"]["messages"][1]["content"]
            made, key = self.server.answers(text, name), line["custom_id"] if self.server.keyed else None
            if made == "error":
                yield {"custom_id": key, "response": None, "error": {"code": "batch_expired", "message": "too late"}}
            elif made == 400:
                body = {"error": {"message": "use another", "param": "max_tokens"}}
                yield {"custom_id": key, "response": {"status_code": 400, "body": body}, "error": None}
            elif made is not None:
                yield {"custom_id": key, "response": {"status_code": 200, "body": made}, "error": None}


def completion(text):
    content = json.dumps({"ranked": ["explore"], "confidence": 0.5, "reason": text})
    return {"model": "served-1", "choices": [{"message": {"role": "assistant", "content": content},
            "finish_reason": "stop"}], "usage": {"prompt_tokens": 100, "completion_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 90}}}  # fmt: skip


@pytest.fixture
def server(serve):
    return serve(
        Batches, jobs={}, files={}, keys=set(), interactive=0, hold="", state="completed", keyed=True, refused=False,
        answers=lambda text, job: completion(text), reached=threading.Event(),
    )  # fmt: skip


def batch(server, journal, **options):
    openai = OpenAI("m", base_url=f"{server.url}/v1", backoff_s=0.01)
    return OpenAIBatch(openai, journal, poll_s=0.02, **options)


def questions(n=20):
    return [Prompt("prior", "system", f"state {i}", {"type": "object"}, ("explore",)) for i in range(n)]


def reasons(responses):
    return [json.loads(response.text)["reason"] for response in responses]


ALL = [f"state {i}" for i in range(20)]


def test_all_questions_go_out_in_one_file_and_come_back_to_their_places(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-CANARY")
    with Journal(tmp_path / "j.sqlite") as journal:
        responses = journal.ask(batch(server, journal), questions())
        assert reasons(responses) == ALL and (responses[0].model, responses[0].tokens_in) == ("served-1", 100)
        assert responses[0].tokens_cached == 90
        assert len(server.jobs) == 1 and not server.interactive and not journal.batches(NAME)
        alone = get_backend("openai", model="m", base_url=f"{server.url}/v1")
        assert journal.ask(alone, questions()) == responses and not server.interactive  # the same key as interactively
    line = server.jobs["batch_0"]["asked"][0]
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions") and len(line["custom_id"]) == 64
    assert line["body"]["response_format"]["type"] == "json_schema" and line["body"]["model"] == "m"
    assert server.keys == {"Bearer sk-CANARY"}
    assert b"CANARY" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*"))


@pytest.mark.parametrize("moment", ["create", "poll"])
def test_a_killed_run_orders_nothing_twice(moment, server, tmp_path):
    for old in range(3):  # the job is found behind others, on the list's second page
        server.jobs[f"batch_z{old}"] = {"asked": [], "metadata": {}, "status": "completed", "looked": 0}
    server.hold = moment
    killed_when_reached(server, CHILD, f"{server.url}/v1", tmp_path / "j.sqlite")
    with Journal(tmp_path / "j.sqlite") as journal:
        assert len(journal) == 0 and len(journal.batches(NAME)) == 1
        assert reasons(journal.ask(batch(server, journal), questions())) == ALL
        assert not journal.batches(NAME)
    assert len(server.jobs) == 4 and len(server.files) == 1


@pytest.mark.parametrize("state", ["completed", "expired", "cancelled"])
def test_partial_results_are_used_and_the_rest_is_asked_again(state, server):
    odd = {f"state {i}" for i in range(1, 20, 2)}
    server.state = state
    server.answers = lambda text, job: completion(text) if text not in odd or job != "batch_0" else (
        None if text == "state 3" else "error")  # fmt: skip
    journal = Journal()
    assert reasons(journal.ask(batch(server, journal), questions())) == ALL
    assert [len(job["asked"]) for job in server.jobs.values()] == [20, 10]


def test_what_stays_unanswered_fails_with_the_service_s_reason(server):
    server.answers = lambda text, job: "error"
    with pytest.raises(ServiceError, match="too late"):
        journal = Journal()
        journal.ask(batch(server, journal), questions())
    server.state = "failed"
    with pytest.raises(ServiceError, match="batch_3 failed: no model m"):
        journal = Journal()
        journal.ask(batch(server, journal), questions())


def test_a_model_that_refuses_max_tokens_is_ordered_again_without_it(server):
    server.answers = lambda text, job: 400 if job == "batch_0" else completion(text)
    journal = Journal()
    assert reasons(journal.ask(batch(server, journal), questions())) == ALL
    first, again = (job["asked"][0]["body"] for job in server.jobs.values())
    assert "max_tokens" in first and "max_tokens" not in again and again["max_completion_tokens"] > 1024


def test_answers_without_ids_are_used_for_nothing_and_not_ordered_again(server):
    server.keyed, journal = False, Journal()
    with pytest.raises(ServiceError, match="20 answers without the keys") as said:
        journal.ask(batch(server, journal), questions())
    assert "later" not in said.value.hint and len(server.jobs) == 1 and len(journal) == 0


def test_a_refused_key_and_a_forgotten_job(server):
    journal = Journal()
    llm = batch(server, journal)
    journal.put_batch("batch_77", NAME, journal.keys(llm, questions()))
    server.refused = True
    with pytest.raises(ServiceError, match="refuses the key: HTTP 401") as stop:
        journal.ask(llm, questions())
    assert "check the key" in stop.value.hint
    server.refused = False
    assert reasons(journal.ask(llm, questions())) == ALL and len(server.jobs) == 1


def test_jobs_are_split_at_the_limits_and_few_questions_go_out_interactively(server, monkeypatch):
    monkeypatch.setattr(OpenAIBatch, "most_requests", 8)
    journal = Journal()
    assert reasons(journal.ask(batch(server, journal), questions())) == ALL
    assert [len(job["asked"]) for job in server.jobs.values()] == [8, 8, 4]
    journal = Journal()
    assert len(journal.ask(batch(server, journal), questions(3))) == 3
    assert server.interactive == 3 and len(server.jobs) == 3


def test_a_line_of_many_megabytes_is_passed_over(server, monkeypatch):
    monkeypatch.setattr("pipeline.llm.backends.file._LINE", 1000)
    server.answers = lambda text, job: completion("x" * 2000 if text == "state 5" and job == "batch_0" else text)
    journal = Journal()
    assert reasons(journal.ask(batch(server, journal), questions())) == ALL
    assert [len(job["asked"]) for job in server.jobs.values()] == [20, 1]


def test_the_command_cancels_open_jobs_and_the_next_run_collects_what_they_answered(
    server, env, states, store, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LORE_DATASETS", str(store.root))
    monkeypatch.setattr(openai_batch.OpenAIBatch, "results", lambda *of: 1 / 0)  # the first run ends while it waits
    ask = AskConfig(backend="openai", model="m", base_url=f"{server.url}/v1", batch="file")
    config, path = PipelineConfig(ask=ask, advise=AdviseConfig(kinds="prior")), tmp_path / "j.sqlite"
    with Journal(path) as journal, pytest.raises(ZeroDivisionError):
        advise(states[:20], env, backend_from(ask, journal=journal), store, "a", config, journal)
    monkeypatch.undo()
    monkeypatch.setenv("LORE_DATASETS", str(store.root))
    words = ["advise", "--cancel", "--ask.backend", "openai", "--ask.model", "m", "--journal", str(path)]
    assert cli.main([*words, "--ask.base-url", ask.base_url, "--ask.batch", "file"]) == 0
    assert "cancelled 1 batch jobs with 20 questions" in capsys.readouterr().out
    assert [job["status"] for job in server.jobs.values()] == ["cancelled"]
    half = iter(range(1000))
    server.answers = lambda text, job: completion(text) if job != "batch_0" or next(half) % 2 else None
    with Journal(path) as journal:
        llm = backend_from(ask, journal=journal)
        llm.poll_s = 0.02
        ref = advise(states[:20], env, llm, store, "a", config, journal)
    assert store.manifest(ref).counts["rows"] == 20
    assert [len(job["asked"]) for job in server.jobs.values()] == [20, 10]


def test_a_backend_without_batches_is_named(capsys, own_datasets):
    assert cli.main(["advise", "--cancel"]) == ConfigError.exit_code
    assert "rules is asked without batch jobs" in capsys.readouterr().err
    for bad in ({"batch": "inline", "backend": "openai"}, {"batch": "file", "backend": "local"}):
        with pytest.raises(ConfigError, match="batch"):
            AskConfig(**bad)
